//! Finds the menu of a command.
//!
//! Owns the current menu and the forms of a path: `/ip firewall filter`, `/ip/firewall/filter`, each with or without
//! the command on the same line, `..`, and a path without a leading `/`. A line with only a path changes the current
//! menu; a path with a command does not.
//!
//! A list of verbs distinguishes commands from menus. Inside a supported menu, every word that is not the beginning of
//! a path is a verb. Other menus of RouterOS, which `known` lists, are skipped. A path that is similar to that of a
//! supported menu is an error, because a skip would lose its rules.

pub(super) mod known;

use std::ops::Range;

use self::known::Standing;
use super::lexer::Word;
use super::problem::{Complaint, distance, show};
use crate::packet::Family;
use crate::rule::Table;

/// The supported menus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Menu {
    /// `filter` or `raw`.
    Rules(Table, Family),
    /// `/ip firewall layer7-protocol`.
    Layer7,
    /// `/ip firewall address-list` or `/ipv6 firewall address-list`.
    AddressList(Family),
    /// `/ip firewall connection tracking`.
    Tracking,
    /// `/interface list`.
    InterfaceList,
    /// `/interface list member`.
    InterfaceListMember,
    /// `/ip address` or `/ipv6 address`.
    LocalAddress(Family),
}

/// The path of each menu, as segments and as in messages and exports.
const UNDERSTOOD: &[(&[&str], &str, Menu)] = &[
    (&["ip", "firewall", "filter"], "/ip firewall filter", Menu::Rules(Table::Filter, Family::Ipv4)),
    (&["ip", "firewall", "raw"], "/ip firewall raw", Menu::Rules(Table::Raw, Family::Ipv4)),
    (&["ip", "firewall", "address-list"], "/ip firewall address-list", Menu::AddressList(Family::Ipv4)),
    (&["ip", "firewall", "layer7-protocol"], "/ip firewall layer7-protocol", Menu::Layer7),
    (&["ip", "firewall", "connection", "tracking"], "/ip firewall connection tracking", Menu::Tracking),
    (&["ip", "address"], "/ip address", Menu::LocalAddress(Family::Ipv4)),
    (&["ipv6", "firewall", "filter"], "/ipv6 firewall filter", Menu::Rules(Table::Filter, Family::Ipv6)),
    (&["ipv6", "firewall", "raw"], "/ipv6 firewall raw", Menu::Rules(Table::Raw, Family::Ipv6)),
    (&["ipv6", "firewall", "address-list"], "/ipv6 firewall address-list", Menu::AddressList(Family::Ipv6)),
    (&["ipv6", "address"], "/ipv6 address", Menu::LocalAddress(Family::Ipv6)),
    (&["interface", "list"], "/interface list", Menu::InterfaceList),
    (&["interface", "list", "member"], "/interface list member", Menu::InterfaceListMember),
];

impl Menu {
    /// The path in messages and exports.
    pub(super) fn path(self) -> &'static str {
        UNDERSTOOD.iter().find(|(.., menu)| *menu == self).map_or("/", |(_, path, _)| path)
    }

    /// The family of the menu, if it has one.
    pub(super) const fn family(self) -> Option<Family> {
        match self {
            Menu::Rules(_, family) | Menu::AddressList(family) | Menu::LocalAddress(family) => Some(family),
            Menu::Layer7 | Menu::Tracking | Menu::InterfaceList | Menu::InterfaceListMember => None,
        }
    }

    /// All supported menus.
    pub(super) fn all() -> impl Iterator<Item = Menu> {
        UNDERSTOOD.iter().map(|(.., menu)| *menu)
    }
}

/// The menu with this path, and those below it.
pub(super) fn menus_below(path: &[&str]) -> Vec<Menu> {
    UNDERSTOOD.iter().filter(|(understood, ..)| understood.starts_with(path)).map(|(.., menu)| *menu).collect()
}

/// The paths of all supported menus.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    UNDERSTOOD.iter().map(|(_, path, _)| *path)
}

/// Words that are always commands. Source: RouterOS manual, Command Line Interface, and the menus of system, interface
/// and tool.
#[rustfmt::skip]
const VERBS: &[&str] = &[
    "add", "beep", "blink", "cancel", "check-for-updates", "clear", "comment", "connect", "copy", "delay", "disable",
    "disconnect", "do", "downgrade", "download", "edit", "enable", "error", "export", "fetch", "find", "flush", "get",
    "import", "info", "install", "load", "log", "make-static", "monitor", "monitor-traffic", "move", "password",
    "ping", "print", "put", "quit", "reboot", "recover", "redo", "release", "remove", "renew", "reset",
    "reset-configuration", "reset-counters", "reset-counters-all", "reset-mac-address", "resolve", "run", "save",
    "scan", "send", "set", "shutdown", "sign", "start", "stop", "test", "undo", "unset", "warning",
];

/// Menus at the root, for paths whose `/` was lost.
#[rustfmt::skip]
const ROOTS: &[&str] = &[
    "caps-man", "certificate", "container", "disk", "dude", "file", "interface", "iot", "ip", "ipv6", "lora", "mpls",
    "partitions", "port", "ppp", "queue", "radius", "routing", "snmp", "special-login", "system", "tool", "user",
    "user-manager", "zerotier",
];

/// Maximum depth of a menu. It bounds the work for a line.
const MAX_DEPTH: usize = 8;

/// A path as segments.
type Path = Vec<String>;

/// The menu of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A supported menu.
    Understood(Menu),
    /// Any other menu, by its path.
    Other(String),
    /// The root, which has no commands of interest.
    Root,
}

/// The kind of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The line changed the current menu.
    Enter,
    /// A command.
    Command(Invocation),
    /// The path of the line is wrong.
    Wrong(Range<usize>, Complaint),
}

/// A command in a menu.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    pub(super) place: Place,
    /// Whether the path of the menu is on the same line.
    pub(super) path_given: bool,
    /// Its verb and position; `None` if the line begins with another word.
    pub(super) verb: Option<(String, Range<usize>)>,
    /// Index of the first word after the verb.
    pub(super) arguments: usize,
}

/// The current menu.
#[derive(Debug, Default)]
pub(super) struct Menus {
    current: Path,
    /// Whether the last command had the path of another supported menu. The menu of a command without a path is then
    /// ambiguous.
    astray: bool,
    /// The last menu that was found in RouterOS's list, as a cache: files have many commands of the same menu.
    well_spelt: String,
}

impl Menus {
    /// Classifies a line and changes the current menu accordingly.
    pub(super) fn follow(&mut self, words: &[Word]) -> Line {
        let found = match self.locate(words) {
            Ok(found) => found,
            Err((span, complaint)) => return Line::Wrong(span, complaint),
        };
        let place = place_of(&found.path);
        let enters = found.verb.is_none() && found.arguments == words.len();
        if let Some((meant, complaint)) = self.misspelt(&found.path, &place) {
            if enters {
                // The intended menu becomes the current one, so that errors in its rules are reported in the same run.
                self.current = meant;
                self.astray = false;
            }
            return Line::Wrong(found.span, complaint);
        }
        if enters {
            self.current = found.path;
            self.astray = false;
            return Line::Enter;
        }
        if found.path_given {
            self.astray |= found.path != self.current && matches!(place, Place::Understood(_));
        } else if self.astray {
            let complaint = Complaint::new("it is not clear which menu this belongs to")
                .expected("a menu line first")
                .help("a path with a command on its line does not change the menu: repeat it here");
            return Line::Wrong(found.verb.map_or(found.span, |(_, span)| span), complaint);
        }
        Line::Command(Invocation { place, path_given: found.path_given, verb: found.verb, arguments: found.arguments })
    }

    /// The menu of commands without a path.
    pub(super) fn place(&self) -> Place {
        place_of(&self.current)
    }

    /// The error about a path that is similar to that of a supported menu, and the intended path.
    fn misspelt(&mut self, path: &[String], place: &Place) -> Option<(Path, Complaint)> {
        let Place::Other(written) = place else { return None };
        if *written == self.well_spelt {
            return None;
        }
        // Compares the path in lower case as well, because capitals alone do not make it similar.
        let is_known =
            matches!(place_of_lower(path), Place::Other(lower) if known::standing(&lower) != Standing::Unknown);
        let found = if is_known { None } else { nearly_understood(path, written) };
        if found.is_none() {
            self.well_spelt.clone_from(written);
        }
        found
    }

    /// Whether a line with this beginning is a command of a supported menu.
    pub(super) fn understands(&self, words: &[Word]) -> bool {
        !super::script::begins(words)
            && self.locate(words).is_ok_and(|found| matches!(place_of(&found.path), Place::Understood(_)))
    }

    /// Splits the line into path, verb and the rest.
    fn locate(&self, words: &[Word]) -> Result<Located, (Range<usize>, Complaint)> {
        let start = words.first().map_or(0, |word| word.span.start);
        let mut found = Located {
            path: self.current.clone(),
            path_given: false,
            verb: None,
            span: start..words.first().map_or(0, |word| word.span.end),
            arguments: 0,
        };
        let mut last_segment = None;
        for (index, word) in words.iter().enumerate().take(2 * MAX_DEPTH) {
            let Some(text) = path_text(word) else { break };
            let is_first = index == 0;
            if is_first && (text.starts_with('/') || ROOTS.contains(&text.split('/').next().unwrap_or_default())) {
                found.path.clear();
                found.path_given = true;
            }
            let mut at = 0;
            for segment in text.split('/') {
                let part = word.name.part(at..at + segment.len());
                at += segment.len() + 1;
                let is_leaf = is_understood(&found.path) && !leads_on(&found.path, segment);
                match segment {
                    "" => {}
                    _ if found.verb.is_some() => {
                        return Err((part, Complaint::new("a path continues after a command").expected("a blank")));
                    }
                    ".." => {
                        found.path.pop();
                        found.path_given = true;
                    }
                    _ if is_leaf || VERBS.contains(&segment) => found.verb = Some((segment.to_owned(), part)),
                    _ if found.path.len() == MAX_DEPTH => {
                        return Err((part, Complaint::new("no menu is nested this deep")));
                    }
                    _ => {
                        found.path.push(segment.to_owned());
                        found.path_given = true;
                        last_segment = Some((segment.to_owned(), part));
                    }
                }
            }
            found.span = start..word.span.end;
            found.arguments = index + 1;
            if found.verb.is_some() {
                return Ok(found);
            }
        }
        // A command that is not among the verbs is recognized by its arguments.
        if found.arguments < words.len() && words[found.arguments].value.is_some() && last_segment.is_some() {
            found.path.pop();
            found.verb = last_segment;
        }
        Ok(found)
    }
}

struct Located {
    path: Path,
    path_given: bool,
    verb: Option<(String, Range<usize>)>,
    /// The path.
    span: Range<usize>,
    arguments: usize,
}

/// The text of a word that can be part of a path.
fn path_text(word: &Word) -> Option<&str> {
    let of_path = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.');
    let bytes = &word.name.bytes;
    let is_path = word.value.is_none() && !word.flawed && bytes.len() <= 200 && bytes.iter().all(of_path);
    is_path.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

fn place_of(path: &[String]) -> Place {
    match UNDERSTOOD.iter().find(|(understood, ..)| path == *understood) {
        Some((.., menu)) => Place::Understood(*menu),
        None if path.is_empty() => Place::Root,
        None => Place::Other(format!("/{}", path.join(" "))),
    }
}

/// The menu of a path that may contain capitals.
fn place_of_lower(path: &[String]) -> Place {
    place_of(&path.iter().map(|segment| segment.to_ascii_lowercase()).collect::<Path>())
}

fn is_understood(path: &[String]) -> bool {
    UNDERSTOOD.iter().any(|(understood, ..)| path == *understood)
}

/// Whether a supported menu is below this segment.
fn leads_on(path: &[String], segment: &str) -> bool {
    let behind = |understood: &[&str]| understood.get(..path.len()).is_some_and(|begin| path == begin);
    UNDERSTOOD.iter().any(|(understood, ..)| behind(understood) && understood.get(path.len()) == Some(&segment))
}

/// Maximum number of wrong letters of a path that counts as similar.
const MOST_TYPOS: usize = 2;

/// The supported path that this path abbreviates or misspells.
fn nearly_understood(path: &[String], written: &str) -> Option<(Path, Complaint)> {
    let lower = written.to_ascii_lowercase();
    let nearness = |(understood, full, _): &(&[&str], &str, Menu)| {
        let mut pairs = understood.iter().zip(path);
        let abbreviated = path.len() == understood.len() && pairs.all(|(full, given)| full.starts_with(given.as_str()));
        match written.len().abs_diff(full.len()) {
            _ if abbreviated => 0,
            0..=MOST_TYPOS => distance(lower.as_bytes(), full.as_bytes(), MOST_TYPOS),
            apart => apart,
        }
    };
    let near = UNDERSTOOD.iter().map(|row| (nearness(row), row)).filter(|(distance, _)| *distance <= MOST_TYPOS);
    let meant = near.min_by_key(|(distance, _)| *distance).map(|(_, row)| row);
    meant.map(|(path, full, _)| {
        let complaint = Complaint::new(format!("no such menu: `{}`", show(written.as_bytes())))
            .expected("a menu in full")
            .help(format!("did you mean `{full}`?"));
        (path.iter().map(|segment| (*segment).to_owned()).collect(), complaint)
    })
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Lexer;
    use super::*;

    /// The result for each line: the menu entered, or the menu and verb of the command.
    fn follow(text: &str) -> Vec<String> {
        let mut menus = Menus::default();
        let mut lexer = Lexer::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(command) = lexer.next(|_| true) {
            lines.push(match menus.follow(&command.words) {
                Line::Enter => format!("> {}", menus.current.join(" ")),
                Line::Command(Invocation { place, verb, .. }) => {
                    let place = match place {
                        Place::Understood(menu) => menu.path().to_owned(),
                        Place::Other(path) => format!("({path})"),
                        Place::Root => "root".to_owned(),
                    };
                    format!("{place}: {}", verb.map_or_else(|| "-".to_owned(), |(verb, _)| verb))
                }
                Line::Wrong(span, _) => format!("wrong: {}", &text[span]),
            });
        }
        lines
    }

    #[test]
    fn every_form_of_a_path() {
        let text = "/ip firewall filter\nadd a=b\n/ip/firewall/filter\n/ip/firewall/filter/add a=b\n\
            /ip firewall/filter add a=b\nip firewall filter\n.. nat\nset 0 a=b\n..\nfilter\nadd\n/\nadd\n\
            /ip firewall nat\n../filter\n/interface bridge add name=x\nadd a=b\n/interface list\nmember\nadd\n";
        assert_eq!(
            follow(text),
            [
                "> ip firewall filter",
                "/ip firewall filter: add",
                "> ip firewall filter",
                "/ip firewall filter: add",
                "/ip firewall filter: add",
                "> ip firewall filter",
                "> ip firewall nat",
                "(/ip firewall nat): set",
                "> ip firewall",
                "> ip firewall filter",
                "/ip firewall filter: add",
                "> ",
                "root: add",
                "> ip firewall nat",
                "> ip firewall filter",
                "(/interface bridge): add",
                "/ip firewall filter: add",
                "> interface list",
                "> interface list member",
                "/interface list member: add",
            ]
        );
    }

    #[test]
    fn in_a_supported_menu_every_word_is_a_command() {
        let text = "/ip firewall filter\nad chain=x\nfrobnicate\n!x\n";
        assert_eq!(
            follow(text)[1..],
            ["/ip firewall filter: ad", "/ip firewall filter: frobnicate", "/ip firewall filter: -"]
        );
    }

    #[test]
    fn commands_of_other_menus_do_not_become_menus() {
        let text = "/ip route\n/tool frobnicate a=b\nadd a=b\n/system script run x\n";
        assert_eq!(follow(text), ["> ip route", "(/tool): frobnicate", "(/ip route): add", "(/system script): run"]);
    }

    #[test]
    fn a_path_similar_to_a_supported_one_is_an_error() {
        for text in
            ["/ip firewal filter", "/ip firewall filters", "/ip fire fil add a=b", "/ip/f/f", "/ip firewall l7 x y"]
        {
            let expected = !text.contains("l7");
            assert_eq!(follow(text)[0].starts_with("wrong"), expected, "{text}");
        }
        for text in
            ["/ip firewall nat", "/ip firewall mangle", "/ip pool", "/ipv6 nd", "/interface lte", "/ip settings"]
        {
            assert_eq!(follow(text)[0], format!("> {}", &text[1..]));
        }
    }

    #[test]
    fn a_command_behind_an_inline_path_to_another_menu_is_ambiguous() {
        let text = "/ip route\n/ip firewall filter add a=b\nadd c=d\n/ip firewall filter\nadd e=f\n";
        assert_eq!(follow(text)[2], "wrong: add");
        assert_eq!(follow(text)[4], "/ip firewall filter: add");
    }
}
