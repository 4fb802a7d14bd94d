//! What tells the entries of one menu from those of another.

use std::borrow::Cow;

use super::lexer::Text;
use super::problem::Problems;
use super::property::Add;
use super::select::Query;
use super::store::Record;

/// What a menu's entries are.
pub(super) trait Kind {
    /// What is made of the words of an `add`: also of wrong ones, so that others may refer to it.
    type Entry;

    /// Whether the order of the entries means something, so that they can be placed and moved.
    const ORDERED: bool = false;

    /// Whether commands may name entries by their `name`.
    const NAMED: bool = false;

    /// Names of the entries that are there before the file.
    const BUILTIN: &'static [&'static str] = &[];

    /// The menu.
    fn path(&self) -> &'static str;

    /// Whether entries have this property.
    fn knows(&self, name: &Text) -> bool;

    /// Reads the words of an entry.
    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> Self::Entry;

    /// What an entry says of a property, if that is known without its words.
    fn field<'e>(&self, _entry: &'e Self::Entry, _name: &[u8]) -> Option<Cow<'e, [u8]>> {
        None
    }

    /// What an entry says of a property that it was not given.
    fn default(&self, name: &[u8]) -> &'static [u8] {
        match name {
            b"disabled" | b"dynamic" => b"no",
            _ => b"",
        }
    }

    /// Brings a value that is looked for into the form in which entries say it.
    fn normalize(&self, _name: &[u8], _value: &mut Vec<u8>) {}

    /// The only entries that can meet the query, if they can be told at once.
    fn candidates(&self, _query: &Query) -> Option<Vec<u32>> {
        None
    }

    /// An entry is new, or says something new. Gives the entry that is there already and says the same, if there
    /// may be only one.
    fn enter(&mut self, _index: u32, _records: &[Record<Self::Entry>]) -> Option<u32> {
        None
    }

    /// An entry goes away, or is about to say something else.
    fn leave(&mut self, _index: u32, _entry: &Self::Entry) {}

    /// An entry that is there already is not to be used.
    fn refuse(&self, _entry: &mut Self::Entry) {}
}
