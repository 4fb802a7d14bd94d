//! The menus of RouterOS 6 and 7 with all packages: `known.txt`, one path per line, sorted.
//!
//! Any other menu is misspelt, or newer than this list. Sources: the command trees that RouterOS 7.10 to 7.24 print
//! (`/console inspect`), and the manual of version 6.

use std::sync::LazyLock;

use super::super::problem::nearest;

/// The kind of a path in RouterOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rsc) enum Standing {
    /// A menu with commands.
    Menu,
    /// A path without commands, but with menus below it.
    Directory,
    /// An unknown path.
    Unknown,
}

static MENUS: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("known.txt").lines().collect());

/// Unsupported menus whose commands have a `chain=`.
const WITH_CHAINS: &[&str] = &[
    "/interface bridge calea",
    "/interface bridge filter",
    "/interface bridge nat",
    "/ip firewall calea",
    "/ip firewall mangle",
    "/ip firewall nat",
    "/ipv6 firewall mangle",
    "/ipv6 firewall nat",
    "/mpls mangle",
    "/routing filter",
    "/routing filter rule",
    "/routing filter select-rule",
    "/routing rip keys",
    "/routing rule",
    "/tool calea",
];

/// The kind of a path such as `/ip firewall nat`.
pub(in crate::rsc) fn standing(path: &str) -> Standing {
    let name = path.trim_start_matches('/');
    let at = MENUS.partition_point(|menu| *menu < name);
    let below = |menu: &&&str| menu.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
    match MENUS.get(at) {
        Some(menu) if *menu == name => Standing::Menu,
        // In the sorted list, paths below this one follow it, except for names that continue with a `-`.
        _ if MENUS[at..].iter().take_while(|menu| menu.starts_with(name)).any(|menu| below(&menu)) => {
            Standing::Directory
        }
        _ => Standing::Unknown,
    }
}

/// Whether commands of this unsupported menu may have a `chain=`.
pub(in crate::rsc) fn has_chains(path: &str) -> bool {
    WITH_CHAINS.contains(&path)
}

/// The most similar menu, if there is one. Names of menus are lower case.
pub(in crate::rsc) fn meant(path: &str) -> Option<&'static str> {
    let name = path.trim_start_matches('/').to_lowercase();
    nearest(&name, MENUS.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn menus_are_in_order_and_those_that_are_read_are_among_them() {
        assert!(MENUS.is_sorted() && MENUS.len() > 700);
        let read = super::super::paths().chain(WITH_CHAINS.iter().copied());
        for path in read {
            assert_eq!(standing(path), Standing::Menu, "{path}");
        }
    }

    #[test]
    fn paths_are_menus_or_lead_to_some_or_are_unknown() {
        for path in ["/ip route", "/interface bridge port", "/queue simple", "/system script", "/routing bgp peer"] {
            assert_eq!(standing(path), Standing::Menu, "{path}");
        }
        for path in ["/ip firewall", "/ip", "/ipv6 firewall", "/routing", "/ipv6"] {
            assert_eq!(standing(path), Standing::Directory, "{path}");
        }
        for path in ["/ip firewal", "/IP route", "/ip firewall rule", "/ip rout", "/i", "/frobnicate", "/ip route x"] {
            assert_eq!(standing(path), Standing::Unknown, "{path}");
        }
        assert_eq!(meant("/IP Route"), Some("ip route"));
        assert_eq!(meant("/interface brigde port"), Some("interface bridge port"));
    }
}
