//! Models of two workers with the same source, and of a worker, the manager and the XDP program. Shuttle runs each model
//! once for each order in which the operations can interleave.
//!
//! | module | models |
//! |--------|--------|
//! | this   | address lists, and verdicts that depend on them |
//! | [`connections`] | verdicts that depend on a connection |
//! | [`sources`] | known sources |
//! | [`fast_path`] | the notes of the program about sources |
//! | [`reports`] | the ticks, which end the notes |
//! | [`events`] | the events of the lists |
//!
//! The models include the source of the engine and of the fast path, with shuttle's locks and atomics instead of those of the
//! standard library; therefore there is no test harness. The models do not try weaker memory orders than sequential
//! consistency. Loom does, but it omitted orders in which a version that is read outside the lock causes an error.

#![allow(dead_code, unreachable_pub, unused_imports)]

// The included source finds the memory that it shares with the XDP program in this crate, and the rest in the real one.
extern crate knockplane_policy as policy;
extern crate self as knockplane_policy;
// For the tables of the program, which no model loads.
extern crate self as libbpf_rs;

pub(crate) use policy::{door, eval, event, layer7, list_names, packet, reason, rule, settings, time, wire, word};

#[path = "../../../policy/src/carried.rs"]
pub mod carried;
#[path = "../../../policy/src/strangers.rs"]
pub mod strangers;

/// Replaces `policy/src/sync.rs`.
mod sync {
    pub(crate) use shuttle::sync::Mutex;
    pub(crate) use shuttle::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
}

/// The parts of the engine's state and of its lookup cache that the models need. The paths are those of `src/lib.rs`.
#[path = "../../src/state"]
mod state {
    pub(crate) mod connections;
    pub(crate) mod events;
    pub(crate) mod key;
    pub(crate) mod keyed;
    pub(crate) mod lanes;
    pub(crate) mod layer7;
    pub(crate) mod list_set;
    pub(crate) mod lists;
    pub(crate) mod range_tree;
    pub(crate) mod server_name;
    pub(crate) mod static_entries;

    /// Replaces `src/state/sync.rs`.
    pub(crate) mod sync {
        pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
        pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    }
}

#[path = "../../src/pipeline"]
mod pipeline {
    pub(crate) mod lookup_cache;
}

/// Replaces a loaded program.
pub struct Object;

/// Replaces `ring/src/program.rs`.
mod program {
    use std::cell::RefCell;
    use std::io::{Stdin, stdin};

    thread_local! {
        static OPENED: RefCell<String> = RefCell::default();
    }

    pub(crate) fn map(_: &crate::Object, name: &str) -> Stdin {
        OPENED.replace(name.to_owned());
        stdin()
    }

    /// The name of the last map.
    pub(crate) fn opened() -> String {
        OPENED.with_borrow(String::clone)
    }
}

mod connections;
mod events;
mod fast_path;
mod reports;
mod sources;

use std::net::{IpAddr, Ipv4Addr};

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;
use shuttle::scheduler::DfsScheduler;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use shuttle::{Config, Runner, thread};

use crate::pipeline::lookup_cache::{AddressQuery, LookupCache, TableEntries};
use crate::state::events::EventRoom;
use crate::state::list_set::CoarseListSet;
use crate::state::lists::{AddOutcome, ListId, Lists, ProgressChange, SequenceProgress};
use crate::state::static_entries::StaticEntries;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// The name of an invariant, and its model.
type Model = (&'static str, fn());

fn main() {
    let models: [Model; 17] = [
        ("a first step that arrives twice is taken once", first_steps_at_once),
        ("a last step that arrives twice opens once", last_steps_at_once),
        ("steps on two queues open once, whoever is faster", steps_on_two_queues),
        ("a list behind a list is entered once, whoever is faster", lists_on_two_queues),
        ("what was added is seen, also by who has looked before", additions_are_seen),
        ("what was removed is seen by who has looked before", removals_are_seen),
        ("what was evicted is seen by who has looked before", evictions_are_seen),
        ("a verdict in the kernel ends when its source is added", verdicts_end_with_additions),
        ("so when it is removed", verdicts_end_with_removals),
        ("so when it is evicted", verdicts_end_with_evictions),
        ("so when static entries change", verdicts_end_with_static_entries),
        ("events have numbers without a gap, and are read or known to be missed", events::a_ring_with_room),
        ("so in a ring of one event", events::a_ring_that_is_too_small),
        ("a subscriber has the entries of the lists in the end", events::one_entry_is_followed),
        ("so if it misses events", events::one_entry_is_followed_with_gaps),
        ("so if entries are evicted", events::eviction_is_followed_with_gaps),
        ("so if removals are forgotten", events::forgotten_removals_are_read_anew),
    ];
    let mut config = Config::new();
    config.silence_warnings = true;
    // A table of connections is built on the stack.
    config.stack_size = 1 << 18;
    let models = models
        .into_iter()
        .chain(connections::MODELS)
        .chain(sources::MODELS)
        .chain(fast_path::MODELS)
        .chain(reports::MODELS);
    // As other tests, with an argument: those whose names contain it.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, model) in models.filter(|(name, _)| name.contains(&filter)) {
        let orders = Runner::new(DfsScheduler::new(None, false), config.clone()).run(model);
        println!("{name}: in {orders} orders");
        assert!(orders > 1, "more than one worker");
    }
}

fn at(ns: u64) -> Time {
    Time::from_nanos(ns)
}

/// Lists with room for `capacity` entries, and the id of one list.
fn lists(capacity: usize) -> (Arc<Lists>, ListId) {
    // A small ring: the model allocates a ring for each order.
    let lists = Lists::with_room(capacity, [1, 2], EventRoom { ring: 4, removals: 2 }).expect("little memory");
    let list = lists.bind("door", 0).expect("room for one");
    (Arc::new(lists), list)
}

/// Passes a packet that is this step to a door of two steps. Returns whether it opened the door.
fn knock(lists: &Lists, list: ListId, step: u8, arrived: Time) -> (bool, Option<AddOutcome>) {
    let mut opened = false;
    let decide = |stored: Option<SequenceProgress>| match stored {
        None if step == 1 => ProgressChange::Set { step: 1, peer_tag: 7, begun: arrived, level: 0, expiry: at(100) },
        Some(stored) if stored.step == 1 && step == 2 && !stored.is_ahead_of(arrived) => {
            opened = true;
            ProgressChange::Clear
        }
        _ => ProgressChange::Keep,
    };
    let added = lists.in_vlan(Vlan::NONE).progress(list, SOURCE, arrived, decide);
    (opened, added)
}

fn both<T: Send + 'static>(one: impl FnOnce() -> T + Send + 'static, other: impl FnOnce() -> T) -> [T; 2] {
    let one = thread::spawn(one);
    let other = other();
    [one.join().expect("no panic"), other]
}

fn first_steps_at_once() {
    let (lists, list) = lists(4);
    let mine = Arc::clone(&lists);
    let took = both(move || knock(&mine, list, 1, at(1)).1, || knock(&lists, list, 1, at(2)).1);
    assert_eq!(took.iter().filter(|added| **added == Some(AddOutcome::New)).count(), 1);
    assert_eq!(lists.summaries()[0].entries, 1);
}

fn last_steps_at_once() {
    let (lists, list) = lists(4);
    knock(&lists, list, 1, at(1));
    let mine = Arc::clone(&lists);
    let opened = both(move || knock(&mine, list, 2, at(2)).0, || knock(&lists, list, 2, at(3)).0);
    assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
    assert_eq!(lists.summaries()[0].entries, 0);
}

fn steps_on_two_queues() {
    let (lists, list) = lists(4);
    let mine = Arc::clone(&lists);
    let [_, opened] = both(move || knock(&mine, list, 1, at(1)).0, || knock(&lists, list, 2, at(2)).0);
    // The step that was out of order is evaluated again.
    let again = knock(&lists, list, 2, at(2)).0;
    assert!(opened != again, "once, and not twice");
}

/// A model of rules: one packet adds the source to the first list, and another one adds it to the second list if it is
/// in the first.
fn lists_on_two_queues() {
    let (lists, first) = lists(4);
    let second = lists.bind("behind", 1).expect("room for two");
    let knock = move |lists: &Lists| {
        let is_further = lists.membership(SOURCE, 0, at(2)).contains(first);
        is_further && lists.add(second, SOURCE, at(100), at(2)) == AddOutcome::New
    };
    let mine = Arc::clone(&lists);
    let first_step = move || mine.add(first, SOURCE, at(100), at(1)) == AddOutcome::New;
    let [_, entered] = both(first_step, || knock(&lists));
    let again = knock(&lists);
    assert!(entered != again, "once, and not twice");
    assert!(lists.membership(SOURCE, 0, at(2)).contains(second));
}

/// Changes the lists on one thread, while another thread with cached lookups reads the source. After the first thread
/// signals the change, the other thread must see it.
fn watch(capacity: usize, before: fn(&Lists, ListId), change: fn(&Lists, ListId), is_in: bool) {
    let (lists, list) = lists(capacity);
    before(&lists, list);
    let done = Arc::new(AtomicBool::new(false));
    let (mine, told) = (Arc::clone(&lists), Arc::clone(&done));
    let changer = move || {
        change(&mine, list);
        told.store(true, Ordering::Release);
    };
    let watcher = || {
        let mut cache = LookupCache::default();
        let mut look = || {
            let knows = done.load(Ordering::Acquire);
            let entries = TableEntries { table: 0, entries: &StaticEntries::default() };
            let query = AddressQuery { key: SOURCE.into(), peer_tag: 0, now: at(2), hash: None };
            let set = cache.look_up(&lists, entries, query).membership.lists;
            (knows, set.contains(list) == is_in)
        };
        let seen = [look(), look()];
        assert!(seen.iter().all(|(knows, sees)| *sees || !knows), "not what was there before");
        assert!(!seen[0].1 || seen[1].1, "what was seen stays");
    };
    both(changer, watcher);
}

fn add(lists: &Lists, list: ListId) {
    assert_eq!(lists.add(list, SOURCE, at(100), at(1)), AddOutcome::New);
}

fn additions_are_seen() {
    watch(4, |_, _| {}, add, true);
}

fn removals_are_seen() {
    let remove = |lists: &Lists, list| assert!(lists.remove(list, SOURCE, at(1)));
    watch(4, add, remove, false);
}

fn evictions_are_seen() {
    let evict = |lists: &Lists, list| assert_eq!(lists.add(list, OTHER, at(100), at(1)), AddOutcome::New);
    watch(1, add, evict, false);
}

/// A worker looks up the source for a verdict, while another thread changes the lists. If the epochs of the lookup are
/// unchanged in the end, so is its result.
fn verdict(capacity: usize, before: fn(&Lists, ListId), change: fn(&Lists, ListId)) {
    let epochs: std::sync::Arc<Vec<AtomicU32>> = std::sync::Arc::new((0..8).map(|_| AtomicU32::new(0)).collect());
    let mut lists = Lists::with_room(capacity, [1, 2], EventRoom { ring: 4, removals: 2 }).expect("little memory");
    lists.set_epochs(std::sync::Arc::<Vec<AtomicU32>>::clone(&epochs));
    let list = lists.bind("door", 0).expect("room for one");
    before(&lists, list);
    let lists = Arc::new(lists);
    let mine = Arc::clone(&lists);
    let changer = thread::spawn(move || change(&mine, list));
    let (lookup, read) =
        lists.lookup_with_epochs(SOURCE.into(), 0, CoarseListSet::ALL, at(2)).expect("there are epochs");
    changer.join().expect("no panic");
    let counts = read.iter().all(|epoch| epochs[epoch.place as usize].load(Ordering::Relaxed) == epoch.value);
    assert!(!counts || lists.membership(SOURCE, 0, at(2)) == lookup.membership.lists, "a verdict that does not hold");
}

fn verdicts_end_with_additions() {
    verdict(4, |_, _| {}, add);
}

fn verdicts_end_with_removals() {
    verdict(4, add, |lists, list| assert!(lists.remove(list, SOURCE, at(1))));
}

fn verdicts_end_with_evictions() {
    verdict(1, add, |lists, list| assert_eq!(lists.add(list, OTHER, at(100), at(1)), AddOutcome::New));
}

fn verdicts_end_with_static_entries() {
    let change = |lists: &Lists, list| lists.set_static_entries([(list, (SOURCE, SOURCE), None)].into_iter());
    verdict(4, |_, _| {}, change);
}
