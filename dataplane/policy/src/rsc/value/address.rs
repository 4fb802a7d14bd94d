//! Addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Parsed, bad, number, reversed, words_or_none};
use crate::packet::Family;
use crate::rule::{AddressSet, AddressType, Condition};
use crate::word::Set;

/// An address, prefix or range of the menu's family.
pub(in crate::rsc) fn addresses(value: &str, family: Family) -> Parsed<AddressSet> {
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
            complaint.help("IPv6 addresses belong in the menus under `/ipv6 firewall`")
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
            complaint.help("IPv4 addresses belong in the menus under `/ip firewall`")
        } else if value.contains('-') {
            complaint.help("ranges exist for IPv4 only: write prefixes, a rule for each")
        } else {
            complaint
        }
    })
}

/// Whether the value begins with an address of this form.
fn looks_like<A: std::str::FromStr>(value: &str) -> bool {
    value.split(['/', '-']).next().is_some_and(|address| address.parse::<A>().is_ok())
}

/// Parses `local,broadcast`, or an empty value.
pub(in crate::rsc) fn address_types(value: &str) -> Parsed<Set<AddressType>> {
    words_or_none(value, "an address type")
}

/// Parses `00:11:22:AA:BB:CC`.
pub(in crate::rsc) fn mac_address(value: &str) -> Parsed<Condition> {
    value.parse().map(Condition::SrcMacAddress).map_err(|_| {
        bad(value, "an Ethernet address").expected("six pairs of hexadecimal digits, such as `00:11:22:AA:BB:CC`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::MacAddress;

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
    fn ethernet_addresses_in_either_case() {
        let address = Condition::SrcMacAddress(MacAddress([0xaa, 0xbb, 0xcc, 0, 1, 2]));
        assert_eq!(mac_address("AA:BB:CC:00:01:02"), Ok(address.clone()));
        assert_eq!(mac_address("aa:bb:cc:00:01:02"), Ok(address));
        for text in
            ["", "AA:BB:CC:00:01", "AA:BB:CC:00:01:02:03", "AA-BB-CC-00-01-02", "A:BB:CC:00:01:02", "GG:BB:CC:00:01:02"]
        {
            assert!(mac_address(text).is_err(), "{text}");
        }
    }
}
