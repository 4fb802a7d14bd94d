//! A bounded table of values by keys that attackers can choose. All memory is allocated at the start.
//!
//! A secret hash of 128 bits represents each key, so that an attacker cannot choose two keys that collide. The hash
//! selects a set of a few slots with its own lock. When all slots of a set are taken, the value that expires first is
//! evicted.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use knockplane_policy::eval::tracking::identification;
use knockplane_policy::packet::{Packet, Vlan};
use knockplane_policy::time::Time;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// A key, hashed.
pub(crate) type Tag = u128;

/// Slots of a set.
const WAYS: usize = 8;

/// A table of values by keyed hash.
pub(crate) struct Keyed<V> {
    sets: Box<[Mutex<[Slot<V>; WAYS]>]>,
}

/// A key, its value and the value's expiry. An expired slot is free.
struct Slot<V> {
    tag: Tag,
    expiry: Time,
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
            hasher.write_u8(4);
            hasher.write(&address.octets());
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
    /// Creates a table for about `capacity` keys.
    pub(crate) fn new(capacity: usize) -> Keyed<V> {
        let slot = || Slot { tag: 0, expiry: Time::default(), value: V::default() };
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        Keyed { sets: (0..sets).map(|_| Mutex::new(std::array::from_fn(|_| slot()))).collect() }
    }

    /// The maximum number of keys.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    fn set(&self, tag: Tag) -> MutexGuard<'_, [Slot<V>; WAYS]> {
        self.sets[tag as usize & (self.sets.len() - 1)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `work` with the value of a key, or with a default value. `work` returns a result and the new expiry.
    pub(crate) fn with<T>(&self, tag: Tag, now: Time, work: impl FnOnce(&mut V) -> (T, Time)) -> T {
        let mut set = self.set(tag);
        let known = set.iter().position(|slot| slot.tag == tag && now < slot.expiry);
        let place = known.unwrap_or_else(|| {
            let first = (0..WAYS).min_by_key(|place| set[*place].expiry).unwrap_or_default();
            set[first].tag = tag;
            set[first].value = V::default();
            first
        });
        let slot = &mut set[place];
        let (result, expiry) = work(&mut slot.value);
        slot.expiry = expiry;
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
        set.iter().find(|slot| slot.tag == tag && now < slot.expiry).map(|slot| (slot.value, slot.expiry))
    }

    /// Calls `visitor` with every value and its expiry, in no order. Holds one lock at a time, for one set.
    pub(crate) fn visit(&self, now: Time, mut visitor: impl FnMut(V, Time))
    where
        V: Copy,
    {
        for set in &self.sets {
            let live = {
                let set = set.lock().unwrap_or_else(PoisonError::into_inner);
                set.each_ref().map(|slot| (now < slot.expiry).then_some((slot.value, slot.expiry)))
            };
            live.into_iter().flatten().for_each(|(value, expiry)| visitor(value, expiry));
        }
    }
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

    #[test]
    fn hashes_depend_on_the_secret() {
        let of = |secret| tag(secret, |hasher| hasher.write_u32(7));
        assert_ne!(of([1, 2]), of([1, 3]));
    }
}
