//! Maps a router's interfaces to the sides of the filter.
//!
//! A filter has two sides. A router has any number of named interfaces. The configuration assigns names to a side, or
//! to the interfaces without packets of this filter. A rule with any other name must be refused: an accept with the
//! negated name would match every packet, and a drop with the name would match none.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::packet::Side;
use crate::rule::{Condition, InterfaceKind, InterfaceList, Matcher};
use crate::word::Set;

/// Names of interfaces, bridge ports or interface lists, and their sides. A name may mean both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Interfaces {
    /// Names that mean the outside.
    pub outside: Vec<String>,
    /// Names that mean the inside.
    pub inside: Vec<String>,
    /// Names that mean neither side, such as tunnels that end at the router. A matcher with such a name is false for
    /// every packet, and true for every packet if it is negated.
    pub elsewhere: Vec<String>,
}

/// [`Interfaces`] as configured, before the check for names in two places.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    outside: Vec<String>,
    inside: Vec<String>,
    elsewhere: Vec<String>,
}

impl Default for Written {
    fn default() -> Self {
        let Interfaces { outside, inside, elsewhere } = Interfaces::default();
        Written { outside, inside, elsewhere }
    }
}

impl TryFrom<Written> for Interfaces {
    type Error = String;

    fn try_from(Written { outside, inside, elsewhere }: Written) -> Result<Self, String> {
        for (key, side) in [("outside", &outside), ("inside", &inside)] {
            if let Some(name) = elsewhere.iter().find(|name| side.contains(name)) {
                return Err(format!(
                    "`{name}` is in `elsewhere` and in `{key}` of [policy.interfaces]: `elsewhere` is for names that mean \
                     neither side; remove it from one of the two"
                ));
            }
        }
        Ok(Interfaces { outside, inside, elsewhere })
    }
}

impl Default for Interfaces {
    /// The names `outside` and `inside` mean their sides.
    fn default() -> Self {
        Interfaces { outside: vec!["outside".to_owned()], inside: vec!["inside".to_owned()], elsewhere: Vec::new() }
    }
}

impl Interfaces {
    /// The sides of an interface matcher, which may be none or both; `None` if the configuration does not contain them.
    ///
    /// A list means the sides of its interfaces. Its interfaces without a side count as interfaces without packets, if
    /// at least one interface of the list means a side. A list that the configuration names is not expanded. A list
    /// that neither the configuration nor the rules name has no meaning. RouterOS's predefined lists and groups of
    /// interfaces are known, see [`own_list`] and [`own_group`].
    pub fn sides(&self, kind: InterfaceKind, name: &str, lists: &[InterfaceList]) -> Option<Set<Side>> {
        match kind {
            InterfaceKind::Interface | InterfaceKind::BridgePort => self.named(name).or_else(|| own_group(name)),
            InterfaceKind::List | InterfaceKind::BridgePortList => {
                let contents = self.contents(name, lists, &mut Known { lists: HashMap::new(), depth: 0 })?;
                (!contents.is_unknown()).then_some(contents.sides)
            }
        }
    }

    /// Whether a rule with this matcher must be refused, because the side of its interface is not configured.
    /// `!all-vlan` is refused as well, unless the configuration names `all-vlan`: tagged frames pass through the
    /// filter, and rules cannot distinguish them, so the matcher would match more packets than on the router.
    pub fn leave_open(&self, matcher: &Matcher, lists: &[InterfaceList]) -> bool {
        let Condition::Interface { kind, name, .. } = &matcher.condition else { return false };
        let all_but_vlans = matcher.negated && name == ALL_VLAN && self.named(name).is_none();
        all_but_vlans || self.sides(*kind, name, lists).is_none()
    }

    /// Whether the matcher names an interface that is not a side of the filter, or a list without any interface that
    /// is. Empty lists do not count.
    pub fn is_elsewhere(&self, matcher: &Matcher, lists: &[InterfaceList]) -> bool {
        let Condition::Interface { kind, name, .. } = &matcher.condition else { return false };
        let has_interfaces = || match kind {
            InterfaceKind::Interface | InterfaceKind::BridgePort => true,
            InterfaceKind::List | InterfaceKind::BridgePortList => {
                let is_filled = |list: &InterfaceList| !list.members.is_empty() || !list.include.is_empty();
                self.named(name).is_some()
                    || own_group(name).is_some()
                    || lists.iter().any(|list| list.name == *name && is_filled(list))
            }
        };
        self.sides(*kind, name, lists) == Some(Set::EMPTY) && has_interfaces()
    }

    /// The sides that the configuration assigns to the name; empty for `elsewhere`, `None` if it does not contain the
    /// name.
    fn named(&self, name: &str) -> Option<Set<Side>> {
        let is_in = |names: &[String]| names.iter().any(|known| known == name);
        let means = |side: &Side| match side {
            Side::Outside => is_in(&self.outside),
            Side::Inside => is_in(&self.inside),
        };
        let sides: Set<Side> = Side::ALL.into_iter().filter(means).collect();
        (!sides.is_empty() || is_in(&self.elsewhere)).then_some(sides)
    }

    /// The interfaces of a list, in RouterOS's order: those of included lists, without those of excluded lists, and the
    /// list's own members. `None` if an excluded list is not known, because the result would have too many interfaces.
    fn contents<'l>(&self, name: &'l str, lists: &'l [InterfaceList], known: &mut Known<'l>) -> Option<Contents> {
        let contents = |sides, others| Some(Contents { sides, others });
        if let Some(sides) = self.named(name) {
            return contents(sides, false);
        }
        if let Some(own) = own_list(name) {
            return Some(own);
        }
        let list = match name {
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

/// All interfaces with their own VLAN tag.
const ALL_VLAN: &str = "all-vlan";

/// The sides of RouterOS's predefined interface groups, which a rule may name in place of an interface. Both sides are
/// Ethernet, with and without tags. The filter has no other interface. Source: RouterOS manual, Filter.
fn own_group(name: &str) -> Option<Set<Side>> {
    match name {
        "all-ethernet" => Some(Side::ALL.into_iter().collect()),
        "all-ppp" | ALL_VLAN | "all-wireless" => Some(Set::EMPTY),
        _ => None,
    }
}

/// The interfaces of RouterOS's predefined lists: all interfaces, none, those that RouterOS created (for clients of a
/// PPP server), and the others. Source: RouterOS manual, Interface lists.
fn own_list(name: &str) -> Option<Contents> {
    match name {
        "all" | "static" => Some(Contents { sides: Side::ALL.into_iter().collect(), others: true }),
        "none" | "dynamic" => Some(Contents { sides: Set::EMPTY, others: false }),
        _ => own_group(name).map(|sides| Contents { sides, others: !sides.is_empty() }),
    }
}

/// Maximum depth of lists that include one another.
const MAX_DEPTH: usize = 32;

/// Results so far: each list is expanded once.
struct Known<'l> {
    lists: HashMap<&'l str, Contents>,
    depth: usize,
}

/// The contents of a list.
#[derive(Clone, Copy)]
struct Contents {
    /// The sides of the list's interfaces.
    sides: Set<Side>,
    /// Whether the list has interfaces without a side.
    others: bool,
}

impl Contents {
    /// Whether the list has interfaces, and none of them has a side.
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

    /// `ether1` and `ether3` and the list `VPN` are outside, `bridge` inside, `wg0` and the list `tunnels` elsewhere.
    fn interfaces() -> Interfaces {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (outside, inside) = (owned(&["ether1", "ether3", "VPN"]), owned(&["bridge"]));
        Interfaces { outside, inside, elsewhere: owned(&["wg0", "tunnels"]) }
    }

    fn sides(of: Option<Set<Side>>) -> Option<Vec<Side>> {
        of.map(|sides| sides.iter().collect())
    }

    #[test]
    fn only_configured_names_mean_a_side() {
        let of =
            |name| sides(interfaces().sides(InterfaceKind::Interface, name, &[list("ether9", &[], &[], &["ether1"])]));
        assert_eq!(of("ether1"), Some(vec![Side::Outside]));
        assert_eq!(of("bridge"), Some(vec![Side::Inside]));
        assert_eq!((of("ether9"), of("all"), of("")), (None, None, None));
        assert_eq!((of("wg0"), of("all-ppp"), of("all-wireless")), (Some(vec![]), Some(vec![]), Some(vec![])));
        assert_eq!((of("all-ethernet"), of("all-vlan")), (Some(Side::ALL.to_vec()), Some(vec![])));
        let both = Interfaces { outside: vec!["x".to_owned()], inside: vec!["x".to_owned()], ..Interfaces::default() };
        assert_eq!(sides(both.sides(InterfaceKind::BridgePort, "x", &[])), Some(Side::ALL.to_vec()));
    }

    #[test]
    fn a_list_means_the_sides_of_its_interfaces() {
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
            list("wireguard", &[], &[], &["wg0"]),
            list("wireguard and guests", &[], &[], &["wg0", "wlan2"]),
            list("not wireguard", &["all"], &["wireguard"], &[]),
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
            // As for `!WAN`, the matcher depends on the side, because the filter does not know the interface of a
            // packet.
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
            ("tunnels", &neither),
            ("wireguard", &neither),
            ("wireguard and guests", &None),
            ("not wireguard", &both),
            ("all-ethernet", &both),
            ("all-ppp", &neither),
        ];
        for (name, expected) in cases {
            assert_eq!(of(name), *expected, "{name}");
        }
        // Only interfaces without a side remain.
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn a_name_is_not_elsewhere_and_on_a_side() {
        let read = |json: &str| serde_json::from_str::<Interfaces>(json);
        assert_eq!(read(r#"{"elsewhere":["wg0"]}"#).unwrap().elsewhere, ["wg0"]);
        assert_eq!(read("{}").unwrap(), Interfaces::default());
        let error = read(r#"{"outside":["ether1","wg0"],"elsewhere":["lo","wg0"]}"#).unwrap_err().to_string();
        assert!(error.starts_with("`wg0` is in `elsewhere` and in `outside` of [policy.interfaces]: "), "{error}");
        assert!(read(r#"{"elsewhere":["inside"]}"#).is_err(), "the default names count");
        assert!(read(r#"{"elswhere":["wg0"]}"#).is_err());
    }

    #[test]
    fn unmapped_names_and_names_that_are_elsewhere() {
        let lists = [list("wireguard", &[], &[], &["wg0"]), list("empty", &[], &[], &[])];
        let matcher = |text: &str| {
            let (property, name) = text.split_once('=').unwrap();
            let kind = if property == "list" { InterfaceKind::List } else { InterfaceKind::Interface };
            let direction = crate::rule::Direction::In;
            let condition = Condition::Interface { direction, kind, name: name.trim_start_matches('!').to_owned() };
            Matcher { negated: name.starts_with('!'), condition }
        };
        for (text, open, elsewhere) in [
            ("interface=ether9", true, false),
            ("interface=!ether9", true, false),
            ("interface=ether1", false, false),
            ("interface=wg0", false, true),
            ("interface=!wg0", false, true),
            ("list=wireguard", false, true),
            ("list=empty", false, false),
            ("list=none", false, false),
            ("interface=all-ppp", false, true),
            ("interface=!all-ppp", false, true),
            ("interface=all-vlan", false, true),
            // Rules cannot distinguish tagged frames.
            ("interface=!all-vlan", true, true),
            ("interface=all-ethernet", false, false),
        ] {
            let matcher = matcher(text);
            assert_eq!(interfaces().leave_open(&matcher, &lists), open, "{text}");
            assert_eq!(interfaces().is_elsewhere(&matcher, &lists), elsewhere, "{text}");
        }
        let named = Interfaces { elsewhere: vec!["all-vlan".to_owned()], ..Interfaces::default() };
        assert!(!named.leave_open(&matcher("interface=!all-vlan"), &[]));
    }

    #[test]
    fn lists_are_expanded_once_and_to_a_limited_depth() {
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
