//! A translator from rules to nftables, for the differential test only. docs/nftables.md lists the rules that it cannot
//! express.
//!
//! ```text
//! bridge prerouting: marks which side a frame came in on
//! inet prerouting, before tracking: raw's chains
//! inet forward: input or output, by the side, then the chain's default
//! ```
//! Each rule becomes one rule, in order, with its matchers in RouterOS's order. nftables has no "or" within a rule, so
//! earlier rules store a partial answer in a bit of the packet's mark.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use knockplane_policy::packet::{Family, Side};
use knockplane_policy::rule::{Action, Condition, EntryAddress, ListAdd, ListTimeout, MATCHERS, Rule, RuleSet, Table};

use super::condition::{Asked, ask, literal};

/// The bits of the mark for the side on which a packet arrived.
pub(super) const SIDE_BITS: u32 = 3;

/// The values of the side's bits.
pub(super) const fn side_mark(side: Side) -> u32 {
    side.index() as u32 + 1
}

/// The rules as input for `nft -f`.
pub(super) fn translate(rules: &RuleSet) -> anyhow::Result<String> {
    let mut sets = lists(rules)?;
    let mut chains = String::new();
    let names: BTreeSet<(Table, &str)> = [Table::Raw, Table::Filter]
        .into_iter()
        .flat_map(|table| table.builtin_chains().iter().map(move |name| (table, *name)))
        .chain(rules.rules.iter().map(|rule| (rule.table, rule.chain.as_str())))
        .collect();
    for (table, name) in names {
        chains += &format!("chain {} {{\n", chain(table, name));
        for (index, rule) in rules.rules.iter().enumerate() {
            if rule.table == table && rule.chain == name && rule.runs() {
                let said = one(index, rule).with_context(|| format!("rule {index} cannot be expressed in nftables"))?;
                chains += &said.text;
                sets += &said.sets;
            }
        }
        chains += "}\n";
    }
    let by_side = |side| format!("meta mark & {SIDE_BITS} == {}", side_mark(side));
    let (outside, inside) = (by_side(Side::Outside), by_side(Side::Inside));
    let fasttracked = "meta l4proto { 6, 17 } ct state { new, established } ct mark 1 accept";
    let has_fasttrack = rules.rules.iter().any(|rule| rule.action == Action::FasttrackConnection);
    let fasttracked = if has_fasttrack { fasttracked } else { "" };
    Ok(format!(
        "table bridge sides {{\nchain arrive {{\ntype filter hook prerouting priority -300;\n\
         iifname \"outside\" meta mark set {}\niifname \"inside\" meta mark set {}\n}}\n}}\n\
         table inet rules {{\n{sets}{chains}\
         chain before {{\ntype filter hook prerouting priority raw;\n\
         {outside} jump raw-prerouting\n{inside} jump raw-output\n}}\n\
         chain decide {{\ntype filter hook forward priority filter; policy drop;\n{fasttracked}\n\
         {outside} jump filter-input\n{outside} drop\n{inside} jump filter-output\n{inside} accept\n}}\n}}\n",
        side_mark(Side::Outside),
        side_mark(Side::Inside),
    ))
}

fn chain(table: Table, name: &str) -> String {
    match table {
        Table::Raw => format!("raw-{name}"),
        Table::Filter => format!("filter-{name}"),
    }
}

/// The name of an address list's set: nftables has one set per family.
pub(super) fn set_of(list: &str, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("ipv4-{list}"),
        Family::Ipv6 => format!("ipv6-{list}"),
    }
}

/// The translation of a rule.
struct Translation {
    text: String,
    sets: String,
}

fn one(index: usize, rule: &Rule) -> anyhow::Result<Translation> {
    let mut matchers: Vec<_> = rule.matchers.iter().collect();
    matchers.sort_by_key(|matcher| MATCHERS.iter().position(|name| *name == matcher.condition.name()));
    let (mut before, mut sets) = (String::new(), String::new());
    let mut expressions = vec![match rule.family {
        Family::Ipv4 => "meta nfproto ipv4".to_owned(),
        Family::Ipv6 => "meta nfproto ipv6".to_owned(),
    }];
    for (place, matcher) in matchers.into_iter().enumerate() {
        // The bits after those of the side; values of earlier rules are cleared.
        let bit = 1 << (place + 8);
        let asked = ask(matcher, rule, bit, &format!("memory-{index}-{place}"))?;
        let Asked { either, expression, set } = asked;
        if !either.is_empty() {
            before += &format!("meta mark set meta mark & {:#x}\n", !bit);
        }
        for half in either {
            before += &format!("{half} meta mark set meta mark | {bit:#x}\n");
        }
        expressions.push(expression);
        sets += &set;
    }
    let line = expressions.join(" ");
    let text = format!("{before}{line} {}\n", statement(rule));
    Ok(Translation { text, sets })
}

fn statement(rule: &Rule) -> String {
    match &rule.action {
        // The compared rules have no doors.
        Action::Accept | Action::AcceptDoor(_) => "accept".to_owned(),
        // Answers to senders are not compared.
        Action::Drop | Action::Reject(_) | Action::Tarpit => "drop".to_owned(),
        Action::Passthrough | Action::Log | Action::Knock(_) => "counter".to_owned(),
        Action::AddSrcToAddressList(add) => update(add, rule.family, "saddr"),
        Action::AddDstToAddressList(add) => update(add, rule.family, "daddr"),
        Action::Jump(target) => format!("jump {}", chain(rule.table, target)),
        Action::Return => "return".to_owned(),
        Action::FasttrackConnection => "meta l4proto { 6, 17 } ct state { new, established } ct mark set 1".to_owned(),
        Action::Notrack => "notrack".to_owned(),
    }
}

fn update(add: &ListAdd, family: Family, field: &str) -> String {
    let (set, ip) = (set_of(&add.list, family), ip(family));
    match add.timeout {
        ListTimeout::NoneDynamic | ListTimeout::NoneStatic => format!("add @{set} {{ {ip} {field} }}"),
        ListTimeout::After(time) => format!("update @{set} {{ {ip} {field} timeout {}s }}", time.as_secs()),
    }
}

pub(super) const fn ip(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

/// A set for each list and family. Sets to which rules add contain single addresses only, as in nftables.
fn lists(rules: &RuleSet) -> anyhow::Result<String> {
    let added = rules.rules.iter().filter_map(|rule| match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(add.list.as_str()),
        _ => None,
    });
    let added: BTreeSet<&str> = added.collect();
    let asked = rules.rules.iter().flat_map(|rule| &rule.matchers).filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list.as_str()),
        _ => None,
    });
    let mut text = String::new();
    for list in asked.chain(added.iter().copied()).collect::<BTreeSet<_>>() {
        for (family, kind) in [(Family::Ipv4, "ipv4_addr"), (Family::Ipv6, "ipv6_addr")] {
            let entries = rules.address_lists.iter();
            let entries = entries.filter(|entry| entry.list == list && entry.family == family && !entry.disabled);
            let elements: Vec<String> = entries
                .map(|entry| match (&entry.address, entry.timeout) {
                    (EntryAddress::Set(set), None) => Ok(literal(set)),
                    (EntryAddress::Set(set), Some(time)) => Ok(format!("{} timeout {}", literal(set), seconds(time))),
                    (EntryAddress::Name(_) | EntryAddress::None, _) => bail!("an entry of {list} without an address"),
                })
                .collect::<anyhow::Result<_>>()?;
            let flags = if added.contains(list) { "flags dynamic, timeout" } else { "flags interval, timeout" };
            text += &format!("set {} {{\ntype {kind}\nsize 1000\n{flags}\n", set_of(list, family));
            if !elements.is_empty() {
                text += &format!("elements = {{ {} }}\n", elements.join(", "));
            }
            text += "}\n";
        }
    }
    Ok(text)
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}
