//! What the manager reads of the administration while a job runs, so that it waits for none.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use knockplane_policy::time::Time;
use knockplane_policy::wire::NameState;

use crate::config::Metrics;
use crate::generation::{Book, Generation};
use crate::shared::Shared;

/// One for the process, read by the manager and written by the administration.
pub(crate) struct Published {
    ledger: Mutex<Ledger>,
    pub(crate) lists: ArcSwap<ListOverview>,
    /// Rule sets and configurations applied since start.
    pub(crate) applied: AtomicU64,
    /// The same that were refused.
    pub(crate) refused: AtomicU64,
}

/// The counts of rules, and which of them have series.
pub(crate) struct Ledger {
    pub(crate) book: Book,
    pub(crate) metrics: Metrics,
}

/// The lists and names of host as of the end of the last job.
#[derive(Default)]
pub(crate) struct ListOverview {
    /// Lists that hold an operator's entry beside those that packets fill.
    pub(crate) with_entries: HashSet<String>,
    /// Damage of the stored entries that was found at start.
    pub(crate) damage: Option<String>,
    pub(super) names: Vec<NameState>,
    pub(super) at: Time,
}

impl Published {
    pub(crate) fn new(current: &Generation, metrics: &Metrics) -> Self {
        Published {
            ledger: Mutex::new(Ledger { book: Book::new(current, metrics), metrics: metrics.clone() }),
            lists: ArcSwap::default(),
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The counts of rules. A generation is swapped under this lock, so that its holder sees a generation and its counts
    /// together. It is held for milliseconds at most.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ListOverview {
    /// The host names of all lists, as of now.
    pub(crate) fn names(&self, shared: &Shared) -> Vec<NameState> {
        let since = shared.clock.now().since(self.at);
        let state = |name: &NameState| NameState { answer_age: name.answer_age.map(|age| age + since), ..name.clone() };
        self.names.iter().map(state).collect()
    }
}
