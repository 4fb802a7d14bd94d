//! Builds the frame of a packet from its fields, with another library than the one that reads it.

use std::net::IpAddr;

use etherparse::err::packet::BuildVecWriteError;
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header,
    PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement, ether_type,
};
use knockplane_policy::packet::{MacAddress, TcpFlag, Vlan, protocol};
use knockplane_policy::word::Set;

/// Locally administered addresses (IEEE 802, 8.2.2), which no real host has.
const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The offset of a fragment's data: behind a first fragment that fills an Ethernet frame, in units of 8 bytes.
const FRAGMENT_OFFSET: u16 = 1480 / 8;

/// A packet, field by field.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) protocol: u8,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The ports of TCP and UDP.
    pub(super) ports: Option<(u16, u16)>,
    pub(super) flags: Set<TcpFlag>,
    pub(super) mss: Option<u16>,
    /// Type and code of ICMP.
    pub(super) icmp: (u8, u8),
    pub(super) payload: Vec<u8>,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) mac: MacAddress,
    pub(super) vlan: Vlan,
    /// The priority of the outer VLAN tag; without a VLAN, that of a priority tag.
    pub(super) priority: Option<u8>,
    /// A later fragment of its datagram: it has no transport header.
    pub(super) fragment: bool,
}

impl Fields {
    /// An ordinary packet: a TCP SYN, an ICMP echo request, or an empty packet of any other protocol.
    pub(super) fn new(protocol: u8, source: IpAddr, destination: IpAddr) -> Self {
        Fields {
            protocol,
            source,
            destination,
            ports: None,
            flags: [TcpFlag::Syn].into_iter().collect(),
            mss: None,
            icmp: if protocol == protocol::ICMPV6 { (128, 0) } else { (8, 0) },
            payload: Vec::new(),
            ttl: 64,
            tos: 0,
            mac: MacAddress(SOURCE_MAC),
            vlan: Vlan::NONE,
            priority: None,
            fragment: false,
        }
    }
}

/// The frame. If a length is given, its IP packet has that length: zeros fill it behind the payload.
///
/// # Errors
/// The reason that such a packet does not exist.
pub(super) fn frame(fields: &Fields, length: Option<u16>) -> Result<Vec<u8>, String> {
    let frame = build(fields)?;
    let Some(length) = length else { return Ok(in_network(&frame, fields)) };
    let least = frame.len() - ETHERNET;
    let missing = usize::from(length)
        .checked_sub(least)
        .ok_or_else(|| format!("the packet has {least} bytes already, headers and payload"))?;
    let mut longer = fields.clone();
    // Extends the data, which a fragment without a payload has too.
    longer.payload.resize(data(fields).len() + missing, 0);
    Ok(in_network(&build(&longer)?, fields))
}

/// Bytes of the Ethernet header without tags, and the place of its type.
const ETHERNET: usize = 14;
const TYPE: usize = 12;

/// The frame with its VLAN tags (IEEE 802.1Q) and in its PPPoE session (RFC 2516).
fn in_network(frame: &[u8], fields: &Fields) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(TYPE);
    let mut tags: Vec<[u16; 2]> = fields.vlan.stack().map(|(kind, number)| [kind, number]).collect();
    if let Some(priority) = fields.priority {
        if tags.is_empty() {
            tags.push([ether_type::VLAN_TAGGED_FRAME.0, 0]);
        }
        tags[0][1] |= u16::from(priority) << 13;
    }
    let mut words = tags.concat();
    let mut behind = rest;
    if let Some(session) = fields.vlan.session() {
        let packet = &frame[ETHERNET..];
        // The protocols of PPP: IPv4 or IPv6.
        let protocol = if fields.source.is_ipv4() { 0x0021 } else { 0x0057 };
        // An IP packet fits the length field, except an IPv6 packet of the greatest length.
        let length = u16::try_from(packet.len() + 2).unwrap_or(u16::MAX);
        words.extend([0x8864, 0x1100, session, length, protocol]);
        behind = packet;
    }
    let words: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    [addresses, &words, behind].concat()
}

fn build(fields: &Fields) -> Result<Vec<u8>, String> {
    let mut frame = Vec::new();
    let ip = with_ip(fields);
    let payload = data(fields);
    let built = match (fields.protocol, fields.ports) {
        _ if fields.fragment => ip.write_to_vec(&mut frame, IpNumber(fields.protocol), payload),
        (protocol::TCP, Some(ports)) => ip.tcp_header(tcp(fields, ports)?).write_to_vec(&mut frame, payload),
        (protocol::UDP, Some((source, destination))) => ip.udp(source, destination).write_to_vec(&mut frame, payload),
        (protocol::ICMP, _) => ip.icmpv4_raw(fields.icmp.0, fields.icmp.1, [0; 4]).write_to_vec(&mut frame, payload),
        (protocol::ICMPV6, _) => ip.icmpv6_raw(fields.icmp.0, fields.icmp.1, [0; 4]).write_to_vec(&mut frame, payload),
        (other, _) => ip.write_to_vec(&mut frame, IpNumber(other), payload),
    };
    built.map_err(|error| in_words(&error))?;
    Ok(frame)
}

/// The data behind the headers. A fragment always has data.
fn data(fields: &Fields) -> &[u8] {
    if fields.fragment && fields.payload.is_empty() { &[0; 8] } else { &fields.payload }
}

/// Ethernet and IP.
fn with_ip(fields: &Fields) -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ethernet2(fields.mac.0, DESTINATION_MAC).ip(ip(fields))
}

fn ip(fields: &Fields) -> IpHeaders {
    let offset = IpFragOffset::try_new(if fields.fragment { FRAGMENT_OFFSET } else { 0 }).unwrap_or_default();
    match (fields.source, fields.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = Ipv4Header {
                dscp: etherparse::IpDscp::try_new(fields.tos >> 2).unwrap_or_default(),
                ecn: etherparse::IpEcn::try_new(fields.tos & 3).unwrap_or_default(),
                time_to_live: fields.ttl,
                dont_fragment: false,
                fragment_offset: offset,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let header = Ipv6Header {
                traffic_class: fields.tos,
                hop_limit: fields.ttl,
                source: octets(source),
                destination: octets(destination),
                ..Ipv6Header::default()
            };
            let fragment =
                fields.fragment.then(|| Ipv6FragmentHeader::new(IpNumber(fields.protocol), offset, false, 0));
            IpHeaders::Ipv6(header, Ipv6Extensions { fragment, ..Ipv6Extensions::default() })
        }
    }
}

fn tcp(fields: &Fields, (source, destination): (u16, u16)) -> Result<TcpHeader, String> {
    let has = |flag| fields.flags.contains(flag);
    // The numbers of a connection in which each end has sent only its SYN, so that packets that form a connection by
    // their flags also do so by their numbers.
    let mut header = TcpHeader::new(source, destination, u32::from(!has(TcpFlag::Syn)), u16::MAX);
    header.acknowledgment_number = u32::from(has(TcpFlag::Ack));
    header.fin = has(TcpFlag::Fin);
    header.syn = has(TcpFlag::Syn);
    header.rst = has(TcpFlag::Rst);
    header.psh = has(TcpFlag::Psh);
    header.ack = has(TcpFlag::Ack);
    header.urg = has(TcpFlag::Urg);
    header.ece = has(TcpFlag::Ece);
    header.cwr = has(TcpFlag::Cwr);
    if let Some(mss) = fields.mss {
        header.set_options(&[TcpOptionElement::MaximumSegmentSize(mss)]).map_err(|error| error.to_string())?;
    }
    Ok(header)
}

fn in_words(error: &BuildVecWriteError) -> String {
    match error {
        BuildVecWriteError::Icmpv6InIpv4 => "there is no icmpv6 between IPv4 addresses: write icmp".to_owned(),
        other => format!("there is no such packet: {other}"),
    }
}
