//! Counts of the changes of grants, for metrics.

use serde::{Deserialize, Serialize};

use crate::event::{EventKind, Origin};
use crate::word::words;

words! {
    /// A change of a grant: the begin, another expiry, or the cause of the end.
    GrantChange {
        /// The grant began, by a knock or by an operator.
        Granted = "granted",
        /// The grant got another expiry.
        Refreshed = "refreshed",
        /// The grant expired.
        Expired = "expired",
        /// The lists were full, and another entry replaced the grant.
        Evicted = "evicted",
        /// The source knocked to close the door.
        Knock = "knock",
        /// An operator removed the grant.
        Operator = "operator",
        /// The rules or the configuration changed.
        Rules = "rules",
    }
}

impl GrantChange {
    /// Whether the change ends the grant.
    pub fn is_end(self) -> bool {
        !matches!(self, GrantChange::Granted | GrantChange::Refreshed)
    }

    /// The change that an event of a door's open list reports; `None` if it reports none.
    pub fn of(kind: EventKind, origin: Option<Origin>) -> Option<GrantChange> {
        match (kind, origin) {
            (EventKind::Granted | EventKind::Listed, _) => Some(GrantChange::Granted),
            (EventKind::Refreshed, _) => Some(GrantChange::Refreshed),
            (EventKind::Expired, _) => Some(GrantChange::Expired),
            (EventKind::Evicted, _) => Some(GrantChange::Evicted),
            (EventKind::Removed | EventKind::Flushed, Some(Origin::Packet)) => Some(GrantChange::Knock),
            (EventKind::Removed | EventKind::Flushed, Some(Origin::Operator)) => Some(GrantChange::Operator),
            (EventKind::Removed | EventKind::Flushed, _) => Some(GrantChange::Rules),
            // Progress of a knock is in another list. A bulk change names no entries.
            (EventKind::Stepped | EventKind::Bulk, _) => None,
        }
    }
}

/// The changes of one door's grants since start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorGrants {
    /// The door.
    pub door: String,
    /// The counts; all changes are present.
    pub changes: Vec<GrantChangeCount>,
}

/// The number of changes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantChangeCount {
    /// The kind.
    pub change: GrantChange,
    /// The count.
    pub times: u64,
}
