//! Requests of the control process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection_filter::ConnectionFilter;
use super::connections::ConnectionQuery;
use super::events::EventQuery;
use super::fast_path::KernelQuery;
use super::history::{ApplyNote, RevisionOrigin};
use super::lists::{ListQuery, NewEntry};
use super::names::NameAnswer;
use super::sample::SampleQuery;
use super::source::SourceQuery;
use super::text::as_text;
use super::trace::TraceQuery;
use crate::rule::{AddressSet, RuleId, RuleSet};

/// A request.
// The content is next to the tag: inside it, serde would buffer a million entries a second time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "kebab-case")]
pub enum Request {
    /// Answered by [`Response::Status`].
    Status,
    /// Answered by [`Response::Rules`].
    Rules,
    /// Answered by [`Response::RuleCounters`], also while a change is in progress.
    RuleCounters,
    /// Answered by [`Response::Lists`].
    Lists(ListQuery),
    /// Answered by [`Response::Doors`].
    Doors {
        /// Only this door.
        door: Option<String>,
        /// Maximum number of sources with a knock in progress, of sources with a grant, and of ignored sources.
        limit: usize,
    },
    /// All state of one source in the dataplane. Answered by [`Response::Source`].
    Source(SourceQuery),
    /// Begins a sample of traffic. Answered by [`Response::SampleBegun`], or by [`Response::Conflict`] while another sample
    /// is in progress.
    BeginSample(SampleQuery),
    /// Ends the sample with this id. Answered by [`Response::Sample`], or by [`Response::Conflict`] if there is none.
    EndSample(u64),
    /// Begins a trace. Answered by [`Response::TraceBegun`], or by [`Response::Conflict`] while another trace runs.
    BeginTrace(TraceQuery),
    /// The packets of the trace with this id since the last read. Answered by [`Response::Traced`], or by
    /// [`Response::Conflict`] if there is none.
    ReadTrace(u64),
    /// Ends the trace with this id, if it runs. Answered by [`Response::Done`].
    EndTrace(u64),
    /// A part of the connection table. Answered by [`Response::Connections`].
    Connections(ConnectionQuery),
    /// Counts of a part of the connection table. `limit` is not used. Answered by [`Response::ConnectionCounts`].
    CountConnections(ConnectionQuery),
    /// Ends these connections. No frame passes any more because it belongs to one of them. Answered by
    /// [`Response::ConnectionsEnded`].
    EndConnections(ConnectionFilter),
    /// The busiest sources: at most `limit` by bytes, and as many by dropped packets. Answered by
    /// [`Response::SourceRates`].
    SourceRates {
        /// At most [`MAX_RATED_SOURCES`](super::source_rates::MAX_RATED_SOURCES).
        limit: usize,
    },
    /// Answered by [`Response::FrameTotals`]. Cheaper than the status: it reads only counters of frames.
    FrameTotals,
    /// Answered by [`Response::Metrics`].
    Metrics,
    /// The events after a position, and logged packets. Answered by [`Response::Events`]. A reader repeats the request on one
    /// connection.
    Events(EventQuery),
    /// What the kernel does now with frames like this one. Answered by [`Response::Kernel`].
    Kernel(KernelQuery),
    /// Compiles this rule set while the workers run, and then replaces the running rules as a whole. Lists and the
    /// counters of unchanged rules remain. Answered by [`Response::Applied`] when every worker runs the new rules, or
    /// by [`Response::Refused`] if nothing changed. [`Response::Failed`] means either that the rules could not be
    /// stored and nothing changed, or that a worker hangs and the others run the new rules. [`Response::Conflict`] means
    /// that an earlier apply or reload waits for its confirmation, or that the rules are based on another revision than the
    /// one that runs.
    Apply(Box<ApplyRequest>),
    /// Sets the counters of these running rules to zero, or those of all rules if none is named. Metrics continue.
    /// Answered by [`Response::Done`], or by [`Response::Conflict`] if a rule does not run.
    ResetCounters(Vec<RuleId>),
    /// Confirms the apply or the reload that waits for it: the rules or the settings remain. Answered by
    /// [`Response::Confirmed`], or by [`Response::Conflict`] if none waits. [`Response::Failed`] means that this could not
    /// be stored, and that the change still waits.
    Confirm,
    /// Rolls the change back that waits for its confirmation, now. The note has the operator. Answered as [`Request::Apply`], or by
    /// [`Response::Conflict`] if none waits.
    Cancel(ApplyNote),
    /// The host names in the address lists of the running rules. Answered by [`Response::Names`].
    Names,
    /// The present addresses of host names. Names that no list contains are ignored. Answered by [`Response::Done`].
    NameAnswers(Vec<NameAnswer>),
    /// Reads the configuration file again and applies its doors and its `[policy]` as [`Request::Apply`] does with
    /// rules. Answered by [`Response::Reloaded`], or as [`Request::Apply`].
    Reload {
        /// The user id of the operator's process, as in [`ApplyNote`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// The name of the operator's API token, as in [`ApplyNote`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// Whether the request came from the web page, as in [`ApplyNote`].
        #[serde(default)]
        page: bool,
        /// As in [`Request::Apply`], for the doors and `[policy]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_within: Option<Duration>,
    },
    /// The rule sets that have run. Answered by [`Response::History`].
    History,
    /// The rule set with this number. Answered by [`Response::Revision`], or by [`Response::Conflict`] if it is not kept.
    Revision(u64),
    /// Adds entries to lists, all or none. Static entries of the rules do not change, and neither do static entries for
    /// which a timeout is requested. Answered by [`Response::Added`], or by [`Response::Refused`] if a single entry
    /// cannot get the requested timeout.
    ListAdd {
        /// The entries.
        entries: Vec<NewEntry>,
    },
    /// Removes an entry from a list. Answered by [`Response::Done`], by [`Response::NoEntry`], or by [`Response::Refused`]
    /// if the entry belongs to the rules.
    ListRemove {
        /// The list.
        list: String,
        /// The address, prefix or range of the entry.
        #[serde(with = "as_text")]
        address: AddressSet,
    },
    /// Removes every entry of a list, except those of the rules. Answered by [`Response::Flushed`].
    ListFlush {
        /// The list.
        list: String,
        /// Whether the static entries of operators remain.
        dynamic: bool,
    },
}

/// Rules to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The rules.
    pub rules: RuleSet,
    /// The source of the rules for operators: a file name. For an edit, the source of the rules that it changes.
    pub source: String,
    /// The addresses of the host names in their address lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameAnswer>,
    /// Rolls the rules back after this time, unless [`Request::Confirm`] arrives before: [`CONFIRM_WITHIN`](super::CONFIRM_WITHIN).
    /// A restart of the dataplane meanwhile also restores the rules before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<Duration>,
    /// The revision on which the rules are based. If another one runs, nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub based_on: Option<u64>,
    /// The origin for the history: one of an operator.
    #[serde(default)]
    pub origin: RevisionOrigin,
    /// What the history tells about it.
    #[serde(default)]
    pub note: ApplyNote,
}
