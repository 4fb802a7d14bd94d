//! Requests of the control process.

use serde::{Deserialize, Serialize};

use super::connections::ConnectionQuery;
use super::lists::{ListQuery, NewEntry};
use super::names::NameAnswer;
use super::source::SourceQuery;
use super::text::as_text;
use crate::rule::{AddressSet, RuleSet};

/// What control asks.
// The content stands beside the tag: within it, a million entries would be kept a second time while they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "kebab-case")]
pub enum Request {
    /// Answered by [`Response::Status`].
    Status,
    /// Answered by [`Response::Rules`].
    Rules,
    /// Answered by [`Response::Lists`].
    Lists(ListQuery),
    /// Answered by [`Response::Doors`].
    Doors {
        /// Only this door.
        door: Option<String>,
        /// At most so many sources that knock, so many that a door is open for, and so many that are ignored.
        limit: usize,
    },
    /// Everything that is known of one source. Answered by [`Response::Source`].
    Source(SourceQuery),
    /// A part of the table of connections. Answered by [`Response::Connections`].
    Connections(ConnectionQuery),
    /// Answered by [`Response::Metrics`].
    Metrics,
    /// Compile this rule set beside the workers, swap it in whole, keep lists and the counters of rules that stay.
    /// Answered by [`Response::Applied`] when every worker runs it, or [`Response::Refused`] and nothing changed.
    /// [`Response::Failed`] if the rules cannot be kept, and nothing changed; or if a worker hangs, and the others run
    /// the new rules.
    Apply {
        /// The rules.
        rules: Box<RuleSet>,
        /// Where they came from, for people: a file name.
        source: String,
        /// What the host names of their address lists resolve to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<NameAnswer>,
    },
    /// The host names in the address lists of the rules that run. Answered by [`Response::Names`].
    Names,
    /// What host names resolve to now. Names that no list holds are passed over. Answered by [`Response::Done`].
    NameAnswers(Vec<NameAnswer>),
    /// Read the configuration file again, and take over its doors and its `[policy]` as [`Request::Apply`] does with
    /// rules. Answered by [`Response::Reloaded`], or else as that.
    Reload,
    /// Put entries in lists, all or none. What the rules hold for good already stays as it is, and so does what is to
    /// get a timeout and is in for good already. Answered by [`Response::Added`], or [`Response::Refused`] if a single
    /// entry was to get a timeout and cannot.
    ListAdd {
        /// The entries.
        entries: Vec<NewEntry>,
    },
    /// Take an entry out of a list. Answered by [`Response::Done`], or [`Response::Refused`] if it was not there, or is
    /// one of the rules.
    ListRemove {
        /// The list.
        list: String,
        /// The address, prefix or range of the entry.
        #[serde(with = "as_text")]
        address: AddressSet,
    },
    /// Take every entry out of a list but those of the rules. Answered by [`Response::Flushed`].
    ListFlush {
        /// The list.
        list: String,
        /// Leave what operators put in for good.
        dynamic: bool,
    },
}
