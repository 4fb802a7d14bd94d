//! Checks whether a single matcher is true for every packet, or for no packet.

use std::ops::RangeInclusive;

use super::ranges::Ranges;
use super::view::{Chain, View};
use crate::packet::{Family, Side};
use crate::rule::{
    AddressSet, AddressType, Condition, ConnectionState, LocalAddress, Matcher, PortSet, Table, TrackingMode,
};
use crate::word::{Set, Word};

/// The certain knowledge about a matcher in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// The matcher is true for every packet.
    Always,
    /// The matcher is true for no packet, for this reason.
    Never(String),
    /// The result depends on the packet, or is unknown.
    Depends,
}

impl View<'_> {
    pub(super) fn is_always(&self, chain: &Chain<'_>, matcher: &Matcher) -> bool {
        self.truth(chain, matcher) == Truth::Always
    }

    /// The certain knowledge about a matcher of this chain's rules.
    pub(super) fn truth(&self, chain: &Chain<'_>, matcher: &Matcher) -> Truth {
        let Matcher { negated, condition } = matcher;
        let (negated, name) = (*negated, condition.name());
        let family = chain.key.family;
        match condition {
            // This also holds before tracking, where a set that restricts the packets matches none.
            _ if condition.asks_nothing() => Truth::Always,
            Condition::SrcAddressType(set) | Condition::DstAddressType(set) => {
                let told = format!("no address has a type of `{name}`");
                words(*set, negated, self.address_types(family), || match self.has_local(family) {
                    true => told,
                    false => {
                        told + ": none is `local`, because there is no `/ip address` and `protect` is not restricted"
                    }
                })
            }
            Condition::ConnectionState(set) if chain.key.table == Table::Filter => {
                words(*set, negated, self.connection_states(), || match self.is_tracking_off() {
                    true => "connections are not tracked, so every packet is `untracked`".to_owned(),
                    false => format!("`{name}` leaves no state"),
                })
            }
            Condition::ConnectionNatState(_) => certain(negated, "no address is translated here"),
            Condition::NoMark(_) => certain(!negated, "no rule sets marks here, so every packet has `no-mark`"),
            Condition::IpsecPolicy { ipsec, .. } => {
                certain(*ipsec == negated, "there is no IPsec here, so `ipsec` is true for no packet")
            }
            Condition::ConnectionBytes { .. } | Condition::ConnectionRate(_) | Condition::ConnectionLimit { .. }
                if self.is_tracking_off() =>
            {
                Truth::Never(format!("connections are not tracked, so `{name}` has none to match"))
            }
            Condition::ConnectionBytes { from, to: Some(to) } => numbers(from..=to, negated, name),
            Condition::ConnectionRate(rates) => numbers(rates.start()..=rates.end(), negated, name),
            Condition::TcpMss(sizes) => numbers(sizes.start()..=sizes.end(), negated, name),
            Condition::IcmpOptions { codes, .. } => numbers(codes.start()..=codes.end(), negated, name),
            Condition::PacketSize(sizes) => packet_size(sizes, negated, family),
            Condition::SrcPort(ports) | Condition::DstPort(ports) | Condition::AnyPort(ports) => {
                never_if(allowed_ports(ports, negated).is_empty(), format!("`{name}` leaves no port"))
            }
            Condition::TcpFlags { set, clear } if !negated => {
                let both: Vec<String> = set.iter().filter(|flag| clear.contains(*flag)).map(quoted).collect();
                never_if(!both.is_empty(), format!("`{name}` requires {} both set and clear", both.join(", ")))
            }
            Condition::Ttl(comparison) | Condition::HopLimit(comparison) => {
                let possible = (0..=u8::MAX).any(|number| comparison.holds(number) != negated);
                never_if(!possible, format!("`{name}` leaves no number"))
            }
            Condition::Tos { value, mask } if !negated => {
                never_if(value & !mask != 0, format!("`{name}` has bits outside its mask"))
            }
            Condition::SrcAddress(set) | Condition::DstAddress(set) => match (is_everything(set, family), negated) {
                (true, true) => Truth::Never(format!("`{name}` leaves no address")),
                (true, false) => Truth::Always,
                (false, true) => Truth::Depends,
                (false, false) => self.protected(chain, condition, set),
            },
            Condition::Interface { .. } => self.interface(chain, matcher),
            _ => Truth::Depends,
        }
    }

    fn is_tracking_off(&self) -> bool {
        self.rules.tracking.enabled == TrackingMode::No
    }

    fn connection_states(&self) -> Set<ConnectionState> {
        match self.is_tracking_off() {
            true => [ConnectionState::Untracked].into_iter().collect(),
            false => ConnectionState::ALL.iter().copied().collect(),
        }
    }

    /// As in `eval::address`: the file's own addresses, or the protected prefixes unless they cover all addresses.
    fn has_local(&self, family: Family) -> bool {
        let of_family = |net: &&ipnet::IpNet| Family::of(net.addr()) == family;
        self.rules.local_addresses.iter().filter_map(LocalAddress::known).any(|net| of_family(&net))
            || self.settings.protect.iter().filter(of_family).any(|net| net.prefix_len() > 0)
    }

    fn address_types(&self, family: Family) -> Set<AddressType> {
        let exists = |kind: &AddressType| match kind {
            AddressType::Unicast | AddressType::Multicast => true,
            AddressType::Local => self.has_local(family),
            AddressType::Broadcast => family == Family::Ipv4,
            AddressType::Blackhole => false,
        };
        AddressType::ALL.iter().copied().filter(exists).collect()
    }

    /// The result for an address matcher in a built-in chain: the destination of a packet in `input` is protected, and
    /// so is the source of a packet in `output`.
    fn protected(&self, chain: &Chain<'_>, condition: &Condition, set: &AddressSet) -> Truth {
        let which = match (chain.key.table, chain.key.name, condition) {
            (Table::Filter, "input", Condition::DstAddress(_)) => "packets to",
            (_, "output", Condition::SrcAddress(_)) => "packets from",
            _ => return Truth::Depends,
        };
        let any = self.settings.protect.iter().any(|net| overlap(set, &AddressSet::Prefix(*net)));
        // A chain that is the target of a jump also gets other packets.
        let reason = format!("`{}` has {which} protected addresses only, and these are not", chain.key.name);
        never_if(!any && !chain.is_target, reason)
    }

    fn interface(&self, chain: &Chain<'_>, matcher: &Matcher) -> Truth {
        let Some(allowed) = self.sides(matcher) else { return Truth::Depends };
        if chain.sides.is_subset(allowed) {
            return Truth::Always;
        }
        let from: Vec<&str> = chain.sides.iter().map(Side::name).collect();
        let (chain_name, name) = (chain.key.name, matcher.condition.name());
        if let Condition::Interface { name: list, .. } = &matcher.condition
            && allowed.is_empty()
            && !matcher.negated
        {
            if self.is_elsewhere(matcher) {
                return Truth::Never(format!("`{list}` is neither side of the filter"));
            }
            let reason = format!("the list `{list}` has no interfaces here, and [policy.interfaces] gives it no side");
            return Truth::Never(reason);
        }
        let reason =
            format!("packets in `{chain_name}` come from {} only, and `{name}` matches others", from.join(" and "));
        never_if(!chain.sides.intersects(allowed), reason)
    }
}

/// The ports for which a matcher of ports is true. For `port`, one port of the packet must be among them; if the
/// matcher is negated, both must be.
pub(super) fn allowed_ports(ports: &PortSet, negated: bool) -> Ranges {
    let ports = Ranges::of(ports.0.iter().cloned());
    if negated { ports.complement() } else { ports }
}

/// From the first to the last address of the set.
pub(super) fn ends(set: &AddressSet) -> (u128, u128) {
    let number = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => u128::from(address.to_bits()),
        std::net::IpAddr::V6(address) => address.to_bits(),
    };
    match set {
        AddressSet::Prefix(net) => (number(net.network()), number(net.broadcast())),
        AddressSet::Range(first, last) => (number(*first), number(*last)),
    }
}

/// The family of the set's addresses.
pub(super) fn family_of(set: &AddressSet) -> Family {
    match set {
        AddressSet::Prefix(net) => Family::of(net.addr()),
        AddressSet::Range(first, _) => Family::of(*first),
    }
}

/// Whether an address can be in both sets.
pub(super) fn overlap(left: &AddressSet, right: &AddressSet) -> bool {
    let ((first, last), (other_first, other_last)) = (ends(left), ends(right));
    family_of(left) == family_of(right) && first <= other_last && other_first <= last
}

fn is_everything(set: &AddressSet, family: Family) -> bool {
    let most = match family {
        Family::Ipv4 => u128::from(u32::MAX),
        Family::Ipv6 => u128::MAX,
    };
    family_of(set) == family && ends(set) == (0, most)
}

/// The result for a set of words that may be negated, given the possible words.
fn words<T: Word>(set: Set<T>, negated: bool, possible: Set<T>, why: impl FnOnce() -> String) -> Truth {
    let asked: Set<T> = possible.iter().filter(|word| set.contains(*word) != negated).collect();
    if asked == possible {
        return Truth::Always;
    }
    never_if(asked.is_empty(), why())
}

/// The result for a matcher of a range of numbers. An empty range matches no packet.
fn numbers<T: PartialOrd>(range: RangeInclusive<T>, negated: bool, name: &str) -> Truth {
    never_if(range.is_empty() && !negated, format!("`{name}` leaves no number"))
}

/// The result for a matcher of sizes. A packet has at least its IP header. An IPv6 packet may have more bytes than a
/// range can express.
fn packet_size(sizes: &RangeInclusive<u16>, negated: bool, family: Family) -> Truth {
    let (shortest, what) = match family {
        Family::Ipv4 => (20, "IPv4"),
        Family::Ipv6 => (40, "IPv6"),
    };
    let covers = *sizes.start() <= shortest && *sizes.end() == u16::MAX && family == Family::Ipv4;
    match (covers, negated) {
        (true, true) => Truth::Never("`packet-size` leaves no size".to_owned()),
        (true, false) => Truth::Always,
        (false, true) => Truth::Depends,
        (false, false) => {
            let reason = format!("an {what} packet has at least {shortest} bytes");
            never_if(*sizes.end() < shortest || sizes.is_empty(), reason)
        }
    }
}

fn certain(is_true: bool, otherwise: &str) -> Truth {
    if is_true { Truth::Always } else { Truth::Never(otherwise.to_owned()) }
}

fn never_if(never: bool, reason: String) -> Truth {
    if never { Truth::Never(reason) } else { Truth::Depends }
}

fn quoted<T: Word>(word: T) -> String {
    format!("`{}`", word.name())
}
