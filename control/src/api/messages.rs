//! Bodies of the API that are not messages of the dataplane already.

use std::net::IpAddr;
use std::time::Duration;

use knockplane_policy::rule::RuleSet;
use knockplane_policy::wire::Worker;
use serde::{Deserialize, Serialize};

/// How many list entries, or sources at doors, are answered unless asked otherwise.
pub const DEFAULT_LIMIT: usize = 1_000;

/// How many of them can be asked for at once. As one line they must fit
/// [`MAX_LINE`](knockplane_policy::wire::MAX_LINE) with room to spare.
pub const MAX_LIMIT: usize = 100_000;

/// Rules to run, as text of a rule file or as what was read from one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Where they came from, for people: a file name.
    pub source: String,
    /// Either the text…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// … or the rules. Their ids are made anew from what they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<RuleSet>,
}

/// They run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that runs now.
    pub generation: u64,
    /// How many rules it has.
    pub rules: usize,
    /// How many layer-7 patterns it has.
    pub patterns: usize,
}

/// The workers now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// Time since the dataplane started, which their times are parts of.
    pub uptime: Duration,
    /// The workers, in order.
    pub workers: Vec<Worker>,
}

/// Which entries to show.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only this list.
    pub list: Option<String>,
    /// At most so many.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

/// Which doors and visitors to show.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorQuery {
    /// Only this door.
    pub door: Option<String>,
    /// At most so many who knock, and so many who are in.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

/// An address to put in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAdd {
    /// The address.
    pub address: IpAddr,
    /// How long, as RouterOS writes it: `10m`; for good if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

const fn default_limit() -> usize {
    DEFAULT_LIMIT
}
