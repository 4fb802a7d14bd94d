//! Which sides of the filter a router's interfaces are.
//!
//! A filter has two sides, a router any number of interfaces with names of its own. The configuration says which names
//! mean a side. A name that it does not say is no side and not "no interface" either: a rule about it must be refused,
//! because an accept with `!` before it would match everything, and a drop without it nothing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::packet::Side;
use crate::rule::{InterfaceKind, InterfaceList};
use crate::word::Set;

/// Names of interfaces, ports of bridges or interface lists that mean a side of the filter. A name may mean both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Interfaces {
    /// Those that mean the outside.
    pub outside: Vec<String>,
    /// Those that mean the inside.
    pub inside: Vec<String>,
}

impl Default for Interfaces {
    /// The sides by their own names.
    fn default() -> Self {
        Interfaces { outside: vec!["outside".to_owned()], inside: vec!["inside".to_owned()] }
    }
}

impl Interfaces {
    /// The sides that an interface matcher means, perhaps neither or both; none if the configuration does not say.
    ///
    /// A list means what its interfaces mean. Those that mean no side are taken for interfaces on which nothing arrives
    /// here, as long as one of the list means a side. A list that the configuration names is not looked into, one that
    /// neither knows means nothing. Of RouterOS's own lists, `all` and `static` are both sides, `none` and `dynamic`
    /// neither.
    pub fn sides(&self, kind: InterfaceKind, name: &str, lists: &[InterfaceList]) -> Option<Set<Side>> {
        match kind {
            InterfaceKind::Interface | InterfaceKind::BridgePort => self.named(name),
            InterfaceKind::List | InterfaceKind::BridgePortList => {
                let contents = self.contents(name, lists, &mut Known { lists: HashMap::new(), depth: 0 })?;
                (!contents.is_unknown()).then_some(contents.sides)
            }
        }
    }

    /// The sides that the name itself means, if it means any.
    fn named(&self, name: &str) -> Option<Set<Side>> {
        let names = |side| match side {
            Side::Outside => &self.outside,
            Side::Inside => &self.inside,
        };
        let means = |side: &Side| names(*side).iter().any(|known| known == name);
        let sides: Set<Side> = Side::ALL.into_iter().filter(means).collect();
        (!sides.is_empty()).then_some(sides)
    }

    /// What is in a list, in RouterOS's order: included lists, without the excluded ones, and the list's own members.
    /// None if what is excluded is not known: the rest would be too much.
    fn contents<'l>(&self, name: &'l str, lists: &'l [InterfaceList], known: &mut Known<'l>) -> Option<Contents> {
        let contents = |sides, others| Some(Contents { sides, others });
        if let Some(sides) = self.named(name) {
            return contents(sides, false);
        }
        let list = match name {
            "all" | "static" => return contents(Side::ALL.into_iter().collect(), true),
            "none" | "dynamic" => return contents(Set::EMPTY, false),
            _ if known.lists.contains_key(name) => return Some(known.lists[name]),
            _ if known.depth == MAX_DEPTH => return None,
            _ => lists.iter().find(|list| list.name == name),
        };
        let Some(list) = list else { return contents(Set::EMPTY, true) };
        let mut found = Contents { sides: Set::EMPTY, others: false };
        // A list adds nothing to itself.
        known.lists.insert(name, found);
        known.depth += 1;
        for included in &list.include {
            let included = self.contents(included, lists, known)?;
            found.sides = found.sides.iter().chain(included.sides.iter()).collect();
            found.others |= included.others;
        }
        for excluded in &list.exclude {
            let excluded = self.contents(excluded, lists, known)?;
            if excluded.is_unknown() {
                return None;
            }
            found.sides = found.sides.iter().filter(|side| !excluded.sides.contains(*side)).collect();
        }
        for member in list.members.iter().filter(|member| !member.disabled) {
            match self.named(&member.interface) {
                Some(sides) => found.sides = found.sides.iter().chain(sides.iter()).collect(),
                None => found.others = true,
            }
        }
        known.depth -= 1;
        known.lists.insert(name, found);
        Some(found)
    }
}

/// How deep lists may include one another.
const MAX_DEPTH: usize = 32;

/// What was found out on the way: each list is looked into once.
struct Known<'l> {
    lists: HashMap<&'l str, Contents>,
    depth: usize,
}

/// What was found in a list.
#[derive(Clone, Copy)]
struct Contents {
    /// The sides that its interfaces mean.
    sides: Set<Side>,
    /// There are interfaces in it that mean none.
    others: bool,
}

impl Contents {
    /// There is something in it, and nothing of it means a side.
    fn is_unknown(&self) -> bool {
        self.sides.is_empty() && self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::InterfaceMember;

    fn list(name: &str, include: &[&str], exclude: &[&str], members: &[&str]) -> InterfaceList {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        InterfaceList {
            name: name.to_owned(),
            include: owned(include),
            exclude: owned(exclude),
            members: owned(members).into_iter().map(InterfaceMember::from).collect(),
            comment: String::new(),
        }
    }

    /// `ether1` and `ether3` and the list `VPN` are outside, `bridge` inside.
    fn interfaces() -> Interfaces {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Interfaces { outside: owned(&["ether1", "ether3", "VPN"]), inside: owned(&["bridge"]) }
    }

    fn sides(of: Option<Set<Side>>) -> Option<Vec<Side>> {
        of.map(|sides| sides.iter().collect())
    }

    #[test]
    fn an_interface_means_the_side_it_is_given_to_and_no_other_name_does() {
        let of =
            |name| sides(interfaces().sides(InterfaceKind::Interface, name, &[list("ether9", &[], &[], &["ether1"])]));
        assert_eq!(of("ether1"), Some(vec![Side::Outside]));
        assert_eq!(of("bridge"), Some(vec![Side::Inside]));
        assert_eq!((of("ether9"), of("all"), of("")), (None, None, None));
        let both = Interfaces { outside: vec!["x".to_owned()], inside: vec!["x".to_owned()] };
        assert_eq!(sides(both.sides(InterfaceKind::BridgePort, "x", &[])), Some(Side::ALL.to_vec()));
    }

    #[test]
    fn a_list_means_what_its_interfaces_mean() {
        let lists = [
            list("WAN", &[], &[], &["ether1", "pppoe-out1"]),
            list("LAN", &[], &[], &["bridge"]),
            list("guests", &[], &[], &["wlan2"]),
            list("empty", &[], &[], &[]),
            list("both", &["WAN", "LAN", "guests"], &[], &[]),
            list("not LAN", &["all"], &["LAN"], &[]),
            list("not WAN", &["all"], &["WAN"], &[]),
            list("not guests", &["all"], &["guests"], &[]),
            list("not LAN but bridge", &["all"], &["LAN"], &["bridge"]),
            list("nothing", &["WAN"], &["WAN"], &[]),
            list("circle", &["other circle"], &[], &["bridge"]),
            list("other circle", &["circle"], &[], &["ether1"]),
            list("behind VPN", &["VPN"], &[], &[]),
        ];
        let of = |name| sides(interfaces().sides(InterfaceKind::List, name, &lists));
        let (outside, inside) = (Some(vec![Side::Outside]), Some(vec![Side::Inside]));
        let (both, neither) = (Some(Side::ALL.to_vec()), Some(vec![]));
        let cases = [
            ("WAN", &outside),
            ("LAN", &inside),
            ("guests", &None),
            ("empty", &neither),
            ("unheard of", &None),
            ("both", &both),
            ("not LAN", &outside),
            // As `!WAN`: a packet is on a side, and no longer on one of several interfaces.
            ("not WAN", &inside),
            ("not guests", &None),
            ("not LAN but bridge", &both),
            ("circle", &both),
            ("VPN", &outside),
            ("behind VPN", &outside),
            ("all", &both),
            ("static", &both),
            ("none", &neither),
            ("dynamic", &neither),
        ];
        for (name, expected) in cases {
            assert_eq!(of(name), *expected, "{name}");
        }
        // Only what means no side is left of it.
        assert_eq!(of("nothing"), None);
    }
    #[test]
    fn lists_are_looked_into_once_and_not_too_deep() {
        let nested = |depth: usize| -> Vec<InterfaceList> {
            let name = |level: usize| format!("list {level}");
            let mut lists: Vec<_> =
                (0..depth).map(|level| list(&name(level), &[&name(level + 1), &name(level + 1)], &[], &[])).collect();
            lists.push(list(&name(depth), &[], &[], &["bridge"]));
            lists
        };
        let of = |depth| sides(interfaces().sides(InterfaceKind::List, "list 0", &nested(depth)));
        assert_eq!((of(MAX_DEPTH - 1), of(MAX_DEPTH), of(10_000)), (Some(vec![Side::Inside]), None, None));
    }
}
