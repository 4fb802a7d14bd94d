//! The running rules and their counters.

use serde::{Deserialize, Serialize};

use crate::rule::RuleSet;

/// The running rules with their counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningRules {
    /// Their generation.
    pub generation: u64,
    /// Their source.
    pub source: String,
    /// The declared form.
    pub rules: RuleSet,
    /// Packets and bytes of each rule of `rules.rules`, in order.
    pub counters: Vec<Counter>,
    /// Packets and bytes decided by each chain's default: input, forward, output.
    pub chain_defaults: [Counter; 3],
}

/// Packets and IP bytes. RouterOS counts the length of the IP packet, without Ethernet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}
