//! What rules do.

use serde::{Deserialize, Serialize};

use super::list::ListAdd;

/// What a rule does with a packet that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Forward the packet; no further rule is tried.
    Accept,
    /// Drop the packet; no further rule is tried.
    Drop,
    /// Count it and go on.
    Passthrough,
    /// Put the source in a list, or set its timeout anew, and go on.
    AddSrcToAddressList(ListAdd),
    /// Put the destination in a list, or set its timeout anew, and go on.
    AddDstToAddressList(ListAdd),
    /// Try the rules of another chain, then go on.
    Jump(String),
    /// Go back behind the jump; in a built-in chain, to the chain's default.
    Return,
}

impl Action {
    /// The name in rules and tables.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Drop => "drop",
            Action::Passthrough => "passthrough",
            Action::AddSrcToAddressList(_) => "add-src-to-address-list",
            Action::AddDstToAddressList(_) => "add-dst-to-address-list",
            Action::Jump(_) => "jump",
            Action::Return => "return",
        }
    }
}
