//! Reading RouterOS exports.
//!
//! Takes the text of a `.rsc` file and gives the rules it holds, everything that is wrong with it, and what was
//! skipped. It promises three things. A command with anything wrong yields no rule: a rule without one of its
//! matchers would let in more. All problems of a file are found in one go. Any bytes can be read, in time linear in
//! their number.
//!
//! ```text
//!  bytes ─► lexer ─► commands of words ─► menu ─► filter, layer7 ─► check ─► RuleSet
//!                                          │        property: one table row a property
//!                                          │        value: what values mean
//!                                          └► other menus: skipped and counted
//!                    whatever is wrong ──► problem ─► report
//! ```
//!
//! The language grows by rows in the tables of `filter` and `layer7`, and by menus in `menu`.

mod check;
mod filter;
mod layer7;
mod lexer;
mod menu;
mod problem;
mod property;
mod reference;
mod report;
mod value;

use std::collections::HashMap;

use serde::Serialize;

use self::lexer::{Command, Flaw, Lexer, Word};
use self::menu::{Invocation, Line, Menu, Menus, Place};
pub use self::problem::Problem;
use self::problem::{Complaint, Cursor, Problems, show};
use self::property::Add;
pub use self::reference::{ActionReference, MenuReference, PropertyReference, reference};
pub use self::report::report;
use crate::rule::{RuleSet, Table};

/// What a file said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The rules and patterns without problems, with their ids. To be used only if there are no problems at all.
    pub rules: RuleSet,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// Menus that are not firewall rules, in the order of their first command.
    pub skipped: Vec<SkippedMenu>,
}

/// A menu whose commands were passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedMenu {
    /// Its path, such as `/ip firewall nat`.
    pub menu: String,
    /// How many commands it had.
    pub commands: u32,
}

/// Reads the text of a rule file.
pub fn read(text: &[u8]) -> Reading {
    let mut reader = Reader { cursor: Cursor::new(text), ..Reader::default() };
    let mut lexer = Lexer::new(text);
    let mut upcoming = lexer.next(|words| reader.menus.understands(words));
    while let Some(mut command) = upcoming.take() {
        let line = reader.follow(&command);
        upcoming = lexer.next(|words| reader.menus.understands(words));
        if let Some(menu) = line.as_ref().and_then(adds_to) {
            while let Some(lost) = upcoming.take_if(|next| continues(menu, next)) {
                command.words.extend(lost.words);
                command.flaws.extend(lost.flaws);
                upcoming = lexer.next(|words| reader.menus.understands(words));
            }
        }
        if let Some(line) = line {
            reader.carry_out(&command, line);
        }
    }
    reader.finish(text)
}

/// The understood menu that the command adds to.
fn adds_to(line: &Line) -> Option<Menu> {
    match line {
        Line::Command(Invocation { place: Place::Understood(menu), verb: Some((verb, _)), .. }) if verb == "add" => {
            Some(*menu)
        }
        _ => None,
    }
}

/// Whether an indented line is the rest of the `add` above it, whose `\` was lost: it begins with a property of the
/// menu, and has nothing but `name=value`. No command of RouterOS looks like that.
fn continues(menu: Menu, next: &Command) -> bool {
    let is_known = |word: &Word| match menu {
        Menu::Filter(_) => property::knows(filter::PROPERTIES, &word.name),
        Menu::Layer7 => property::knows(layer7::PROPERTIES, &word.name),
    };
    next.hangs && next.words.first().is_some_and(is_known) && next.words.iter().all(|word| word.value.is_some())
}

/// Menus that change what the rules mean, and are not read yet. Skipping them would leave out what they drop.
const NOT_YET: &[&str] =
    &["/ip firewall address-list", "/ip firewall raw", "/ipv6 firewall address-list", "/ipv6 firewall raw"];

fn not_yet(menu: &str) -> Complaint {
    Complaint::new(format!("`{menu}` is not supported yet"))
        .expected("rules that do not depend on it")
        .help("leave the menu out if no rule needs it; addresses can be listed with `knockctl list add`")
}

/// The state of reading one file.
#[derive(Default)]
struct Reader<'a> {
    cursor: Cursor<'a>,
    menus: Menus,
    rules: Vec<filter::Entry>,
    patterns: Vec<layer7::Entry>,
    problems: Problems,
    skipped: Vec<SkippedMenu>,
    /// Where each menu stands in `skipped`.
    skipped_at: HashMap<String, usize>,
}

impl Reader<'_> {
    /// What kind of line it is, or nothing if there is no more to it.
    fn follow(&mut self, command: &Command) -> Option<Line> {
        match command.words.first() {
            Some(first) if !is_script(first) => return Some(self.menus.follow(&command.words)),
            Some(first) => self.refuse_script(first),
            None => {}
        }
        self.report_flaws(&command.flaws, |flaw| flaw.kind.breaks_the_text());
        None
    }

    fn carry_out(&mut self, command: &Command, line: Line) {
        let is_rule = adds_to(&line).is_some();
        self.report_flaws(&command.flaws, |flaw| is_rule || flaw.kind.breaks_the_text());
        match line {
            Line::Enter => {}
            Line::Wrong(span, complaint) => self.problems.add(span, complaint),
            Line::Command(invocation) => self.command(command, invocation),
        }
    }

    fn command(&mut self, command: &Command, invocation: Invocation) {
        let words = command.words.get(invocation.arguments..).unwrap_or_default();
        match (invocation.place, invocation.verb) {
            (_, None) if words.first().is_some_and(is_script) => {
                self.refuse_script(&words[0]);
            }
            (Place::Understood(menu), Some((verb, span))) if verb == "add" => {
                let (line, _) = self.cursor.advance(command.span.start);
                let add = Add { words, verb: span, line, intact: command.flaws.is_empty() };
                match menu {
                    Menu::Filter(family) => {
                        self.rules.push(filter::read(Table::Filter, family, &add, &mut self.problems));
                    }
                    Menu::Layer7 => self.patterns.push(layer7::read(&add, &mut self.problems)),
                }
            }
            (Place::Understood(_), Some((verb, span))) => self.problems.add(span, not_add(&verb)),
            (Place::Understood(_), None) => self.no_verb(command, words),
            (Place::Other(path), verb) if NOT_YET.contains(&path.as_str()) => {
                let span = verb.map_or_else(|| command.words[0].span.clone(), |(_, span)| span);
                self.problems.add(span, not_yet(&path));
            }
            (Place::Other(path), _) => self.skip(path),
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

    /// A line of an understood menu that begins with something else than a command.
    fn no_verb(&mut self, command: &Command, words: &[Word]) {
        let Some(word) = words.first() else { return };
        let complaint = Complaint::new(format!("`{}` stands where a command is expected", show(&word.name.bytes)))
            .expected("`add`")
            .help(if word.value.is_some() || command.hangs {
                "if it continues the line above, end that line with `\\`"
            } else {
                "write each rule as a line that begins with `add`"
            });
        self.problems.add(word.span.clone(), complaint);
    }

    fn skip(&mut self, menu: String) {
        let at = *self.skipped_at.entry(menu).or_insert_with_key(|menu| {
            self.skipped.push(SkippedMenu { menu: menu.clone(), commands: 0 });
            self.skipped.len() - 1
        });
        self.skipped[at].commands = self.skipped[at].commands.saturating_add(1);
    }

    fn refuse_script(&mut self, word: &Word) {
        let complaint = Complaint::new(format!("scripting is not read: `{}`", show(&word.name.bytes)))
            .expected("a menu line or `add`")
            .help("write out what the script would do, or export the rules from a router on which it ran");
        self.problems.add(word.span.clone(), complaint);
    }

    fn report_flaws(&mut self, flaws: &[Flaw], matters: impl Fn(&Flaw) -> bool) {
        for flaw in flaws.iter().filter(|flaw| matters(flaw)) {
            self.problems.add(flaw.span.clone(), flaw.kind.complaint());
        }
    }

    fn finish(mut self, text: &[u8]) -> Reading {
        check::check(&mut self.rules, &mut self.patterns, &mut self.problems);
        let mut rules = RuleSet {
            layer7: self.patterns.into_iter().filter_map(|entry| entry.pattern).collect(),
            rules: self.rules.into_iter().filter_map(|entry| entry.rule).collect(),
            ..RuleSet::default()
        };
        rules.assign_ids();
        Reading { rules, problems: self.problems.place(text), skipped: self.skipped }
    }
}

/// Whether a command that begins so is a script's: `:if`, `$x`, a block, or the end of one.
fn is_script(first: &Word) -> bool {
    matches!(first.name.bytes.first(), Some(b':' | b'$' | b'{' | b'}' | b'[' | b']' | b'(' | b')'))
}

fn not_add(verb: &str) -> Complaint {
    let complaint =
        Complaint::new(format!("`{}` is not supported in a rule file", show(verb.as_bytes()))).expected("`add`");
    match verb {
        "set" | "move" | "edit" | "comment" | "enable" | "disable" | "unset" | "reset" => {
            complaint.help("write the rule as it is to be, with `add`, at the place where it is to be")
        }
        "remove" => {
            complaint.help("leave the line out: a rule file begins with no rules; and leave out what it removes")
        }
        "print" | "export" | "find" | "get" | "reset-counters" | "reset-counters-all" => {
            complaint.help("leave the line out")
        }
        _ => complaint.help("write each rule as a line that begins with `add`").did_you_mean(verb, ["add"]),
    }
}

#[cfg(test)]
mod tests;
