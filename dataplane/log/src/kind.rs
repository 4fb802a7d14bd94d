//! Kinds of log lines. Each has its own room in the queue, so that lines of one kind never displace lines of another.

use tracing::{Level, Metadata};

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A door was opened or closed.
    Door,
    /// An address was added to a list or removed from it.
    List,
    /// An operator made a change, or watches a source.
    Operator,
    /// A packet matched a rule that logs.
    Packet,
    /// All other lines of the levels info, warn and error: start and stop, links, workers, refusals, panics.
    Other,
    /// All lines of the levels debug and trace.
    Debug,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 6] = [Kind::Door, Kind::List, Kind::Operator, Kind::Packet, Kind::Other, Kind::Debug];

    /// The kind's name in metrics, messages and targets of lines.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Door => "door",
            Kind::List => "list",
            Kind::Operator => "operator",
            Kind::Packet => "packet",
            Kind::Other => "other",
            Kind::Debug => "debug",
        }
    }

    /// The kind of a line, by its level and the last part of its target, see [`target!`](crate::target).
    pub(crate) fn of(metadata: &Metadata<'_>) -> Kind {
        if *metadata.level() > Level::INFO {
            return Kind::Debug;
        }
        match metadata.target().rsplit("::").next() {
            Some("door") => Kind::Door,
            Some("list") => Kind::List,
            Some("operator") => Kind::Operator,
            Some("packet") => Kind::Packet,
            _ => Kind::Other,
        }
    }
}

/// The target of a line of this kind, below the module that logs it, so that filters by module see it:
/// `tracing::info!(target: knockplane_log::target!("door"), …)`.
#[macro_export]
macro_rules! target {
    ($kind:literal) => {
        concat!(module_path!(), "::", $kind)
    };
}
