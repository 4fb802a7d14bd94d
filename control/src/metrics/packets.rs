//! The numbers of the dataplane as metric families. Labels are closed sets, worker numbers, rule ids, and the names of
//! interfaces, chains, lists and doors: never an address, a port or other data of a packet.

use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::wire::{
    Counter, DataplaneStatus, DoorSummary, DriftKind, FastPathMisses, FastPathStatus, Interface, InterfaceCounters,
    ListSummary, MetricsReport, PeersRefused, RuleMetrics, WorkerMetrics, WorkerStatus,
};
use knockplane_policy::word::Word;

use super::sheet::{Sheet, flag};
use super::usage;

/// A ring statistic that is not a loss: the kernel found the TX ring empty.
const NO_LOSS: &str = "tx-ring-empty";

/// Fills the sheet with the answer of the dataplane.
pub(super) fn fill(sheet: &Sheet, answer: &MetricsReport, now: Duration) {
    process(sheet, answer);
    interfaces(sheet, &answer.status);
    drift(sheet, &answer.status.interfaces);
    interface_counters(sheet, &answer.status.interfaces);
    traffic(sheet, &answer.status.workers, &answer.workers, &answer.status.fast_path);
    fast_path(sheet, &answer.status.fast_path);
    rings(sheet, &answer.status.workers, &answer.workers);
    time(sheet, answer, now);
    rules(sheet, answer);
    chain_defaults(sheet, &answer.chain_defaults);
    lists(sheet, &answer.lists, answer.list_capacity);
    doors(sheet, &answer.doors);
    connections(sheet, answer);
}

fn process(sheet: &Sheet, answer: &MetricsReport) {
    let status = &answer.status;
    sheet.value(
        "dataplane_start_time_seconds",
        "Time of the dataplane's start, in Unix time.",
        answer.started.as_secs_f64(),
    );
    sheet.value("config_generation", "Rule sets that the dataplane has run since its start.", status.generation as f64);
    sheet.value(
        "config_last_reload_success_timestamp_seconds",
        "Time at which the running rule set was applied, in Unix time.",
        answer.reloaded.as_secs_f64(),
    );
    let left = sheet.gauge(
        "config_confirmation_left_seconds",
        "Time until the running rule set is rolled back to an earlier one, unless it is confirmed. Without a series, no \
         confirmation is pending.",
        &["generation", "back_to"],
    );
    if let Some(pending) = &status.confirmation {
        let labels = [pending.generation, pending.back_to].map(|generation| generation.to_string());
        left.with_label_values(&labels).set(pending.time_left.as_secs_f64());
    }
    let pending = "Whether an apply or a reload waits for its confirmation.";
    sheet.flag("config_confirmation_pending", pending, status.confirmation.is_some());
    let differs = "Whether the running doors and `[policy]` are those before a reload that was not confirmed.";
    sheet.flag("config_differs_from_file", differs, status.settings_differ_from_file);
    let steps = "Times that the wall clock of the host was set, by half a second or more.";
    sheet.count("wall_clock_steps_total", steps, answer.clock_steps);
    let synchronised = "Whether the kernel says that a time service synchronises the wall clock of the host.";
    sheet.flag("wall_clock_synchronised", synchronised, answer.clock_synchronised == Some(true));
    sheet.value("rules", "Running rules.", status.rules as f64);
    sheet.count("events_lost_total", "Events of the workers that did not fit the manager's queue.", answer.events_lost);
    let refused = sheet.counter(
        "dataplane_connections_refused_total",
        "Connections to the dataplane's socket that a limit refused or closed.",
        &["reason"],
    );
    for PeersRefused { reason, connections } in &answer.peers_refused {
        refused.with_label_values(&[reason]).inc_by(*connections);
    }
    if let Some(usage) = &answer.process {
        usage::fill(&usage::DATAPLANE, sheet, usage);
    }
}

fn interfaces(sheet: &Sheet, status: &DataplaneStatus) {
    let up = sheet.gauge("interface_up", "Whether the interface's link is up.", &["side", "interface"]);
    let mode = sheet.gauge(
        "xdp_mode_info",
        "Mode of the interface: native or generic XDP; the value is 1.",
        &["side", "mode", "zero_copy"],
    );
    for interface in &status.interfaces {
        let side = interface.side.name();
        up.with_label_values(&[side, &interface.name]).set(flag(interface.up));
        let zero_copy = if interface.zero_copy { "true" } else { "false" };
        mode.with_label_values(&[side, &interface.xdp_mode, zero_copy]).set(1.0);
    }
}

fn drift(sheet: &Sheet, interfaces: &[Interface]) {
    let drift = sheet.gauge(
        "configuration_drift",
        "Whether the interface or the host no longer meets a requirement of the filter.",
        &["side", "kind"],
    );
    let repairs = sheet.counter(
        "configuration_repairs_total",
        "Changes of the interface that the dataplane has reverted.",
        &["side", "kind"],
    );
    for interface in interfaces {
        let side = interface.side.name();
        for kind in DriftKind::ALL {
            let is_so = interface.drift.iter().any(|drift| drift.kind == *kind);
            drift.with_label_values(&[side, kind.name()]).set(flag(is_so));
        }
        for repair in &interface.repairs {
            repairs.with_label_values(&[side, repair.kind.name()]).inc_by(repair.times);
        }
    }
}

/// A function that returns one of the counters.
type Count = fn(&InterfaceCounters) -> u64;

/// The counters of the programs and the driver at one interface, under the name of the family without its end.
fn interface_counters(sheet: &Sheet, interfaces: &[Interface]) {
    let family = |name: &str, help: &str, count: &dyn Fn(&InterfaceCounters) -> Option<u64>| {
        let family = sheet.counter(&format!("{name}_total"), help, &["side"]);
        for interface in interfaces {
            if let Some(count) = count(&interface.counters) {
                family.with_label_values(&[interface.side.name()]).inc_by(count);
            }
        }
    };
    family("xdp_frames", "Frames that reached the XDP program.", &|counters| Some(counters.arrived));
    let unbound = "Frames that arrived on a receive queue without a worker.";
    family("unbound_queue_drops", unbound, &|counters| Some(counters.no_socket));
    let tails = "Frames that may be the rest of an overlong frame that the driver has split.";
    family("tail_drops", tails, &|counters| Some(counters.tails));
    let past = "Frames that bypassed the XDP program and were dropped behind it; absent before Linux 6.6.";
    family("past_program_drops", past, &|counters| counters.past_program);
    let driver: [(&str, &str, Count); 7] = [
        ("interface_rx_packets", "Frames that arrived, as the driver counts.", |counters| counters.rx_packets),
        ("interface_tx_packets", "Frames sent, as the driver counts.", |counters| counters.tx_packets),
        ("interface_rx_errors", "Frames that arrived damaged, as the driver counts.", |counters| counters.rx_errors),
        ("interface_tx_errors", "Frames that could not be sent, as the driver counts.", |counters| counters.tx_errors),
        ("interface_rx_dropped", "Frames that arrived and were dropped, as the driver counts.", |counters| {
            counters.rx_dropped
        }),
        ("interface_tx_dropped", "Frames dropped instead of sent, as the driver counts.", |counters| {
            counters.tx_dropped
        }),
        ("interface_rx_missed", "Frames for which the device had no room, as the driver counts.", |counters| {
            counters.rx_missed
        }),
    ];
    for (name, help, count) in driver {
        family(name, help, &|counters| Some(count(counters)));
    }
}

/// The value of the label `worker` for frames that the kernel's fast path carried or dropped.
const KERNEL: &str = "kernel";

fn traffic(sheet: &Sheet, workers: &[WorkerStatus], counted: &[WorkerMetrics], fast_path: &FastPathStatus) {
    let labels = &["worker", "side"];
    let rx_packets = sheet.counter("rx_packets_total", "Frames received.", labels);
    let tx_packets = sheet.counter("tx_packets_total", "Frames sent out of the side.", labels);
    let rx_bytes = sheet.counter("rx_bytes_total", "Bytes received, with Ethernet.", labels);
    let tx_bytes = sheet.counter("tx_bytes_total", "Bytes sent out of the side, with Ethernet.", labels);
    for side in Side::ALL {
        for worker in workers {
            let labels = [&worker.worker.to_string(), side.name()];
            rx_packets.with_label_values(&labels).inc_by(worker.received[side.index()]);
            tx_packets.with_label_values(&labels).inc_by(worker.sent[side.index()]);
        }
        for worker in counted {
            let labels = [&worker.worker.to_string(), side.name()];
            rx_bytes.with_label_values(&labels).inc_by(worker.received_bytes[side.index()]);
            tx_bytes.with_label_values(&labels).inc_by(worker.sent_bytes[side.index()]);
        }
        let (arrived, labels) = (side.index(), [KERNEL, side.name()]);
        rx_packets.with_label_values(&labels).inc_by(fast_path.carried[arrived]);
        rx_bytes.with_label_values(&labels).inc_by(fast_path.carried_bytes[arrived]);
        let labels = [KERNEL, side.opposite().name()];
        tx_packets.with_label_values(&labels).inc_by(fast_path.carried[arrived]);
        tx_bytes.with_label_values(&labels).inc_by(fast_path.carried_bytes[arrived]);
    }
    let labels = [KERNEL, Side::Outside.name()];
    rx_packets.with_label_values(&labels).inc_by(fast_path.dropped);
    rx_bytes.with_label_values(&labels).inc_by(fast_path.dropped_bytes);
    let packets =
        sheet.counter("packets_total", "Decided frames, by verdict and reason.", &["worker", "verdict", "reason"]);
    for worker in counted {
        for count in &worker.frames {
            let labels = [&worker.worker.to_string(), count.verdict.name(), count.reason.name()];
            packets.with_label_values(&labels).inc_by(count.frames);
        }
    }
    for count in &fast_path.frames {
        packets.with_label_values(&[KERNEL, count.verdict.name(), count.reason.name()]).inc_by(count.frames);
    }
}

fn fast_path(sheet: &Sheet, fast_path: &FastPathStatus) {
    sheet.flag("fast_path_on", "Whether the kernel's fast path carries flows.", fast_path.on);
    sheet.flag(
        "fast_path_traced",
        "Whether a trace of packets runs, whose flows and strangers stay with the workers.",
        fast_path.traced,
    );
    let configured = "Whether the configuration asks for the kernel's fast path (`fast-path = \"auto\"`).";
    sheet.flag("fast_path_configured", configured, fast_path.configured);
    let present =
        sheet.gauge("fast_path_flows", "Flows that the kernel carries now; an estimate for large tables.", &["family"]);
    let capacity =
        sheet.gauge("fast_path_capacity_flows", "Flows that the kernel can carry; 0 without a fast path.", &["family"]);
    let flows = fast_path.flows.unwrap_or_default();
    for (family, (number, room)) in ["ipv4", "ipv6"].into_iter().zip(flows.into_iter().zip(fast_path.capacity)) {
        present.with_label_values(&[family]).set(number as f64);
        capacity.with_label_values(&[family]).set(room as f64);
    }
    let flows = sheet.counter(
        "fast_path_flows_total",
        "Flows for the kernel to carry, by whether the table had room.",
        &["result"],
    );
    flows.with_label_values(&["stored"]).inc_by(fast_path.stored);
    flows.with_label_values(&["full"]).inc_by(fast_path.full);
    let lost = sheet.counter(
        "fast_path_lost_frames_total",
        "Frames that the fast path carried and the interface of this side did not take.",
        &["side"],
    );
    for side in Side::ALL {
        lost.with_label_values(&[side.name()]).inc_by(fast_path.lost[side.index()]);
    }
    let misses = sheet.counter(
        "fast_path_misses_total",
        "Frames that came up to a worker while the fast path was on, by cause.",
        &["cause"],
    );
    let FastPathMisses { unfit, unknown, ended, blocked, tracked } = fast_path.misses;
    let causes = [("unfit", unfit), ("unknown", unknown), ("ended", ended), ("blocked", blocked), ("tracked", tracked)];
    for (cause, frames) in causes {
        misses.with_label_values(&[cause]).inc_by(frames);
    }
}

fn rings(sheet: &Sheet, workers: &[WorkerStatus], counted: &[WorkerMetrics]) {
    let drops = sheet.counter("ring_drops_total", "Frames lost at the rings.", &["worker", "side", "reason"]);
    for worker in counted {
        for ring in worker.ring_drops.iter().filter(|ring| ring.reason != NO_LOSS) {
            let labels = [&worker.worker.to_string(), ring.side.name(), &ring.reason];
            drops.with_label_values(&labels).inc_by(ring.frames);
        }
    }
    let in_flight = sheet.gauge(
        "frames_in_flight",
        "Frames that were given to the kernel for sending and are not yet returned.",
        &["worker"],
    );
    let lost = sheet.gauge("frames_lost", "Frames of the worker's pool whose place is unknown; always 0.", &["worker"]);
    for worker in workers {
        in_flight.with_label_values(&[worker.worker.to_string()]).set(worker.in_flight as f64);
        lost.with_label_values(&[worker.worker.to_string()]).set(worker.lost as f64);
    }
}

fn time(sheet: &Sheet, answer: &MetricsReport, now: Duration) {
    let MetricsReport { workers: counted, started, status, .. } = answer;
    let heartbeat = sheet.gauge(
        "worker_heartbeat_timestamp_seconds",
        "Time of the worker's last heartbeat, in Unix time; before the first one, the start of the dataplane.",
        &["worker"],
    );
    for worker in &status.workers {
        let last = worker.heartbeat_age.map_or(*started, |age| now.saturating_sub(age));
        heartbeat.with_label_values(&[worker.worker.to_string()]).set(last.as_secs_f64());
    }
    let spent = sheet.seconds("worker_seconds_total", "Time of the worker, by its activity.", &["worker", "state"]);
    for worker in counted {
        let number = worker.worker.to_string();
        spent.with_label_values(&[&number, "busy"]).inc_by(worker.busy.as_secs_f64());
        spent.with_label_values(&[&number, "asleep"]).inc_by(worker.asleep.as_secs_f64());
    }
}

fn rules(sheet: &Sheet, answer: &MetricsReport) {
    let packets = sheet.counter("rule_packets_total", "Packets that the rule matched.", &["chain", "rule"]);
    let bytes = sheet.counter("rule_bytes_total", "Bytes of IP packets that the rule matched.", &["chain", "rule"]);
    let info = sheet.gauge(
        "rule_info",
        "Description of a rule: its number in `show rules`, its action and its comment; the value is 1.",
        &["rule", "number", "chain", "action", "comment"],
    );
    for RuleMetrics { id, number, chain, action, comment, counter } in &answer.rules {
        packets.with_label_values(&[chain, &id.0]).inc_by(counter.packets);
        bytes.with_label_values(&[chain, &id.0]).inc_by(counter.bytes);
        let number = number.to_string();
        info.with_label_values(&[&id.0, &number, chain, action, &printable(comment)]).set(1.0);
    }
    sheet.count(
        "rule_overflow_packets_total",
        "Packets that rules without their own series matched.",
        answer.rule_overflow.packets,
    );
    sheet.count(
        "rule_overflow_bytes_total",
        "Bytes of IP packets that rules without their own series matched.",
        answer.rule_overflow.bytes,
    );
    let without_series = answer.rules_without_series as f64;
    sheet.value("rules_without_series", "Running rules without their own series.", without_series);
}

/// A comment as the value of a label: control characters are escaped, so that no tool that shows it is confused. The
/// text format escapes the rest.
fn printable(comment: &str) -> String {
    let escape = |char: char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() };
    comment.chars().map(escape).collect()
}

fn chain_defaults(sheet: &Sheet, defaults: &[Counter; 3]) {
    let packets =
        sheet.counter("chain_default_packets_total", "Packets that no rule of the chain decided.", &["chain"]);
    let bytes = sheet.counter(
        "chain_default_bytes_total",
        "Bytes of IP packets that no rule of the chain decided.",
        &["chain"],
    );
    for (chain, counter) in BuiltinChain::ALL.into_iter().zip(defaults) {
        packets.with_label_values(&[chain.name()]).inc_by(counter.packets);
        bytes.with_label_values(&[chain.name()]).inc_by(counter.bytes);
    }
}

fn connections(sheet: &Sheet, answer: &MetricsReport) {
    let unfinished = "Packets without a checksum that began a connection, opened a door or added to a list: the \
        sender left the checksum to its interface.";
    let family = sheet.counter("packets_without_checksum_total", unfinished, &["side"]);
    for side in Side::ALL {
        family.with_label_values(&[side.name()]).inc_by(answer.status.offload.checksums[side.index()]);
    }
    let known = "Tracked connections; 0 if no rule needs them.";
    sheet.value("connections", known, answer.connections as f64);
    let capacity = answer.status.connections.as_ref().map_or(0, |table| table.capacity);
    let room = "Connections that can be tracked at once; 0 if no rule needs them.";
    sheet.value("connections_capacity", room, capacity as f64);
    let refused = "Packets that were invalid because there was no room for their connection.";
    let family = sheet.counter("connections_refused_packets_total", refused, &[]);
    family.with_label_values::<&str>(&[]).inc_by(answer.connections_refused);
}

fn lists(sheet: &Sheet, lists: &[ListSummary], capacity: u64) {
    let entries = sheet.gauge("address_list_entries", "Addresses in the list.", &["list"]);
    let expired = sheet.counter("address_list_expired_total", "Addresses that expired in the list.", &["list"]);
    let evictions = sheet.counter(
        "address_list_evictions_total",
        "Addresses evicted from the list before their expiry.",
        &["list", "reason"],
    );
    let refusals = sheet.counter(
        "address_list_refusals_total",
        "Addresses that were not added, because the table was full of addresses of higher levels.",
        &["list"],
    );
    for list in lists {
        entries.with_label_values(&[&list.list]).set(list.entries as f64);
        expired.with_label_values(&[&list.list]).inc_by(list.expired);
        evictions.with_label_values(&[list.list.as_str(), "table-full"]).inc_by(list.evicted);
        refusals.with_label_values(&[&list.list]).inc_by(list.refused);
    }
    sheet.value("address_list_capacity_entries", "Entries that all lists together can hold.", capacity as f64);
}

fn doors(sheet: &Sheet, doors: &[DoorSummary]) {
    let knocking = sheet.gauge("door_knocking", "Sources that have begun to knock at the door.", &["door"]);
    let open =
        sheet.gauge("door_open", "Sources with a grant of the door, each for one destination address.", &["door"]);
    let steps = sheet.counter(
        "door_steps_total",
        "Steps of the door's knock that were taken, counted from 1; the last one opens.",
        &["door", "step"],
    );
    let opened = sheet.counter("door_opened_total", "Knocks that opened the door.", &["door"]);
    let closed = sheet.counter("door_closed_total", "Knocks that closed the door.", &["door"]);
    let failed = sheet.counter("door_failed_total", "Failed steps and knocks, by reason.", &["door", "reason"]);
    for door in doors {
        let name = door.door.as_str();
        knocking.with_label_values(&[name]).set(door.knocking as f64);
        open.with_label_values(&[name]).set(door.open as f64);
        for (step, times) in (1_usize..).zip(&door.steps) {
            steps.with_label_values(&[name, &step.to_string()]).inc_by(*times);
        }
        opened.with_label_values(&[name]).inc_by(door.opened);
        closed.with_label_values(&[name]).inc_by(door.closed);
        for failure in &door.failed {
            failed.with_label_values(&[name, failure.reason.name()]).inc_by(failure.times);
        }
    }
}
