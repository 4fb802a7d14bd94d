//! Conditions on connections, and the matchers that select a part of the packets.

use super::super::problem::Complaint;
use super::{Parsed, bad, number, scaled, word, words, words_or_none};
use crate::packet::Family;
use crate::rule::{Condition, Direction};

/// Parses `established,related`, or an empty value.
pub(in crate::rsc) fn connection_states(value: &str) -> Parsed<Condition> {
    words_or_none(value, "a connection state").map(Condition::ConnectionState)
}

/// Parses `srcnat,dstnat`.
pub(in crate::rsc) fn nat_states(value: &str) -> Parsed<Condition> {
    words(value, "a state of address translation").map(Condition::ConnectionNatState)
}

/// Parses `from-to` in bytes, both included. A `to` of 0 is no limit.
pub(in crate::rsc) fn connection_bytes(value: &str) -> Parsed<Condition> {
    let parsed = value.split_once('-').and_then(|(from, to)| number::<u64>(from).zip(number::<u64>(to)));
    match parsed {
        Some((from, 0)) => Ok(Condition::ConnectionBytes { from, to: None }),
        Some((from, to)) if from <= to => Ok(Condition::ConnectionBytes { from, to: Some(to) }),
        _ => Err(bad(value, "a range of bytes").expected("`500000-1000000`, or `500000-0` without a limit")),
    }
}

/// Parses `0-100k`, in bits per second.
pub(in crate::rsc) fn connection_rate(value: &str) -> Parsed<Condition> {
    let parsed = value.split_once('-').and_then(|(from, to)| scaled(from).zip(scaled(to)));
    match parsed {
        Some((from, to)) if from <= to => Ok(Condition::ConnectionRate(from..=to)),
        _ => Err(bad(value, "a range of rates").expected("bits per second such as `0-100k` or `1M-10M`")),
    }
}

/// Parses `30,32`: the number of connections, and the length of the source's prefix.
pub(in crate::rsc) fn connection_limit(value: &str, family: Family) -> Parsed<Condition> {
    let (longest, expected) = match family {
        Family::Ipv4 => (32, "a number of connections and the length of a prefix, 0 to 32: `30,32`"),
        Family::Ipv6 => (128, "a number of connections and the length of a prefix, 0 to 128: `30,64`"),
    };
    value
        .split_once(',')
        .and_then(|(count, length)| number(count).zip(number(length)))
        .filter(|(_, prefix_length)| *prefix_length <= longest)
        .map(|(count, prefix_length)| Condition::ConnectionLimit { count, prefix_length })
        .ok_or_else(|| bad(value, "a limit of connections").expected(expected))
}

/// Parses `both-addresses:2/0`: fields, denominator, remainder.
pub(in crate::rsc) fn classifier(value: &str) -> Parsed<Condition> {
    let Some((fields, share)) = value.split_once(':') else {
        return Err(bad(value, "a share of the connections").expected("fields, `:`, and a share: `both-addresses:2/0`"));
    };
    let at = fields.len() + 1..value.len();
    let fields = word(fields, "a set of fields").map_err(|complaint| complaint.at(0..at.start - 1))?;
    match share.split_once('/').and_then(|(denominator, remainder)| number::<u32>(denominator).zip(number(remainder))) {
        Some((denominator, remainder)) if remainder < denominator => {
            Ok(Condition::PerConnectionClassifier { fields, denominator, remainder })
        }
        _ => Err(bad(share, "a denominator and a smaller remainder").expected("a share such as `2/0` or `2/1`").at(at)),
    }
}

/// Parses `in,none`: the direction, and `ipsec` or `none`.
pub(in crate::rsc) fn ipsec_policy(value: &str) -> Parsed<Condition> {
    const EXPECTED: &str = "`in,none`, `in,ipsec`, `out,none` or `out,ipsec`";
    let (direction, ipsec) = match value {
        "in,none" => (Direction::In, false),
        "in,ipsec" => (Direction::In, true),
        "out,none" => (Direction::Out, false),
        "out,ipsec" => (Direction::Out, true),
        _ => return Err(bad(value, "an IPsec policy").expected(EXPECTED)),
    };
    Ok(Condition::IpsecPolicy { direction, ipsec })
}

/// Parses a percentage from `1` to `99`.
pub(in crate::rsc) fn random(value: &str) -> Parsed<Condition> {
    number(value)
        .filter(|percent| (1..=99).contains(percent))
        .map(Condition::Random)
        .ok_or_else(|| bad(value, "a share in percent").expected("a number from 1 to 99"))
}

/// Parses `3` or `3,2`: the first or the second of every three packets.
pub(in crate::rsc) fn nth(value: &str) -> Parsed<Condition> {
    let parsed = match value.split_once(',') {
        Some((every, packet)) => number(every).zip(number(packet)),
        None => number(value).map(|every| (every, 1)),
    };
    match parsed {
        Some((every, packet)) if (1..=every).contains(&packet) => Ok(Condition::Nth { every, packet }),
        Some((every, _)) => Err(Complaint::new(format!("the position is not within a cycle of {every}"))
            .expected("a number and one that is not larger, both from 1 on: `3,2`")),
        None => Err(bad(value, "one of so many packets").expected("`3` or `3,2`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::ClassifierFields;

    #[test]
    fn bytes_of_connections_may_have_no_end() {
        for (text, from, to) in [("0-1000", 0, Some(1_000)), ("500000-0", 500_000, None), ("0-0", 0, None)] {
            assert_eq!(connection_bytes(text), Ok(Condition::ConnectionBytes { from, to }), "{text}");
        }
        assert!(["", "5", "9-5", "1k-2k", "5-", "-5", "1-2-3"].iter().all(|text| connection_bytes(text).is_err()));
    }

    #[test]
    fn rates_of_connections() {
        for (text, from, to) in [("0-100k", 0, 100_000), ("100k-1G", 100_000, 1_000_000_000), ("10-20", 10, 20)] {
            assert_eq!(connection_rate(text), Ok(Condition::ConnectionRate(from..=to)), "{text}");
        }
        assert!(["", "100k", "1M-100k", "0-100K", "k-M"].iter().all(|text| connection_rate(text).is_err()));
    }

    #[test]
    fn limits_of_connections_by_family() {
        let limit = |count, prefix_length| Ok(Condition::ConnectionLimit { count, prefix_length });
        assert_eq!(connection_limit("30,32", Family::Ipv4), limit(30, 32));
        assert_eq!(connection_limit("0,0", Family::Ipv4), limit(0, 0));
        assert_eq!(connection_limit("30,128", Family::Ipv6), limit(30, 128));
        for text in ["", "30", "30,33", "30,", ",32", "-1,32", "30,32,1", "30/32"] {
            assert!(connection_limit(text, Family::Ipv4).is_err(), "{text}");
        }
        assert!(connection_limit("30,129", Family::Ipv6).is_err());
    }

    #[test]
    fn shares_of_connections() {
        let both = ClassifierFields::BothAddressesAndPorts;
        let share =
            |fields, denominator, remainder| Ok(Condition::PerConnectionClassifier { fields, denominator, remainder });
        assert_eq!(classifier("both-addresses-and-ports:3/2"), share(both, 3, 2));
        assert_eq!(classifier("src-address:1/0"), share(ClassifierFields::SrcAddress, 1, 0));
        assert_eq!(classifier("src-address:2/2").unwrap_err().part, Some(12..15));
        assert_eq!(classifier("src-adress:2/1").unwrap_err().part, Some(0..10));
        for text in ["", "src-address", "src-address:", "src-address:2", "src-address:0/0", "src-address,dst-port:2/0"]
        {
            assert!(classifier(text).is_err(), "{text}");
        }
    }

    #[test]
    fn policies_and_shares_of_packets() {
        let policy = |direction, ipsec| Ok(Condition::IpsecPolicy { direction, ipsec });
        assert_eq!(ipsec_policy("in,ipsec"), policy(Direction::In, true));
        assert_eq!(ipsec_policy("out,none"), policy(Direction::Out, false));
        assert!(["", "in", "ipsec,in", "in,ipsec,x", "in,any"].iter().all(|text| ipsec_policy(text).is_err()));
        assert_eq!((random("1"), random("99")), (Ok(Condition::Random(1)), Ok(Condition::Random(99))));
        assert!(["", "0", "100", "50%"].iter().all(|text| random(text).is_err()));
        for (text, every, packet) in [("3", 3, 1), ("3,2", 3, 2), ("1,1", 1, 1)] {
            assert_eq!(nth(text), Ok(Condition::Nth { every, packet }), "{text}");
        }
        assert!(["", "0", "3,0", "3,4", "3,2,1", "a"].iter().all(|text| nth(text).is_err()));
    }
}
