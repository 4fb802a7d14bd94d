//! Properties: the possible `name=value` words of a menu, as a table with one row for each.
//!
//! A new matcher or action needs only a row with its name, its parser, and its description in the language reference.
//! This file matches the words of a command with a table, and guarantees that no word is ignored: an unknown name, a
//! value with errors, a word without `=`, and a second value for a name are all problems.

use std::ops::Range;

use super::lexer::{Text, Word};
use super::problem::{Complaint, Problems, show};
use super::reference::PropertyReference;
use super::spans::SourceSpans;
use super::value::{self, Parsed};
use crate::packet::Family;
use crate::rule::Table;

/// Maximum number of problems with suggestions. Suggestions take longer than the reading of the file.
const MOST_SUGGESTIONS: usize = 1_000;

/// Parses a value into a draft of the new entry.
type ReadValue<D> = fn(&mut D, &[u8]) -> Parsed<()>;

/// A row of a menu's table.
pub(super) struct Property<D: 'static> {
    reading: Reading<D>,
    /// Whether verbose exports write `!name` if the property is not set.
    unsettable: bool,
    /// The name, the menus with the property, and its description in the language reference.
    about: PropertyReference,
}

enum Reading<D: 'static> {
    Read(ReadValue<D>),
    /// A property of RouterOS that is refused, for this reason.
    Refused(&'static str),
}

impl<D> Property<D> {
    const fn new(name: &'static str, reading: Reading<D>, unsettable: bool) -> Self {
        Property { reading, unsettable, about: PropertyReference::new(name) }
    }

    /// A property of every rule.
    pub(super) const fn fixed(name: &'static str, reader: ReadValue<D>) -> Self {
        Property::new(name, Reading::Read(reader), false)
    }

    /// An optional property.
    pub(super) const fn optional(name: &'static str, reader: ReadValue<D>) -> Self {
        Property::new(name, Reading::Read(reader), true)
    }

    /// An optional property that is a condition on packets.
    pub(super) const fn matcher(name: &'static str, reader: ReadValue<D>) -> Self {
        let mut property = Property::optional(name, reader);
        property.about.is_matcher = true;
        property
    }

    /// A property that is not supported yet.
    pub(super) const fn unsupported(name: &'static str) -> Self {
        Property::new(name, Reading::Refused("is not supported yet, so its effect would be missing"), true)
    }

    /// A property that the router prints and that no command has.
    pub(super) const fn printed(name: &'static str) -> Self {
        Property::new(name, Reading::Refused("is printed by the router and is not a property of a rule"), true)
    }

    /// A property of the rules of doors, which are not part of a file.
    pub(super) const fn of_doors(name: &'static str) -> Self {
        let why = "belongs to doors, which are part of the configuration: write a `[[door]]` there";
        Property::new(name, Reading::Refused(why), true)
    }

    /// The meaning, the grammar of its value, and an example.
    pub(super) const fn says(mut self, meaning: &'static str, grammar: &'static str, example: &'static str) -> Self {
        self.about.meaning = meaning;
        self.about.grammar = grammar;
        self.about.example = example;
        self
    }

    /// The difference from RouterOS.
    pub(super) const fn differs(mut self, differs: &'static str) -> Self {
        self.about.differs = differs;
        self
    }

    /// The same row for the menus of one family.
    pub(super) const fn only(mut self, family: Family) -> Self {
        self.about.family = Some(family);
        self
    }

    /// The same row for the filter's menus, not for `raw`.
    pub(super) const fn filter_only(mut self) -> Self {
        self.about.table = Some(Table::Filter);
        self
    }

    /// Marks a property whose rules are kept and never run. `differs` contains this fact.
    pub(super) const fn never_run(mut self, differs: &'static str) -> Self {
        self.about.is_run = false;
        self.differs(differs)
    }

    const fn name(&self) -> &'static str {
        self.about.name
    }
}

/// Stores a value in a draft.
pub(super) fn set<T>(place: &mut Option<T>, value: Parsed<T>) -> Parsed<()> {
    *place = Some(value?);
    Ok(())
}

/// As [`set`], for a value that is text.
pub(super) fn read_text<T>(place: &mut Option<T>, value: &[u8], read: fn(&str) -> Parsed<T>) -> Parsed<()> {
    set(place, read(&value::text(value)))
}

/// The description of a table's rows in the language reference, without refused ones.
pub(super) fn describe<D>(table: &[Property<D>]) -> Vec<PropertyReference> {
    let read = table.iter().filter(|property| matches!(property.reading, Reading::Read(_)));
    read.map(|property| property.about.clone()).collect()
}

/// The menu of a command, because several menus have the same table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope {
    pub(super) family: Option<Family>,
    pub(super) table: Option<Table>,
}

impl From<Option<Family>> for Scope {
    fn from(family: Option<Family>) -> Self {
        Scope { family, table: None }
    }
}

/// Whether the table has a row with this name.
pub(super) fn knows<D>(table: &[Property<D>], name: &Text) -> bool {
    table.iter().any(|property| property.name().as_bytes() == name.bytes)
}

/// The properties of a command, by name.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: Vec<(&'static str, State, Range<usize>)>,
    /// Whether every word was recognised, so that an absent property is really missing.
    pub(super) complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Read,
    Unset,
    Bad,
}

impl Given {
    /// The position of the value, valid or not; `None` if there is no value.
    pub(super) fn span(&self, name: &str) -> Option<Range<usize>> {
        let (_, state, span) = self.values.iter().find(|(given, ..)| *given == name)?;
        (*state != State::Unset).then(|| span.clone())
    }

    /// The position of the value, if it was valid.
    pub(super) fn read(&self, name: &str) -> Option<Range<usize>> {
        let (_, state, span) = self.values.iter().find(|(given, ..)| *given == name)?;
        (*state == State::Read).then(|| span.clone())
    }

    /// Whether it is certain that there is no value.
    pub(super) fn is_missing(&self, name: &str) -> bool {
        self.complete && self.span(name).is_none()
    }

    /// The positions of valid properties of a command with this verb.
    pub(super) fn spans(self, verb: Range<usize>) -> SourceSpans {
        let understood = self.values.into_iter().filter(|(_, state, _)| *state == State::Read);
        SourceSpans { verb, values: understood.map(|(name, _, span)| (name, span)).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(given, ..)| *given == name)
    }
}

/// One `add` command.
pub(super) struct Add<'a> {
    /// The words after the verb.
    pub(super) words: &'a [Word],
    /// The position of the verb.
    pub(super) verb: Range<usize>,
    /// The line on which the command begins.
    pub(super) line: u32,
    /// Whether the form of the command has no flaws.
    pub(super) intact: bool,
}

/// Parses a command's words into the draft.
pub(super) fn read<D>(
    table: &[Property<D>],
    scope: impl Into<Scope>,
    add: &Add<'_>,
    draft: &mut D,
    problems: &mut Problems,
) -> Given {
    let given = Given { complete: add.intact, ..Given::default() };
    let mut sheet = Sheet { table, scope: scope.into(), draft, given, problems };
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

/// A command that is being parsed.
struct Sheet<'a, D: 'static> {
    table: &'a [Property<D>],
    scope: Scope,
    draft: &'a mut D,
    given: Given,
    problems: &'a mut Problems,
}

impl<'a, D> Sheet<'a, D> {
    /// Parses `name=value`.
    fn value(&mut self, word: &Word, value: &Text) {
        let Some(property) = self.find(&word.name.bytes, word.name.span.clone()) else { return };
        if self.given.has(property.name()) {
            self.problems.add(word.span.clone(), duplicate(property.name()));
            return;
        }
        let span = if value.span.is_empty() { word.span.clone() } else { value.span.clone() };
        let problem = match (elsewhere(&property.about, self.scope), &property.reading) {
            (Some(complaint), _) => Some((word.name.span.clone(), complaint)),
            (None, Reading::Refused(why)) => Some((word.name.span.clone(), refused(property.name(), why))),
            (None, Reading::Read(_)) if word.flawed => None,
            (None, Reading::Read(reader)) => reader(self.draft, &value.bytes).err().map(|complaint| {
                let part = complaint.part.clone().filter(|_| !value.bytes.is_empty());
                (part.map_or_else(|| span.clone(), |part| value.part(part)), complaint)
            }),
        };
        let state = if problem.is_some() || word.flawed { State::Bad } else { State::Read };
        self.given.values.push((property.name(), state, span));
        if let Some((span, complaint)) = problem {
            self.problems.add(span, complaint);
        }
    }

    /// Parses `!name`, which verbose exports write for properties that are not set.
    fn unset(&mut self, word: &Word, name: &[u8]) {
        let Some(property) = self.find(name, word.span.clone()) else { return };
        if self.given.has(property.name()) {
            self.problems.add(word.span.clone(), duplicate(property.name()));
            return;
        }
        let state = if property.unsettable { State::Unset } else { State::Bad };
        self.given.values.push((property.name(), state, word.span.clone()));
        if !property.unsettable {
            let complaint = Complaint::new(format!("`{}` cannot be unset", property.name()))
                .expected(format!("`{}=` and a value", property.name()));
            self.problems.add(word.span.clone(), complaint);
        }
    }

    /// Reports a word of another form.
    fn stray(&mut self, word: &Word) {
        self.given.complete = false;
        let complaint = Complaint::new(format!("`{}` is not a property", show(&word.name.bytes)))
            .expected("`name=value`")
            .help("write `=` without blanks, and put values with blanks in quotes");
        self.problems.add(word.span.clone(), complaint);
    }

    fn find(&mut self, name: &[u8], span: Range<usize>) -> Option<&'a Property<D>> {
        let property = self.table.iter().find(|property| property.name().as_bytes() == name);
        if property.is_none() {
            self.given.complete = false;
            let mut complaint = Complaint::new(format!("no such property: `{}`", show(name)))
                .expected("a property of this menu")
                .help("leave it out only if the rule may match more packets without it");
            if self.problems.count() < MOST_SUGGESTIONS {
                let names = self.table.iter().map(Property::name);
                complaint = complaint.did_you_mean(&String::from_utf8_lossy(name), names);
            }
            self.problems.add(span, complaint);
        }
        property
    }
}

/// The error about a property of RouterOS that a rule file must not have.
fn refused(name: &str, why: &str) -> Complaint {
    Complaint::new(format!("`{name}` {why}")).help(format!("write the rule without `{name}`, or remove the rule"))
}

/// The error about a property of other menus.
fn elsewhere(about: &PropertyReference, scope: Scope) -> Option<Complaint> {
    let name = about.name;
    let wrong_family = about.family.filter(|_| about.family != scope.family && scope.family.is_some());
    let wrong_table = about.table.filter(|_| about.table != scope.table && scope.table.is_some());
    let message = match (wrong_family, wrong_table) {
        (Some(Family::Ipv4), _) => format!("`{name}` is for IPv4 rules only"),
        (Some(Family::Ipv6), _) => format!("`{name}` is for IPv6 rules only"),
        (None, Some(Table::Filter)) => format!("`{name}` is for `filter` rules only"),
        (None, Some(Table::Raw)) => format!("`{name}` is for `raw` rules only"),
        (None, None) => return None,
    };
    Some(Complaint::new(message).help("leave it out only if the rule may match more packets without it"))
}

fn duplicate(name: &str) -> Complaint {
    Complaint::new(format!("`{name}` is given twice"))
        .expected("one value for each property")
        .help("remove one of them")
}
