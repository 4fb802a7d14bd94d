//! The messages between the dataplane and the control process: one JSON value per line over a unix stream socket.
//!
//! The dataplane sends a [`Greeting`]. Then it answers each [`Request`] line with one [`Response`] line, in order. It
//! checks the peer's credentials before it sends the greeting. A refused peer gets a greeting with the reason, and the
//! connection ends. A line longer than [`longest_line`] is answered with [`Response::Refused`], and the connection ends
//! as well. `docs/limits.md` has the other limits.

use serde::{Deserialize, Serialize};

pub mod confirmation;
pub mod connection_filter;
pub mod connections;
pub mod doors;
pub mod events;
pub mod fast_path;
pub mod frame_totals;
pub mod grants;
pub mod history;
pub mod interface;
mod line;
pub mod lists;
pub mod metrics;
pub mod names;
pub mod offload;
mod request;
mod response;
pub mod rules;
pub mod sample;
pub mod source;
pub mod source_rates;
pub mod status;
mod text;
pub mod trace;

pub use self::confirmation::{CONFIRM_WITHIN, PendingConfirmation, UnconfirmedChange, check_confirm_within};
pub use self::doors::{DoorSummary, Doors, FailureCount, IgnoredSource, Visitor};
pub use self::fast_path::{FastPathMisses, FastPathStatus, KernelQuery, KernelVerdict};
pub use self::interface::{Drift, DriftKind, Interface, InterfaceCounters, Repairs};
pub use self::line::{MAX_ANSWER_ENTRIES, MAX_LINE, MAX_SHORT_LINE, longest_line};
pub use self::lists::{After, ListEntry, ListOverview, ListPage, ListQuery, ListSummary, NewEntry};
pub use self::metrics::{
    EventReader, FrameCount, MAX_COMMENT, MetricsReport, PeersRefused, ProcessUsage, RingDrops, RuleMetrics,
    WorkerMetrics,
};
pub use self::names::{HostName, MAX_NAME_ADDRESSES, MAX_NAMES, NameAnswer, NameOutcome, NameState};
pub use self::request::{ApplyRequest, Request};
pub use self::response::{Added, Reloaded, Response};
pub use self::rules::{Counter, RuleCounters, RunningRules};
pub use self::status::{
    DataplaneStatus, DropCount, JournalStatus, LogStatus, LostLines, RestoreReport, StoredCountersStatus, TableMemory,
    WorkerStatus,
};
pub use self::text::as_text;

/// Version of these messages. Both sides refuse any other version.
pub const VERSION: u32 = 8;

/// The first line that the dataplane sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`VERSION`] of the dataplane.
    pub knockplane: u32,
    /// Version of the dataplane's package.
    pub version: String,
    /// The reason that the peer is refused; the connection ends after this line. `None` if the dataplane answers
    /// requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
