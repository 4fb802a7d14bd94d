//! An event as a line of text.

use std::fmt::Write as _;

use crate::cli::table::printable;
use crate::events::change::OperatorChange;
use crate::json::PeerJson;
use crate::json::events::{EventEntryJson, EventJson, EventRuleJson, GapJson, OmittedJson, StartJson};

/// The event as a line of text, without its end.
pub(super) fn line(event: &EventJson) -> String {
    let mut text = format!("{} {}", event.time, event.kind);
    let mut add = |name: &str, value: &dyn std::fmt::Display| _ = write!(text, " {name}={value}");
    let names = [("door", &event.door), ("list", &event.list), ("source", &event.source)];
    if event.packet.is_none() {
        for (name, value) in names {
            value.iter().for_each(|value| add(name, &printable(value)));
        }
    }
    if let Some(EventEntryJson { cause, to, steps, expires, network, .. }) = &event.entry {
        match to {
            Some(PeerJson { address: Some(address) }) => add("to", address),
            Some(PeerJson { address: None }) => add("to", &"unknown"),
            None => {}
        }
        network.vlan.iter().for_each(|vlan| add("vlan", vlan));
        network.pppoe.iter().for_each(|pppoe| add("pppoe", pppoe));
        if *steps > 0 {
            add("steps", steps);
        }
        cause.iter().for_each(|cause| add("cause", cause));
        expires.iter().for_each(|expires| add("expires", expires));
    }
    if let Some(OperatorChange {
        action, by, error, generation, revision, rules_source, edit, subject, comment, ..
    }) = &event.operator
    {
        add("action", action);
        by.uid.iter().for_each(|uid| add("uid", uid));
        by.token.iter().for_each(|token| add("token", &printable(token)));
        if by.page {
            add("page", &true);
        }
        generation.iter().for_each(|generation| add("generation", generation));
        revision.iter().for_each(|revision| add("revision", revision));
        let quoted =
            [("rules", rules_source), ("edit", edit), ("subject", subject), ("comment", comment), ("error", error)];
        for (name, value) in quoted {
            value.iter().filter(|value| !value.is_empty()).for_each(|value| add(name, &format!("{value:?}")));
        }
        let number = event.operator.as_ref().and_then(|change| change.number);
        number.iter().for_each(|number| add("number", number));
    }
    if let Some(GapJson { start, first, last, found, operator_changes }) = &event.gap {
        if *operator_changes > 0 {
            _ = write!(text, ": {operator_changes} changes by operators are missed");
        } else {
            let last = last.map_or_else(|| "the end of that start".to_owned(), |last| last.to_string());
            _ = write!(text, ": events {first} to {last} of start {start} are missed; {found} were found in the lists");
        }
    }
    if let Some(StartJson { start, restored }) = &event.start {
        _ = write!(text, ": the dataplane has started: {start}, {restored} events of restored entries");
    }
    if let Some(OmittedJson { lines }) = &event.omitted {
        _ = write!(text, ": {lines} logged packets are not shown");
    }
    if let Some(packet) = &event.packet {
        _ = write!(text, " {}", printable(&packet.line));
    }
    if let Some(EventRuleJson { id, number }) = &event.rule {
        _ = write!(text, " rule={id}");
        number.iter().for_each(|number| _ = write!(text, " number=\"{number}\""));
    }
    event.id.iter().for_each(|id| _ = write!(text, " id={id}"));
    text
}
