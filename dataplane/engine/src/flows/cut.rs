//! Connections that a door cuts: both ends of a TCP connection get a reset.
//!
//! A reset counts only with exactly the number that its receiver expects (RFC 5961, 3.2). That is what the receiver has
//! acknowledged, or what was sent to it, if its acknowledgement is on its way: so each end gets a reset with both numbers if
//! they differ. An end that goes on to send gets others, one a second.
//!
//! A connection that was cut is closed for good: its packets are `invalid` and still the door's, so that the door's rule
//! drops them whatever is open later.

use std::time::Duration;

use knockplane_policy::eval::replies::{Answer, Segment};
use knockplane_policy::eval::tracking::{End, TcpConnection};
use knockplane_policy::packet::{Packet, Side, TcpFlag, protocol};
use knockplane_policy::rule::Tracking;
use knockplane_policy::time::Time;

use super::flow::Flow;
use super::source::AddressFlow;
use super::{Flows, lock};
use crate::headers::{ETHERNET_LENGTH, MAX_VLAN_TAGS, PPPOE_LENGTH, VLAN_LENGTH};
use crate::reply::Reply;

/// Between two resets to the same end.
const EVERY: Duration = Duration::from_secs(1);

const LONGEST_LINK: usize = ETHERNET_LENGTH + MAX_VLAN_TAGS * VLAN_LENGTH + PPPOE_LENGTH;

/// The Ethernet header of a connection's first packet, with its VLAN tags and its PPPoE header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    bytes: [u8; LONGEST_LINK],
    /// 0 if it is not known.
    length: u8,
}

impl Link {
    pub(super) const NONE: Link = Link { bytes: [0; LONGEST_LINK], length: 0 };

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

    /// With the addresses the other way round.
    fn reversed(&self) -> Link {
        let mut link = *self;
        link.bytes[..12].rotate_left(6);
        link
    }
}

/// A reset, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// The side that it goes out of.
    pub side: Side,
    bytes: [u8; Reset::LONGEST],
    length: usize,
}

impl Reset {
    /// With IPv6.
    const LONGEST: usize = LONGEST_LINK + 40 + 20;

    /// The frame.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
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

    /// The resets to both ends.
    fn resets(&self, tcp: &TcpConnection) -> Vec<Reset> {
        let (originator, responder) = self.originator_and_responder();
        // From each end to the other: as an answer to what the other would send.
        let to_originator = resets(self.link, (originator, responder), self.side, tcp.reset_numbers(true));
        let back = (responder, originator);
        let to_responder = resets(self.link.reversed(), back, self.side.opposite(), tcp.reset_numbers(false));
        to_originator.chain(to_responder).collect()
    }
}

/// The resets with these numbers that answer a packet from the first end, which came from this side with this header.
fn resets(
    link: Link,
    (source, destination): (End, End),
    side: Side,
    [acknowledged, next]: [u32; 2],
) -> impl Iterator<Item = Reset> {
    let network = u16::from(link.length);
    let numbers = [Some(acknowledged), Some(next).filter(|next| *next != acknowledged)];
    numbers.into_iter().flatten().filter(move |_| network > 0).filter_map(move |sequence| {
        let frame = &link.bytes[..usize::from(network)];
        let bare = Packet::bare(side, source.0, destination.0, protocol::TCP);
        let packet = Packet { ports: Some((source.1, destination.1)), frame, network, ..bare };
        let flags = [TcpFlag::Rst].into_iter().collect();
        let mut reply = Reply::default();
        let segment = Segment { flags, sequence, acknowledgement: 0, window: 0 };
        let mut reset = Reset { side, bytes: [0; Reset::LONGEST], length: 0 };
        if !reply.write(&packet, &Answer::Tcp(segment)) {
            return None;
        }
        reset.length = reply.frame().len();
        reset.bytes.get_mut(..reset.length)?.copy_from_slice(reply.frame());
        Some(reset)
    })
}

impl Flows {
    /// Cuts a TCP connection, and returns the resets to send: none if it is over, or was told a moment ago.
    pub fn cut(&self, cut: &AddressFlow, now: Time, tracking: &Tracking) -> Vec<Reset> {
        let (hash, set) = self.set_of(&cut.key);
        let mut set = lock(set);
        let Some(place) = set.find(hash, &cut.key, now) else { return Vec::new() };
        let flow = &mut set.flows[place];
        let Some(mut tcp) = flow.tcp.filter(|_| flow.serial == cut.serial && flow.wants_reset(now)) else {
            return Vec::new();
        };
        tcp.close();
        let resets = flow.resets(&tcp);
        (flow.tcp, flow.cut) = (Some(tcp), Some(now));
        flow.expiry = now + flow.timeout(tracking);
        resets
    }
}
