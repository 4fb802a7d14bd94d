//! Responses of the dataplane.

use serde::{Deserialize, Serialize};

use super::connections::{ConnectionCounts, ConnectionPage};
use super::doors::Doors;
use super::events::EventBatch;
use super::fast_path::KernelVerdict;
use super::frame_totals::FrameTotals;
use super::history::{History, RevisionRules};
use super::lists::ListPage;
use super::metrics::MetricsReport;
use super::names::NameState;
use super::rules::{RuleCounters, RunningRules};
use super::sample::TrafficSample;
use super::source::SourceReport;
use super::source_rates::SourceRates;
use super::status::DataplaneStatus;
use super::trace::{TraceBegun, TracedPackets};

/// A response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "with", rename_all = "kebab-case")]
pub enum Response {
    /// The answer to [`Request::Status`].
    Status(Box<DataplaneStatus>),
    /// The answer to [`Request::Rules`].
    Rules(Box<RunningRules>),
    /// The answer to [`Request::RuleCounters`].
    RuleCounters(RuleCounters),
    /// The answer to [`Request::Lists`].
    Lists(ListPage),
    /// The host names in the address lists of the running rules.
    Names(Vec<NameState>),
    /// The answer to [`Request::Doors`].
    Doors(Doors),
    /// The answer to [`Request::Source`].
    Source(Box<SourceReport>),
    /// The answer to [`Request::BeginSample`].
    SampleBegun {
        /// Its id.
        sample: u64,
    },
    /// The answer to [`Request::EndSample`].
    Sample(TrafficSample),
    /// The answer to [`Request::BeginTrace`].
    TraceBegun(TraceBegun),
    /// The answer to [`Request::ReadTrace`].
    Traced(TracedPackets),
    /// The answer to [`Request::Connections`].
    Connections(ConnectionPage),
    /// The answer to [`Request::CountConnections`].
    ConnectionCounts(ConnectionCounts),
    /// The answer to [`Request::EndConnections`].
    ConnectionsEnded {
        /// Number of ended connections.
        ended: u64,
    },
    /// The answer to [`Request::SourceRates`].
    SourceRates(SourceRates),
    /// The answer to [`Request::FrameTotals`].
    FrameTotals(FrameTotals),
    /// The answer to [`Request::Metrics`].
    Metrics(Box<MetricsReport>),
    /// The answer to [`Request::Events`].
    Events(Box<EventBatch>),
    /// The answer to [`Request::Kernel`].
    Kernel(KernelVerdict),
    /// The answer to [`Request::Apply`].
    Applied {
        /// The running generation.
        generation: u64,
        /// Its revision: the one before if the rules are the same.
        revision: u64,
    },
    /// The answer to [`Request::Confirm`].
    Confirmed {
        /// The running generation.
        generation: u64,
    },
    /// The answer to [`Request::Reload`].
    Reloaded(Reloaded),
    /// The answer to [`Request::History`].
    History(History),
    /// The answer to [`Request::Revision`].
    Revision(Box<RevisionRules>),
    /// The answer to [`Request::ListAdd`].
    Added(Added),
    /// The answer to [`Request::ListFlush`].
    Flushed {
        /// Number of removed entries.
        removed: u64,
    },
    /// The request succeeded.
    Done,
    /// The request is valid, but failed.
    Failed {
        /// The cause, the resulting state and the remedy.
        error: String,
    },
    /// The request is valid, but not possible in the present state; nothing changed.
    Conflict {
        /// The cause and the remedy.
        error: String,
    },
    /// The request is valid, but the entry that it names does not exist, or not any more; nothing changed.
    NoEntry {
        /// The entry and the list.
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
    /// Number of entries that did not change, because they are static already.
    pub left: u64,
    /// The lists of these entries that no running rule matches, ordered by name. Entries of such a list have no effect.
    pub unused: Vec<String>,
}

/// The configuration was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The running generation.
    pub generation: u64,
    /// The number of doors.
    pub doors: usize,
    /// Keys of `[dataplane]` that changed in the file and take effect after a restart.
    pub waiting: Vec<String>,
}
