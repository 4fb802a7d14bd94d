//! `knockctl show status`: whether all is well, what to do if not, and the essential figures, on one screen.
//!
//! `show::status` has all figures, for `--all`.

use knockplane_policy::time::format_duration;
use knockplane_policy::wire::{DataplaneStatus, DropCount, FastPathStatus, Interface, TableMemory, WorkerStatus};

use super::show;
use super::table::{count, cut, filled, grouped, printable};
use crate::api::messages::Overview;
use crate::problems::{Problem, Severity, problems};

/// The columns of the screen.
const WIDTH: usize = 80;

/// The lines of the screen, without that of the prompt.
const HEIGHT: usize = 23;

/// Maximum number of lines for problems: further ones are counted.
const PROBLEM_LINES: usize = 16;

/// The number of reasons of drops.
const DROPS: usize = 3;

/// The screen. `ready` has the reason if the dataplane is not ready.
pub(super) fn screen(overview: &Overview, ready: &Result<(), String>) -> String {
    let problems = problems(&overview.dataplane, &overview.control);
    let mut lines = heading(&problems, ready);
    lines.push(String::new());
    let room = HEIGHT.saturating_sub(lines.len());
    let figures = figures(overview, ready);
    lines.extend(figures.into_iter().take(room));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// `all is well`, or the problems with their remedies.
fn heading(problems: &[Problem], ready: &Result<(), String>) -> Vec<String> {
    let mut lines = match (problems.len(), ready) {
        (0, Ok(())) => return vec!["all is well".to_owned()],
        (0, Err(reason)) => return wrapped(&format!("not ready: {}", printable(reason)), "", "  "),
        (number, _) if problems[0].severity == Severity::Outage => {
            vec![format!("NOT WELL: {}", count(number, "problem"))]
        }
        (number, _) => vec![format!("it works, with {}", count(number, "problem"))],
    };
    for (number, Problem { problem, remedy, .. }) in problems.iter().enumerate() {
        let mut entry = wrapped(&printable(problem), &format!("{}. ", number + 1), "   ");
        entry.extend(wrapped(&printable(remedy), "   -> ", "      "));
        if lines.len() + entry.len() > PROBLEM_LINES {
            lines.push(format!("and {} more: `knockctl show status --json`", problems.len() - number));
            break;
        }
        lines.extend(entry);
    }
    lines
}

fn wrapped(text: &str, first: &str, indent: &str) -> Vec<String> {
    let mut lines = filled(text.split_whitespace(), &" ".repeat(first.len()), indent, WIDTH);
    if let Some(line) = lines.first_mut() {
        line.replace_range(..first.len(), first);
    }
    lines
}

/// The figures, the most important first, one line each.
fn figures(overview: &Overview, ready: &Result<(), String>) -> Vec<String> {
    let Overview { dataplane: status, control } = overview;
    let up = format_duration(status.uptime);
    let mut figures = vec![
        ("dataplane", format!("{}, process {}, up {up}", status.version, status.pid)),
        ("ready", if ready.is_ok() { "yes" } else { "no" }.to_owned()),
        ("rules", rules(status)),
    ];
    figures.extend(status.interfaces.iter().map(|interface| (interface.side.name(), one(interface))));
    figures.extend([
        ("workers", workers(status)),
        ("frames", frames(status)),
        ("fast path", fast_path(&status.fast_path)),
        ("drops", drops(status)),
        ("connections", show::connections(status.connections.as_ref())),
        ("journal", show::journal(&status.journal)),
        ("log", format!("dataplane: {}; control: {}", show::log(&status.log), show::log(&control.log))),
        ("protects", status.settings.protect.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("memory", status.memory.iter().map(memory).collect::<Vec<_>>().join(", ")),
        ("on exit", status.on_exit.clone()),
    ]);
    figures.into_iter().map(|(name, value)| cut(&format!("{name:<12}{value}"), WIDTH)).collect()
}

fn rules(status: &DataplaneStatus) -> String {
    let DataplaneStatus { generation, generation_age, rules, rules_source, .. } = status;
    let age = format_duration(*generation_age);
    format!("generation {generation} for {age}: {} from {}", count(*rules, "rule"), printable(rules_source))
}

fn one(interface: &Interface) -> String {
    let Interface { name, up, driver, xdp_mode, zero_copy, queues, mtu, .. } = interface;
    let link = if *up { "up" } else { "DOWN" };
    let driver = if driver.is_empty() { String::new() } else { format!(" {driver},") };
    let copies = if *zero_copy { "zero-copy" } else { "copy mode" };
    let queues = count(*queues as usize, "queue");
    format!("{} is {link},{driver} {xdp_mode} XDP, {copies}, {queues}, MTU {mtu}", printable(name))
}

fn workers(status: &DataplaneStatus) -> String {
    let busiest = status.workers.iter().max_by_key(|worker| worker.busy);
    let busy = busiest.map(|worker| {
        let part = worker.busy.as_secs_f64() / status.uptime.as_secs_f64().max(f64::EPSILON);
        format!(", the busiest {:.0} % of the time", 100.0 * part.min(1.0))
    });
    format!("{}{}", status.workers.len(), busy.unwrap_or_default())
}

/// The memory of a table, in millions of bytes.
fn memory(TableMemory { table, bytes, huge_page_bytes }: &TableMemory) -> String {
    let megabytes = |bytes: u64| grouped(bytes.div_ceil(1_000_000));
    let in_huge_pages = huge_page_bytes.map(|bytes| format!(" ({} in huge pages)", megabytes(bytes)));
    format!("{} {} MB{}", printable(table), megabytes(*bytes), in_huge_pages.unwrap_or_default())
}

/// The frames of workers since start.
fn frames(status: &DataplaneStatus) -> String {
    let sum = |frames: fn(&WorkerStatus) -> u64| grouped(status.workers.iter().map(frames).sum());
    let received = sum(|worker| worker.received.iter().sum());
    let (sent, dropped) = (sum(|worker| worker.sent.iter().sum()), sum(|worker| worker.dropped));
    format!("workers received {received}, sent {sent}, dropped {dropped}")
}

fn fast_path(path: &FastPathStatus) -> String {
    let reason = path.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    if !path.on {
        return format!("off{reason}");
    }
    let flows = grouped(path.flows.unwrap_or_default().iter().sum());
    let (carried, dropped) = (grouped(path.carried.iter().sum()), grouped(path.dropped));
    format!("on, {flows} flows, carried {carried} frames, dropped {dropped}{reason}")
}

fn drops(status: &DataplaneStatus) -> String {
    let named = |drop: &DropCount| format!("{} {}", drop.reason, grouped(drop.frames));
    let mut named: Vec<_> = status.drops.iter().take(DROPS).map(named).collect();
    match status.drops.len().checked_sub(DROPS) {
        Some(more @ 1..) => named.push(format!("{more} more reasons")),
        _ if named.is_empty() => return "none".to_owned(),
        _ => {}
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use knockplane_policy::wire::{Drift, DriftKind, JournalStatus};

    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::{ready, sample};

    fn shown(change: impl FnOnce(&mut DataplaneStatus)) -> String {
        let mut overview = sample::overview();
        change(&mut overview.dataplane);
        let ready = ready::check(&overview.dataplane);
        let text = screen(&overview, &ready);
        assert!(text.lines().count() <= HEIGHT && text.lines().all(|line| line.width() <= WIDTH), "{text}");
        text
    }

    #[test]
    fn all_is_well_or_the_problems_are_first() {
        insta::assert_snapshot!("status_well", shown(|_| ()));
        insta::assert_snapshot!(
            "status_problems",
            shown(|status| {
                status.confirmation = sample::metrics().status.confirmation;
                status.interfaces[1].up = false;
                status.journal.problem = Some("grants.state: No space left on device".into());
            })
        );
    }

    #[test]
    fn many_problems_leave_room_for_the_first_figures() {
        let text = shown(|status| {
            let problem = |number: usize| Drift {
                kind: DriftKind::Mtu,
                problem: format!("problem {number} {}", "of many words ".repeat(8)),
            };
            status.interfaces[0].drift = (0..7).map(problem).collect();
            status.workers[0].heartbeat_age = Some(Duration::from_secs(9));
            status.journal = JournalStatus { problem: Some("x".into()), ..JournalStatus::default() };
        });
        assert!(text.starts_with("NOT WELL: 9 problems\n1. problem 0"), "{text}");
        assert!(text.contains("\nand 4 more: `knockctl show status --json`\n"), "{text}");
        assert!(text.contains("\nready       no\n"), "{text}");
    }
}
