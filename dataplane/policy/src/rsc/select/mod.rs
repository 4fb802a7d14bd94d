//! `[find …]`: which entries of a menu a command is meant for.
//!
//! One of the entries that are found may be taken by its number: `([find …]->0)`, `[:pick [find …] 0]`.
//!
//! Owns the conditions and how they are combined: `name=value`, `name!=value`, `name~"expression"`, a name alone for
//! what is set, `!`, `and`, `or`, `&&`, `||`, blanks for `and`, and parentheses. Everything else that RouterOS
//! has for expressions is refused at its place. What an entry says is asked of its store.
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

/// A complaint and where it belongs.
pub(super) type Refusal = (Range<usize>, Complaint);

/// What is looked for.
#[derive(Debug)]
pub(super) enum Query {
    /// One condition.
    Test(Test),
    /// What is not so.
    Not(Box<Query>),
    /// All of these; every entry if there are none.
    All(Vec<Query>),
    /// One of these.
    Any(Vec<Query>),
}

/// A condition on one property.
#[derive(Debug)]
pub(super) struct Test {
    /// The property.
    pub(super) name: Text,
    /// What it is asked.
    pub(super) ask: Ask,
}

/// What a property is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// Whether it is set; for those that are `yes` or `no`, whether it is `yes`.
    Given,
    /// Whether it has this value.
    Is(Vec<u8>),
    /// Whether the expression matches somewhere in it.
    Like(Regex),
}

impl Query {
    /// Reads `[find …]`, or one of what that finds, brackets included, which stands at `span` in the text. `menu` is the
    /// path of the menu it is used in.
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

    /// Every condition in it.
    pub(super) fn tests(&mut self) -> Vec<&mut Test> {
        match self {
            Query::Test(test) => vec![test],
            Query::Not(query) => query.tests(),
            Query::All(queries) | Query::Any(queries) => queries.iter_mut().flat_map(Query::tests).collect(),
        }
    }

    /// The value that a property must have for the query to be true, if it says so plainly.
    pub(super) fn demands(&self, name: &str) -> Option<&[u8]> {
        match self {
            Query::Test(Test { name: tested, ask: Ask::Is(value) }) if tested.bytes == name.as_bytes() => Some(value),
            Query::All(queries) => queries.iter().find_map(|query| query.demands(name)),
            _ => None,
        }
    }

    /// Whether an entry meets it. `field` gives what the entry says, by name.
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
