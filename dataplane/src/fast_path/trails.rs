//! Trails: the numbers under which the kernel counts carried frames. A trail belongs to a generation of rules, and its
//! packets count for the generation's rules, as if a worker had counted them.

use std::sync::{Mutex, PoisonError};

use knockplane_engine::pipeline::flow_decision::Trail;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Reason;
use knockplane_policy::wire::Counter;
use knockplane_ring::{CarriedCounts, TRAILS};

use super::{FastPathSwitch, SharedFastPath};

/// The numbers that no generation uses.
#[derive(Debug, Default)]
pub(super) struct TrailNumbers {
    free: Vec<u16>,
}

impl TrailNumbers {
    pub(super) fn all() -> TrailNumbers {
        TrailNumbers { free: (0..TRAILS as u16).rev().collect() }
    }
}

/// The trails of one generation of rules.
#[derive(Default)]
pub(crate) struct GenerationTrails {
    fast_path: Option<SharedFastPath>,
    known: Mutex<Vec<NumberedTrail>>,
}

/// A trail, its number, and the counts of the number before it was the trail's.
#[derive(Clone, Copy)]
struct NumberedTrail {
    trail: Trail,
    number: u16,
    before: CarriedCounts,
}

/// Frames that the kernel has carried, by the side of arrival and the reason.
#[derive(Clone, Debug)]
pub(crate) struct CarriedFrames {
    frames: [[u64; Reason::COUNT]; 2],
    bytes: [u64; 2],
}

impl Default for CarriedFrames {
    fn default() -> Self {
        CarriedFrames { frames: [[0; Reason::COUNT]; 2], bytes: [0; 2] }
    }
}

impl CarriedFrames {
    /// Frames that arrived on this side.
    pub(crate) fn frames(&self, side: Side) -> u64 {
        self.frames[side.index()].iter().sum()
    }

    /// Bytes of frames that arrived on this side.
    pub(crate) fn bytes(&self, side: Side) -> u64 {
        self.bytes[side.index()]
    }

    /// Frames that were forwarded for this reason.
    pub(crate) fn for_reason(&self, reason: Reason) -> u64 {
        self.frames.iter().map(|frames| frames[reason.index()]).sum()
    }
}

impl GenerationTrails {
    pub(crate) fn new(fast_path: SharedFastPath) -> GenerationTrails {
        GenerationTrails { fast_path: Some(fast_path), known: Mutex::default() }
    }

    /// The number of a trail; `None` if all numbers are in use.
    pub(crate) fn number(&self, trail: &Trail) -> Option<u16> {
        let fast_path = self.fast_path.as_deref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|known| known.trail == *trail) {
            return Some(found.number);
        }
        let number = fast_path.numbers().free.pop()?;
        known.push(NumberedTrail { trail: *trail, number, before: carried(fast_path, number) });
        Some(number)
    }

    /// Calls `visit` with each trail and its counts.
    fn visit(&self, mut visit: impl FnMut(&Trail, CarriedCounts)) {
        let Some(fast_path) = self.fast_path.as_deref() else { return };
        // A copy, so that no worker waits for the lock while the cells of all cores are read.
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for NumberedTrail { trail, number, before } in known {
            let now = carried(fast_path, number);
            let counts = CarriedCounts {
                packets: now.packets - before.packets,
                ip_bytes: now.ip_bytes - before.ip_bytes,
                frame_bytes: now.frame_bytes - before.frame_bytes,
            };
            visit(&trail, counts);
        }
    }

    /// Adds the counts to those of the rules, in the order of the declared rules.
    pub(crate) fn add_rules_to(&self, sums: &mut [Counter]) {
        self.visit(|trail, counts| {
            for rule in trail.rules() {
                if let Some(sum) = sums.get_mut(rule) {
                    add(sum, counts);
                }
            }
        });
    }

    /// Adds the counts to those of the chains: input, forward, output.
    pub(crate) fn add_defaults_to(&self, sums: &mut [Counter; 3]) {
        self.visit(|trail, counts| {
            if let Some(chain) = trail.default_of() {
                add(&mut sums[chain as usize], counts);
            }
        });
    }

    /// Adds the carried frames.
    pub(crate) fn add_frames_to(&self, sums: &mut CarriedFrames) {
        self.visit(|trail, counts| {
            let side = trail.side.index();
            sums.frames[side][trail.decision.reason.index()] += counts.packets;
            sums.bytes[side] += counts.frame_bytes;
        });
    }

    /// Returns the numbers. The caller has added the counts, and no verdict of the generation counts any more.
    pub(crate) fn end(&self) {
        let Some(fast_path) = self.fast_path.as_deref() else { return };
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        fast_path.numbers().free.extend(known.into_iter().map(|known| known.number));
    }
}

fn carried(fast_path: &FastPathSwitch, number: u16) -> CarriedCounts {
    fast_path.tables().map(|tables| tables.carried(number)).unwrap_or_default()
}

fn add(sum: &mut Counter, counts: CarriedCounts) {
    sum.packets += counts.packets;
    sum.bytes += counts.ip_bytes;
}
