//! The state of rule matchers for a source.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RuleRef;

/// The state of a rule's matcher for a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMatcher {
    /// The rule.
    pub rule: RuleRef,
    /// The state.
    #[serde(flatten)]
    pub memory: MatcherMemory,
}

/// State of a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "matcher", rename_all = "kebab-case")]
pub enum MatcherMemory {
    /// `psd`.
    Psd {
        /// The weight of the ports that the source has tried.
        weight: u64,
        /// The minimum weight of a scan.
        threshold: u32,
        /// Time until the state expires, if no packet arrives.
        time_left: Duration,
    },
    /// `dst-limit` by source addresses.
    DstLimit {
        /// Tokens left.
        tokens: u64,
        /// Capacity of the bucket in tokens.
        burst: u64,
        /// Time until the state expires, if no packet arrives.
        time_left: Duration,
    },
    /// `connection-limit`.
    ConnectionLimit {
        /// Connections of the source's prefix, including some closed ones.
        connections: u32,
        /// The rule matches above this number.
        limit: u32,
        /// The length of the prefix.
        prefix_length: u8,
    },
}
