//! Models of known sources: entries and connections that are added and that end at the same time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use knockplane_policy::strangers::{KnownSources, NamedNetworks, SourceHash};
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicU64;

use crate::connections::{accept, connections, forget};
use crate::state::events::EventRoom;
use crate::state::lists::{AddOutcome, ListId, Lists};
use crate::{Model, SOURCE, at, both};

pub(super) const MODELS: [Model; 5] = [
    ("a source is known after an addition, while another one at its place is added", additions_at_once),
    ("so while another one ends", end_at_once),
    ("so while its entry is evicted", entry_while_it_is_evicted),
    ("so while its entry is removed", entry_while_it_is_removed),
    ("so while a connection ends", connection_while_it_is_removed),
];

const HASH: SourceHash = SourceHash { secret: 7, v6_by_prefix: false };

/// Another source at the place of `SOURCE`.
static SAME_PLACE: LazyLock<IpAddr> = LazyLock::new(|| {
    let place = |source: &IpAddr| HASH.of(*source) % 64;
    (1..).map(|bits| Ipv4Addr::from_bits(bits).into()).find(|it| place(it) == place(&SOURCE)).expect("one of 64")
});

fn known() -> KnownSources {
    KnownSources::new(std::sync::Arc::new(vec![AtomicU64::new(0)]), HASH)
}

fn add(known: &KnownSources, source: IpAddr) {
    known.add(source);
    assert!(known.contains(source), "added, and a stranger");
}

fn additions_at_once() {
    let known = known();
    let mine = known.clone();
    both(move || add(&mine, *SAME_PLACE), || add(&known, SOURCE));
    assert!(known.contains(SOURCE));
}

fn end_at_once() {
    let known = known();
    known.add(*SAME_PLACE);
    let mine = known.clone();
    both(move || mine.remove(*SAME_PLACE), || add(&known, SOURCE));
    assert!(known.contains(SOURCE));
    known.remove(SOURCE);
    assert!(!known.contains(SOURCE), "not for ever");
}

/// No static entry has a network.
struct NoNetworks;

impl NamedNetworks for NoNetworks {
    fn name(&self, _: IpAddr, _: IpAddr) {}
}

/// Lists with room for one entry, and a list whose entries make sources known.
fn lists(known: &KnownSources) -> (Arc<Lists>, ListId) {
    let mut lists = Lists::with_room(1, [1, 2], EventRoom { ring: 4, removals: 2 }).expect("little memory");
    lists.set_sources(known, std::sync::Arc::new(NoNetworks));
    let list = lists.bind("door-open", 1).expect("room for one");
    (Arc::new(lists), list)
}

fn add_entry(lists: &Lists, list: ListId, source: IpAddr) {
    assert_eq!(lists.add(list, source, at(100), at(1)), AddOutcome::New);
}

/// Entries of two sources at one place evict each other.
fn entry_while_it_is_evicted() {
    let known = known();
    let (lists, list) = lists(&known);
    add_entry(&lists, list, SOURCE);
    let (mine, still_known) = (Arc::clone(&lists), known.clone());
    let add = move |lists: &Lists, known: &KnownSources, source| {
        lists.add(list, source, at(100), at(1));
        let is_stranger = !known.contains(source);
        assert!(!is_stranger || !lists.membership(source, 0, at(1)).contains(list), "added, and a stranger");
    };
    both(move || add(&mine, &still_known, *SAME_PLACE), || add(&lists, &known, SOURCE));
    lists.remove(list, SOURCE, at(1));
    lists.remove(list, *SAME_PLACE, at(1));
    assert!(!known.contains(SOURCE), "not for ever");
}

fn connection_while_it_is_removed() {
    let known = known();
    let table = connections(Some(&known));
    accept(&table, SOURCE);
    let mine = Arc::clone(&table);
    let begins = || {
        accept(&table, *SAME_PLACE);
        assert!(known.contains(*SAME_PLACE), "the frame is decided");
    };
    both(move || forget(&mine, SOURCE), begins);
    assert!(known.contains(SOURCE));
    forget(&table, *SAME_PLACE);
    assert!(!known.contains(SOURCE), "not for ever");
}

fn entry_while_it_is_removed() {
    let known = known();
    let (lists, list) = lists(&known);
    add_entry(&lists, list, SOURCE);
    let mine = Arc::clone(&lists);
    let adds = || lists.add(list, SOURCE, at(200), at(1));
    let added = both(move || mine.remove(list, SOURCE, at(1)).then_some(AddOutcome::New), || Some(adds()))[1];
    let is_in = lists.membership(SOURCE, 0, at(1)).contains(list);
    assert_eq!((is_in, known.contains(SOURCE)), (added == Some(AddOutcome::New), added == Some(AddOutcome::New)));
}
