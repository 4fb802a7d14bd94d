//! `show doors`.

use knockplane_policy::door::Failure;
use knockplane_policy::wire::{self, FailureCount};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Network, Peer, seconds};

/// The doors and the sources at them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Doors {
    /// The doors, in the order of the configuration.
    pub(crate) doors: Vec<Door>,
    /// Sources whose knock is in progress, ordered by door and address, at most `--limit`.
    pub(crate) knocking: Vec<Visitor>,
    /// Sources with a grant, in the same order and number.
    pub(crate) open: Vec<Visitor>,
    /// Sources whose knocks are ignored, in the same order and number; those that are ignored at all doors first.
    pub(crate) ignored: Vec<Ignored>,
    /// Whether there are more of any kind.
    pub(crate) truncated: bool,
}

/// One door. Counters are since the dataplane started. A change of the door does not reset them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Door {
    pub(crate) door: String,
    /// The number of times that each step of the knock was taken, in order.
    pub(crate) steps: Vec<u64>,
    /// The number of times that a knock opened the door.
    pub(crate) opened: u64,
    /// The number of times that a knock closed the door.
    pub(crate) closed: u64,
    /// Failed steps and knocks by reason.
    pub(crate) failed: Vec<FailureCount>,
    /// Number of sources whose knock is in progress now.
    pub(crate) knocking: u64,
    /// Number of grants now, each for one source and one destination.
    pub(crate) open: u64,
}

/// A source at a door.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Visitor {
    pub(crate) door: String,
    /// The source; a prefix or range for an entry of an operator.
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) network: Network,
    /// The destination of the knock or of the grant; `null` for every address.
    pub(crate) to: Option<Peer>,
    /// Number of steps taken; `null` for a grant.
    pub(crate) steps: Option<u8>,
    /// Time left for the next step, or until the grant expires; `null` if it does not expire.
    pub(crate) time_left_seconds: Option<f64>,
}

/// A source whose knocks are ignored.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ignored {
    /// The door; `null` for all doors.
    pub(crate) door: Option<String>,
    /// The source; the /64 of an IPv6 address.
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) network: Network,
    pub(crate) reason: Failure,
    pub(crate) time_left_seconds: f64,
}

impl From<wire::DoorSummary> for Door {
    fn from(summary: wire::DoorSummary) -> Self {
        let wire::DoorSummary { door, steps, opened, closed, failed, knocking, open } = summary;
        Door { door, steps, opened, closed, failed, knocking, open }
    }
}

impl From<wire::Visitor> for Visitor {
    fn from(visitor: wire::Visitor) -> Self {
        let wire::Visitor { door, address, vlan, to, steps, time_left } = visitor;
        Visitor {
            door,
            address: address.to_string(),
            network: vlan.into(),
            to: to.map(Peer::from),
            steps: Some(steps).filter(|steps| *steps > 0),
            time_left_seconds: time_left.map(seconds),
        }
    }
}

impl From<wire::IgnoredSource> for Ignored {
    fn from(ignored: wire::IgnoredSource) -> Self {
        let wire::IgnoredSource { door, address, vlan, reason, time_left } = ignored;
        let (address, network) = (address.to_string(), vlan.into());
        Ignored { door, address, network, reason, time_left_seconds: seconds(time_left) }
    }
}

impl From<wire::Doors> for Doors {
    fn from(doors: wire::Doors) -> Self {
        let wire::Doors { doors, knocking, open, ignored, truncated } = doors;
        let visitors = |visitors: Vec<wire::Visitor>| visitors.into_iter().map(Visitor::from).collect();
        Doors {
            doors: doors.into_iter().map(Door::from).collect(),
            knocking: visitors(knocking),
            open: visitors(open),
            ignored: ignored.into_iter().map(Ignored::from).collect(),
            truncated,
        }
    }
}
