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

words! {
    /// Which way a packet goes through an interface or IPsec.
    Direction {
        /// Where it came in.
        In = "in",
        /// Where it goes out.
        Out = "out",
    }
}

words! {
    /// What the name of an interface matcher means, as it stands behind `in-` and `out-`.
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
    /// What an address is to the router. Source: RouterOS manual, Filter, `src-address-type`.
    AddressType {
        /// An ordinary address of some other host.
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
    /// How a number is compared.
    Relation {
        /// It is the value.
        Equal = "equal",
        /// It is not.
        NotEqual = "not-equal",
        /// It is less.
        LessThan = "less-than",
        /// It is greater.
        GreaterThan = "greater-than",
    }
}

/// What a `ttl` or `hop-limit` must be: `greater-than:5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// How.
    pub relation: Relation,
    /// With what.
    pub value: u8,
}

impl Comparison {
    /// Whether it is so of this number.
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
    /// What `ipv4-options` asks. Source: RouterOS manual, Filter, `ipv4-options`.
    Ipv4Option {
        /// At least one option.
        Any = "any",
        /// No option.
        None = "none",
        /// Strict source routing.
        StrictSourceRouting = "strict-source-routing",
        /// Loose source routing.
        LooseSourceRouting = "loose-source-routing",
        /// Neither of the two.
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
    /// Whether these options of a header are what is asked. Each `no-` is the opposite of what is without it.
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
    /// The marks that mangle rules set, by the matcher that asks for them.
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
    /// What connection tracking knows of a packet. Source: RouterOS manual, Filter, `connection-state`.
    ConnectionState {
        /// Belongs to no connection that it could belong to.
        Invalid = "invalid",
        /// Belongs to a connection that was seen both ways.
        Established = "established",
        /// Belongs to another packet's connection: an ICMP error.
        Related = "related",
        /// Begins a connection, or belongs to one that was not seen both ways yet.
        New = "new",
        /// Exempt from tracking by a `notrack` rule.
        Untracked = "untracked",
    }
}

words! {
    /// How a connection's addresses were translated. Source: RouterOS manual, Filter, `connection-nat-state`.
    NatState {
        /// Its source.
        Srcnat = "srcnat",
        /// Its destination.
        Dstnat = "dstnat",
    }
}

words! {
    /// What `per-connection-classifier` hashes. Source: RouterOS manual, Filter.
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
    /// What a rate counts.
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
    /// How many tokens it gets…
    pub count: u64,
    /// …in this time, more than zero.
    pub per: Duration,
    /// How many may be taken at once, as written: exports of RouterOS 6 hold 0.
    pub burst: u64,
    /// What a token is.
    pub unit: RateUnit,
}

words! {
    /// What `dst-limit` keeps a bucket for. Source: RouterOS manual, Filter, `dst-limit`.
    LimitMode {
        /// Each destination address.
        DstAddress = "dst-address",
        /// Each destination address and port.
        DstAddressAndPort = "dst-address-and-port",
        /// Each source address.
        SrcAddress = "src-address",
        /// Each pair of addresses.
        SrcAndDstAddresses = "src-and-dst-addresses",
        /// Each pair of addresses and destination port.
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

/// Any bytes. In JSON a string with a character from U+0000 to U+00FF for each, so that ASCII stays readable.
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
