//! Lists, workers and all figures of the status as tables for a terminal of a hundred columns.

use std::time::Duration;

use knockplane_engine::state::lists::OPERATOR_LEVEL;
use knockplane_policy::packet::Side;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::connections::ConnectionTableStatus;
use knockplane_policy::wire::{
    DropCount, FastPathStatus, Interface, JournalStatus, ListEntry, ListOverview, ListPage, LogStatus, NameState,
    PendingConfirmation, TableMemory, UnconfirmedChange, WorkerStatus,
};
use knockplane_policy::word::Word as _;

use super::Failed;
use super::table::Align::{Left, Right};
use super::table::{Columns, count, grouped, printable, wrapped};
use crate::api::messages::{Overview, Workers};
use crate::audit::AuditStatus;
use crate::{Exit, ready};

/// Checks that the requested list exists.
///
/// # Errors
/// If there is no list with this name.
pub(super) fn known(lists: &ListPage, only: Option<&str>) -> Result<(), Failed> {
    match only {
        Some(name) if lists.lists.iter().all(|list| list.summary.list != name) => {
            let message = format!("there is no list `{}`: `knockctl show lists` names them", printable(name));
            Err(Failed::new(Exit::Runtime, message))
        }
        _ => Ok(()),
    }
}

/// The lists with their counters, then their entries.
pub(super) fn lists(lists: &ListPage, only: Option<&str>) -> String {
    let shown = lists.lists.iter().filter(|list| only.is_none_or(|name| list.summary.list == name));
    let summaries = summary_table(shown) + &name_table(&lists.names);
    if lists.entries.is_empty() { summaries } else { format!("{summaries}\n{}", entries(lists)) }
}

/// The entries of the lists.
pub(super) fn entries(lists: &ListPage) -> String {
    let text = entry_table(&lists.entries);
    let number = lists.entries.len();
    if lists.truncated { format!("{text}\nonly the first {number}; --limit shows more\n") } else { text }
}

fn summary_table<'l>(lists: impl Iterator<Item = &'l ListOverview>) -> String {
    let mut table = Columns::new(&[
        ("LIST", Left),
        ("LEVEL", Right),
        ("DYNAMIC", Right),
        ("STATIC", Right),
        ("EXPIRED", Right),
        ("EVICTED", Right),
        ("REFUSED", Right),
        ("FILLED BY", Left),
    ]);
    for list in lists {
        let ListOverview { summary, by_rules, by_operators, .. } = list;
        table.row([
            summary.list.clone(),
            level(summary.level),
            grouped(summary.entries),
            grouped(by_rules + by_operators),
            grouped(summary.expired),
            grouped(summary.evicted),
            grouped(summary.refused),
            filled_by(list),
        ]);
    }
    table.text()
}

/// The host names in the lists with their state, if there are any.
fn name_table(names: &[NameState]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut table =
        Columns::new(&[("LIST", Left), ("HOST NAME", Left), ("STATE", Left), ("AGE", Right), ("ADDRESSES", Left)]);
    for name in names {
        let addresses: Vec<_> = name.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") };
        table.row([
            name.list.clone(),
            name.name.name.clone(),
            name.state().to_owned(),
            name.answer_age.map_or_else(|| "-".to_owned(), format_duration),
            addresses,
        ]);
    }
    let failures: String = (names.iter())
        .filter_map(|name| {
            Some(wrapped(&format!("{}: {}", printable(&name.name.name), printable(name.failure.as_ref()?)), "    "))
        })
        .collect();
    format!("\n{}{failures}", table.text())
}

/// The origins of the entries: packets that match a rule, the entries of the rules, operators.
fn filled_by(list: &ListOverview) -> String {
    let who = [
        (list.by_packets, "packets"),
        (list.by_rules > 0, "rules"),
        (list.by_operators > 0 || (list.summary.level == OPERATOR_LEVEL && list.summary.entries > 0), "operators"),
    ];
    let who: Vec<_> = who.into_iter().filter(|(fills, _)| *fills).map(|(_, who)| who).collect();
    if who.is_empty() { "nobody".to_owned() } else { who.join(", ") }
}

fn entry_table(entries: &[ListEntry]) -> String {
    let mut table =
        Columns::new(&[("", Left), ("LIST", Left), ("ADDRESS", Left), ("TIME LEFT", Right), ("COMMENT", Left)]);
    for entry in entries {
        let what = match (entry.line, entry.to) {
            (Some(line), _) if entry.name.is_some() => {
                format!("({}, rules, line {line})", entry.name.as_deref().unwrap_or_default())
            }
            (Some(0), _) => "(rules)".to_owned(),
            (Some(line), _) => format!("(rules, line {line})"),
            (None, Some(to)) if to.is_unspecified() => "(for one other end)".to_owned(),
            (None, Some(to)) => format!("(for {to})"),
            (None, None) => String::new(),
        };
        let comment = format!("{} {what}", entry.comment);
        table.row([
            if entry.dynamic { "D" } else { "" }.to_owned(),
            entry.list.clone(),
            entry.vlan.behind(&entry.address),
            entry.time_left.map_or_else(|| "-".to_owned(), format_duration),
            comment.trim().to_owned(),
        ]);
    }
    format!("Flags: D - dynamic\n{}", table.text())
}

/// The level of a list; a dash for lists that only operators fill.
fn level(level: u8) -> String {
    if level == OPERATOR_LEVEL { "-".to_owned() } else { level.to_string() }
}

/// The workers and the kernel's fast path, with two lines for each, one for each side.
pub(super) fn workers(workers: &Workers) -> String {
    let mut table = Columns::new(&[
        ("WORKER", Right),
        ("CORE", Right),
        ("GEN", Right),
        ("HEARTBEAT", Right),
        ("BUSY", Right),
        ("IN FLIGHT", Right),
        ("DROPPED", Right),
        ("SIDE", Left),
        ("RECEIVED", Right),
        ("SENT", Right),
    ]);
    let mut rows = |cells: [String; 7], received: [u64; 2], sent: [u64; 2]| {
        for (side, cells) in Side::ALL.into_iter().zip([cells, [const { String::new() }; 7]]) {
            let [a, b, c, d, e, f, g] = cells;
            let [received, sent] = [received, sent].map(|sides| grouped(sides[side.index()]));
            table.row([a, b, c, d, e, f, g, side.to_string(), received, sent]);
        }
    };
    for worker in &workers.workers {
        rows(worker_cells(worker, workers.uptime), worker.received, worker.sent);
    }
    let FastPathStatus { on, carried: [from_outside, from_inside], dropped, .. } = workers.fast_path;
    if on {
        let nothing = || "-".to_owned();
        let cells = ["kernel".to_owned(), nothing(), nothing(), nothing(), nothing(), nothing(), grouped(dropped)];
        rows(cells, [from_outside + dropped, from_inside], [from_inside, from_outside]);
    }
    table.text()
}

fn worker_cells(worker: &WorkerStatus, uptime: Duration) -> [String; 7] {
    let busy = 100.0 * worker.busy.as_secs_f64() / uptime.as_secs_f64().max(f64::EPSILON);
    [
        worker.worker.to_string(),
        worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string()),
        worker.generation.to_string(),
        worker.heartbeat_age.map_or_else(|| "-".to_owned(), |age| format!("{:.1} s ago", age.as_secs_f64())),
        format!("{busy:.0} %"),
        grouped(worker.in_flight),
        grouped(worker.dropped),
    ]
}

/// The dataplane and its interfaces, for `--all`. `ready` has the reason if the dataplane is not ready.
pub(super) fn status(overview: &Overview, ready: Result<(), String>) -> String {
    let Overview { dataplane: status, control } = overview;
    let protect: Vec<_> = status.settings.protect.iter().map(ToString::to_string).collect();
    let ready = ready.map_or_else(|reason| format!("no: {}", printable(&reason)), |()| "yes".to_owned());
    let generation = format!(
        "{}, for {}, {} from {}",
        status.generation,
        format_duration(status.generation_age),
        count(status.rules, "rule"),
        printable(&status.rules_source)
    );
    let process = format!("{}, process {}, up {}", status.version, status.pid, format_duration(status.uptime));
    let lines = [
        ("dataplane", process),
        ("ready", ready),
        ("generation", generation),
        ("protects", protect.join(", ")),
        ("workers", status.workers.len().to_string()),
        ("connections", connections(status.connections.as_ref())),
        ("fast path", fast_path(&status.fast_path)),
        ("memory", status.memory.iter().map(memory).collect::<Vec<_>>().join("; ")),
        ("on exit", status.on_exit.clone()),
        ("journal", journal(&status.journal)),
        ("log", format!("dataplane: {}", log(&status.log))),
        ("", format!("control: {}", log(&control.log))),
    ];
    let audit = control.audit.as_ref().map(|audit| ("audit", audit_file(audit)));
    let text: String = lines.iter().chain(&audit).map(|(name, value)| named(name, value)).collect();
    let pending: String = status.confirmation.iter().map(|pending| named("confirm", &confirmation(pending))).collect();
    let warnings: String = ready::warnings(status).iter().map(|warning| named("warning", warning)).collect();
    format!(
        "{text}{pending}{warnings}{}\n{}\n{}\n{}",
        drift_lines(&status.interfaces),
        interface_table(&status.interfaces),
        counter_table(&status.interfaces),
        drop_table(&status.drops)
    )
}

/// The audit file.
fn audit_file(AuditStatus { lines, problem, .. }: &AuditStatus) -> String {
    match problem {
        Some(problem) => format!("not written: {}; its lines follow when it can be written", printable(problem)),
        None => format!("{} lines written since the control process started", grouped(*lines)),
    }
}

/// A name with its value.
fn named(name: &str, value: &str) -> String {
    let indent = " ".repeat(12);
    // The blanks before the value are its indentation, and are not wrapped.
    let text = wrapped(&format!("{indent}{value}"), &indent);
    format!("{name:<12}{}", &text[indent.len()..])
}

/// Frames dropped, by reason.
fn drop_table(drops: &[DropCount]) -> String {
    if drops.is_empty() {
        return "no frame was dropped\n".to_owned();
    }
    let mut table = Columns::new(&[("DROPPED", Right), ("REASON", Left)]);
    for DropCount { reason, frames } in drops {
        table.row([grouped(*frames), reason.clone()]);
    }
    table.text()
}

/// The rollback of a change that waits for its confirmation.
fn confirmation(pending: &PendingConfirmation) -> String {
    let PendingConfirmation { change, generation, time_left, back_to, back_to_source, back_to_rules } = pending;
    let rules = match change {
        UnconfirmedChange::Apply => format!(", {} from {}", count(*back_to_rules, "rule"), printable(back_to_source)),
        UnconfirmedChange::Reload => String::new(),
    };
    format!(
        "generation {generation} is rolled back in {} to the {} of generation {back_to}{rules}, unless `knockctl confirm` is \
         run",
        format_duration(*time_left),
        change.replaces()
    )
}

/// The occupancy of the table of connections.
pub(super) fn connections(table: Option<&ConnectionTableStatus>) -> String {
    let Some(ConnectionTableStatus { known, capacity, refused, .. }) = table else { return "not tracked".to_owned() };
    let refused = match refused {
        0 => String::new(),
        1 => "; 1 packet found no room".to_owned(),
        more => format!("; {} packets found no room", grouped(*more)),
    };
    format!("{}, room for {}{refused}", grouped(*known), grouped(*capacity))
}

/// The kernel's fast path.
fn fast_path(fast_path: &FastPathStatus) -> String {
    let reason = fast_path.reason.as_deref().map(printable);
    if !fast_path.on {
        return reason.map_or_else(|| "off".to_owned(), |reason| format!("off: {reason}"));
    }
    let [v4, v6] = fast_path.flows.unwrap_or_default().map(grouped);
    let carried = grouped(fast_path.carried.iter().sum());
    let lost = match fast_path.lost.iter().sum() {
        0 => String::new(),
        lost => format!(", {} of them lost at the other interface", grouped(lost)),
    };
    let reason = reason.map_or_else(String::new, |reason| format!("; not in both directions: {reason}"));
    let dropped = grouped(fast_path.dropped);
    let traced = if fast_path.traced { "; not the flows and strangers that a trace shows" } else { "" };
    format!(
        "on, {v4} flows of IPv4 and {v6} of IPv6; carried {carried} frames{lost}{reason}; dropped {dropped} of strangers{traced}"
    )
}

/// The memory of a table, in millions of bytes.
fn memory(TableMemory { table, bytes, huge_page_bytes }: &TableMemory) -> String {
    let megabytes = |bytes: u64| format!("{} MB", grouped(bytes.div_ceil(1_000_000)));
    let in_huge_pages = match huge_page_bytes {
        None => String::new(),
        Some(0) => ", none in huge pages".to_owned(),
        Some(bytes) => format!(", {} in huge pages", megabytes(*bytes)),
    };
    format!("{} {}{in_huge_pages}", printable(table), megabytes(*bytes))
}

/// A line for each drift of an interface.
fn drift_lines(interfaces: &[Interface]) -> String {
    let all = interfaces.iter().flat_map(|interface| interface.drift.iter().map(move |drift| (interface, drift)));
    all.map(|(interface, drift)| {
        let (side, kind) = (interface.side, drift.kind.name());
        named("drift", &format!("{side}, {kind}: {}", printable(&drift.problem)))
    })
    .collect()
}

/// The counters of the interfaces. An unknown value is a dash.
fn counter_table(interfaces: &[Interface]) -> String {
    let mut table = Columns::new(&[
        ("SIDE", Left),
        ("ARRIVED", Right),
        ("NO SOCKET", Right),
        ("TAILS", Right),
        ("PAST XDP", Right),
        ("RX DROP", Right),
        ("RX ERRORS", Right),
        ("RX MISSED", Right),
        ("TX DROP", Right),
        ("TX ERRORS", Right),
    ]);
    for interface in interfaces {
        let counters = &interface.counters;
        table.row([
            interface.side.to_string(),
            grouped(counters.arrived + counters.past_program.unwrap_or_default()),
            grouped(counters.no_socket),
            grouped(counters.tails),
            counters.past_program.map_or_else(|| "-".to_owned(), grouped),
            grouped(counters.rx_dropped),
            grouped(counters.rx_errors),
            grouped(counters.rx_missed),
            grouped(counters.tx_dropped),
            grouped(counters.tx_errors),
        ]);
    }
    table.text()
}

/// The state of the journal of grants.
pub(super) fn journal(journal: &JournalStatus) -> String {
    let JournalStatus { bytes, waiting, problem, restore, .. } = journal;
    let state = match problem {
        Some(problem) => format!("events that are not on the disk: {}: {}", grouped(*waiting), printable(problem)),
        None => format!("complete, {} kB", grouped(bytes.div_ceil(1_000))),
    };
    let mut restored = format!("entries restored at the start: {}", grouped(restore.restored));
    if restore.expired > 0 {
        restored += &format!(", {} had expired", grouped(restore.expired));
    }
    format!("{state}; {restored}")
}

/// The state of the log of a process.
pub(super) fn log(log: &LogStatus) -> String {
    let lost: Vec<_> = log.lost.iter().filter(|lost| lost.lines > 0).collect();
    let mut text = match lost.iter().map(|lost| lost.lines).sum() {
        0 => "no line lost".to_owned(),
        lines => {
            let kinds: Vec<_> = lost.iter().map(|lost| format!("{} {}", lost.kind, grouped(lost.lines))).collect();
            format!("{} {} lost ({})", grouped(lines), if lines == 1 { "line" } else { "lines" }, kinds.join(", "))
        }
    };
    if log.waiting > 0 {
        text += &format!(", {} waiting", grouped(log.waiting));
    }
    if let Some(problem) = &log.problem {
        text += &format!("; {}", printable(problem));
    }
    text
}

fn interface_table(interfaces: &[Interface]) -> String {
    let mut table = Columns::new(&[
        ("SIDE", Left),
        ("INTERFACE", Left),
        ("LINK", Left),
        ("DRIVER", Left),
        ("XDP", Left),
        ("ZERO COPY", Left),
        ("QUEUES", Right),
        ("MTU", Right),
    ]);
    for interface in interfaces {
        table.row([
            interface.side.to_string(),
            interface.name.clone(),
            if interface.up { "up" } else { "down" }.to_owned(),
            if interface.driver.is_empty() { "-" } else { &interface.driver }.to_owned(),
            interface.xdp_mode.clone(),
            if interface.zero_copy { "yes" } else { "no" }.to_owned(),
            interface.queues.to_string(),
            interface.mtu.to_string(),
        ]);
    }
    table.text() + &copy_reasons(interfaces)
}

/// The reasons for copy mode, and the cost of copy mode or generic XDP.
fn copy_reasons(interfaces: &[Interface]) -> String {
    let reasons = interfaces.iter().filter_map(|interface| interface.copy_reason.as_deref());
    let costs = interfaces.iter().filter_map(|interface| interface.cost.as_deref());
    notes("copied", reasons) + &notes("cost", costs)
}

/// Notes on interfaces, once if they are the same for both.
fn notes<'n>(title: &str, notes: impl Iterator<Item = &'n str>) -> String {
    let mut notes: Vec<&str> = notes.collect();
    notes.dedup();
    notes.into_iter().map(|note| wrapped(&format!("{title}: {}", printable(note)), "  ")).collect()
}

#[cfg(test)]
mod tests {
    use knockplane_policy::wire::{Drift, DriftKind};

    use super::*;
    use crate::sample;

    /// Compares the text line by line.
    fn assert_text(text: &str, lines: &[&str]) {
        assert_eq!(text.lines().collect::<Vec<_>>(), lines, "\n{text}");
        assert!(text.ends_with('\n') && lines.iter().all(|line| line.len() <= 100));
    }

    #[test]
    fn lists_show_counts_and_then_addresses() {
        assert_text(
            &lists(&sample::lists(), None),
            &[
                "LIST     LEVEL  DYNAMIC  STATIC  EXPIRED  EVICTED  REFUSED  FILLED BY",
                "knock1       0        1       0        8        5        0  packets",
                "trusted      1   12 345       3        0        0        2  packets, rules, operators",
                "",
                "Flags: D - dynamic",
                "   LIST     ADDRESS      TIME LEFT  COMMENT",
                "D  knock1   192.0.2.7           9s",
                "   trusted  2001:db8::7          -  the office",
            ],
        );
    }

    #[test]
    fn host_names_are_shown_with_their_state() {
        let never = NameState { addresses: Vec::new(), failure: None, answer_age: None, ..sample::name_state() };
        assert_text(
            &name_table(&[sample::name_state(), never]),
            &[
                "",
                "LIST     HOST NAME        STATE       AGE  ADDRESSES",
                "trusted  dyn.example.net  failing      2m  192.0.2.7, 192.0.2.9",
                "trusted  dyn.example.net  unresolved    -  -",
                "dyn.example.net: no answer within 5 s",
            ],
        );
        assert_eq!(name_table(&[]), "");
    }

    #[test]
    fn a_list_that_only_operators_fill_has_no_level() {
        let mut by_hand = sample::lists();
        by_hand.lists[1].summary.level = OPERATOR_LEVEL;
        let text = lists(&by_hand, Some("trusted"));
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("trusted      -")), "{text}");
        let nobodys = ListOverview { by_rules: 0, by_operators: 0, by_packets: false, ..by_hand.lists[0].clone() };
        assert_eq!(
            (filled_by(&by_hand.lists[1]), filled_by(&nobodys)),
            ("packets, rules, operators".into(), "nobody".into())
        );
    }

    #[test]
    fn an_unknown_list_is_an_error_and_a_cut_answer_says_so() {
        assert!(known(&sample::lists(), Some("knokc1")).unwrap_err().message.contains("`knokc1`"));
        let cut = ListPage { truncated: true, ..sample::lists() };
        assert!(lists(&cut, None).ends_with("\nonly the first 2; --limit shows more\n"));
    }

    #[test]
    fn workers_take_a_line_for_each_side() {
        let status = sample::status();
        let shown = workers(&Workers { uptime: status.uptime, workers: status.workers, fast_path: status.fast_path });
        assert_text(
            &shown,
            &[
                "WORKER  CORE  GEN  HEARTBEAT  BUSY  IN FLIGHT    DROPPED  SIDE      RECEIVED       SENT",
                "     0     2    3  0.0 s ago  50 %          4  1 233 567  outside  1 234 567         89",
                "                                                          inside          89      1 000",
                "     1     -    3  0.0 s ago  50 %          4  1 233 567  outside  1 234 567         89",
                "                                                          inside          89      1 000",
                "kernel     -    -          -     -          -      2 310  outside  7 202 741  6 900 118",
                "                                                          inside   6 900 118  7 200 431",
            ],
        );
    }

    #[test]
    fn the_status_fits_a_screen() {
        assert_text(
            &status(&sample::overview(), Ok(())),
            &[
                "dataplane   0.1.0, process 4242, up 1m30s",
                "ready       yes",
                "generation  3, for 30s, 2 rules from /etc/knockplane/rules.rsc",
                "protects    0.0.0.0/0, ::/0",
                "workers     2",
                "connections 21, room for 100 000",
                "fast path   on, 1 204 flows of IPv4 and 12 of IPv6; carried 14 100 549 frames, 17 of them lost at",
                "            the other interface; dropped 2 310 of strangers",
                "memory      lists 73 MB, 70 MB in huge pages; connections 42 MB, none in huge pages",
                "on exit     closed",
                "journal     complete, 5 kB; entries restored at the start: 40, 7 had expired",
                "log         dataplane: 4 310 lines lost (packet 4 310)",
                "            control: no line lost",
                "",
                "SIDE     INTERFACE  LINK  DRIVER  XDP     ZERO COPY  QUEUES   MTU",
                "outside  kp-out     up    igb     native  no              2  1500",
                "inside   kp-in      up    igb     native  no              2  1500",
                "copied: zero-copy is off in the configuration",
                "cost: copy mode: the kernel copies every frame",
                "",
                "SIDE       ARRIVED  NO SOCKET  TAILS  PAST XDP  RX DROP  RX ERRORS  RX MISSED  TX DROP  TX ERRORS",
                "outside  1 234 603          6     11         3        9          0          0        2          0",
                "inside   1 234 603          0      0         3        9          0          0        2          0",
                "",
                "  DROPPED  REASON",
                "1 233 567  chain-default",
                "       31  ipv4-malformed",
                "        9  rx-ring-full",
            ],
        );
        let mut drifted = sample::overview();
        drifted.dataplane.interfaces[1]
            .drift
            .push(Drift { kind: DriftKind::Mtu, problem: "kp-in has an MTU of 9000".into() });
        let text = status(&drifted, Ok(()));
        assert!(text.contains("no line lost\ndrift       inside, mtu: kp-in has an MTU of 9000\n\nSIDE"), "{text}");
        let pending = Overview { dataplane: sample::metrics().status, ..sample::overview() };
        let text = status(&pending, Ok(()));
        let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("confirm")).take(2).collect();
        assert_eq!(
            lines,
            [
                "confirm     generation 3 is rolled back in 45s to the rules of generation 2, 5 rules from",
                "            /etc/knockplane/old.rsc, unless `knockctl confirm` is run",
            ]
        );
        let mut unwritten = sample::overview();
        unwritten.dataplane.journal.problem = Some("grants.state: No space left on device".into());
        let text = status(&unwritten, Ok(()));
        assert!(text.contains("journal     events that are not on the disk: 3: grants.state: No space"), "{text}");
        assert!(text.contains("\nwarning     grants are not on the disk"), "{text}");
        let mut full = sample::overview();
        full.dataplane.connections = sample::tracked().table;
        let text = status(&full, Ok(()));
        assert!(text.contains("connections 2 040, room for 1 024; 191 packets found no room\n"), "{text}");
        assert!(text.contains("\nwarning     the table of connections is full: 191 packets"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let unready = status(&sample::overview(), Err("no worker runs".into()));
        assert!(unready.contains("ready       no: no worker runs\n"), "{unready}");
        let stalled = LogStatus { waiting: 1_200, problem: Some("Broken pipe".into()), ..sample::log(1) };
        assert_eq!(log(&stalled), "1 line lost (packet 1), 1 200 waiting; Broken pipe");
    }
}
