//! Commands of the supported menus, and the entries to which they apply.
//!
//! Owns the forms in which entries are selected: numbers, `*1` and names separated by commas, or `[find …]`, each as
//! the first argument or as `numbers=`. `store` executes the command.

use std::collections::HashSet;
use std::ops::Range;

use super::flaw::{Flaw, FlawKind};
use super::lexer::{Command, Text, Word};
use super::problem::{Complaint, show};
use super::select::{Query, Refusal};

/// Maximum number of entries that a command may name one by one.
const MOST_ITEMS: usize = 10_000;

/// Commands of a menu of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Adds an entry.
    Add,
    /// Changes properties of entries.
    Set,
    /// Removes entries.
    Remove,
    /// The same as `set disabled=no`.
    Enable,
    /// The same as `set disabled=yes`.
    Disable,
    /// Moves entries before another one.
    Move,
    /// The same as `set comment=`.
    Comment,
}

/// All commands.
const VERBS: &[(&str, Verb)] = &[
    ("add", Verb::Add),
    ("set", Verb::Set),
    ("remove", Verb::Remove),
    ("enable", Verb::Enable),
    ("disable", Verb::Disable),
    ("move", Verb::Move),
    ("comment", Verb::Comment),
];

impl Verb {
    /// The command with this name.
    pub(super) fn from_name(name: &str) -> Option<Verb> {
        VERBS.iter().find(|(known, _)| *known == name).map(|(_, verb)| *verb)
    }

    /// The name of the command.
    pub(super) fn name(self) -> &'static str {
        VERBS.iter().find(|(_, verb)| *verb == self).map_or("", |(name, _)| name)
    }

    /// The properties that select entries and are not properties of the entry.
    const fn selecting(self) -> &'static [&'static str] {
        match self {
            Verb::Add => &["place-before"],
            Verb::Move => &["numbers", "destination"],
            _ => &["numbers"],
        }
    }

    /// The number of arguments without a name.
    const fn positions(self) -> usize {
        match self {
            Verb::Add => 0,
            Verb::Move | Verb::Comment => 2,
            _ => 1,
        }
    }
}

/// A command and its position.
pub(super) struct Order<'a> {
    /// The whole file.
    pub(super) text: &'a [u8],
    pub(super) command: &'a Command,
    pub(super) verb: Verb,
    /// The position of the verb.
    pub(super) at: Range<usize>,
    /// The number of words up to the verb, including it.
    pub(super) head: usize,
    /// The line on which the command begins.
    pub(super) line: u32,
}

impl<'a> Order<'a> {
    /// The words after the verb.
    pub(super) fn words(&self) -> &'a [Word] {
        self.command.words.get(self.head..).unwrap_or_default()
    }

    /// The position of an argument.
    pub(super) fn arguments(&self) -> Range<usize> {
        let start = self.words().first().map_or(self.command.span.end, |word| word.span.start);
        start..self.command.span.end
    }

    /// The relevant flaws: all except brackets in a place where entries may be selected.
    pub(super) fn flaws(&self) -> impl Iterator<Item = &'a Flaw> {
        // Most commands have no flaws.
        let selectors = self.selectors().filter(|_| !self.command.flaws.is_empty());
        let brackets: HashSet<Range<usize>> = selectors.map(|text| text.span.clone()).collect();
        let is_wrong = move |flaw: &&Flaw| flaw.kind != FlawKind::Bracket || !brackets.contains(&flaw.span);
        self.command.flaws.iter().filter(is_wrong)
    }

    fn selectors(&self) -> impl Iterator<Item = &'a Text> {
        let named = self.verb.selecting();
        let by_name = self.words().iter().filter(|word| is_one_of(word, named)).filter_map(|word| word.value.as_ref());
        self.positional().take(self.verb.positions()).chain(by_name)
    }

    fn positional(&self) -> impl Iterator<Item = &'a Text> {
        self.words().iter().filter(|word| is_positional(word)).map(|word| &word.name)
    }

    /// The value of a property, the last one if there are several.
    pub(super) fn value(&self, name: &str) -> Option<&'a Text> {
        self.words().iter().rev().find(|word| is_one_of(word, &[name])).and_then(|word| word.value.as_ref())
    }

    /// The error if entries are selected twice.
    pub(super) fn twice(&self) -> Option<Refusal> {
        let mut seen = HashSet::new();
        let named = self.words().iter().filter(|word| is_one_of(word, self.verb.selecting()));
        let second = named.map(|word| (word, property_name(word))).find(|(_, name)| !seen.insert(*name));
        second.map(|(word, name)| {
            let complaint = Complaint::new(format!("`{}` is given twice", show(name)))
                .expected("one value for each property")
                .help("remove one of them");
            (word.span.clone(), complaint)
        })
    }

    /// The words with properties of entries: those with a name.
    pub(super) fn properties(&self) -> impl Iterator<Item = &'a Word> {
        properties(self.verb, self.words())
    }

    /// The selected entries, and the other arguments without a name.
    pub(super) fn selected(&self) -> Result<(&'a Text, Vec<&'a Text>), Refusal> {
        let mut positional: Vec<&Text> = self.positional().collect();
        let chosen = match self.value("numbers") {
            Some(numbers) => numbers,
            None if positional.is_empty() => {
                let complaint = Complaint::new(format!("`{}` is given no entries", self.verb.name()))
                    .expected("`[find …]`, numbers or names after it")
                    .help("write `[find comment=\"…\"]` with a condition that only these entries meet");
                return Err((self.at.clone(), complaint));
            }
            None => positional.remove(0),
        };
        // Entries that were selected by name are not selected again without one.
        let second = match self.verb {
            Verb::Move => self.value("destination"),
            Verb::Comment => self.value("comment"),
            _ => None,
        };
        let spare = self.verb.positions().saturating_sub(1 + usize::from(second.is_some()));
        if let Some(stray) = positional.get(spare) {
            let complaint = Complaint::new(format!("`{}` is one too many", show(&stray.bytes)))
                .expected("`name=value`")
                .help("separate entries by commas without blanks; put values with blanks in quotes");
            return Err((stray.span.clone(), complaint));
        }
        Ok((chosen, positional))
    }
}

/// The words among a command's arguments that concern an entry.
pub(super) fn properties(verb: Verb, words: &[Word]) -> impl Iterator<Item = &Word> {
    words.iter().filter(move |word| !is_one_of(word, verb.selecting()) && (verb == Verb::Add || !is_positional(word)))
}

/// Whether the word has one of these names, with a value, or with a leading `!` and no value.
fn is_one_of(word: &Word, names: &[&str]) -> bool {
    let name = property_name(word);
    names.iter().any(|known| known.as_bytes() == name)
}

/// The name of the property of a word.
pub(super) fn property_name(word: &Word) -> &[u8] {
    word.name.bytes.strip_prefix(b"!").unwrap_or(&word.name.bytes)
}

fn is_positional(word: &Word) -> bool {
    word.value.is_none() && !word.name.bytes.starts_with(b"!")
}

/// A selection of entries.
#[derive(Debug)]
pub(super) enum Selector {
    /// Entries that are named one by one, each with its position.
    Items(Vec<(Item, Range<usize>)>),
    /// Entries with these properties.
    Find(Query),
    /// One of the entries with these properties, counted from 0: `([find …]->0)` or `[:pick [find …] 0]`.
    OneOf(Query, usize),
}

/// The name of one entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The position, counted from 0.
    Number(usize),
    /// The id, such as `*1`: hexadecimal digits, counted from 1 in the order of addition.
    Id(usize),
    /// The name.
    Name(Vec<u8>),
}

impl Selector {
    /// Parses a selection of entries.
    pub(super) fn read(text: &[u8], chosen: &Text, menu: &str) -> Result<Selector, Refusal> {
        let is_bracket = text.get(chosen.span.start).is_some_and(|byte| chosen.bytes == [*byte]);
        if is_bracket && matches!(chosen.bytes[..], [b'[' | b'(']) {
            let (query, number) = Query::read(text, &chosen.span, menu)?;
            return Ok(match number {
                Some(number) => Selector::OneOf(query, number),
                None => Selector::Find(query),
            });
        }
        let mut items = Vec::new();
        let mut start = 0;
        for bytes in chosen.bytes.split(|byte| *byte == b',') {
            let span = chosen.part(start..start + bytes.len());
            start += bytes.len() + 1;
            if items.len() == MOST_ITEMS {
                let complaint = Complaint::new(format!("more than {MOST_ITEMS} entries are named"));
                return Err((span, complaint.expected("`[find …]` with a condition that they meet")));
            }
            let Some(item) = Item::read(bytes) else {
                let complaint = Complaint::new(format!("`{}` names no entry", show(bytes)))
                    .expected("`[find …]`, a number, `*1`, or a name");
                return Err((span, complaint));
            };
            items.push((item, span));
        }
        Ok(Selector::Items(items))
    }
}

impl Item {
    fn read(bytes: &[u8]) -> Option<Item> {
        // A number that is larger than the number of every entry.
        let number = |digits, radix| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some(usize::from_str_radix(digits, radix).unwrap_or(usize::MAX))
        };
        match bytes {
            [] | [b'*'] => None,
            [b'*', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit) => number(digits, 16).map(Item::Id),
            _ if bytes.iter().all(u8::is_ascii_digit) => number(bytes, 10).map(Item::Number),
            _ => Some(Item::Name(bytes.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_in_several_ways() {
        let items: Vec<_> = [&b"0"[..], b"*1F", b"WAN", b"*x", b"99999999999999999999999"].map(Item::read).into();
        let name = |name: &[u8]| Some(Item::Name(name.to_vec()));
        let expected =
            [Some(Item::Number(0)), Some(Item::Id(31)), name(b"WAN"), name(b"*x"), Some(Item::Number(usize::MAX))];
        assert_eq!(items, expected);
        assert_eq!((Item::read(b""), Item::read(b"*")), (None, None));
    }
}
