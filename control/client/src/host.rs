//! Resolves HOST to the address that the knock is sent to, or to one address of each family.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The address families that the knock is sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    /// The family of the first address that the resolver returns.
    First,
    /// The family of `-4` or `-6`.
    Only(Family),
    /// Both families of which HOST has addresses.
    Both,
}

/// The addresses to knock at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// One address of each family, at least one. The port is 0.
    pub(crate) doors: Vec<SocketAddr>,
    /// The family of which HOST has no address, if both were requested.
    pub(crate) missing: Option<Family>,
}

impl Family {
    fn holds(self, address: &SocketAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// The reason that HOST has no usable address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(
        "cannot resolve `{host}`: {source}\n  check the spelling and this machine's name server, or give an address"
    )]
    Unknown { host: String, source: io::Error },
    #[error("`{host}` has no {family} address, only {others}\n  leave out -4 or -6, or give an address")]
    NoneOfFamily { host: String, family: Family, others: String },
    #[error("`{host}` resolves to no address")]
    Nothing { host: String },
}

/// Resolves `host` once, and takes the first address of each of these families.
///
/// Returns `SocketAddr` rather than `IpAddr`, because a link-local IPv6 address (`fe80::1%eth0`) needs its interface.
pub(crate) fn resolve(host: &str, families: Families) -> Result<Resolved, ResolveError> {
    let addresses: Vec<SocketAddr> = (host, 0)
        .to_socket_addrs()
        .map_err(|source| ResolveError::Unknown { host: host.to_owned(), source })?
        .collect();
    match families {
        Families::First => choose(host, None, &addresses).map(|door| Resolved { doors: vec![door], missing: None }),
        Families::Only(family) => {
            choose(host, Some(family), &addresses).map(|door| Resolved { doors: vec![door], missing: None })
        }
        Families::Both => choose_both(host, &addresses),
    }
}

fn choose_both(host: &str, addresses: &[SocketAddr]) -> Result<Resolved, ResolveError> {
    let of = |family| addresses.iter().copied().find(|address: &SocketAddr| Family::holds(family, address));
    match (of(Family::V4), of(Family::V6)) {
        (Some(v4), Some(v6)) => Ok(Resolved { doors: vec![v4, v6], missing: None }),
        (Some(v4), None) => Ok(Resolved { doors: vec![v4], missing: Some(Family::V6) }),
        (None, Some(v6)) => Ok(Resolved { doors: vec![v6], missing: Some(Family::V4) }),
        (None, None) => Err(ResolveError::Nothing { host: host.to_owned() }),
    }
}

fn choose(host: &str, family: Option<Family>, addresses: &[SocketAddr]) -> Result<SocketAddr, ResolveError> {
    let fitting = addresses.iter().find(|address| family.is_none_or(|family| family.holds(address)));
    match (fitting, family) {
        (Some(address), _) => Ok(*address),
        (None, Some(family)) if !addresses.is_empty() => {
            let mut others: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            others.dedup();
            Err(ResolveError::NoneOfFamily { host: host.to_owned(), family, others: others.join(", ") })
        }
        _ => Err(ResolveError::Nothing { host: host.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn first_address_of_the_family() {
        let list = addresses(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(choose("gate", None, &list).unwrap(), list[0]);
        assert_eq!(choose("gate", Some(Family::V4), &list).unwrap(), list[1]);
        assert_eq!(choose("gate", Some(Family::V6), &list).unwrap(), list[0]);
    }

    #[test]
    fn the_error_for_a_missing_family_lists_the_addresses() {
        let error = choose("gate", Some(Family::V6), &addresses(&["192.0.2.1"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no IPv6 address, only 192.0.2.1"), "{text}");
    }

    #[test]
    fn both_families_as_far_as_the_host_has_them() {
        let both = |list: &[&str]| choose_both("gate", &addresses(list)).unwrap();
        let resolved = both(&["2001:db8::1", "2001:db8::2", "192.0.2.1"]);
        assert_eq!(resolved, Resolved { doors: addresses(&["192.0.2.1", "2001:db8::1"]), missing: None });
        assert_eq!(both(&["192.0.2.1"]).missing, Some(Family::V6));
        assert_eq!(both(&["2001:db8::1"]).missing, Some(Family::V4));
        assert!(matches!(choose_both("gate", &[]), Err(ResolveError::Nothing { .. })));
    }

    #[test]
    fn no_address_at_all() {
        assert!(matches!(choose("gate", Some(Family::V4), &[]), Err(ResolveError::Nothing { .. })));
        assert!(matches!(choose("gate", None, &[]), Err(ResolveError::Nothing { .. })));
    }
}
