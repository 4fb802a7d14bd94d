//! Values of matchers.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::packet::{Family, OptionKind};
use crate::word::{Set, words};

/// Addresses of a rule: a prefix (host bits masked) or a range with both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSet {
    /// An address or prefix.
    Prefix(IpNet),
    /// From the first address to the second, both included, of the same family.
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
    /// Maximum number of items in one list in RouterOS.
    pub const MAX_ITEMS: usize = 16;

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

words! {
    /// The direction of a packet through an interface or IPsec.
    Direction {
        /// Arrival.
        In = "in",
        /// Departure.
        Out = "out",
    }
}

words! {
    /// The meaning of an interface matcher's name, as in its suffix after `in-` or `out-`.
    InterfaceKind {
        /// One interface.
        Interface = "interface",
        /// A list of `/interface list`.
        List = "interface-list",
        /// A port of a bridge.
        BridgePort = "bridge-port",
        /// A list of `/interface list`, of ports of a bridge.
        BridgePortList = "bridge-port-list",
    }
}

words! {
    /// The type of an address for the router. Source: RouterOS manual, Filter, `src-address-type`.
    AddressType {
        /// An ordinary address of another host.
        Unicast = "unicast",
        /// One of the router's own addresses.
        Local = "local",
        /// The broadcast address of one of the router's networks, or 255.255.255.255.
        Broadcast = "broadcast",
        /// 224.0.0.0/4, ff00::/8.
        Multicast = "multicast",
        /// An address that a blackhole route covers.
        Blackhole = "blackhole",
    }
}

words! {
    /// The relation of a comparison.
    Relation {
        /// The number is equal.
        Equal = "equal",
        /// The number is not equal.
        NotEqual = "not-equal",
        /// The number is less.
        LessThan = "less-than",
        /// The number is greater.
        GreaterThan = "greater-than",
    }
}

/// A comparison of `ttl` or `hop-limit`: `greater-than:5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The operator.
    pub relation: Relation,
    /// The value.
    pub value: u8,
}

impl Comparison {
    /// Whether the comparison is true for this number.
    pub const fn holds(self, number: u8) -> bool {
        match self.relation {
            Relation::Equal => number == self.value,
            Relation::NotEqual => number != self.value,
            Relation::LessThan => number < self.value,
            Relation::GreaterThan => number > self.value,
        }
    }
}

words! {
    /// The argument of `ipv4-options`. Source: RouterOS manual, Filter, `ipv4-options`.
    Ipv4Option {
        /// At least one option.
        Any = "any",
        /// No option.
        None = "none",
        /// Strict source routing.
        StrictSourceRouting = "strict-source-routing",
        /// Loose source routing.
        LooseSourceRouting = "loose-source-routing",
        /// No source routing.
        NoSourceRouting = "no-source-routing",
        /// Record route.
        RecordRoute = "record-route",
        /// No record route.
        NoRecordRoute = "no-record-route",
        /// Timestamp.
        Timestamp = "timestamp",
        /// No timestamp.
        NoTimestamp = "no-timestamp",
        /// Router alert.
        RouterAlert = "router-alert",
        /// No router alert.
        NoRouterAlert = "no-router-alert",
    }
}

impl Ipv4Option {
    /// Whether the options of a header match. Each `no-` is the opposite of the word without it.
    pub fn holds(self, options: Set<OptionKind>) -> bool {
        let has = |kind| options.contains(kind);
        let source_routing = has(OptionKind::StrictSourceRouting) || has(OptionKind::LooseSourceRouting);
        match self {
            Ipv4Option::Any => !options.is_empty(),
            Ipv4Option::None => options.is_empty(),
            Ipv4Option::StrictSourceRouting => has(OptionKind::StrictSourceRouting),
            Ipv4Option::LooseSourceRouting => has(OptionKind::LooseSourceRouting),
            Ipv4Option::NoSourceRouting => !source_routing,
            Ipv4Option::RecordRoute => has(OptionKind::RecordRoute),
            Ipv4Option::NoRecordRoute => !has(OptionKind::RecordRoute),
            Ipv4Option::Timestamp => has(OptionKind::Timestamp),
            Ipv4Option::NoTimestamp => !has(OptionKind::Timestamp),
            Ipv4Option::RouterAlert => has(OptionKind::RouterAlert),
            Ipv4Option::NoRouterAlert => !has(OptionKind::RouterAlert),
        }
    }
}

words! {
    /// The marks of mangle rules, by the matcher for them.
    Mark {
        /// Of the connection.
        Connection = "connection-mark",
        /// Of the packet.
        Packet = "packet-mark",
        /// Of its route.
        Routing = "routing-mark",
    }
}

words! {
    /// The connection state of a packet. Source: RouterOS manual, Filter, `connection-state`.
    ConnectionState {
        /// Invalid: belongs to no connection and begins none.
        Invalid = "invalid",
        /// Belongs to a connection with packets in both directions.
        Established = "established",
        /// Is related to a connection: an ICMP error.
        Related = "related",
        /// Begins a connection, or belongs to one with packets in one direction only.
        New = "new",
        /// Exempt from tracking by a `notrack` rule.
        Untracked = "untracked",
    }
}

words! {
    /// The translation of a connection's addresses. Source: RouterOS manual, Filter, `connection-nat-state`.
    NatState {
        /// The source.
        Srcnat = "srcnat",
        /// The destination.
        Dstnat = "dstnat",
    }
}

words! {
    /// The fields that `per-connection-classifier` hashes. Source: RouterOS manual, Filter.
    ClassifierFields {
        /// Both addresses.
        BothAddresses = "both-addresses",
        /// Both ports.
        BothPorts = "both-ports",
        /// Both addresses and both ports.
        BothAddressesAndPorts = "both-addresses-and-ports",
        /// Source address.
        SrcAddress = "src-address",
        /// Source port.
        SrcPort = "src-port",
        /// Source address and port.
        SrcAddressAndPort = "src-address-and-port",
        /// Destination address.
        DstAddress = "dst-address",
        /// Destination port.
        DstPort = "dst-port",
        /// Destination address and port.
        DstAddressAndPort = "dst-address-and-port",
    }
}

words! {
    /// The unit of a rate.
    RateUnit {
        /// Packets.
        Packet = "packet",
        /// Bits of IP packets.
        Bit = "bit",
    }
}

/// A bucket of tokens, full at first: `rate[/time],burst[:unit]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Number of tokens.
    pub count: u64,
    /// Time for that number, more than zero.
    pub per: Duration,
    /// Maximum number of tokens that may be taken at once, as written: exports of RouterOS 6 have 0.
    pub burst: u64,
    /// The unit of a token.
    pub unit: RateUnit,
}

words! {
    /// The key of `dst-limit` buckets. Source: RouterOS manual, Filter, `dst-limit`.
    LimitMode {
        /// The destination address.
        DstAddress = "dst-address",
        /// The destination address and port.
        DstAddressAndPort = "dst-address-and-port",
        /// The source address.
        SrcAddress = "src-address",
        /// Both addresses.
        SrcAndDstAddresses = "src-and-dst-addresses",
        /// Both addresses and the destination port.
        AddressesAndDstPort = "addresses-and-dst-port",
    }
}

words! {
    /// A day of the week, in RouterOS's order.
    Weekday {
        /// Sunday.
        Sunday = "sun",
        /// Monday.
        Monday = "mon",
        /// Tuesday.
        Tuesday = "tue",
        /// Wednesday.
        Wednesday = "wed",
        /// Thursday.
        Thursday = "thu",
        /// Friday.
        Friday = "fri",
        /// Saturday.
        Saturday = "sat",
    }
}

/// Any bytes. In JSON a string with one character from U+0000 to U+00FF per byte, so that ASCII stays readable.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.iter().map(|byte| char::from(*byte)).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<_, _> = text.chars().map(u8::try_from).collect();
        bytes.map(Bytes).map_err(|_| D::Error::custom("expected characters up to U+00FF, one for each byte"))
    }
}
