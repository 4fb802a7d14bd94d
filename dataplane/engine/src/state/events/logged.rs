//! Packets that rules log: a bounded queue from the workers to the log.
//!
//! A worker never waits. If the queue is full, the newest entry is dropped and counted. No verdict depends on log
//! lines.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use knockplane_policy::eval::log::LoggedPacket;

use super::RulePosition;

/// A packet that matched a rule that logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedMatch {
    /// The rule.
    pub rule: RulePosition,
    /// The packet.
    pub packet: LoggedPacket,
}

/// The queue.
pub struct LoggedPackets {
    queue: ArrayQueue<LoggedMatch>,
    lost: AtomicU64,
}

impl LoggedPackets {
    /// Creates an empty queue for `capacity` packets, at least one.
    pub fn new(capacity: usize) -> LoggedPackets {
        LoggedPackets { queue: ArrayQueue::new(capacity.max(1)), lost: AtomicU64::new(0) }
    }

    /// Appends a packet, or counts it as lost. Returns whether the queue had room.
    #[inline]
    pub fn push(&self, logged: LoggedMatch) -> bool {
        let fits = self.queue.push(logged).is_ok();
        if !fits {
            self.count_lost(1);
        }
        fits
    }

    /// Removes and returns the oldest packet.
    pub fn pop(&self) -> Option<LoggedMatch> {
        self.queue.pop()
    }

    /// Counts packets as lost that left the queue and were not logged.
    pub fn count_lost(&self, packets: u64) {
        self.lost.fetch_add(packets, Ordering::Relaxed);
    }

    /// The number of packets that were lost since start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::{Packet, Side};

    use super::*;

    fn packet(rule: u32) -> LoggedMatch {
        let packet = Packet::bare(Side::Outside, [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 6);
        LoggedMatch { rule: RulePosition { table: 1, rule }, packet: LoggedPacket::of(&packet, None) }
    }

    #[test]
    fn a_full_queue_loses_the_newest_and_counts_it() {
        let queue = LoggedPackets::new(1);
        assert!(queue.push(packet(1)) && !queue.push(packet(2)));
        assert_eq!((queue.pop(), queue.pop(), queue.lost()), (Some(packet(1)), None, 1));
        queue.count_lost(3);
        assert_eq!(queue.lost(), 4);
    }
}
