//! Values that are hashed with a secret, so that senders cannot choose them.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::packet::Packet;
use crate::rule::ClassifierFields;

/// The value that `per-connection-classifier` divides: 32 bits of SipHash-1-3 of the packet's fields, in order. Missing
/// ports count as 0. The fields are the packet's own, so the reverse direction has another value. Source: RouterOS
/// manual, Per-connection classifier, which does not name the hash.
pub fn classifier(secret: [u64; 2], fields: ClassifierFields, packet: &Packet<'_>) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
    let (src_port, dst_port) = packet.ports.unwrap_or_default();
    use ClassifierFields::{
        BothAddresses, BothAddressesAndPorts, BothPorts, DstAddress, DstAddressAndPort, DstPort, SrcAddress,
        SrcAddressAndPort, SrcPort,
    };
    if let BothAddresses | BothAddressesAndPorts | SrcAddress | SrcAddressAndPort = fields {
        write(&mut hasher, packet.source);
    }
    if let BothAddresses | BothAddressesAndPorts | DstAddress | DstAddressAndPort = fields {
        write(&mut hasher, packet.destination);
    }
    if let BothPorts | BothAddressesAndPorts | SrcPort | SrcAddressAndPort = fields {
        hasher.write(&src_port.to_be_bytes());
    }
    if let BothPorts | BothAddressesAndPorts | DstPort | DstAddressAndPort = fields {
        hasher.write(&dst_port.to_be_bytes());
    }
    hasher.finish() as u32
}

/// A tarpit's initial sequence number: the same for each SYN of a connection, so that no state is needed. SipHash-1-3
/// of both addresses and both ports.
pub fn initial_sequence(secret: [u64; 2], packet: &Packet<'_>) -> u32 {
    // The key differs from that of the classifier, whose hash senders may observe.
    classifier([secret[1], secret[0]], ClassifierFields::BothAddressesAndPorts, packet)
}

fn write(hasher: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Side;
    use crate::word::Word;

    fn packet(source: u8, ports: (u16, u16)) -> Packet<'static> {
        let destination = "203.0.113.1".parse().unwrap();
        Packet { ports: Some(ports), ..Packet::bare(Side::Outside, [192, 0, 2, source].into(), destination, 6) }
    }

    #[test]
    fn only_the_fields_count() {
        let of = |fields, packet| classifier([1, 2], fields, &packet);
        assert_eq!(
            of(ClassifierFields::SrcAddress, packet(1, (5, 6))),
            of(ClassifierFields::SrcAddress, packet(1, (7, 8)))
        );
        assert_eq!(
            of(ClassifierFields::BothPorts, packet(1, (5, 6))),
            of(ClassifierFields::BothPorts, packet(2, (5, 6)))
        );
        for fields in ClassifierFields::ALL {
            let all: std::collections::HashSet<_> = (0..16)
                .flat_map(|n| [of(*fields, packet(n, (n.into(), 6))), of(*fields, packet(n, (n.into(), 7)))])
                .collect();
            let expected = match fields {
                ClassifierFields::DstAddress => 1,
                ClassifierFields::DstPort | ClassifierFields::DstAddressAndPort => 2,
                ClassifierFields::BothAddresses | ClassifierFields::SrcAddress => 16,
                ClassifierFields::SrcPort | ClassifierFields::SrcAddressAndPort => 16,
                ClassifierFields::BothPorts | ClassifierFields::BothAddressesAndPorts => 32,
            };
            assert_eq!(all.len(), expected, "{fields:?}");
        }
    }

    #[test]
    fn another_secret_gives_another_hash() {
        let of = |secret| classifier(secret, ClassifierFields::BothAddresses, &packet(1, (5, 6)));
        assert_ne!(of([1, 2]), of([1, 3]));
        assert_ne!(initial_sequence([1, 2], &packet(1, (5, 6))), initial_sequence([1, 2], &packet(1, (5, 7))));
    }
}
