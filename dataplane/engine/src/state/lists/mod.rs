//! The address lists: the state of every knock, shared by all workers.
//!
//! One source's packets come in on different queues, so every worker must see what another one added, at once. The
//! lists are split into shards by a keyed hash of the address, each behind its own lock, which is held for one lookup
//! or one addition.
//!
//! Promises:
//! - Memory is fixed: [`Lists::new`] takes all of it, nothing grows later. A start may take it a moment later, by
//!   [`Lists::populate`].
//! - When full, an addition takes the place of an expired entry, or of the oldest of the lowest level, never of one of
//!   a higher level than its own; else it is refused. So a flood of first knocks pushes out first knocks. This happens
//!   to a shard at a time, as soon as the addresses that hash to it fill it. The order is told in full in `shard.rs`.
//! - [`Lists::membership`] is one lookup, whatever the number of lists.
//! - An entry may count for one other end alone, by its tag ([`Lists::tag`]): 0 stands for all. An address can be in a
//!   list for 8 other ends at once; then the one that would be over first gives way.
//! - An entry may count in one VLAN alone ([`Lists::within`]). A lookup for a VLAN yields its own entries and those that
//!   count in all; both are in one shard, by the hash of the address alone.
//! - [`Within::progress`] reads, decides and writes as one step, whoever else works on the address.
//! - Nobody outside can choose addresses that share a shard or a bucket: the secret is drawn at every start. Where first
//!   steps are kept by the network, the addresses of one IPv6 network share a shard, and nothing more.
//! - First steps can have a quota for each source prefix: see `quota.rs`.
//! - What operators hold, for good or for a time ([`Lists::hold`]), takes none of this room: it is swapped in whole, and no packet
//!   changes it.
//! - Lists are known by name. A name keeps its id as long as the process lives, so entries survive new rules.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use crossbeam::utils::CachePadded;
use hashbrown::HashMap;
use knockplane_policy::door::progress;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::ListTimeout;
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListSummary;

use crate::state::key::{Key, Secret};
pub use crate::state::lists::listed::*;
pub use crate::state::lists::quota::FirstSteps;
use crate::state::lists::quota::Quota;
use crate::state::lists::shard::{Place, SLOT_BYTES, Shard, Tally, Terms};
use crate::state::static_entries::Entries;
use crate::state::sync::{AtomicU64, Mutex, MutexGuard};

pub(crate) mod listed;
pub(crate) mod quota;
mod room;
pub(crate) mod shard;
mod source;
mod within;
pub use self::source::{AddressEntry, QuotaUse};
pub use self::within::Within;

/// How many lists there can be. An address's membership is a mask of so many bits.
pub const MAX_LISTS: usize = 256;

/// How many levels are told apart; higher ones count as the last.
pub const LEVELS: usize = 4;

/// The level of lists that only operators fill: no packet gets in, and first knocks do not push anyone out.
pub const OPERATOR_LEVEL: u8 = u8::MAX;

/// More entries than this are taken for a mistake.
const MAX_CAPACITY: usize = 1 << 30;

/// How many shards: enough that two workers seldom meet at a lock, few enough that each is of a good size. A shard of
/// fewer entries than `MIN_SHARD` would fill up by chance long before the others.
const MAX_SHARDS: usize = 64;
const MIN_SHARD: usize = 1024;

/// How many slots a lock is held for when many are looked at: some 3 µs that a worker may have to wait.
pub(crate) const STEP: u32 = 512;

/// What a lookup found, and how long that counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) listed: Listed,
    /// Before it, an entry of the set was not there yet.
    from: Time,
    /// From here on an entry of the set is gone, or another one there.
    until: Time,
    shard: usize,
    /// The shard's when it was looked up.
    version: u64,
}

impl Lookup {
    /// Puts in lists that the address is in from other sources, from then until then.
    pub(crate) fn add(&mut self, set: ListSet, time: Range<Time>) {
        self.listed.lists.insert_all(set);
        self.from = self.from.max(time.start);
        self.until = self.until.min(time.end);
    }

    fn add_all(&mut self, (listed, time): (Listed, Range<Time>)) {
        self.add(listed.lists, time);
        self.listed.elsewhere |= listed.elsewhere;
    }
}

/// A shard behind its lock.
struct Guarded {
    /// Changes, under the lock, with every change that a lookup could tell.
    version: AtomicU64,
    shard: Mutex<Shard>,
}

/// See the module.
pub struct Lists {
    shards: Box<[CachePadded<Guarded>]>,
    secret: Secret,
    /// Slots of all shards.
    capacity: usize,
    /// An IPv6 address's first step is that of its network.
    v6_by_prefix: bool,
    /// The one of all shards, if there is one.
    quota: Option<Arc<Quota>>,
    levels: [AtomicU8; MAX_LISTS],
    names: RwLock<Names>,
    /// What operators hold; none while that is nothing.
    held: ArcSwapOption<Entries>,
    /// Whether that is anything: seldom, and cheaper to ask at every lookup.
    holds: AtomicBool,
    /// The shard the next sweep begins with.
    swept: AtomicUsize,
    /// Entries that went and that no sweep could tell of.
    untold: [AtomicUsize; 2],
}

/// Names and ids, each by the other.
#[derive(Default)]
struct Names {
    ids: HashMap<String, ListId>,
    names: Vec<String>,
}

impl Lists {
    /// Empty lists for at least `capacity` entries, with all memory taken and a fresh secret.
    ///
    /// # Errors
    /// If the capacity is 0, absurd, or more than there is memory for.
    pub fn new(capacity: usize) -> Result<Lists, CapacityError> {
        Lists::with_secret(capacity, Lists::draw_secret())
    }

    /// From the standard library's source of secrets for its own hash tables.
    pub(crate) fn draw_secret() -> [u64; 2] {
        [0, 1].map(|part: u8| RandomState::new().hash_one(part))
    }

    /// As [`Lists::new`], with a secret that the caller knows: for tests that must repeat.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub fn with_secret(capacity: usize, secret: [u64; 2]) -> Result<Lists, CapacityError> {
        let lists = Lists::reserve(capacity, secret)?;
        lists.populate();
        Ok(lists)
    }

    /// As [`Lists::new`], but the memory of entries is only reserved: the kernel gives a page of it when the first entry of
    /// the page is used, or with [`Lists::populate`]. That spares a start the time that the kernel takes for the pages.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub(crate) fn reserve(capacity: usize, secret: [u64; 2]) -> Result<Lists, CapacityError> {
        let refused =
            |problem| CapacityError { capacity, bytes: (capacity as u64).saturating_mul(SLOT_BYTES as u64), problem };
        if capacity == 0 {
            return Err(refused("nobody could ever knock; set at least 1"));
        }
        if capacity > MAX_CAPACITY {
            return Err(refused("set at most 1,073,741,824 entries"));
        }
        let secret = Secret(secret);
        let shards = 1 << (capacity / MIN_SHARD).clamp(1, MAX_SHARDS).ilog2();
        let slots = capacity.div_ceil(shards);
        let shard = || {
            let shard = Mutex::new(Shard::new(slots as u32, secret)?);
            Some(CachePadded::new(Guarded { version: AtomicU64::new(0), shard }))
        };
        let shards: Option<Box<[_]>> = (0..shards).map(|_| shard()).collect();
        let shards = shards.ok_or_else(|| refused("there is not so much memory; set a smaller capacity"))?;
        Ok(Lists {
            capacity: slots * shards.len(),
            shards,
            secret,
            v6_by_prefix: false,
            quota: None,
            levels: [const { AtomicU8::new(0) }; MAX_LISTS],
            names: RwLock::default(),
            held: ArcSwapOption::empty(),
            holds: AtomicBool::new(false),
            swept: AtomicUsize::new(0),
            untold: Default::default(),
        })
    }

    /// Has the kernel give all memory that is reserved. Workers go on meanwhile.
    pub fn populate(&self) {
        for shard in &self.shards {
            while lock(&shard.shard).populate(STEP) {}
        }
    }

    /// How first steps are kept from now on; nothing was added before. A quota takes 4 bytes an entry at most.
    ///
    /// # Errors
    /// If there is not so much memory.
    pub fn set_first_steps(&mut self, settings: FirstSteps) -> Result<(), CapacityError> {
        self.v6_by_prefix = settings.v6_by_prefix;
        if settings.quota == 0 {
            return Ok(());
        }
        let capacity = self.capacity;
        let quota = Quota::new(capacity, settings, self.secret).ok_or_else(|| CapacityError {
            capacity,
            bytes: 4 * capacity as u64,
            problem: "there is no memory left for a quota; set a smaller capacity",
        })?;
        let quota = Arc::new(quota);
        self.shards.iter().for_each(|shard| lock(&shard.shard).set_quota(Arc::clone(&quota)));
        self.quota = Some(quota);
        Ok(())
    }

    /// How many entries fit. At most 1 % more than was asked for, so that shards are of one size.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The id of the list of this name, made known if it is not, with this level for its entries from now on. Whoever
    /// adds for an operator asks [`Lists::id`] first, so as not to change the level that the rules gave it.
    ///
    /// # Errors
    /// If there are [`MAX_LISTS`] other names already.
    pub fn bind(&self, name: &str, level: u8) -> Result<ListId, TooManyLists> {
        self.bind_all(&[(name, level)]).map(|ids| ids[0])
    }

    /// [`Lists::bind`] for many, all or none.
    ///
    /// # Errors
    /// If there is not room for all of them; then nothing changed.
    pub fn bind_all(&self, lists: &[(&str, u8)]) -> Result<Vec<ListId>, TooManyLists> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut unknown: Vec<&str> =
            lists.iter().map(|(name, _)| *name).filter(|name| !names.ids.contains_key(*name)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if let Some(name) = unknown.get(MAX_LISTS - names.names.len()) {
            return Err(TooManyLists { name: (*name).to_owned() });
        }
        for name in unknown {
            let id = ListId(names.names.len() as u8);
            names.ids.insert(name.to_owned(), id);
            names.names.push(name.to_owned());
        }
        let bind = |(name, level): &(&str, u8)| {
            let id = names.ids[*name];
            self.levels[id.index()].store(*level, Ordering::Relaxed);
            id
        };
        Ok(lists.iter().map(bind).collect())
    }

    /// The id of the list of this name, if any table or operator used it since start.
    pub fn id(&self, name: &str) -> Option<ListId> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).ids.get(name).copied()
    }

    /// The name of a list.
    pub fn name(&self, list: ListId) -> Option<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).names.get(list.index()).cloned()
    }

    /// The level of entries that are added to this list now.
    pub fn level(&self, list: ListId) -> u8 {
        self.levels[list.index()].load(Ordering::Relaxed)
    }

    /// What another end is known by in entries that count for it alone; never 0. IPv4 addresses stand for themselves,
    /// but nothing can be said to 0.0.0.0 that is not said to 0.0.0.1.
    pub fn tag(&self, end: IpAddr) -> u32 {
        progress::tag(self.secret.0, end).max(1)
    }

    /// The lists that the address is in now, for the other end of this tag; with 0, for all others. An entry is gone at
    /// its expiry, not after it.
    pub fn membership(&self, address: IpAddr, to: u32, now: Time) -> ListSet {
        self.lookup(address.into(), to, now).listed.lists
    }

    /// As [`Lists::membership`], with how long it counts. For a key in a VLAN: the VLAN's own entries for the other end of
    /// this tag, and those that count in all VLANs for all other ends.
    pub(crate) fn lookup(&self, within: Key, to: u32, now: Time) -> Lookup {
        let (key, to_all) = if within.is_in_vlan() { (within.without_vlan(), 0) } else { (within, to) };
        let hash = self.secret.hash(key);
        let net = self.net(key);
        let index = self.shard_of(net.map_or(hash, |(_, hash)| hash));
        let Guarded { version, shard } = &*self.shards[index];
        let shard = lock(shard);
        let (listed, time) = shard.membership(hash, key, to_all, now);
        let version = version.load(Ordering::Relaxed);
        let mut lookup = Lookup { listed, from: time.start, until: time.end, shard: index, version };
        if let Some((net, hash)) = net {
            lookup.add_all(shard.membership(hash, net, to_all, now));
        }
        if within.is_in_vlan() {
            lookup.add_all(shard.membership(self.secret.hash(within), within, to, now));
            if let Some((net, hash)) = self.net(within) {
                lookup.add_all(shard.membership(hash, net, to, now));
            }
        }
        // Under the lock that `hold` takes: whoever sees the version from after it sees what it holds.
        if self.holds.load(Ordering::Relaxed)
            && let Some(held) = &*self.held.load()
        {
            let (set, time) = held.find(key, now);
            lookup.add(set, time);
        }
        lookup
    }

    /// Whether a lookup of these lists says what it would say now.
    pub(crate) fn is_current(&self, lookup: &Lookup, now: Time) -> bool {
        let version = self.shards.get(lookup.shard).map(|shard| shard.version.load(Ordering::Acquire));
        (lookup.from..lookup.until).contains(&now) && version == Some(lookup.version)
    }

    /// From now on these are in the lists, from the first address to the last, each until then or for good, in place of
    /// what was held before: beside what is added, never evicted, and changed by no packet.
    pub fn hold(&self, entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) {
        let mut entries = entries.peekable();
        let held = entries.peek().is_some().then(|| Arc::new(Entries::of(entries)));
        let holds = held.is_some();
        self.held.store(held);
        self.holds.store(holds, Ordering::Relaxed);
        // Whoever takes a lock after this sees what is held now, and whoever took it before looks up again.
        for Guarded { version, shard } in self.shards.iter().map(|shard| &**shard) {
            let _locked = lock(shard);
            version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }

    /// The lists that operators hold the address in for good.
    fn held_for_good(&self, key: Key) -> ListSet {
        if !self.holds.load(Ordering::Relaxed) {
            return ListSet::default();
        }
        self.held.load().as_ref().map_or_else(ListSet::default, |held| held.lasting(key))
    }

    /// Puts the address in the list until `expiry`, or sets its expiry anew. An entry that never expires stays so.
    pub fn add(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> Added {
        self.add_for(list, address, 0, expiry, now)
    }

    /// As [`Lists::add`], for the other end of this tag alone.
    pub fn add_for(&self, list: ListId, address: IpAddr, to: u32, expiry: Time, now: Time) -> Added {
        self.within(Vlan::NONE).add_for(list, address, to, expiry, now)
    }

    /// As [`Lists::add`], by an operator: such an entry outranks everything that packets do.
    pub fn add_by_operator(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> Added {
        self.add_at(Place { list, to: 0 }, address.into(), Terms { level: OPERATOR_LEVEL, expiry, now })
    }

    fn add_at(&self, place: Place, key: Key, terms: Terms) -> Added {
        self.change(key, |shard, hash, key, net| {
            let (key, hash) = net.filter(|_| terms.level == 0).unwrap_or((key, hash));
            let added = shard.add(hash, key, place, terms);
            (added, added != Added::Refused)
        })
    }

    /// Takes the address out of the list, for whatever other ends and VLANs it was in it. Whether it was in it.
    pub fn remove(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        self.remove_at(list, address.into(), None, now) | self.remove_in_vlans(list, address, now)
    }

    /// Takes the address out of the list for the other end of this tag alone, in all VLANs together. Whether it was in it
    /// for that.
    pub fn remove_for(&self, list: ListId, address: IpAddr, to: u32, now: Time) -> bool {
        self.within(Vlan::NONE).remove_for(list, address, to, now)
    }

    /// [`Within::progress`], in all VLANs together.
    pub fn progress(
        &self,
        list: ListId,
        address: IpAddr,
        now: Time,
        decide: impl FnOnce(Option<Stored>) -> Change,
    ) -> Option<Added> {
        self.within(Vlan::NONE).progress(list, address, now, decide)
    }

    fn remove_at(&self, list: ListId, key: Key, to: Option<u32>, now: Time) -> bool {
        self.change(key, |shard, hash, key, net| {
            let mut removed = shard.remove(hash, key, list, to, now);
            if let Some((net, hash)) = net {
                removed |= shard.remove(hash, net, list, to, now);
            }
            (removed, removed)
        })
    }

    /// Changes the shard of an address, and makes it known if the change can be seen.
    fn change<T>(&self, key: Key, change: impl FnOnce(&mut Shard, u64, Key, Option<(Key, u64)>) -> (T, bool)) -> T {
        let hash = self.secret.hash(key);
        let net = self.net(key);
        let place = net.map_or(hash, |(_, hash)| hash);
        let index = if key.is_in_vlan() { self.shard_of_key(key.without_vlan()) } else { self.shard_of(place) };
        let Guarded { version, shard } = &*self.shards[index];
        let mut shard = lock(shard);
        let (result, is_seen) = change(&mut shard, hash, key, net);
        if is_seen {
            // Before the lock is given back, so that nobody looks up the new state under the old version.
            version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
        result
    }

    /// Gives back entries that expired, looking at `budget` slots (rounded up to 512) where the last call ended. Returns
    /// how many.
    ///
    /// With a budget of [`Lists::capacity`] and 65,536 more in each second, no entry is counted for more than a second
    /// after it expired. That costs 6 ns a used slot: with ten million entries 6 % of a core.
    pub fn sweep(&self, budget: usize, now: Time) -> usize {
        self.sweep_telling(budget, now, |_| {})
    }

    /// As [`Lists::sweep`], telling of grants and other entries above level 0 that went, by this sweep or since the last one: with the same
    /// budget, within a second.
    pub fn sweep_telling(&self, budget: usize, now: Time, mut tell: impl FnMut(Gone)) -> usize {
        let [mut earlier, mut gone] = [(); 2].map(|()| Vec::with_capacity(STEP as usize));
        let mut step = |_| {
            let next = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let mut shard = lock(&self.shards[next].shard);
            // First, so that what is found now has room.
            let before = shard.take_gone(&mut earlier);
            let expired = shard.sweep(STEP as usize, now);
            let after = shard.take_gone(&mut gone);
            drop(shard);
            earlier.drain(..).chain(gone.drain(..)).for_each(&mut tell);
            for (untold, (before, after)) in self.untold.iter().zip(before.into_iter().zip(after)) {
                untold.fetch_add((before + after) as usize, Ordering::Relaxed);
            }
            expired
        };
        (0..budget.div_ceil(STEP as usize)).map(&mut step).sum()
    }

    /// How many entries went untold since start, because too many went at once: those above level 0 that were no grants, and
    /// grants.
    pub fn untold(&self) -> [u64; 2] {
        [0, 1].map(|kind: usize| self.untold[kind].load(Ordering::Relaxed) as u64)
    }

    /// Every list that has a name, in the order of names.
    pub fn summaries(&self) -> Vec<ListSummary> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut tallies = vec![Tally::default(); names.names.len()];
        for shard in &self.shards {
            let shard = lock(&shard.shard);
            for (index, sum) in tallies.iter_mut().enumerate() {
                let tally = shard.tally(ListId(index as u8));
                sum.entries += tally.entries;
                sum.expired += tally.expired;
                sum.evicted += tally.evicted;
                sum.refused += tally.refused;
            }
        }
        let summary = |(index, Tally { entries, expired, evicted, refused }): (usize, Tally)| {
            let level = self.level(ListId(index as u8));
            ListSummary { list: names.names[index].clone(), level, entries, expired, evicted, refused }
        };
        let mut summaries: Vec<_> = tallies.into_iter().enumerate().map(summary).collect();
        summaries.sort_by(|one, other| one.list.cmp(&other.list));
        summaries
    }

    /// Shows every entry that was added, in no order. Workers go on meanwhile: an entry that comes or goes may be seen or
    /// not, or twice.
    pub fn visit(&self, now: Time, mut visitor: impl FnMut(Seen)) {
        let mut seen = Vec::with_capacity(STEP as usize);
        for shard in &self.shards {
            let mut next = Some(0);
            while let Some(begin) = next {
                // Shown when the lock is free again.
                next = lock(&shard.shard).visit(begin, STEP, now, |entry| seen.push(entry));
                seen.drain(..).for_each(&mut visitor);
            }
        }
    }

    /// The network that an IPv6 address's first steps are kept by, and its hash. It chooses the shard of all its
    /// addresses, so that both are in one, behind one lock and one version; each has its own bucket.
    fn net(&self, key: Key) -> Option<(Key, u64)> {
        let net = key.net().filter(|_| self.v6_by_prefix)?;
        Some((net, self.secret.hash(net)))
    }

    /// The shard of an address that is in no VLAN.
    fn shard_of_key(&self, key: Key) -> usize {
        self.shard_of(self.net(key).map_or_else(|| self.secret.hash(key), |(_, hash)| hash))
    }

    /// The shard of a hash, by its upper bits. There is a power of two of shards.
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
}

/// A panic elsewhere while the lock was held is no reason to stop forwarding.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When an entry that is added now with this timeout expires.
pub fn expiry(timeout: ListTimeout, now: Time) -> Time {
    match timeout {
        ListTimeout::After(duration) => now + duration,
        ListTimeout::NoneDynamic | ListTimeout::NoneStatic => Time::NEVER,
    }
}
