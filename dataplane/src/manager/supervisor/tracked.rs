//! Statistics of connections: their number, and whether their table is full.
//!
//! Workers use the table all the time. The manager locks one set of the table after the other, and reads a bounded part
//! at once.

use std::ops::ControlFlow;
use std::time::Duration;

use knockplane_engine::state::connections::ConnectionTable;
use knockplane_policy::time::Time;
use knockplane_policy::wire::connections::ConnectionTableStatus;

use super::Supervisor;

/// The number of sets that a tick counts: 65,536 slots, a few milliseconds. The default table takes half a second.
pub(super) const SETS_IN_A_TICK: usize = 4_096;

/// The interval of log lines about a full table.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The statistics of connections.
#[derive(Debug, Default)]
pub(crate) struct TableWatch {
    /// The slot at which the count continues, and the count so far.
    next: u64,
    counting: u64,
    /// The last complete count.
    known: u64,
    refused: u64,
    last_refused: Option<Time>,
    /// The number of refused packets that the log contains, and the time of the last line.
    logged: (u64, Option<Time>),
}

impl TableWatch {
    /// Counts a part of the connections.
    fn count(&mut self, flows: &ConnectionTable, now: Time) {
        let next = flows.walk(self.next, SETS_IN_A_TICK, now, |_| {
            self.counting += 1;
            ControlFlow::Continue(())
        });
        self.next = next.unwrap_or_default();
        if next.is_none() {
            self.known = std::mem::take(&mut self.counting);
        }
    }

    /// Updates the number of packets that found no room since start. Returns the number for the next line of the log,
    /// if it is due.
    fn refused(&mut self, refused: u64, now: Time) -> Option<u64> {
        if refused > self.refused {
            (self.refused, self.last_refused) = (refused, Some(now));
        }
        let (told, at) = self.logged;
        let is_due = at.is_none_or(|at| now.since(at) >= LOG_EVERY);
        (refused > told && is_due).then(|| {
            self.logged = (refused, Some(now));
            refused - told
        })
    }
}

impl Supervisor {
    /// Counts connections, and logs packets that found no room.
    pub(super) fn watch_connections(&mut self, now: Time) {
        let Some(flows) = self.shared.state.connections() else { return };
        self.table_watch.count(flows, now);
        if let Some(packets) = self.table_watch.refused(flows.refused(), now) {
            let (known, capacity) = (self.table_watch.known, self.connection_capacity);
            tracing::warn!(
                packets,
                known,
                capacity,
                "the table of connections is full: new connections are not tracked, and end when their door closes, or at \
                 once where rules ask for their state; raise `connection-capacity`, or see `knockctl show connections`"
            );
        }
    }

    /// The occupancy of the table; `None` if no rule needs the table.
    pub(super) fn connection_table(&self, now: Time) -> Option<ConnectionTableStatus> {
        self.shared.state.connections()?;
        let TableWatch { known, refused, last_refused, .. } = self.table_watch;
        let capacity = self.connection_capacity as u64;
        Some(ConnectionTableStatus { known, capacity, refused, last_refused: last_refused.map(|at| now.since(at)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_full_table_is_logged_at_once_and_then_every_ten_seconds() {
        let mut watch = TableWatch::default();
        assert_eq!(watch.refused(0, at(1)), None);
        assert_eq!(watch.refused(3, at(2)), Some(3));
        assert_eq!(watch.refused(9, at(3)), None);
        assert_eq!(watch.refused(10, at(12)), Some(7), "what was not told yet");
        assert_eq!(watch.refused(10, at(30)), None, "nothing new");
        assert_eq!((watch.refused, watch.last_refused), (10, Some(at(12))));
    }
}
