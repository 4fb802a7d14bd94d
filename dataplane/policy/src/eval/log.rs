//! The lines that `log` and `log=yes` write, in the form RouterOS's have.
//!
//! ```text
//! knock input: in:outside out:inside, connection-state:new src-mac 02:00:00:00:00:01, proto TCP (SYN), 192.0.2.1:40000->203.0.113.1:22, len 60
//! ```
//! First the prefix, if there is one, and the chain the rule is in. What the packet does not have is left out.

use std::net::IpAddr;

use crate::packet::{Packet, protocol};
use crate::rule::{ConnectionState, protocol_name};
use crate::word::Word;

/// The line about a packet.
pub(super) fn line(prefix: &str, chain: &str, packet: &Packet<'_>, state: Option<ConnectionState>) -> String {
    let space = if prefix.is_empty() { "" } else { " " };
    let mut line = format!("{prefix}{space}{chain}: in:{} out:{},", packet.side, packet.side.opposite());
    if let Some(state) = state {
        line += &format!(" connection-state:{}", state.name());
    }
    if let Some(address) = packet.source_mac() {
        line += &format!(" src-mac {address},");
    } else if state.is_some() {
        line += ",";
    }
    line += &format!(" proto {}", protocol_name(packet.protocol).to_uppercase());
    if let Some(flags) = packet.tcp_flags() {
        let flags: Vec<String> = flags.iter().map(|flag| flag.name().to_uppercase()).collect();
        line += &format!(" ({})", flags.join(","));
    } else if let Some((kind, code)) = packet.icmp.filter(|_| is_icmp(packet)) {
        line += &format!(" (type {kind}, code {code})");
    }
    let (source, destination) = packet.ports.unzip();
    let ends = [end(packet.source, source), end(packet.destination, destination)];
    line + &format!(", {}, len {}", ends.join("->"), packet.ip_length)
}

fn is_icmp(packet: &Packet<'_>) -> bool {
    matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6)
}

fn end(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (_, None) => address.to_string(),
        (IpAddr::V4(_), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(_), Some(port)) => format!("[{address}]:{port}"),
    }
}
