//! How much looking through entries a file may ask for.

use std::cell::Cell;
use std::ops::Range;

use super::problem::{Complaint, Problems};
use super::select::Refusal;

/// What a file may still cost, beyond being read.
#[derive(Debug, Default)]
pub(super) struct Work {
    left: Cell<u64>,
}

impl Work {
    /// For a file of this many bytes. A unit is about ten nanoseconds: small files get half a second, others about the
    /// time in which they are read, which is enough to change all of their entries once. Scripts of real routers need
    /// a thousandth of it.
    pub(super) fn new(length: usize) -> Work {
        Work { left: Cell::new(50_000_000 + 8 * length as u64) }
    }

    /// False if there is no more to spend.
    pub(super) fn spend(&self, units: usize) -> bool {
        let left = self.left.get().saturating_sub(units as u64);
        self.left.set(left);
        left > 0
    }

    /// Whether there is no more to spend. What would cost more is then passed over: it was told once.
    pub(super) fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    /// Tells what became of something that was begun while there was something left.
    pub(super) fn settle(&self, done: Result<(), Refusal>, at: &Range<usize>, problems: &mut Problems) {
        if self.is_over() {
            let complaint = Complaint::new("the commands up to here look through too many entries, too often")
                .expected("fewer commands that change or look for entries")
                .help("write the entries as they are to be; what changes entries behind this line was not read");
            problems.add(at.clone(), complaint);
        } else if let Err((span, complaint)) = done {
            problems.add(span, complaint);
        }
    }
}
