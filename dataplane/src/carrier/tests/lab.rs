//! For tests: the engine's state and a worker, and the real XDP program in a network namespace.

use std::ops::ControlFlow;
use std::process::Command;
use std::sync::Arc;
use std::thread;

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
use knockplane_ring::{Device, FastPath, FastPathSizes, LoadedProgram, XDP_REDIRECT, test_run};

use crate::fast_path::{FastPathSwitch, KernelFrames};
use crate::generation::Generation;

const MTU: usize = 1500;
/// Connections that are tracked.
const CONNECTIONS: usize = 64;

fn sizes() -> FastPathSizes {
    FastPathSizes { flows: [1024, 1024], epochs: 64, records: ConnectionTable::slots(CONNECTIONS), sources: 1 << 16 }
}

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// How many times as many sequences as usual are wanted.
pub(super) fn soak() -> u64 {
    std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Lists, rules and counters, and the worker.
pub(super) struct World {
    pub(super) state: State,
    pub(super) generation: Arc<Generation>,
    pub(super) decider: Decider,
    logged: LoggedPackets,
    settings: Settings,
    /// The counts of earlier rules are not compared again.
    number: u64,
}

impl World {
    pub(super) fn new(fast_path: &Arc<FastPathSwitch>, rules: &str, settings: Settings, now: Time) -> World {
        let mut state = State::with_secret(64, CONNECTIONS, [1, 2]).expect("a small state");
        if let Some(tables) = fast_path.tables() {
            state.set_fast_path(tables.epochs(), tables.records());
            let strangers = tables.strangers();
            state.set_known_sources(strangers.known_sources(), strangers.networks());
        }
        for (list, level) in [("temporary", 0), ("secured", 1), ("blocked", 1)] {
            state.lists.bind(list, level).expect("few lists");
        }
        let generation = compile(&state, (rules, &settings), 1, now, fast_path);
        fast_path.change(&generation.table, &generation.strangers, &state.lists, || ());
        let decider = Decider::new(headers::max_frame(MTU), 1);
        World { state, generation, decider, settings, logged: LoggedPackets::new(256), number: 1 }
    }

    pub(super) fn apply(&mut self, rules: &str, now: Time, fast_path: &Arc<FastPathSwitch>) {
        self.number += 1;
        let generation = compile(&self.state, (rules, &self.settings), self.number, now, fast_path);
        fast_path.change(&generation.table, &generation.strangers, &self.state.lists, || ());
        let replaced = std::mem::replace(&mut self.generation, generation);
        replaced.trails.end();
    }

    /// Decides about copies of a frame, which arrive together.
    pub(super) fn decide(&mut self, side: Side, frames: &[&[u8]], now: Time) -> Vec<Verdict> {
        let context = Context {
            table: &self.generation.table,
            state: &self.state,
            counters: &self.generation.counters[0],
            logged: &self.logged,
            wall: 0,
        };
        self.decider.decide(side, frames, now, context).iter().map(|decision| decision.verdict).collect()
    }

    /// The frames that the program has dropped under the present rules.
    pub(super) fn dropped_by_kernel(&self) -> u64 {
        let mut frames = KernelFrames::default();
        self.generation.trails.add_frames_to(&mut frames);
        Side::ALL.map(|side| frames.frames(Verdict::Drop, side)).iter().sum()
    }

    /// What the program does with a frame: the verdict, or `None` if the frame goes up.
    pub(super) fn by_kernel(&self, program: &Program, side: Side, frame: &[u8]) -> Option<Verdict> {
        let before = self.dropped_by_kernel();
        let device = &program.devices[side.index()];
        // A frame that goes up is dropped by the kernel, because no queue has a socket.
        match test_run(program.program.program(), device.index(), frame).expect("the kernel runs it") {
            XDP_REDIRECT => Some(Verdict::Forward),
            _ => (self.dropped_by_kernel() > before).then_some(Verdict::Drop),
        }
    }

    /// The counters of all rules and chains.
    pub(super) fn counters(&self) -> (Vec<Counter>, [Counter; 3]) {
        let mut rules = vec![Counter::default(); self.generation.rules().rules.len()];
        let mut chains = [Counter::default(); 3];
        self.generation.counters[0].add_rules_to(&mut rules);
        self.generation.counters[0].add_defaults_to(&mut chains);
        self.generation.trails.add_rules_to(&mut rules);
        self.generation.trails.add_defaults_to(&mut chains);
        (rules, chains)
    }

    /// The packets that rules logged since the last call.
    pub(super) fn logged_packets(&self) -> usize {
        std::iter::from_fn(|| self.logged.pop()).count()
    }

    /// The counts of doors, and the sources that they ignore.
    pub(super) fn doors(&self, now: Time) -> Vec<String> {
        let Some(visitors) = self.state.visitors() else { return Vec::new() };
        let counts = self.settings.doors.iter().map(|door| format!("{:?}", visitors.counts(&door.name).tally()));
        let mut ignored = Vec::new();
        visitors.visit_ignored(now, |_| None, |source| ignored.push(format!("{source:?}")));
        ignored.sort();
        counts.chain(ignored).collect()
    }

    /// The entries of the lists, and the connections.
    pub(super) fn contents(&self, now: Time) -> (Vec<String>, Vec<String>) {
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

fn compile(
    state: &State,
    (rules, settings): (&str, &Settings),
    number: u64,
    now: Time,
    fast_path: &Arc<FastPathSwitch>,
) -> Arc<Generation> {
    let reading = rsc::read(rules.as_bytes());
    let table = RuleTable::compile(Arc::new(reading.rules), settings, state, now);
    let mut table = table.unwrap_or_else(|error| panic!("{rules}{error}"));
    table.begin(state, now);
    Arc::new(Generation::new(number, now, String::new(), table, 1).with_fast_path(Arc::clone(fast_path), &state.lists))
}

/// The program in a network namespace.
pub(super) struct Program {
    devices: [Device; 2],
    program: LoadedProgram,
}

/// Runs a test with the program and its fast path, on a thread in a network namespace of its own, which ends with the thread.
fn with_program(test: impl FnOnce(&Program, &Arc<FastPathSwitch>) + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_namespace();
            let made = Command::new("ip").args("link add dev one type veth peer name two".split(' ')).status();
            assert!(made.expect("ip runs").success());
            let devices = ["one", "two"].map(|name| Device::open(name).expect("the interface exists"));
            let max_frame = headers::max_frame(MTU) as u32;
            let both = [&devices[0], &devices[1]];
            let tables = FastPath::create(both, &sizes(), 1, 7, max_frame).expect("maps can be created, as root");
            let program = LoadedProgram::load(both, 1, max_frame).and_then(|program| program.with_fast_path(&tables));
            let program = program.expect("programs can be loaded, as root");
            tables.strangers().set_samples(0);
            test(&Program { devices, program }, &Arc::new(FastPathSwitch::for_tests(tables)));
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Programs that run sequences at the same time: a sequence mostly waits for grace periods of the kernel.
const PROGRAMS: u64 = 8;

/// Compares this number of sequences, with and without the fast path. Returns the sums of the counts of `compare`, which has the
/// number of the sequence and the time.
pub(super) fn sequences<const N: usize>(
    count: u64,
    compare: fn(&Program, &Arc<FastPathSwitch>, u64, &mut Time) -> [u64; N],
) -> [u64; N] {
    let run = |first: u64| {
        let mut sums = [0; N];
        with_program(|program, fast_path| {
            let mut now = Time::from_nanos(1_000_000_000);
            for number in (first..count).step_by(PROGRAMS as usize) {
                let counts = compare(program, fast_path, number, &mut now);
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        });
        sums
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..PROGRAMS).map(|first| scope.spawn(move || run(first))).collect();
        threads.into_iter().fold([0; N], |mut sums, thread| {
            let of_thread = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sums.iter_mut().zip(of_thread).for_each(|(sum, count)| *sum += count);
            sums
        })
    })
}

fn enter_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("network namespaces need root");
}
