//! Rules in their declared form: what an operator wrote, typed. This is what travels between the processes and what
//! the engine compiles.

mod action;
mod condition;
mod list;
mod protocol;
mod value;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::action::Action;
pub use self::condition::{Condition, Matcher};
pub use self::list::{ListAdd, ListTimeout};
pub use self::protocol::{PROTOCOLS, protocol_name, protocol_number};
pub use self::value::{AddressSet, PortSet};
use crate::packet::Family;

/// Everything a rule file says. The order of `rules` is the order of evaluation within each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSet {
    /// `/ip firewall layer7-protocol`.
    pub layer7: Vec<Layer7Pattern>,
    /// `/ip firewall filter` and `/ipv6 firewall filter`, in the order of the file.
    pub rules: Vec<Rule>,
}

/// One filter rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Stable across reloads and reordering: derived from what the rule says, see [`RuleSet::assign_ids`].
    pub id: RuleId,
    /// Which menu it stands in.
    pub family: Family,
    /// The chain it belongs to. Chains are compared exactly.
    pub chain: String,
    /// What it must see to act; all of them.
    pub matchers: Vec<Matcher>,
    /// What it does.
    pub action: Action,
    /// Kept and shown, but not run.
    pub disabled: bool,
    /// Free text.
    pub comment: String,
    /// The line of the rule file the rule began on, counted from 1; 0 if it came from elsewhere.
    pub line: u32,
}

/// The name of a rule in metrics, tables and logs: eight hexadecimal digits, with `-2`, `-3`, … for repeated rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub String);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The chains that packets enter by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuiltinChain {
    /// From outside to a protected address.
    Input,
    /// Neither from nor to a protected address.
    Forward,
    /// From a protected address to the outside.
    Output,
}

impl BuiltinChain {
    /// All three, in the order of their indexes.
    pub const ALL: [BuiltinChain; 3] = [BuiltinChain::Input, BuiltinChain::Forward, BuiltinChain::Output];

    /// The name in rules.
    pub const fn name(self) -> &'static str {
        match self {
            BuiltinChain::Input => "input",
            BuiltinChain::Forward => "forward",
            BuiltinChain::Output => "output",
        }
    }
}

/// A named regular expression over payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer7Pattern {
    /// What `layer7-protocol=` refers to.
    pub name: String,
    /// The expression, unquoted. Bytes above 0x7f of the file appear as `\xHH`.
    pub regexp: String,
    /// Free text.
    pub comment: String,
    /// The line of the rule file it began on, counted from 1; 0 if it came from elsewhere.
    pub line: u32,
}

impl RuleSet {
    /// The pattern of this name.
    pub fn pattern(&self, name: &str) -> Option<&Layer7Pattern> {
        self.layer7.iter().find(|pattern| pattern.name == name)
    }

    /// Gives every rule its id: a hash of what it says (family, chain, matchers, action), not of where it stands, its
    /// comment, or whether it is disabled. Rules that say the same are numbered in order.
    pub fn assign_ids(&mut self) {
        let mut seen = std::collections::HashMap::<u32, u32>::new();
        for rule in &mut self.rules {
            let said = serde_json::json!([rule.family, rule.chain, rule.matchers, rule.action]).to_string();
            let hash = fnv1a(said.as_bytes());
            let times = seen.entry(hash).and_modify(|times| *times += 1).or_insert(1);
            rule.id = RuleId(if *times == 1 { format!("{hash:08x}") } else { format!("{hash:08x}-{times}") });
        }
    }
}

/// FNV-1a, 64 bits folded to 32: the ids must be the same in every build, which the standard library's hasher does
/// not promise. Source: draft-eastlake-fnv.
fn fnv1a(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}
