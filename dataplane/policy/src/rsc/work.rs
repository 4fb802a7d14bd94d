//! The budget of a file for searches of entries.

use std::cell::Cell;
use std::ops::Range;

use super::problem::{Complaint, Problems};
use super::select::Refusal;

/// The remaining budget of a file, in addition to the work of reading it.
#[derive(Debug, Default)]
pub(super) struct Work {
    left: Cell<u64>,
}

impl Work {
    /// The budget for a file of `length` bytes. A unit is about ten nanoseconds. A small file gets half a second. A
    /// large file gets about its reading time, which is enough to change all of its entries once. Scripts of real
    /// routers need a thousandth of the budget.
    pub(super) fn new(length: usize) -> Work {
        Work { left: Cell::new(50_000_000 + 8 * length as u64) }
    }

    /// Spends units. Returns false if the budget is exhausted.
    pub(super) fn spend(&self, units: usize) -> bool {
        let left = self.left.get().saturating_sub(units as u64);
        self.left.set(left);
        left > 0
    }

    /// Whether the budget is exhausted. Commands with a cost are then ignored, because the exhaustion was reported
    /// once.
    pub(super) fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    /// Reports the result of an operation that began before the budget was exhausted.
    pub(super) fn settle(&self, done: Result<(), Refusal>, at: &Range<usize>, problems: &mut Problems) {
        if self.is_over() {
            let complaint = Complaint::new("the commands so far search too many entries")
                .expected("fewer commands that change or search entries")
                .help("write the final entries; later commands that change entries were not read");
            problems.add(at.clone(), complaint);
        } else if let Err((span, complaint)) = done {
            problems.add(span, complaint);
        }
    }
}
