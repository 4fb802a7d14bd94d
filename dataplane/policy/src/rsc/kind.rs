//! The differences between the entries of menus.

use std::borrow::Cow;

use super::lexer::Text;
use super::problem::Problems;
use super::property::Add;
use super::select::Query;
use super::store::Record;

/// The kind of a menu's entries.
pub(super) trait Kind {
    /// The result of an `add`. It also exists for an `add` with errors, so that other entries can reference it.
    type Entry;

    /// Whether the order of entries matters, so that they can be placed and moved.
    const ORDERED: bool = false;

    /// Whether commands may name entries by their `name`.
    const NAMED: bool = false;

    /// Names of the entries that exist before the file.
    const BUILTIN: &'static [&'static str] = &[];

    /// The menu.
    fn path(&self) -> &'static str;

    /// Whether entries have this property.
    fn knows(&self, name: &Text) -> bool;

    /// Parses the words of an entry.
    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> Self::Entry;

    /// The value of an entry's property, if the words of the entry are not needed for it.
    fn field<'e>(&self, _entry: &'e Self::Entry, _name: &[u8]) -> Option<Cow<'e, [u8]>> {
        None
    }

    /// The default value of a property.
    fn default(&self, name: &[u8]) -> &'static [u8] {
        match name {
            b"disabled" | b"dynamic" => b"no",
            _ => b"",
        }
    }

    /// Converts a searched value to the form of stored values.
    fn normalize(&self, _name: &[u8], _value: &mut Vec<u8>) {}

    /// The only entries that can match the query, if an index contains them.
    fn candidates(&self, _query: &Query) -> Option<Vec<u32>> {
        None
    }

    /// Records a new or changed entry. Returns an existing equal entry, if the menu does not allow two.
    fn enter(&mut self, _index: u32, _records: &[Record<Self::Entry>]) -> Option<u32> {
        None
    }

    /// Records that an entry is removed or about to change.
    fn leave(&mut self, _index: u32, _entry: &Self::Entry) {}

    /// Marks an entry as refused.
    fn refuse(&self, _entry: &mut Self::Entry) {}
}
