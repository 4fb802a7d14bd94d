//! What a verdict of the kernel's fast path depends on, and the connections that the fast path carries, in memory that the
//! engine and the XDP program share.
//!
//! The program records each packet that it forwards, before it forwards it. So an answer to such a packet finds it
//! recorded. The engine records the packets that come up. Both only let numbers increase, and the engine keeps its own
//! record: an update that two writers lose in this memory is there again after the next packet that comes up.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::eval::tracking::WindowNumbers;
use crate::sync::{AtomicU32, AtomicU64};

/// A number that changes with an address or with the static entries, at the time of a lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Its place among all epochs. The number at place 0 never changes.
    pub place: u32,
    /// Its value.
    pub value: u32,
}

/// The record of a connection, on which a verdict about its packets depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// The number of the record.
    pub record: u32,
    /// The epoch of the record at the time of the decision.
    pub epoch: u32,
    /// Whether the packets of the flow are replies to the originator.
    pub is_reply: bool,
}

/// A carried connection: `struct record` of `dataplane/ring/bpf/fast_path.h`. One for each slot of the table of
/// connections, with two numbers of each kind: of the originator, and of the responder.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct CarriedConnection {
    /// `end`, `next`, `acknowledged` and `limit` of both ends, as in [`WindowNumbers::sequences`].
    sequences: [AtomicU32; 8],
    windows: [AtomicU32; 2],
    /// The time of the last packet, CLOCK_MONOTONIC in nanoseconds.
    last: AtomicU64,
    /// IP bytes that the engine has not added to the connection yet.
    bytes: AtomicU64,
    /// Changes when verdicts about the connection end.
    epoch: AtomicU32,
    /// The window scale of each end, 4 bits each, and [`CarriedConnection::IS_TCP`].
    kind: AtomicU32,
}

/// The carried connections of a table: their number is that of its slots.
pub type CarriedConnections = Arc<dyn AsRef<[CarriedConnection]> + Send + Sync>;

impl CarriedConnection {
    /// Set in [`CarriedConnection::kind`] for TCP.
    pub const IS_TCP: u32 = 1 << 8;

    /// Begins the record of a connection whose last packet arrived at this time; for TCP with its numbers and the window scale
    /// of each end. Verdicts about the previous connection have ended.
    pub fn begin(&self, tcp: Option<&(WindowNumbers, [u8; 2])>, last: u64) {
        let (numbers, scales) = tcp.map_or_else(Default::default, |(numbers, scales)| (*numbers, Some(*scales)));
        let kind = scales.map_or(0, |[one, other]| Self::IS_TCP | u32::from(one & 0xf) | u32::from(other & 0xf) << 4);
        self.kind.store(kind, Relaxed);
        let all = self.sequences.iter().chain(&self.windows);
        for (number, value) in all.zip(numbers.sequences.iter().chain(&numbers.windows)) {
            number.store(*value, Release);
        }
        self.bytes.store(0, Relaxed);
        self.last.store(last, Relaxed);
    }

    /// Raises the numbers to those of a packet that came up.
    pub fn raise(&self, numbers: &WindowNumbers) {
        for (number, value) in self.sequences.iter().zip(numbers.sequences) {
            let is_later = |old: u32| ((old.wrapping_sub(value) as i32) < 0).then_some(value);
            let _ = number.fetch_update(AcqRel, Acquire, is_later);
        }
        for (number, value) in self.windows.iter().zip(numbers.windows) {
            number.fetch_max(value, AcqRel);
        }
    }

    /// The numbers.
    pub fn numbers(&self) -> WindowNumbers {
        WindowNumbers {
            windows: self.windows.each_ref().map(|number| number.load(Acquire)),
            sequences: self.sequences.each_ref().map(|number| number.load(Acquire)),
        }
    }

    /// The time of the last packet that the program forwarded.
    pub fn last(&self) -> u64 {
        self.last.load(Acquire)
    }

    /// Takes the bytes that were not added to the connection yet.
    pub fn take_bytes(&self) -> u64 {
        if self.bytes.load(Relaxed) == 0 { 0 } else { self.bytes.swap(0, AcqRel) }
    }

    /// Records a packet without TCP numbers, as the program does.
    #[cfg(test)]
    pub(crate) fn forward(&self, now: u64) {
        self.last.store(now, Release);
    }

    /// The epoch on which verdicts about the connection depend.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Acquire)
    }

    /// Ends the verdicts about the connection.
    pub fn end_verdicts(&self) {
        self.epoch.fetch_add(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_increase_and_wrap() {
        let carried = CarriedConnection::default();
        let of = |first: u32, window: u32| WindowNumbers { windows: [window, 5], sequences: [first; 8] };
        carried.begin(Some(&(of(0xffff_fff0, 9), [7, 14])), 3);
        carried.raise(&of(0xffff_ffe0, 8));
        assert_eq!(carried.numbers(), of(0xffff_fff0, 9), "older numbers change nothing");
        carried.raise(&of(0x10, 10));
        assert_eq!(carried.numbers(), of(0x10, 10), "numbers count modulo 2^32");
        assert_eq!((carried.last(), carried.take_bytes()), (3, 0));
        carried.forward(4);
        assert_eq!(carried.last(), 4);
        assert_eq!(size_of::<CarriedConnection>(), 64);
    }
}
