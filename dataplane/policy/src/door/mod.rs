//! Doors: knock sequences as objects, for operators who do not want to write rules.
//!
//! A `[[door]]` of the configuration defines the packets of a knock, their order and timing, the ports that the knock
//! opens, and the duration. A door becomes three kinds of rules in front of the rules of the file: knocks, openings,
//! and the connections that began through the door. The language has two actions and a matcher for them that RouterOS
//! does not have; only doors use them.
//!
//! ```text
//!  step 1 ─► step 2 ─► … ─► last step: a grant, of this door, this source and this destination
//!     ▲        │  within `within` of the step before, all of it within `total`
//!     └────────┘  strict: any other new packet from the source to a protected address, but to what doors open
//! ```
//!
//! Progress belongs to one source at one door, towards one destination at a time. A packet is tested against all doors,
//! so that doors with the same first steps progress side by side. A grant belongs to one door, one source and one
//! destination.
//!
//! | module       | owns |
//! |--------------|------|
//! | this         | the definition of a door, and the names of its lists |
//! | [`step`]     | one packet of a knock: its text form, and the packets that match it |
//! | `opening`    | what a door opens |
//! | [`exempt`]   | packets to open ports, which do not restart a knock |
//! | `attempts`   | limit on a source's first steps |
//! | `written`    | a door as the configuration has it, and its validation |
//! | [`progress`] | the effect of a packet on a knock: one pure function |
//! | [`ports`]    | limit on the ports that a source may try |
//! | `secret`     | passphrases in a file that all users can read |
//! | `rules`      | the rules that doors become |
//!
//! `docs/doors.md` is the manual.

mod attempts;
pub mod exempt;
mod opening;
pub mod ports;
pub mod progress;
mod rules;
mod secret;
pub mod step;
mod written;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::attempts::Attempts;
pub use self::opening::{Opening, Opens};
use self::progress::Shape;
pub use self::rules::{levels, proofs, rules};
pub use self::secret::exposed;
pub use self::step::KnockStep;
pub use self::written::{Written, distinct, placed};
use crate::rule::AddressSet;
use crate::word::words;

/// Maximum number of steps of a knock.
pub const MOST_STEPS: usize = 16;

/// A validated door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Door {
    /// Letters, digits, `-` and `_`. Unique among doors.
    pub name: String,
    /// The packets that open the door, in order.
    pub knock: Vec<KnockStep>,
    /// The packets that close the door for a source with a grant; empty if a grant only expires.
    pub close: Vec<KnockStep>,
    /// Longest time between two steps.
    pub within: Duration,
    /// Longest time between the first step and the last.
    pub total: Duration,
    /// The protocols and ports that open at the destination of the knock; all if empty.
    pub opens: Vec<Opening>,
    /// `for`: the duration of a grant.
    pub open_for: Duration,
    /// Whether any other new packet from the source to a protected address restarts the knock.
    pub strict: bool,
    /// The time for which knocks of a source are ignored after one that opened the door.
    pub hold_off: Duration,
    /// The sources that may knock; all if empty.
    pub sources: Vec<AddressSet>,
    /// Limit on a source's first steps; `None` for no limit.
    pub max_attempts: Option<Attempts>,
    /// Whether opening and closing are logged.
    pub log: bool,
    /// Whether connections that began through the door end with the grant.
    pub cut: bool,
}

words! {
    /// The reason that a packet failed which matches a step of a knock, or which restarts a knock.
    Failure {
        /// Another packet arrived between the steps.
        StartedOver = "started-over",
        /// The step arrived too late.
        TimedOut = "timed-out",
        /// The lists were full of entries of higher levels.
        Evicted = "evicted",
        /// The source opened the door recently (`hold-off`).
        HeldOff = "held-off",
        /// The source exceeded `max-attempts`.
        Attempts = "attempts",
        /// The source exceeded the port budget.
        Ports = "ports",
        /// The source may not knock at this door.
        Source = "source",
    }
}

/// An event at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The door.
    pub door: String,
    /// The source.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
    /// The kind of event.
    pub what: What,
}

/// A kind of event at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The knock progressed to this number of steps.
    Stepped(u8),
    /// The door opened.
    Opened,
    /// An open door closed.
    Closed,
    /// The knock or the step failed.
    Failed(Failure),
}

impl Door {
    /// The address list of sources with a grant. An entry counts for one destination.
    pub fn open_list(&self) -> String {
        open_list(&self.name)
    }

    /// The address list of sources whose knock is in progress.
    pub fn knocking_list(&self) -> String {
        format!("door-{}-knocking", self.name)
    }

    /// The address list of sources whose closing knock is in progress.
    pub fn closing_list(&self) -> String {
        format!("door-{}-closing", self.name)
    }

    /// The names of the three lists.
    pub fn lists(&self) -> [String; 3] {
        [self.open_list(), self.knocking_list(), self.closing_list()]
    }

    /// The parameters of the knock that decide its progress.
    pub fn shape(&self) -> Shape {
        Shape { steps: count(&self.knock), strict: self.strict, within: self.within, total: self.total }
    }

    /// As [`Door::shape`], for the closing knock; `None` if there is none. A closing knock is never strict.
    pub fn closing_shape(&self) -> Option<Shape> {
        let shape = Shape { steps: count(&self.close), strict: false, within: self.within, total: self.total };
        (shape.steps > 0).then_some(shape)
    }

    /// Whether this source may knock.
    pub fn admits(&self, source: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|set| set.contains(source))
    }
}

/// The address under which a source's hold-off, attempts and ports are recorded: an IPv6 source's /64, because the
/// owner of one address has all of them.
pub fn visitor(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The address list of sources with a grant of the door with this name.
pub fn open_list(door: &str) -> String {
    format!("door-{door}")
}

/// The number of steps, at most [`MOST_STEPS`].
fn count(steps: &[KnockStep]) -> u8 {
    u8::try_from(steps.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
