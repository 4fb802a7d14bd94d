//! Writes rules in the form of a RouterOS export: compact, without defaults.
//!
//! The text reads as the same rules, except for their lines. Invalid rules are written with all of their matchers. The
//! form is that of RouterOS 6.43 and later: the order of menus and properties, quotes, and line breaks. A router
//! accepts it.
//!
//! Menus are written one after the other, so rules keep their order within a menu. Their order relative to other menus
//! is lost, but has no meaning. An export differs from an export of RouterOS in these points. It has no comments at its
//! head and no menus that are not supported. Values have one form (`10.0.0.0/8` for `10.1.2.3/8`, `15m` for `900s`,
//! addresses in lower case, `\\xE1` for `\E1` in patterns). Defaults are omitted (`log-prefix=""`, `disabled=no`,
//! `dynamic=no`, a `netmask` beside its address), and so is `creation-time`. Rules of doors are not written: a comment
//! names the doors.

mod wrap;

use ipnet::IpNet;

use self::wrap::Lines;
use super::interface::is_builtin;
use super::menu::Menu;
use super::wording::{self, Alphabet, Property, Value, entry_address, properties};
use super::{read, tracking};
use crate::packet::Family;
use crate::rule::{
    Action, EntryAddress, InterfaceList, InterfaceMember, Layer7Pattern, LocalAddress, Rule, RuleFileEntry, RuleSet,
    Table,
};
use crate::time::format_duration;

/// The rules as the text of a rule file, in ASCII. The text must read as these rules. Rules of a file always have such
/// a text. Rules in JSON may have none: for example, a content that begins with `!` would mean the opposite.
///
/// # Errors
/// The part that cannot be written.
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

/// The rules in the order of an export, without lines, and without differences between versions of the reader: the
/// order of matchers, and the reasons of invalid rules.
fn comparable(rules: RuleSet) -> RuleSet {
    let mut rules = rules.without_lines();
    rules.rules.retain(|rule| !rule.dynamic);
    rules.rules.sort_by_key(|rule| (rule.family == Family::Ipv6, rule.table == Table::Raw));
    rules.address_lists.sort_by_key(|entry| entry.family == Family::Ipv6);
    rules.local_addresses.sort_by_key(|address| address.family() == Family::Ipv6);
    for rule in &mut rules.rules {
        rule.invalid = rule.invalid.take().map(|_| String::new());
        rule.matchers.sort_by_key(|matcher| (matcher.condition.rank(), matcher.condition.name().to_owned()));
    }
    rules.assign_ids();
    rules
}

/// One line for each door: its definition is in the configuration, and RouterOS has no form for it.
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

/// The commands of an export, in its order, without those of rules: each with its menu, in one line.
pub fn other_commands(rules: &RuleSet) -> Vec<(&'static str, String)> {
    let is_of_rules = |menu: &Menu| matches!(menu, Menu::Rules(..));
    let menus = menus(rules).into_iter().filter(|(menu, _)| !is_of_rules(menu));
    let one_line = |(verb, properties): (String, Vec<Property>)| wording::one_line(verb, &properties);
    menus
        .flat_map(|(menu, commands)| commands.into_iter().map(move |command| (menu.path(), one_line(command))))
        .collect()
}

fn written(rules: &RuleSet) -> String {
    let mut lines = Lines::default();
    for (menu, commands) in menus(rules) {
        lines.commands(menu.path(), commands.into_iter());
    }
    lines.text()
}

/// A command: its verb and its properties.
type Written = (String, Vec<Property>);

/// The commands of each menu, in the order of an export.
fn menus(rules: &RuleSet) -> Vec<(Menu, Vec<Written>)> {
    let all = |verb: &str, commands: Vec<Vec<Property>>| -> Vec<Written> {
        commands.into_iter().map(|properties| (verb.to_owned(), properties)).collect()
    };
    let changed = Some(tracking::changed(&rules.tracking)).filter(|changed| !changed.is_empty());
    let changed = changed.map(|changed| changed.into_iter().map(|(name, value)| code(name, value)).collect());
    let mut menus = vec![
        (Menu::InterfaceList, rules.interface_lists.iter().map(interface_list).collect()),
        (Menu::Layer7, all("add", rules.layer7.iter().map(pattern).collect())),
        (Menu::Tracking, all("set", changed.into_iter().collect())),
        (Menu::InterfaceListMember, all("add", members(rules))),
    ];
    for family in [Family::Ipv4, Family::Ipv6] {
        let addresses = rules.local_addresses.iter().filter(|address| address.family() == family);
        menus.push((Menu::LocalAddress(family), all("add", addresses.map(local_address).collect())));
        let entries = rules.address_lists.iter().filter(|entry| entry.family == family);
        menus.push((Menu::AddressList(family), all("add", entries.map(entry).collect())));
        for table in [Table::Filter, Table::Raw] {
            let of_menu = |rule: &&Rule| rule.family == family && rule.table == table && !rule.dynamic;
            let rules = rules.rules.iter().filter(of_menu);
            menus.push((Menu::Rules(table, family), all("add", rules.map(properties).collect())));
        }
    }
    menus
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

/// RouterOS's own lists always exist, and may have comments.
fn interface_list(list: &InterfaceList) -> (String, Vec<Property>) {
    if is_builtin(&list.name) {
        return (format!("set [ find name={} ]", list.name), comment(&list.comment).into_iter().collect());
    }
    let names = |name: &str, names: &[String]| (!names.is_empty()).then(|| code(name, names.join(",")));
    let others = [comment(&list.comment), names("exclude", &list.exclude), names("include", &list.include)];
    ("add".to_owned(), others.into_iter().flatten().chain([text("name", &list.name)]).collect())
}

/// The members of all lists, in the order of the file.
fn members(rules: &RuleSet) -> Vec<Vec<Property>> {
    let of_list = |list| move |member| (list, member);
    let lists = rules.interface_lists.iter();
    let mut members: Vec<(&InterfaceList, &InterfaceMember)> =
        lists.flat_map(|list| list.members.iter().map(of_list(list))).collect();
    members.sort_by_key(|(_, member)| member.line);
    let properties = |(list, member): (&InterfaceList, &InterfaceMember)| {
        let disabled = member.disabled.then(|| code("disabled", "yes"));
        let rest = [text("interface", &member.interface), text("list", &list.name)];
        comment(&member.comment).into_iter().chain(disabled).chain(rest).collect()
    };
    members.into_iter().map(properties).collect()
}

fn pattern(pattern: &Layer7Pattern) -> Vec<Property> {
    let rest = [text("name", &pattern.name), text("regexp", &pattern.regexp)];
    comment(&pattern.comment).into_iter().chain(rest).collect()
}

/// RouterOS omits the length of a single address, and of a prefix of 64 bits.
fn local_address(local: &LocalAddress) -> Vec<Property> {
    let address = local.address.map(|net| match (net, net.prefix_len()) {
        (IpNet::V4(_), 32) | (IpNet::V6(_), 64) => net.addr().to_string(),
        _ => net.to_string(),
    });
    let disabled = local.disabled.then(|| code("disabled", "yes"));
    let inert = local.inert.iter().map(|(name, value)| text(name, value));
    let address = address.map(|address| code("address", address));
    let mut properties: Vec<Property> = inert.chain(address).chain(disabled).collect();
    properties.sort_by(|one, other| one.name.cmp(&other.name));
    properties
}

fn entry(entry: &RuleFileEntry) -> Vec<Property> {
    let address = (entry.address != EntryAddress::None).then(|| code("address", entry_address(&entry.address)));
    let disabled = entry.disabled.then(|| code("disabled", "yes"));
    let timeout = entry.timeout.map(|timeout| code("timeout", format_duration(timeout)));
    let list = Some(text("list", &entry.list));
    [address, comment(&entry.comment), disabled, list, timeout].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
