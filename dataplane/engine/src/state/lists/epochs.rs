//! Epochs of addresses: the conditions of verdicts in the kernel's fast path.
//!
//! The program in the kernel cannot read the lists. So each change of an address's entries, except one that lets an
//! entry expire later, bumps a number that the kernel reads, at the place of the address's hash. A verdict counts while
//! the number is that of the lookup that the verdict depends on. Addresses can share a place: then a change of one ends
//! the verdicts of the other, too.
//!
//! A change of the static entries bumps a number of its own.
//!
//! Lookup and change hold the lock of the address's shard: a lookup that misses a change has read the number before
//! it was bumped. Only changes of lists that a verdict can depend on bump the numbers: those that a decision about a carried flow
//! has asked. A flood of first knocks changes lists that no such decision asks. If it bumped numbers, it would end
//! verdicts of addresses that share a place with its sources, some times a second each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use knockplane_policy::carried::Epoch;
use knockplane_policy::strangers::{KnownSources, NamedNetworks};
use knockplane_policy::time::Time;

use super::{Lists, Lookup, lock};
use crate::state::key::{AddressKey, KeyKind, Secret};
use crate::state::list_set::{CoarseListSet, ListId};
use crate::state::sync::{AtomicU32, AtomicU64};

/// The memory of the epochs, which the kernel reads. Its length is a power of two. Place 0 never changes.
pub type EpochWords = Arc<dyn AsRef<[AtomicU32]> + Send + Sync>;

/// The epochs, for all shards.
pub(crate) struct AddressEpochs {
    words: EpochWords,
    /// The lists that a verdict may depend on: a [`CoarseListSet`], which grows.
    asked: AtomicU64,
    secret: Secret,
    v6_by_prefix: bool,
}

/// The place of the epoch of static entries.
const OF_STATIC_ENTRIES: u32 = 1;

impl AddressEpochs {
    fn words(&self) -> &[AtomicU32] {
        (*self.words).as_ref()
    }

    /// The place of a hash that selects a shard.
    fn place(&self, scope: u64) -> u32 {
        let mask = self.words().len() as u32 - 1;
        (scope as u32 & mask).max(OF_STATIC_ENTRIES + 1)
    }

    fn at(&self, place: u32) -> Epoch {
        Epoch { place, value: self.words()[place as usize].load(Ordering::Relaxed) }
    }

    /// Bumps the epoch of static entries. Every shard has been locked since their change: a lookup that missed it has
    /// read the epoch.
    pub(super) fn static_entries_changed(&self) {
        self.words()[OF_STATIC_ENTRIES as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Bumps the epoch of the address with this key, which has this hash, for a change of this list. The caller holds the lock
    /// of its shard.
    #[inline]
    pub(super) fn changed(&self, list: ListId, key: impl FnOnce() -> AddressKey, kind: KeyKind, hash: u32) {
        if self.asked.load(Ordering::Relaxed) & CoarseListSet::bit(list) != 0 {
            self.bump(key, kind, hash);
        }
    }

    #[inline(never)]
    fn bump(&self, key: impl FnOnce() -> AddressKey, kind: KeyKind, hash: u32) {
        let has_own_scope = match kind {
            KeyKind::V4 | KeyKind::Net => true,
            KeyKind::V6 => !self.v6_by_prefix,
            _ => false,
        };
        // The hash of the entry selects its bucket. The hash of the address without its VLAN, or of its network, selects
        // the shard.
        let scope = if has_own_scope {
            hash.into()
        } else {
            let address = key().without_vlan();
            self.secret.hash(address.net().filter(|_| self.v6_by_prefix).unwrap_or(address))
        };
        self.words()[self.place(scope) as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Lists {
    /// Bumps these epochs at each change of an address in a list that a lookup with epochs has asked.
    ///
    /// # Panics
    /// If their number is not a power of two, or below 8.
    pub fn set_epochs(&mut self, words: EpochWords) {
        let places = (*words).as_ref().len();
        assert!(places.is_power_of_two() && places > 4, "a mask selects places");
        let (secret, v6_by_prefix) = (self.secret, self.v6_by_prefix);
        let epochs = Arc::new(AddressEpochs { words, asked: AtomicU64::new(0), secret, v6_by_prefix });
        self.shards.iter().for_each(|shard| lock(&shard.shard).set_epochs(Arc::clone(&epochs)));
        self.epochs = Some(epochs);
    }

    /// Counts the entries of each source from now on, present entries included, and names the networks of static entries.
    pub(crate) fn set_sources(&mut self, sources: &KnownSources, networks: Arc<dyn NamedNetworks>) {
        self.named_networks = Some(networks);
        for shard in &self.shards {
            lock(&shard.shard).set_sources(sources.clone(), Arc::clone(&self.noted));
        }
        self.name_all_networks();
    }

    /// Looks up an address, as [`Lists::lookup`], with the epochs of the address and of static entries. Changes of these lists bump
    /// the epoch of the address from then on; those of other lists need not. `None` without epochs.
    pub(crate) fn lookup_with_epochs(
        &self,
        key: AddressKey,
        peer_tag: u32,
        lists: CoarseListSet,
        now: Time,
    ) -> Option<(Lookup, [Epoch; 2])> {
        let epochs = self.epochs.as_ref()?;
        // A change after the lookup takes the same lock, and so sees this.
        if lists.bits() & !epochs.asked.load(Ordering::Relaxed) != 0 {
            epochs.asked.fetch_or(lists.bits(), Ordering::Relaxed);
        }
        let hash = self.hash(key);
        let place = epochs.place(hash.scope());
        let (mut lookup, mut read) = (Lookup::EMPTY, [Epoch::default(); 2]);
        self.lookup_into(key, hash, peer_tag, now, &mut lookup, || {
            read = [place, OF_STATIC_ENTRIES].map(|place| epochs.at(place));
        });
        Some((lookup, read))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use knockplane_policy::packet::Vlan;
    use knockplane_policy::rule::ListTimeout;
    use proptest::prelude::*;

    use super::*;
    use crate::state::lists::{FirstStepSettings, ListId, expiry};

    const ADDRESSES: [&str; 6] =
        ["192.0.2.1", "192.0.2.2", "198.51.100.3", "2001:db8::1", "2001:db8::2", "2001:db8:1::3"];

    #[derive(Clone, Debug)]
    enum Change {
        Add { address: usize, list: usize, peer: u32, vlan: bool, seconds: u64 },
        Remove { address: usize, list: usize },
        Flush { list: usize },
        Static { address: usize, list: usize, remove: bool },
        Wait { seconds: u64 },
        Sweep,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let (address, list) = (0..ADDRESSES.len(), 0_usize..2);
        let change = prop_oneof![
            6 => (address.clone(), list.clone(), 0_u32..3, any::<bool>(), 0_u64..20)
                .prop_map(|(address, list, peer, vlan, seconds)| Change::Add { address, list, peer, vlan, seconds }),
            2 => (address.clone(), list.clone()).prop_map(|(address, list)| Change::Remove { address, list }),
            1 => list.clone().prop_map(|list| Change::Flush { list }),
            1 => (address, list, any::<bool>())
                .prop_map(|(address, list, remove)| Change::Static { address, list, remove }),
            2 => (0_u64..9).prop_map(|seconds| Change::Wait { seconds }),
            1 => Just(Change::Sweep),
        ];
        proptest::collection::vec(change, 1..60)
    }

    fn lists(v6_by_prefix: bool) -> (Lists, [ListId; 2]) {
        // Few entries, so that additions evict others.
        let mut lists = Lists::with_secret(5, [1, 2]).expect("memory");
        lists.set_first_steps(FirstStepSettings { v6_by_prefix, ..FirstStepSettings::default() }).expect("memory");
        let words: Vec<_> = (0..64).map(|_| AtomicU32::new(0)).collect();
        lists.set_epochs(Arc::new(words));
        let bound = [("first", 0), ("second", 1)].map(|(name, level)| lists.bind(name, level).expect("few lists"));
        (lists, bound)
    }

    fn change(lists: &Lists, ids: [ListId; 2], change: &Change, now: &mut Time) {
        let address = |index: usize| ADDRESSES[index].parse::<IpAddr>().expect("an address");
        match *change {
            Change::Add { address: at, list, peer, vlan, seconds } => {
                let vlan = if vlan { Vlan::UNTAGGED } else { Vlan::NONE };
                let until = expiry(ListTimeout::After(std::time::Duration::from_secs(seconds)), *now);
                lists.in_vlan(vlan).add_for(ids[list], address(at), peer, until, *now);
            }
            Change::Remove { address: at, list } => _ = lists.remove(ids[list], address(at), *now),
            Change::Flush { list } => _ = lists.flush(ids[list], *now),
            Change::Static { address: at, list, remove } => {
                let entry = (ids[list], (address(at), address(at)), None);
                lists.set_static_entries(Some(entry).filter(|_| !remove).into_iter());
            }
            Change::Wait { seconds } => *now = *now + std::time::Duration::from_secs(seconds),
            Change::Sweep => _ = lists.sweep(64, *now),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_lookup_holds_while_its_epochs_are_unchanged(v6_by_prefix: bool, both: bool, changes in changes()) {
            let (lists, ids) = lists(v6_by_prefix);
            let (mut asked, needed) = (CoarseListSet::default(), if both { &ids[..] } else { &ids[..1] });
            needed.iter().for_each(|list| asked.insert(*list));
            let mut now = Time::from_nanos(1);
            let keys: Vec<AddressKey> = (ADDRESSES.iter())
                .flat_map(|address| {
                    let key = AddressKey::from(address.parse::<IpAddr>().expect("an address"));
                    [key, key.in_vlan(Vlan::UNTAGGED)]
                })
                .collect();
            let look = |now| -> Vec<_> {
                let keys = keys.iter().flat_map(|key| [0, 1].map(|peer| (*key, peer)));
                let look = |(key, peer)| lists.lookup_with_epochs(key, peer, asked, now);
                keys.map(|key| look(key).expect("there are epochs")).collect()
            };
            let mut before = look(now);
            for step in &changes {
                change(&lists, ids, step, &mut now);
                let after = look(now);
                for ((lookup, epochs), (lookup_now, epochs_now)) in before.iter().zip(&after) {
                    let holds = epochs == epochs_now && now < lookup.until;
                    let has = |lookup: &Lookup| needed.iter().map(|list| lookup.membership.lists.contains(*list)).collect::<Vec<_>>();
                    prop_assert!(!holds || has(lookup) == has(lookup_now), "{:?}", step);
                }
                before = after;
            }
        }
    }

    #[test]
    fn only_changes_of_lists_that_a_lookup_with_epochs_has_asked_bump() {
        let (lists, [list, other]) = lists(false);
        let address = IpAddr::from([192, 0, 2, 1]);
        lists.add(list, address, Time::NEVER, Time::default());
        let mut asked = CoarseListSet::default();
        asked.insert(list);
        let epochs =
            || lists.lookup_with_epochs(address.into(), 0, asked, Time::default()).expect("there are epochs").1;
        assert_eq!(epochs().map(|epoch| epoch.value), [0, 0]);
        lists.remove(list, address, Time::default());
        assert_eq!(epochs().map(|epoch| epoch.value), [1, 0]);
        lists.add(list, address, Time::from_nanos(5), Time::default());
        lists.add(list, address, Time::from_nanos(9), Time::default());
        assert_eq!(epochs().map(|epoch| epoch.value), [2, 0], "a later expiry ends no verdict");
        lists.add(other, address, Time::from_nanos(5), Time::default());
        lists.remove(other, address, Time::default());
        assert_eq!(epochs().map(|epoch| epoch.value), [2, 0], "no verdict depends on this list");
    }
}
