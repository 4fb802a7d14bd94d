//! Rules in their declared form: what an operator wrote, typed. This is what travels between the processes and what
//! the engine compiles.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::{Family, Packet, protocol};

/// Everything a rule file says. The order of `rules` is the order of evaluation within each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSet {
    /// `/ip firewall layer7-protocol`.
    pub layer7: Vec<Layer7Pattern>,
    /// `/ip firewall filter` and `/ipv6 firewall filter`, in the order of the file.
    pub rules: Vec<Rule>,
}

/// One filter rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Stable across reloads and reordering: derived from what the rule says, see [`RuleSet::assign_ids`].
    pub id: RuleId,
    /// Which menu it stands in.
    pub family: Family,
    /// The chain it belongs to. Chains are compared exactly.
    pub chain: String,
    /// What it must see to act; all of them.
    pub matchers: Vec<Matcher>,
    /// What it does.
    pub action: Action,
    /// Kept and shown, but not run.
    pub disabled: bool,
    /// Free text.
    pub comment: String,
    /// The line of the rule file the rule began on, counted from 1; 0 if it came from elsewhere.
    pub line: u32,
}

/// The name of a rule in metrics, tables and logs: eight hexadecimal digits, with `-2`, `-3`, … for repeated rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub String);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The chains that packets enter by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuiltinChain {
    /// From outside to a protected address.
    Input,
    /// Neither from nor to a protected address.
    Forward,
    /// From a protected address to the outside.
    Output,
}

impl BuiltinChain {
    /// All three, in the order of their indexes.
    pub const ALL: [BuiltinChain; 3] = [BuiltinChain::Input, BuiltinChain::Forward, BuiltinChain::Output];

    /// The name in rules.
    pub const fn name(self) -> &'static str {
        match self {
            BuiltinChain::Input => "input",
            BuiltinChain::Forward => "forward",
            BuiltinChain::Output => "output",
        }
    }
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Forward the packet; no further rule is tried.
    Accept,
    /// Drop the packet; no further rule is tried.
    Drop,
    /// Count it and go on.
    Passthrough,
    /// Put the source in a list, or set its timeout anew, and go on.
    AddSrcToAddressList(ListAdd),
    /// Put the destination in a list, or set its timeout anew, and go on.
    AddDstToAddressList(ListAdd),
    /// Try the rules of another chain, then go on.
    Jump(String),
    /// Go back behind the jump; in a built-in chain, to the chain's default.
    Return,
}

impl Action {
    /// The name in rules and tables.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Drop => "drop",
            Action::Passthrough => "passthrough",
            Action::AddSrcToAddressList(_) => "add-src-to-address-list",
            Action::AddDstToAddressList(_) => "add-dst-to-address-list",
            Action::Jump(_) => "jump",
            Action::Return => "return",
        }
    }
}

/// Where an address goes and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAdd {
    /// Name of the address list.
    pub list: String,
    /// How long the address stays.
    pub timeout: ListTimeout,
}

/// How long an address stays in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListTimeout {
    /// Until the dataplane restarts. RouterOS's default.
    NoneDynamic,
    /// For good. Saved and exported by RouterOS; here it survives a reload, as `NoneDynamic` does.
    NoneStatic,
    /// This long after the last packet that added it. 1 s to 35w3d13h13m56s.
    After(Duration),
}

/// One condition of a rule, perhaps negated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Written with `!`.
    pub negated: bool,
    /// What is asked.
    pub condition: Condition,
}

/// What a matcher asks of a packet. The order of the variants is the order in which RouterOS evaluates them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// `src-address`.
    SrcAddress(AddressSet),
    /// `dst-address`.
    DstAddress(AddressSet),
    /// `protocol`.
    Protocol(u8),
    /// `src-address-list`: a list no one ever fills is an empty list.
    SrcAddressList(String),
    /// `dst-address-list`.
    DstAddressList(String),
    /// `packet-size`, in bytes of the IP packet.
    PacketSize(RangeInclusive<u16>),
    /// `src-port`. False, also when negated, for packets without ports.
    SrcPort(PortSet),
    /// `dst-port`. As above.
    DstPort(PortSet),
    /// `port`: either of the two. As above.
    AnyPort(PortSet),
    /// `icmp-options`: type and codes. False, also when negated, for packets that are not ICMP.
    IcmpOptions {
        /// ICMP type.
        kind: u8,
        /// ICMP codes.
        codes: RangeInclusive<u8>,
    },
    /// `layer7-protocol`, by the pattern's name.
    Layer7(String),
}

impl Condition {
    /// The name in rules.
    pub const fn name(&self) -> &'static str {
        match self {
            Condition::SrcAddress(_) => "src-address",
            Condition::DstAddress(_) => "dst-address",
            Condition::Protocol(_) => "protocol",
            Condition::SrcAddressList(_) => "src-address-list",
            Condition::DstAddressList(_) => "dst-address-list",
            Condition::PacketSize(_) => "packet-size",
            Condition::SrcPort(_) => "src-port",
            Condition::DstPort(_) => "dst-port",
            Condition::AnyPort(_) => "port",
            Condition::IcmpOptions { .. } => "icmp-options",
            Condition::Layer7(_) => "layer7-protocol",
        }
    }

    /// Position in the order of evaluation.
    pub const fn rank(&self) -> u8 {
        match self {
            Condition::SrcAddress(_) => 0,
            Condition::DstAddress(_) => 1,
            Condition::Protocol(_) => 2,
            Condition::SrcAddressList(_) => 3,
            Condition::DstAddressList(_) => 4,
            Condition::PacketSize(_) => 5,
            Condition::SrcPort(_) => 6,
            Condition::DstPort(_) => 7,
            Condition::AnyPort(_) => 8,
            Condition::IcmpOptions { .. } => 9,
            Condition::Layer7(_) => 10,
        }
    }

    /// Whether the question makes sense for this packet. If not, the matcher is false, negated or not: a rule about
    /// ports must not match a packet that has none.
    pub fn applies(&self, packet: &Packet<'_>) -> bool {
        match self {
            Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) => packet.ports.is_some(),
            Condition::IcmpOptions { .. } => packet.icmp.is_some(),
            _ => true,
        }
    }
}

/// Addresses of a rule: a prefix (host bits masked) or a range with both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSet {
    /// An address or prefix.
    Prefix(IpNet),
    /// From the first address to the second, both included, of one family.
    Range(IpAddr, IpAddr),
}

impl AddressSet {
    /// Whether the address is in the set. An address of the other family never is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            AddressSet::Prefix(net) => net.contains(&address),
            AddressSet::Range(first, last) => {
                Family::of(*first) == Family::of(address) && (*first..=*last).contains(&address)
            }
        }
    }
}

/// Ports of a rule: at most 16 ports or ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortSet(pub Vec<RangeInclusive<u16>>);

impl PortSet {
    /// How many items RouterOS takes in one list.
    pub const MAX_ITEMS: usize = 16;

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

/// A named regular expression over payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer7Pattern {
    /// What `layer7-protocol=` refers to.
    pub name: String,
    /// The expression, unquoted. Bytes above 0x7f of the file appear as `\xHH`.
    pub regexp: String,
    /// Free text.
    pub comment: String,
    /// The line of the rule file it began on, counted from 1; 0 if it came from elsewhere.
    pub line: u32,
}

impl RuleSet {
    /// The pattern of this name.
    pub fn pattern(&self, name: &str) -> Option<&Layer7Pattern> {
        self.layer7.iter().find(|pattern| pattern.name == name)
    }

    /// Gives every rule its id: a hash of what it says (family, chain, matchers, action), not of where it stands, its
    /// comment, or whether it is disabled. Rules that say the same are numbered in order.
    pub fn assign_ids(&mut self) {
        let mut seen = std::collections::HashMap::<u32, u32>::new();
        for rule in &mut self.rules {
            let said = serde_json::json!([rule.family, rule.chain, rule.matchers, rule.action]).to_string();
            let hash = fnv1a(said.as_bytes());
            let times = seen.entry(hash).and_modify(|times| *times += 1).or_insert(1);
            rule.id = RuleId(if *times == 1 { format!("{hash:08x}") } else { format!("{hash:08x}-{times}") });
        }
    }
}

/// FNV-1a, 64 bits folded to 32: the ids must be the same in every build, which the standard library's hasher does
/// not promise. Source: draft-eastlake-fnv.
fn fnv1a(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

/// The name RouterOS prints for a protocol number, or the number.
pub fn protocol_name(number: u8) -> String {
    PROTOCOLS
        .iter()
        .find(|(_, value)| *value == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// The number of a protocol that is written as a name or as a number.
pub fn protocol_number(text: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number).or_else(|| text.parse().ok())
}

/// Protocol names of RouterOS. Source: RouterOS manual, Filter, property `protocol`; IANA for the numbers.
pub const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", protocol::ICMP),
    ("igmp", 2),
    ("ggp", 3),
    ("ip-encap", 4),
    ("ipencap", 4),
    ("st", 5),
    ("tcp", protocol::TCP),
    ("egp", 8),
    ("pup", 12),
    ("udp", protocol::UDP),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("iso-tp4", 29),
    ("dccp", 33),
    ("xtp", 36),
    ("ddp", 37),
    ("idpr-cmtp", 38),
    ("ipv6-encap", 41),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("ipsec-esp", 50),
    ("ipsec-ah", 51),
    ("icmpv6", protocol::ICMPV6),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("rspf", 73),
    ("vmtp", 81),
    ("ospf", 89),
    ("ipip", 94),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udp-lite", 136),
];
