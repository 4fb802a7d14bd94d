//! The lines that `log` and `log=yes` write, in RouterOS's form.
//!
//! ```text
//! knock input: in:outside out:inside, connection-state:new src-mac 02:00:00:00:00:01, proto TCP (SYN), 192.0.2.1:40000->203.0.113.1:22, len 60
//! ```
//! A line begins with the prefix, if any, and the rule's chain. It omits fields that the packet does not have. For a
//! packet in a VLAN or PPPoE session, the network follows the interfaces: `vlan 10,`, `vlan 10/20,`, `pppoe 7,`.

use std::net::IpAddr;

use crate::packet::{MacAddress, Packet, Side, TcpFlag, Vlan, protocol};
use crate::rule::{ConnectionState, protocol_name};
use crate::word::{Set, Word};

/// The logged fields of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedPacket {
    side: Side,
    vlan: Vlan,
    state: Option<ConnectionState>,
    source_mac: Option<MacAddress>,
    protocol: u8,
    tcp_flags: Option<Set<TcpFlag>>,
    icmp: Option<(u8, u8)>,
    source: (IpAddr, Option<u16>),
    destination: (IpAddr, Option<u16>),
    ip_length: u32,
}

impl LoggedPacket {
    /// The fields of a packet with this state, which is `None` before tracking.
    pub fn of(packet: &Packet<'_>, state: Option<ConnectionState>) -> LoggedPacket {
        let (source, destination) = packet.ports.unzip();
        LoggedPacket {
            side: packet.side,
            vlan: packet.vlan(),
            state,
            source_mac: packet.source_mac(),
            protocol: packet.protocol,
            tcp_flags: packet.tcp_flags(),
            icmp: packet.icmp.filter(|_| is_icmp(packet)),
            source: (packet.source, source),
            destination: (packet.destination, destination),
            ip_length: packet.ip_length,
        }
    }

    /// The side on which the packet arrived.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The network of the frame.
    pub fn network(&self) -> Vlan {
        self.vlan
    }

    /// The IP protocol's name or number.
    pub fn protocol(&self) -> String {
        protocol_name(self.protocol)
    }

    /// The source's address, and its port if the packet has ports.
    pub fn source(&self) -> (IpAddr, Option<u16>) {
        self.source
    }

    /// As [`LoggedPacket::source`], of the destination.
    pub fn destination(&self) -> (IpAddr, Option<u16>) {
        self.destination
    }

    /// The log line of a rule in this chain.
    pub fn line(&self, prefix: &str, chain: &str) -> String {
        let space = if prefix.is_empty() { "" } else { " " };
        let mut line = format!("{prefix}{space}{chain}: in:{} out:{},", self.side, self.side.opposite());
        if !self.vlan.is_none() {
            line += &format!(" {},", self.vlan);
        }
        if let Some(state) = self.state {
            line += &format!(" connection-state:{}", state.name());
        }
        if let Some(address) = self.source_mac {
            line += &format!(" src-mac {address},");
        } else if self.state.is_some() {
            line += ",";
        }
        line += &format!(" proto {}", protocol_name(self.protocol).to_uppercase());
        if let Some(flags) = self.tcp_flags {
            let flags: Vec<String> = flags.iter().map(|flag| flag.name().to_uppercase()).collect();
            line += &format!(" ({})", flags.join(","));
        } else if let Some((kind, code)) = self.icmp {
            line += &format!(" (type {kind}, code {code})");
        }
        let ends = [self.source, self.destination].map(|(address, port)| end(address, port));
        line + &format!(", {}, len {}", ends.join("->"), self.ip_length)
    }
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
