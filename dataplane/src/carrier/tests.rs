//! The same frames with and without the fast path: the real XDP program, by test runs of the kernel, and the engine.
//!
//! Two worlds receive the same frames and the same changes. In one of them the engine decides about each frame. In the other
//! one the program receives each frame first, and the engine decides about those that come up. Verdicts, counters of
//! rules and chains, lists and connections must be equal.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use knockplane_engine::headers;
use knockplane_engine::pipeline::{Context, Decider};
use knockplane_engine::state::State;
use knockplane_engine::state::connections::ConnectionTable;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::table::RuleTable;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::Counter;
use knockplane_ring::{Device, FastPathSizes, LoadedProgram, XDP_REDIRECT, test_run};

use super::Carrier;
use crate::fast_path::FastPathSwitch;
use crate::generation::Generation;

const MTU: usize = 1500;
/// Connections that are tracked.
const CONNECTIONS: usize = 64;

fn sizes() -> FastPathSizes {
    FastPathSizes { flows: [1024, 1024], epochs: 64, records: ConnectionTable::slots(CONNECTIONS) }
}

/// Rules, of which each rule set has some, in a random order, before the last one.
const RULES: [&str; 18] = [
    "add chain=input connection-state=established,related action=accept",
    "add chain=input connection-state=established action=fasttrack-connection",
    "add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=10s",
    "add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list address-list=secured \
     address-list-timeout=30s",
    "add chain=input src-address-list=secured action=accept",
    "add chain=input src-address-list=secured action=accept",
    "add chain=input dst-address-list=secured action=accept",
    "add chain=input protocol=udp src-address-list=!secured dst-port=53 action=accept",
    "add chain=input protocol=udp dst-port=53 action=accept",
    "add chain=input packet-size=0-60 action=passthrough",
    "add chain=input connection-state=established action=accept",
    "add chain=input protocol=tcp tcp-flags=syn dst-port=22 action=drop",
    "add chain=input src-address-list=blocked action=drop",
    "add chain=input dst-address-list=blocked src-address-list=!secured action=drop",
    "add chain=input limit=5,5:packet protocol=tcp action=accept",
    "add chain=input protocol=udp dst-port=123 log=yes action=accept",
    "add chain=input protocol=tcp action=jump jump-target=tcp",
    "add chain=input protocol=udp action=add-dst-to-address-list address-list=blocked address-list-timeout=2s dst-port=99",
];

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn rules(&mut self) -> String {
        let mut text = "/ip firewall filter\n".to_owned();
        if self.below(2) == 0 {
            text += "add chain=input connection-state=established,related action=accept\n";
            text += self.one_of(&["add chain=input connection-state=invalid action=drop\n", ""]);
        }
        for _ in 0..1 + self.below(7) {
            text += self.one_of(&RULES);
            text.push('\n');
        }
        text += self.one_of(&["add chain=input src-address-list=secured action=accept\n", ""]);
        text += "add chain=tcp dst-port=22 src-address-list=secured action=accept\n";
        text += self.one_of(&["add chain=input action=drop\n", "add chain=input action=accept\n", ""]);
        text += "/ip firewall address-list\nadd list=blocked address=192.0.2.4\n";
        text + "add list=secured address=192.0.2.3 timeout=20s\nadd list=temporary address=198.51.100.0/24\n"
    }
}

const ADDRESSES: [[u8; 4]; 5] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3], [192, 0, 2, 4], [203, 0, 113, 5]];

/// A frame of a few flows, and sometimes with changed bytes.
fn frame(numbers: &mut Numbers) -> Vec<u8> {
    let source = numbers.one_of(&[ADDRESSES[0], ADDRESSES[0], ADDRESSES[1], ADDRESSES[2], ADDRESSES[3], ADDRESSES[4]]);
    let destination = numbers.one_of(&ADDRESSES);
    let is_tcp = numbers.below(2) == 0;
    let port: u16 = if is_tcp { numbers.one_of(&[1234, 4321, 22]) } else { numbers.one_of(&[53, 123, 99, 7]) };
    let payload = numbers.one_of(&[0_usize, 0, 0, 4, 300]);
    let transport: Vec<u8> = if is_tcp {
        let flags = numbers.one_of(&[0x02, 0x10, 0x10, 0x18, 0x11, 0x04]);
        [&[0x9c, 0x40][..], &port.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]].concat()
    } else {
        let length = 8 + payload as u16;
        [&[0x9c, 0x40][..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0]].concat()
    };
    let protocol = if is_tcp { 6 } else { 17 };
    let length = (transport.len() + payload) as u16;
    let mut frame = vec![2; 12];
    if numbers.below(5) == 0 {
        frame.extend([0x81, 0, numbers.one_of(&[0, 0x60]), numbers.one_of(&[0, 7, 9])]);
    }
    if numbers.below(4) > 0 {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(source.into_iter().chain(destination));
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([protocol, 64]);
        for address in [source, destination] {
            frame.extend([&[0x20, 1, 0xd, 0xb8][..], &[0; 8], &address].concat());
        }
    }
    frame.extend(transport);
    frame.resize(frame.len() + payload, 0x2e);
    if numbers.below(8) == 0 {
        let at = 12 + numbers.below(frame.len() - 12);
        frame[at] = numbers.below(256) as u8;
    }
    frame
}

/// A TCP connection between a client outside and a server inside, with valid segments and others.
struct Conversation {
    port: u16,
    /// The next sequence number of each end.
    next: [u32; 2],
    /// Segments of the handshake that were sent.
    opened: u8,
}

impl Conversation {
    fn new(numbers: &mut Numbers) -> Conversation {
        let next = [0; 2].map(|_: u32| numbers.one_of(&[1, 0x7fff_ff00, 0xffff_ff80]));
        Conversation { port: 40_000 + numbers.below(4) as u16, next, opened: 0 }
    }

    /// The next segment, and the side that it arrives on.
    fn segment(&mut self, numbers: &mut Numbers) -> (Vec<u8>, Side) {
        const SCALE: [u8; 4] = [1, 3, 3, 7];
        let (from, flags, payload, options): (usize, u8, usize, Vec<u8>) = match self.opened {
            0 => (0, 0x02, 0, SCALE.to_vec()),
            1 => (1, 0x12, 0, SCALE.to_vec()),
            2 => (0, 0x10, 0, Vec::new()),
            _ => {
                let end = numbers.one_of(&[0x10, 0x10, 0x18, 0x10, 0x18, 0x10, 0x18, 0x10, 0x11, 0x04, 0x02, 0x00]);
                let flags = if numbers.below(6) == 0 { end } else { 0x10 };
                let timestamps = [&[1, 1, 8, 10][..], &[7; 8]].concat();
                let sack = [&[1, 1, 5, 10][..], &self.next[0].to_be_bytes(), &self.next[1].to_be_bytes()].concat();
                let options = match numbers.below(8) {
                    0..4 => Vec::new(),
                    4..7 => timestamps,
                    _ => sack,
                };
                (numbers.below(2), flags, numbers.one_of(&[0, 0, 10, 1_400]), options)
            }
        };
        let (mut sequence, mut acknowledgement) = (self.next[from], self.next[1 - from]);
        let is_open = self.opened > 2;
        if is_open && numbers.below(5) == 0 {
            let far = numbers.one_of(&[1, 50, 1_000, 70_000, 200_000, 0x4000_0000]);
            let ahead = numbers.below(2) == 0;
            let number = if numbers.below(2) == 0 { &mut sequence } else { &mut acknowledgement };
            *number = if ahead { number.wrapping_add(far) } else { number.wrapping_sub(far) };
        } else {
            let marks = u32::from(flags & 0x03 != 0);
            self.next[from] = sequence.wrapping_add(payload as u32 + marks);
            self.opened = self.opened.saturating_add(1);
        }
        if flags == 0x02 {
            acknowledgement = 0;
        }
        if is_open && flags & 0x07 != 0 && numbers.below(2) == 0 {
            *self = Conversation::new(numbers);
        }
        let offset = (20 + options.len() as u8) / 4 * 16;
        let [one, other] = if from == 0 { [self.port, 22] } else { [22, self.port] };
        let window = numbers.one_of(&[0_u16, 1, 500, 0x2000]);
        let mut segment = [one.to_be_bytes(), other.to_be_bytes()].concat();
        segment.extend(sequence.to_be_bytes().into_iter().chain(acknowledgement.to_be_bytes()));
        segment.extend([offset, flags]);
        segment.extend(window.to_be_bytes());
        segment.extend([0, 0, 0, 0]);
        segment.extend(options);
        segment.resize(segment.len() + payload, 0x2e);
        let addresses = if from == 0 { [ADDRESSES[0], ADDRESSES[4]] } else { [ADDRESSES[4], ADDRESSES[0]] };
        let mut frame = [&[2; 12][..], &[0x08, 0x00, 0x45, 0]].concat();
        frame.extend((20 + segment.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(addresses.concat());
        frame.extend(segment);
        (frame, if from == 0 { Side::Outside } else { Side::Inside })
    }
}

/// Lists, rules and counters, and the worker.
struct World {
    state: State,
    generation: Arc<Generation>,
    decider: Decider,
    logged: LoggedPackets,
    /// The counts of earlier rules are not compared again.
    number: u64,
}

impl World {
    fn new(fast_path: &Arc<FastPathSwitch>, rules: &str) -> World {
        let mut state = State::with_secret(64, CONNECTIONS, [1, 2]).expect("a small state");
        if let Some(tables) = fast_path.tables() {
            state.set_fast_path(tables.epochs(), tables.records());
        }
        for list in ["temporary", "secured", "blocked"] {
            state.lists.bind(list, 1).expect("few lists");
        }
        let generation = compile(&state, rules, 1, Time::from_nanos(1), fast_path);
        fast_path.follow(generation.rules());
        let decider = Decider::new(headers::max_frame(MTU), 1);
        World { state, generation, decider, logged: LoggedPackets::new(4), number: 1 }
    }

    fn apply(&mut self, rules: &str, now: Time, fast_path: &Arc<FastPathSwitch>) {
        self.number += 1;
        let generation = compile(&self.state, rules, self.number, now, fast_path);
        fast_path.follow(generation.rules());
        let replaced = fast_path.change(|| std::mem::replace(&mut self.generation, generation));
        replaced.trails.end();
    }

    /// Decides about copies of a frame, which arrive together.
    fn decide(&mut self, side: Side, frames: &[&[u8]], now: Time) -> Vec<Verdict> {
        let context = Context {
            table: &self.generation.table,
            state: &self.state,
            counters: &self.generation.counters[0],
            logged: &self.logged,
            wall: 0,
        };
        self.decider.decide(side, frames, now, context).iter().map(|decision| decision.verdict).collect()
    }

    /// The counters of all rules and chains.
    fn counters(&self) -> (Vec<Counter>, [Counter; 3]) {
        let mut rules = vec![Counter::default(); self.generation.rules().rules.len()];
        let mut chains = [Counter::default(); 3];
        self.generation.counters[0].add_rules_to(&mut rules);
        self.generation.counters[0].add_defaults_to(&mut chains);
        self.generation.trails.add_rules_to(&mut rules);
        self.generation.trails.add_defaults_to(&mut chains);
        (rules, chains)
    }

    /// The entries of the lists, and the connections.
    fn contents(&self, now: Time) -> (Vec<String>, Vec<String>) {
        let mut entries = Vec::new();
        self.state.lists.visit(now, |entry| {
            entries.push(format!("{:?} {} {:?} {:?}", entry.list, entry.address, entry.vlan, entry.expiry));
        });
        entries.sort();
        let mut connections = Vec::new();
        if let Some(table) = self.state.connections() {
            table.walk(0, usize::MAX, now, |connection| {
                connections.push(format!("{connection:?}"));
                ControlFlow::Continue(())
            });
        }
        connections.sort();
        (entries, connections)
    }
}

fn compile(state: &State, rules: &str, number: u64, now: Time, fast_path: &Arc<FastPathSwitch>) -> Arc<Generation> {
    let reading = rsc::read(rules.as_bytes());
    let table = RuleTable::compile(Arc::new(reading.rules), &Settings::default(), state, now);
    let mut table = table.unwrap_or_else(|error| panic!("{rules}{error}"));
    table.begin(state, now);
    Arc::new(Generation::new(number, now, String::new(), table, 1).with_fast_path(Arc::clone(fast_path)))
}

/// The program in a network namespace, and its fast path.
struct Program {
    devices: [Device; 2],
    program: LoadedProgram,
}

impl Program {
    fn carries(&self, side: Side, frame: &[u8]) -> bool {
        let device = &self.devices[side.index()];
        test_run(self.program.program(), device.index(), frame).expect("the kernel runs it") == XDP_REDIRECT
    }
}

/// Runs a test on a thread in a network namespace of its own, which ends with the thread.
fn with_program(test: impl FnOnce(&Program) + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_namespace();
            let made = Command::new("ip").args("link add dev one type veth peer name two".split(' ')).status();
            assert!(made.expect("ip runs").success());
            let devices = ["one", "two"].map(|name| Device::open(name).expect("the interface exists"));
            let max_frame = headers::max_frame(MTU) as u32;
            let program = LoadedProgram::load([&devices[0], &devices[1]], 1, max_frame, Some(sizes()));
            test(&Program { devices, program: program.expect("programs can be loaded, as root") });
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn switch(program: &Program) -> Arc<FastPathSwitch> {
    let tables = program.program.fast_path(7).expect("maps").expect("a fast path was requested");
    Arc::new(FastPathSwitch::for_tests(tables))
}

/// A change of the lists in both worlds.
fn change_lists(numbers: &mut Numbers, worlds: [&World; 2], now: Time) {
    let list = numbers.one_of(&["secured", "secured", "temporary", "blocked"]);
    let address = IpAddr::from(numbers.one_of(&ADDRESSES[..2]));
    let kind = numbers.below(10);
    let expiry = now + Duration::from_secs(1 + numbers.below(10) as u64);
    for World { state, .. } in worlds {
        let lists = &state.lists;
        let id = lists.id(list).expect("it is bound");
        match kind {
            0..5 => _ = lists.add(id, address, expiry, now),
            5..7 => _ = lists.remove(id, address, now),
            7 => _ = lists.flush(id, now),
            8 => lists.set_static_entries([(id, (address, address), Some(expiry))].into_iter()),
            _ => lists.set_static_entries(std::iter::empty()),
        }
    }
}

/// One sequence of frames and changes. Returns the number of carried frames, and of those that are part of a connection.
fn compare(program: &Program, fast_path: &Arc<FastPathSwitch>, seed: u64) -> [u64; 2] {
    let numbers = &mut Numbers(seed);
    let off = &Arc::new(FastPathSwitch::off("it is off".to_owned()));
    let rules = numbers.rules();
    let (mut without, mut with) = (World::new(off, &rules), World::new(fast_path, &rules));
    let mut carrier = Carrier::new(Arc::clone(fast_path), 0);
    let tables = fast_path.tables().expect("it has tables");
    let mut frames: Vec<_> = (0..6).map(|_| (frame(numbers), numbers.one_of(&Side::ALL))).collect();
    let mut conversations = [0; 2].map(|_: u8| Conversation::new(numbers));
    let (mut now, mut carried) = (Time::from_nanos(1_000_000_000), [0; 2]);
    for step in 0..120 {
        now = now + Duration::from_millis(numbers.one_of(&[0, 0, 1, 400, 3_000]));
        match numbers.below(20) {
            0..3 => change_lists(numbers, [&without, &with], now),
            3 => {
                let new = numbers.below(frames.len());
                frames[new] = (frame(numbers), numbers.one_of(&Side::ALL));
            }
            4 if numbers.below(4) == 0 => {
                assert_eq!(without.counters(), with.counters(), "seed {seed}, step {step}:\n{rules}");
                let rules = numbers.rules();
                without.apply(&rules, now, off);
                with.apply(&rules, now, fast_path);
            }
            _ => {}
        }
        let talks = numbers.below(2) == 0;
        let segment = talks.then(|| conversations[numbers.below(2)].segment(numbers));
        let (frame, side) = segment.as_ref().unwrap_or(&frames[numbers.below(frames.len())]);
        let copies = vec![&frame[..]; 1 + numbers.below(3)];
        let expected = without.decide(*side, &copies, now);
        tables.set_clock(now);
        let up: Vec<_> = copies.iter().filter(|frame| !program.carries(*side, frame)).copied().collect();
        let new = (copies.len() - up.len()) as u64;
        carried[0] += new;
        carried[1] += if talks && with.generation.table.tracks() { new } else { 0 };
        carrier.begin(&mut with.decider);
        let mut verdicts = vec![Verdict::Forward; copies.len() - up.len()];
        let decided = with.decide(*side, &up, now);
        let forwarded = decided.iter().enumerate();
        let forwarded = forwarded.fold(0, |bits, (at, verdict)| bits | u64::from(*verdict == Verdict::Forward) << at);
        carrier.collect(*side, &up, &with.decider, forwarded);
        carrier.write(&with.generation, &with.state, now);
        verdicts.extend(decided);
        assert_eq!(verdicts, expected, "seed {seed}, step {step}: {side} {frame:02x?}\n{rules}");
    }
    assert_eq!(without.counters(), with.counters(), "seed {seed}:\n{rules}");
    assert_eq!(without.contents(now), with.contents(now), "seed {seed}:\n{rules}");
    with.apply("", now, fast_path);
    carried
}

#[test]
fn the_fast_path_changes_no_verdict_no_counter_and_no_state() {
    with_program(|program| {
        let fast_path = switch(program);
        let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
        let mut carried = [0, 0];
        for seed in 0..300 * soak {
            let new = compare(program, &fast_path, seed);
            carried = [carried[0] + new[0], carried[1] + new[1]];
        }
        let [all, tracked] = carried;
        eprintln!("the program carried {all} frames, {tracked} of them segments of tracked connections");
        assert!(all > 2_000 && tracked > 500, "the program carried {all} frames, {tracked} of them segments");
    });
}

fn enter_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("network namespaces need root");
}
