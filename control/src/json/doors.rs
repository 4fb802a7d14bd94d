//! `show doors`.

use knockplane_policy::door::Failure;
use knockplane_policy::wire::{self, FailureCount};
use schemars::JsonSchema;
use serde::Serialize;

use super::{NetworkJson, PeerJson, seconds};

/// The doors and the sources at them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DoorsJson {
    /// The doors, in the order of the configuration.
    pub(crate) doors: Vec<DoorJson>,
    /// Sources whose knock is in progress, ordered by door and address, at most `--limit`.
    pub(crate) knocking: Vec<VisitorJson>,
    /// Sources with a grant, in the same order and number.
    pub(crate) open: Vec<VisitorJson>,
    /// Sources whose knocks are ignored, in the same order and number; those that are ignored at all doors first.
    pub(crate) ignored: Vec<IgnoredSourceJson>,
    /// Whether there are more of any kind.
    pub(crate) truncated: bool,
}

/// One door. Counters are since the dataplane started. A change of the door does not reset them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DoorJson {
    pub(crate) door: String,
    /// The steps of the knock in the form of the configuration: `tcp/7000 syn`, `udp/4321 with its passphrase`, `icmp size=128`. No
    /// role sees a passphrase here.
    pub(crate) knock: Vec<String>,
    /// The steps of the closing knock in the same form; empty if the door has none.
    pub(crate) close: Vec<String>,
    /// The protocols and ports that the door opens, in the form of the configuration: `tcp/22`; empty for all.
    pub(crate) opens: Vec<String>,
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
pub(crate) struct VisitorJson {
    pub(crate) door: String,
    /// The source; a prefix or range for an entry of an operator.
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) network: NetworkJson,
    /// The destination of the knock or of the grant; `null` for every address.
    pub(crate) to: Option<PeerJson>,
    /// Number of steps taken; `null` for a grant.
    pub(crate) steps: Option<u8>,
    /// Time left for the next step, or until the grant expires; `null` if it does not expire.
    pub(crate) time_left_seconds: Option<f64>,
}

/// A source whose knocks are ignored.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Ignored")]
pub(crate) struct IgnoredSourceJson {
    /// The door; `null` for all doors.
    pub(crate) door: Option<String>,
    /// The source; the /64 of an IPv6 address.
    pub(crate) address: String,
    #[serde(flatten)]
    pub(crate) network: NetworkJson,
    pub(crate) reason: Failure,
    pub(crate) time_left_seconds: f64,
}

impl From<wire::DoorSummary> for DoorJson {
    fn from(summary: wire::DoorSummary) -> Self {
        let wire::DoorSummary { door, knock, close, opens, steps, opened, closed, failed, knocking, open } = summary;
        DoorJson { door, knock, close, opens, steps, opened, closed, failed, knocking, open }
    }
}

impl From<wire::Visitor> for VisitorJson {
    fn from(visitor: wire::Visitor) -> Self {
        let wire::Visitor { door, address, vlan, to, steps, time_left } = visitor;
        VisitorJson {
            door,
            address: address.to_string(),
            network: vlan.into(),
            to: to.map(PeerJson::from),
            steps: Some(steps).filter(|steps| *steps > 0),
            time_left_seconds: time_left.map(seconds),
        }
    }
}

impl From<wire::IgnoredSource> for IgnoredSourceJson {
    fn from(ignored: wire::IgnoredSource) -> Self {
        let wire::IgnoredSource { door, address, vlan, reason, time_left } = ignored;
        let (address, network) = (address.to_string(), vlan.into());
        IgnoredSourceJson { door, address, network, reason, time_left_seconds: seconds(time_left) }
    }
}

impl From<wire::Doors> for DoorsJson {
    fn from(doors: wire::Doors) -> Self {
        let wire::Doors { doors, knocking, open, ignored, truncated } = doors;
        let visitors = |visitors: Vec<wire::Visitor>| visitors.into_iter().map(VisitorJson::from).collect();
        DoorsJson {
            doors: doors.into_iter().map(DoorJson::from).collect(),
            knocking: visitors(knocking),
            open: visitors(open),
            ignored: ignored.into_iter().map(IgnoredSourceJson::from).collect(),
            truncated,
        }
    }
}
