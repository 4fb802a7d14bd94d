//! The readers of ARP and neighbour discovery against a second implementation: smoltcp reads the frames, and this file
//! states the rules of the RFCs a second time, on smoltcp's reading.
//!
//! Frames begin as valid messages, or as messages with one wrong mandatory field. The test then changes bytes in half
//! of them, and corrects the checksum of half of those, so that the checksum is not the only reason to refuse them.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use etherparse::{ArpEthIpv4Packet, ArpPacketSlice};
use knockplane_engine::headers::{max_frame, read};
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Reason;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, IpProtocol, Ipv6Packet, NdiscNeighborFlags,
    NdiscOption, NdiscOptionType, NdiscRepr,
};

use super::build::{Arp, BROADCAST, Discovery, INSIDE_MAC, Mac, OUTSIDE_MAC, VLAN, link_layer, solicited_node, v6};
use crate::common::cases;

/// Mostly the first value, otherwise one of the others.
fn mostly<T: Clone + std::fmt::Debug + 'static>(right: T, wrong: Vec<T>) -> impl Strategy<Value = T> {
    prop_oneof![12 => Just(right), 1 => select(wrong)]
}

fn tags() -> impl Strategy<Value = Vec<[u8; 4]>> {
    prop_oneof![4 => Just(vec![]), 1 => Just(vec![VLAN]), 1 => Just(vec![[0x88, 0xa8, 0, 8], VLAN])]
}

fn ipv4() -> impl Strategy<Value = Ipv4Addr> {
    let edges = [[0, 0, 0, 0], [0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]];
    prop_oneof![4 => Just(Ipv4Addr::new(192, 0, 2, 7)), 1 => select(edges.to_vec()).prop_map(Ipv4Addr::from),
        1 => any::<[u8; 4]>().prop_map(Ipv4Addr::from)]
}

fn mac() -> impl Strategy<Value = Mac> {
    prop_oneof![
        3 => select(vec![OUTSIDE_MAC, INSIDE_MAC, BROADCAST, [0; 6], [0x33, 0x33, 0, 0, 0, 1]]),
        1 => any::<Mac>(),
    ]
}

pub(crate) fn arp() -> impl Strategy<Value = Arp> {
    let ends =
        (mostly(BROADCAST, vec![INSIDE_MAC, [1, 0, 0x5e, 0, 0, 1]]), mostly(OUTSIDE_MAC, vec![[0; 6], BROADCAST]));
    let types = mostly([0, 1, 8, 0, 6, 4], vec![[0, 6, 8, 0, 6, 4], [0, 1, 0x86, 0xdd, 6, 4], [0, 1, 8, 0, 8, 4]]);
    let operation = prop_oneof![12 => 1..=2_u16, 1 => any::<u16>()];
    let sender_mac = prop_oneof![12 => Just(None), 1 => mac().prop_map(Some)];
    let target_mac = prop_oneof![3 => Just([0; 6]), 2 => mac()];
    let padding = prop_oneof![8 => 0..=18_usize, 1 => 17..24_usize, 1 => 0..1400_usize];
    (ends, tags(), types, operation, (sender_mac, ipv4()), (target_mac, ipv4()), padding).prop_map(
        |((to, from), tags, types, operation, (sender_mac, sender), target, padding)| {
            let sender = (sender_mac.unwrap_or(from), sender);
            Arp { to, from, tags, types, operation, sender, target, padding: vec![0; padding] }
        },
    )
}

fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    let edges = ["::", "::1", "ff02::1", "ff02::2", "ff02::1:ff00:5", "fe80::5", "fec0::1", "2001:db8::6"];
    select(edges.to_vec()).prop_map(v6)
}

fn option() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![1_u8, 1, 2, 2, 3, 4, 5, 14, 24, 25, 253]);
    let any_content = (kind, 0..8_u8, any::<u8>()).prop_map(|(kind, units, content)| {
        let mut option = vec![content; (usize::from(units) * 8).max(2)];
        option[..2].copy_from_slice(&[kind, units]);
        option
    });
    let mac = mostly(OUTSIDE_MAC, vec![BROADCAST, [0; 6]]);
    prop_oneof![3 => (1..=2_u8, mac).prop_map(|(kind, mac)| link_layer(kind, mac)), 2 => any_content]
}

pub(crate) fn discovery() -> impl Strategy<Value = Discovery> {
    let message = select(vec![
        Discovery::router_solicitation("::"),
        Discovery::router_solicitation("fe80::7"),
        Discovery::solicitation("2001:db8::7", "2001:db8::5"),
        Discovery::solicitation("::", "2001:db8::7"),
        Discovery::advertisement("2001:db8::7", "2001:db8::5", "2001:db8::7"),
        Discovery::advertisement("2001:db8::7", "ff02::1", "2001:db8::7"),
        Discovery::router_advertisement("fe80::1"),
        Discovery::redirect("fe80::1", "2001:db8::5", "fe80::2", "2001:db8:1::1"),
    ]);
    let rarely = |strategy: BoxedStrategy<Ipv6Addr>| prop_oneof![10 => Just(None), 1 => strategy.prop_map(Some)];
    let addresses = (rarely(ipv6().boxed()), rarely(ipv6().boxed()), rarely(ipv6().boxed()));
    let ethernet =
        (prop_oneof![10 => Just(None), 1 => mac().prop_map(Some)], mostly(OUTSIDE_MAC, vec![[0; 6], BROADCAST]));
    let fields = (mostly(255, vec![0_u8, 64, 254]), mostly(0, vec![1_u8, 255]), mostly(0, vec![1_u16, 0x100, 0xffff]));
    let reserved = prop_oneof![10 => Just(None), 1 => (0..4_usize, any::<u8>()).prop_map(Some)];
    let options = prop_oneof![3 => Just(None), 4 => prop::collection::vec(option(), 0..4).prop_map(Some)];
    let extensions = mostly(
        (58, vec![]),
        vec![
            (0, vec![58, 0, 5, 2, 0, 0, 1, 0]),
            (44, vec![58, 0, 0, 0, 0, 0, 0, 1]),
            (60, vec![58, 0, 1, 4, 0, 0, 0, 0]),
        ],
    );
    let behind = mostly(0_usize, vec![1, 2, 18, 300]);
    ((message, tags(), addresses, ethernet), fields, reserved, options, extensions, behind).prop_map(
        |(
            (message, tags, (source, destination, target), (to, from)),
            fields,
            reserved,
            options,
            extensions,
            behind,
        )| {
            let mut changed = Discovery { tags, from, extensions, behind: vec![0; behind], ..message };
            (changed.hop_limit, changed.code, changed.checksum_error) = fields;
            changed.source = source.unwrap_or(changed.source);
            if let Some(destination) = destination {
                let [.., a, b, c, d] = destination.octets();
                changed.to = if destination.is_multicast() { [0x33, 0x33, a, b, c, d] } else { INSIDE_MAC };
                changed.destination = destination;
            }
            changed.to = to.unwrap_or(changed.to);
            if let (Some(target), Some(place)) = (target, changed.fixed.get_mut(4..20)) {
                place.copy_from_slice(&target.octets());
            }
            if let Some((place, bits)) = reserved {
                changed.fixed[place] |= bits;
            }
            changed.options = options.map_or(changed.options, |options| options.concat());
            changed
        },
    )
}

/// Bytes to change, from the type on; whether the checksum of the result is corrected.
type Damage = (Vec<(usize, u8)>, Option<usize>, bool);

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec((12..130_usize, any::<u8>()), 1..3)];
    (bytes, prop_oneof![9 => Just(None), 1 => (12..130_usize).prop_map(Some)], any::<bool>())
}

fn damaged(mut frame: Vec<u8>, (bytes, cut, repair): &Damage) -> Vec<u8> {
    for (place, byte) in bytes {
        if let Some(place) = frame.get_mut(*place) {
            *place = *byte;
        }
    }
    frame.truncate(cut.unwrap_or(usize::MAX));
    if let (true, false, Some((0x86dd, at))) = (*repair, bytes.is_empty(), layers(&frame)) {
        let mut packet = frame.split_off(at);
        if let Ok(ip) = Ipv6Packet::new_checked(&packet[..]) {
            let (source, destination, length) = (ip.src_addr(), ip.dst_addr(), usize::from(ip.payload_len()));
            if length >= 8 {
                Icmpv6Packet::new_unchecked(&mut packet[40..40 + length]).fill_checksum(&source, &destination);
            }
        }
        frame.extend(packet);
    }
    frame
}

/// The type behind at most two tags, and the place where its content begins.
fn layers(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    for _ in 0..3 {
        let kind = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        if !matches!(kind, 0x8100 | 0x88a8 | 0x9100) {
            return Some((kind, at + 2));
        }
        at += 4;
    }
    None
}

fn mac_at(frame: &[u8], at: usize) -> Mac {
    frame[at..at + 6].try_into().unwrap()
}

/// The expected reason for a frame that is certainly ARP or neighbour discovery; `None` for any other frame.
fn expected(frame: &[u8]) -> Option<Reason> {
    match layers(frame)? {
        (0x0806, at) => Some(if arp_is_valid(frame, &frame[at..]) { Reason::Arp } else { Reason::ArpMalformed }),
        (0x86dd, at) => discovery_class(frame, &frame[at..]),
        _ => None,
    }
}

fn arp_is_valid(frame: &[u8], packet: &[u8]) -> bool {
    let (to, from) = (EthernetAddress(mac_at(frame, 0)), EthernetAddress(mac_at(frame, 6)));
    let Ok(Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: sender_mac,
        source_protocol_addr: sender,
        target_hardware_addr: target_mac,
        target_protocol_addr: target,
    })) = ArpPacket::new_checked(packet).map(|packet| ArpRepr::parse(&packet))
    else {
        return false;
    };
    let other = ArpPacketSlice::from_slice(packet).unwrap().to_packet();
    let other = ArpEthIpv4Packet::try_from(other).unwrap();
    assert_eq!((other.sender_mac, other.sender_ipv4), (sender_mac.0, sender.octets()), "both libraries read the same");
    assert_eq!((other.target_mac, other.target_ipv4), (target_mac.0, target.octets()));
    let unicast = |address: Ipv4Addr| {
        let number = u32::from(address);
        !matches!(number >> 24, 0 | 127 | 224..=239) && number != u32::MAX
    };
    let none = Ipv4Addr::UNSPECIFIED;
    let usual = target_mac.0 == [0; 6] || target_mac.is_broadcast() || target_mac == to || target_mac == sender_mac;
    let (may_send, may_be_asked) = match operation {
        ArpOperation::Request => (sender == none || unicast(sender), unicast(target) && usual),
        ArpOperation::Reply => {
            let named = to.is_broadcast() && !target_mac.is_multicast() && !target_mac.is_broadcast();
            (unicast(sender), (target == none || unicast(target)) && (usual || named))
        }
        ArpOperation::Unknown(_) => return false,
    };
    let from_itself = from == sender_mac && from.is_unicast() && from.0 != [0; 6];
    let to_somebody = to.is_broadcast() || to.is_unicast() && to.0 != [0; 6];
    packet.len() <= 46 && from_itself && to_somebody && may_send && may_be_asked
}

/// The class that RFC 4861 gives a frame, on smoltcp's reading of it. `None` if its message does not follow the header
/// directly, or is not neighbour discovery: other tests cover these frames.
fn discovery_class(frame: &[u8], packet: &[u8]) -> Option<Reason> {
    let ip = Ipv6Packet::new_checked(packet).ok().filter(|ip| ip.version() == 6)?;
    let length = usize::from(ip.payload_len());
    if ip.next_header() != IpProtocol::Icmpv6 || length < 8 {
        return None;
    }
    let message = &packet[40..40 + length];
    if !(133..=137).contains(&message[0]) {
        return None;
    }
    let class = match message[0] {
        134 => Reason::RouterAdvertisement,
        137 => Reason::Redirect,
        _ => Reason::NeighbourDiscovery,
    };
    let is_valid = packet.len() == 40 + length && ip.hop_limit() == 255 && discovery_is_valid(frame, &ip, message);
    Some(if is_valid { class } else { Reason::NeighbourDiscoveryMalformed })
}

fn discovery_is_valid(frame: &[u8], ip: &Ipv6Packet<&[u8]>, message: &[u8]) -> bool {
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let Ok(icmp) = Icmpv6Packet::new_checked(message) else { return false };
    let Ok(read) = NdiscRepr::parse(&icmp) else { return false };
    let unicast = |address: Ipv6Addr| !address.is_multicast() && !address.is_unspecified() && !address.is_loopback();
    let local = |address: Ipv6Addr| address.segments()[0] & 0xffc0 == 0xfe80;
    let to_all = |groups: &[&str]| unicast(destination) || groups.iter().any(|group| destination == v6(group));
    let unnamed = source.is_unspecified();
    let zero = |from: usize, mask: u8| message[from] & mask == 0 && message[from + 1..8].iter().all(|byte| *byte == 0);
    let fits = match read {
        NdiscRepr::RouterSolicit { lladdr } => {
            (unnamed && lladdr.is_none() || unicast(source)) && to_all(&["ff02::2"]) && zero(4, 0xff)
        }
        NdiscRepr::RouterAdvert { .. } => local(source) && to_all(&["ff02::1"]),
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
            let asked = solicited_node(target_addr);
            let as_it_should = if unnamed { lladdr.is_none() && destination == asked } else { unicast(source) };
            let to_it = destination == asked || destination == target_addr;
            as_it_should && to_it && unicast(target_addr) && zero(4, 0xff)
        }
        NdiscRepr::NeighborAdvert { flags, target_addr, .. } => {
            let groups: &[&str] =
                if flags.contains(NdiscNeighborFlags::SOLICITED) { &[] } else { &["ff02::1", "ff02::2"] };
            unicast(source) && unicast(target_addr) && to_all(groups) && zero(4, 0x1f)
        }
        NdiscRepr::Redirect { target_addr, dest_addr, .. } => {
            let better = local(target_addr) || target_addr == dest_addr;
            local(source) && unicast(destination) && unicast(dest_addr) && better && zero(4, 0xff)
        }
    };
    let (to, from) = (EthernetAddress(mac_at(frame, 0)), EthernetAddress(mac_at(frame, 6)));
    let to_one = to.is_unicast() && to.0 != [0; 6];
    let [.., a, b, c, d] = destination.octets();
    let carried = if destination.is_multicast() { to_one || to.0 == [0x33, 0x33, a, b, c, d] } else { to_one };
    let most = if matches!(message[0], 134 | 137) { 1240 - icmp.header_len() } else { 32 };
    fits && carried
        && from.is_unicast()
        && from.0 != [0; 6]
        && icmp.msg_code() == 0
        && icmp.verify_checksum(&source, &destination)
        && icmp.payload().len() <= most
        && options_are_valid(icmp.payload(), unnamed)
}

/// Checks lengths of options over Ethernet, and the options that an unspecified source forbids: smoltcp keeps only the
/// last option of a kind, and also reads link-layer addresses of other lengths.
fn options_are_valid(options: &[u8], unnamed: bool) -> bool {
    let mut at = 0;
    while at < options.len() {
        let Ok(option) = NdiscOption::new_checked(&options[at..]) else { return false };
        let units = option.data_len();
        let is_valid = match option.option_type() {
            NdiscOptionType::SourceLinkLayerAddr if unnamed => false,
            NdiscOptionType::SourceLinkLayerAddr | NdiscOptionType::TargetLinkLayerAddr => {
                let mac = EthernetAddress(mac_at(&options[at..], 2));
                units == 1 && mac.is_unicast() && mac.0 != [0; 6]
            }
            NdiscOptionType::PrefixInformation => units == 4,
            NdiscOptionType::Mtu => units == 1,
            _ => true,
        };
        if !is_valid {
            return false;
        }
        at += usize::from(units) * 8;
    }
    true
}

/// Passes `times` frames to both implementations, and prints the number of well-formed ones.
fn compare(name: &str, times: u32, frames: impl Strategy<Value = Vec<u8>>) {
    let (begin, well_formed, refused) = (Instant::now(), Cell::new(0_u64), Cell::new(0_u64));
    let outcome = TestRunner::new(cases(times)).run(&frames, |frame| {
        let Some(expected) = expected(&frame) else { return Ok(()) };
        let said = read(Side::Outside, &frame, max_frame(65_535)).err();
        prop_assert_eq!(said, Some(expected), "{:02x?}", frame);
        let count = if expected.may_forward() { &well_formed } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    });
    let (well_formed, refused) = (well_formed.get(), refused.get());
    println!("{name}: {well_formed} well-formed, {refused} refused, in {:?}", begin.elapsed());
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    let least = u64::from(times / 20);
    assert!(
        well_formed > least && refused > least,
        "{name}: {well_formed} well-formed, {refused} refused: too one-sided"
    );
}

#[test]
fn arp_is_read_as_a_second_implementation_reads_it() {
    compare("ARP", 10_000, (arp(), damage()).prop_map(|(arp, damage)| damaged(arp.frame(), &damage)));
}

#[test]
fn neighbour_discovery_is_read_as_a_second_implementation_reads_it() {
    let frames = (discovery(), damage()).prop_map(|(message, damage)| damaged(message.frame(), &damage));
    compare("neighbour discovery", 20_000, frames);
}
