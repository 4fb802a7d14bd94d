//! Rules in their declared form: an operator's rules, typed. The processes exchange this form, and the engine compiles
//! it.

mod action;
mod addresses;
mod changes;
mod condition;
mod list;
mod number;
mod protocol;
mod router;
mod tracking;
mod value;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::action::{Action, RejectWith};
pub use self::addresses::ADDRESS_FORMS;
pub use self::changes::RuleChangeCounts;
#[cfg(test)]
pub(crate) use self::condition::tests::one_of_each;
pub use self::condition::{Condition, MATCHERS, Matcher};
pub use self::list::{EntryAddress, ListAdd, ListTimeout, RuleFileEntry};
pub use self::number::{MENUS, RuleNumber, numbers};
pub use self::protocol::{PROTOCOLS, protocol_name, protocol_number};
pub use self::router::{Inert, InterfaceMember, LocalAddress};
pub use self::tracking::{Tracking, TrackingMode};
pub use self::value::{
    AddressSet, AddressType, Bytes, ClassifierFields, Comparison, ConnectionState, Direction, InterfaceKind,
    Ipv4Option, LimitMode, Mark, NatState, PortSet, Rate, RateUnit, Relation, Weekday,
};
use crate::packet::Family;
pub use crate::packet::{ExtensionHeader, MacAddress, TcpFlag};
use crate::word::words;

/// The contents of a rule file. The order of `rules` is the order of evaluation within each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSet {
    /// `/ip firewall layer7-protocol`.
    pub layer7: Vec<Layer7Pattern>,
    /// `/ip firewall filter`, `/ipv6 firewall filter`, and the `raw` menus beside them, in the order of the file.
    pub rules: Vec<Rule>,
    /// `/ip firewall address-list` and `/ipv6 firewall address-list`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address_lists: Vec<RuleFileEntry>,
    /// `/ip firewall connection tracking`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tracking: Tracking,
    /// `/interface list` and `/interface list member`. Interface matchers name them; the settings map their members to
    /// sides of the filter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interface_lists: Vec<InterfaceList>,
    /// `/ip address` and `/ipv6 address`: the router's own addresses. They define which addresses are local and which
    /// are broadcast addresses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_addresses: Vec<LocalAddress>,
}

/// A list of interfaces. RouterOS also has `all`, `none`, `dynamic` and `static`. Source: RouterOS manual, Interface
/// lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterfaceList {
    /// The name in matchers.
    pub name: String,
    /// Lists whose interfaces it includes.
    pub include: Vec<String>,
    /// Lists whose interfaces it excludes from the included ones.
    pub exclude: Vec<String>,
    /// The list's own members. They are always included, unless they are disabled.
    pub members: Vec<InterfaceMember>,
    /// Free text. A predefined list of RouterOS is present only if it has a comment.
    #[serde(skip_serializing_if = "is_default")]
    pub comment: String,
}

/// One rule of a filter or `raw` menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The id, which does not change with reloads and reordering. It is derived from the rule's content, see
    /// [`RuleSet::assign_ids`].
    pub id: RuleId,
    /// The menu, together with `family`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub table: Table,
    /// IPv4 or IPv6: `/ip` or `/ipv6`.
    pub family: Family,
    /// The chain. Chain names are compared exactly.
    pub chain: String,
    /// The matchers; all must be true.
    pub matchers: Vec<Matcher>,
    /// The action.
    pub action: Action,
    /// The log line of packets that the rule matches: `log=yes`, or the action `log`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: Option<Log>,
    /// Whether the rule is kept and shown, but does not run.
    pub disabled: bool,
    /// The reason that the rule cannot run; `None` if it can. Such a rule is kept and shown with all of its matchers,
    /// because a rule without one of them would match more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub invalid: Option<String>,
    /// Whether a door of the configuration generated the rule.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dynamic: bool,
    /// Free text.
    pub comment: String,
    /// `hw-offload`, and the `log-prefix` of a rule that does not log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inert: Inert,
    /// The line of the rule file on which the rule begins, counted from 1; 0 for rules without a file.
    pub line: u32,
}

impl Rule {
    /// A filter rule that matches every packet of the family in this chain. Callers set other fields with
    /// `..Rule::new(…)`.
    pub fn new(family: Family, chain: &str, action: Action) -> Rule {
        Rule {
            id: RuleId::default(),
            table: Table::Filter,
            family,
            chain: chain.to_owned(),
            matchers: Vec::new(),
            action,
            log: None,
            disabled: false,
            invalid: None,
            dynamic: false,
            comment: String::new(),
            inert: Inert::new(),
            line: 0,
        }
    }

    /// Whether the rule matches later fragments. No other rule is evaluated for them.
    pub fn is_for_fragments(&self) -> bool {
        self.matchers.iter().any(|matcher| !matcher.negated && matcher.condition == Condition::Fragment(true))
    }

    /// Whether the rule runs: it is neither disabled nor invalid.
    pub const fn runs(&self) -> bool {
        !self.disabled && self.invalid.is_none()
    }
}

words! {
    /// The tables of rules.
    #[derive(Default)]
    Table {
        /// `raw`, which precedes connection tracking.
        Raw = "raw",
        /// `filter`, which follows connection tracking.
        #[default]
        Filter = "filter",
    }
}

impl Table {
    /// The built-in chains. Each packet enters one chain of the filter. In `raw`, a packet from a protected address
    /// enters `output`, and any other packet `prerouting`.
    pub const fn builtin_chains(self) -> &'static [&'static str] {
        match self {
            Table::Raw => &["prerouting", "output"],
            Table::Filter => &["input", "forward", "output"],
        }
    }

    /// The chain of this table for packets that enter this chain of the filter.
    pub const fn entry(self, chain: BuiltinChain) -> &'static str {
        match (self, chain) {
            (Table::Filter, chain) => chain.name(),
            (Table::Raw, BuiltinChain::Output) => "output",
            (Table::Raw, BuiltinChain::Input | BuiltinChain::Forward) => "prerouting",
        }
    }
}

/// The log line of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `log-prefix`: the beginning of the line. May be empty.
    pub prefix: String,
}

/// The id of a rule in metrics, tables and logs: eight hexadecimal digits, with `-2`, `-3`, … for repeated rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RuleId(pub String);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The filter's built-in chains.
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
    /// The name in `layer7-protocol=`.
    pub name: String,
    /// The expression, unquoted. Bytes above 0x7f of the file appear as `\xHH`.
    pub regexp: String,
    /// Free text.
    pub comment: String,
    /// The line of the rule file on which the pattern begins, counted from 1; 0 for patterns without a file.
    pub line: u32,
}

impl RuleSet {
    /// The pattern with this name.
    pub fn pattern(&self, name: &str) -> Option<&Layer7Pattern> {
        self.layer7.iter().find(|pattern| pattern.name == name)
    }

    /// Gives every rule its id: a hash of its table, family, chain, matchers, action and log, but not of its position,
    /// its comment, or whether it is disabled or invalid. Equal rules are numbered in order.
    pub fn assign_ids(&mut self) {
        let mut seen = std::collections::HashMap::<u32, u32>::new();
        for rule in &mut self.rules {
            let said = serde_json::json!([rule.table, rule.family, rule.chain, rule.matchers, rule.action, rule.log])
                .to_string();
            let hash = fnv1a(said.as_bytes());
            let times = seen.entry(hash).and_modify(|times| *times += 1).or_insert(1);
            rule.id = RuleId(if *times == 1 { format!("{hash:08x}") } else { format!("{hash:08x}-{times}") });
        }
    }
}

/// Whether a field has its default value, which JSON omits.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// FNV-1a, 64 bits folded to 32: ids must be the same in every build, which the standard library's hasher does not
/// guarantee. Source: draft-eastlake-fnv.
fn fnv1a(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}
