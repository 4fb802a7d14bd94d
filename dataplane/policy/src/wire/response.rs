//! Responses of the dataplane.

use serde::{Deserialize, Serialize};

use super::connections::ConnectionPage;
use super::doors::Doors;
use super::lists::ListPage;
use super::metrics::MetricsReport;
use super::names::NameState;
use super::rules::RunningRules;
use super::source::SourceReport;
use super::status::DataplaneStatus;

/// A response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "with", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(DataplaneStatus),
    /// To [`Request::Rules`].
    Rules(RunningRules),
    /// To [`Request::Lists`].
    Lists(ListPage),
    /// The host names in the address lists of the running rules.
    Names(Vec<NameState>),
    /// To [`Request::Doors`].
    Doors(Doors),
    /// To [`Request::Source`].
    Source(Box<SourceReport>),
    /// To [`Request::Connections`].
    Connections(ConnectionPage),
    /// To [`Request::Metrics`].
    Metrics(Box<MetricsReport>),
    /// To [`Request::Apply`].
    Applied {
        /// The running generation.
        generation: u64,
    },
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::ListAdd`].
    Added(Added),
    /// To [`Request::ListFlush`].
    Flushed {
        /// Number of removed entries.
        removed: u64,
    },
    /// The request succeeded.
    Done,
    /// The request failed, through no fault of the request.
    Failed {
        /// The cause, the resulting state and the remedy.
        error: String,
    },
    /// The request is invalid; nothing changed.
    Refused {
        /// The cause and the remedy.
        error: String,
    },
}

/// The result of adding entries to lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Number of entries that stayed unchanged, because they are static already.
    pub left: u64,
    /// The lists among them that no running rule matches, ordered by name: entries have no effect there.
    pub unused: Vec<String>,
}

/// The configuration was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The running generation.
    pub generation: u64,
    /// Its number of doors.
    pub doors: usize,
    /// Keys of `[dataplane]` that changed in the file and take effect after a restart.
    pub waiting: Vec<String>,
}
