//! Reading RouterOS exports, and writing them.
//!
//! [`read`] takes the text of a `.rsc` file and gives the rules it holds, everything that is wrong with it, and what was
//! skipped. It promises three things. A command with anything wrong yields no rule: a rule without one of its
//! matchers would let in more. All problems of a file are found in one go. Any bytes can be read, in time and memory
//! linear in their number: what commands look for is paid from `work`, and what could be without end (words, flaws,
//! conditions, problems) ends at a limit, which is told.
//!
//! ```text
//!  bytes ─► encoding ─► script, if there is one ─► lexer ─► commands of words ─► menu ─► store, one for each menu ─► check ─► RuleSet
//!                                          │        command, select, store::find: which entries a command is for
//!                                          │        filter, layer7, address_list, …: what an entry's words say
//!                                          │        property: one table row a property; value: what values mean
//!                                          └► other menus that RouterOS has: skipped and counted
//!                   whatever is wrong ──► flaw, problem ─► finding ─► report
//! ```
//!
//! [`export`] is the way back, and [`wording`] how rules look in it and wherever else people see them.
//!
//! The language grows by rows in the tables of `filter` and its like, and by menus in `menu`.

mod address_list;
mod check;
mod command;
mod encoding;
mod export;
mod filter;
mod finding;
mod flaw;
mod incomplete;
mod interface;
mod kind;
mod layer7;
mod lexer;
mod local_address;
mod menu;
mod problem;
mod property;
mod reader;
mod reference;
mod report;
mod rules;
mod said;
mod script;
mod select;
mod store;
mod tracking;
mod value;
pub mod wording;
mod work;

use serde::Serialize;

pub use self::encoding::utf8;
pub use self::export::export;
pub use self::finding::{Also, Finding, PROBLEM_CODE, Severity, WARNING_CODE, place};
pub use self::problem::Problem;
pub(crate) use self::problem::nearest;
use self::problem::{Complaint, Problems};
use self::reader::Reader;
pub use self::reference::{ActionReference, MenuReference, PropertyReference, reference};
pub use self::report::{pictures, report};
pub use self::said::Said;
use crate::rule::RuleSet;

/// What a file said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The rules and patterns without problems, with their ids. To be used only if there are no problems at all.
    pub rules: RuleSet,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// What is not wrong, and worth a look: what the export itself says is missing, menus that RouterOS does not have, and
    /// statements of scripts that were passed over. In the order of the file.
    pub warnings: Vec<Problem>,
    /// Menus that are not firewall rules, in the order of their first command; beyond a thousand all in one, `…`.
    pub skipped: Vec<SkippedMenu>,
    /// Where each of the rules is said, in their order.
    #[serde(skip)]
    pub rules_said: Vec<Said>,
    /// Where each of the patterns is said, in their order.
    #[serde(skip)]
    pub patterns_said: Vec<Said>,
}

/// A menu whose commands were passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SkippedMenu {
    /// Its path, such as `/ip firewall nat`.
    pub menu: String,
    /// How many commands it had.
    pub commands: u32,
}

/// Reads the text of a rule file. Places in it are those in [`utf8`] of it.
pub fn read(file: &[u8]) -> Reading {
    let text = utf8(file);
    if encoding::is_unmarked_utf16(&text) {
        let complaint = Complaint::new("the file is UTF-16, without the mark that says so")
            .expected("UTF-8, or a byte order mark")
            .help("save it as UTF-8");
        let mut problems = Problems::default();
        problems.add(0..text.len().min(2), complaint);
        return Reading { problems: problems.place(&text), ..Reading::default() };
    }
    Reader::new(&text, None).read().unwrap_or_else(|_| {
        let expansion = script::expand(&text);
        let reader = Reader::new(&expansion.text, Some((&text, &expansion)));
        reader.read().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests;
