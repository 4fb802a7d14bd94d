//! Kinds of log lines. Each has its own room in the queue, so that lines of one kind never displace lines of another.

use tracing::{Level, Metadata};

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
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

impl LogKind {
    /// All kinds.
    pub const ALL: [LogKind; 6] =
        [LogKind::Door, LogKind::List, LogKind::Operator, LogKind::Packet, LogKind::Other, LogKind::Debug];

    /// The kind's name in metrics, messages and targets of lines.
    pub const fn name(self) -> &'static str {
        match self {
            LogKind::Door => "door",
            LogKind::List => "list",
            LogKind::Operator => "operator",
            LogKind::Packet => "packet",
            LogKind::Other => "other",
            LogKind::Debug => "debug",
        }
    }

    /// The kind of a line, by its level and the last part of its target, see [`target!`](crate::target).
    pub(crate) fn of(metadata: &Metadata<'_>) -> LogKind {
        if *metadata.level() > Level::INFO {
            return LogKind::Debug;
        }
        match metadata.target().rsplit("::").next() {
            Some("door") => LogKind::Door,
            Some("list") => LogKind::List,
            Some("operator") => LogKind::Operator,
            Some("packet") => LogKind::Packet,
            _ => LogKind::Other,
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
