//! Reads the static entries of an earlier version: the content of a `lists.state` with one checksum for each block. A
//! start reads this file once, and replaces it by a file of records.
//!
//! The format is compact, so that a start reads a million entries before a killed dataplane's interfaces are free
//! again. Numbers are big-endian; texts are UTF-8 behind their length.
//!
//! ```text
//! lists      name (length: 4 bytes)  number of entries (4 bytes)  entries      until the content ends
//! entry      kind  address(es)  comment (length: 2 bytes)
//!   0…32     4 bytes: an IPv4 prefix of this length
//!   64…192   16 bytes: an IPv6 prefix of this length and 64
//!   255      4 bytes, 4 bytes: an IPv4 range
//! ```
//! Lists are in the order of their names, entries in the order of their first and last address. There are no
//! duplicates, so there is exactly one encoding of given entries.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use knockplane_policy::rule::AddressSet;

use super::record::ContentError;
use super::{Bounds, check_comment, check_list_name};
use crate::state_dir::FileFormat;

/// The format of the file.
pub(crate) const FORMAT: FileFormat = FileFormat { kind: "lists", version: 1 };

const V6: u8 = 64;
const RANGE: u8 = 255;

/// A stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version1Entry<'c> {
    pub(super) list: &'c str,
    pub(super) set: AddressSet,
    pub(super) comment: &'c str,
}

/// Reads entries one by one. The first error ends the iteration.
pub(super) struct Version1Entries<'c> {
    content: &'c [u8],
    place: usize,
    list: &'c str,
    /// The number of entries of the list that were not read yet.
    left: u32,
    last: Option<Bounds>,
}

impl<'c> Version1Entries<'c> {
    pub(super) fn of(content: &'c [u8]) -> Version1Entries<'c> {
        Version1Entries { content, place: 0, list: "", left: 0, last: None }
    }

    fn read(&mut self) -> Result<Version1Entry<'c>, ContentError> {
        if self.left == 0 {
            self.begin_list()?;
        }
        let begin = self.place;
        let wrong = |what: String| ContentError::new(begin, what);
        let set = self.address()?;
        let bounds = set.bounds();
        if self.last.is_some_and(|last| last >= bounds) {
            return Err(wrong(format!("{set} is not in order")));
        }
        let length = u16::from_be_bytes(self.bytes()?);
        let comment = self.text(length.into())?;
        check_comment(&set, comment).map_err(wrong)?;
        self.last = Some(bounds);
        self.left -= 1;
        Ok(Version1Entry { list: self.list, set, comment })
    }

    fn begin_list(&mut self) -> Result<(), ContentError> {
        let place = self.place;
        let wrong = |what: String| ContentError::new(place, what);
        let length = u32::from_be_bytes(self.bytes()?);
        let name = self.text(length as usize)?;
        check_list_name(name).map_err(wrong)?;
        if name <= self.list {
            return Err(wrong(format!("the list {name} is not in order")));
        }
        self.left = u32::from_be_bytes(self.bytes()?);
        if self.left == 0 {
            return Err(wrong(format!("the list {name} has no entry")));
        }
        (self.list, self.last) = (name, None);
        Ok(())
    }

    fn address(&mut self) -> Result<AddressSet, ContentError> {
        let place = self.place;
        let wrong = |what: &dyn Display| ContentError::new(place, what.to_string());
        let [kind] = self.bytes()?;
        let set = match kind {
            0..=32 => {
                let net = Ipv4Net::new(Ipv4Addr::from(self.bytes::<4>()?), kind).map_err(|error| wrong(&error))?;
                AddressSet::Prefix(IpNet::V4(net))
            }
            V6..=192 => {
                let net =
                    Ipv6Net::new(Ipv6Addr::from(self.bytes::<16>()?), kind - V6).map_err(|error| wrong(&error))?;
                AddressSet::Prefix(IpNet::V6(net))
            }
            RANGE => {
                let [first, last] = [self.bytes::<4>()?, self.bytes()?].map(|end| IpAddr::from(Ipv4Addr::from(end)));
                if first > last {
                    return Err(wrong(&"a range ends before it begins"));
                }
                AddressSet::Range(first, last)
            }
            _ => return Err(wrong(&format_args!("there is no kind {kind} of entry"))),
        };
        match &set {
            AddressSet::Prefix(net) if net.addr() != net.network() => Err(wrong(&format_args!("{net} has host bits"))),
            _ => Ok(set),
        }
    }

    fn text(&mut self, length: usize) -> Result<&'c str, ContentError> {
        let place = self.place;
        let bytes = self.slice(length)?;
        std::str::from_utf8(bytes).map_err(|error| ContentError::new(place, error.to_string()))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ContentError> {
        let bytes = self.slice(N)?.first_chunk();
        Ok(*bytes.expect("a slice of this length"))
    }

    fn slice(&mut self, length: usize) -> Result<&'c [u8], ContentError> {
        let place = self.place;
        let slice = self.content.get(place..).and_then(|rest| rest.get(..length));
        self.place += length;
        slice.ok_or_else(|| ContentError::new(place, "it ends within an entry".to_owned()))
    }
}

impl<'c> Iterator for Version1Entries<'c> {
    type Item = Result<Version1Entry<'c>, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place >= self.content.len() && self.left == 0 {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            (self.place, self.left) = (self.content.len(), 0);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::static_entries::OperatorEntry;

    /// Encodes the static entries of `lists`, which are in order.
    fn encode<'e, E>(lists: impl Iterator<Item = (&'e str, E)>) -> Vec<u8>
    where
        E: Iterator<Item = &'e OperatorEntry> + Clone,
    {
        let mut content = Vec::new();
        for (list, entries) in lists {
            let entries = entries.filter(|entry| entry.until.is_none());
            let number = entries.clone().count() as u32;
            if number == 0 {
                continue;
            }
            put_list(&mut content, list, number);
            for entry in entries {
                put_address(&mut content, &entry.set);
                // No valid comment is longer.
                content.extend_from_slice(&(entry.comment.len() as u16).to_be_bytes());
                content.extend_from_slice(entry.comment.as_bytes());
            }
        }
        content
    }

    fn put_list(content: &mut Vec<u8>, name: &str, entries: u32) {
        content.extend_from_slice(&(name.len() as u32).to_be_bytes());
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(&entries.to_be_bytes());
    }

    fn put_address(content: &mut Vec<u8>, set: &AddressSet) {
        match set {
            AddressSet::Prefix(IpNet::V4(net)) => {
                content.push(net.prefix_len());
                content.extend_from_slice(&net.network().octets());
            }
            AddressSet::Prefix(IpNet::V6(net)) => {
                content.push(V6 + net.prefix_len());
                content.extend_from_slice(&net.network().octets());
            }
            AddressSet::Range(first, last) => {
                content.push(RANGE);
                for end in [first, last] {
                    // The checks refuse ranges of IPv6 addresses.
                    let IpAddr::V4(end) = end else { continue };
                    content.extend_from_slice(&end.octets());
                }
            }
        }
    }

    fn entry(set: &str, comment: &str) -> OperatorEntry {
        OperatorEntry { set: set.parse().unwrap(), comment: comment.to_owned(), until: None }
    }

    fn read(content: &[u8]) -> Result<Vec<String>, String> {
        let told = |entry: Version1Entry<'_>| format!("{} {} {}", entry.list, entry.set, entry.comment);
        Version1Entries::of(content).map(|entry| entry.map(told).map_err(|error| error.to_string())).collect()
    }

    /// Encodes a list's name, its number of entries, and these bytes.
    fn list(name: &str, number: u32, entries: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        put_list(&mut content, name, number);
        [&content[..], entries].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let a = [
            entry("0.0.0.0/0", ""),
            entry("192.0.2.1", "the office"),
            entry("192.0.2.1-192.0.2.9", "größer"),
            entry("255.255.255.255", ""),
            entry("::/0", ""),
            entry("2001:db8::/32", "x"),
            entry("2001:db8::1", ""),
        ];
        let timed = [OperatorEntry { until: Some(Default::default()), ..entry("10.0.0.1", "") }];
        let lists = [("a", &a[..]), ("b", &timed[..]), ("c", &a[1..2])];
        let content = encode(lists.iter().map(|(name, entries)| (*name, entries.iter())));
        let mut told: Vec<_> = a.iter().map(|entry| format!("a {} {}", entry.set, entry.comment)).collect();
        told.push("c 192.0.2.1 the office".to_owned());
        assert_eq!(read(&content), Ok(told), "without those that have a timeout");
        assert_eq!(read(&encode([("a", timed.iter())].into_iter())), Ok(Vec::new()));
    }

    #[test]
    fn what_would_not_be_written_is_refused_with_its_place() {
        let one = [32, 192, 0, 2, 1, 0, 0];
        let two = [32, 192, 0, 2, 2, 0, 0];
        let comment = |bytes: &[u8]| [&[32, 192, 0, 2, 1][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let cases = [
            (list("a", 2, &one), "byte 16 of its content: it ends within an entry"),
            (list("a", 1, &[&one[..], &two].concat()), "it ends within an entry"),
            (list("a", 2, &[two, one].concat()), "192.0.2.1 is not in order"),
            (list("a", 2, &[one, one].concat()), "192.0.2.1 is not in order"),
            (list("a", 0, &[]), "the list a has no entry"),
            (list("a,b", 1, &one), "`a,b` is no name of a list"),
            (list("", 1, &one), "`` is no name"),
            ([list("b", 1, &one), list("a", 1, &one)].concat(), "the list a is not in order"),
            ([list("a", 1, &one), list("a", 1, &two)].concat(), "the list a is not in order"),
            (list("a", 1, &[24, 192, 0, 2, 1, 0, 0]), "byte 9 of its content: 192.0.2.1/24 has host bits"),
            (list("a", 1, &[33, 192, 0, 2, 1, 0, 0]), "no kind 33"),
            (list("a", 1, &[255, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0]), "a range ends before it begins"),
            (list("a", 1, &comment(&[0xff])), "invalid utf-8"),
            (list("a", 1, &comment(&[b'x'; 1_001])), "has 1001 bytes: write at most 1000"),
        ];
        for (content, told) in cases {
            let error = read(&content).unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
