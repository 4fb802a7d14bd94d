//! Encodes changes of static entries as the content of a record.
//!
//! The format is compact, so that a start reads a million entries before a killed dataplane's interfaces are free
//! again. Numbers are big-endian; texts are UTF-8 behind their length.
//!
//! ```text
//! L  name (length: 4 bytes)                      the list of the changes that follow
//! P  address(es)  comment (length: 2 bytes)      an entry is in the list, perhaps in place of one with these addresses
//! R  address(es)                                 the entry with these addresses is removed
//! E                                              the end, so that the last byte is not 0; absent in older files
//!
//! address(es)
//!   0…32     4 bytes: an IPv4 prefix of this length
//!   64…192   16 bytes: an IPv6 prefix of this length and 64
//!   255      4 bytes, 4 bytes: an IPv4 range
//! ```

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use knockplane_policy::rule::AddressSet;

use super::{check_comment, check_list_name};
use crate::state_dir::Record;

const LIST: u8 = b'L';
const PUT: u8 = b'P';
const REMOVE: u8 = b'R';
const END: u8 = b'E';

const V6: u8 = 64;
const RANGE: u8 = 255;

/// The number of bytes of an entry without its addresses and its comment.
const FRAME: usize = 1 + 1 + 2;

/// The number of bytes of a list's name record without the name.
const LIST_FRAME: usize = 1 + 4;

/// A change of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredChange<'c> {
    pub(super) list: &'c str,
    pub(super) set: AddressSet,
    /// The comment of the entry; `None` if it is removed.
    pub(super) comment: Option<&'c str>,
}

/// The number of bytes of an entry in a list.
pub(super) fn entry_bytes(set: &AddressSet, comment: &str) -> u64 {
    let address = if set.bounds().0.is_ipv6() { 16 } else { 4 };
    let addresses = if matches!(set, AddressSet::Range(..)) { 2 * address } else { address };
    (FRAME + addresses + comment.len()) as u64
}

/// The number of bytes of the name record of a list.
pub(super) fn list_bytes(name: &str) -> u64 {
    (LIST_FRAME + name.len()) as u64
}

/// The content of a record during its construction.
#[derive(Default)]
pub(super) struct Content<'l> {
    bytes: Vec<u8>,
    list: &'l str,
    removes: bool,
}

impl<'l> Content<'l> {
    /// Adds a change.
    pub(super) fn push(&mut self, list: &'l str, set: &AddressSet, comment: Option<&str>) {
        if self.list != list {
            self.bytes.push(LIST);
            self.bytes.extend_from_slice(&(list.len() as u32).to_be_bytes());
            self.bytes.extend_from_slice(list.as_bytes());
            self.list = list;
        }
        self.removes |= comment.is_none();
        self.bytes.push(if comment.is_some() { PUT } else { REMOVE });
        put_address(&mut self.bytes, set);
        if let Some(comment) = comment {
            // No valid comment is longer.
            self.bytes.extend_from_slice(&(comment.len() as u16).to_be_bytes());
            self.bytes.extend_from_slice(comment.as_bytes());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_record(mut self) -> Record {
        self.bytes.push(END);
        Record { content: self.bytes, only_adds: !self.removes }
    }
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

/// The reason that this program cannot have written a content, and the byte of the error, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {place} of its content: {what}")]
pub(crate) struct ContentError {
    place: usize,
    what: String,
}

impl ContentError {
    pub(super) fn new(place: usize, what: String) -> Self {
        ContentError { place, what }
    }
}

/// Reads changes one by one. The first error ends the iteration.
#[derive(Clone)]
pub(super) struct Changes<'c> {
    content: &'c [u8],
    place: usize,
    list: &'c str,
}

impl<'c> Changes<'c> {
    pub(super) fn of(content: &'c [u8]) -> Changes<'c> {
        Changes { content, place: 0, list: "" }
    }

    fn read(&mut self) -> Result<StoredChange<'c>, ContentError> {
        let begin = self.place;
        let wrong = |what: String| ContentError { place: begin, what };
        let [mut kind] = self.bytes()?;
        if kind == LIST {
            let length = u32::from_be_bytes(self.bytes()?);
            self.list = self.text(length as usize)?;
            check_list_name(self.list).map_err(wrong)?;
            [kind] = self.bytes()?;
        }
        if self.list.is_empty() {
            return Err(wrong("no list is named before the first change".to_owned()));
        }
        if kind != PUT && kind != REMOVE {
            return Err(wrong(format!("there is no change of the kind {kind}")));
        }
        let set = self.address()?;
        let mut comment = None;
        if kind == PUT {
            let length = u16::from_be_bytes(self.bytes()?);
            let text = self.text(length.into())?;
            check_comment(&set, text).map_err(wrong)?;
            comment = Some(text);
        }
        Ok(StoredChange { list: self.list, set, comment })
    }

    fn address(&mut self) -> Result<AddressSet, ContentError> {
        let place = self.place;
        let wrong = |what: &dyn Display| ContentError { place, what: what.to_string() };
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
        std::str::from_utf8(bytes).map_err(|error| ContentError { place, what: error.to_string() })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ContentError> {
        let bytes = self.slice(N)?.first_chunk();
        Ok(*bytes.expect("a slice of this length"))
    }

    fn slice(&mut self, length: usize) -> Result<&'c [u8], ContentError> {
        let place = self.place;
        let slice = self.content.get(place..).and_then(|rest| rest.get(..length));
        self.place += length;
        slice.ok_or_else(|| ContentError { place, what: "it ends within an entry".to_owned() })
    }
}

impl<'c> Iterator for Changes<'c> {
    type Item = Result<StoredChange<'c>, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place >= self.content.len() || self.content[self.place..] == [END] {
            return None;
        }
        let change = self.read();
        if change.is_err() {
            self.place = self.content.len();
        }
        Some(change)
    }
}
