//! The text of a plan. Each part begins with its numbers; rows beyond the limit are counted.

use std::collections::BTreeSet;

use knockplane_policy::rsc::Finding;

use crate::cli::table::Align::{Left, Right};
use crate::cli::table::{Columns, count, line, printable, wrapped};
use crate::json::changes::ChangeCountsJson;
use crate::plan::Plan;
use crate::plan::changes::{Changes, MenuCommand, PropertyChange};
use crate::plan::known::{ChangedKnown, KnownVerdicts};
use crate::plan::verdicts::{CaptureVerdicts, ChangedPacket, LiveVerdicts, Outcome, PacketRow, UndecidedPacket};

/// The indentation of continuation lines.
const INDENT: &str = "    ";

/// The plan, with at most `limit` rows in each part.
pub(super) fn text(plan: &Plan, limit: usize) -> String {
    let mut text = wrapped(&format!("old: {}", printable(&plan.old)), INDENT);
    text += &wrapped(&format!("new: {}", printable(&plan.new)), INDENT);
    text += &changes(&plan.changes, limit);
    text += &match (&plan.verdicts, &plan.live, &plan.known) {
        (Some(verdicts), _, _) => packets(verdicts, limit),
        (_, Some(verdicts), _) => live(verdicts, limit),
        (_, _, Some(verdicts)) => known(verdicts, limit),
        (None, None, None) => "\nverdicts: not compared; --pcap FILE compares those on a capture\n".to_owned(),
    };
    if let Some(loss) = &plan.loss {
        text += "\n`apply` asks before, or needs --force:\n";
        text += &loss.lines().map(|line| wrapped(&printable(line), INDENT)).collect::<String>();
    }
    let is_complete = plan.live.as_ref().is_none_or(|live| live.undecided.is_empty());
    match (plan.would_change, is_complete) {
        (true, _) => {}
        (false, true) => text += "\nnothing would change\n",
        (false, false) => text += "\nnothing would change, except perhaps the verdicts on the undecided packets\n",
    }
    text
}

/// The numbers of changes, as `apply` prints them.
pub(in crate::cli) fn counts(counts: &ChangeCountsJson) -> String {
    let menus = match (counts.other_menus_added, counts.other_menus_removed) {
        (0, 0) => String::new(),
        (added, removed) => format!("; other menus: {added} added, {removed} removed"),
    };
    format!("{}{menus}; lints: {} added, {} gone\n", of_rules(counts), counts.lints_added, counts.lints_gone)
}

/// The lints that the old rules do not have, as warnings.
pub(in crate::cli) fn new_lints(changes: &Changes) -> String {
    let warning = |lint: &Finding| {
        let rule = lint.rule.map(|rule| format!("rule {rule}: ")).unwrap_or_default();
        wrapped(&format!("warning[{}]: {rule}{}", lint.code, lint.message), INDENT)
    };
    changes.lints.added.iter().map(warning).collect()
}

fn of_rules(counts: &ChangeCountsJson) -> String {
    let ChangeCountsJson { rules_added, rules_removed, rules_moved, rules_changed, .. } = counts;
    format!("rules: {rules_added} added, {rules_removed} removed, {rules_moved} moved, {rules_changed} changed")
}

fn changes(changes: &Changes, limit: usize) -> String {
    let counts = changes.counts();
    let mut text = format!("\n{}\n", of_rules(&counts)) + &rules(changes, limit);
    let menus = [(&changes.other_menus.added, "added"), (&changes.other_menus.removed, "removed")];
    let commands: Vec<_> =
        menus.iter().flat_map(|(commands, what)| commands.iter().map(move |one| (*what, one))).collect();
    if !commands.is_empty() {
        let (added, removed) = (counts.other_menus_added, counts.other_menus_removed);
        text += &format!("\nother menus: {added} added, {removed} removed\n");
        text += &menu_commands(&commands, limit);
    }
    text += &format!("\nlints: {} added, {} gone\n", counts.lints_added, counts.lints_gone);
    let lints = [(&changes.lints.added, "added"), (&changes.lints.gone, "gone")];
    let lints: Vec<_> = lints.iter().flat_map(|(lints, what)| lints.iter().map(move |lint| (*what, lint))).collect();
    text + &findings(&lints, limit)
}

fn rules(Changes { rules, .. }: &Changes, limit: usize) -> String {
    let all =
        [("added", &rules.added), ("removed", &rules.removed), ("moved", &rules.moved), ("changed", &rules.changed)];
    let mut table =
        Columns::new(&[("CHANGE", Left), ("RULE", Left), ("LINE", Right), ("WAS", Left), ("COMMAND", Left)]);
    let rows = all.iter().flat_map(|(what, rules)| rules.iter().map(move |rule| (*what, rule)));
    for (what, rule) in rows.take(limit) {
        table.row([
            what.to_owned(),
            rule.number.to_string(),
            rule.rule.line.map(line).unwrap_or_default(),
            match what {
                "moved" => rule.old_number.map(|number| number.to_string()).unwrap_or_default(),
                "changed" => rule.differences.iter().map(was).collect::<Vec<_>>().join(", "),
                _ => String::new(),
            },
            rule.command.clone(),
        ]);
    }
    limited(&table, all.iter().map(|(_, rules)| rules.len()).sum(), limit)
}

/// The old value of a property.
fn was(PropertyChange { property, old, .. }: &PropertyChange) -> String {
    match old {
        Some(old) => format!("{property}={old}"),
        None => format!("without {property}"),
    }
}

fn menu_commands(commands: &[(&str, &MenuCommand)], limit: usize) -> String {
    let mut table = Columns::new(&[("CHANGE", Left), ("MENU", Left), ("COMMAND", Left)]);
    for (what, MenuCommand { menu, command }) in commands.iter().take(limit) {
        table.row([(*what).to_owned(), (*menu).to_owned(), command.clone()]);
    }
    limited(&table, commands.len(), limit)
}

fn findings(lints: &[(&str, &Finding)], limit: usize) -> String {
    let mut table = Columns::new(&[("CHANGE", Left), ("CODE", Left), ("RULE", Left), ("LINE", Right), ("LINT", Left)]);
    for (what, lint) in lints.iter().take(limit) {
        table.row([
            (*what).to_owned(),
            lint.code.to_owned(),
            lint.rule.map(|rule| rule.to_string()).unwrap_or_default(),
            line(lint.line),
            lint.message.clone(),
        ]);
    }
    limited(&table, lints.len(), limit)
}

/// A table, and the number of rows that it does not have.
fn limited(table: &Columns, number: usize, limit: usize) -> String {
    let table = if number == 0 || limit == 0 { String::new() } else { table.text() };
    table + &rest(number, limit)
}

/// A line about the items beyond the limit.
fn rest(number: usize, limit: usize) -> String {
    match number.checked_sub(limit) {
        None | Some(0) => String::new(),
        Some(more) => format!("{more} more; --limit shows more, and --json all\n"),
    }
}

fn packets(verdicts: &CaptureVerdicts, limit: usize) -> String {
    let CaptureVerdicts { packets, changed } = verdicts;
    let text = format!("\nverdicts: {} of {} would change\n", changed.len(), count(*packets, "packet"));
    text + &changed_packets(changed, limit)
}

fn changed_packets(changed: &[ChangedPacket], limit: usize) -> String {
    let row = |ChangedPacket { packet, old, new }: &ChangedPacket| row(packet) + &outcomes(old, new);
    changed.iter().take(limit).map(row).collect::<String>() + &rest(changed.len(), limit)
}

fn row(PacketRow { number, since_first, from, packet, .. }: &PacketRow) -> String {
    let packet = packet.as_deref().unwrap_or("a frame that rules cannot see");
    wrapped(&format!("packet {number}, {since_first} s: {packet}, from {from}"), INDENT)
}

fn live(verdicts: &LiveVerdicts, limit: usize) -> String {
    let LiveVerdicts { seconds, packets, missed, compared, later, undecided, changed } = verdicts;
    let mut text = format!(
        "\nverdicts: {} of {} would change, of {} in {seconds} s of live traffic\n",
        changed.len(),
        count(*compared, "first packet"),
        count(*packets, "packet")
    );
    if *later > 0 {
        text += &format!("not compared: {} of open connections and flows\n", count(*later, "later packet"));
    }
    if *missed > 0 {
        text += &format!(
            "not sampled: {}; --live-packets samples more\n",
            count(usize::try_from(*missed).unwrap_or(usize::MAX), "packet")
        );
    }
    text += &changed_packets(changed, limit);
    if !undecided.is_empty() {
        text += &format!("\nundecided: {}\n", count(undecided.len(), "packet"));
        for UndecidedPacket { packet, because } in undecided.iter().take(limit) {
            text += &(row(packet) + &wrapped(&format!("  {}", printable(because)), INDENT));
        }
        text += &rest(undecided.len(), limit);
    }
    text
}

fn known(verdicts: &KnownVerdicts, limit: usize) -> String {
    let KnownVerdicts { connections, sources, packets, truncated, changed } = verdicts;
    let (connections, sources) = (count(*connections, "connection"), count(*sources, "listed source"));
    let of = format!("{} of {}, of {connections} and {sources}", changed.len(), count(*packets, "first packet"));
    let mut text = format!("\nverdicts: {of}, would change\n");
    if *truncated {
        text += "the dataplane knows more than were compared; --known compares more\n";
    }
    let joined = |texts: &BTreeSet<String>| texts.iter().map(|text| printable(text)).collect::<Vec<_>>().join(", ");
    for ChangedKnown { lists, names, from, packet, old, new } in changed.iter().take(limit) {
        let what = match lists {
            None => "connection".to_owned(),
            Some(lists) if names.is_empty() => format!("source in {}", joined(lists)),
            Some(lists) => format!("source in {}, by {}", joined(lists), joined(names)),
        };
        let packet = packet.as_deref().unwrap_or("a frame that rules cannot see");
        text += &wrapped(&format!("{what}: {packet}, from {from}"), INDENT);
        text += &outcomes(old, new);
    }
    text + &rest(changed.len(), limit)
}

/// The old and the new decision.
fn outcomes(old: &Outcome, new: &Outcome) -> String {
    [("old", old), ("new", new)]
        .map(|(what, outcome)| wrapped(&format!("  {what}: {}", printable(&outcome.conclusion)), INDENT))
        .concat()
}
