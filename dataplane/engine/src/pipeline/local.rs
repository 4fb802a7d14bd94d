//! Memory of one worker that evaluations use.

use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::eval::limits::Random;

use crate::pipeline::history::HistoryWriter;
use crate::pipeline::lookup_cache::LookupCache;
use crate::table::{Candidates, Span};

/// The memory. Allocated once: to clear it for each packet would cost as much as a
/// decision.
pub(super) struct WorkerLocal {
    /// A re-evaluation can follow: a step at a door that comes before its forerunner is pending, and not a wrong step.
    pub(super) reorders: bool,
    pub(super) history: HistoryWriter,
    pub(super) lookup_cache: LookupCache,
    pub(super) candidates: Candidates,
    pub(super) jumps: JumpStack,
    pub(super) random: Random,
}

impl WorkerLocal {
    pub(super) fn new(random: Random, history: HistoryWriter) -> WorkerLocal {
        WorkerLocal {
            reorders: false,
            history,
            lookup_cache: LookupCache::default(),
            candidates: Candidates::default(),
            jumps: JumpStack::default(),
            random,
        }
    }
}

/// Where jumps return to. Bounded by the depth that the table was compiled for.
#[derive(Default)]
pub(super) struct JumpStack {
    spans: [Span; MAX_JUMP_DEPTH],
    depth: usize,
}

impl JumpStack {
    #[inline]
    pub(super) fn clear(&mut self) {
        self.depth = 0;
    }

    /// Whether there was room.
    #[inline]
    pub(super) fn push(&mut self, span: Span) -> bool {
        let Some(place) = self.spans.get_mut(self.depth) else { return false };
        *place = span;
        self.depth += 1;
        true
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Span> {
        self.depth = self.depth.checked_sub(1)?;
        self.spans.get(self.depth).copied()
    }
}
