//! What the values of properties mean: durations, ports, addresses, names, and so on.
//!
//! Each function takes the unquoted text and gives a typed value or a [`Complaint`] that says what was expected, with
//! an example, and which part of the text is to blame. Nothing is guessed: `5-3`, `+1`, `010.0.0.1` and an empty
//! value are refused. Who strips a leading `!` is the caller.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::problem::{Complaint, show};
use crate::packet::Family;
use crate::rule::{AddressSet, ListTimeout, PROTOCOLS, PortSet, protocol_number};
use crate::time::{LONGEST_TIMEOUT, digits, parse_duration};

/// What a value parser gives.
pub(super) type Parsed<T> = Result<T, Complaint>;

/// Text that must be UTF-8.
pub(super) fn text(bytes: &[u8]) -> Parsed<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let bad = error.valid_up_to();
        Complaint::new("this byte is not UTF-8")
            .expected("UTF-8 text")
            .help("only comments may hold other encodings; rename it, on the router too")
            .at(bad..bad + 1)
    })
}

/// A comment: anything, what is not UTF-8 replaced.
pub(super) fn comment(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `yes` or `no`.
pub(super) fn yes_no(value: &str) -> Parsed<bool> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(bad(value, "yes or no").expected("`yes` or `no`")),
    }
}

/// The name of a chain, list or pattern. `what` says which, for the message.
pub(super) fn name(value: &str, what: &str) -> Parsed<String> {
    if value.is_empty() {
        return Err(Complaint::new(format!("the name of a {what} is empty")).expected("a name"));
    }
    if let Some((at, char)) = value.char_indices().find(|(_, char)| char.is_control()) {
        return Err(Complaint::new(format!("a control character in the name of a {what}"))
            .expected("a name of printable characters")
            .at(at..at + char.len_utf8()));
    }
    if value.starts_with('!') {
        return Err(Complaint::new(format!("the name of a {what} begins with `!`"))
            .expected("a name")
            .help("`!` means “not”, and means nothing here")
            .at(0..1));
    }
    Ok(value.to_owned())
}

/// The name of an address list: one list, so no comma.
pub(super) fn list_name(value: &str) -> Parsed<String> {
    match value.find(',') {
        Some(comma) => Err(Complaint::new("more than one address list")
            .expected("the name of one list")
            .help("write a rule for each list")
            .at(comma..comma + 1)),
        None => name(value, "list"),
    }
}

fn out_of_bounds(message: String) -> Complaint {
    Complaint::new(message)
        .expected("1s to 35w3d13h13m56s")
        .help("write `none-dynamic` if the address is to stay until the restart, `none-static` if for good")
}

/// `none-dynamic`, `none-static`, or a duration.
pub(super) fn list_timeout(value: &str) -> Parsed<ListTimeout> {
    match value {
        "none-dynamic" => Ok(ListTimeout::NoneDynamic),
        "none-static" => Ok(ListTimeout::NoneStatic),
        _ => match parse_duration(value) {
            Some(Duration::ZERO) => Err(out_of_bounds("a timeout of zero".to_owned())),
            Some(timeout) if timeout > LONGEST_TIMEOUT => {
                Err(out_of_bounds(format!("`{}` is longer than a timeout can be", show(value.as_bytes()))))
            }
            Some(timeout) => Ok(ListTimeout::After(timeout)),
            None => Err(bad(value, "a timeout").expected(
                "`10s`, `1m30s`, `4w2d`, `00:00:10`, `1d00:00:00`, seconds, `none-dynamic` or `none-static`",
            )),
        },
    }
}

fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    digits(text).and_then(|value| T::try_from(value).ok())
}

/// `5` or `5-9`.
fn range<T: TryFrom<u64> + PartialOrd + Copy>(text: &str) -> Option<RangeInclusive<T>> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some(first..=last)
}

/// Whether it is `9-5`, which deserves a message of its own.
fn is_reversed(text: &str) -> bool {
    text.split_once('-')
        .is_some_and(|(first, last)| matches!((digits(first), digits(last)), (Some(first), Some(last)) if first > last))
}

/// `80`, `1000-2000`, or a comma list of them.
pub(super) fn ports(value: &str) -> Parsed<PortSet> {
    const EXPECTED: &str = "a port from 0 to 65535, a range such as `1000-2000`, or a list such as `22,80-90`";
    let mut ports = Vec::new();
    for (place, item) in items(value) {
        if ports.len() == PortSet::MAX_ITEMS {
            return Err(Complaint::new(format!("more than {} ports or ranges in one list", PortSet::MAX_ITEMS))
                .expected("a shorter list")
                .help("split the rule in two")
                .at(place.start..value.len()));
        }
        match range(item) {
            Some(range) => ports.push(range),
            None if is_reversed(item) => return Err(reversed(item).expected(EXPECTED).at(place)),
            None => return Err(bad(item, "a port").expected(EXPECTED).at(place)),
        }
    }
    Ok(PortSet(ports))
}

/// The items of a comma list and where each stands; at least one, though it be empty.
fn items(value: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut start = 0;
    value.split(',').map(move |item| {
        let place = start..start + item.len();
        start = place.end + 1;
        (place, item)
    })
}

/// `174` or `128-65535`, in bytes.
pub(super) fn packet_size(value: &str) -> Parsed<RangeInclusive<u16>> {
    range(value).ok_or_else(|| {
        let complaint = if is_reversed(value) { reversed(value) } else { bad(value, "a packet size") };
        complaint.expected("bytes of the IP packet, 0 to 65535, or a range such as `128-65535`")
    })
}

/// `8`, `8:0` or `8:0-255`. A type without codes means all of its codes.
pub(super) fn icmp_options(value: &str) -> Parsed<(u8, RangeInclusive<u8>)> {
    let parsed = match value.split_once(':') {
        Some((kind, codes)) => number(kind).zip(range(codes)),
        None => number(value).map(|kind| (kind, 0..=u8::MAX)),
    };
    parsed.ok_or_else(|| {
        bad(value, "an ICMP type and code").expected("a type and perhaps codes, each 0 to 255: `8`, `8:0` or `8:0-255`")
    })
}

/// A protocol by name or number.
pub(super) fn protocol(value: &str) -> Parsed<u8> {
    let is_number = value.starts_with(|char: char| !char.is_ascii_alphabetic());
    let number = if is_number { number(value) } else { protocol_number(value) };
    number.ok_or_else(|| {
        bad(value, "a protocol")
            .expected("a name such as `tcp`, `udp` or `icmp`, or a number from 0 to 255")
            .did_you_mean(value, PROTOCOLS.iter().map(|(name, _)| *name))
    })
}

/// An address, prefix or range of the menu's family.
pub(super) fn addresses(value: &str, family: Family) -> Parsed<AddressSet> {
    match family {
        Family::Ipv4 => addresses_v4(value),
        Family::Ipv6 => addresses_v6(value),
    }
}

fn addresses_v4(value: &str) -> Parsed<AddressSet> {
    let parsed = match (value.split_once('/'), value.split_once('-')) {
        (Some((address, length)), _) => prefix_v4(address, length),
        (None, Some((first, last))) => match (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) {
            (Ok(first), Ok(last)) if first > last => return Err(reversed(value).expected(EXPECTED_V4)),
            (Ok(first), Ok(last)) => Some(AddressSet::Range(IpAddr::V4(first), IpAddr::V4(last))),
            _ => None,
        },
        (None, None) => prefix_v4(value, "32"),
    };
    parsed.ok_or_else(|| {
        let complaint = bad(value, "an IPv4 address").expected(EXPECTED_V4);
        if looks_like::<Ipv6Addr>(value) {
            complaint.help("IPv6 addresses belong in `/ipv6 firewall filter`")
        } else {
            complaint
        }
    })
}

const EXPECTED_V4: &str = "`192.0.2.1`, `192.0.2.0/24` or `192.0.2.1-192.0.2.9`";

fn prefix_v4(address: &str, length: &str) -> Option<AddressSet> {
    let net = Ipv4Net::new(address.parse().ok()?, number(length)?).ok()?;
    Some(AddressSet::Prefix(IpNet::V4(net.trunc())))
}

fn addresses_v6(value: &str) -> Parsed<AddressSet> {
    let (address, length) = value.split_once('/').unwrap_or((value, "128"));
    let parsed = address
        .parse()
        .ok()
        .zip(number(length))
        .and_then(|(address, length)| Ipv6Net::new(address, length).ok())
        .map(|net| AddressSet::Prefix(IpNet::V6(net.trunc())));
    parsed.ok_or_else(|| {
        let complaint = bad(value, "an IPv6 address or prefix").expected("`2001:db8::1` or `2001:db8::/32`");
        if looks_like::<Ipv4Addr>(value) {
            complaint.help("IPv4 addresses belong in `/ip firewall filter`")
        } else if value.contains('-') {
            complaint.help("ranges exist for IPv4 only: write prefixes, a rule for each")
        } else {
            complaint
        }
    })
}

/// Whether the value begins with an address of this kind.
fn looks_like<A: std::str::FromStr>(value: &str) -> bool {
    value.split(['/', '-']).next().is_some_and(|address| address.parse::<A>().is_ok())
}

/// The expression of a pattern: every byte above 0x7f as `\xHH`, so that it means this byte and no character.
pub(super) fn regexp(bytes: &[u8]) -> Parsed<String> {
    if bytes.is_empty() {
        return Err(Complaint::new("the pattern is empty")
            .expected("a regular expression such as `\"^secret\\$\"`")
            .help("an empty pattern would match every packet"));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Complaint::new("a pattern cannot hold a NUL byte")
            .help("NULs are taken out of payloads before patterns see them: leave it out")
            .at(at..at + 1));
    }
    let mut regexp = String::new();
    let mut escaped = false;
    for byte in bytes {
        match (byte.is_ascii(), escaped) {
            (true, _) => regexp.push(char::from(*byte)),
            (false, false) => regexp.push_str(&format!("\\x{byte:02X}")),
            // The backslash before it is there already.
            (false, true) => regexp.push_str(&format!("x{byte:02X}")),
        }
        escaped = *byte == b'\\' && !escaped;
    }
    Ok(regexp)
}

fn bad(value: &str, what: &str) -> Complaint {
    if value.is_empty() {
        Complaint::new("the value is empty")
    } else {
        Complaint::new(format!("`{}` is not {what}", show(value.as_bytes())))
    }
}

fn reversed(value: &str) -> Complaint {
    Complaint::new(format!("the range `{}` ends before it begins", show(value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_in_every_form() {
        let cases = [
            ("10s", 10),
            ("1m30s", 90),
            ("4w2d", 2_592_000),
            ("00:00:10", 10),
            ("1d00:00:00", 86_400),
            ("1w1d01:01:01", 694_861),
            ("90", 90),
            ("90m", 5_400),
            ("35w3d13h13m56s", LONGEST_TIMEOUT.as_secs()),
        ];
        for (text, seconds) in cases {
            assert_eq!(list_timeout(text), Ok(ListTimeout::After(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(list_timeout("none-dynamic"), Ok(ListTimeout::NoneDynamic));
        assert_eq!(list_timeout("none-static"), Ok(ListTimeout::NoneStatic));
        let refused = [
            "",
            "s",
            "0s",
            "00:00:00",
            "35w3d13h13m57s",
            "1s1m",
            "1m1m",
            "1:30",
            "00:60:00",
            "1.5s",
            "100ms",
            "-1s",
            "+1s",
            " 1s",
            "1d 1h",
            "10S",
            "none",
            "99999999999999999999w",
        ];
        for text in refused {
            assert!(list_timeout(text).is_err(), "{text}");
        }
    }

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
    fn addresses_are_masked_and_of_the_right_family() {
        let v4 = |text: &str| addresses(text, Family::Ipv4);
        let v6 = |text: &str| addresses(text, Family::Ipv6);
        assert_eq!(v4("192.0.2.7/24"), Ok(AddressSet::Prefix("192.0.2.0/24".parse().unwrap())));
        assert_eq!(v4("192.0.2.7"), Ok(AddressSet::Prefix("192.0.2.7/32".parse().unwrap())));
        assert_eq!(
            v4("192.0.2.1-192.0.2.9"),
            Ok(AddressSet::Range("192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap()))
        );
        assert_eq!(v6("2001:db8::7/32"), Ok(AddressSet::Prefix("2001:db8::/32".parse().unwrap())));
        assert_eq!(v6("::1"), Ok(AddressSet::Prefix("::1/128".parse().unwrap())));
        for text in ["", "172.16.1.X", "1.2.3", "010.0.0.1", "1.2.3.4/33", "1.2.3.4/+8", "1.2.3.9-1.2.3.1", "::1", "/8"]
        {
            assert!(v4(text).is_err(), "{text}");
        }
        for text in ["", "1.2.3.4", "::1-::2", "::/129", "fe80::1%eth0", "2001:db8:"] {
            assert!(v6(text).is_err(), "{text}");
        }
    }

    #[test]
    fn protocols_sizes_and_icmp() {
        assert_eq!((protocol("tcp"), protocol("0"), protocol("255")), (Ok(6), Ok(0), Ok(255)));
        assert!(["", "+6", "256", "tpc", "TCP", "!tcp"].iter().all(|text| protocol(text).is_err()));
        assert_eq!(packet_size("628"), Ok(628..=628));
        assert_eq!(packet_size("0-99"), Ok(0..=99));
        assert!(["", "65536", "9-1", "1-"].iter().all(|text| packet_size(text).is_err()));
        assert_eq!(icmp_options("8"), Ok((8, 0..=255)));
        assert_eq!(icmp_options("3:0-1"), Ok((3, 0..=1)));
        assert_eq!(icmp_options("8:0"), Ok((8, 0..=0)));
        assert!(["", "8:", ":0", "256", "8:0:1", "8-9"].iter().all(|text| icmp_options(text).is_err()));
    }

    #[test]
    fn bytes_of_patterns_mean_themselves() {
        assert_eq!(regexp(b"^a\\x13$"), Ok("^a\\x13$".to_owned()));
        assert_eq!(regexp(b"\xE1\xC3\xA9"), Ok("\\xE1\\xC3\\xA9".to_owned()));
        assert_eq!(regexp(b"\\\xE1\\\\\xE1"), Ok("\\xE1\\\\\\xE1".to_owned()));
        assert!(regexp(b"").is_err());
        assert!(regexp(b"a\0").is_err());
    }

    #[test]
    fn names_are_printable_and_not_negated() {
        assert_eq!(list_name("port scanners"), Ok("port scanners".to_owned()));
        assert!(["", "a,!b", "!a", "a\nb"].iter().all(|text| list_name(text).is_err()));
        assert_eq!(text(b"ab\xE1").unwrap_err().part, Some(2..3));
    }
}
