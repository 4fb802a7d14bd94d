//! Memory of one worker that evaluations use.

use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::eval::limits::Random;

use crate::pipeline::history::HistoryWriter;
use crate::pipeline::lookup_cache::LookupCache;
use crate::pipeline::observer::DoorResults;
use crate::table::{Candidates, Span};

/// The memory. It is allocated once: a reset for each packet would cost as much as a decision.
pub(super) struct WorkerLocal {
    /// Whether a re-evaluation can follow. Then a step at a door whose previous step is missing is pending, and not a
    /// wrong step.
    pub(super) reorders: bool,
    pub(super) adds: Additions,
    pub(super) history: HistoryWriter,
    pub(super) lookup_cache: LookupCache,
    pub(super) candidates: Candidates,
    pub(super) jumps: JumpStack,
    pub(super) random: Random,
    pub(super) door_results: DoorResults,
}

impl WorkerLocal {
    pub(super) fn new(random: Random, history: HistoryWriter) -> WorkerLocal {
        WorkerLocal {
            reorders: false,
            adds: Additions::default(),
            history,
            lookup_cache: LookupCache::default(),
            candidates: Candidates::default(),
            jumps: JumpStack::default(),
            random,
            door_results: DoorResults::default(),
        }
    }
}

/// Whether packets of a group added entries to lists, or refreshed them.
#[derive(Default)]
pub(super) struct Additions {
    /// Of the group before. Then this group probably does so, too.
    pub(super) before: bool,
    /// Of this group.
    pub(super) now: bool,
}

impl Additions {
    #[inline]
    pub(super) fn next_group(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// The return positions of jumps. The compiler bounds the depth.
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

    /// Adds a position. Returns whether there was room.
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
