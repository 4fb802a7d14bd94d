//! The output of `show rules` and `export`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use knockplane_policy::packet::Family;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc::wording;
use knockplane_policy::rule::{
    self, BuiltinChain, EntryAddress, MENUS, RuleId, RuleNumber, RuleSet, Table, TrackingMode,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::{self, Counter};
use schemars::JsonSchema;
use serde::Serialize;

use super::{line, seconds};

/// The running rules with their counters.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Rules {
    /// The generation of the rules.
    pub(crate) generation: u64,
    /// The origin of the rules.
    pub(crate) source: String,
    /// The rules, including those of doors, in the order of evaluation within each chain.
    pub(crate) rules: Vec<CountedRule>,
    /// The default of each chain: the verdict on packets that none of its rules decides.
    pub(crate) chain_defaults: Vec<ChainDefault>,
    /// The layer-7 patterns of the rules.
    pub(crate) patterns: Vec<Pattern>,
}

/// A running rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CountedRule {
    /// The present number. It changes when rules before it are added or removed; `id` does not.
    pub(crate) number: RuleNumber,
    #[serde(flatten)]
    pub(crate) rule: Rule,
    /// The packets that the rule has matched.
    pub(crate) counter: Counter,
}

/// A rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Rule {
    /// The id, which depends only on the content of the rule: it does not change with reloads or the order of rules.
    pub(crate) id: RuleId,
    /// The menu: `/ip firewall filter`.
    pub(crate) menu: String,
    pub(crate) chain: String,
    pub(crate) action: String,
    /// The arguments of the action, the matchers and the log: names and values in the form of RouterOS, including its
    /// quotes.
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) comment: String,
    /// Whether the file disables the rule.
    pub(crate) disabled: bool,
    /// The reason that the rule cannot run; `null` if it can.
    pub(crate) invalid: Option<String>,
    /// Whether the rule belongs to a door and is in no rule file.
    pub(crate) dynamic: bool,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

impl From<&rule::Rule> for Rule {
    fn from(rule: &rule::Rule) -> Self {
        let words = wording::rule(rule);
        let properties = words.iter().filter_map(|word| word.split_once('='));
        let is_in_a_field = |name: &str| matches!(name, "chain" | "action");
        let properties = properties.filter(|(name, _)| !is_in_a_field(name));
        Rule {
            id: rule.id.clone(),
            menu: menu(rule.family, rule.table).to_owned(),
            chain: rule.chain.clone(),
            action: rule.action.name().to_owned(),
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .chain(rule.inert.clone())
                .collect(),
            comment: rule.comment.clone(),
            disabled: rule.disabled,
            invalid: rule.invalid.clone(),
            dynamic: rule.dynamic,
            line: line(rule.line),
        }
    }
}

/// The menu of RouterOS with such rules.
fn menu(family: Family, table: Table) -> &'static str {
    MENUS.iter().find(|menu| (menu.0, menu.1) == (family, table)).map_or("", |menu| menu.2)
}

/// The default of a chain: the verdict on packets that none of its rules decides.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChainDefault {
    pub(crate) chain: String,
    pub(crate) verdict: Verdict,
    /// The packets that the default decided.
    pub(crate) counter: Counter,
}

/// The defaults of all chains with these counters, which are in the order of [`BuiltinChain::ALL`].
pub(crate) fn chain_defaults(counters: &[Counter; 3], settings: &Settings) -> Vec<ChainDefault> {
    let default = |(chain, counter): (BuiltinChain, &Counter)| ChainDefault {
        chain: chain.name().to_owned(),
        verdict: settings.chain_default.verdict(chain),
        counter: *counter,
    };
    BuiltinChain::ALL.into_iter().zip(counters).map(default).collect()
}

/// A layer-7 pattern.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Pattern {
    pub(crate) name: String,
    /// The expression; bytes above 0x7f as `\xHH`.
    pub(crate) regexp: String,
    pub(crate) comment: String,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

impl From<&rule::Layer7Pattern> for Pattern {
    fn from(pattern: &rule::Layer7Pattern) -> Self {
        let rule::Layer7Pattern { name, regexp, comment, line: at } = pattern.clone();
        Pattern { name, regexp, comment, line: line(at) }
    }
}

/// The content of a rule file: `export`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Exported {
    /// The rules in the order of the file.
    pub(crate) rules: Vec<Rule>,
    /// Entries of address lists.
    pub(crate) address_lists: Vec<Entry>,
    /// Layer-7 patterns.
    pub(crate) patterns: Vec<Pattern>,
    /// Connection tracking.
    pub(crate) tracking: Tracking,
    /// Interface lists.
    pub(crate) interface_lists: Vec<InterfaceList>,
    /// The router's own addresses.
    pub(crate) local_addresses: Vec<LocalAddress>,
}

/// An entry of an address list in a rule file.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entry {
    pub(crate) list: String,
    /// An address, prefix, range or host name; `null` if the entry has none.
    pub(crate) address: Option<String>,
    /// The timeout, which begins when the rules are applied; `null` for a static entry.
    pub(crate) timeout_seconds: Option<f64>,
    pub(crate) disabled: bool,
    pub(crate) comment: String,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

/// The settings of connection tracking.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Tracking {
    /// The condition under which connections are tracked.
    pub(crate) enabled: TrackingMode,
    /// Whether a TCP packet in the middle of an unknown connection begins the connection.
    pub(crate) loose_tcp: bool,
    /// RouterOS's timeouts by name: `tcp-established`, `udp-stream`.
    pub(crate) timeouts_seconds: BTreeMap<&'static str, f64>,
}

impl From<&rule::Tracking> for Tracking {
    fn from(tracking: &rule::Tracking) -> Self {
        let timeouts = [
            ("tcp-syn-sent", tracking.tcp_syn_sent),
            ("tcp-syn-received", tracking.tcp_syn_received),
            ("tcp-established", tracking.tcp_established),
            ("tcp-fin-wait", tracking.tcp_fin_wait),
            ("tcp-close-wait", tracking.tcp_close_wait),
            ("tcp-last-ack", tracking.tcp_last_ack),
            ("tcp-time-wait", tracking.tcp_time_wait),
            ("tcp-close", tracking.tcp_close),
            ("tcp-max-retrans", tracking.tcp_max_retrans),
            ("tcp-unacked", tracking.tcp_unacked),
            ("udp", tracking.udp),
            ("udp-stream", tracking.udp_stream),
            ("icmp", tracking.icmp),
            ("generic", tracking.generic),
        ];
        let timeouts_seconds = timeouts.into_iter().map(|(name, time)| (name, seconds(time))).collect();
        Tracking { enabled: tracking.enabled, loose_tcp: tracking.loose_tcp, timeouts_seconds }
    }
}

/// An interface list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InterfaceList {
    pub(crate) name: String,
    /// Lists whose members belong to this list.
    pub(crate) include: Vec<String>,
    /// Lists whose members do not belong to this list, unless they are in `members`.
    pub(crate) exclude: Vec<String>,
    pub(crate) members: Vec<InterfaceMember>,
    pub(crate) comment: String,
}

/// A member of an interface list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InterfaceMember {
    pub(crate) interface: String,
    pub(crate) disabled: bool,
    pub(crate) comment: String,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

/// One of the router's own addresses.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LocalAddress {
    /// The address with its prefix length; `null` if the router generates the whole address.
    #[schemars(with = "Option<String>")]
    pub(crate) address: Option<IpNet>,
    pub(crate) disabled: bool,
    /// `interface`, `comment`, `network` and others, as in the file.
    pub(crate) properties: BTreeMap<String, String>,
}

impl From<&RuleSet> for Exported {
    fn from(rules: &RuleSet) -> Self {
        let entry = |entry: &rule::ListEntry| Entry {
            list: entry.list.clone(),
            address: match &entry.address {
                EntryAddress::Set(set) => Some(set.to_string()),
                EntryAddress::Name(name) => Some(name.clone()),
                EntryAddress::None => None,
            },
            timeout_seconds: entry.timeout.map(seconds),
            disabled: entry.disabled,
            comment: entry.comment.clone(),
            line: line(entry.line),
        };
        let local_address = |local: &rule::LocalAddress| {
            let rule::LocalAddress { address, disabled, inert } = local.clone();
            LocalAddress { address, disabled, properties: inert.into_iter().collect() }
        };
        let interface_list = |list: &rule::InterfaceList| {
            let rule::InterfaceList { name, include, exclude, members, comment } = list.clone();
            let members = members.into_iter().map(|member| {
                let rule::InterfaceMember { interface, disabled, comment, line: at } = member;
                InterfaceMember { interface, disabled, comment, line: line(at) }
            });
            InterfaceList { name, include, exclude, members: members.collect(), comment }
        };
        Exported {
            rules: rules.rules.iter().map(Rule::from).collect(),
            address_lists: rules.address_lists.iter().map(entry).collect(),
            patterns: rules.layer7.iter().map(Pattern::from).collect(),
            tracking: (&rules.tracking).into(),
            interface_lists: rules.interface_lists.iter().map(interface_list).collect(),
            local_addresses: rules.local_addresses.iter().map(local_address).collect(),
        }
    }
}

impl Rules {
    /// The running rules with these settings.
    pub(crate) fn new(rules: wire::Rules, settings: &Settings) -> Rules {
        let wire::Rules { generation, source, rules, counters, chain_defaults: defaults } = rules;
        let numbered = rule::numbers(&rules.rules).into_iter().zip(&rules.rules);
        let counted = numbered.zip(counters);
        let counted = counted.map(|((number, rule), counter)| CountedRule { number, rule: rule.into(), counter });
        Rules {
            generation,
            source,
            rules: counted.collect(),
            chain_defaults: chain_defaults(&defaults, settings),
            patterns: rules.layer7.iter().map(Pattern::from).collect(),
        }
    }
}
