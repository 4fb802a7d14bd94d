//! `[find …]`: selects entries of a menu.
//!
//! One of the found entries may be taken by its index: `([find …]->0)`, `[:pick [find …] 0]`.
//!
//! Owns the conditions and their combination: `name=value`, `name!=value`, `name~"expression"`, a name alone (the
//! property is set), `!`, `and`, `or`, `&&`, `||`, blanks for `and`, and parentheses. All other expressions of RouterOS
//! are refused at their position. The store provides the properties of entries.
//!
//! ```text
//! set [find where list=guests and comment~"^tmp"] disabled=yes
//!     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ Query
//! ```

mod reader;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use regex::bytes::Regex;

use self::reader::{Reader, taken};
use super::lexer::Text;
use super::problem::Complaint;

/// A complaint and its position.
pub(super) type Refusal = (Range<usize>, Complaint);

/// A query.
#[derive(Debug)]
pub(super) enum Query {
    /// One condition.
    Test(Test),
    /// The negation.
    Not(Box<Query>),
    /// All of these queries; true for every entry if there are none.
    All(Vec<Query>),
    /// At least one of these queries.
    Any(Vec<Query>),
}

/// A condition on one property.
#[derive(Debug)]
pub(super) struct Test {
    /// The property.
    pub(super) name: Text,
    /// The comparison.
    pub(super) ask: Ask,
}

/// The comparison of a property.
#[derive(Debug)]
pub(super) enum Ask {
    /// Whether the property is set; for a property with the values `yes` and `no`, whether it is `yes`.
    Given,
    /// Whether the property has this value.
    Is(Vec<u8>),
    /// Whether the expression matches a part of the value.
    Like(Regex),
}

impl Query {
    /// Parses `[find …]`, or the choice of one of the found entries, at `span` in the text, which includes the
    /// brackets. `menu` is the path of the menu of the command.
    pub(super) fn read(text: &[u8], span: &Range<usize>, menu: &str) -> Result<(Query, Option<usize>), Refusal> {
        match taken(text, span) {
            Some((find, number)) => Ok((Query::find(text, &find, menu)?, Some(number))),
            None => Ok((Query::find(text, span, menu)?, None)),
        }
    }

    fn find(text: &[u8], span: &Range<usize>, menu: &str) -> Result<Query, Refusal> {
        let inside = text.get(..span.end.saturating_sub(1)).unwrap_or(text);
        let mut reader = Reader { text: inside, at: span.start + 1, menu, conditions: 0 };
        reader.head(span)?;
        reader.skip_blanks();
        if reader.peek().is_none() {
            return Ok(Query::All(Vec::new()));
        }
        let query = reader.any(0)?;
        match reader.peek() {
            None => Ok(query),
            Some(_) => Err(reader.unexpected()),
        }
    }

    /// Every condition of the query.
    pub(super) fn tests(&mut self) -> Vec<&mut Test> {
        match self {
            Query::Test(test) => vec![test],
            Query::Not(query) => query.tests(),
            Query::All(queries) | Query::Any(queries) => queries.iter_mut().flat_map(Query::tests).collect(),
        }
    }

    /// The value that a property must have for the query to be true, if the query contains it directly.
    pub(super) fn demands(&self, name: &str) -> Option<&[u8]> {
        match self {
            Query::Test(Test { name: tested, ask: Ask::Is(value) }) if tested.bytes == name.as_bytes() => Some(value),
            Query::All(queries) => queries.iter().find_map(|query| query.demands(name)),
            _ => None,
        }
    }

    /// Whether an entry matches. `field` returns a property of the entry, by name.
    pub(super) fn meets<'a>(&self, field: &mut impl FnMut(&[u8]) -> Cow<'a, [u8]>) -> bool {
        match self {
            Query::Test(test) => {
                let value = field(&test.name.bytes);
                match &test.ask {
                    Ask::Given => !value.is_empty() && *value != *b"no",
                    Ask::Is(wanted) => *value == **wanted,
                    Ask::Like(regex) => regex.is_match(&value),
                }
            }
            Query::Not(query) => !query.meets(field),
            Query::All(queries) => queries.iter().all(|query| query.meets(field)),
            Query::Any(queries) => queries.iter().any(|query| query.meets(field)),
        }
    }
}
