//! Who may knock, as it is written: an address, a prefix or a range.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::packet::Family;
use crate::rule::AddressSet;

/// Reads `192.0.2.1`, `2001:db8::/32` or `192.0.2.1-192.0.2.9`.
pub(super) fn read(text: &str) -> Result<AddressSet, String> {
    let wrong = || format!("`{text}` is no address; write `192.0.2.1`, `2001:db8::/32` or `192.0.2.1-192.0.2.9`");
    if let Some((first, last)) = text.split_once('-') {
        let ends = first.parse::<IpAddr>().ok().zip(last.parse::<IpAddr>().ok());
        let is_range = |(first, last): &(IpAddr, IpAddr)| Family::of(*first) == Family::of(*last) && first <= last;
        return ends.filter(is_range).map(|(first, last)| AddressSet::Range(first, last)).ok_or_else(wrong);
    }
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| wrong())?;
    Ok(AddressSet::Prefix(net.trunc()))
}

/// As it is read.
pub(super) fn written(set: &AddressSet) -> String {
    match set {
        AddressSet::Prefix(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        AddressSet::Prefix(net) => net.to_string(),
        AddressSet::Range(first, last) => format!("{first}-{last}"),
    }
}

/// The family of its addresses.
pub(super) const fn family(set: &AddressSet) -> Family {
    match set {
        AddressSet::Prefix(IpNet::V4(_)) | AddressSet::Range(IpAddr::V4(_), _) => Family::Ipv4,
        AddressSet::Prefix(IpNet::V6(_)) | AddressSet::Range(IpAddr::V6(_), _) => Family::Ipv6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_as_they_are_written() {
        for text in ["192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "2001:db8::1", "192.0.2.1-192.0.2.9"] {
            assert_eq!(written(&read(text).unwrap()), text);
        }
        assert_eq!(written(&read("192.0.2.7/24").unwrap()), "192.0.2.0/24");
        for text in ["", "192.0.2.0/33", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "home", "192.0.2.1-"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
