//! Applies and reloads that an operator must confirm.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::word::words;

/// The times within which an operator can be asked to confirm a change. A shorter time ends before the operator has
/// tried the new rules. A longer one leaves rules in force that a restart does not keep.
pub const CONFIRM_WITHIN: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3_600);

words! {
    /// A change that can wait for a confirmation.
    UnconfirmedChange {
        /// Other rules.
        Apply = "apply",
        /// Other doors, and another `[policy]`.
        Reload = "reload",
    }
}

impl UnconfirmedChange {
    /// What such a change replaces, for messages.
    pub const fn replaces(self) -> &'static str {
        match self {
            UnconfirmedChange::Apply => "rules",
            UnconfirmedChange::Reload => "doors and [policy]",
        }
    }
}

/// Running rules, or settings, that are rolled back unless an operator confirms them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingConfirmation {
    /// The change.
    pub change: UnconfirmedChange,
    /// The generation that it began.
    pub generation: u64,
    /// Time until the rollback.
    pub time_left: Duration,
    /// The generation whose rules and settings the rollback restores.
    pub back_to: u64,
    /// The source of those rules.
    pub back_to_source: String,
    /// The number of those rules.
    pub back_to_rules: usize,
}

/// Checks the time for a confirmation.
///
/// # Errors
/// The permitted times.
pub fn check_confirm_within(time: Duration) -> Result<Duration, String> {
    let (shortest, longest) = (CONFIRM_WITHIN.start().as_secs(), CONFIRM_WITHIN.end().as_secs() / 3_600);
    match CONFIRM_WITHIN.contains(&time) {
        true => Ok(time),
        false => Err(format!("the time for a confirmation is {shortest} s to {longest} h, not {} s", time.as_secs())),
    }
}
