//! Detects offloads at senders. The workers count the affected packets, and this module logs a warning once, with the
//! remedy.

use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_policy::wire::offload::{Offload, OffloadWarning};

use super::Supervisor;

/// The state of the warnings.
#[derive(Debug, Default)]
pub(crate) struct OffloadWatch {
    seen: Offload,
    /// The time when a counter last grew.
    last: Option<Time>,
}

impl OffloadWatch {
    /// Updates the counters. Returns the warnings that the log does not contain yet: one for each side, and one for
    /// lengths.
    fn look(&mut self, checksums: [u64; 2], too_long: u64, now: Time) -> Vec<OffloadWarning> {
        let before = std::mem::replace(&mut self.seen, Offload { checksums, too_long, last: None });
        if before == self.seen {
            return Vec::new();
        }
        self.last = Some(now);
        let is_first = |side: &Side| before.checksums[side.index()] == 0;
        let sides = Side::ALL.into_iter().filter(is_first);
        let checksums = sides.filter_map(|side| Offload::checksum_warning(side, checksums[side.index()]));
        checksums.chain(Offload::length_warning(too_long).filter(|_| before.too_long == 0)).collect()
    }
}

impl Supervisor {
    /// Reads the counters.
    pub(super) fn watch_offload(&mut self, now: Time) {
        let checksums = Side::ALL.map(|side| self.shared.state.without_checksum(side));
        let too_long =
            |reason| self.workers.iter().map(|worker| worker.counters.frames(Verdict::Drop, reason)).sum::<u64>();
        let too_long = [Reason::FrameTooLong, Reason::MultiBuffer].map(too_long).iter().sum();
        for warning in self.offload_watch.look(checksums, too_long, now) {
            tracing::warn!("{warning}");
        }
    }

    /// The counters at the last read.
    pub(super) fn offload(&self, now: Time) -> Offload {
        let OffloadWatch { seen, last } = &self.offload_watch;
        Offload { last: last.map(|at| now.since(at)), ..*seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_said_once_and_warned_of_for_a_while() {
        let at = |second: u64| Time::from_nanos(second * 1_000_000_000);
        let mut watch = OffloadWatch::default();
        assert!(watch.look([0, 0], 0, at(1)).is_empty());
        let said = |warnings: Vec<OffloadWarning>| warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let first = said(watch.look([2, 0], 0, at(2)));
        assert!(
            first.len() == 1 && first[0].contains("2 packets have no checksum") && first[0].contains("from outside")
        );
        assert!(first[0].contains("`ethtool -K INTERFACE tx off tso off gso off`"), "{first:?}");
        assert!(watch.look([3, 0], 0, at(3)).is_empty(), "it was said");
        let later = said(watch.look([3, 1], 7, at(4)));
        assert!(
            later.len() == 2 && later[0].contains("1 packet has") && later[1].contains("7 frames were dropped"),
            "{later:?}"
        );
        assert_eq!((watch.last, watch.seen.checksums, watch.seen.too_long), (Some(at(4)), [3, 1], 7));
    }
}
