//! `/ip address` and `/ipv6 address`: the router's own addresses, which define local and broadcast addresses in rules.
//!
//! An IPv6 address that the router generates (`eui-64=yes`, `from-pool=`) is not in the file, and so not among these
//! addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, ip_mask_to_prefix};

use super::kind::Kind;
use super::lexer::Text;
use super::menu::Menu;
use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property};
use super::value::{self, Parsed};
use crate::packet::Family;
use crate::rule::{Inert, LocalAddress};
use crate::time::digits;

type Row = Property<Draft>;

/// Every property RouterOS has for these menus. Source: RouterOS manual, IP Addressing, and exports of RouterOS 5 to 7.
pub(super) const PROPERTIES: &[Row] = &[
    Row::fixed("address", |draft, value| {
        let (address, length) = address(&value::text(value), draft.family)?;
        (draft.address, draft.length) = (Some(address), length);
        Ok(())
    })
    .says("The address with its prefix length.", "address[/length]", "192.0.2.1/24"),
    Row::fixed("disabled", |draft, value| {
        draft.disabled = value::yes_no(&value::text(value))?;
        Ok(())
    })
    .says("The address is not one of the router.", "yes|no", "yes"),
    Row::optional("netmask", |draft, value| {
        draft.netmask = Some(netmask(&value::text(value))?);
        Ok(())
    })
    .says("The prefix length, if `address` has none.", "mask", "255.255.255.0")
    .only(Family::Ipv4),
    Row::optional("eui-64", |draft, value| {
        draft.made_up |= value::yes_no(&value::text(value))?;
        draft.keep("eui-64", value)
    })
    .says("Whether the router generates the address from its prefix.", "yes|no", "yes")
    .differs(MADE_UP)
    .only(Family::Ipv6),
    Row::optional("from-pool", |draft, value| {
        draft.made_up |= !value.is_empty();
        draft.keep("from-pool", value)
    })
    .says("The pool of the address's prefix.", "name", "pool6")
    .differs(MADE_UP)
    .only(Family::Ipv6),
    // These properties follow from the address, or have no relation to it.
    Row::optional("network", |draft, value| draft.keep("network", value))
        .says("The first address of the network.", "address", "192.0.2.0")
        .differs(FOLLOWS)
        .only(Family::Ipv4),
    Row::optional("broadcast", |draft, value| draft.keep("broadcast", value))
        .says("The last address of the network.", "address", "192.0.2.255")
        .differs(FOLLOWS)
        .only(Family::Ipv4),
    Row::optional("interface", |draft, value| draft.keep("interface", value))
        .says("The interface that has the address.", "name", "bridge")
        .differs(NOTHING),
    Row::optional("actual-interface", |draft, value| draft.keep("actual-interface", value))
        .says("The same, as determined by the router.", "name", "bridge")
        .differs(NOTHING),
    Row::optional("vrf", |draft, value| draft.keep("vrf", value))
        .says("The routing table that the address is in.", "name", "main")
        .differs(NOTHING),
    Row::optional("comment", |draft, value| draft.keep("comment", value)).says("Free text.", "text", "defconf"),
    Row::optional("advertise", |draft, value| draft.keep("advertise", value))
        .says("Whether the router announces the prefix.", "yes|no", "no")
        .differs(NOTHING)
        .only(Family::Ipv6),
    Row::optional("no-dad", |draft, value| draft.keep("no-dad", value))
        .says("Whether the router checks that no other host has the address.", "yes|no", "no")
        .differs(NOTHING)
        .only(Family::Ipv6),
    Row::optional("auto-link-local", |draft, value| draft.keep("auto-link-local", value))
        .says("Whether the interface has a link-local address as well.", "yes|no", "yes")
        .differs(NOTHING)
        .only(Family::Ipv6),
    Row::unsupported("copy-from"),
];

const MADE_UP: &str = "An address that the router generates is not in the file, so it is not known here.";
const FOLLOWS: &str = "It follows from the address, whatever its value is.";
const NOTHING: &str = "It has no effect.";

/// An address while its words are parsed.
#[derive(Debug)]
pub(super) struct Draft {
    family: Family,
    address: Option<IpAddr>,
    length: Option<u8>,
    netmask: Option<u8>,
    disabled: bool,
    made_up: bool,
    inert: Inert,
}

impl Draft {
    /// Stores a property without effect. An empty value counts as absent.
    fn keep(&mut self, name: &str, value: &[u8]) -> Parsed<()> {
        if !value.is_empty() {
            self.inert.insert(name.to_owned(), value::text(value).into_owned());
        }
        Ok(())
    }
}

/// One of the two menus.
#[derive(Debug)]
pub(super) struct LocalAddresses(pub(super) Family);

impl Kind for LocalAddresses {
    type Entry = Option<LocalAddress>;

    fn path(&self) -> &'static str {
        Menu::LocalAddress(self.0).path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> Option<LocalAddress> {
        let before = problems.count();
        let family = self.0;
        let mut draft = Draft {
            family,
            address: None,
            length: None,
            netmask: None,
            disabled: false,
            made_up: false,
            inert: Inert::new(),
        };
        let given = property::read(PROPERTIES, Some(family), add, &mut draft, problems);
        if given.is_missing("address") && !draft.made_up {
            let complaint =
                Complaint::new("no address is given").expected("`address=`").help("add it, with its prefix");
            problems.add(add.verb.clone(), complaint);
        }
        let default = if family == Family::Ipv4 { 32 } else { 64 };
        let length = draft.length.or(draft.netmask).unwrap_or(default);
        if problems.count() > before {
            return None;
        }
        let address = draft.address.and_then(|address| IpNet::new(address, length).ok());
        Some(LocalAddress { address, disabled: draft.disabled, inert: draft.inert })
    }
}

/// Parses an address with or without a prefix length: `192.0.2.1/24`.
fn address(value: &str, family: Family) -> Parsed<(IpAddr, Option<u8>)> {
    let (address, length) = match value.split_once('/') {
        Some((address, length)) => (address, Some(digits(length).and_then(|length| u8::try_from(length).ok()))),
        None => (value, None),
    };
    let (address, longest) = match family {
        Family::Ipv4 => (address.parse::<Ipv4Addr>().ok().map(IpAddr::V4), 32),
        Family::Ipv6 => (address.parse::<Ipv6Addr>().ok().map(IpAddr::V6), 128),
    };
    match (address, length) {
        (Some(address), None) => Ok((address, None)),
        (Some(address), Some(Some(length))) if length <= longest => Ok((address, Some(length))),
        _ => Err(Complaint::new(format!("`{}` is not an address of the router", show(value.as_bytes()))).expected(
            match family {
                Family::Ipv4 => "`192.0.2.1/24`",
                Family::Ipv6 => "`2001:db8::1/64`",
            },
        )),
    }
}

/// Parses a netmask such as `255.255.255.0` into a prefix length.
fn netmask(value: &str) -> Parsed<u8> {
    let mask = value.parse().ok().and_then(|mask| ip_mask_to_prefix(IpAddr::V4(mask)).ok());
    mask.ok_or_else(|| {
        Complaint::new(format!("`{}` is not a netmask", show(value.as_bytes()))).expected("`255.255.255.0`")
    })
}
