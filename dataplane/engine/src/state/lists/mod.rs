//! The address lists: the state of every knock, shared by all workers.
//!
//! The packets of one source arrive on different queues, so every worker must see the changes of other workers at once.
//! A keyed hash of the address splits the lists into shards. Each shard has its own lock, which a worker holds for one
//! lookup or one addition.
//!
//! Promises:
//! - Memory is fixed: [`Lists::new`] allocates all of it, and nothing grows later. A start may populate it a moment
//!   later, by [`Lists::populate`].
//! - In a full shard, an addition replaces an expired entry, or the oldest entry of the lowest level, but never an
//!   entry of a higher level than its own. If there is no such entry, the addition is refused. A flood of first knocks
//!   therefore evicts only first knocks. A shard is full as soon as the addresses that hash to it fill it. The module
//!   `shard` documents the order of eviction.
//! - [`Lists::membership`] is one lookup for any number of lists.
//! - An entry may count for one peer alone, by the peer's tag ([`Lists::peer_tag`]); the tag 0 stands for all peers. An
//!   address can be in a list for 8 peers at once. Then the entry that expires first is evicted.
//! - An entry may count in one VLAN alone ([`Lists::within`]). A lookup for a VLAN returns its own entries and those
//!   that count in all VLANs. Both are in one shard, by the hash of the address alone.
//! - [`VlanLists::progress`] reads, decides and writes under one lock.
//! - An attacker cannot choose addresses that share a shard or a bucket: every start draws a new secret. If first steps
//!   count for the network, the addresses of one IPv6 network share a shard, and nothing more.
//! - First steps can have a quota for each source prefix: see `quota.rs`.
//! - Static entries of operators ([`Lists::set_static_entries`]) take no slot, and no packet changes them. A lookup
//!   sees a change of them as a whole.
//! - Lists are identified by name. A name keeps its id during the lifetime of the process, so entries survive new
//!   rules.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use crossbeam::utils::CachePadded;
use knockplane_policy::event::StartId;
use knockplane_policy::rule::ListTimeout;
use knockplane_policy::strangers::NamedNetworks;
use knockplane_policy::time::Time;

pub use self::changes::AddOutcome;
pub(crate) use self::ended::EndReason;
pub use self::entries::{AddressEntry, DynamicEntry};
pub use self::epochs::EpochWords;
pub use self::error::{CapacityError, TooManyListsError};
pub use self::events::{Changed, StaticChange};
pub use self::lookup::ShardVersion;
pub(crate) use self::lookup::{Lookup, Membership};
pub use self::operator::{OPERATOR_LEVEL, StaticEntry};
pub use self::progress::{ProgressChange, SequenceProgress};
pub use self::quota::{FirstStepSettings, QuotaUse};
pub(crate) use self::touch::{AddressHash, Victims};
pub use self::vlan::VlanLists;
use crate::state::events::EventRoom;
use crate::state::events::removals::Removals;
use crate::state::events::ring::EventRing;
use crate::state::key::{AddressKey, Secret};
pub use crate::state::list_set::{ListId, ListSet, MAX_LISTS};
use crate::state::lists::epochs::AddressEpochs;
use crate::state::lists::names::ListNames;
use crate::state::lists::quota::PrefixQuota;
use crate::state::lists::shard::{PEER_BYTES, SLOT_BYTES, Shard, ShardMemory, VLAN_BYTES};
use crate::state::static_entries::AmendedEntries;
use crate::state::sync::{AtomicU64, Mutex, MutexGuard};

mod changes;
mod ended;
mod entries;
mod epochs;
mod error;
mod events;
mod lookup;
mod names;
mod operator;
mod progress;
pub(crate) mod quota;
pub(crate) mod shard;
mod touch;
mod vlan;

/// The number of distinct levels; higher levels count as the last.
pub const LEVELS: usize = 4;

/// The lists refuse a larger capacity as a mistake.
const MAX_CAPACITY: usize = 1 << 30;

/// The maximum number of shards: enough that two workers seldom wait for the same lock, and few enough that each shard
/// has many entries. A shard with fewer entries than `MIN_SHARD` would fill up by chance long before the others.
const MAX_SHARDS: usize = 64;
const MIN_SHARD: usize = 1024;

/// The number of slots that a visit of many slots processes under one lock: a worker may have to wait some 3 µs.
pub(crate) const STEP: u32 = 512;

/// The address lists of one dataplane, shared by all workers.
pub struct Lists {
    shards: Box<[CachePadded<LockedShard>]>,
    secret: Secret,
    /// Slots of all shards.
    capacity: usize,
    /// Whether an IPv6 address's first step counts for its network.
    v6_by_prefix: bool,
    /// The quota of all shards, if there is one.
    quota: Option<Arc<PrefixQuota>>,
    /// The epochs of all shards, if there is a fast path.
    epochs: Option<Arc<AddressEpochs>>,
    /// The networks of static entries, if there is a fast path.
    named_networks: Option<Arc<dyn NamedNetworks>>,
    levels: [AtomicU8; MAX_LISTS],
    /// Whether entries of the list make their sources known, see [`Lists::noted`].
    noted: Arc<[AtomicBool; MAX_LISTS]>,
    names: RwLock<ListNames>,
    /// The static entries of operators; `None` while there are none.
    static_entries: ArcSwapOption<AmendedEntries>,
    /// Whether there are any: cheaper to read at every lookup.
    has_static_entries: AtomicBool,
    /// The last events of static entries.
    static_changes: Mutex<Removals>,
    /// The first shard of the next sweep.
    swept: AtomicUsize,
    events: Arc<EventRing>,
    start: StartId,
}

/// A shard behind its lock.
struct LockedShard {
    /// Increases, under the lock, with every change that can change the result of a lookup.
    version: AtomicU64,
    /// The memory of the shard, to load it into a cache.
    memory: Arc<ShardMemory>,
    shard: Mutex<Shard>,
}

impl Lists {
    /// Creates empty lists for at least `capacity` entries, with all memory allocated and a new secret.
    ///
    /// # Errors
    /// If the capacity is 0, too large to be meant, or more than the available memory.
    pub fn new(capacity: usize) -> Result<Lists, CapacityError> {
        Lists::with_secret(capacity, Lists::draw_secret())
    }

    /// A secret from the source of secrets that the standard library uses for its own hash tables.
    pub(crate) fn draw_secret() -> [u64; 2] {
        [0, 1].map(|part: u8| RandomState::new().hash_one(part))
    }

    /// As [`Lists::new`], with a secret that the caller chooses: for tests that must be repeatable.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub fn with_secret(capacity: usize, secret: [u64; 2]) -> Result<Lists, CapacityError> {
        Lists::with_room(capacity, secret, EventRoom::of_capacity(capacity))
    }

    /// As [`Lists::with_secret`], with this much room for events: for tests that have gaps.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub fn with_room(capacity: usize, secret: [u64; 2], room: EventRoom) -> Result<Lists, CapacityError> {
        let lists = Lists::reserve_with_room(capacity, secret, room)?;
        lists.populate();
        Ok(lists)
    }

    /// As [`Lists::new`], but the memory of entries is only reserved. The kernel allocates a page when the first entry
    /// of the page is used, or in [`Lists::populate`]. A start thus does not wait for the allocation of the pages.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub(crate) fn reserve(capacity: usize, secret: [u64; 2]) -> Result<Lists, CapacityError> {
        Lists::reserve_with_room(capacity, secret, EventRoom::of_capacity(capacity))
    }

    fn reserve_with_room(capacity: usize, secret: [u64; 2], room: EventRoom) -> Result<Lists, CapacityError> {
        let refused =
            |problem| CapacityError { capacity, bytes: (capacity as u64).saturating_mul(SLOT_BYTES as u64), problem };
        if capacity == 0 {
            return Err(refused("no source could knock; set at least 1"));
        }
        if capacity > MAX_CAPACITY {
            return Err(refused("set at most 1,073,741,824 entries"));
        }
        let secret = Secret(secret);
        let shards = 1 << (capacity / MIN_SHARD).clamp(1, MAX_SHARDS).ilog2();
        let slots = capacity.div_ceil(shards);
        let lack = || refused("there is not so much memory; set a smaller capacity");
        let events = Arc::new(EventRing::new(room.ring).ok_or_else(lack)?);
        // The memory of all shards in sequence, so that it is adjacent: a huge page can then hold parts of two shards.
        let memory: Option<Vec<_>> = (0..shards).map(|_| ShardMemory::new(slots as u32)).collect();
        let shard = |memory| {
            let shard = Shard::with_memory(memory, slots as u32, Arc::clone(&events), room.removals)?;
            let memory = shard.memory();
            Some(CachePadded::new(LockedShard { version: AtomicU64::new(0), memory, shard: Mutex::new(shard) }))
        };
        let shards: Option<Box<[_]>> = memory.ok_or_else(lack)?.into_iter().map(shard).collect();
        let shards = shards.ok_or_else(lack)?;
        Ok(Lists {
            capacity: slots * shards.len(),
            shards,
            secret,
            v6_by_prefix: false,
            quota: None,
            epochs: None,
            named_networks: None,
            levels: [const { AtomicU8::new(0) }; MAX_LISTS],
            noted: Arc::new([const { AtomicBool::new(false) }; MAX_LISTS]),
            names: RwLock::default(),
            static_entries: ArcSwapOption::empty(),
            has_static_entries: AtomicBool::new(false),
            static_changes: Mutex::new(Removals::new(4 * room.removals).ok_or_else(lack)?),
            swept: AtomicUsize::new(0),
            events,
            start: StartId(Lists::draw_secret()[0]),
        })
    }

    /// Makes the kernel allocate all memory that is reserved. Workers continue meanwhile.
    pub fn populate(&self) {
        for shard in &self.shards {
            while lock(&shard.shard).populate(STEP) {}
        }
    }

    /// The addresses of the memory that lookups read: entries and buckets. They stay the same.
    pub fn regions(&self) -> Vec<Range<usize>> {
        self.shards.iter().flat_map(|shard| shard.memory.regions()).collect()
    }

    /// The part of [`Lists::regions`] that is the index: an entry uses a line of it at random.
    pub fn index_regions(&self) -> Vec<Range<usize>> {
        self.shards.iter().map(|shard| shard.memory.regions()[1].clone()).collect()
    }

    /// Sets the settings of first steps, before any entry is added. A quota takes at most 4 bytes for each entry.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn set_first_steps(&mut self, settings: FirstStepSettings) -> Result<(), CapacityError> {
        self.v6_by_prefix = settings.v6_by_prefix;
        if settings.quota == 0 {
            return Ok(());
        }
        let capacity = self.capacity;
        let quota = PrefixQuota::new(capacity, settings, self.secret).ok_or_else(|| CapacityError {
            capacity,
            bytes: 4 * capacity as u64,
            problem: "there is no memory left for a quota; set a smaller capacity",
        })?;
        let quota = Arc::new(quota);
        self.shards.iter().for_each(|shard| lock(&shard.shard).set_quota(Arc::clone(&quota)));
        self.quota = Some(quota);
        Ok(())
    }

    /// The maximum number of entries. At most 1 % more than requested, so that all shards have the same size.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the shard of an address, whose hash may be known. If a lookup can see the change, the version of the
    /// shard changes too.
    fn change<T>(
        &self,
        key: AddressKey,
        address: Option<AddressHash>,
        change: impl FnOnce(&mut Shard, u64, AddressKey, Option<(AddressKey, u64)>) -> (T, bool),
    ) -> T {
        let address = address.unwrap_or_else(|| self.hash(key));
        let LockedShard { version, shard, .. } = &*self.shards[self.shard_of(address.scope())];
        let (hash, net) = match key.is_in_vlan() {
            true => (self.secret.hash(key), self.net(key)),
            false => (address.own, key.net().zip(address.net)),
        };
        let mut shard = lock(shard);
        let (result, is_seen) = change(&mut shard, hash, key, net);
        if is_seen {
            // Before the lock is released, so that no lookup reads the new state under the old version.
            version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
        result
    }

    /// The network that an IPv6 address's first steps count for, and its hash. This hash selects the shard of all
    /// addresses of the network, so that first steps and addresses share a shard, a lock and a version. Each has its
    /// own bucket.
    fn net(&self, key: AddressKey) -> Option<(AddressKey, u64)> {
        let net = key.net().filter(|_| self.v6_by_prefix)?;
        Some((net, self.secret.hash(net)))
    }

    /// The shard of an address without a VLAN.
    fn shard_of_address(&self, key: AddressKey) -> usize {
        self.shard_of(self.net(key).map_or_else(|| self.secret.hash(key), |(_, hash)| hash))
    }

    /// The shard of a hash, by its upper bits. The number of shards is a power of two.
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
}

impl FirstStepSettings {
    /// The maximum total memory of an entry of lists with these settings.
    pub const fn entry_bytes(self) -> usize {
        SLOT_BYTES + VLAN_BYTES + PEER_BYTES + if self.quota == 0 { 0 } else { size_of::<AtomicU32>() }
    }
}

/// Locks the shard. A panic of another thread during a change is no reason to stop forwarding.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The expiry of an entry that is added now with this timeout.
pub fn expiry(timeout: ListTimeout, now: Time) -> Time {
    match timeout {
        ListTimeout::After(duration) => now + duration,
        ListTimeout::NoneDynamic | ListTimeout::NoneStatic => Time::NEVER,
    }
}

/// A slice of this length; `None` if there is not enough memory.
pub(crate) fn boxed<T>(length: usize, element: impl FnMut() -> T) -> Option<Box<[T]>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(length).ok()?;
    elements.extend(std::iter::repeat_with(element).take(length));
    Some(elements.into_boxed_slice())
}
