//! The ports that a door opens: `tcp/22`, `udp/1000-2000`, `tcp/80,443`, or a protocol with all its ports.

use std::fmt;
use std::str::FromStr;

use crate::packet::{Family, Packet, protocol};
use crate::rsc::range;
use crate::rule::PortSet;
use crate::word::{Word, words};

words! {
    /// A protocol that a door can open.
    Opens {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP of the packet's family.
        Icmp = "icmp",
    }
}

impl Opens {
    /// The protocol's number.
    pub const fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Opens::Tcp, _) => protocol::TCP,
            (Opens::Udp, _) => protocol::UDP,
            (Opens::Icmp, Family::Ipv4) => protocol::ICMP,
            (Opens::Icmp, Family::Ipv6) => protocol::ICMPV6,
        }
    }
}

/// A protocol and ports that a door opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The protocol.
    pub protocol: Opens,
    /// The destination ports; all if empty.
    pub ports: PortSet,
}

impl Opening {
    /// Whether the packet matches. A later fragment matches only if all ports are open.
    pub fn is(&self, packet: &Packet<'_>) -> bool {
        packet.protocol == self.protocol.number(packet.family())
            && (self.ports.0.is_empty() || packet.ports.is_some_and(|(_, port)| self.ports.contains(port)))
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.name())?;
        for (place, range) in self.ports.0.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { '/' } else { ',' }, range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Opening {
    type Err = String;

    fn from_str(text: &str) -> Result<Opening, String> {
        let wrong = || {
            format!("`{text}` is not an opening; write `tcp/22`, `udp/1000-2000`, `tcp/80,443`, `tcp`, `udp` or `icmp`")
        };
        let (name, ports) = match text.trim().split_once('/') {
            Some((name, ports)) => (name, Some(ports)),
            None => (text.trim(), None),
        };
        let protocol = Opens::from_name(name).ok_or_else(wrong)?;
        let ports = match ports {
            None => Vec::new(),
            Some(_) if protocol == Opens::Icmp => return Err("`icmp` has no ports; write `icmp`".to_owned()),
            Some(ports) => {
                let ports = ports.split(',').map(|part| range(part).filter(|ports| *ports.start() > 0));
                ports.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
            }
        };
        if ports.len() > PortSet::MAX_ITEMS {
            return Err(format!("`{text}` has more than 16 ports or ranges; write another entry for the rest"));
        }
        Ok(Opening { protocol, ports: PortSet(ports) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_read_as_they_are_written() {
        for text in ["tcp/22", "udp/1000-2000", "tcp/80,443,8000-8080", "tcp", "udp", "icmp"] {
            assert_eq!(text.parse::<Opening>().unwrap().to_string(), text);
        }
        for text in ["", "ssh", "22", "tcp/", "tcp/0", "tcp/2-1", "tcp/1,", "tcp/65536", "tcp/+1", "icmp/8", "sctp/1"] {
            assert!(text.parse::<Opening>().is_err(), "{text}");
        }
        let many: Vec<String> = (1..=17).map(|port| port.to_string()).collect();
        assert!(format!("tcp/{}", many.join(",")).parse::<Opening>().unwrap_err().contains("more than 16"));
    }
}
