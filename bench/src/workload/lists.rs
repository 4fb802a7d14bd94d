//! The address lists alone, and the state for measurements of decisions.
//!
//! ```text
//! almost full   [ clients: four fifths, in `secured`, level 1          |             free              ]
//! full          [ clients                                              | first knocks in `temporary`, 0 ]
//! ```
//! Addresses are selected at random from all addresses, so that caches have the least effect. Clients have addresses
//! from 10.0.0.0 on, new sources any of 64.0.0.0/2, and knocking sources addresses from 11.0.0.0 on.

use std::cell::{Cell, OnceCell};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use knockplane_engine::state::State as Engine;
use knockplane_engine::state::lists::{AddOutcome, ListId};
use knockplane_policy::time::Time;

use super::{BATCH, RUNS, Random, Work, Workload};

/// Lists of one size, filled when they are first needed.
pub(crate) struct Size {
    pub(super) label: &'static str,
    entries: usize,
    state: OnceCell<State>,
}

impl Size {
    /// The sizes, ascending: one shard; 64 shards that fit a cache; the capacity of the default configuration, 70 MB,
    /// more than most caches; and 700 MB, more than any cache, which take some ten seconds to fill.
    pub(crate) fn all() -> [Size; 4] {
        let sizes = [("1k", SMALL), ("100k", MIDDLE), ("1M", DEFAULT), ("10M", LARGE)];
        sizes.map(|(label, entries)| Size::new(label, entries))
    }

    fn new(label: &'static str, entries: usize) -> Size {
        Size { label, entries, state: OnceCell::new() }
    }

    /// The lists, with room for an eighth of them.
    pub(super) fn almost_full(&self) -> &State {
        let state = self.state.get_or_init(|| State::new(self.entries));
        assert!(!state.full.get(), "workloads on full lists come last");
        state
    }

    /// The lists, without room.
    pub(super) fn full(&self) -> &State {
        let state = self.state.get_or_init(|| State::new(self.entries));
        if !state.full.get() {
            state.fill();
        }
        state.sweep_all();
        state
    }

    /// Number of sources that knock in turn, so that their entries fit.
    pub(super) fn knockers(&self) -> u32 {
        self.entries as u32 / 32
    }

    /// Runs of a batch of new entries that fit.
    fn additions(&self) -> u32 {
        RUNS.min((self.entries / 16 / BATCH) as u32)
    }

    pub(super) fn is_middle(&self) -> bool {
        self.entries == MIDDLE
    }
}

/// Slots that a sweep visits under one lock. The capacities of shards are multiples of it, so that a sweep of all slots
/// visits each once.
const STEP: usize = 512;

const SMALL: usize = 2 * STEP;
const MIDDLE: usize = 192 * STEP;
const DEFAULT: usize = 1_984 * STEP;
const LARGE: usize = 19_520 * STEP;

/// The capacity of connections, as in the configuration.
const CONNECTIONS: usize = 100_000;

/// Lifetime of first knocks.
const FIRST_KNOCK: Duration = Duration::from_secs(10);

/// A time after every other time of the workload.
const FAR: Time = Time::from_nanos(u64::MAX / 2);

/// Lists of one size, and their contents.
pub(super) struct State {
    pub(super) engine: Engine,
    pub(super) clients: u32,
    temporary: ListId,
    secured: ListId,
    now: Cell<Time>,
    full: Cell<bool>,
}

impl State {
    fn new(entries: usize) -> State {
        let engine = Engine::with_secret(entries, CONNECTIONS, [1, 2]).expect("memory for the lists");
        let lists = &engine.lists;
        assert_eq!(lists.capacity(), entries, "a size that shards divide");
        let [temporary, secured] =
            [("temporary", 0), ("secured", 1)].map(|(name, level)| lists.bind(name, level).expect("room for two"));
        let (clients, now) = (entries as u32 / 5 * 4, Time::from_nanos(1));
        for number in 0..clients {
            lists.add(secured, client(number).into(), FAR, now);
        }
        State { engine, clients, temporary, secured, now: Cell::new(now), full: Cell::new(false) }
    }

    pub(super) fn now(&self) -> Time {
        self.now.get()
    }

    pub(super) fn pass(&self, duration: Duration) {
        self.now.set(self.now() + duration);
    }

    /// Fills all remaining slots with first knocks that have not expired.
    fn fill(&self) {
        self.pass(Duration::from_secs(3600));
        self.sweep_all();
        let mut random = Random(self.now().as_nanos());
        let capacity = self.engine.lists.capacity() as u64;
        while self.engine.lists.summaries().iter().map(|list| list.entries).sum::<u64>() < capacity {
            for _ in 0..STEP {
                let expiry = self.now() + FIRST_KNOCK;
                self.engine.lists.add(self.temporary, new_source(&mut random).into(), expiry, self.now());
            }
        }
        self.full.set(true);
    }

    /// Removes all expired entries, from any position of the sweep. Then the position is a multiple of [`STEP`].
    fn sweep_all(&self) {
        self.sweep();
        self.sweep();
    }

    /// Visits as many slots as there are: each once, if the position is a multiple of [`STEP`].
    fn sweep(&self) -> usize {
        self.engine.lists.sweep(self.engine.lists.capacity(), self.now())
    }
}

pub(super) fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | number)
}

pub(super) fn knocker(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(11 << 24 | number)
}

pub(super) fn new_source(random: &mut Random) -> Ipv4Addr {
    Ipv4Addr::from_bits(1 << 30 | random.number() as u32 >> 2)
}

/// Workloads on lists with room, and on full ones.
pub(super) fn workloads(size: &Size) -> (Vec<Workload<'_>>, Vec<Workload<'_>>) {
    let name = |what: &str| format!("lists/{what}/{}", size.label);

    let hit = Workload::new(name("lookup-hit"), || {
        let (state, mut random) = (size.almost_full(), Random(1));
        assert!(state.engine.lists.membership(client(0).into(), 0, state.now()).contains(state.secured));
        batch(move || {
            black_box(state.engine.lists.membership(client(random.below(state.clients)).into(), 0, state.now()));
        })
    });
    let miss = Workload::new(name("lookup-miss"), || {
        let (state, mut random) = (size.almost_full(), Random(2));
        batch(move || {
            black_box(state.engine.lists.membership(new_source(&mut random).into(), 0, state.now()));
        })
    });
    let refresh = Workload::new(name("add-again"), || {
        let (state, mut random) = (size.almost_full(), Random(3));
        batch(move || {
            let added =
                state.engine.lists.add(state.secured, client(random.below(state.clients)).into(), FAR, state.now());
            assert_eq!(black_box(added), AddOutcome::Refreshed);
        })
    });
    let new = Workload {
        runs: size.additions(),
        ..Workload::new(name("add-new"), || {
            let room = size.additions() as usize * BATCH;
            NewEntries { state: size.almost_full(), random: Random(4), added: Vec::with_capacity(room) }
        })
    };

    let evicting = Workload::new(name("add-evicting"), || {
        let (state, mut random) = (size.full(), Random(5));
        batch(move || {
            let expiry = state.now() + FIRST_KNOCK;
            black_box(state.engine.lists.add(state.temporary, new_source(&mut random).into(), expiry, state.now()));
        })
    });
    let whole_sweep = Workload {
        operations: size.entries as u32,
        runs: 2,
        ..Workload::new(name("sweep"), || {
            let state = size.full();
            move || assert_eq!(state.sweep(), 0)
        })
    };
    let sweep_expired = Workload {
        operations: size.entries as u32,
        runs: 1,
        ..Workload::new(name("sweep-fifth-expired"), || Expiry { state: size.full() })
    };
    // A refill of larger lists would take seconds.
    let expiring = (size.entries <= MIDDLE).then_some(sweep_expired);
    (vec![hit, miss, refresh, new], [evicting, whole_sweep].into_iter().chain(expiring).collect())
}

fn batch(mut operation: impl FnMut()) -> impl FnMut() {
    move || (0..BATCH).for_each(|_| operation())
}

/// Additions of addresses that are in no list, with room.
struct NewEntries<'a> {
    state: &'a State,
    random: Random,
    added: Vec<Ipv4Addr>,
}

impl Work for NewEntries<'_> {
    fn run(&mut self) {
        let NewEntries { state, random, added } = self;
        for _ in 0..BATCH {
            let address = new_source(random);
            black_box(state.engine.lists.add(state.temporary, address.into(), FAR, state.now()));
            added.push(address);
        }
    }

    fn reset(&mut self) {
        for address in self.added.drain(..) {
            self.state.engine.lists.remove(self.state.temporary, address.into(), self.state.now());
        }
    }
}

/// A sweep of full lists after all first knocks have expired.
struct Expiry<'a> {
    state: &'a State,
}

impl Work for Expiry<'_> {
    fn run(&mut self) {
        self.state.pass(FIRST_KNOCK);
        assert!(black_box(self.state.sweep()) > self.state.engine.lists.capacity() / 6);
    }

    fn reset(&mut self) {
        self.state.fill();
        self.state.sweep_all();
    }
}
