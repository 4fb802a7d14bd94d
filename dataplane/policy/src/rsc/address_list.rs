//! `/ip firewall address-list` and `/ipv6 firewall address-list`: parses the words of an `add` into a [`ListEntry`].
//!
//! Owns the table of properties, the forms of an address, and two indexes of the entries: by list, and by list and
//! address, because a list cannot contain an address twice. Lists of a million entries are common, so the module stores
//! only the final form of an entry and a few numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use ipnet::IpNet;

use super::encoding;
use super::kind::Kind;
use super::lexer::Text;
use super::menu::Menu;
use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property};
use super::select::Query;
use super::store::Record;
use super::value::{self, Parsed};
use super::wording::entry_address;
use crate::packet::Family;
use crate::rule::{AddressSet, EntryAddress, ListEntry, ListTimeout};
use crate::time::{format_duration, parse_duration};

type Row = Property<Draft>;

/// Every property RouterOS has for these menus. Source: RouterOS manual, Address-lists, and exports of RouterOS 5 to 7.
pub(super) const PROPERTIES: &[Row] = &[
    Row::optional("address", |entry, value| {
        entry.address = address(&value::text(value), entry.family)?;
        Ok(())
    })
    .says("The address in the list; without it, no address, rather than every address.", ADDRESSES, "192.0.2.0/24")
    .differs(
        "The control process resolves host names: A records for `/ip`, AAAA records for `/ipv6`. Offline, nothing is \
         known of their addresses.",
    ),
    Row::fixed("list", |entry, value| {
        entry.list = Some(value::list_name(&value::text(value))?);
        Ok(())
    })
    .says("The list of the entry.", "name", "friends"),
    Row::optional("comment", |entry, value| {
        entry.comment = value::comment(value);
        Ok(())
    })
    .says("Free text.", "text", "the office"),
    Row::optional("timeout", |entry, value| {
        let text = &value::text(value);
        entry.timeout = match value::list_timeout(text)? {
            ListTimeout::After(timeout) => Some(timeout),
            // An entry without a timeout has a word or no property. The meaning of a zero would be ambiguous.
            _ if parse_duration(text).is_some() => {
                return Err(Complaint::new("a timeout of zero")
                    .expected("1s to 35w3d13h13m56s")
                    .help("leave the timeout out for an entry without one"));
            }
            ListTimeout::NoneDynamic | ListTimeout::NoneStatic => None,
        };
        Ok(())
    })
    .says(
        "Timeout of the entry, from the time the rules are applied; without one, the entry is static.",
        TIMEOUT,
        "1d",
    ),
    Row::fixed("disabled", |entry, value| {
        entry.disabled = value::yes_no(&value::text(value))?;
        Ok(())
    })
    .says("Keeps the entry but does not add it to the list.", "yes|no", "yes"),
    // Properties that the router determines. They have no effect on the filter.
    Row::optional("creation-time", |_, _| Ok(()))
        .says("When the router created the entry.", "text", "2026-01-02 03:04:05")
        .differs("It has no effect."),
    Row::fixed("dynamic", |_, value| value::yes_no(&value::text(value)).map(|_| ()))
        .says("Whether the entry is lost when the router restarts.", "yes|no", "no")
        .differs("It has no effect: the file decides whether entries have a timeout."),
    Row::unsupported("copy-from"),
];

const ADDRESSES: &str = "address[/length]|address-address|host name; ranges for IPv4 only";
const TIMEOUT: &str = "none-dynamic|none-static|time, up to 35w3d13h13m56s";

/// An entry while its words are parsed.
#[derive(Debug)]
pub(super) struct Draft {
    family: Family,
    address: EntryAddress,
    list: Option<String>,
    comment: String,
    timeout: Option<Duration>,
    disabled: bool,
}

/// One of the two menus.
#[derive(Debug)]
pub(super) struct AddressLists {
    family: Family,
    /// The entries of each list, and some former ones.
    lists: HashMap<String, Vec<u32>>,
    /// The entry with each hash of list and address.
    addresses: HashMap<u64, u32>,
    /// The keys of the hashes are random, so that no crafted file causes collisions.
    hasher: RandomState,
}

impl AddressLists {
    pub(super) fn new(family: Family) -> Self {
        AddressLists { family, lists: HashMap::new(), addresses: HashMap::new(), hasher: RandomState::new() }
    }

    fn hash(&self, list: &str, address: &EntryAddress) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        list.hash(&mut hasher);
        match address {
            EntryAddress::Set(AddressSet::Prefix(net)) => (0, net).hash(&mut hasher),
            EntryAddress::Set(AddressSet::Range(first, last)) => (1, first, last).hash(&mut hasher),
            EntryAddress::Name(name) => (2, name).hash(&mut hasher),
            EntryAddress::None => return None,
        }
        Some(hasher.finish())
    }
}

impl Kind for AddressLists {
    type Entry = Option<ListEntry>;

    fn path(&self) -> &'static str {
        Menu::AddressList(self.family).path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> Option<ListEntry> {
        let before = problems.count();
        let mut draft = Draft {
            family: self.family,
            address: EntryAddress::None,
            list: None,
            comment: String::new(),
            timeout: None,
            disabled: false,
        };
        let given = property::read(PROPERTIES, None, add, &mut draft, problems);
        if given.is_missing("list") {
            let complaint =
                Complaint::new("the entry has no list").expected("`list=`").help("add `list=` and its name");
            problems.add(add.verb.clone(), complaint);
        }
        let list = draft.list.filter(|_| given.complete && problems.count() == before)?;
        let Draft { family, address, comment, timeout, disabled, .. } = draft;
        Some(ListEntry { family, list, address, timeout, disabled, comment, line: add.line })
    }

    fn field<'e>(&self, entry: &'e Option<ListEntry>, name: &[u8]) -> Option<Cow<'e, [u8]>> {
        let entry = entry.as_ref()?;
        let owned = |text: String| Cow::Owned(text.into_bytes());
        let yes_no = |yes: bool| Cow::Borrowed(if yes { &b"yes"[..] } else { b"no" });
        match name {
            b"list" => Some(encoding::bytes(&entry.list)),
            b"address" => Some(owned(entry_address(&entry.address))),
            b"comment" => Some(encoding::bytes(&entry.comment)),
            b"timeout" => Some(owned(entry.timeout.map_or_else(String::new, format_duration))),
            b"disabled" => Some(yes_no(entry.disabled)),
            b"dynamic" => Some(yes_no(entry.timeout.is_some())),
            _ => None,
        }
    }

    fn normalize(&self, name: &[u8], value: &mut Vec<u8>) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let normal = match name {
            b"address" => address(text, self.family).ok().map(|address| entry_address(&address)),
            b"timeout" => parse_duration(text).map(format_duration),
            _ => None,
        };
        if let Some(normal) = normal {
            *value = normal.into_bytes();
        }
    }

    fn candidates(&self, query: &Query) -> Option<Vec<u32>> {
        let list = &*encoding::readable(query.demands("list")?);
        let address =
            query.demands("address").and_then(|text| address(std::str::from_utf8(text).ok()?, self.family).ok());
        match address.and_then(|address| self.hash(list, &address)) {
            Some(hash) => Some(self.addresses.get(&hash).copied().into_iter().collect()),
            None => {
                let mut entries = self.lists.get(list).cloned().unwrap_or_default();
                entries.sort_unstable();
                entries.dedup();
                Some(entries)
            }
        }
    }

    fn enter(&mut self, index: u32, records: &[Record<Option<ListEntry>>]) -> Option<u32> {
        let entry = records[index as usize].entry.as_ref()?;
        match self.lists.get_mut(&entry.list) {
            Some(entries) => entries.push(index),
            None => _ = self.lists.insert(entry.list.clone(), vec![index]),
        }
        let hash = self.hash(&entry.list, &entry.address)?;
        let there = *self.addresses.entry(hash).or_insert(index);
        let same = |other: &ListEntry| other.list == entry.list && other.address == entry.address;
        (there != index && records[there as usize].entry.as_ref().is_some_and(same)).then_some(there)
    }

    fn leave(&mut self, index: u32, entry: &Option<ListEntry>) {
        let hash = entry.as_ref().and_then(|entry| self.hash(&entry.list, &entry.address));
        if let Some(hash) = hash.filter(|hash| self.addresses.get(hash) == Some(&index)) {
            self.addresses.remove(&hash);
        }
    }

    fn refuse(&self, entry: &mut Option<ListEntry>) {
        *entry = None;
    }
}

/// An address, prefix, range or host name of the menu's family.
fn address(value: &str, family: Family) -> Parsed<EntryAddress> {
    match value::addresses(value, family) {
        // This is a single address in another notation.
        Ok(AddressSet::Range(first, last)) if first == last => {
            Ok(EntryAddress::Set(AddressSet::Prefix(IpNet::from(first))))
        }
        Ok(set) => Ok(EntryAddress::Set(set)),
        Err(_) if is_host_name(value) => Ok(EntryAddress::Name(value.to_owned())),
        Err(_) => Err(bad_address(value, family)),
    }
}

/// Whether the value can be a host name, and is no misspelt address: `192.0.2.X` is a placeholder.
fn is_host_name(value: &str) -> bool {
    let name = value.strip_suffix('.').unwrap_or(value);
    let labels: Vec<&str> = name.split('.').collect();
    let is_label = |label: &&str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_number = |label: &&str| label.bytes().all(|byte| byte.is_ascii_digit());
    let like_address = labels.len() == 4 && labels.iter().all(|label| label.len() <= 3) && is_number(&labels[0]);
    name.len() <= 253 && labels.iter().all(is_label) && !is_number(&labels[labels.len() - 1]) && !like_address
}

fn bad_address(value: &str, family: Family) -> Complaint {
    let (expected, other, menu) = match family {
        Family::Ipv4 => (
            "`192.0.2.1`, `192.0.2.0/24`, `192.0.2.1-192.0.2.9` or a host name",
            Family::Ipv6,
            Menu::AddressList(Family::Ipv6),
        ),
        Family::Ipv6 => {
            ("`2001:db8::1`, `2001:db8::/32` or a host name", Family::Ipv4, Menu::AddressList(Family::Ipv4))
        }
    };
    let message = match value {
        "" => "the address is empty".to_owned(),
        _ => format!("`{}` is neither an address nor a host name", show(value.as_bytes())),
    };
    let complaint = Complaint::new(message).expected(expected);
    if value::addresses(value, other).is_ok() {
        complaint.help(format!("addresses of the other family belong in `{}`", menu.path()))
    } else if value.is_empty() {
        complaint.help("leave `address` out for an empty list: it never means every address")
    } else {
        complaint
    }
}
