//! Reads and writes RouterOS exports.
//!
//! [`read`] takes the text of a `.rsc` file and returns its rules, its problems, and the skipped menus. It guarantees
//! three properties. A command with any error yields no rule: a rule without one of its matchers would accept more. All
//! problems of a file are reported in one run. Any bytes can be read, in time and memory linear in their number:
//! searches by commands spend the budget of `work`, and all quantities without a natural bound (words, errors,
//! conditions, problems) have a limit, which is reported.
//!
//! ```text
//!  bytes ─► encoding ─► script, if there is one ─► lexer ─► commands of words ─► menu ─► store, one for each menu ─► check ─► RuleSet
//!                                          │        command, select, store::find: the entries to which a command applies
//!                                          │        filter, layer7, address_list, …: the meaning of an entry's words
//!                                          │        property: one table row a property; value: the meaning of values
//!                                          └► other menus that RouterOS has: skipped and counted
//!                   any error ──► syntax_error, problem ─► finding ─► report
//! ```
//!
//! [`export`] is the inverse, and [`wording`] the form of rules in exports and in all output for operators.
//!
//! New properties are rows in the tables of `filter` and similar modules; new menus are entries in `menu`.

mod address_list;
mod changes;
mod check;
mod command;
mod encoding;
mod export;
mod filter;
mod finding;
mod incomplete;
mod interface;
mod layer7;
mod lexer;
mod line;
mod local_address;
mod menu;
mod menu_kind;
mod problem;
mod property;
mod reader;
mod reference;
mod report;
mod rules;
mod script;
mod select;
mod spans;
mod store;
mod syntax_error;
mod tracking;
mod value;
pub mod wording;
mod work;

use serde::Serialize;

pub use self::changes::{RuleSetChanges, beyond};
pub use self::encoding::utf8;
pub use self::export::{export, other_commands};
pub use self::finding::{Also, Finding, PROBLEM_CODE, Severity, WARNING_CODE, place};
pub use self::line::{CommandWord, command_words};
pub use self::problem::Problem;
pub(crate) use self::problem::nearest;
use self::problem::{Problems, RscError};
use self::reader::RuleFileReader;
pub use self::reference::{ActionReference, MenuReference, PropertyReference, reference};
pub use self::report::{pictures, report};
pub use self::spans::SourceSpans;
pub(crate) use self::value::range;
use crate::rule::RuleSet;

/// The contents of a rule file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The rules and patterns without problems, with their ids. The caller must use them only if there are no problems.
    pub rules: RuleSet,
    /// All problems, in the order of the file.
    pub problems: Vec<Problem>,
    /// Warnings, in the order of the file: missing parts of the export, menus that RouterOS does not have, and ignored
    /// statements of scripts.
    pub warnings: Vec<Problem>,
    /// Menus without firewall rules, in the order of their first command. Above a thousand, one entry with the name `…`
    /// contains the rest.
    pub skipped: Vec<SkippedMenu>,
    /// The positions of each rule's properties, in the order of the rules.
    #[serde(skip)]
    pub rule_spans: Vec<SourceSpans>,
    /// The positions of each pattern's properties, in the order of the patterns.
    #[serde(skip)]
    pub pattern_spans: Vec<SourceSpans>,
}

/// A menu whose commands were skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SkippedMenu {
    /// The path, such as `/ip firewall nat`.
    pub menu: String,
    /// The number of its commands.
    pub commands: u32,
}

/// Reads the text of a rule file. Positions refer to [`utf8`] of it.
pub fn read(file: &[u8]) -> Reading {
    let text = utf8(file);
    if encoding::is_unmarked_utf16(&text) {
        let error = RscError::new("the file is UTF-16 without a byte order mark")
            .expected("UTF-8, or a byte order mark")
            .help("save it as UTF-8");
        let mut problems = Problems::default();
        problems.add(0..text.len().min(2), error);
        return Reading { problems: problems.place(&text), ..Reading::default() };
    }
    RuleFileReader::new(&text, None).read().unwrap_or_else(|_| {
        let expansion = script::expand(&text);
        let reader = RuleFileReader::new(&expansion.text, Some((&text, &expansion)));
        reader.read().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests;
