//! The whole decision, by batches: headers, rules, lists, counters. The rules are `configs/two-ports.rsc` after rules
//! that match no frame of the workload, or a strict door with the same knocks and no rules.
//!
//! Before each batch, every frame gets another source, which is part of the measurement. `decide/nothing` measures this
//! part alone.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use knockplane_engine::pipeline::counters::RuleCounters;
use knockplane_engine::pipeline::{Context, Decider, Decision};
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::table::RuleTable;
use knockplane_policy::door::Door;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;

use super::headers::{MAX_FRAME, SOURCE, tcp_to};
use super::lists::{Size, State, client, knocker, new_source};
use super::{BATCH, Random, Work, Workload};

const TWO_PORTS: &str = include_str!("../../../configs/two-ports.rsc");
const TWO_PORTS_RULES: u32 = 4;

/// A strict door with the knocks of `configs/two-ports.rsc`.
const DOOR: &str = r#"
name = "two-ports"
knock = ["tcp/1234", "tcp/4321"]
for = "1m"
"#;

/// The time of one round of all knocking sources. It is longer than the lifetime of their entries, so that each knock
/// is a first one again.
const ROUND: Duration = Duration::from_secs(62);

/// Number of consecutive packets of one source: the burst that the window of a TCP sender allows.
const SEQUENCE: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// Packets of clients that have knocked, to a service.
    Accept,
    /// As [`Traffic::Accept`], with several consecutive packets of each client.
    Sequence,
    /// Packets of new sources, to a service.
    Unknown,
    /// First and second knock in turns; the second one admits the source.
    Knock,
    /// First knocks of new sources, each of which evicts another one from the lists.
    Spoofed,
    /// As [`Traffic::Spoofed`], at a strict door instead of rules.
    DoorFirstStep,
    /// As [`Traffic::Unknown`], without decisions.
    Nothing,
}

/// Workloads on lists with room, and on full ones. Many rules run on lists of one size only, because the two costs add up.
pub(super) fn workloads(size: &Size) -> (Vec<Workload<'_>>, Vec<Workload<'_>>) {
    let counts: &[u32] = if size.is_middle() { &[TWO_PORTS_RULES, 10, 100, 1_000, 10_000] } else { &[TWO_PORTS_RULES] };
    let of = |traffic, name| counts.iter().map(move |rules| workload(size, traffic, name, *rules));
    let nothing = size.is_middle().then(|| {
        let prepare = || Batches::new(size, size.almost_full(), Traffic::Nothing, TWO_PORTS_RULES);
        Workload::new("decide/nothing".to_owned(), prepare)
    });
    let sequence = workload(size, Traffic::Sequence, "accept-train", TWO_PORTS_RULES);
    let open = of(Traffic::Accept, "accept").chain(of(Traffic::Unknown, "unknown")).chain(of(Traffic::Knock, "knock"));
    let door = Workload::new(format!("decide/door-first-step/{}", size.label), || {
        Batches::new(size, size.full(), Traffic::DoorFirstStep, 0)
    });
    // The door comes last, because connections are tracked from then on.
    let full = of(Traffic::Spoofed, "spoofed").chain([door]);
    (nothing.into_iter().chain([sequence]).chain(open).collect(), full.collect())
}

fn workload<'a>(size: &'a Size, traffic: Traffic, name: &str, rules: u32) -> Workload<'a> {
    let prepare = move || {
        let state = if traffic == Traffic::Spoofed { size.full() } else { size.almost_full() };
        Batches::new(size, state, traffic, rules)
    };
    let name = format!("decide/{name}/{rules}-rules/{}", size.label);
    Workload::new(name, prepare)
}

/// Batches of frames of one kind, and the state that decides them.
struct Batches<'a> {
    traffic: Traffic,
    frames: [[u8; 60]; BATCH],
    random: Random,
    knockers: u32,
    knocks: u32,
    state: &'a State,
    table: RuleTable,
    counters: RuleCounters,
    logged: LoggedPackets,
    decider: Decider,
}

impl<'a> Batches<'a> {
    fn new(size: &Size, state: &'a State, traffic: Traffic, rules: u32) -> Batches<'a> {
        let (rules, settings) = match traffic {
            Traffic::DoorFirstStep => (RuleSet::default(), door_settings()),
            _ => (rule_set(rules), Settings::default()),
        };
        let port = |index| match traffic {
            Traffic::Accept | Traffic::Sequence | Traffic::Unknown | Traffic::Nothing => 22,
            Traffic::Knock => [1234, 4321][index % 2],
            Traffic::Spoofed | Traffic::DoorFirstStep => 1234,
        };
        let table = RuleTable::compile(Arc::new(rules), &settings, &state.engine, state.now()).expect("rules that run");
        let mut batches = Batches {
            traffic,
            frames: std::array::from_fn(|index| tcp_to(port(index))),
            random: Random(6),
            knockers: size.knockers(),
            knocks: 0,
            state,
            counters: RuleCounters::new(table.rules().rules.len()),
            table,
            logged: LoggedPackets::new(BATCH),
            decider: Decider::new(MAX_FRAME, 0),
        };
        // Removes the sources that knocked for another workload.
        state.pass(if traffic == Traffic::Knock { ROUND } else { Duration::ZERO });
        batches.put_sources();
        for (index, decision) in batches.decide().iter().enumerate() {
            let passes = match traffic {
                Traffic::Accept | Traffic::Sequence => true,
                Traffic::Knock => index % 2 == 1,
                Traffic::Unknown | Traffic::Spoofed | Traffic::DoorFirstStep | Traffic::Nothing => false,
            };
            assert_eq!(decision.verdict, if passes { Verdict::Forward } else { Verdict::Drop });
        }
        batches
    }

    fn put_sources(&mut self) {
        let mut source = [0; 4];
        for index in 0..BATCH {
            if self.traffic != Traffic::Sequence || index % SEQUENCE == 0 {
                source = self.source(index as u32).octets();
            }
            self.frames[index][SOURCE].copy_from_slice(&source);
        }
    }

    fn source(&mut self, index: u32) -> Ipv4Addr {
        match self.traffic {
            Traffic::Accept | Traffic::Sequence => client(self.random.below(self.state.clients)),
            Traffic::Unknown | Traffic::Spoofed | Traffic::DoorFirstStep | Traffic::Nothing => {
                new_source(&mut self.random)
            }
            Traffic::Knock => knocker((self.knocks + index / 2) % self.knockers),
        }
    }

    fn decide(&mut self) -> &[Decision] {
        let Batches { frames, state, table, counters, logged, decider, .. } = self;
        let frames: [&[u8]; BATCH] = std::array::from_fn(|index| &frames[index][..]);
        let context = Context { table, state: &state.engine, counters, logged, wall: 0 };
        decider.decide(Side::Outside, &frames, state.now(), context)
    }

    /// Advances the time, so that the entries of the next knocking source have expired.
    fn next_knocks(&mut self) {
        let knocks = BATCH as u32 / 2;
        self.knocks = (self.knocks + knocks) % self.knockers;
        self.state.pass(ROUND * knocks / self.knockers);
    }
}

impl Work for Batches<'_> {
    fn run(&mut self) {
        self.put_sources();
        if self.traffic == Traffic::Nothing {
            black_box(&self.frames);
            return;
        }
        black_box(self.decide());
        if self.traffic == Traffic::Knock {
            self.next_knocks();
        }
    }
}

fn door_settings() -> Settings {
    let door: Door = toml::from_str(DOOR).expect("a valid door");
    assert!(door.strict);
    Settings { doors: vec![door], ..Settings::default() }
}

/// A rule set of `count` rules, whose last rules are those of the two knocks.
pub(super) fn rule_set(count: u32) -> RuleSet {
    let mut text = "/ip firewall filter\n".to_owned();
    for number in 0..count.saturating_sub(TWO_PORTS_RULES) {
        let port = 20_000 + number % 20_000;
        let matchers = match number % 3 {
            0 => format!("src-address=198.18.{}.{}", number >> 8, number & 0xff),
            1 => format!("protocol=udp dst-port={port}"),
            _ => format!("protocol=tcp dst-port={port}"),
        };
        text += &format!("add chain=input action=drop {matchers}\n");
    }
    let reading = rsc::read((text + TWO_PORTS).as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems.first());
    assert_eq!(reading.rules.rules.len(), count as usize);
    reading.rules
}
