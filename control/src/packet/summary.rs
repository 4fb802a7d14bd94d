//! Writes a packet in one line, in the form of a description.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use knockplane_policy::packet::{FragmentPart, Packet};
use knockplane_policy::rule::protocol_name;
use knockplane_policy::word::Word as _;

/// The packet as a line such as `tcp 198.51.100.7:4000 > 203.0.113.5:22 syn, 40 bytes`.
pub(crate) fn summary(packet: &Packet<'_>) -> String {
    let ports = packet.ports.map_or((None, None), |(source, destination)| (Some(source), Some(destination)));
    let mut text = protocol_name(packet.protocol);
    if let Some((kind, code)) = packet.icmp {
        let _ = write!(text, " {kind}:{code}");
    }
    let (source, destination) = (endpoint(packet.source, ports.0), endpoint(packet.destination, ports.1));
    let _ = write!(text, " {source} > {destination}");
    for flag in packet.tcp_flags().into_iter().flat_map(|flags| flags.iter()) {
        let _ = write!(text, " {}", flag.name());
    }
    if packet.fragment() == Some(FragmentPart::Later) {
        text.push_str(" fragment");
    }
    text = packet.vlan().behind(text);
    let _ = write!(text, ", {} bytes", packet.ip_length);
    text
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}
