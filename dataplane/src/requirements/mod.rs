//! The requirements of the filter on its configuration, its two interfaces and the host, each stated once.
//!
//! A start refuses a host that does not meet them, `--check` and `--doctor` report them before a start, and `drift`
//! compares the interfaces with them while the filter runs. docs/drift.md describes the reaction to each unmet
//! requirement.
//!
//! | file            | requirements of |
//! |-----------------|-----------------|
//! | `observed.rs`   | nothing: the state of an interface, read at one moment |
//! | `wire.rs`       | the interfaces, each and both together |
//! | `mode.rs`       | how frames are received: native or generic XDP, zero-copy or a copy |
//! | `configured.rs` | the configuration and the files that it names |

pub(crate) mod configured;
pub(crate) mod mode;
mod observed;
pub(crate) mod wire;

use knockplane_policy::doctor::{HostFinding, Level, Scope};
use knockplane_policy::packet::Side;
use knockplane_policy::wire::{Drift, DriftKind};
use knockplane_policy::word::Word as _;

pub(crate) use self::observed::{Observed, is_harmful};

/// An unmet requirement that can also become unmet while the filter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unmet {
    pub(crate) kind: DriftKind,
    pub(crate) finding: HostFinding,
}

impl Unmet {
    /// The finding, and the reason that the filter cannot work with it.
    pub(crate) fn new(kind: DriftKind, found: impl Into<String>, why: impl Into<String>) -> Self {
        Unmet { kind, finding: HostFinding::ok(Scope::Wire, kind.name(), found).because(Level::Error, why) }
    }

    /// Adds the remedy in words.
    pub(crate) fn change(self, change: impl Into<String>) -> Self {
        Unmet { finding: self.finding.change(change), ..self }
    }

    /// Adds a command as the remedy.
    pub(crate) fn run(self, command: impl Into<String>) -> Self {
        Unmet { finding: self.finding.run(command), ..self }
    }

    /// The finding with which a start refuses this side.
    fn at(self, side: Side) -> HostFinding {
        HostFinding { scope: scope(side), ..self.finding }
    }
}

impl From<Unmet> for Drift {
    fn from(unmet: Unmet) -> Self {
        Drift { kind: unmet.kind, problem: unmet.finding.to_string() }
    }
}

/// The scope of findings about a side.
pub(crate) fn scope(side: Side) -> Scope {
    match side {
        Side::Outside => Scope::Outside,
        Side::Inside => Scope::Inside,
    }
}
