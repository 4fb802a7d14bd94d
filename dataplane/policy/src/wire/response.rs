//! Responses of the dataplane.

use serde::{Deserialize, Serialize};

use super::connections::Connections;
use super::doors::Doors;
use super::lists::Lists;
use super::metrics::Metrics;
use super::names::NameState;
use super::rules::Rules;
use super::source::Source;
use super::status::Status;

/// What the dataplane answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "with", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Rules`].
    Rules(Rules),
    /// To [`Request::Lists`].
    Lists(Lists),
    /// The host names in the address lists of the rules that run.
    Names(Vec<NameState>),
    /// To [`Request::Doors`].
    Doors(Doors),
    /// To [`Request::Source`].
    Source(Box<Source>),
    /// To [`Request::Connections`].
    Connections(Connections),
    /// To [`Request::Metrics`].
    Metrics(Box<Metrics>),
    /// To [`Request::Apply`].
    Applied {
        /// The generation that runs now.
        generation: u64,
    },
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::ListAdd`].
    Added(Added),
    /// To [`Request::ListFlush`].
    Flushed {
        /// Entries that are gone.
        removed: u64,
    },
    /// It was done.
    Done,
    /// It could not be done, through no fault of the request.
    Failed {
        /// Why, what state things are in, and what to do.
        error: String,
    },
    /// It was not done, because it makes no sense, and nothing changed.
    Refused {
        /// Why, and what to do.
        error: String,
    },
}

/// Entries were put in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Entries that were left as they were: they are in for good already.
    pub left: u64,
    /// The lists among them that no rule that runs matches, in the order of names: entries have no effect there.
    pub unused: Vec<String>,
}

/// The configuration was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation that runs now.
    pub generation: u64,
    /// How many doors it has.
    pub doors: usize,
    /// Keys of `[dataplane]` that the file has changed and that wait for a restart.
    pub waiting: Vec<String>,
}
