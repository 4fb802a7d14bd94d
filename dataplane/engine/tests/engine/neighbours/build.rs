//! Builders of ARP packets and neighbour discovery messages, which are right unless a test changes them. smoltcp
//! computes their checksums.

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::wire::Icmpv6Packet;

pub(crate) type Mac = [u8; 6];

pub(crate) const OUTSIDE_MAC: Mac = [2, 0, 0, 0, 0, 0x0a];
pub(crate) const INSIDE_MAC: Mac = [2, 0, 0, 0, 0, 0x0b];
pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const VLAN: [u8; 4] = [0x81, 0x00, 0, 7];

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("a literal address")
}

/// An ARP frame.
#[derive(Clone, Debug)]
pub(crate) struct Arp {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) tags: Vec<[u8; 4]>,
    /// Hardware and protocol types and lengths.
    pub(crate) types: [u8; 6],
    pub(crate) operation: u16,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
    pub(crate) padding: Vec<u8>,
}

impl Arp {
    /// A host outside requests the MAC of an address.
    pub(crate) fn request(sender: &str, target: &str) -> Arp {
        Arp {
            to: BROADCAST,
            from: OUTSIDE_MAC,
            tags: Vec::new(),
            types: [0, 1, 8, 0, 6, 4],
            operation: 1,
            sender: (OUTSIDE_MAC, sender.parse().expect("a literal address")),
            target: ([0; 6], target.parse().expect("a literal address")),
            padding: vec![0; 18],
        }
    }

    /// A host outside replies.
    pub(crate) fn reply(sender: &str, target: &str) -> Arp {
        let request = Arp::request(sender, target);
        Arp { to: INSIDE_MAC, operation: 2, target: (INSIDE_MAC, request.target.1), ..request }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let tags = self.tags.concat();
        let head =
            [&self.to[..], &self.from, &tags, &[0x08, 0x06], &self.types, &self.operation.to_be_bytes()].concat();
        let [sender, target] = [self.sender, self.target].map(|(mac, address)| [&mac[..], &address.octets()].concat());
        [head, sender, target, self.padding.clone()].concat()
    }
}

/// A neighbour discovery frame.
#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) tags: Vec<[u8; 4]>,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) hop_limit: u8,
    /// Extension headers, and the number of the first.
    pub(crate) extensions: (u8, Vec<u8>),
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// The error that is added to the right checksum.
    pub(crate) checksum_error: u16,
    /// The message behind the checksum, without options.
    pub(crate) fixed: Vec<u8>,
    pub(crate) options: Vec<u8>,
    /// Bytes behind the packet.
    pub(crate) behind: Vec<u8>,
}

impl Discovery {
    fn new(source: &str, destination: Ipv6Addr, kind: u8, fixed: &[&[u8]], options: &[u8]) -> Discovery {
        let [.., a, b, c, d] = destination.octets();
        Discovery {
            to: if destination.is_multicast() { [0x33, 0x33, a, b, c, d] } else { INSIDE_MAC },
            from: OUTSIDE_MAC,
            tags: Vec::new(),
            source: v6(source),
            destination,
            hop_limit: 255,
            extensions: (58, Vec::new()),
            kind,
            code: 0,
            checksum_error: 0,
            fixed: fixed.concat(),
            options: options.to_vec(),
            behind: Vec::new(),
        }
    }

    /// A host solicits routers.
    pub(crate) fn router_solicitation(source: &str) -> Discovery {
        let options = if source == "::" { Vec::new() } else { link_layer(1, OUTSIDE_MAC) };
        Discovery::new(source, v6("ff02::2"), 133, &[&[0; 4]], &options)
    }

    /// A default router for half an hour, and a prefix.
    pub(crate) fn router_advertisement(source: &str) -> Discovery {
        let prefix =
            [&[3, 4, 64, 0xc0][..], &[0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0], &v6("2001:db8::").octets()].concat();
        let options = [link_layer(1, OUTSIDE_MAC), vec![5, 1, 0, 0, 0, 0, 5, 0xdc], prefix].concat();
        Discovery::new(source, v6("ff02::1"), 134, &[&[64, 0, 7, 8], &[0; 8]], &options)
    }

    /// A host solicits another.
    pub(crate) fn solicitation(source: &str, target: &str) -> Discovery {
        let target = v6(target);
        let options = if source == "::" { vec![14, 1, 1, 2, 3, 4, 5, 6] } else { link_layer(1, OUTSIDE_MAC) };
        Discovery::new(source, solicited_node(target), 135, &[&[0; 4], &target.octets()], &options)
    }

    /// The answer.
    pub(crate) fn advertisement(source: &str, destination: &str, target: &str) -> Discovery {
        let destination = v6(destination);
        let flags = if destination.is_multicast() { 0x20 } else { 0x60 };
        let fixed: [&[u8]; 2] = [&[flags, 0, 0, 0], &v6(target).octets()];
        Discovery::new(source, destination, 136, &fixed, &link_layer(2, OUTSIDE_MAC))
    }

    /// A router announces a better next hop.
    pub(crate) fn redirect(source: &str, destination: &str, target: &str, of: &str) -> Discovery {
        let fixed: [&[u8]; 3] = [&[0; 4], &v6(target).octets(), &v6(of).octets()];
        let redirected = [&[4, 7, 0, 0, 0, 0, 0, 0, 0x60][..], &[0; 47]].concat();
        let options = [link_layer(2, OUTSIDE_MAC), redirected].concat();
        Discovery::new(source, v6(destination), 137, &fixed, &options)
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut message = [&[self.kind, self.code, 0, 0][..], &self.fixed, &self.options].concat();
        let mut packet = Icmpv6Packet::new_unchecked(&mut message[..]);
        packet.fill_checksum(&self.source, &self.destination);
        let checksum = packet.checksum().wrapping_add(self.checksum_error);
        packet.set_checksum(checksum);
        let (first, extensions) = &self.extensions;
        let length = (extensions.len() + message.len()) as u16;
        let head = [&self.to[..], &self.from, &self.tags.concat(), &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
        let fields = [&length.to_be_bytes()[..], &[*first, self.hop_limit]].concat();
        let addresses = [self.source.octets(), self.destination.octets()].concat();
        [head, fields, addresses, extensions.clone(), message, self.behind.clone()].concat()
    }
}

/// A link-layer address option: 1 for the source's, 2 for the target's.
pub(crate) fn link_layer(number: u8, mac: Mac) -> Vec<u8> {
    [&[number, 1][..], &mac].concat()
}

pub(crate) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., low] = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | target.segments()[6] & 0xff, low)
}
