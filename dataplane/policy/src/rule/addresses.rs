//! Text form of address sets, and their first and last addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::value::AddressSet;
use crate::packet::Family;

/// The forms of an address set, for messages.
pub const ADDRESS_FORMS: &str = "`192.0.2.1`, `192.0.2.0/24`, `192.0.2.1-192.0.2.9`, `2001:db8::1` or `2001:db8::/32`";

impl AddressSet {
    /// The first and the last address. The order of sets is that of their addresses, IPv4 first.
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        match self {
            AddressSet::Prefix(net) => (net.network(), net.broadcast()),
            AddressSet::Range(first, last) => (*first, *last),
        }
    }

    /// The set with this first and last address: a prefix if it is one, else a range.
    pub fn of_bounds((first, last): (IpAddr, IpAddr)) -> AddressSet {
        let length = |length| IpNet::new(first, length).ok().map(|net| net.trunc());
        let mut prefixes = (0..=IpNet::from(first).prefix_len()).filter_map(length);
        let prefix = prefixes.find(|net| (net.network(), net.broadcast()) == (first, last));
        prefix.map_or(AddressSet::Range(first, last), AddressSet::Prefix)
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.bounds().0)
    }

    /// The address, if it is the only one.
    pub fn single(&self) -> Option<IpAddr> {
        let (first, last) = self.bounds();
        (first == last).then_some(first)
    }

    /// Whether an address can be in both sets.
    pub fn overlaps(&self, other: &AddressSet) -> bool {
        let ((first, last), (others_first, others_last)) = (self.bounds(), other.bounds());
        first <= others_last && others_first <= last
    }
}

impl From<IpAddr> for AddressSet {
    fn from(address: IpAddr) -> Self {
        AddressSet::Prefix(address.into())
    }
}

impl fmt::Display for AddressSet {
    /// Writes a single address of either family without a prefix length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.single(), self) {
            (Some(address), _) => write!(f, "{address}"),
            (None, AddressSet::Prefix(net)) => write!(f, "{net}"),
            (None, AddressSet::Range(first, last)) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for AddressSet {
    type Err = String;

    /// Parses an address, a prefix, whose host bits are ignored, or a range. An IPv4 address in IPv6 notation is an
    /// IPv4 address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("`{text}` is not an address, prefix or range: write {ADDRESS_FORMS}");
        let address = |text: &str| text.parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| bad());
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            if Family::of(first) != Family::of(last) || first > last {
                return Err(format!("`{text}` ends before its beginning: write {ADDRESS_FORMS}"));
            }
            return Ok(if first == last { first.into() } else { AddressSet::Range(first, last) });
        }
        match text.contains('/') {
            true => Ok(AddressSet::Prefix(text.parse::<IpNet>().map_err(|_| bad())?.trunc())),
            false => address(text).map(AddressSet::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> AddressSet {
        text.parse().unwrap()
    }

    #[test]
    fn text_parses_to_the_same_set() {
        for text in ["192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "192.0.2.1-192.0.2.9", "2001:db8::1", "2001:db8::/32"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("192.0.2.77/24").to_string(), "192.0.2.0/24");
        assert_eq!(set("192.0.2.1-192.0.2.1"), set("192.0.2.1/32"));
        assert_eq!(set("::ffff:192.0.2.1"), set("192.0.2.1"));
    }

    #[test]
    fn a_text_that_is_not_a_set_is_refused() {
        for text in ["", "host", "192.0.2.300", "192.0.2.0/33", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "-"] {
            assert!(AddressSet::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sets_overlap_if_they_share_an_address() {
        assert!(set("192.0.2.0/24").overlaps(&set("192.0.2.7")) && set("192.0.2.7").overlaps(&set("192.0.2.0/24")));
        assert!(set("192.0.2.1-192.0.2.9").overlaps(&set("192.0.2.9-192.0.2.20")));
        assert!(!set("192.0.2.0/25").overlaps(&set("192.0.2.128/25")) && !set("::/0").overlaps(&set("192.0.2.1")));
    }
}
