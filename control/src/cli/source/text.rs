//! The state of a source, for a terminal of a hundred columns. This file only formats; `mod.rs` sends the request.

use std::net::IpAddr;
use std::time::Duration;

use knockplane_policy::rule::protocol_name;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::source::{
    DoorFailure, MatcherMemory, Origin, RuleRef, Source, SourceConnection, SourceConnections, SourceDoor, SourceDrop,
    SourceDrops, SourceFailure, SourceList, SourceMatcher, SourcePacket, SourceProgress, SourceWatch,
};
use knockplane_policy::word::Word;

use super::why::{Finding, findings};
use crate::cli::table::Align::{Left, Right};
use crate::cli::table::{Columns, grouped, named, wrapped};

/// The whole answer.
pub(super) fn text(source: &Source) -> String {
    let mut text = format!("{}\n", source.address);
    if let Some(network) = source.network {
        let kept = match source.first_steps_by_network {
            true => "Hold-off, attempts, tried ports and first steps",
            false => "Hold-off, attempts and tried ports",
        };
        let note = format!("{kept} are those of its whole network {network}: every address in it counts.");
        text += &wrapped(&note, "");
    }
    if !source.is_known() {
        text += "nothing is known of it: a knock would be counted from step 1\n";
    }
    let findings = findings(source);
    if !findings.is_empty() {
        text += "\nwhat keeps it out\n";
        for Finding { what, remedy } in &findings {
            text += &wrapped(&format!("- {what}"), "  ");
            if !remedy.is_empty() {
                text += &wrapped(&format!("  Remedy: {remedy}"), "  ");
            }
        }
    }
    let sections = [
        doors(source),
        lists(source),
        quota(source),
        source.connections.as_ref().map(connections).unwrap_or_default(),
        matchers(&source.matchers),
        failures(&source.doors),
        drops(&source.drops, source.uptime),
        source.drops.watch.as_ref().map(watch).unwrap_or_default(),
    ];
    for section in sections.iter().filter(|section| !section.is_empty()) {
        text += &format!("\n{section}");
    }
    text
}

fn doors(source: &Source) -> String {
    if source.doors.is_empty() {
        return String::new();
    }
    let mut table = Columns::new(&[("DOOR", Left), ("STATE", Left), ("AT", Left), ("TIME LEFT", Right)]);
    for door in &source.doors {
        let rows = door_rows(door);
        let nothing = ("no knock has begun".to_owned(), String::new(), String::new());
        let is_empty = rows.is_empty();
        for (state, at, left) in rows.into_iter().chain(is_empty.then_some(nothing)) {
            table.row([door.vlan.behind(&door.door), state, at, left]);
        }
    }
    let ports = source.ports.iter().filter(|ports| ports.tried > 0 && !ports.ignored);
    let ports = ports.map(|ports| {
        let (left, budget) = (short(ports.time_left), ports.budget);
        let tried = ports.vlan.behind(format!("{} of {budget} ports tried", ports.tried));
        format!("{tried}, forgotten in {left}\n")
    });
    let remembered = format!(
        "hold-off, attempts and tried ports are remembered of {} sources at most\n",
        grouped(source.doors_remember)
    );
    format!("doors\n{}{}{remembered}", table.text(), ports.collect::<String>())
}

/// The rows of a door: state, destination, time left.
fn door_rows(door: &SourceDoor) -> Vec<(String, String, String)> {
    let mut rows = Vec::new();
    for ignored in &door.ignored {
        let left = ignored.time_left.map_or_else(|| "-".to_owned(), short);
        rows.push((format!("knocks are ignored: {}", ignored.reason.name()), "any".to_owned(), left));
    }
    for grant in &door.grants {
        let left = grant.time_left.map_or_else(|| "-".to_owned(), short);
        rows.push(("open".to_owned(), at(grant.to), left));
    }
    let knock = |what: &str, SourceProgress { steps, of, next, to, time_left }: &SourceProgress| {
        (format!("{what}step {steps} of {of}, next: {next}"), at(*to), short(*time_left))
    };
    rows.extend(door.progress.iter().map(|progress| knock("", progress)));
    rows.extend(door.closing.iter().map(|progress| knock("closing: ", progress)));
    if let Some(attempts) = door.attempts.filter(|attempts| (1..u64::from(attempts.limit)).contains(&attempts.used)) {
        let state = format!("{} of {} first steps used", attempts.used, attempts.limit);
        rows.push((state, "any".to_owned(), short(attempts.time_left)));
    }
    rows
}

/// The target of a knock or a grant. Of an IPv6 address only a hash is kept. A grant by an operator counts for all
/// destinations.
fn at(to: Option<IpAddr>) -> String {
    match to {
        None => "any".to_owned(),
        Some(to) if to.is_unspecified() => "not kept".to_owned(),
        Some(to) => to.to_string(),
    }
}

fn lists(source: &Source) -> String {
    if source.lists.is_empty() {
        return "lists\nno list holds it\n".to_owned();
    }
    let mut table = Columns::new(&[
        ("", Left),
        ("LIST", Left),
        ("WITHIN", Left),
        ("ADDED BY", Left),
        ("TIME LEFT", Right),
        ("USED BY", Left),
        ("COMMENT", Left),
    ]);
    for list in &source.lists {
        let SourceList { entry, used_by, .. } = list;
        let covered =
            if entry.address.single() == Some(source.address) { String::new() } else { entry.address.to_string() };
        table.row([
            if entry.dynamic { "D" } else { "" }.to_owned(),
            entry.vlan.behind(&entry.list),
            covered,
            added_by(list),
            entry.time_left.map_or_else(|| "-".to_owned(), short),
            numbered(used_by),
            entry.comment.clone(),
        ]);
    }
    let more = if source.lists_truncated { "there are more; --limit shows them\n" } else { "" };
    format!("lists\nFlags: D - dynamic\n{}{more}", table.text())
}

/// The origin of an entry in its list.
fn added_by(list: &SourceList) -> String {
    match list.origin {
        Origin::Door => format!("door {}", list.door.as_deref().unwrap_or("of other rules")),
        Origin::Operator => "an operator".to_owned(),
        Origin::Rules => match list.entry.line {
            Some(0) | None => "the rules".to_owned(),
            Some(line) => format!("line {line} of the rules"),
        },
        Origin::Packet if list.added_by.is_empty() => "rules that are gone".to_owned(),
        Origin::Packet => format!("packets, {}", numbered(&list.added_by)),
    }
}

/// Writes `ip filter 3, 7, ipv6 filter 2`: the menu precedes its first number.
fn numbered(rules: &[RuleRef]) -> String {
    let mut menu = "";
    let number = |rule: &RuleRef| match rule.number.menu() == std::mem::replace(&mut menu, rule.number.menu()) {
        true => rule.number.number().to_string(),
        false => rule.number.to_string(),
    };
    let numbers: Vec<String> = rules.iter().map(number).collect();
    if numbers.is_empty() { "-".to_owned() } else { numbers.join(", ") }
}

fn quota(source: &Source) -> String {
    let Some(quota) = source.quota else { return String::new() };
    let refused = if quota.is_used_up() { "; further ones are refused" } else { "" };
    format!("first steps\n{} of {} in use by {}{refused}\n", quota.used, quota.limit, quota.prefix)
}

fn connections(connections: &SourceConnections) -> String {
    let SourceConnections { count: number, oldest, newest } = connections;
    let shown = oldest.len() + newest.len();
    if *number == 0 {
        return "connections\nnone\n".to_owned();
    }
    let cut = match u64::try_from(shown).is_ok_and(|shown| shown < *number) {
        true => format!(", the {} oldest and the {} newest", oldest.len(), newest.len()),
        false => String::new(),
    };
    let mut table = Columns::new(&[
        ("PROTOCOL", Left),
        ("FROM", Left),
        ("TO", Left),
        ("STATE", Left),
        ("DOOR", Left),
        ("TIME LEFT", Right),
    ]);
    for connection in oldest.iter().chain(newest.iter().rev()) {
        table.row([
            protocol_name(connection.protocol),
            connection.vlan.behind(end(connection.from)),
            end(connection.to),
            state(connection),
            connection.door.clone().unwrap_or_default(),
            short(connection.time_left),
        ]);
    }
    format!("connections: {}{cut}\n{}", grouped(*number), table.text())
}

fn state(connection: &SourceConnection) -> String {
    let closed = if connection.closed { ", closed" } else { "" };
    let fasttracked = if connection.fasttracked { ", fasttracked" } else { "" };
    format!("{}{closed}{fasttracked}", connection.state.name())
}

/// An address and a port.
pub(in crate::cli) fn end((address, port): (IpAddr, u16)) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

fn matchers(matchers: &[SourceMatcher]) -> String {
    if matchers.is_empty() {
        return String::new();
    }
    let mut table = Columns::new(&[("RULE", Left), ("MATCHER", Left), ("STATE", Left), ("TIME LEFT", Right)]);
    for SourceMatcher { rule, memory } in matchers {
        let (matcher, state, left) = match memory {
            MatcherMemory::Psd { weight, threshold, time_left } => {
                let verdict = if weight >= &u64::from(*threshold) { ", a scan" } else { "" };
                ("psd", format!("ports weigh {weight} of {threshold}{verdict}"), short(*time_left))
            }
            MatcherMemory::DstLimit { tokens, burst, time_left } => {
                ("dst-limit", format!("{} of {} tokens left", grouped(*tokens), grouped(*burst)), short(*time_left))
            }
            MatcherMemory::ConnectionLimit { connections, limit, prefix_length } => (
                "connection-limit",
                format!("{connections} connections of its /{prefix_length}, limit {limit}"),
                "-".to_owned(),
            ),
        };
        table.row([rule_name(rule), matcher.to_owned(), state, left]);
    }
    format!("state of matchers\n{}", table.text())
}

/// `ip filter 2, line 3 (comment)`.
fn rule_name(rule: &RuleRef) -> String {
    named(rule.number, rule.line, &rule.comment)
}

fn failures(doors: &[SourceDoor]) -> String {
    let all = doors.iter().flat_map(|door| door.failures.iter().map(|failure| (door.door.as_str(), failure)));
    failure_table("failed steps", all)
}

fn failure_table<'s>(title: &str, failures: impl Iterator<Item = (&'s str, &'s SourceFailure)>) -> String {
    let mut table =
        Columns::new(&[("LAST", Right), ("TIMES", Right), ("DOOR", Left), ("REASON", Left), ("LAST PACKET", Left)]);
    let mut is_empty = true;
    for (door, failure) in failures {
        is_empty = false;
        table.row([
            ago(failure.last_ago),
            grouped(failure.times),
            door.to_owned(),
            failure.reason.name().to_owned(),
            failure.packet.vlan.behind(last_packet(&failure.packet)),
        ]);
    }
    if is_empty { String::new() } else { format!("{title}\n{}", table.text()) }
}

fn drops(drops: &SourceDrops, uptime: Duration) -> String {
    let mut text = "packets that were dropped\n".to_owned();
    if !drops.recent.is_empty() {
        text += &drop_table(&drops.recent);
    }
    if drops.truncated {
        text += "there are more reasons; --limit shows them\n";
    }
    let none = if drops.recent.is_empty() { "None. " } else { "" };
    let coverage = match drops.complete_for {
        None => format!("{none}Nothing is missing since the dataplane started, {} ago.", short(uptime)),
        Some(time) => format!(
            "{none}Nothing is missing of the last {}. Before, records may have given way: there is room for {} of all sources, \
             and while many packets are dropped, not each one is recorded. `--watch 30s` counts every one of this source.",
            short(time),
            grouped(drops.capacity)
        ),
    };
    text + &wrapped(&coverage, "")
}

fn watch(watch: &SourceWatch) -> String {
    let lasted = match watch.time_left {
        Duration::ZERO => String::new(),
        left => format!(", {} are left", short(left)),
    };
    let mut text = format!("watched since {}{lasted}\n", ago(watch.since));
    text += &match watch.drops.is_empty() {
        true => "no packet of it was dropped while it was watched\n".to_owned(),
        false => drop_table(&watch.drops),
    };
    let failures = watch.failures.iter().map(|DoorFailure { door, failure }| (door.as_str(), failure));
    text += &failure_table("failed steps meanwhile", failures);
    if watch.truncated {
        text += "there were too many different reasons: some are missing\n";
    }
    text
}

fn drop_table(drops: &[SourceDrop]) -> String {
    let mut table = Columns::new(&[
        ("LAST", Right),
        ("PACKETS", Right),
        ("FROM", Left),
        ("LAST PACKET", Left),
        ("REASON", Left),
        ("RULE", Left),
    ]);
    for drop in drops {
        let rule = match &drop.rule {
            Some(rule) => rule_name(rule),
            None if drop.rule_is_gone => "of rules that do not run any more".to_owned(),
            None => String::new(),
        };
        table.row([
            ago(drop.last_ago),
            grouped(drop.packets),
            drop.packet.side.to_string(),
            drop.packet.vlan.behind(last_packet(&drop.packet)),
            drop.reason.name().to_owned(),
            rule,
        ]);
    }
    table.text()
}

/// `tcp/22`, `icmp`.
pub(super) fn last_packet(packet: &SourcePacket) -> String {
    let Some(number) = packet.protocol else { return "unreadable".to_owned() };
    match packet.port {
        Some(port) => format!("{}/{port}", protocol_name(number)),
        None => protocol_name(number),
    }
}

fn ago(time: Duration) -> String {
    format!("{} ago", short(time))
}

/// `4.2s`, `41s`, `29m50s`: with tenths of a second for short times.
pub(in crate::cli) fn short(time: Duration) -> String {
    if time < Duration::from_secs(10) { format!("{:.1}s", time.as_secs_f64()) } else { format_duration(time) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
