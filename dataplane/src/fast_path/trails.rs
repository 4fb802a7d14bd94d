//! Trails: the numbers under which the kernel counts frames that it carries or drops. A trail belongs to a generation of rules, and its
//! packets count for the generation's rules, as if a worker had counted them.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use knockplane_engine::pipeline::Decision;
use knockplane_engine::pipeline::flow_decision::Trail;
use knockplane_engine::table::StrangerTrail;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::wire::Counter;
use knockplane_ring::{CarriedCounts, TRAILS};

use super::{FastPathSwitch, SharedFastPath};

/// The numbers that no generation uses.
#[derive(Debug, Default)]
pub(super) struct TrailNumbers {
    free: Vec<u16>,
}

impl TrailNumbers {
    /// All numbers but 0, which means that a frame is not dropped.
    pub(super) fn all() -> TrailNumbers {
        TrailNumbers { free: (1..TRAILS as u16).rev().collect() }
    }
}

/// The trails of one generation of rules.
#[derive(Default)]
pub(crate) struct GenerationTrails {
    fast_path: Option<SharedFastPath>,
    known: Mutex<Vec<NumberedTrail>>,
    /// Whether no program counts for these trails any more.
    is_quiet: AtomicBool,
}

/// A trail, its number, and the counts of the number before it was the trail's.
#[derive(Clone)]
struct NumberedTrail {
    trail: CountedTrail,
    number: u16,
    before: CarriedCounts,
}

/// What frames count for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CountedTrail {
    side: Side,
    decision: Decision,
    /// The rules that matched, by their position among the declared rules.
    rules: Box<[u32]>,
    /// The built-in chain whose default decided.
    default_of: Option<BuiltinChain>,
}

impl CountedTrail {
    fn is(&self, trail: &Trail) -> bool {
        (self.side, self.decision, self.default_of) == (trail.side, trail.decision, trail.default_of())
            && trail.rules().eq(self.rules.iter().map(|rule| *rule as usize))
    }
}

impl From<&Trail> for CountedTrail {
    fn from(trail: &Trail) -> CountedTrail {
        let rules = trail.rules().map(|rule| rule as u32).collect();
        CountedTrail { side: trail.side, decision: trail.decision, rules, default_of: trail.default_of() }
    }
}

impl From<&StrangerTrail> for CountedTrail {
    fn from(StrangerTrail { rules, reason, default_of }: &StrangerTrail) -> CountedTrail {
        let decision = Decision { verdict: Verdict::Drop, reason: *reason };
        CountedTrail { side: Side::Outside, decision, rules: rules.clone(), default_of: *default_of }
    }
}

/// Frames that the kernel has carried or dropped, by the verdict, the side of arrival and the reason.
#[derive(Clone, Debug)]
pub(crate) struct KernelFrames {
    frames: [[[u64; Reason::COUNT]; 2]; 2],
    bytes: [[u64; 2]; 2],
}

impl Default for KernelFrames {
    fn default() -> Self {
        KernelFrames { frames: [[[0; Reason::COUNT]; 2]; 2], bytes: [[0; 2]; 2] }
    }
}

impl KernelFrames {
    /// Frames with this verdict that arrived on this side.
    pub(crate) fn frames(&self, verdict: Verdict, side: Side) -> u64 {
        self.frames[verdict.index()][side.index()].iter().sum()
    }

    /// Bytes of these frames.
    pub(crate) fn bytes(&self, verdict: Verdict, side: Side) -> u64 {
        self.bytes[verdict.index()][side.index()]
    }

    /// Frames with this verdict for this reason.
    pub(crate) fn for_reason(&self, verdict: Verdict, reason: Reason) -> u64 {
        self.frames[verdict.index()].iter().map(|frames| frames[reason.index()]).sum()
    }
}

impl GenerationTrails {
    pub(crate) fn new(fast_path: SharedFastPath) -> GenerationTrails {
        GenerationTrails { fast_path: Some(fast_path), ..GenerationTrails::default() }
    }

    /// Notes that no program counts for these trails any more: other rules have replaced their generation, and a grace period
    /// has passed since then.
    pub(crate) fn note_quiet(&self) {
        self.is_quiet.store(true, Release);
    }

    /// Whether no program counts for these trails any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.fast_path.is_none() || self.is_quiet.load(Acquire)
    }

    /// The number of a trail; `None` if all numbers are in use.
    pub(crate) fn number(&self, trail: &Trail) -> Option<u16> {
        let fast_path = self.fast_path.as_deref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|known| known.trail.is(trail)) {
            return Some(found.number);
        }
        let number = fast_path.numbers().free.pop()?;
        known.push(NumberedTrail { trail: trail.into(), number, before: carried(fast_path, number) });
        Some(number)
    }

    /// The number of a new trail of strangers; `None` if all numbers are in use.
    pub(super) fn number_of_stranger(&self, trail: &StrangerTrail) -> Option<u8> {
        let fast_path = self.fast_path.as_deref()?;
        let number = fast_path.numbers().free.pop()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push(NumberedTrail { trail: trail.into(), number, before: carried(fast_path, number) });
        u8::try_from(number).ok()
    }

    /// Calls `visit` with each trail and its counts.
    fn visit(&self, mut visit: impl FnMut(&CountedTrail, CarriedCounts)) {
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
            for rule in &trail.rules {
                if let Some(sum) = sums.get_mut(*rule as usize) {
                    add(sum, counts);
                }
            }
        });
    }

    /// Adds the counts to those of the chains: input, forward, output.
    pub(crate) fn add_defaults_to(&self, sums: &mut [Counter; 3]) {
        self.visit(|trail, counts| {
            if let Some(chain) = trail.default_of {
                add(&mut sums[chain as usize], counts);
            }
        });
    }

    /// Adds the frames.
    pub(crate) fn add_frames_to(&self, sums: &mut KernelFrames) {
        self.visit(|trail, counts| {
            let (side, Decision { verdict, reason }) = (trail.side.index(), trail.decision);
            sums.frames[verdict.index()][side][reason.index()] += counts.packets;
            sums.bytes[verdict.index()][side] += counts.frame_bytes;
        });
    }

    /// Returns the numbers. The caller has added the counts, and no program counts for these trails any more.
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
