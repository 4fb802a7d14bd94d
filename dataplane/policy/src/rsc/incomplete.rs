//! Comments of an export about missing parts: a menu that could not be written, or an interrupted export.
//!
//! RouterOS 7.11 and later writes `#error exporting "/ip/firewall/filter" (timeout)` for an incomplete menu, and
//! `#interrupted` where the export ends early. They look like comments. A rule set with missing rules may accept more
//! than the router does, so a file is refused if its rules depend on the missing part.
//!
//! An export writes its menus in two passes, definitions first. The firewall is in the second pass, which visits the
//! top-level menus in alphabetical order: `/ip` and `/ipv6` before `/ppp`, `/queue`, `/routing`, `/system`, `/tool` and
//! `/user`.

use std::ops::Range;

use super::menu::{Menu, Place, menus_below};
use super::problem::{Complaint, Problems, show};
use crate::packet::Family;
use crate::rule::{Condition, InterfaceKind, RuleSet};

/// Maximum length of such a comment, in bytes.
const LONGEST: usize = 300;

/// A comment about a missing part.
#[derive(Debug)]
pub(super) struct Gap {
    span: Range<usize>,
    missing: Missing,
}

#[derive(Debug)]
enum Missing {
    /// A part of these menus is missing. The path is that of the comment.
    Menus(String, Vec<Menu>),
    /// Everything after this position is missing. `of_rules` states whether that can include menus that rules depend
    /// on.
    Rest { of_rules: bool },
}

/// Progress of an export.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether a menu of the second pass has occurred.
    second_pass: bool,
    /// Whether the last menu comes after `/ipv6`.
    behind: bool,
}

impl Progress {
    /// Records a line of this menu.
    pub(super) fn reach(&mut self, place: &Place) {
        match place {
            Place::Understood(menu) => {
                self.behind = false;
                self.second_pass |= !matches!(menu, Menu::InterfaceList | Menu::Layer7);
            }
            Place::Other(path) => self.behind = path.trim_start_matches('/') > "ipv6 ~",
            Place::Root => {}
        }
    }
}

/// Whether a comment, including its `#`, reports a missing part.
pub(super) fn is_mark(comment: &[u8]) -> bool {
    comment.len() <= LONGEST && text_of(comment).is_some_and(|text| is_interrupted(&text) || menu_of(&text).is_some())
}

fn text_of(comment: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(comment).ok()?;
    Some(text.trim_start_matches('#').trim().to_ascii_lowercase())
}

fn is_interrupted(text: &str) -> bool {
    text == "interrupted"
}

/// The text after `error exporting`.
fn menu_of(text: &str) -> Option<&str> {
    let named = text.strip_prefix("error exporting")?;
    (named.is_empty() || named.starts_with([' ', '\t', '"', '/'])).then(|| named.trim())
}

impl Gap {
    /// The missing part that a comment with [`is_mark`] names.
    pub(super) fn read(text: &[u8], span: Range<usize>, progress: &Progress) -> Option<Gap> {
        let text = text_of(text.get(span.clone())?)?;
        if is_interrupted(&text) {
            let of_rules = !(progress.second_pass && progress.behind);
            return Some(Gap { span, missing: Missing::Rest { of_rules } });
        }
        let named = menu_of(&text)?;
        let path = match named.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default(),
            None => named.split('(').next().unwrap_or_default(),
        };
        let segments: Vec<&str> = path.split(['/', ' ', '\t']).filter(|segment| !segment.is_empty()).collect();
        let menus = menus_below(&segments);
        Some(Gap { span, missing: Missing::Menus(format!("/{}", segments.join(" ")), menus) })
    }

    /// Reports the missing part: as a problem if the rules depend on it, otherwise as a warning.
    pub(super) fn tell(self, rules: &RuleSet, problems: &mut Problems, warnings: &mut Problems) {
        let (message, help, is_needed) = match self.missing {
            Missing::Menus(path, menus) => (
                format!("the router could not export all of `{}`", show(path.as_bytes())),
                "export it again; the file has only a part of this menu",
                menus.iter().any(|menu| depends(rules, *menu)),
            ),
            Missing::Rest { of_rules } => {
                ("the export was interrupted here: the rest is missing".to_owned(), "export it again", of_rules)
            }
        };
        let complaint = Complaint::new(message).expected("a whole export");
        if is_needed {
            problems.add(self.span, complaint.help(help));
        } else {
            let help = "no rule of this file depends on it";
            warnings.add(self.span, complaint.help(help));
        }
    }
}

/// Whether rules decide differently if a part of the menu is missing.
fn depends(rules: &RuleSet, menu: Menu) -> bool {
    let of_family = |family: Family, asks: fn(&Condition) -> bool| {
        let of = rules.rules.iter().filter(|rule| rule.family == family);
        of.flat_map(|rule| &rule.matchers).any(|matcher| asks(&matcher.condition))
    };
    let any = |asks: fn(&Condition) -> bool| of_family(Family::Ipv4, asks) || of_family(Family::Ipv6, asks);
    match menu {
        Menu::Rules(..) => true,
        Menu::Layer7 => any(|condition| matches!(condition, Condition::Layer7(_))),
        Menu::AddressList(family) => of_family(family, |condition| {
            matches!(condition, Condition::SrcAddressList(_) | Condition::DstAddressList(_))
        }),
        Menu::Tracking => !rules.rules.is_empty(),
        Menu::InterfaceList | Menu::InterfaceListMember => any(|condition| {
            matches!(condition, Condition::Interface { kind: InterfaceKind::List | InterfaceKind::BridgePortList, .. })
        }),
        Menu::LocalAddress(family) => of_family(family, |condition| {
            matches!(condition, Condition::SrcAddressType(_) | Condition::DstAddressType(_))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;

    /// The number of problems and warnings of a text.
    fn told(text: &str) -> (usize, usize) {
        let reading = read(text.as_bytes());
        (reading.problems.len(), reading.warnings.len())
    }

    const RULES: &str = "/ip firewall filter\nadd action=drop chain=input src-address-list=blocked\n";

    #[test]
    fn a_menu_that_rules_depend_on_must_be_complete() {
        for menu in [
            "\"/ip/firewall/filter\" (timeout)",
            "/ip/firewall/filter (timeout)",
            "\"/ip firewall filter\"",
            "ip firewall filter",
            "/ip/firewall/address-list",
            "\"/ip/firewall\"",
            "/ip",
            "\"/\"",
            "",
            "/ipv6/firewall/raw",
            "/ip/firewall/connection/tracking",
        ] {
            assert_eq!(told(&format!("{RULES}#error exporting {menu}\n")), (1, 0), "{menu}");
        }
        assert_eq!(told(&format!("#error exporting \"/ip/firewall/address-list\" (timeout)\r\n{RULES}")), (1, 0));
        assert_eq!(told(&format!("{RULES}# Error exporting \"/ip/firewall/raw\"")), (1, 0));
        let listed = "/ip firewall filter\nadd action=drop chain=input in-interface-list=all\n";
        assert_eq!(told(&format!("{listed}#error exporting \"/interface/list/member\"\n")), (1, 0));
        assert_eq!(told(&format!("{listed}#error exporting /ip/firewall/layer7-protocol\n")), (0, 1));
        let local = "/ip firewall filter\nadd action=drop chain=input dst-address-type=local\n";
        assert_eq!(told(&format!("{local}#error exporting /ip/address\n")), (1, 0));
        assert_eq!(told(&format!("{local}#error exporting /ipv6/address\n")), (0, 1));
    }

    #[test]
    fn other_menus_may_be_incomplete() {
        for menu in ["/ip/firewall/calea", "\"/interface/wifi\" (timeout)", "/ipv6/firewall/address-list", "/ip/route"]
        {
            assert_eq!(told(&format!("{RULES}#error exporting {menu}\n")), (0, 1), "{menu}");
        }
        for comment in ["#errors exporting are rare", "#interrupted by lunch", "# error: exporting", "#exporting /ip"] {
            assert_eq!(told(&format!("{comment}\n{RULES}")), (0, 0), "{comment}");
        }
        let in_a_string = format!("{RULES}add chain=input comment=\"#interrupted\"\n");
        assert_eq!(told(&in_a_string), (0, 0));
    }

    #[test]
    fn an_interrupted_export_may_lack_no_menu_of_rules() {
        assert_eq!(told(&format!("{RULES}#interrupted\n")), (1, 0));
        assert_eq!(told(&format!("{RULES}/ipv6 firewall filter\nadd chain=input\n#interrupted")), (1, 0));
        assert_eq!(told("/system logging action\nset 0 x=y\n#interrupted\n"), (1, 0));
        assert_eq!(told(&format!("{RULES}/ip route\nadd gateway=192.0.2.1\n# interrupted\n")), (1, 0));
        assert_eq!(told(&format!("{RULES}/ipv6 nd\nset 0 x=y\n#interrupted\n")), (1, 0));
        assert_eq!(told(&format!("{RULES}/system clock\nset x=y\n#interrupted\n")), (0, 1));
        assert_eq!(told(&format!("{RULES}/ppp secret add name=a\n#interrupted\n")), (0, 1));
        assert_eq!(told(&format!("{RULES}/system clock\nset x=y\n#interrupted\n/ip firewall raw\n")), (0, 1));
        assert_eq!(told("#interrupted\n"), (1, 0));
    }
}
