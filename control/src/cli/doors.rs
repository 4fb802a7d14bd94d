//! The doors as tables: counters, steps, failed knocks by reason, and the sources that knock, are admitted or are ignored.

use std::array;
use std::net::IpAddr;

use knockplane_policy::door::Failure;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::{DoorSummary, Doors, IgnoredSource, Visitor};
use knockplane_policy::word::Word;

use super::table::Align::{Left, Right};
use super::table::{Columns, grouped, printable};

/// Checks that the requested door exists.
///
/// # Errors
/// If there is no door with this name.
pub(super) fn known(doors: &Doors, only: Option<&str>) -> Result<(), String> {
    match only {
        Some(name) if doors.doors.is_empty() => {
            Err(format!("there is no door `{}`: `knockctl show doors` names them", printable(name)))
        }
        _ => Ok(()),
    }
}

/// All tables that have rows.
pub(super) fn doors(doors: &Doors) -> String {
    if doors.doors.is_empty() {
        return "there are no doors: each is a `[[door]]` of the configuration\n".to_owned();
    }
    let mut text = summary_table(&doors.doors);
    text += &format!("\nsteps of the knocks\n{}", step_table(&doors.doors));
    text += &format!("\nfailed knocks and steps\n{}", failure_table(&doors.doors));
    if !doors.knocking.is_empty() {
        text += &format!("\nsources that knock\n{}", knocking_table(&doors.knocking, &doors.doors));
    }
    if !doors.open.is_empty() {
        text += &format!("\nsources with a grant\n{}", open_table(&doors.open));
    }
    if !doors.ignored.is_empty() {
        text += &format!("\nwhose knocks are ignored\n{}", ignored_table(&doors.ignored));
        text += "`knockctl explain-source ADDRESS` shows the remedy\n";
    }
    if doors.truncated {
        let shown = doors.knocking.len().max(doors.open.len()).max(doors.ignored.len());
        text += &format!("\nonly the first {shown} sources of each table; --limit shows more\n");
    }
    text
}

fn summary_table(doors: &[DoorSummary]) -> String {
    let mut table = Columns::new(&[
        ("DOOR", Left),
        ("KNOCKING", Right),
        ("OPEN", Right),
        ("OPENED", Right),
        ("CLOSED", Right),
        ("OPENS", Left),
    ]);
    for door in doors {
        table.row([
            door.door.clone(),
            grouped(door.knocking),
            grouped(door.open),
            grouped(door.opened),
            grouped(door.closed),
            if door.opens.is_empty() { "all ports".to_owned() } else { door.opens.join(", ") },
        ]);
    }
    table.text()
}

/// A row for each step. Steps of closing knocks have no counters of their own.
fn step_table(doors: &[DoorSummary]) -> String {
    let mut table =
        Columns::new(&[("DOOR", Left), ("KNOCK", Left), ("STEP", Right), ("TAKEN", Right), ("PACKET", Left)]);
    for door in doors {
        for (step, (packet, taken)) in (1_u32..).zip(door.knock.iter().zip(&door.steps)) {
            table.row([door.door.clone(), "opens".into(), step.to_string(), grouped(*taken), packet.clone()]);
        }
        for (step, packet) in (1_u32..).zip(&door.close) {
            table.row([door.door.clone(), "closes".into(), step.to_string(), "-".into(), packet.clone()]);
        }
    }
    table.text()
}

/// A column for each reason.
fn failure_table(doors: &[DoorSummary]) -> String {
    let reasons: Vec<String> = Failure::ALL.iter().map(|reason| reason.name().to_uppercase()).collect();
    let reasons = reasons.iter().map(|reason| (reason.as_str(), Right));
    let mut table = Columns::new(&[("DOOR", Left)].into_iter().chain(reasons).collect::<Vec<_>>());
    for door in doors {
        let times = |reason: Failure| door.failed.iter().find(|count| count.reason == reason).map(|count| count.times);
        table.row::<{ 1 + Failure::ALL.len() }>(array::from_fn(|column| match column {
            0 => door.door.clone(),
            reason => grouped(times(Failure::ALL[reason - 1]).unwrap_or_default()),
        }));
    }
    table.text()
}

fn knocking_table(visitors: &[Visitor], doors: &[DoorSummary]) -> String {
    let mut table =
        Columns::new(&[("DOOR", Left), ("SOURCE", Left), ("AT", Left), ("STEPS", Left), ("TIME LEFT", Right)]);
    for visitor in visitors {
        let of = doors.iter().find(|door| door.door == visitor.door).map_or(0, |door| door.steps.len());
        let steps = format!("{} of {of}", visitor.steps);
        table.row([
            visitor.door.clone(),
            visitor.vlan.behind(&visitor.address),
            at(visitor),
            steps,
            time_left(visitor),
        ]);
    }
    table.text()
}

fn open_table(visitors: &[Visitor]) -> String {
    let mut table = Columns::new(&[("DOOR", Left), ("SOURCE", Left), ("AT", Left), ("TIME LEFT", Right)]);
    for visitor in visitors {
        table.row([visitor.door.clone(), visitor.vlan.behind(&visitor.address), at(visitor), time_left(visitor)]);
    }
    table.text()
}

fn ignored_table(ignored: &[IgnoredSource]) -> String {
    let mut table = Columns::new(&[("DOOR", Left), ("SOURCE", Left), ("BECAUSE", Left), ("TIME LEFT", Right)]);
    for IgnoredSource { door, address, vlan, reason, time_left } in ignored {
        let door = door.clone().unwrap_or_else(|| "all".to_owned());
        let because = match reason {
            Failure::Ports => "ports: it has tried too many ports",
            Failure::HeldOff => "held-off: it has just opened the door",
            Failure::Attempts => "attempts: it has begun too often",
            other => other.name(),
        };
        table.row([door, vlan.behind(address), because.to_owned(), format_duration(*time_left)]);
    }
    table.text()
}

/// The destination of a knock or a grant. Of an IPv6 address only a hash is stored; a grant of an operator counts for all
/// destinations.
fn at(visitor: &Visitor) -> String {
    match visitor.to {
        None => "any".to_owned(),
        Some(IpAddr::V6(_)) => "not kept".to_owned(),
        Some(to) => to.to_string(),
    }
}

fn time_left(visitor: &Visitor) -> String {
    visitor.time_left.map_or_else(|| "-".to_owned(), format_duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn doors_show_counts_and_then_visitors() {
        let text = doors(&sample::doors());
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn an_unknown_door_is_an_error_and_a_cut_answer_says_so() {
        let none = Doors { doors: Vec::new(), ..sample::doors() };
        assert!(known(&none, Some("shs")).unwrap_err().contains("`shs`"));
        assert!(doors(&none).contains("`[[door]]`"));
        let cut = Doors { truncated: true, ..sample::doors() };
        let text = doors(&cut);
        assert!(text.ends_with("\nonly the first 3 sources of each table; --limit shows more\n"), "{text}");
    }
}
