//! Address lists as rules name them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where an address goes and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAdd {
    /// Name of the address list.
    pub list: String,
    /// How long the address stays.
    pub timeout: ListTimeout,
}

/// How long an address stays in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListTimeout {
    /// Until the dataplane restarts. RouterOS's default.
    NoneDynamic,
    /// For good. Saved and exported by RouterOS; here it survives a reload, as `NoneDynamic` does.
    NoneStatic,
    /// This long after the last packet that added it. 1 s to 35w3d13h13m56s.
    After(Duration),
}
