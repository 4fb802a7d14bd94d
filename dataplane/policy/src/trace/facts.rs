//! The facts of a decision that a worker records for a trace.

use serde::{Deserialize, Serialize};

use crate::door::{Failure, What};
use crate::rule::ConnectionState;

/// The facts of a decision, as the worker saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TracedFacts {
    /// The rules that matched, by their position among the declared rules.
    pub matched: Vec<usize>,
    /// The last rule that matched, if `matched` does not have all of them.
    pub last: Option<usize>,
    /// The state of the connection; `None` before connection tracking.
    pub state: Option<ConnectionState>,
    /// The lists of the source and of the destination, before the packet.
    pub lists: [Vec<String>; 2],
    /// The results at doors.
    pub knocks: Vec<TracedKnock>,
    /// Whether the sender was answered.
    pub answered: bool,
}

/// A result at a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TracedKnock {
    /// The name of the door.
    pub door: String,
    /// The result.
    pub outcome: TracedOutcome,
}

/// The kind of a result at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TracedOutcome {
    /// The knock progressed to this number of steps.
    Step(u8),
    /// The door opened.
    Opened,
    /// An open door closed.
    Closed,
    /// The knock or the step failed.
    Failed(Failure),
}

impl From<What> for TracedOutcome {
    fn from(what: What) -> Self {
        match what {
            What::Stepped(steps) => TracedOutcome::Step(steps),
            What::Opened => TracedOutcome::Opened,
            What::Closed => TracedOutcome::Closed,
            What::Failed(failure) => TracedOutcome::Failed(failure),
        }
    }
}
