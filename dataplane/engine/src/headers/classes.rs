//! The properties of a frame of a class that settings depend on: the addresses that the frame claims, and its padding.

use std::net::{IpAddr, Ipv6Addr};

use knockplane_policy::frames::{Claims, ClassFrame, FrameClass};
use knockplane_policy::packet::Side;

use super::{arp, discovery, network};

/// Reads a frame that [`read`](super::read) assigned to this class. This is a second pass over the frame, because few
/// frames have a class, and other frames must not pay for the result.
pub fn class_frame(side: Side, class: FrameClass, frame: &[u8]) -> ClassFrame {
    let nothing = ClassFrame { side, class, claims: [None; 3], is_padded_with_zeros: true };
    let Some((_, payload)) = network(frame) else { return nothing };
    match class {
        FrameClass::Arp => {
            let Some((packet, padding)) = payload.split_first_chunk() else { return nothing };
            let packet = arp::ArpPacket(packet);
            let claimed = if packet.sender().is_unspecified() { packet.target() } else { packet.sender() };
            let is_padded_with_zeros = padding.iter().all(|byte| *byte == 0);
            ClassFrame { claims: [Some(claimed.into()), None, None], is_padded_with_zeros, ..nothing }
        }
        FrameClass::NeighbourDiscovery | FrameClass::RouterAdvertisement | FrameClass::Redirect => {
            ClassFrame { claims: claims_of_discovery(payload).unwrap_or_default(), ..nothing }
        }
        _ => nothing,
    }
}

/// The claims of a neighbour discovery message directly behind its IPv6 header.
fn claims_of_discovery(packet: &[u8]) -> Option<Claims> {
    let (header, message) = packet.split_first_chunk::<40>()?;
    let mut source = [0; 16];
    source.copy_from_slice(&header[8..24]);
    let source = Ipv6Addr::from(source);
    let [target, destination] = discovery::targets(message);
    let is_question = message.first().and_then(|kind| discovery::DiscoveryMessage::of(*kind))
        == Some(discovery::DiscoveryMessage::NeighbourSolicitation)
        && !source.is_unspecified();
    let target = target.filter(|_| !is_question);
    Some(
        [Some(source).filter(|source| !source.is_unspecified()), target, destination]
            .map(|claim| claim.map(IpAddr::V6)),
    )
}
