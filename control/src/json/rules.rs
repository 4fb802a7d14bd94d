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
use knockplane_policy::wire::history::{History, Revision, RevisionOrigin};
use knockplane_policy::wire::{self, Counter};
use schemars::JsonSchema;
use serde::Serialize;

use super::{line, seconds};

/// The running rules with their counters.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RulesJson {
    /// The generation of the rules.
    pub(crate) generation: u64,
    /// The revision of the rules in `history`. A change that is based on it can name it: `--revision`.
    pub(crate) revision: u64,
    /// Identifies these rules in this order, for `GET /api/v1/rules/counters`. It changes with every apply, reload and start.
    pub(crate) order: String,
    /// The source of the rules.
    pub(crate) source: String,
    /// The rules, including those of doors, in the order of evaluation within each chain.
    pub(crate) rules: Vec<CountedRuleJson>,
    /// The default of each chain: the verdict on packets that none of its rules decides.
    pub(crate) chain_defaults: Vec<ChainDefaultJson>,
    /// The layer-7 patterns of the rules.
    pub(crate) patterns: Vec<PatternJson>,
}

/// The counters of the running rules in columns: small, for a read each second.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleCountersJson {
    /// That of the request.
    pub(crate) order: String,
    /// The time of the reading, since the dataplane started: a rate is a difference of counters by a difference of these times.
    pub(crate) uptime_seconds: f64,
    /// Packets of each rule, in the order of `rules` of `GET /api/v1/rules`, since its last `rule reset-counters`.
    pub(crate) packets: Vec<u64>,
    /// IP bytes of each rule, in the same order.
    pub(crate) bytes: Vec<u64>,
}

impl From<wire::RuleCounters> for RuleCountersJson {
    fn from(counters: wire::RuleCounters) -> Self {
        let wire::RuleCounters { order, uptime, packets, bytes } = counters;
        RuleCountersJson { order, uptime_seconds: seconds(uptime), packets, bytes }
    }
}

/// A running rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CountedRuleJson {
    /// The present number. It changes when rules before it are added or removed; `id` does not.
    pub(crate) number: RuleNumber,
    #[serde(flatten)]
    pub(crate) rule: RuleJson,
    pub(crate) origin: RuleOriginJson,
    /// The packets that the rule has matched, since its last `rule reset-counters`.
    pub(crate) counter: Counter,
}

/// The change that added a rule, or that changed its comment, disabled or enabled it last.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleOriginJson {
    /// The revision in `history`; the oldest one that is kept if the change is older; `null` for a rule of a door.
    pub(crate) revision: Option<u64>,
    /// The origin of the revision; `null` for a rule of a door.
    pub(crate) change: Option<RevisionOrigin>,
    /// The command of an edit, the source of the rules of another revision, or the configuration file with the door.
    pub(crate) source: String,
}

impl RuleOriginJson {
    fn new(revision: Option<u64>, configuration: &str, history: &History) -> Self {
        let known = history.revisions.iter().find(|known| Some(known.number) == revision);
        let source = match revision {
            None => configuration,
            Some(_) => known.map_or("", Revision::what),
        };
        RuleOriginJson { revision, change: known.map(|known| known.origin), source: source.to_owned() }
    }
}

/// A rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleJson {
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

impl From<&rule::Rule> for RuleJson {
    fn from(rule: &rule::Rule) -> Self {
        let words = wording::rule(rule);
        let properties = words.iter().filter_map(|word| word.split_once('='));
        let is_in_a_field = |name: &str| matches!(name, "chain" | "action");
        let properties = properties.filter(|(name, _)| !is_in_a_field(name));
        RuleJson {
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
pub(crate) struct ChainDefaultJson {
    pub(crate) chain: String,
    pub(crate) verdict: Verdict,
    /// The packets that the default decided.
    pub(crate) counter: Counter,
}

/// The defaults of all chains with these counters, which are in the order of [`BuiltinChain::ALL`].
pub(crate) fn chain_defaults(counters: &[Counter; 3], settings: &Settings) -> Vec<ChainDefaultJson> {
    let default = |(chain, counter): (BuiltinChain, &Counter)| ChainDefaultJson {
        chain: chain.name().to_owned(),
        verdict: settings.chain_default.verdict(chain),
        counter: *counter,
    };
    BuiltinChain::ALL.into_iter().zip(counters).map(default).collect()
}

/// A layer-7 pattern.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PatternJson {
    pub(crate) name: String,
    /// The expression; bytes above 0x7f as `\xHH`.
    pub(crate) regexp: String,
    pub(crate) comment: String,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

impl From<&rule::Layer7Pattern> for PatternJson {
    fn from(pattern: &rule::Layer7Pattern) -> Self {
        let rule::Layer7Pattern { name, regexp, comment, line: at } = pattern.clone();
        PatternJson { name, regexp, comment, line: line(at) }
    }
}

/// The content of a rule file: `export`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExportedJson {
    /// The rules in the order of the file.
    pub(crate) rules: Vec<RuleJson>,
    /// Entries of address lists.
    pub(crate) address_lists: Vec<RuleListEntryJson>,
    /// Layer-7 patterns.
    pub(crate) patterns: Vec<PatternJson>,
    /// Connection tracking.
    pub(crate) tracking: TrackingJson,
    /// Interface lists.
    pub(crate) interface_lists: Vec<InterfaceListJson>,
    /// The router's own addresses.
    pub(crate) local_addresses: Vec<LocalAddressJson>,
}

/// An entry of an address list in a rule file.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Entry")]
pub(crate) struct RuleListEntryJson {
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
pub(crate) struct TrackingJson {
    /// The condition under which connections are tracked.
    pub(crate) enabled: TrackingMode,
    /// Whether a TCP packet in the middle of an unknown connection begins the connection.
    pub(crate) loose_tcp: bool,
    /// RouterOS's timeouts by name: `tcp-established`, `udp-stream`.
    pub(crate) timeouts_seconds: BTreeMap<&'static str, f64>,
}

impl From<&rule::Tracking> for TrackingJson {
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
        TrackingJson { enabled: tracking.enabled, loose_tcp: tracking.loose_tcp, timeouts_seconds }
    }
}

/// An interface list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InterfaceListJson {
    pub(crate) name: String,
    /// Lists whose members belong to this list.
    pub(crate) include: Vec<String>,
    /// Lists whose members do not belong to this list, unless they are in `members`.
    pub(crate) exclude: Vec<String>,
    pub(crate) members: Vec<InterfaceMemberJson>,
    pub(crate) comment: String,
}

/// A member of an interface list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InterfaceMemberJson {
    pub(crate) interface: String,
    pub(crate) disabled: bool,
    pub(crate) comment: String,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

/// One of the router's own addresses.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LocalAddressJson {
    /// The address with its prefix length; `null` if the router generates the whole address.
    #[schemars(with = "Option<String>")]
    pub(crate) address: Option<IpNet>,
    pub(crate) disabled: bool,
    /// `interface`, `comment`, `network` and others, as in the file.
    pub(crate) properties: BTreeMap<String, String>,
}

impl From<&RuleSet> for ExportedJson {
    fn from(rules: &RuleSet) -> Self {
        let entry = |entry: &rule::RuleFileEntry| RuleListEntryJson {
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
            LocalAddressJson { address, disabled, properties: inert.into_iter().collect() }
        };
        let interface_list = |list: &rule::InterfaceList| {
            let rule::InterfaceList { name, include, exclude, members, comment } = list.clone();
            let members = members.into_iter().map(|member| {
                let rule::InterfaceMember { interface, disabled, comment, line: at } = member;
                InterfaceMemberJson { interface, disabled, comment, line: line(at) }
            });
            InterfaceListJson { name, include, exclude, members: members.collect(), comment }
        };
        ExportedJson {
            rules: rules.rules.iter().map(RuleJson::from).collect(),
            address_lists: rules.address_lists.iter().map(entry).collect(),
            patterns: rules.layer7.iter().map(PatternJson::from).collect(),
            tracking: (&rules.tracking).into(),
            interface_lists: rules.interface_lists.iter().map(interface_list).collect(),
            local_addresses: rules.local_addresses.iter().map(local_address).collect(),
        }
    }
}

impl RulesJson {
    /// The running rules with these settings.
    pub(crate) fn new(running: &wire::RunningRules, history: &History, settings: &Settings) -> RulesJson {
        let wire::RunningRules { generation, revision, order, source, configuration, rules, origins, counters, .. } =
            running;
        let numbered = rule::numbers(&rules.rules).into_iter().zip(&rules.rules);
        let counted = numbered.zip(origins).zip(counters).map(|(((number, rule), origin), counter)| CountedRuleJson {
            number,
            rule: rule.into(),
            origin: RuleOriginJson::new(*origin, configuration, history),
            counter: *counter,
        });
        RulesJson {
            generation: *generation,
            revision: *revision,
            order: order.clone(),
            source: source.clone(),
            rules: counted.collect(),
            chain_defaults: chain_defaults(&running.chain_defaults, settings),
            patterns: rules.layer7.iter().map(PatternJson::from).collect(),
        }
    }
}
