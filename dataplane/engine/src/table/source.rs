//! The matcher state of one source, for operators.
//!
//! For `dst-limit` only the state by source address alone is shown: other modes need a destination.

use std::net::IpAddr;

use knockplane_policy::packet::Family;
use knockplane_policy::rule::LimitMode;
use knockplane_policy::time::Time;

use super::{StateTest, Table};

/// What the matcher of a rule remembers of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMatcher {
    /// The rule's position among the declared ones.
    pub rule: usize,
    /// What is remembered.
    pub memory: MatcherMemory,
}

/// See [`AddressMatcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatcherMemory {
    /// `psd`: the ports that the source has tried weigh so much.
    Psd {
        /// Their weight.
        weight: u64,
        /// From here on it is a scan.
        threshold: u32,
        /// When it is forgotten, if nothing comes.
        until: Time,
    },
    /// `dst-limit`: tokens that are left.
    DstLimit {
        /// Whole tokens.
        tokens: u64,
        /// With so many, a bucket is full.
        burst: u64,
        /// When it is forgotten, if nothing comes.
        until: Time,
    },
    /// `connection-limit`: connections of the source's prefix.
    ConnectionLimit {
        /// How many, with some that are closed since.
        connections: u32,
        /// The rule matches beyond so many.
        limit: u32,
        /// The length of the prefix.
        prefix_length: u8,
    },
}

impl Table {
    /// What matchers of rules of the source's family remember of it, in the order of rules.
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
