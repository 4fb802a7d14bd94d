//! Values that are compared with header fields.

use super::super::problem::RscError;
use super::{Parsed, bad, items, number, of_item, range, word, words, yes_no};
use crate::packet::TcpFlag;
use crate::rule::{Comparison, Condition, PROTOCOLS, PortSet, Relation, protocol_number};
use crate::word::{Set, Word};

/// Parses `80`, `1000-2000`, or a comma list of them.
pub(in crate::rsc) fn ports(value: &str) -> Parsed<PortSet> {
    const EXPECTED: &str = "a port from 0 to 65535, a range such as `1000-2000`, or a list such as `22,80-90`";
    let mut ports = Vec::new();
    for (place, item) in items(value) {
        if ports.len() == PortSet::MAX_ITEMS {
            return Err(RscError::new(format!("more than {} ports or ranges in one list", PortSet::MAX_ITEMS))
                .expected("a shorter list")
                .help("split the rule in two")
                .at(place.start..value.len()));
        }
        ports.push(range(item).ok_or_else(|| of_item(item, bad(item, "a port").expected(EXPECTED)).at(place))?);
    }
    Ok(PortSet(ports))
}

/// Parses `174` or `128-65535`, in bytes.
pub(in crate::rsc) fn packet_size(value: &str) -> Parsed<Condition> {
    const EXPECTED: &str = "bytes of the IP packet, 0 to 65535, or a range such as `128-65535`";
    range(value).map(Condition::PacketSize).ok_or_else(|| bad(value, "a packet size").expected(EXPECTED))
}

/// Parses `1460` or `0-1300`, in bytes.
pub(in crate::rsc) fn tcp_mss(value: &str) -> Parsed<Condition> {
    const EXPECTED: &str = "bytes, 0 to 65535, or a range such as `0-1300`";
    range(value).map(Condition::TcpMss).ok_or_else(|| bad(value, "a maximum segment size").expected(EXPECTED))
}

/// Parses `8`, `8:0` or `8:0-255`. A type without codes includes all of its codes.
pub(in crate::rsc) fn icmp_options(value: &str) -> Parsed<Condition> {
    let parsed = match value.split_once(':') {
        Some((kind, codes)) => number(kind).zip(range(codes)),
        None => number(value).map(|kind| (kind, 0..=u8::MAX)),
    };
    parsed.map(|(kind, codes)| Condition::IcmpOptions { kind, codes }).ok_or_else(|| {
        bad(value, "an ICMP type and code")
            .expected("a type and optional codes, each 0 to 255: `8`, `8:0` or `8:0-255`")
    })
}

/// Parses a protocol by name or number.
pub(in crate::rsc) fn protocol(value: &str) -> Parsed<u8> {
    protocol_number(value).ok_or_else(|| {
        bad(value, "a protocol")
            .expected("a name such as `tcp`, `udp` or `icmp`, or a number from 0 to 255")
            .did_you_mean(value, PROTOCOLS.iter().map(|(name, _)| *name))
    })
}

/// `equal:64`.
pub(in crate::rsc) fn ttl(value: &str) -> Parsed<Condition> {
    comparison(value).map(Condition::Ttl)
}

/// `equal:64`.
pub(in crate::rsc) fn hop_limit(value: &str) -> Parsed<Condition> {
    comparison(value).map(Condition::HopLimit)
}

fn comparison(value: &str) -> Parsed<Comparison> {
    const EXPECTED: &str = "`equal:`, `not-equal:`, `less-than:` or `greater-than:` and a number from 0 to 255";
    let parsed =
        value.split_once(':').and_then(|(relation, number)| Relation::from_name(relation).zip(self::number(number)));
    match parsed {
        Some((relation, value)) => Ok(Comparison { relation, value }),
        None => {
            let error = bad(value, "a comparison").expected(EXPECTED);
            Err(match number::<u8>(value) {
                Some(number) => error.help(format!("did you mean `equal:{number}`?")),
                None => error,
            })
        }
    }
}

/// `0` to `63`.
pub(in crate::rsc) fn dscp(value: &str) -> Parsed<Condition> {
    six_bits(value, "a DSCP").map(Condition::Dscp)
}

/// `0` to `63`.
pub(in crate::rsc) fn priority(value: &str) -> Parsed<u8> {
    six_bits(value, "a priority")
}

fn six_bits(value: &str, what: &str) -> Parsed<u8> {
    number(value).filter(|number| *number < 64).ok_or_else(|| bad(value, what).expected("a number from 0 to 63"))
}

/// Parses `16` or `16/28`: value and mask.
pub(in crate::rsc) fn tos(value: &str) -> Parsed<Condition> {
    let parsed = match value.split_once('/') {
        Some((bits, mask)) => number(bits).zip(number(mask)),
        None => number(value).map(|bits| (bits, u8::MAX)),
    };
    match parsed {
        Some((bits, mask)) if bits & !mask != 0 => {
            Err(RscError::new(format!("`{bits}` has bits outside of the mask `{mask}`, so no packet would match"))
                .expected("a number within its mask")
                .help(format!("`{}/{mask}` is what of it lies within", bits & mask)))
        }
        Some((value, mask)) => Ok(Condition::Tos { value, mask }),
        None => {
            Err(bad(value, "a type of service")
                .expected("a number from 0 to 255, perhaps with a mask: `16` or `16/28`"))
        }
    }
}

/// Parses `fin,!syn`, or an empty value: the flags that must be set, and the flags that must be clear. Some exports
/// contain a flag in both forms; then no packet matches.
pub(in crate::rsc) fn tcp_flags(value: &str) -> Parsed<Condition> {
    let (mut set, mut clear) = (Set::EMPTY, Set::EMPTY);
    for (place, item) in items(value).filter(|_| !value.is_empty()) {
        let (name, flags) = match item.strip_prefix('!') {
            Some(name) => (name, &mut clear),
            None => (item, &mut set),
        };
        let flag: TcpFlag = word(name, "a TCP flag").map_err(|error| error.at(place))?;
        flags.insert(flag);
    }
    Ok(Condition::TcpFlags { set, clear })
}

/// `yes` or `no`.
pub(in crate::rsc) fn fragment(value: &str) -> Parsed<Condition> {
    yes_no(value).map(Condition::Fragment)
}

/// Parses `any`, `none`, an option, or `no-` and one of some options.
pub(in crate::rsc) fn ipv4_options(value: &str) -> Parsed<Condition> {
    word(value, "a question about IPv4 options").map(Condition::Ipv4Options)
}

/// Parses `hop,frag:contains`: the headers, and whether others are allowed. Without `:exact` or `:contains` the meaning
/// is exact, as in ip6tables' `ipv6header` without `--soft`.
pub(in crate::rsc) fn headers(value: &str) -> Parsed<Condition> {
    let (list, how) = value.split_once(':').unwrap_or((value, "exact"));
    let exact = match how {
        "exact" => true,
        "contains" => false,
        _ => {
            let error = bad(how, "a way to compare headers").expected("`:exact` or `:contains`");
            return Err(error.at(list.len() + 1..value.len()));
        }
    };
    Ok(Condition::Headers { headers: words(list, "a header")?, exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_their_limits() {
        assert_eq!(ports("22,80-90"), Ok(PortSet(vec![22..=22, 80..=90])));
        assert_eq!(ports("0-65535"), Ok(PortSet(vec![0..=65535])));
        assert!(ports(&["1"; 16].join(",")).is_ok());
        assert_eq!(ports(&["1"; 17].join(",")).unwrap_err().part, Some(32..33));
        assert_eq!(ports("22,x,80").unwrap_err().part, Some(3..4));
        for text in ["", "65536", "1,", ",1", "9-5", "1-2-3", "+1", " 1", "-", "1-", "!1"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn protocols_sizes_and_icmp() {
        assert_eq!((protocol("tcp"), protocol("0"), protocol("255")), (Ok(6), Ok(0), Ok(255)));
        assert!(["", "+6", "256", "tpc", "TCP", "!tcp"].iter().all(|text| protocol(text).is_err()));
        assert_eq!(packet_size("628"), Ok(Condition::PacketSize(628..=628)));
        assert_eq!(packet_size("0-99"), Ok(Condition::PacketSize(0..=99)));
        assert_eq!(tcp_mss("1300-65535"), Ok(Condition::TcpMss(1300..=65535)));
        assert!(["", "65536", "9-1", "1-"].iter().all(|text| packet_size(text).is_err() && tcp_mss(text).is_err()));
        let icmp = |kind, codes| Ok(Condition::IcmpOptions { kind, codes });
        assert_eq!(icmp_options("8"), icmp(8, 0..=255));
        assert_eq!(icmp_options("3:0-1"), icmp(3, 0..=1));
        assert_eq!(icmp_options("8:0"), icmp(8, 0..=0));
        assert!(["", "8:", ":0", "256", "8:0:1", "8-9"].iter().all(|text| icmp_options(text).is_err()));
    }

    #[test]
    fn comparisons_name_how() {
        for (text, relation, value) in [
            ("equal:1", Relation::Equal, 1),
            ("not-equal:0", Relation::NotEqual, 0),
            ("less-than:255", Relation::LessThan, 255),
            ("greater-than:64", Relation::GreaterThan, 64),
        ] {
            assert_eq!(comparison(text), Ok(Comparison { relation, value }), "{text}");
        }
        assert!(
            ["", "64", "equal", "equal:", "equal:256", "eq:1", "equal:1:2"]
                .iter()
                .all(|text| comparison(text).is_err())
        );
    }

    #[test]
    fn bits_of_the_second_byte() {
        assert_eq!((dscp("0"), dscp("63")), (Ok(Condition::Dscp(0)), Ok(Condition::Dscp(63))));
        assert_eq!(priority("63"), Ok(63));
        assert!(["", "64", "-1", "ef"].iter().all(|text| dscp(text).is_err() && priority(text).is_err()));
        for (text, value, mask) in [("16", 16, 255), ("16/28", 16, 28), ("0/0", 0, 0)] {
            assert_eq!(tos(text), Ok(Condition::Tos { value, mask }), "{text}");
        }
        assert!(["", "256", "16/", "/28", "16/256", "16/12", "0x10"].iter().all(|text| tos(text).is_err()));
    }

    #[test]
    fn each_flag_is_set_or_not() {
        for (text, set, clear) in [
            ("syn", 0b10, 0),
            ("!syn", 0, 0b10),
            ("fin,!syn,!rst,!psh,!ack,!urg", 1, 0b11_1110),
            ("ack,cwr,ece,fin,psh,rst,syn,urg", 0xff, 0),
            ("syn,!syn", 0b10, 0b10),
            ("", 0, 0),
        ] {
            let (set, clear) = (Set::from_bits(set), Set::from_bits(clear));
            assert_eq!(tcp_flags(text), Ok(Condition::TcpFlags { set, clear }), "{text}");
        }
        assert_eq!(tcp_flags("syn,!sin").unwrap_err().part, Some(4..8));
        assert!(["syn,", "!", "!!syn", "syn ack", "SYN"].iter().all(|text| tcp_flags(text).is_err()));
    }

    #[test]
    fn headers_exactly_or_among_others() {
        for (text, bits, exact) in
            [("hop,frag:contains", 0b1001, false), ("frag,hop:exact", 0b1001, true), ("proto", 0b1000_0000, true)]
        {
            assert_eq!(headers(text), Ok(Condition::Headers { headers: Set::from_bits(bits), exact }), "{text}");
        }
        assert_eq!(headers("hop:some").unwrap_err().part, Some(4..8));
        assert!(["", ":exact", "hop:", "hop,:exact", "hop:exact,frag"].iter().all(|text| headers(text).is_err()));
    }
}
