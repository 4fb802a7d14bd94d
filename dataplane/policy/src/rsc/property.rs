//! Properties: what a menu's `name=value` words may be, as a table with one row for each.
//!
//! A table is all that a new matcher or action needs: a row with its name and what reads its value. This file walks
//! a command's words along a table and promises that nothing is passed over: a name that is not in the table, a
//! value that is not understood, a word without `=`, a second value for a name are all problems.

use std::ops::Range;

use super::lexer::{Text, Word};
use super::problem::{Complaint, Problems, show};
use super::value::Parsed;
use crate::packet::Family;

/// A file with more problems than this gets no more suggestions, which take longer than reading does.
const MOST_SUGGESTIONS: usize = 1_000;

/// What reads a value into a draft of what the command adds.
type ReadValue<D> = fn(&mut D, &[u8]) -> Parsed<()>;

/// A row of a menu's table.
pub(super) struct Property<D: 'static> {
    name: &'static str,
    meaning: Meaning<D>,
    /// Whether verbose exports write `!name` if it is not set.
    unsettable: bool,
    /// The one family that has it, if only one does.
    only: Option<Family>,
}

enum Meaning<D: 'static> {
    Read(ReadValue<D>),
    /// RouterOS knows it; it is not read here, for this reason a rule that has it must be refused.
    Unsupported(&'static str),
}

impl<D> Property<D> {
    /// Something every rule has.
    pub(super) const fn fixed(name: &'static str, reader: ReadValue<D>) -> Self {
        Property { name, meaning: Meaning::Read(reader), unsettable: false, only: None }
    }

    /// A matcher, or anything else that may be left unset.
    pub(super) const fn optional(name: &'static str, reader: ReadValue<D>) -> Self {
        Property { name, meaning: Meaning::Read(reader), unsettable: true, only: None }
    }

    /// A matcher that is not read yet.
    pub(super) const fn unsupported_matcher(name: &'static str) -> Self {
        let why = "leaving it out would let in more";
        Property { name, meaning: Meaning::Unsupported(why), unsettable: true, only: None }
    }

    /// Something else that is not read yet.
    pub(super) const fn unsupported(name: &'static str) -> Self {
        let why = "it would not do what it says";
        Property { name, meaning: Meaning::Unsupported(why), unsettable: true, only: None }
    }

    /// The same row for one family's menu.
    pub(super) const fn only(mut self, family: Family) -> Self {
        self.only = Some(family);
        self
    }
}

/// Whether the table has a row of this name.
pub(super) fn knows<D>(table: &[Property<D>], name: &Text) -> bool {
    table.iter().any(|property| property.name.as_bytes() == name.bytes)
}

/// What a command gave, by name.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: Vec<(&'static str, State, Range<usize>)>,
    /// Every word was recognised, so that what is not given is really missing.
    pub(super) complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Read,
    Unset,
    Bad,
}

impl Given {
    /// Where the value stands, if one was given, understood or not.
    pub(super) fn span(&self, name: &str) -> Option<Range<usize>> {
        let (_, state, span) = self.values.iter().find(|(given, ..)| *given == name)?;
        (*state != State::Unset).then(|| span.clone())
    }

    /// Where the value stands, if it was understood.
    pub(super) fn read(&self, name: &str) -> Option<Range<usize>> {
        let (_, state, span) = self.values.iter().find(|(given, ..)| *given == name)?;
        (*state == State::Read).then(|| span.clone())
    }

    /// Whether it is certain that there is no value.
    pub(super) fn is_missing(&self, name: &str) -> bool {
        self.complete && self.span(name).is_none()
    }

    fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(given, ..)| *given == name)
    }
}

/// One `add` command.
pub(super) struct Add<'a> {
    /// The words behind the verb.
    pub(super) words: &'a [Word],
    /// Where the verb stands.
    pub(super) verb: Range<usize>,
    /// The line on which the command begins.
    pub(super) line: u32,
    /// Its form is without flaws.
    pub(super) intact: bool,
}

/// Reads a command's words into the draft. `family` is the menu's, if it has one.
pub(super) fn read<D>(
    table: &[Property<D>],
    family: Option<Family>,
    add: &Add<'_>,
    draft: &mut D,
    problems: &mut Problems,
) -> Given {
    let given = Given { complete: add.intact, ..Given::default() };
    let mut sheet = Sheet { table, family, draft, given, problems };
    for word in add.words {
        match (&word.value, word.name.bytes.strip_prefix(b"!")) {
            (Some(value), _) => sheet.value(word, value),
            (None, _) if word.flawed => {}
            (None, Some(name)) => sheet.unset(word, name),
            (None, None) => sheet.stray(word),
        }
    }
    sheet.given
}

/// A command being filled in.
struct Sheet<'a, D: 'static> {
    table: &'a [Property<D>],
    family: Option<Family>,
    draft: &'a mut D,
    given: Given,
    problems: &'a mut Problems,
}

impl<'a, D> Sheet<'a, D> {
    /// `name=value`.
    fn value(&mut self, word: &Word, value: &Text) {
        let Some(property) = self.find(&word.name.bytes, word.name.span.clone()) else { return };
        if self.given.has(property.name) {
            self.problems.add(word.span.clone(), duplicate(property.name));
            return;
        }
        let span = if value.span.is_empty() { word.span.clone() } else { value.span.clone() };
        let problem = match property.meaning {
            _ if property.only.is_some_and(|only| Some(only) != self.family) => {
                Some((word.name.span.clone(), wrong_family(property.name, property.only)))
            }
            Meaning::Unsupported(why) => Some((word.name.span.clone(), unsupported(property.name, why))),
            Meaning::Read(_) if word.flawed => None,
            Meaning::Read(reader) => reader(self.draft, &value.bytes).err().map(|complaint| {
                let part = complaint.part.clone().filter(|_| !value.bytes.is_empty());
                (part.map_or_else(|| span.clone(), |part| value.part(part)), complaint)
            }),
        };
        let state = if problem.is_some() || word.flawed { State::Bad } else { State::Read };
        self.given.values.push((property.name, state, span));
        if let Some((span, complaint)) = problem {
            self.problems.add(span, complaint);
        }
    }

    /// `!name`, which verbose exports write for what is not set.
    fn unset(&mut self, word: &Word, name: &[u8]) {
        let Some(property) = self.find(name, word.span.clone()) else { return };
        if self.given.has(property.name) {
            self.problems.add(word.span.clone(), duplicate(property.name));
            return;
        }
        let state = if property.unsettable { State::Unset } else { State::Bad };
        self.given.values.push((property.name, state, word.span.clone()));
        if !property.unsettable {
            let complaint = Complaint::new(format!("`{}` cannot be unset", property.name))
                .expected(format!("`{}=` and a value", property.name));
            self.problems.add(word.span.clone(), complaint);
        }
    }

    /// A word that is neither.
    fn stray(&mut self, word: &Word) {
        self.given.complete = false;
        let complaint = Complaint::new(format!("`{}` is not a property", show(&word.name.bytes)))
            .expected("`name=value`")
            .help("there is no blank around `=`, and values with blanks are in quotes");
        self.problems.add(word.span.clone(), complaint);
    }

    fn find(&mut self, name: &[u8], span: Range<usize>) -> Option<&'a Property<D>> {
        let property = self.table.iter().find(|property| property.name.as_bytes() == name);
        if property.is_none() {
            self.given.complete = false;
            let mut complaint = Complaint::new(format!("no such property: `{}`", show(name)))
                .expected("a property of this menu")
                .help("leave it out only if the rule may match without it");
            if self.problems.count() < MOST_SUGGESTIONS {
                let names = self.table.iter().map(|property| property.name);
                complaint = complaint.did_you_mean(&String::from_utf8_lossy(name), names);
            }
            self.problems.add(span, complaint);
        }
        property
    }
}

/// The complaint about something that RouterOS can do and this reader cannot.
fn unsupported(name: &str, why: &str) -> Complaint {
    Complaint::new(format!("`{name}` is not supported yet; the rule is refused, because {why}"))
        .help(format!("write the rule without `{name}` if that is what you want, or remove the rule"))
}

fn wrong_family(name: &str, only: Option<Family>) -> Complaint {
    let family = if only == Some(Family::Ipv4) { "IPv4" } else { "IPv6" };
    Complaint::new(format!("`{name}` is for {family} rules only"))
        .help("leave it out only if the rule may match without it")
}

fn duplicate(name: &str) -> Complaint {
    Complaint::new(format!("`{name}` is given twice"))
        .expected("one value for each property")
        .help("remove one of them")
}
