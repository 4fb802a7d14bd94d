//! The router's own interfaces and addresses in a rule file, and properties without effect here.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::{AddrParseError, IpNet};
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::packet::Family;

/// Properties without effect here, by name, with their values. They are kept for the export back to the router.
pub type Inert = BTreeMap<String, String>;

/// A line of `/interface list member`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "MemberForm")]
pub struct InterfaceMember {
    /// The interface.
    pub interface: String,
    /// Whether the member is kept and shown, but not in the list.
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// Free text.
    #[serde(skip_serializing_if = "is_default")]
    pub comment: String,
    /// The line of the rule file on which the member begins, counted from 1; 0 for members without a file. Exports have
    /// the members of all lists in this order.
    pub line: u32,
}

/// Earlier versions serialized only the name.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum MemberForm {
    Name(String),
    Full {
        interface: String,
        #[serde(default)]
        disabled: bool,
        #[serde(default)]
        comment: String,
        line: u32,
    },
}

impl From<MemberForm> for InterfaceMember {
    fn from(form: MemberForm) -> Self {
        match form {
            MemberForm::Name(interface) => interface.into(),
            MemberForm::Full { interface, disabled, comment, line } => {
                InterfaceMember { interface, disabled, comment, line }
            }
        }
    }
}

impl From<String> for InterfaceMember {
    fn from(interface: String) -> Self {
        InterfaceMember { interface, ..InterfaceMember::default() }
    }
}

/// A line of `/ip address` or `/ipv6 address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AddressForm")]
pub struct LocalAddress {
    /// The address with its prefix length. `None` if the router generates it, which is possible for IPv6 only.
    pub address: Option<IpNet>,
    /// Whether the address is kept and shown, but is not an address of the router.
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// `interface`, `comment`, `network` and others.
    #[serde(skip_serializing_if = "is_default")]
    pub inert: Inert,
}

/// Earlier versions serialized only the address.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum AddressForm {
    Address(IpNet),
    Full {
        address: Option<IpNet>,
        #[serde(default)]
        disabled: bool,
        #[serde(default)]
        inert: Inert,
    },
}

impl From<AddressForm> for LocalAddress {
    fn from(form: AddressForm) -> Self {
        match form {
            AddressForm::Address(address) => address.into(),
            AddressForm::Full { address, disabled, inert } => LocalAddress { address, disabled, inert },
        }
    }
}

impl From<IpNet> for LocalAddress {
    fn from(address: IpNet) -> Self {
        LocalAddress { address: Some(address), disabled: false, inert: Inert::new() }
    }
}

impl FromStr for LocalAddress {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|address: IpNet| address.into())
    }
}

impl LocalAddress {
    /// The address; `None` if it is not in the file, because it is from a prefix pool or has a generated interface
    /// identifier.
    pub fn known(&self) -> Option<&IpNet> {
        let is = |name: &str, made_up: fn(&str) -> bool| self.inert.get(name).is_some_and(|value| made_up(value));
        let is_made_up = is("eui-64", |value| value == "yes") || is("from-pool", |value| !value.is_empty());
        self.address.as_ref().filter(|_| !self.disabled && !is_made_up)
    }

    /// The family of its menu.
    pub fn family(&self) -> Family {
        self.address.map_or(Family::Ipv6, |address| Family::of(address.addr()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_earlier_versions_is_read() {
        let member: InterfaceMember = serde_json::from_str("\"ether1\"").unwrap();
        assert_eq!(member, "ether1".to_owned().into());
        let address: LocalAddress = serde_json::from_str("\"192.0.2.1/24\"").unwrap();
        assert_eq!(address, "192.0.2.1/24".parse().unwrap());
        for (text, round) in [
            (r#"{"address":"192.0.2.1/24","inert":{"interface":"bridge"}}"#, true),
            (r#"{"address":null,"inert":{"from-pool":"p"}}"#, true),
            (r#"{"address":null,"wrong":1}"#, false),
        ] {
            let read = serde_json::from_str::<LocalAddress>(text);
            assert_eq!(read.is_ok_and(|read| serde_json::to_string(&read).unwrap() == text), round, "{text}");
        }
    }
}
