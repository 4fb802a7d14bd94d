//! Connections that a door cuts. The resets to both ends are written by [`crate::pipeline::reset`].
//!
//! A connection that was cut is closed for good: its packets are `invalid` and still the door's, so that the door's rule
//! drops them whatever is open later.

use std::time::Duration;

use knockplane_policy::eval::tracking::End;
use knockplane_policy::packet::link::{ETHERNET_LENGTH, MAX_LENGTH};
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::rule::Tracking;
use knockplane_policy::time::Time;

use super::flow::Flow;
use super::source::AddressFlow;
use super::{Flows, lock};

/// Between two resets to the same end.
const EVERY: Duration = Duration::from_secs(1);

/// The Ethernet header of a connection's first packet, with its VLAN tags and its PPPoE header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    bytes: [u8; MAX_LENGTH],
    /// 0 if it is not known.
    length: u8,
}

impl Link {
    pub(super) const NONE: Link = Link { bytes: [0; MAX_LENGTH], length: 0 };

    /// Of this packet; none if it has more in front of its IP header.
    pub(super) fn of(packet: &Packet<'_>) -> Link {
        let mut link = Link::NONE;
        let header = packet.frame.get(..usize::from(packet.network)).filter(|header| header.len() >= ETHERNET_LENGTH);
        if let Some((header, room)) = header.and_then(|header| Some((header, link.bytes.get_mut(..header.len())?))) {
            room.copy_from_slice(header);
            link.length = header.len() as u8;
        }
        link
    }

    /// The header's bytes; empty if it is not known.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// With the addresses the other way round.
    pub(crate) fn reversed(&self) -> Link {
        let mut link = *self;
        link.bytes[..12].rotate_left(6);
        link
    }
}

/// A TCP connection that was cut.
#[derive(Clone, Copy, Debug)]
pub struct CutConnection {
    /// Of a packet from the originator.
    pub(crate) link: Link,
    /// The side that the originator is on.
    pub(crate) side: Side,
    pub(crate) originator: End,
    pub(crate) responder: End,
    /// The sequence numbers that the originator may expect a reset to have.
    pub(crate) to_originator: [u32; 2],
    /// And the responder.
    pub(crate) to_responder: [u32; 2],
}

impl Flow {
    /// Whether a reset of this connection would be news to its ends.
    pub(super) fn wants_reset(&self, now: Time) -> bool {
        self.tcp.is_some()
            && match self.cut {
                None => !self.is_closed(),
                Some(at) => self.last > at && now.since(at) >= EVERY,
            }
    }
}

impl Flows {
    /// Cuts a TCP connection. None if it is over, or its ends were told a moment ago.
    pub fn cut(&self, cut: &AddressFlow, now: Time, tracking: &Tracking) -> Option<CutConnection> {
        let (hash, set) = self.set_of(&cut.key);
        let mut set = lock(set);
        let place = set.find(hash, &cut.key, now)?;
        let flow = &mut set.flows[place];
        let mut tcp = flow.tcp.filter(|_| flow.serial == cut.serial && flow.wants_reset(now))?;
        tcp.close();
        let (originator, responder) = flow.originator_and_responder();
        let (to_originator, to_responder) = (tcp.reset_numbers(true), tcp.reset_numbers(false));
        (flow.tcp, flow.cut) = (Some(tcp), Some(now));
        flow.expiry = now + flow.timeout(tracking);
        Some(CutConnection { link: flow.link, side: flow.side, originator, responder, to_originator, to_responder })
    }
}
