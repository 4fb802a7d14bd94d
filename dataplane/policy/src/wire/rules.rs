//! The running rules and their counters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rule::RuleSet;

/// The running rules with their counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningRules {
    /// Their generation.
    pub generation: u64,
    /// Their revision in the history.
    pub revision: u64,
    /// Identifies these rules in this order, as in [`RuleCounters::order`].
    pub order: String,
    /// Their source.
    pub source: String,
    /// The configuration file, which has the doors.
    pub configuration: String,
    /// The declared form.
    pub rules: RuleSet,
    /// The revision that added each rule of `rules.rules`, in order, or that changed it last: its comment, or whether it
    /// is disabled. If that revision is not kept any more, the oldest one that is kept. `None` for the rules of doors.
    pub origins: Vec<Option<u64>>,
    /// Packets and bytes of each rule of `rules.rules`, in order.
    pub counters: Vec<Counter>,
    /// Packets and bytes decided by each chain's default: input, forward, output.
    pub chain_defaults: [Counter; 3],
}

/// The counters of the running rules, without the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// Identifies the rules and their order. It is another text after each apply, reload and start. A revision would not do: it gets
    /// its number after the first packets.
    pub order: String,
    /// The time of the reading, since the dataplane started.
    pub uptime: Duration,
    /// Packets of each rule, in the order of [`RunningRules::rules`].
    pub packets: Vec<u64>,
    /// Bytes of each rule, in the same order.
    pub bytes: Vec<u64>,
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
