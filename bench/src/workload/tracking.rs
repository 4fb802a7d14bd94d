//! Connections: packets of tracked connections, at random, and packets of new sources that would begin a connection and are
//! dropped. The rules are the usual first two of a router.

use std::hint::black_box;
use std::sync::Arc;

use knockplane_engine::pipeline::counters::RuleCounters;
use knockplane_engine::pipeline::{Context, Decider, Decision};
use knockplane_engine::state::State;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::table::RuleTable;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::headers::{MAX_FRAME, SOURCE, tcp_to};
use super::{BATCH, Random, Work, Workload};

const RULES: &str = "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input connection-state=new protocol=tcp dst-port=22 action=drop
";

/// Offsets in a frame of [`tcp_to`]: destination address, ports, sequence numbers, TCP flags.
const DESTINATION: std::ops::Range<usize> = 30..34;
const PORTS: std::ops::Range<usize> = 34..38;
const SEQUENCE: std::ops::Range<usize> = 38..42;
const ACKNOWLEDGEMENT: std::ops::Range<usize> = 42..46;
const FLAGS: usize = 47;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    let sizes = [("1k", 1 << 10), ("100k", 1 << 17), ("1M", 1 << 20)];
    let known = sizes.map(|(label, flows)| {
        Workload::new(format!("tracking/established/{label}"), move || ConnectionWorkload::new(flows, true))
    });
    let new = Workload::new("tracking/new/100k".to_owned(), || ConnectionWorkload::new(1 << 17, false));
    known.into_iter().chain([new]).collect()
}

struct ConnectionWorkload {
    frames: [[u8; 60]; BATCH],
    random: Random,
    flows: u32,
    known: bool,
    state: State,
    table: RuleTable,
    counters: RuleCounters,
    logged: LoggedPackets,
    decider: Decider,
}

impl ConnectionWorkload {
    fn new(flows: u32, known: bool) -> ConnectionWorkload {
        let rules = rsc::read(RULES.as_bytes()).rules;
        let state = State::with_secret(1, flows as usize, [1, 2]).expect("memory for the connections");
        let counters = RuleCounters::new(rules.rules.len());
        let table = RuleTable::compile(Arc::new(rules), &Settings::default(), &state, Time::default());
        let mut connections = ConnectionWorkload {
            frames: std::array::from_fn(|_| tcp_to(22)),
            random: Random(6),
            flows,
            known,
            state,
            table: table.expect("rules that run"),
            counters,
            logged: LoggedPackets::new(BATCH),
            decider: Decider::new(MAX_FRAME, 0),
        };
        if known {
            for first in (0..flows).step_by(BATCH) {
                // Packets from inside, because a dropped packet begins no connection.
                for (side, flags) in [(Side::Inside, SYN), (Side::Outside, SYN | ACK), (Side::Inside, ACK)] {
                    (0..BATCH).for_each(|index| connections.put(index, side, first + index as u32, flags));
                    connections.decide(side);
                }
            }
        }
        connections.put_all();
        let expected = if known { Verdict::Forward } else { Verdict::Drop };
        assert!(connections.decide(Side::Outside).iter().all(|decision| decision.verdict == expected));
        connections
    }

    /// A packet of a connection: from outside or, as an answer, from inside.
    fn put(&mut self, index: usize, side: Side, connection: u32, flags: u8) {
        let client = (0x0a00_0000 + connection).to_be_bytes();
        let server = [203, 0, 113, 1];
        let (source, destination, ports) = match side {
            Side::Outside => (client, server, [156, 64, 0, 22]),
            Side::Inside => (server, client, [0, 22, 156, 64]),
        };
        let frame = &mut self.frames[index];
        frame[SOURCE].copy_from_slice(&source);
        frame[DESTINATION].copy_from_slice(&destination);
        frame[PORTS].copy_from_slice(&ports);
        // Both ends have sent only their SYN.
        let (sequence, acknowledgement) = (u32::from(flags & SYN == 0), u32::from(flags & ACK != 0));
        frame[SEQUENCE].copy_from_slice(&sequence.to_be_bytes());
        frame[ACKNOWLEDGEMENT].copy_from_slice(&acknowledgement.to_be_bytes());
        frame[FLAGS] = flags;
    }

    fn put_all(&mut self) {
        for index in 0..BATCH {
            let (connection, flags) = match self.known {
                true => (self.random.below(self.flows), ACK),
                false => (self.random.below(1 << 24), SYN),
            };
            self.put(index, Side::Outside, connection, flags);
        }
    }

    fn decide(&mut self, side: Side) -> &[Decision] {
        let ConnectionWorkload { frames, state, table, counters, logged, decider, .. } = self;
        let frames: [&[u8]; BATCH] = std::array::from_fn(|index| &frames[index][..]);
        let context = Context { table, state, counters, logged, wall: 0 };
        decider.decide(side, &frames, Time::from_nanos(1), context)
    }
}

impl Work for ConnectionWorkload {
    fn run(&mut self) {
        self.put_all();
        black_box(self.decide(Side::Outside));
    }
}
