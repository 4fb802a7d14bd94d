//! Doors: knock sequences as objects, for people who do not want to write rules.
//!
//! A `[[door]]` of the configuration says which packets, in which order and how soon, open what for how long. It is
//! three kinds of rules in front of the file's: who knocks, what is open, and the connections that began through it. The
//! language has two actions and a matcher for them that RouterOS does not have; only doors use them.
//!
//! ```text
//!  step 1 ─► step 2 ─► … ─► last step: a grant, of this door, this source and this destination
//!     ▲        │  within `within` of the step before, all of it within `total`
//!     └────────┘  strict: any other new packet from the source to a protected address, but to what doors open
//! ```
//!
//! Progress is of one source at one door, towards one destination at a time; a packet is held against all doors, so
//! that those with a common beginning go on side by side. A grant is of one door, one source and one destination.
//!
//! | module       | owns |
//! |--------------|------|
//! | this         | what a door says, and what its lists are called |
//! | [`step`]     | one packet of a knock: how it is written, and which packets it is |
//! | `opening`    | what a door opens |
//! | [`exempt`]   | packets to what doors open, which start no knock over |
//! | `attempts`   | how many first steps a source has |
//! | `written`    | a door as the configuration has it, and what is wrong with it |
//! | [`progress`] | what a packet does to a knock: one pure function |
//! | [`ports`]    | the budget of ports that a source may try |
//! | `secret`     | passphrases in a file that everybody can read |
//! | `rules`      | the rules that doors are |
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
pub use self::step::Step;
pub use self::written::{Written, distinct, placed};
use crate::rule::AddressSet;
use crate::word::words;

/// Steps that a knock may have.
pub const MOST_STEPS: usize = 16;

/// See the module. What stands in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Door {
    /// Letters, digits, `-` and `_`. No two doors have the same.
    pub name: String,
    /// The packets that open it, in order.
    pub knock: Vec<Step>,
    /// The packets that close it again, for a source that it is open for; none if only time does.
    pub close: Vec<Step>,
    /// How soon after one step the next must come.
    pub within: Duration,
    /// How soon after the first step the last must come.
    pub total: Duration,
    /// What opens at the address that was knocked at; everything if none is said.
    pub opens: Vec<Opening>,
    /// `for`: how long a grant lasts.
    pub open_for: Duration,
    /// Whether any other new packet from the source to a protected address starts it over.
    pub strict: bool,
    /// How long knocks of a source are ignored after one that opened.
    pub hold_off: Duration,
    /// Who may knock; anyone if none is said.
    pub sources: Vec<AddressSet>,
    /// How many first steps of a source count, in how much time; any number if none is said.
    pub max_attempts: Option<Attempts>,
    /// Whether it is logged when it opens and closes.
    pub log: bool,
    /// Whether connections that began through it end with the grant.
    pub cut: bool,
}

words! {
    /// Why a packet that is a step of a knock, or starts one over, came to nothing.
    Failure {
        /// Another packet came in between.
        StartedOver = "started-over",
        /// The step came too late.
        TimedOut = "timed-out",
        /// The lists were full, and others were further along.
        Evicted = "evicted",
        /// The source has opened the door a moment ago.
        HeldOff = "held-off",
        /// The source has begun too often.
        Attempts = "attempts",
        /// The source has tried too many ports.
        Ports = "ports",
        /// The source may not knock here.
        Source = "source",
    }
}

/// What a packet did at a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The door.
    pub door: String,
    /// Who knocks.
    pub source: IpAddr,
    /// What is knocked at.
    pub destination: IpAddr,
    /// What came of it.
    pub what: What,
}

/// What came of a packet at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// So many steps are taken now.
    Stepped(u8),
    /// It is open.
    Opened,
    /// It was open, and is not any more.
    Closed,
    /// The knock, or this step of it, came to nothing.
    Failed(Failure),
}

impl Door {
    /// The address list of those that it is open for. An entry counts towards one destination.
    pub fn open_list(&self) -> String {
        open_list(&self.name)
    }

    /// The address list of those that have begun to knock.
    pub fn knocking_list(&self) -> String {
        format!("door-{}-knocking", self.name)
    }

    /// The address list of those that have begun to close it.
    pub fn closing_list(&self) -> String {
        format!("door-{}-closing", self.name)
    }

    /// The names of all three.
    pub fn lists(&self) -> [String; 3] {
        [self.open_list(), self.knocking_list(), self.closing_list()]
    }

    /// What of the knock decides how it goes on.
    pub fn shape(&self) -> Shape {
        Shape { steps: count(&self.knock), strict: self.strict, within: self.within, total: self.total }
    }

    /// As [`Door::shape`], of the knock that closes it; none if there is none. It is never strict.
    pub fn closing_shape(&self) -> Option<Shape> {
        let shape = Shape { steps: count(&self.close), strict: false, within: self.within, total: self.total };
        (shape.steps > 0).then_some(shape)
    }

    /// Whether this source may knock.
    pub fn admits(&self, source: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|set| set.contains(source))
    }
}

/// Whom what is remembered of a source is remembered of: over IPv6 its /64, since whoever has one address there has all.
pub fn visitor(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The address list of those that the door of this name is open for.
pub fn open_list(door: &str) -> String {
    format!("door-{door}")
}

/// There are at most [`MOST_STEPS`].
fn count(steps: &[Step]) -> u8 {
    u8::try_from(steps.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
