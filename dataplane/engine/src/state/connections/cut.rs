//! Connections that a door cuts, or that an operator ends. The pipeline writes the resets to both ends.
//!
//! A cut connection stays closed. Its packets are `invalid` and still belong to the door, so that the door's rule drops
//! them, even if a door is open later.

use std::time::Duration;

use knockplane_policy::eval::tracking::End;
use knockplane_policy::packet::Side;
use knockplane_policy::rule::Tracking;
use knockplane_policy::time::Time;

use super::ConnectionTable;
use super::info::ConnectionInfo;
use super::link::LinkHeader;
use super::set::LockedSet;

/// A TCP connection that was cut.
#[derive(Clone, Copy, Debug)]
pub struct CutConnection {
    /// The link header of a packet from the originator.
    pub(crate) link: LinkHeader,
    /// The side of the originator.
    pub(crate) side: Side,
    pub(crate) originator: End,
    pub(crate) responder: End,
    /// The sequence numbers at which the originator may accept a reset.
    pub(crate) to_originator: [u32; 2],
    /// The sequence numbers at which the responder may accept a reset.
    pub(crate) to_responder: [u32; 2],
}

/// The end of a connection by an operator.
#[derive(Clone, Copy, Debug)]
pub enum EndedConnection {
    /// The table has no such connection any more, or it was cut already.
    Before,
    /// The connection is not TCP, or both sides had closed it, and was removed: its next packet is that of a new one.
    Removed,
    /// The connection is TCP, and was cut.
    Cut(CutConnection),
}

/// Minimum time between two resets to the same end.
const RESET_INTERVAL: Duration = Duration::from_secs(1);

impl LockedSet<'_> {
    /// Whether the ends of the connection in this slot need a reset.
    pub(super) fn wants_reset(&self, place: usize, now: Time) -> bool {
        let (slot, flags) = (self.slot(place), self.slot(place).flags());
        let cut = self.rare(place).cut;
        match flags.tcp() {
            None => false,
            Some(state) if !flags.is_cut() => !state.is_closed(),
            Some(_) => slot.last() > cut && now.since(cut) >= RESET_INTERVAL,
        }
    }
}

impl ConnectionTable {
    /// Cuts a TCP connection. `None` if the connection is not tracked any more, or if its ends need no reset now.
    pub fn cut(&self, cut: &ConnectionInfo, now: Time, tracking: &Tracking) -> Option<CutConnection> {
        let key = self.hashed(cut.key);
        let mut set = self.set_of(&key).lock();
        let place = set.find(&key, now)?;
        let (slot, serial) = (set.slot(place), set.begun(place).serial);
        if serial != cut.serial || !set.wants_reset(place, now) {
            return None;
        }
        let mut tcp = set.tcp(place, slot.flags());
        tcp.close();
        set.end_verdicts(place);
        let flags = set.set_tcp(place, slot.flags(), &tcp).with_cut();
        slot.set_flags(flags);
        slot.set_expiry(now + flags.timeout(tracking, cut.protocol));
        let rare = set.rare_mut(place);
        rare.cut = now;
        let link = if flags.door().is_some() { rare.link } else { LinkHeader::NONE };
        let key = cut.key.flow_key();
        let (originator, responder) = (key.ends[flags.originator()], key.ends[1 - flags.originator()]);
        let (to_originator, to_responder) = (tcp.reset_numbers(true), tcp.reset_numbers(false));
        Some(CutConnection { link, side: flags.side(), originator, responder, to_originator, to_responder })
    }

    /// Ends a connection. No packet belongs to it after this call, and no verdict about it counts, except in programs that
    /// run at this moment.
    pub fn end(&self, ended: &ConnectionInfo, now: Time, tracking: &Tracking) -> EndedConnection {
        if let Some(cut) = self.cut(ended, now, tracking) {
            return EndedConnection::Cut(cut);
        }
        let key = self.hashed(ended.key);
        let set = self.set_of(&key).lock();
        match set.find(&key, now) {
            Some(place) if set.begun(place).serial == ended.serial && !set.slot(place).flags().is_cut() => {
                set.remove(place);
                EndedConnection::Removed
            }
            _ => EndedConnection::Before,
        }
    }
}
