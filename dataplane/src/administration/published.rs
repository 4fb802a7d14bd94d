//! The part of the administration that the manager reads while a job runs, so that it never waits for a job.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use knockplane_policy::time::Time;
use knockplane_policy::wire::NameState;
use knockplane_policy::wire::events::OwnChange;

use super::Unconfirmed;
use crate::config::MetricsConfig;
use crate::generation::{Book, Generation, KeptCounts};
use crate::shared::Shared;

/// One value for the process. The administration writes it, and the manager reads it.
pub(crate) struct Published {
    ledger: Mutex<Ledger>,
    pub(crate) lists: ArcSwap<PublishedLists>,
    /// The apply or the reload that waits for a confirmation.
    pub(crate) unconfirmed: ArcSwapOption<Unconfirmed>,
    /// Whether the doors and `[policy]` are those before a reload that was not confirmed.
    pub(crate) differs_from_file: AtomicBool,
    /// The number of rule sets and configurations that were applied since start.
    pub(crate) applied: AtomicU64,
    /// The number of rule sets and configurations that were refused since start.
    pub(crate) refused: AtomicU64,
    /// The last changes that no connection requested.
    own: Mutex<VecDeque<OwnChange>>,
}

/// Maximum number of kept changes that no connection requested. There is one after each signal of an operator, and after each
/// time limit of a confirmation.
const MAX_OWN_CHANGES: usize = 64;

/// The counters of rules, and the rules that have series.
pub(crate) struct Ledger {
    pub(crate) book: Book,
    pub(crate) metrics: MetricsConfig,
}

/// The lists and host names at the end of the last job.
#[derive(Default)]
pub(crate) struct PublishedLists {
    /// The lists with an operator's entry outside the slots of dynamic entries.
    pub(crate) with_entries: HashSet<String>,
    /// Damage of the stored entries that the start found.
    pub(crate) damage: Option<String>,
    pub(super) names: Vec<NameState>,
    pub(super) at: Time,
}

impl Published {
    pub(crate) fn new(
        current: &Generation,
        metrics: &MetricsConfig,
        kept: KeptCounts,
        differs_from_file: bool,
    ) -> Self {
        Published {
            ledger: Mutex::new(Ledger { book: Book::new(current, metrics, kept), metrics: metrics.clone() }),
            lists: ArcSwap::default(),
            unconfirmed: ArcSwapOption::empty(),
            differs_from_file: AtomicBool::new(differs_from_file),
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            own: Mutex::default(),
        }
    }

    /// Adds a change that no connection requested. Its number is the next one.
    pub(super) fn add_own(&self, change: OwnChange) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let number = own.back().map_or(0, |last| last.number) + 1;
        if own.len() >= MAX_OWN_CHANGES {
            own.pop_front();
        }
        own.push_back(OwnChange { number, ..change });
    }

    /// The changes after this number that no connection requested.
    pub(crate) fn own_changes(&self, after: u64) -> Vec<OwnChange> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().filter(|change| change.number > after).cloned().collect()
    }

    /// The counters of rules. The administration swaps a generation under this lock, so that the lock's holder sees a
    /// generation and its counters together. The lock is held for at most some milliseconds.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PublishedLists {
    /// The host names of all lists, as of now.
    pub(crate) fn names(&self, shared: &Shared) -> Vec<NameState> {
        let since = shared.clock.now().since(self.at);
        let state = |name: &NameState| NameState { answer_age: name.answer_age.map(|age| age + since), ..name.clone() };
        self.names.iter().map(state).collect()
    }
}
