//! The resets that both ends of a connection get when a door cuts the connection.
//!
//! A receiver accepts a reset only with exactly the sequence number that it expects (RFC 5961, 3.2). This is the number that
//! the receiver has acknowledged, or the number behind the last byte sent to it, while its acknowledgement is on its way. If
//! the two numbers differ, the end gets a reset with each. An end that continues to send gets one more each second.

use knockplane_policy::eval::replies::{Answer, Segment};
use knockplane_policy::eval::tracking::End;
use knockplane_policy::packet::{Packet, Side, TcpFlag, link, protocol};

use crate::pipeline::reply::Reply;
use crate::state::connections::{CutConnection, Link};

/// The frame of a reset.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// The side that the frame is sent out of.
    pub side: Side,
    bytes: [u8; Reset::LONGEST],
    length: usize,
}

impl Reset {
    /// The length of an IPv6 frame with all VLAN tags and a PPPoE header, in bytes.
    const LONGEST: usize = link::MAX_LENGTH + 40 + 20;

    /// The frame.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The resets to both ends: at most two for each end.
pub fn resets(cut: &CutConnection) -> impl Iterator<Item = Reset> {
    let CutConnection { link, side, originator, responder, to_originator, to_responder } = *cut;
    // Each reset is a reply to a packet that its receiver would send.
    let to_originator = answers(link, (originator, responder), side, to_originator);
    to_originator.chain(answers(link.reversed(), (responder, originator), side.opposite(), to_responder))
}

/// The resets with these sequence numbers that reply to a packet from the first end, which arrives on this side with this
/// link header.
fn answers(
    link: Link,
    (source, destination): (End, End),
    side: Side,
    [acknowledged, next]: [u32; 2],
) -> impl Iterator<Item = Reset> {
    let network = link.bytes().len() as u16;
    let numbers = [Some(acknowledged), Some(next).filter(|next| *next != acknowledged)];
    numbers.into_iter().flatten().filter(move |_| network > 0).filter_map(move |sequence| {
        let bare = Packet::bare(side, source.0, destination.0, protocol::TCP);
        let packet = Packet { ports: Some((source.1, destination.1)), frame: link.bytes(), network, ..bare };
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
