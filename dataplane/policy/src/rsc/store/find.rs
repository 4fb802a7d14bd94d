//! Finds the entries that a command selects: by number, by id, by name, or by their properties.

use std::borrow::Cow;
use std::collections::HashSet;

use super::super::command::{Item, Order, Selector, Verb, property_name};
use super::super::kind::Kind;
use super::super::lexer::{Text, Word};
use super::super::problem::{Complaint, show};
use super::super::select::{Ask, Query, Refusal, Test};
use super::super::work::Work;
use super::Store;

impl<K: Kind> Store<K> {
    /// The selected entries. There must be at least one, except for `remove [find …]`.
    pub(super) fn select(&mut self, order: &Order<'_>, chosen: &Text, work: &Work) -> Result<Vec<u32>, Refusal> {
        let selected = match Selector::read(order.text, chosen, self.kind.path())? {
            Selector::Find(query) => {
                let found = self.find(order.text, query, work)?;
                // A script that installs rules first removes the rules of its previous run.
                if order.verb == Verb::Remove {
                    return Ok(found);
                }
                found
            }
            Selector::OneOf(query, number) => {
                self.compact(work);
                let found = self.find(order.text, query, work)?;
                found.get(number).copied().into_iter().collect()
            }
            Selector::Items(items) => {
                let mut selected = Vec::new();
                for (item, span) in items {
                    selected.push(self.item(&item, order.text, work).map_err(|complaint| (span, complaint))?);
                }
                let mut seen = HashSet::new();
                selected.retain(|index| seen.insert(*index));
                selected
            }
        };
        if selected.is_empty() {
            let written = order.text.get(chosen.span.clone()).unwrap_or_default();
            let complaint =
                Complaint::new(format!("no entry of `{}` is found by `{}`", self.kind.path(), show(written)))
                    .expected("a condition that entries above this line meet")
                    .help("add the entry above this line, or correct the condition: values are compared as written");
            return Err((chosen.span.clone(), complaint));
        }
        Ok(selected)
    }

    /// The single entry before which another one is placed.
    pub(super) fn one(&mut self, order: &Order<'_>, chosen: &Text, work: &Work) -> Result<u32, Refusal> {
        let selected = self.select(order, chosen, work)?;
        match selected[..] {
            [only] => Ok(only),
            _ => {
                let complaint = Complaint::new(format!("these are {} entries", selected.len()))
                    .expected("one entry")
                    .help("add conditions that only one entry meets, or take the first one: `([find …]->0)`");
                Err((chosen.span.clone(), complaint))
            }
        }
    }

    fn find(&self, text: &[u8], mut query: Query, work: &Work) -> Result<Vec<u32>, Refusal> {
        for test in query.tests() {
            self.check_test(test, work)?;
        }
        let all;
        let candidates: &[u32] = match self.kind.candidates(&query) {
            Some(candidates) => {
                all = candidates;
                &all
            }
            None => &self.order,
        };
        let mut found = Vec::new();
        for index in candidates {
            if !work.spend(2) {
                break;
            }
            if !self.records[*index as usize].removed && self.meets(*index, &query, text, work) {
                found.push(*index);
            }
        }
        Ok(found)
    }

    fn check_test(&self, test: &mut Test, work: &Work) -> Result<(), Refusal> {
        let name = &test.name;
        if !self.kind.knows(name) && name.bytes != b"dynamic" {
            let complaint = Complaint::new(format!("`{}` cannot be searched for", show(&name.bytes)))
                .expected(format!("a property of entries of `{}`", self.kind.path()))
                .help("write a condition on properties of the entries, such as `comment=\"…\"`");
            return Err((name.span.clone(), complaint));
        }
        match &mut test.ask {
            Ask::Is(value) => self.kind.normalize(&test.name.bytes, value),
            // The cost of the compilation.
            Ask::Like(_) => _ = work.spend(20_000),
            Ask::Given => {}
        }
        Ok(())
    }

    fn meets(&self, index: u32, query: &Query, text: &[u8], work: &Work) -> bool {
        let record = &self.records[index as usize];
        let mut words = None;
        query.meets(&mut |name: &[u8]| {
            let value = self.kind.field(&record.entry, name).unwrap_or_else(|| {
                let (words, _) = words.get_or_insert_with(|| self.words(index, text, work));
                match words.iter().rev().find(|word| property_name(word) == name) {
                    Some(Word { value: Some(value), .. }) => Cow::Owned(value.bytes.clone()),
                    // Unset.
                    Some(_) => Cow::Borrowed(b""),
                    None => Cow::Borrowed(self.kind.default(name)),
                }
            });
            work.spend(1 + value.len() / 4);
            value
        })
    }

    fn item(&mut self, item: &Item, text: &[u8], work: &Work) -> Result<u32, Complaint> {
        let found = match item {
            Item::Number(number) => self.numbered(*number, work)?,
            Item::Id(id) => {
                let index = id.checked_sub(1).and_then(|id| id.checked_add(K::BUILTIN.len()));
                index.filter(|index| *index < self.records.len()).map(|index| index as u32)
            }
            Item::Name(name) if K::NAMED => {
                let test = Test { name: Text::made(b"name", 0..0), ask: Ask::Is(name.clone()) };
                self.find(text, Query::Test(test), work).unwrap_or_default().first().copied()
            }
            Item::Name(_) => {
                let complaint = Complaint::new(format!("entries of `{}` have no names", self.kind.path()));
                return Err(complaint.expected("`[find …]`, or a number").help("write `[find comment=\"…\"]`"));
            }
        };
        found.filter(|index| !self.records[*index as usize].removed).ok_or_else(|| {
            let (said, why) = match item {
                Item::Number(number) => (number.to_string(), "the first entry is `0`"),
                Item::Id(id) => (format!("*{id:X}"), "the first entry of a file is `*1`"),
                Item::Name(name) => (show(name), "entries are added before they are changed"),
            };
            Complaint::new(format!("`{}` has no entry `{said}` at this point", self.kind.path()))
                .expected("an entry that was added above")
                .help(format!("{why}; better write `[find comment=\"…\"]`"))
        })
    }

    /// The entry with a number. RouterOS keeps the numbers of the last `print`, or of their first use, until the next
    /// `print`; the time at which it drops them is not documented. So a number is valid only if it selects the same
    /// entry in both cases.
    fn numbered(&mut self, number: usize, work: &Work) -> Result<Option<u32>, Complaint> {
        self.compact(work);
        let now = self.order.get(number).copied();
        let numbers = self.numbers.get_or_insert_with(|| {
            work.spend(self.order.len() / 64);
            self.order.clone()
        });
        let first = numbers.get(number).copied().filter(|index| !self.records[*index as usize].removed);
        if now == first {
            return Ok(now);
        }
        Err(Complaint::new(format!("it is not clear which entry has the number {number} now"))
            .expected("`[find …]`")
            .help("entries were added, moved or removed since a number was first used, and RouterOS may keep the old ones"))
    }
}
