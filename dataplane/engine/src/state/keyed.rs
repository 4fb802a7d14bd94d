//! A bounded table of values by keys that attackers can choose. All memory is allocated at the start.
//!
//! A secret hash of 128 bits represents each key, so that an attacker cannot choose two keys that collide. The hash
//! selects a set of a few slots with its own lock. When all slots of a set are taken, the value that expires first is
//! evicted.
//!
//! ```text
//! line 0   the expiries of the eight slots
//! line 1   the digests of the eight slots │ the lock
//! line 2…  the slots, each with its whole hash and its value
//! ```
//!
//! A digest is 16 bits of a hash. Digests exclude nearly all slots of other keys, and the whole hash decides. A lookup
//! of an unknown key thus reads one cache line and takes no lock. An addition reads two lines and writes the slot.
//! Digests and expiries are atomic words outside the lock, so that [`Keyed::touch`] can load their lines in advance.
//! They change only under the lock.

use std::hash::Hasher as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use knockplane_policy::eval::tracking::identification;
use knockplane_policy::packet::{Packet, Vlan};
use knockplane_policy::time::Time;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::state::lanes::{LANES_OF_16, equal_lanes, store_bits};

/// A key, hashed.
pub(crate) type Tag = u128;

/// Slots of a set.
const WAYS: usize = 8;

/// Digests in a word.
const LANES: usize = 4;

/// A table of values by keyed hash.
pub(crate) struct Keyed<V> {
    sets: Box<[KeyedSet<V>]>,
}

/// A set of slots, see the module. Two lines are aligned together, because processors fetch such pairs together.
#[repr(C, align(128))]
struct KeyedSet<V> {
    /// In nanoseconds. An expired slot is free.
    expiries: [AtomicU64; WAYS],
    digests: [AtomicU64; WAYS / LANES],
    slots: Mutex<KeyedSlots<V>>,
}

#[repr(C)]
struct KeyedSlots<V> {
    /// Moves the slots to the begin of a line. The lock is in front of this field.
    unused: [u64; 4],
    slots: [KeyedSlot<V>; WAYS],
}

/// A key and its value.
struct KeyedSlot<V> {
    tag: Tag,
    value: V,
}

/// Hashes the parts of a key. No key may be a prefix of another key of the same kind.
pub(crate) fn tag(secret: [u64; 2], write: impl FnOnce(&mut SipHasher13)) -> Tag {
    let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
    write(&mut hasher);
    hasher.finish128().as_u128()
}

/// Hashes an address. The hash includes the family, so that addresses of different families differ.
pub(crate) fn write_address(hasher: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            // One short write, which takes half of the instructions of two.
            let [a, b, c, d] = address.octets();
            hasher.write(&[4, a, b, c, d]);
        }
        IpAddr::V6(address) => {
            hasher.write_u8(6);
            hasher.write(&address.octets());
        }
    }
}

/// Hashes the network as the last part of a key, or nothing for `Vlan::NONE`. Keys of one kind then differ in length,
/// which the hash includes.
#[inline]
pub(crate) fn write_vlan(hasher: &mut SipHasher13, vlan: Vlan) {
    if !vlan.is_none() {
        hasher.write_u64(vlan.bits());
    }
}

/// The key of a packet's datagram; `more` separates keys of different kinds. `None` if the packet cannot be fragmented.
/// The key includes the VLAN under all settings.
pub(crate) fn datagram(secret: [u64; 2], packet: &Packet<'_>, more: u8) -> Option<Tag> {
    let identification = identification(packet)?;
    Some(tag(secret, |hasher| {
        write_address(hasher, packet.source);
        write_address(hasher, packet.destination);
        hasher.write(&[packet.protocol, more]);
        hasher.write_u32(identification);
        write_vlan(hasher, packet.vlan());
    }))
}

impl<V: Default> Keyed<V> {
    /// The bytes of a key and its value.
    #[cfg(test)]
    pub(crate) const SLOT_BYTES: usize = size_of::<KeyedSlot<V>>();

    /// Creates a table for about `capacity` keys.
    pub(crate) fn new(capacity: usize) -> Keyed<V> {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Keyed { sets: (0..sets).map(|_| KeyedSet::new()).collect() }
    }

    /// The maximum number of keys.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    #[inline]
    fn set(&self, tag: Tag) -> &KeyedSet<V> {
        &self.sets[tag as usize & (self.sets.len() - 1)]
    }

    /// Loads the lines that a lookup or an addition of this key will read. Several calls in sequence wait for memory
    /// together.
    #[inline]
    pub(crate) fn touch(&self, tag: Tag) {
        let set = self.set(tag);
        black_box((set.digests[0].load(Relaxed), set.expiries[0].load(Relaxed)));
    }

    /// Calls `work` with the value of a key, or with a default value. `work` returns a result and the new expiry.
    pub(crate) fn with<T>(&self, tag: Tag, now: Time, work: impl FnOnce(&mut V) -> (T, Time)) -> T {
        let set = self.set(tag);
        let mut guard = set.lock();
        let slots = &mut guard.slots;
        let place = set.find(slots, tag, now).unwrap_or_else(|| {
            let first = set.first_to_expire();
            set.set_digest(first, tag);
            slots[first] = KeyedSlot { tag, value: V::default() };
            first
        });
        let (result, expiry) = work(&mut slots[place].value);
        set.expiries[place].store(expiry.as_nanos(), Relaxed);
        result
    }

    /// The value of a key, if there is one.
    pub(crate) fn get(&self, tag: Tag, now: Time) -> Option<V>
    where
        V: Copy,
    {
        self.get_until(tag, now).map(|(value, _)| value)
    }

    /// As [`Keyed::get`], with its expiry.
    pub(crate) fn get_until(&self, tag: Tag, now: Time) -> Option<(V, Time)>
    where
        V: Copy,
    {
        let set = self.set(tag);
        // Without a candidate, no lock is needed.
        set.candidates(tag).next()?;
        let slots = &set.lock().slots;
        set.find(slots, tag, now).map(|place| (slots[place].value, set.expiry(place)))
    }

    /// Calls `visitor` with every value and its expiry, in no order. Holds one lock at a time, for one set.
    pub(crate) fn visit(&self, now: Time, mut visitor: impl FnMut(V, Time))
    where
        V: Copy,
    {
        for set in &self.sets {
            let live: [_; WAYS] = {
                let slots = &set.lock().slots;
                std::array::from_fn(|place| {
                    let expiry = set.expiry(place);
                    (now < expiry).then_some((slots[place].value, expiry))
                })
            };
            live.into_iter().flatten().for_each(|(value, expiry)| visitor(value, expiry));
        }
    }
}

impl<V: Default> KeyedSet<V> {
    fn new() -> KeyedSet<V> {
        let slot = |_| KeyedSlot { tag: 0, value: V::default() };
        KeyedSet {
            expiries: Default::default(),
            digests: Default::default(),
            slots: Mutex::new(KeyedSlots { unused: [0; 4], slots: std::array::from_fn(slot) }),
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, KeyedSlots<V>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn expiry(&self, place: usize) -> Time {
        Time::from_nanos(self.expiries[place].load(Relaxed))
    }

    /// The places whose digest is that of this key.
    #[inline]
    fn candidates(&self, tag: Tag) -> impl Iterator<Item = usize> {
        let equal = |word: &AtomicU64| equal_lanes(word.load(Relaxed), digest(tag).into(), LANES_OF_16);
        let [low, high] = self.digests.each_ref().map(equal);
        // The places of the second word are between the bits of the first.
        let mut left = low | high >> 1;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (bit < 64).then_some(bit / 16 + LANES * (1 - bit % 2))
        })
    }

    /// The place of a key with a value that has not expired. The caller has the lock.
    #[inline]
    fn find(&self, slots: &[KeyedSlot<V>; WAYS], tag: Tag, now: Time) -> Option<usize> {
        self.candidates(tag).find(|place| slots[*place].tag == tag && now < self.expiry(*place))
    }

    /// The place whose value expires first; the first one of several. The caller has the lock.
    #[inline]
    fn first_to_expire(&self) -> usize {
        (0..WAYS).min_by_key(|place| self.expiry(*place)).unwrap_or_default()
    }

    /// Stores the digest of a key. The caller has the lock.
    #[inline]
    fn set_digest(&self, place: usize, tag: Tag) {
        store_bits(&self.digests[place / LANES], (place % LANES * 16) as u32, u16::MAX.into(), digest(tag).into());
    }
}

/// Bits of the hash that do not select the set.
#[inline]
const fn digest(tag: Tag) -> u16 {
    (tag >> 112) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    /// Counts the calls for the key. Each call sets the expiry to ten seconds.
    fn count(keyed: &Keyed<u32>, key: u128, now: u64) -> u32 {
        keyed.with(key, at(now), |count| {
            *count += 1;
            (*count, at(now + 10))
        })
    }

    #[test]
    fn each_key_has_its_own_until_it_expires() {
        let keyed = Keyed::new(100);
        assert_eq!([count(&keyed, 1, 0), count(&keyed, 2, 0), count(&keyed, 1, 5)], [1, 1, 2]);
        assert_eq!((keyed.get(1, at(14)), keyed.get(1, at(15)), keyed.get(3, at(0))), (Some(2), None, None));
        assert_eq!([count(&keyed, 2, 10), count(&keyed, 1, 14)], [1, 3]);
    }

    #[test]
    fn everything_that_is_remembered_is_shown_once() {
        let keyed = Keyed::new(100);
        for key in 1..=50 {
            count(&keyed, key, (key % 2) as u64);
        }
        let mut seen = Vec::new();
        keyed.visit(at(10), |count, expiry| seen.push((count, expiry)));
        assert_eq!(seen, vec![(1, at(11)); 25]);
        assert_eq!((keyed.get_until(1, at(10)), keyed.get_until(2, at(10))), (Some((1, at(11))), None));
    }

    #[test]
    fn what_expires_first_gives_way() {
        let keyed = Keyed::new(1);
        for key in 0..WAYS as u128 {
            count(&keyed, key, key as u64);
        }
        count(&keyed, 100, 9);
        assert_eq!((keyed.get(0, at(9)), keyed.get(1, at(9)), keyed.get(100, at(9))), (None, Some(1), Some(1)));
    }

    /// A digest of 16 bits that many keys share decides nothing, and no key finds a new slot.
    #[test]
    fn the_whole_hash_decides() {
        let keyed = Keyed::new(1);
        for key in 0..WAYS as u128 {
            assert_eq!(keyed.get(key, at(0)), None);
            assert_eq!(count(&keyed, key, 0), 1);
        }
        assert!((0..WAYS as u128).all(|key| keyed.get(key, at(0)) == Some(1)));
        assert_eq!(keyed.get(WAYS as u128, at(0)), None);
    }

    #[test]
    fn digests_find_every_place_and_exclude_others() {
        let keyed = Keyed::new(1);
        let key = |place: usize| (place as u128 + 1) << 112 | place as u128;
        for place in 0..WAYS {
            count(&keyed, key(place), 0);
        }
        let set = &keyed.sets[0];
        for place in 0..WAYS {
            assert!(set.candidates(key(place)).any(|candidate| candidate == place), "{place}");
            assert_eq!(keyed.get(key(place), at(0)), Some(1));
        }
        assert_eq!((0..=u16::MAX).filter(|other| set.candidates(u128::from(*other) << 112).count() > 0).count(), WAYS);
    }

    #[test]
    fn slots_begin_at_a_line() {
        let keyed = Keyed::<u32>::new(100);
        for set in &keyed.sets {
            let begin = std::ptr::from_ref(set).addr();
            let slots = std::ptr::from_ref(&set.lock().slots).addr();
            assert_eq!((begin % 128, slots - begin), (0, 128));
        }
    }

    #[test]
    fn hashes_depend_on_the_secret() {
        let of = |secret| tag(secret, |hasher| hasher.write_u32(7));
        assert_ne!(of([1, 2]), of([1, 3]));
    }
}
