//! Commands of unsupported menus, and commands in the wrong menu.
//!
//! Other menus of RouterOS are skipped and counted. A rule, pattern or list entry must not be lost in the skip: a
//! command that looks like one of them is reported with the menu that it needs.

use std::ops::Range;

use super::super::SkippedMenu;
use super::super::lexer::{Command, Word};
use super::super::menu::known::{self, Standing};
use super::super::menu::{Invocation, Menu, Place};
use super::super::problem::{Complaint, show};
use super::{PRINTED, Reader, expected_verb, is_script};
use crate::packet::Family;
use crate::rule::Table;

/// Maximum number of skipped menus with their names. RouterOS has some hundreds.
const MOST_SKIPPED: usize = 1_000;

impl Reader<'_> {
    /// The error about an `add` that belongs in another menu. There is one error for the command, not one for each
    /// property.
    pub(super) fn misplaced(&mut self, menu: Menu, words: &[Word]) -> Option<Complaint> {
        let given = || words.iter().filter(|word| word.value.is_some());
        if given().all(|word| self.menu(menu).knows(&word.name) || word.name.bytes == b"place-before") {
            return None;
        }
        let is_rule = !matches!(menu, Menu::Rules(..)) && given().any(|word| is_of_rules(&word.name.bytes));
        let meant = if is_rule {
            menu_of_rule(menu, words)
        } else {
            let same_family =
                |other: &Menu| menu.family().is_none_or(|family| other.family().is_none_or(|of| of == family));
            let (near, far): (Vec<Menu>, Vec<Menu>) = Menu::all().filter(|other| *other != menu).partition(same_family);
            let mut others = near.into_iter().chain(far);
            others.find(|other| given().all(|word| self.menu(*other).knows(&word.name)))?
        };
        let what = if matches!(meant, Menu::Rules(..)) { "this is a rule" } else { "this belongs in another menu" };
        let complaint = Complaint::new(format!("{what}; the current menu is `{}`", menu.path()));
        Some(
            complaint
                .expected(format!("properties of `{}`", menu.path()))
                .help(format!("put `{}` before it", meant.path())),
        )
    }

    /// Handles a command of no supported menu.
    pub(super) fn other(&mut self, command: &Command, invocation: Invocation) {
        let words = command.words.get(invocation.arguments..).unwrap_or_default();
        match (invocation.place, invocation.verb) {
            (_, None) if words.first().is_some_and(is_script) => {
                self.refuse_script(&words[0]);
            }
            // Both forms may change the supported menus in any way.
            (Place::Other(_), Some((verb, _))) if verb == "do" && words.first().is_some_and(is_script) => {
                self.refuse_script(&words[0]);
            }
            (Place::Root, Some((verb, at))) if verb == "import" && invocation.path_given => {
                let complaint = Complaint::new("importing other files is not supported")
                    .expected("the commands of that file")
                    .help("add them to this file, or leave the line out if none of them is about rules");
                self.problems.add(at, complaint);
            }
            (Place::Understood(menu), _) => self.no_verb(menu, command, words),
            (Place::Other(path), verb) => self.pass_over(path, verb, command),
            (Place::Root, Some((_, at))) if invocation.path_given && is_firewalls(&command.words) => {
                let complaint = Complaint::new("the root menu has no rules and no lists")
                    .expected("a command of a menu such as `/ip firewall filter`")
                    .help("leave out the `/`, or write the menu in full before the command");
                self.problems.add(at, complaint);
            }
            (Place::Root, _) if invocation.path_given => self.skip("/".to_owned()),
            (Place::Root, verb) => {
                let span = verb.map_or_else(|| command.words[0].span.clone(), |(_, span)| span);
                let complaint = Complaint::new("a command before any menu")
                    .expected("a menu line such as `/ip firewall filter`")
                    .help("put the menu on the line before it");
                self.problems.add(span, complaint);
            }
        }
    }

    /// Handles a line of a supported menu that does not begin with a command.
    fn no_verb(&mut self, menu: Menu, command: &Command, words: &[Word]) {
        let Some(word) = words.first() else { return };
        let name = &word.name.bytes;
        let complaint = Complaint::new(format!("`{}` stands where a command is expected", show(name)))
            .expected(expected_verb(menu))
            .help(if name == b"Flags:" {
                PRINTED
            } else if word.value.is_some() || command.hangs {
                "if it continues the line above, end that line with `\\`"
            } else {
                "write each rule as a line that begins with `add`"
            });
        self.problems.add(word.span.clone(), complaint);
    }

    /// Skips a command of an unsupported menu, unless it looks like a rule: a lost rule may be a rule that drops
    /// packets.
    fn pass_over(&mut self, path: String, verb: Option<(String, Range<usize>)>, command: &Command) {
        let span = verb.map_or_else(|| command.words[0].span.clone(), |(_, span)| span);
        let standing = known::standing(&path);
        let words = &command.words;
        let has_chain = words.iter().any(|word| word.value.is_some() && word.name.bytes == b"chain");
        let is_lost =
            if standing == Standing::Menu { has_chain && !known::has_chains(&path) } else { is_firewalls(words) };
        if is_lost {
            let what = match standing {
                Standing::Menu => format!("this is a rule; the current menu is `{}`", show(path.as_bytes())),
                Standing::Directory => format!("`{}` has no such command", show(path.as_bytes())),
                Standing::Unknown => format!("RouterOS has no menu `{}`", show(path.as_bytes())),
            };
            let meant = known::meant(&path).filter(|_| standing == Standing::Unknown);
            let meant = meant.map(|meant| format!("/{meant}")).filter(|meant| may_have(meant));
            let help = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "put the menu before it, for rules `/ip firewall filter`".to_owned(),
            };
            self.problems.add(span, Complaint::new(what).expected("a menu that has such commands").help(help));
            return;
        }
        if standing == Standing::Unknown && !self.skipped_at.contains_key(&path) && self.skipped.len() < MOST_SKIPPED {
            let complaint = Complaint::new(format!("RouterOS menu `{}` is not known", show(path.as_bytes())))
                .expected("a menu of RouterOS")
                .help(match known::meant(&path) {
                    Some(meant) => format!("did you mean `/{meant}`? its commands were skipped"),
                    None => "its commands were skipped".to_owned(),
                });
            self.warnings.add(span, complaint);
        }
        self.skip(path);
    }

    fn skip(&mut self, menu: String) {
        let fits = self.skipped.len() < MOST_SKIPPED || self.skipped_at.contains_key(&menu);
        let menu = if fits { menu } else { "…".to_owned() };
        let at = *self.skipped_at.entry(menu).or_insert_with_key(|menu| {
            self.skipped.push(SkippedMenu { menu: menu.clone(), commands: 0 });
            self.skipped.len() - 1
        });
        self.skipped[at].commands = self.skipped[at].commands.saturating_add(1);
    }
}

/// Properties that only rules of the supported firewall menus have.
fn is_of_rules(name: &[u8]) -> bool {
    matches!(name, b"chain" | b"action" | b"jump-target")
}

/// Whether an operator may have intended this menu for rules or list entries.
fn may_have(path: &str) -> bool {
    Menu::all().any(|menu| menu.path() == path) || ["nat", "mangle"].iter().any(|name| path.ends_with(name))
}

/// Whether a command looks like one of the firewall's menus.
fn is_firewalls(words: &[Word]) -> bool {
    let has = |name: &[u8]| words.iter().any(|word| word.value.is_some() && word.name.bytes == name);
    let is_entry = has(b"list") && (has(b"address") || has(b"interface"));
    let asks: [&[u8]; 5] = [b"address-list", b"src-address-list", b"dst-address-list", b"layer7-protocol", b"regexp"];
    is_entry
        || words.iter().any(|word| word.value.is_some() && is_of_rules(&word.name.bytes))
        || asks.into_iter().any(has)
}

/// The menu to which a rule in another menu belongs.
fn menu_of_rule(here: Menu, words: &[Word]) -> Menu {
    let value = |name: &[u8]| words.iter().find(|word| word.name.bytes == name).and_then(|word| word.value.as_ref());
    let is = |name: &[u8], wanted: &[u8]| value(name).is_some_and(|value| value.bytes == wanted);
    let is_raw = is(b"chain", b"prerouting") || is(b"action", b"notrack");
    let addresses: [&[u8]; 2] = [b"src-address", b"dst-address"];
    let is_ipv6 = addresses.into_iter().filter_map(value).any(|address| address.bytes.contains(&b':'));
    let family = here.family().unwrap_or(if is_ipv6 { Family::Ipv6 } else { Family::Ipv4 });
    Menu::Rules(if is_raw { Table::Raw } else { Table::Filter }, family)
}
