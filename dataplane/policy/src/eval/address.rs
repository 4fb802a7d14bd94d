//! The role of an address for the router: `src-address-type` and `dst-address-type`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::packet::Family;
use crate::rule::{AddressType, LocalAddress, RuleSet};
use crate::settings::Settings;

/// The type of the address. Every address has exactly one. Source: RouterOS manual, Filter; for the order, Linux's
/// routing, which RouterOS uses.
///
/// Local addresses are the router's addresses in the rule file. If the file has none of this family, the protected
/// addresses are local, except if all addresses are protected: then no address would be unicast. Broadcast addresses
/// are the last addresses of the networks of the router's own addresses, 0.0.0.0 and 255.255.255.255. The filter has no
/// routes, so no address is of type blackhole.
pub fn address_type(rules: &RuleSet, settings: &Settings, address: IpAddr) -> AddressType {
    let family = Family::of(address);
    let known = rules.local_addresses.iter().filter_map(LocalAddress::known);
    let own: Vec<&IpNet> = known.filter(|net| Family::of(net.addr()) == family).collect();
    let local = if own.is_empty() {
        settings.protect.iter().any(|net| net.prefix_len() > 0 && net.contains(&address))
    } else {
        own.iter().any(|net| net.addr() == address)
    };
    if local {
        AddressType::Local
    } else if is_broadcast(&own, address) {
        AddressType::Broadcast
    } else if address.is_multicast() {
        AddressType::Multicast
    } else {
        AddressType::Unicast
    }
}

/// Networks of two addresses or one have no broadcast address (RFC 3021), and IPv6 has none at all.
fn is_broadcast(own: &[&IpNet], address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else { return false };
    v4.is_broadcast()
        || v4 == Ipv4Addr::UNSPECIFIED
        || own.iter().any(|net| net.prefix_len() < 31 && net.broadcast() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(local: &[&str], protect: &[&str], address: &str) -> AddressType {
        let local_addresses = local.iter().map(|text| text.parse().unwrap()).collect();
        let rules = RuleSet { local_addresses, ..RuleSet::default() };
        let protect = protect.iter().map(|text| text.parse().unwrap()).collect();
        let settings = Settings { protect, ..Settings::default() };
        address_type(&rules, &settings, address.parse().unwrap())
    }

    #[test]
    fn the_routers_own_addresses_and_their_networks() {
        let local = ["192.0.2.1/24", "10.0.0.1/31", "2001:db8::1/64"];
        let cases = [
            ("192.0.2.1", AddressType::Local),
            ("192.0.2.2", AddressType::Unicast),
            ("192.0.2.255", AddressType::Broadcast),
            ("10.0.0.1", AddressType::Local),
            ("10.0.0.0", AddressType::Unicast),
            ("255.255.255.255", AddressType::Broadcast),
            ("0.0.0.0", AddressType::Broadcast),
            ("224.0.0.1", AddressType::Multicast),
            ("2001:db8::1", AddressType::Local),
            ("2001:db8::ffff:ffff:ffff:ffff", AddressType::Unicast),
            ("ff02::1", AddressType::Multicast),
        ];
        for (address, expected) in cases {
            assert_eq!(of(&local, &["192.0.2.0/24"], address), expected, "{address}");
        }
    }

    #[test]
    fn without_own_addresses_the_protected_ones_are_local_unless_all_are() {
        assert_eq!(of(&[], &["192.0.2.0/24"], "192.0.2.7"), AddressType::Local);
        assert_eq!(of(&[], &["192.0.2.0/24"], "192.0.3.7"), AddressType::Unicast);
        assert_eq!(of(&[], &["0.0.0.0/0", "::/0"], "192.0.2.7"), AddressType::Unicast);
        // The file has addresses of one family only, so the protected addresses count for the other.
        assert_eq!(of(&["192.0.2.1/24"], &["2001:db8::/64"], "2001:db8::7"), AddressType::Local);
    }
}
