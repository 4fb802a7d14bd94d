//! The state that rule matchers keep of a source.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RuleRef;

/// What a rule's matcher remembers of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMatcher {
    /// The rule.
    pub rule: RuleRef,
    /// What is remembered.
    #[serde(flatten)]
    pub memory: MatcherMemory,
}

/// See [`SourceMatcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "matcher", rename_all = "kebab-case")]
pub enum MatcherMemory {
    /// `psd`.
    Psd {
        /// The weight of the ports that the source has tried.
        weight: u64,
        /// From here on it is a scan.
        threshold: u32,
        /// Until it is forgotten, if nothing comes.
        time_left: Duration,
    },
    /// `dst-limit` by source addresses.
    DstLimit {
        /// Tokens that are left.
        tokens: u64,
        /// Tokens of a full bucket.
        burst: u64,
        /// Until it is forgotten, if nothing comes.
        time_left: Duration,
    },
    /// `connection-limit`.
    ConnectionLimit {
        /// Connections of the source's prefix, with some that are closed.
        connections: u32,
        /// The rule matches beyond so many.
        limit: u32,
        /// The length of the prefix.
        prefix_length: u8,
    },
}
