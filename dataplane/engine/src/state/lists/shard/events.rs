//! Events of this shard's entries. All under the shard's lock, so that numbers are in the order of each entry's
//! changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::event::EventKind;
use knockplane_policy::time::Time;

use super::{Shard, SlotRange};
use crate::state::events::{Cause, EventEntry, ListEvent};
use crate::state::key::KeyKind;

impl Shard {
    /// Publishes a change of an entry above a first step, and stores its number. If the entry ends, this happens before
    /// its slot is freed.
    #[inline(never)]
    pub(super) fn publish(&mut self, slot: u32, kind: EventKind, cause: Option<&Cause>, at: Time) {
        let event = ListEvent { kind, entry: self.event_entry(slot), cause: cause.copied(), at };
        let number = self.events.push(event);
        self.entry(slot).set_changed(number as u32);
        if kind.is_end() {
            self.removals.push(number, event);
        }
    }

    /// Stores the peer of a new grant over IPv6: the entry itself contains only a tag.
    pub(super) fn note_peer(&mut self, slot: u32, cause: &Cause) {
        let entry = self.entry(slot);
        if entry.peer_tag() != 0 && entry.kind().without_vlan() != KeyKind::V4 {
            let destination = cause.knock.map_or(0, |knock| match knock.destination {
                IpAddr::V4(_) => 0,
                IpAddr::V6(address) => address.to_bits(),
            });
            self.peers[slot as usize] = [(destination >> 64) as u64, destination as u64];
        }
    }

    /// The only peer that the slot's entry counts for, if it is known.
    fn peer(&self, slot: u32) -> Option<IpAddr> {
        let entry = self.entry(slot);
        let peer_tag = entry.peer_tag();
        if peer_tag == 0 {
            return None;
        }
        if entry.kind().without_vlan() == KeyKind::V4 {
            // The tag is the address.
            return Some(Ipv4Addr::from_bits(peer_tag).into());
        }
        let [high, low] = self.peers[slot as usize].map(u128::from);
        let address = high << 64 | low;
        (entry.mark().step() == 0 && address != 0).then(|| Ipv6Addr::from_bits(address).into())
    }

    fn event_entry(&self, slot: u32) -> EventEntry {
        let entry = self.entry(slot);
        let (key, peer) = (self.key(slot), self.peer(slot));
        let by_network = key.kind.without_vlan() == KeyKind::Net;
        let (address, vlan) = (key.address(), key.vlan());
        let (step, origin) = (entry.mark().step(), entry.mark().origin());
        EventEntry {
            list: entry.list(),
            level: entry.level(),
            address,
            last: None,
            is_static: false,
            by_network,
            vlan,
            peer_tag: entry.peer_tag(),
            peer,
            step,
            origin,
            since: entry.since(),
            expiry: entry.expiry(),
        }
    }

    /// Visits the entries that changed after the event of this number, in these slots. Returns the slot to continue at,
    /// or `None` at the end. With 0, visits all entries that are events.
    ///
    /// The visitor may also see an entry without a change since then, if the entry did not change for four thousand
    /// million events.
    pub(crate) fn changed_since(
        &self,
        number: u64,
        slots: SlotRange,
        mut visitor: impl FnMut(u64, EventEntry),
    ) -> Option<u32> {
        // Read under the lock, so that no entry of this shard has a later number.
        let last = self.events.last();
        let end = self.fresh.min(slots.end());
        for slot in slots.begin..end {
            let entry = self.entry(slot);
            if entry.is_free() || !entry.is_event() {
                continue;
            }
            // The latest number with this lower half.
            let changed = last - u64::from((last as u32).wrapping_sub(entry.changed()));
            if changed > number {
                visitor(changed, self.event_entry(slot));
            }
        }
        (end < self.fresh).then_some(end)
    }

    /// The removals after this number; `None` if the shard no longer has all of them.
    pub(crate) fn removals_since(&self, number: u64) -> Option<impl Iterator<Item = (u64, ListEvent)>> {
        self.removals.since(number)
    }
}
