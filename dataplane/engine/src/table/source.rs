//! The matcher state of one source, for operators.
//!
//! For `dst-limit`, this module reports only the state by source address alone: other modes need a destination.

use std::net::IpAddr;

use knockplane_policy::packet::Family;
use knockplane_policy::rule::LimitMode;
use knockplane_policy::time::Time;

use super::{RuleTable, StateTest};

/// The matcher state of a rule for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMatcher {
    /// The position of the rule among the declared rules.
    pub rule: usize,
    /// The state.
    pub memory: MatcherMemory,
}

/// The state of one matcher for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatcherMemory {
    /// `psd`: the weight of the ports that the source has tried.
    Psd {
        /// The sum of the weights.
        weight: u64,
        /// The minimum weight of a scan.
        threshold: u32,
        /// Expiry, if no packet follows.
        until: Time,
    },
    /// `dst-limit`: the remaining tokens.
    DstLimit {
        /// Whole tokens.
        tokens: u64,
        /// The number of tokens in a full bucket.
        burst: u64,
        /// Expiry, if no packet follows.
        until: Time,
    },
    /// `connection-limit`: connections of the source's prefix.
    ConnectionLimit {
        /// The number of connections, including some that have closed since.
        connections: u32,
        /// The rule matches above this number.
        limit: u32,
        /// The length of the source prefix.
        prefix_length: u8,
    },
}

impl RuleTable {
    /// The matcher state for this source, of rules of the source's family, in the order of rules.
    pub fn matchers_of(&self, source: IpAddr, now: Time) -> Vec<AddressMatcher> {
        let family = Family::of(source);
        let rules = self.raw(family).rules().iter().chain(self.filter(family).rules());
        let remembered = rules.flat_map(|rule| {
            let memories = rule.state.iter().filter_map(|test| self.memory_of(&test.question, source, now));
            memories.map(|memory| AddressMatcher { rule: rule.index as usize, memory })
        });
        let mut remembered: Vec<_> = remembered.collect();
        remembered.sort_by_key(|matcher| matcher.rule);
        remembered
    }

    fn memory_of(&self, question: &StateTest, source: IpAddr, now: Time) -> Option<MatcherMemory> {
        match question {
            StateTest::Psd(limiter, weights) => {
                let (weight, until) = self.limiters.scan_of(*limiter, source, now)?;
                Some(MatcherMemory::Psd { weight, threshold: weights.threshold, until })
            }
            StateTest::DstLimit { limiter, rate, mode: LimitMode::SrcAddress, .. } => {
                let (tokens, until) = self.limiters.tokens_of(*limiter, rate, source, now)?;
                Some(MatcherMemory::DstLimit { tokens, burst: rate.burst.max(1), until })
            }
            StateTest::ConnectionLimit { matcher, count, prefix_length } => {
                let connections = self.connection_limits.as_ref()?.count(*matcher, source, *prefix_length);
                (connections > 0).then_some(MatcherMemory::ConnectionLimit {
                    connections,
                    limit: *count,
                    prefix_length: *prefix_length,
                })
            }
            _ => None,
        }
    }
}
