//! Writing rules as RouterOS exports them: compact, with what is so by default left out.
//!
//! Reading the text gives the same rules, but for the lines they stand on. Rules that are invalid are written with all
//! of their matchers. The form is that of RouterOS 6.43 and later: the order of menus and properties, quotes, and where
//! lines end; a router takes it, except for a property that needs what is not among the rules, the interface of an
//! address.
//!
//! Menus come one after the other, so the rules of each keep their order; how they stood between those of other menus
//! is lost, as it means nothing. So is what was read and says nothing of packets: comments of interface lists and
//! addresses, interfaces of addresses, members and addresses that are disabled, the prefix of a log that is not kept.
//! The rules that doors put there are no part of the file: a comment says which doors there are.

mod wrap;

use ipnet::IpNet;

use self::wrap::Lines;
use super::menu::Menu;
use super::wording::{self, Alphabet, Property, Value, entry_address, properties};
use super::{read, tracking};
use crate::packet::Family;
use crate::rule::{Action, EntryAddress, InterfaceList, Layer7Pattern, ListEntry, Rule, RuleSet, Table};
use crate::time::format_duration;

/// The rules as text of a rule file, in ASCII, if reading it gives these rules. Those of a file always can be said again,
/// but rules may come as JSON too, with a `!` that is part of a content, say: written, it would mean the opposite.
///
/// # Errors
/// What cannot be said, for people.
pub fn export(rules: &RuleSet) -> Result<String, String> {
    let text = doors(rules) + &written(rules);
    let reading = read(text.as_bytes());
    let (meant, said) = (comparable(rules.clone()), comparable(reading.rules));
    if reading.problems.is_empty() && meant == said {
        return Ok(text);
    }
    let mut places = 0..meant.rules.len();
    let other = places.find(|place| said.rules.get(*place) != Some(&meant.rules[*place]));
    Err(match other {
        Some(place) => format!("the rule `{}`", wording::rule(&meant.rules[place]).join(" ")),
        None => "a pattern, a list, an address or a timeout".to_owned(),
    })
}

/// In the order in which an export has them, without the lines, and without what readers of other versions may see in
/// another way: the order of matchers, and why rules are invalid.
fn comparable(mut rules: RuleSet) -> RuleSet {
    rules.rules.retain(|rule| !rule.dynamic);
    rules.rules.sort_by_key(|rule| (rule.family == Family::Ipv6, rule.table == Table::Raw));
    rules.address_lists.sort_by_key(|entry| entry.family == Family::Ipv6);
    rules.local_addresses.sort_by_key(|net| matches!(net, IpNet::V6(_)));
    for rule in &mut rules.rules {
        rule.line = 0;
        rule.invalid = rule.invalid.take().map(|_| String::new());
        rule.matchers.sort_by_key(|matcher| (matcher.condition.rank(), matcher.condition.name().to_owned()));
    }
    rules.layer7.iter_mut().for_each(|pattern| pattern.line = 0);
    rules.address_lists.iter_mut().for_each(|entry| entry.line = 0);
    rules.assign_ids();
    rules
}

/// A line for each door: what it is stands in the configuration, and RouterOS has no words for it.
fn doors(rules: &RuleSet) -> String {
    let mut names: Vec<_> = rules
        .rules
        .iter()
        .filter_map(|rule| match &rule.action {
            Action::Knock(door) if rule.dynamic => Some(door),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
        .iter()
        .map(|door| format!("# door {door}: a [[door]] of the configuration, not part of the rules\n"))
        .collect()
}

fn written(rules: &RuleSet) -> String {
    let mut lines = Lines::default();
    lines.menu(Menu::InterfaceList.path(), "add", rules.interface_lists.iter().map(interface_list));
    lines.menu(Menu::Layer7.path(), "add", rules.layer7.iter().map(pattern));
    let changed = Some(tracking::changed(&rules.tracking)).filter(|changed| !changed.is_empty());
    let changed = changed.map(|changed| changed.into_iter().map(|(name, value)| code(name, value)).collect());
    lines.menu(Menu::Tracking.path(), "set", changed.into_iter());
    lines.menu(Menu::InterfaceListMember.path(), "add", rules.interface_lists.iter().flat_map(members));
    for family in [Family::Ipv4, Family::Ipv6] {
        let addresses = rules.local_addresses.iter().filter(|net| Family::of(net.addr()) == family);
        lines.menu(Menu::LocalAddress(family).path(), "add", addresses.map(local_address));
        let entries = rules.address_lists.iter().filter(|entry| entry.family == family);
        lines.menu(Menu::AddressList(family).path(), "add", entries.map(entry));
        for table in [Table::Filter, Table::Raw] {
            let of_menu = |rule: &&Rule| rule.family == family && rule.table == table && !rule.dynamic;
            let rules = rules.rules.iter().filter(of_menu);
            lines.menu(Menu::Rules(table, family).path(), "add", rules.map(properties));
        }
    }
    lines.text()
}

fn text(name: &str, value: &str) -> Property {
    Property::new(name, &Value::text(value), Alphabet::Ascii)
}

fn code(name: &str, value: impl Into<String>) -> Property {
    Property::new(name, &Value::code(value), Alphabet::Ascii)
}

/// The comment, if there is one.
fn comment(value: &str) -> Option<Property> {
    (!value.is_empty()).then(|| text("comment", value))
}

fn interface_list(list: &InterfaceList) -> Vec<Property> {
    let names = |name: &str, names: &[String]| (!names.is_empty()).then(|| code(name, names.join(",")));
    let others = [names("exclude", &list.exclude), names("include", &list.include)];
    others.into_iter().flatten().chain([text("name", &list.name)]).collect()
}

fn members(list: &InterfaceList) -> impl Iterator<Item = Vec<Property>> {
    list.members.iter().map(|member| vec![text("interface", member), text("list", &list.name)])
}

fn pattern(pattern: &Layer7Pattern) -> Vec<Property> {
    let rest = [text("name", &pattern.name), text("regexp", &pattern.regexp)];
    comment(&pattern.comment).into_iter().chain(rest).collect()
}

/// RouterOS leaves out the length of a single address, and of a prefix of 64 bits, and says which network an IPv4 address
/// is in.
fn local_address(net: &IpNet) -> Vec<Property> {
    let address = match (net, net.prefix_len()) {
        (IpNet::V4(_), 32) | (IpNet::V6(_), 64) => net.addr().to_string(),
        _ => net.to_string(),
    };
    let network = matches!(net, IpNet::V4(_)).then(|| code("network", net.network().to_string()));
    [code("address", address)].into_iter().chain(network).collect()
}

fn entry(entry: &ListEntry) -> Vec<Property> {
    let address = (entry.address != EntryAddress::None).then(|| code("address", entry_address(&entry.address)));
    let disabled = entry.disabled.then(|| code("disabled", "yes"));
    let timeout = entry.timeout.map(|timeout| code("timeout", format_duration(timeout)));
    let list = Some(text("list", &entry.list));
    [address, comment(&entry.comment), disabled, list, timeout].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
