//! Connections that a door cuts. The pipeline writes the resets to both ends.
//!
//! A cut connection stays closed. Its packets are `invalid` and still belong to the door, so that the door's rule drops
//! them, even if a door is open later.

use knockplane_policy::eval::tracking::End;
use knockplane_policy::packet::Side;
use knockplane_policy::rule::Tracking;
use knockplane_policy::time::Time;

use super::info::ConnectionInfo;
use super::link::Link;
use super::{ConnectionTable, lock};

/// A TCP connection that was cut.
#[derive(Clone, Copy, Debug)]
pub struct CutConnection {
    /// The link header of a packet from the originator.
    pub(crate) link: Link,
    /// The side of the originator.
    pub(crate) side: Side,
    pub(crate) originator: End,
    pub(crate) responder: End,
    /// The sequence numbers at which the originator may accept a reset.
    pub(crate) to_originator: [u32; 2],
    /// The sequence numbers at which the responder may accept a reset.
    pub(crate) to_responder: [u32; 2],
}

impl ConnectionTable {
    /// Cuts a TCP connection. `None` if the connection is not tracked any more, or if its ends need no reset now.
    pub fn cut(&self, cut: &ConnectionInfo, now: Time, tracking: &Tracking) -> Option<CutConnection> {
        let (hash, set) = self.set_of(&cut.key);
        let mut set = lock(set);
        let place = set.find(hash, &cut.key, now)?;
        let flow = &mut set.slots[place];
        let mut tcp = flow.tcp.filter(|_| flow.serial == cut.serial && flow.wants_reset(now))?;
        tcp.close();
        let (originator, responder) = flow.originator_and_responder();
        let (to_originator, to_responder) = (tcp.reset_numbers(true), tcp.reset_numbers(false));
        (flow.tcp, flow.cut) = (Some(tcp), Some(now));
        flow.expiry = now + flow.timeout(tracking);
        Some(CutConnection { link: flow.link, side: flow.side, originator, responder, to_originator, to_responder })
    }
}
