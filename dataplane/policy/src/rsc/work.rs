//! The budget of a file for searching entries.

use std::cell::Cell;
use std::ops::Range;

use super::problem::{Problems, RscError};
use super::select::SelectError;

/// The remaining budget of a file, beyond reading it.
#[derive(Debug, Default)]
pub(super) struct WorkBudget {
    left: Cell<u64>,
}

impl WorkBudget {
    /// The budget for a file of this many bytes. A unit is about ten nanoseconds: small files get half a second, others
    /// about the time in which they are read, which is enough to change all of their entries once. Scripts of real
    /// routers need a thousandth of it.
    pub(super) fn new(length: usize) -> WorkBudget {
        WorkBudget { left: Cell::new(50_000_000 + 8 * length as u64) }
    }

    /// Spends units; false if the budget is exhausted.
    pub(super) fn spend(&self, units: usize) -> bool {
        let left = self.left.get().saturating_sub(units as u64);
        self.left.set(left);
        left > 0
    }

    /// Whether the budget is exhausted. Commands with a cost are then ignored: it was reported once.
    pub(super) fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    /// Reports the result of an operation that began while the budget was left.
    pub(super) fn settle(&self, done: Result<(), SelectError>, at: &Range<usize>, problems: &mut Problems) {
        if self.is_over() {
            let error = RscError::new("the commands so far search too many entries")
                .expected("fewer commands that change or search entries")
                .help("write the final entries; later commands that change entries were not read");
            problems.add(at.clone(), error);
        } else if let Err((span, error)) = done {
            problems.add(span, error);
        }
    }
}
