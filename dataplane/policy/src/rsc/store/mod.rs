//! The entries of one menu during reading: added, changed, moved and removed, in RouterOS's order.
//!
//! Owns the effect of commands on entries of any kind. A [`Kind`] defines the contents. A changed entry is parsed again
//! as a whole, with its new words in place of the old ones, so that the checks of an `add` apply to it too. The words
//! are not stored, but read from the text again: a file may have a million entries, of which few change.
//!
//! Time is bounded: a command that searches entries spends [`Work`], a budget in proportion to the file's size. The
//! removal of a list by name needs no budget, because lists are indexed.
//!
//! `find` selects entries.

mod find;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::command::{Order, Verb, properties, property_name};
use super::kind::Kind;
use super::lexer::{Text, Word, words_of};
use super::problem::{Complaint, Problems, show};
use super::property::Add;
use super::select::Refusal;
use super::work::Work;

/// Maximum number of entries with problems that one command reports, because all have the same problems.
const MOST_BAD_CHANGES: usize = 20;

/// An entry and its origin.
#[derive(Debug)]
pub(super) struct Record<E> {
    pub(super) entry: E,
    /// The `add` of the entry. Empty for predefined entries, whose line is their index in [`Kind::BUILTIN`].
    source: Range<usize>,
    line: u32,
    /// The number of words of the `add` up to its verb.
    head: u8,
    /// Whether the form of the `add` has no flaws.
    intact: bool,
    removed: bool,
}

/// A change to an entry.
#[derive(Clone, Debug)]
struct Change {
    verb: Verb,
    at: Range<usize>,
    arguments: Range<usize>,
}

/// The entries of a menu.
#[derive(Debug)]
pub(super) struct Store<K: Kind> {
    pub(super) kind: K,
    records: Vec<Record<K::Entry>>,
    /// The entries in their order, some of which may have been removed.
    order: Vec<u32>,
    /// The number of removed entries in `order`.
    removed: usize,
    /// The order of the entries at the first use of a number.
    numbers: Option<Vec<u32>>,
    changes: HashMap<u32, Vec<Change>>,
}

impl<K: Kind> Store<K> {
    pub(super) fn new(kind: K) -> Self {
        let mut store =
            Store { kind, records: Vec::new(), order: Vec::new(), removed: 0, numbers: None, changes: HashMap::new() };
        for (line, name) in K::BUILTIN.iter().enumerate() {
            let words = [builtin_word(name)];
            let add = Add { words: &words, verb: 0..0, line: 0, intact: true };
            let entry = store.kind.read(&add, &mut Problems::default());
            store.push(Record { entry, source: 0..0, line: line as u32, head: 0, intact: true, removed: false });
        }
        store
    }

    /// Executes a command.
    pub(super) fn carry_out(&mut self, order: &Order<'_>, problems: &mut Problems, work: &Work) {
        let mut intact = order.flaws().next().is_none();
        if let Some((span, complaint)) = order.twice() {
            problems.add(span, complaint);
            intact = false;
        }
        match order.verb {
            Verb::Add => self.add(order, intact, problems, work),
            _ if intact && !work.is_over() => {
                let done = self.change(order, problems, work);
                work.settle(done, &order.at, problems);
            }
            _ => {}
        }
    }

    /// Assigns numbers to the entries.
    pub(super) fn print(&mut self, work: &Work) {
        self.compact(work);
        if work.spend(self.order.len() / 64) {
            self.numbers = Some(self.order.clone());
        }
    }

    fn push(&mut self, record: Record<K::Entry>) -> u32 {
        let index = self.records.len() as u32;
        self.records.push(record);
        self.order.push(index);
        index
    }

    fn add(&mut self, order: &Order<'_>, intact: bool, problems: &mut Problems, work: &Work) {
        let place = order.value("place-before").filter(|_| K::ORDERED);
        let without_place: Vec<Word>;
        let words = match place {
            None => order.words(),
            Some(_) => {
                without_place = order.properties().cloned().collect();
                &without_place
            }
        };
        let add = Add { words, verb: order.at.clone(), line: order.line, intact };
        let entry = self.kind.read(&add, problems);
        // The search precedes the addition, so that it does not find the new entry.
        let place = place.filter(|_| intact && !work.is_over()).map(|text| self.one(order, text, work));
        let index = self.push(Record {
            entry,
            source: order.command.span.clone(),
            line: order.line,
            head: u8::try_from(order.head).unwrap_or(u8::MAX),
            intact,
            removed: false,
        });
        self.enter(index, words, &order.at, problems);
        if let Some(place) = place {
            let done = place.map(|before| {
                self.order.pop();
                let place = self.place(before, work);
                self.order.insert(place, index);
            });
            work.settle(done, &order.at, problems);
        }
    }

    /// Adds a new entry to the index of the kind, and reports an equal one.
    fn enter(&mut self, index: u32, words: &[Word], at: &Range<usize>, problems: &mut Problems) {
        let Some(twin) = self.kind.enter(index, &self.records) else { return };
        let span =
            words.iter().find(|word| word.name.bytes == b"address").map_or_else(|| at.clone(), |w| w.span.clone());
        let complaint = Complaint::new("already have such entry")
            .expected("a new entry")
            .help(format!("it equals the entry of line {}: remove one of them", self.records[twin as usize].line));
        problems.add(span, complaint);
        self.kind.refuse(&mut self.records[index as usize].entry);
    }

    fn change(&mut self, order: &Order<'_>, problems: &mut Problems, work: &Work) -> Result<(), Refusal> {
        self.check_verb(order)?;
        let (chosen, spare) = order.selected()?;
        let selected = self.select(order, chosen, work)?;
        match order.verb {
            Verb::Add => {}
            Verb::Remove => self.remove(&selected),
            Verb::Move => {
                let before = order.value("destination").or(spare.first().copied());
                let before = before.map(|text| Ok((self.one(order, text, work)?, text.span.clone()))).transpose()?;
                self.move_before(&selected, before, work)?;
            }
            Verb::Set | Verb::Enable | Verb::Disable | Verb::Comment => {
                if order.verb == Verb::Comment && spare.is_empty() && order.value("comment").is_none() {
                    return Err((order.at.clone(), Complaint::new("`comment` has no comment").expected("a text")));
                }
                self.set(order, &selected, problems, work);
            }
        }
        Ok(())
    }

    /// Checks that the menu has the command, and that the command has only known properties.
    fn check_verb(&self, order: &Order<'_>) -> Result<(), Refusal> {
        let has = |property: &str| self.kind.knows(&Text::made(property.as_bytes(), 0..0));
        let works = match order.verb {
            Verb::Enable | Verb::Disable => has("disabled"),
            Verb::Comment => has("comment"),
            Verb::Move => K::ORDERED,
            Verb::Add | Verb::Set | Verb::Remove => true,
        };
        if !works {
            let complaint =
                Complaint::new(format!("entries of `{}` have no `{}`", self.kind.path(), order.verb.name()))
                    .expected("`add`, `set` or `remove`")
                    .help("leave the line out");
            return Err((order.at.clone(), complaint));
        }
        let stray = match order.verb {
            Verb::Set => None,
            Verb::Comment => {
                let mut first = true;
                order.properties().find(|word| word.name.bytes != b"comment" || !std::mem::take(&mut first))
            }
            _ => order.properties().next(),
        };
        stray.map_or(Ok(()), |word| {
            let message = format!("`{}` has no effect in `{}`", show(&word.name.bytes), order.verb.name());
            Err((word.span.clone(), Complaint::new(message).expected("entries").help("use `set` to change properties")))
        })
    }

    fn remove(&mut self, selected: &[u32]) {
        for index in selected {
            let record = &mut self.records[*index as usize];
            record.removed = true;
            self.kind.leave(*index, &record.entry);
            self.changes.remove(index);
        }
        self.removed += selected.len();
    }

    /// Drops removed entries from the order.
    fn compact(&mut self, work: &Work) {
        if self.removed > 0 {
            work.spend(self.order.len());
            self.order.retain(|index| !self.records[*index as usize].removed);
            self.removed = 0;
        }
    }

    /// The position of an entry in the order.
    fn place(&mut self, index: u32, work: &Work) -> usize {
        let place = self.order.iter().position(|other| *other == index).unwrap_or(self.order.len());
        // Entries after it must be moved.
        work.spend(self.order.len() / 16);
        place
    }

    fn move_before(
        &mut self,
        selected: &[u32],
        before: Option<(u32, Range<usize>)>,
        work: &Work,
    ) -> Result<(), Refusal> {
        let moved: HashSet<u32> = selected.iter().copied().collect();
        if let Some((_, span)) = before.as_ref().filter(|(before, _)| moved.contains(before)) {
            return Err((
                span.clone(),
                Complaint::new("an entry cannot be placed before itself").expected("another entry"),
            ));
        }
        work.spend(self.order.len());
        self.order.retain(|index| !moved.contains(index));
        let place = before.map_or(self.order.len(), |(before, _)| self.place(before, work));
        self.order.splice(place..place, selected.iter().copied());
        Ok(())
    }

    fn set(&mut self, order: &Order<'_>, selected: &[u32], problems: &mut Problems, work: &Work) {
        let change = Change { verb: order.verb, at: order.at.clone(), arguments: order.arguments() };
        let mut bad = 0;
        for index in selected {
            let before = problems.count();
            self.changes.entry(*index).or_default().push(change.clone());
            self.read_again(*index, order, problems, work);
            bad += usize::from(problems.count() > before);
            if bad == MOST_BAD_CHANGES || !work.spend(10) {
                break;
            }
        }
    }

    fn read_again(&mut self, index: u32, order: &Order<'_>, problems: &mut Problems, work: &Work) {
        work.spend(100);
        let (words, verb) = self.words(index, order.text, work);
        let record = &mut self.records[index as usize];
        self.kind.leave(index, &record.entry);
        let add = Add { words: &words, verb, line: record.line, intact: record.intact };
        record.entry = self.kind.read(&add, problems);
        self.enter(index, &words, &order.at, problems);
    }

    /// The words of an entry: the last one of each property, and the position of its verb.
    fn words(&self, index: u32, text: &[u8], work: &Work) -> (Vec<Word>, Range<usize>) {
        let record = &self.records[index as usize];
        work.spend(30 + record.source.len());
        let mut verb = record.source.start..record.source.start;
        let mut words = if record.source.is_empty() {
            vec![builtin_word(K::BUILTIN.get(record.line as usize).copied().unwrap_or_default())]
        } else {
            let mut words = words_of(text, record.source.clone());
            let arguments = words.split_off(usize::from(record.head).min(words.len()));
            verb = words.pop().map_or(verb, |word| word.span);
            if K::ORDERED { properties(Verb::Add, &arguments).cloned().collect() } else { arguments }
        };
        for change in self.changes.get(&index).into_iter().flatten() {
            work.spend(30 + change.arguments.len());
            let new = change.words(text);
            let names: HashSet<&[u8]> = new.iter().map(property_name).collect();
            words.retain(|word| !names.contains(property_name(word)));
            words.extend(new);
        }
        (words, verb)
    }

    /// The remaining entries, in the order of addition.
    pub(super) fn into_entries(self) -> impl Iterator<Item = K::Entry> {
        self.records.into_iter().filter(|record| !record.removed).map(|record| record.entry)
    }

    /// The remaining entries, in their order, each with a position in the file. The positions are those of the entries
    /// in the order of addition, so that a move within a menu does not change the order relative to other menus.
    pub(super) fn into_ordered(mut self) -> Vec<(usize, K::Entry)> {
        self.compact(&Work::default());
        let mut places: Vec<u32> = self.order.clone();
        places.sort_unstable();
        let places: Vec<usize> = places.iter().map(|index| self.records[*index as usize].source.start).collect();
        let mut entries: Vec<Option<K::Entry>> = self.records.into_iter().map(|record| Some(record.entry)).collect();
        let in_order = self.order.iter().map(|index| entries[*index as usize].take());
        places.into_iter().zip(in_order).filter_map(|(place, entry)| Some((place, entry?))).collect()
    }
}

impl Change {
    /// The value of an entry's property.
    fn words(&self, text: &[u8]) -> Vec<Word> {
        let words = words_of(text, self.arguments.clone());
        match self.verb {
            Verb::Enable => vec![self.word("disabled", Text::made(b"no", self.at.clone()))],
            Verb::Disable => vec![self.word("disabled", Text::made(b"yes", self.at.clone()))],
            Verb::Comment => {
                let named =
                    words.iter().find(|word| property_name(word) == b"comment").and_then(|word| word.value.clone());
                let last = words.into_iter().rev().find(|word| word.value.is_none()).map(|word| word.name);
                named.or(last).map(|comment| self.word("comment", comment)).into_iter().collect()
            }
            verb => properties(verb, &words).cloned().collect(),
        }
    }

    fn word(&self, name: &str, value: Text) -> Word {
        let span = value.span.clone();
        Word { span, name: Text::made(name.as_bytes(), self.at.clone()), value: Some(value), flawed: false }
    }
}

fn builtin_word(name: &str) -> Word {
    let value = Some(Text::made(name.as_bytes(), 0..0));
    Word { span: 0..0, name: Text::made(b"name", 0..0), value, flawed: false }
}
