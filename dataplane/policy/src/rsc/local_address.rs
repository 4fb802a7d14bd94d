//! `/ip address` and `/ipv6 address`: the router's own addresses, of which rules see what is local and what is broadcast.
//!
//! An IPv6 address that the router makes up (`eui-64=yes`, `from-pool=`) is not in the file, and so not among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, ip_mask_to_prefix};

use super::kind::Kind;
use super::lexer::Text;
use super::menu::Menu;
use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property};
use super::value::{self, Parsed};
use crate::packet::Family;
use crate::time::digits;

/// Every property RouterOS has for these menus. Source: RouterOS manual, IP Addressing, and exports of RouterOS 5 to 7.
const PROPERTIES: &[Property<Draft>] = &[
    Property::fixed("address", |draft, value| {
        let (address, length) = address(value::text(value)?, draft.family)?;
        (draft.address, draft.length) = (Some(address), length);
        Ok(())
    }),
    Property::fixed("disabled", |draft, value| {
        draft.disabled = value::yes_no(value::text(value)?)?;
        Ok(())
    }),
    Property::optional("netmask", |draft: &mut Draft, value| {
        draft.netmask = Some(netmask(value::text(value)?)?);
        Ok(())
    })
    .only(Family::Ipv4),
    Property::optional("eui-64", |draft: &mut Draft, value| {
        draft.made_up |= value::yes_no(value::text(value)?)?;
        Ok(())
    })
    .only(Family::Ipv6),
    Property::optional("from-pool", |draft: &mut Draft, value| {
        draft.made_up |= !value.is_empty();
        Ok(())
    })
    .only(Family::Ipv6),
    // They follow from the address, or say nothing of it.
    Property::optional("network", any).only(Family::Ipv4),
    Property::optional("broadcast", any).only(Family::Ipv4),
    Property::optional("interface", any),
    Property::optional("actual-interface", any),
    Property::optional("vrf", any),
    Property::optional("comment", any),
    Property::optional("advertise", any).only(Family::Ipv6),
    Property::optional("no-dad", any).only(Family::Ipv6),
    Property::optional("auto-link-local", any).only(Family::Ipv6),
    Property::unsupported("copy-from"),
];

fn any(_: &mut Draft, _: &[u8]) -> Parsed<()> {
    Ok(())
}

/// An address while its words are read.
#[derive(Debug)]
struct Draft {
    family: Family,
    address: Option<IpAddr>,
    length: Option<u8>,
    netmask: Option<u8>,
    disabled: bool,
    made_up: bool,
}

/// One of the two menus.
#[derive(Debug)]
pub(super) struct LocalAddresses(pub(super) Family);

impl Kind for LocalAddresses {
    type Entry = Option<IpNet>;

    fn path(&self) -> &'static str {
        Menu::LocalAddress(self.0).path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> Option<IpNet> {
        let before = problems.count();
        let family = self.0;
        let mut draft = Draft { family, address: None, length: None, netmask: None, disabled: false, made_up: false };
        let given = property::read(PROPERTIES, Some(family), add, &mut draft, problems);
        if given.is_missing("address") && !draft.made_up {
            let complaint =
                Complaint::new("no address is given").expected("`address=`").help("add it, with its prefix");
            problems.add(add.verb.clone(), complaint);
        }
        let default = if family == Family::Ipv4 { 32 } else { 64 };
        let length = draft.length.or(draft.netmask).unwrap_or(default);
        let counts = problems.count() == before && !draft.disabled && !draft.made_up;
        draft.address.filter(|_| counts).and_then(|address| IpNet::new(address, length).ok())
    }
}

/// `192.0.2.1/24`, or without a length.
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

/// `255.255.255.0` as a length.
fn netmask(value: &str) -> Parsed<u8> {
    let mask = value.parse().ok().and_then(|mask| ip_mask_to_prefix(IpAddr::V4(mask)).ok());
    mask.ok_or_else(|| {
        Complaint::new(format!("`{}` is not a netmask", show(value.as_bytes()))).expected("`255.255.255.0`")
    })
}
