//! Generates `docs/metrics.md` from the metrics in the code, and compares the page with them. Names, types, labels and
//! descriptions are those of a scrape. This file has an example of a query for each metric, and the test fails if a
//! metric has none.
//!
//! `UPDATE=1 cargo test -p knockplane-control metrics::page` writes the page again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use prometheus::proto::{MetricFamily, MetricType};

use super::{EventNumbers, Metrics};
use crate::sample;

/// The introduction, which no description of a metric contains.
const INTRODUCTION: &str = "\
# Metrics

The control process serves metrics at `/metrics` of `listen` in `[control]`, in the Prometheus text format. A scrape causes one
request to the dataplane. This page is generated from the code, and a test compares it.

`configs/prometheus` has a scrape configuration, recording rules and alerts ([alerts.md](alerts.md)), and `configs/grafana` two dashboards.

- **If the dataplane does not answer** within 3 s, `knockplane_dataplane_up` is 0 and its metrics are absent.
  `knockplane_dataplane_answer_age_seconds` is the time since its last answer.
- **Counters do not decrease** during the life of the counting process, also if rules, lists or doors are applied, reloaded, removed
  or added again. The dataplane counts everything except the following metrics: `process_…`, `knockplane_control_…`, `knockplane_resolver_…`, `knockplane_dataplane_request_failures_total`,
  `knockplane_config_apply_duration_seconds`, and the series `result=\"invalid\"` and `process=\"control\"`. The
  control process counts these, and they start at zero when it starts. `knockplane_dataplane_start_time_seconds` and
  `process_start_time_seconds` are the start times of the two processes. The counters of rules and of chain defaults continue at a restart of the dataplane: after
  a kill or a power failure, with the counts of the last scrape or of at most 5 s before. Three exceptions: `knockplane_interface_…` are the driver's counters, which some drivers reset
  with the device; a rule that is removed and added again keeps its counters only while at most 20,000 removed rules are stored; and
  if one of two equal rules is removed, the other one continues under the id of the first.
- **Removed objects have no series**: removed rules, lists and doors, and lists without a name in the rules and without entries.
  If they are added again, their counters continue.
- **Rules are labelled by their id**, which does not depend on the position of the rule. `knockplane_rule_info` has the number that
  `knockctl show rules` shows, and joins by `rule`:

      rate(knockplane_rule_packets_total[5m]) * on (rule) group_left (number, action, comment) knockplane_rule_info

- **`rules` in `[metrics]` of the configuration selects the rules with series**: all, or those with these chains or comments; at
  most 1,000. The last rule of each chain always has series, for at most 256 chains. The packets of the other rules are in
  `knockplane_rule_overflow_packets_total`, and stay there if a rule gets its own series later.
- **The number of series is bounded.** Lists have at most 256 names since start, and with them the doors. Rules with more than 1,000
  host names are refused. All other labels are closed sets, and their series exist from the first scrape.
- **Grants** (`knockplane_door_grants…`) are counted from the events of the lists. Events that the log missed and that later ones
  overwrote are not counted; `knockplane_event_reader_missed_total{reader=\"log\"}` is at least their number. Grants that a start
  restores are in `knockplane_journal_entries`.
- **Frames of the kernel's fast path** have `worker=\"kernel\"` in `knockplane_packets_total`, `knockplane_rx_…` and `knockplane_tx_…`.
- **Labels have no addresses, ports or users**, but they have host names of address lists. Comments of rules are truncated to 80
  characters; `comments = false` in `[metrics]` omits them. Every client that can scrape can read them.
";

/// Metrics by subject, each with an example of a query.
const GROUPS: [(&str, &[(&str, &str)]); 12] = [
    (
        "The two processes",
        &[
            ("knockplane_dataplane_up", "knockplane_dataplane_up == 0"),
            ("knockplane_dataplane_answer_age_seconds", "knockplane_dataplane_answer_age_seconds > 10"),
            ("knockplane_dataplane_start_time_seconds", "changes(knockplane_dataplane_start_time_seconds[1h]) > 0"),
            ("knockplane_build_info", "count by (version) (knockplane_build_info)"),
            (
                "knockplane_dataplane_request_failures_total",
                "rate(knockplane_dataplane_request_failures_total[5m]) > 0",
            ),
            (
                "knockplane_control_api_requests_refused_total",
                "rate(knockplane_control_api_requests_refused_total{reason=\"authentication\"}[5m]) > 0",
            ),
            (
                "knockplane_control_api_certificate_failures_total",
                "increase(knockplane_control_api_certificate_failures_total[1h]) > 0",
            ),
            (
                "knockplane_control_api_handshake_failures_total",
                "sum by (peer, reason) (rate(knockplane_control_api_handshake_failures_total{reason!=\"closed\"}[5m])) > 0",
            ),
            (
                "knockplane_control_requests_total",
                "sum by (class) (rate(knockplane_control_requests_total{status=\"5xx\"}[5m])) > 0",
            ),
            (
                "knockplane_control_request_duration_seconds",
                "histogram_quantile(0.9, sum by (class, le) (rate(knockplane_control_request_duration_seconds_bucket[5m])))",
            ),
            ("knockplane_control_connections_refused_total", "rate(knockplane_control_connections_refused_total[5m])"),
            (
                "knockplane_dataplane_connections_refused_total",
                "rate(knockplane_dataplane_connections_refused_total[5m])",
            ),
            ("knockplane_log_lines_lost_total", "increase(knockplane_log_lines_lost_total{kind=\"door\"}[5m]) > 0"),
            ("knockplane_log_ok", "knockplane_log_ok == 0"),
            ("knockplane_wall_clock_timestamp_seconds", "abs(knockplane_wall_clock_timestamp_seconds - time()) > 30"),
            ("knockplane_wall_clock_synchronised", "knockplane_wall_clock_synchronised == 0"),
            ("knockplane_wall_clock_steps_total", "increase(knockplane_wall_clock_steps_total[1h]) > 0"),
            ("knockplane_events_lost_total", "increase(knockplane_events_lost_total[5m]) > 0"),
            (
                "knockplane_dataplane_process_cpu_seconds_total",
                "rate(knockplane_dataplane_process_cpu_seconds_total[5m])",
            ),
            (
                "knockplane_dataplane_process_resident_memory_bytes",
                "knockplane_dataplane_process_resident_memory_bytes",
            ),
            ("knockplane_dataplane_process_virtual_memory_bytes", "knockplane_dataplane_process_virtual_memory_bytes"),
            (
                "knockplane_dataplane_process_open_fds",
                "knockplane_dataplane_process_open_fds / knockplane_dataplane_process_max_fds > 0.8",
            ),
            ("knockplane_dataplane_process_max_fds", "knockplane_dataplane_process_max_fds"),
            ("knockplane_dataplane_process_threads", "knockplane_dataplane_process_threads"),
            ("process_start_time_seconds", "changes(process_start_time_seconds{job=\"knockplane\"}[1h]) > 0"),
            ("process_cpu_seconds_total", "rate(process_cpu_seconds_total{job=\"knockplane\"}[5m])"),
            ("process_resident_memory_bytes", "process_resident_memory_bytes{job=\"knockplane\"}"),
            ("process_virtual_memory_bytes", "process_virtual_memory_bytes{job=\"knockplane\"}"),
            ("process_open_fds", "process_open_fds / process_max_fds > 0.8"),
            ("process_max_fds", "process_max_fds{job=\"knockplane\"}"),
            ("process_threads", "process_threads{job=\"knockplane\"}"),
        ],
    ),
    (
        "Configuration",
        &[
            ("knockplane_config_generation", "changes(knockplane_config_generation[1h])"),
            (
                "knockplane_config_reloads_total",
                "increase(knockplane_config_reloads_total{result!=\"applied\"}[1h]) > 0",
            ),
            ("knockplane_config_last_reload_successful", "knockplane_config_last_reload_successful == 0"),
            (
                "knockplane_config_last_reload_success_timestamp_seconds",
                "time() - knockplane_config_last_reload_success_timestamp_seconds",
            ),
            (
                "knockplane_config_apply_duration_seconds",
                "histogram_quantile(0.9, rate(knockplane_config_apply_duration_seconds_bucket[1h]))",
            ),
            ("knockplane_config_confirmation_left_seconds", "knockplane_config_confirmation_left_seconds < 30"),
            ("knockplane_config_confirmation_pending", "knockplane_config_confirmation_pending == 1"),
            ("knockplane_config_differs_from_file", "knockplane_config_differs_from_file == 1"),
            ("knockplane_rules", "knockplane_rules"),
        ],
    ),
    (
        "Events and the audit file",
        &[
            ("knockplane_event_streams", "knockplane_event_streams"),
            ("knockplane_event_gaps_total", "increase(knockplane_event_gaps_total[1h]) > 0"),
            ("knockplane_audit_ok", "knockplane_audit_ok == 0"),
            ("knockplane_audit_lines_total", "increase(knockplane_audit_lines_total[1d])"),
            ("knockplane_audit_failures_total", "increase(knockplane_audit_failures_total[1h]) > 0"),
        ],
    ),
    (
        "Interfaces",
        &[
            ("knockplane_interface_up", "knockplane_interface_up == 0"),
            ("knockplane_xdp_mode_info", "knockplane_xdp_mode_info{mode=\"generic\"}"),
            ("knockplane_configuration_drift", "knockplane_configuration_drift == 1"),
            ("knockplane_configuration_repairs_total", "increase(knockplane_configuration_repairs_total[1h]) > 0"),
            ("knockplane_xdp_frames_total", "rate(knockplane_xdp_frames_total[1m])"),
            ("knockplane_unbound_queue_drops_total", "rate(knockplane_unbound_queue_drops_total[5m]) > 0"),
            ("knockplane_tail_drops_total", "rate(knockplane_tail_drops_total[5m]) > 0"),
            ("knockplane_past_program_drops_total", "rate(knockplane_past_program_drops_total[5m]) > 0"),
            ("knockplane_interface_rx_packets_total", "rate(knockplane_interface_rx_packets_total[1m])"),
            ("knockplane_interface_tx_packets_total", "rate(knockplane_interface_tx_packets_total[1m])"),
            ("knockplane_interface_rx_errors_total", "rate(knockplane_interface_rx_errors_total[5m]) > 0"),
            ("knockplane_interface_tx_errors_total", "rate(knockplane_interface_tx_errors_total[5m]) > 0"),
            ("knockplane_interface_rx_dropped_total", "rate(knockplane_interface_rx_dropped_total[5m]) > 0"),
            ("knockplane_interface_tx_dropped_total", "rate(knockplane_interface_tx_dropped_total[5m]) > 0"),
            ("knockplane_interface_rx_missed_total", "rate(knockplane_interface_rx_missed_total[5m]) > 0"),
        ],
    ),
    (
        "Packets",
        &[
            (
                "knockplane_packets_total",
                "topk(5, sum by (reason) (rate(knockplane_packets_total{verdict=\"drop\"}[5m])))",
            ),
            ("knockplane_rx_packets_total", "sum by (side) (rate(knockplane_rx_packets_total[1m]))"),
            ("knockplane_rx_bytes_total", "8 * sum by (side) (rate(knockplane_rx_bytes_total[1m]))"),
            ("knockplane_tx_packets_total", "sum by (side) (rate(knockplane_tx_packets_total[1m]))"),
            ("knockplane_tx_bytes_total", "8 * sum by (side) (rate(knockplane_tx_bytes_total[1m]))"),
            ("knockplane_ring_drops_total", "sum by (side, reason) (rate(knockplane_ring_drops_total[5m])) > 0"),
            (
                "knockplane_packets_without_checksum_total",
                "increase(knockplane_packets_without_checksum_total[10m]) > 0",
            ),
            ("knockplane_connections", "knockplane_connections"),
            ("knockplane_connections_capacity", "knockplane_connections / (knockplane_connections_capacity > 0) > 0.9"),
            (
                "knockplane_connections_refused_packets_total",
                "rate(knockplane_connections_refused_packets_total[5m]) > 0",
            ),
        ],
    ),
    (
        "Fast path",
        &[
            ("knockplane_fast_path_on", "knockplane_fast_path_on == 0"),
            ("knockplane_fast_path_traced", "knockplane_fast_path_traced == 1"),
            (
                "knockplane_fast_path_configured",
                "knockplane_fast_path_configured == 1 and knockplane_fast_path_on == 0",
            ),
            (
                "knockplane_fast_path_flows",
                "knockplane_fast_path_flows / (knockplane_fast_path_capacity_flows > 0) > 0.9",
            ),
            ("knockplane_fast_path_capacity_flows", "knockplane_fast_path_capacity_flows"),
            ("knockplane_fast_path_flows_total", "rate(knockplane_fast_path_flows_total{result=\"full\"}[5m]) > 0"),
            ("knockplane_fast_path_lost_frames_total", "rate(knockplane_fast_path_lost_frames_total[5m]) > 0"),
            ("knockplane_fast_path_misses_total", "sum by (cause) (rate(knockplane_fast_path_misses_total[1m]))"),
        ],
    ),
    (
        "State files",
        &[
            ("knockplane_journal_ok", "knockplane_journal_ok == 0"),
            ("knockplane_journal_bytes", "knockplane_journal_bytes"),
            ("knockplane_journal_waiting_events", "knockplane_journal_waiting_events > 10000"),
            ("knockplane_journal_write_seconds", "knockplane_journal_write_seconds > 0.5"),
            ("knockplane_journal_failures_total", "increase(knockplane_journal_failures_total[5m]) > 0"),
            ("knockplane_journal_damaged", "knockplane_journal_damaged == 1"),
            ("knockplane_journal_entries", "knockplane_journal_entries{result!=\"restored\"} > 0"),
            ("knockplane_journal_clock_set_back", "knockplane_journal_clock_set_back == 1"),
            ("knockplane_static_entries_damaged", "knockplane_static_entries_damaged == 1"),
            ("knockplane_stored_counters_ok", "knockplane_stored_counters_ok == 0"),
            (
                "knockplane_stored_counters_failures_total",
                "increase(knockplane_stored_counters_failures_total[5m]) > 0",
            ),
            ("knockplane_stored_counters_damaged", "knockplane_stored_counters_damaged == 1"),
        ],
    ),
    (
        "Rules",
        &[
            (
                "knockplane_rule_packets_total",
                "topk(5, rate(knockplane_rule_packets_total[5m]) * on (rule) group_left (comment) knockplane_rule_info)",
            ),
            ("knockplane_rule_bytes_total", "8 * rate(knockplane_rule_bytes_total[5m])"),
            ("knockplane_rule_info", "knockplane_rule_info{action=\"drop\"}"),
            ("knockplane_rule_overflow_packets_total", "rate(knockplane_rule_overflow_packets_total[5m])"),
            ("knockplane_rule_overflow_bytes_total", "8 * rate(knockplane_rule_overflow_bytes_total[5m])"),
            ("knockplane_rules_without_series", "knockplane_rules_without_series > 0"),
            ("knockplane_chain_default_packets_total", "rate(knockplane_chain_default_packets_total[5m])"),
            ("knockplane_chain_default_bytes_total", "8 * rate(knockplane_chain_default_bytes_total[5m])"),
        ],
    ),
    (
        "Address lists",
        &[
            ("knockplane_address_list_entries", "topk(5, knockplane_address_list_entries)"),
            (
                "knockplane_address_list_capacity_entries",
                "sum(knockplane_address_list_entries) / knockplane_address_list_capacity_entries > 0.8",
            ),
            ("knockplane_address_list_expired_total", "rate(knockplane_address_list_expired_total[5m])"),
            ("knockplane_address_list_evictions_total", "rate(knockplane_address_list_evictions_total[5m]) > 0"),
            ("knockplane_list_name_resolved", "knockplane_list_name_resolved == 0"),
            ("knockplane_list_name_addresses", "knockplane_list_name_addresses"),
            (
                "knockplane_resolver_attempts_total",
                "increase(knockplane_resolver_attempts_total{result=\"failed\"}[5m]) > 0",
            ),
            (
                "knockplane_resolver_attempt_duration_seconds",
                "histogram_quantile(0.9, rate(knockplane_resolver_attempt_duration_seconds_bucket[5m]))",
            ),
            ("knockplane_address_list_refusals_total", "rate(knockplane_address_list_refusals_total[5m]) > 0"),
        ],
    ),
    (
        "Doors",
        &[
            ("knockplane_door_open", "knockplane_door_open"),
            ("knockplane_door_knocking", "knockplane_door_knocking"),
            ("knockplane_door_steps_total", "rate(knockplane_door_steps_total{step=\"1\"}[5m])"),
            ("knockplane_door_opened_total", "increase(knockplane_door_opened_total[1h])"),
            ("knockplane_door_closed_total", "increase(knockplane_door_closed_total[1h])"),
            ("knockplane_door_failed_total", "sum by (door, reason) (rate(knockplane_door_failed_total[5m]))"),
        ],
    ),
    (
        "Events of grants",
        &[
            (
                "knockplane_door_grants_total",
                "sum by (door) (increase(knockplane_door_grants_total{change=\"granted\"}[1h]))",
            ),
            (
                "knockplane_door_grants_ended_total",
                "increase(knockplane_door_grants_ended_total{cause=\"evicted\"}[1h]) > 0",
            ),
            ("knockplane_event_reader_gaps_total", "increase(knockplane_event_reader_gaps_total[5m]) > 0"),
            ("knockplane_event_reader_missed_total", "increase(knockplane_event_reader_missed_total[5m])"),
        ],
    ),
    (
        "Workers",
        &[
            (
                "knockplane_worker_heartbeat_timestamp_seconds",
                "time() - knockplane_worker_heartbeat_timestamp_seconds > 2",
            ),
            ("knockplane_worker_seconds_total", "rate(knockplane_worker_seconds_total{state=\"busy\"}[1m]) > 0.9"),
            ("knockplane_frames_in_flight", "knockplane_frames_in_flight"),
            ("knockplane_frames_lost", "knockplane_frames_lost > 0"),
        ],
    ),
];

/// All families of a complete scrape, by name.
pub(super) fn families() -> BTreeMap<String, MetricFamily> {
    let metrics = Metrics::default();
    metrics.answered();
    let sheet = metrics.sheet(
        Some(&sample::metrics()),
        &sample::log(0),
        &EventNumbers { audit: Some(Default::default()), ..EventNumbers::default() },
        UNIX_EPOCH + Duration::from_secs(1_000),
    );
    sheet.families().into_iter().map(|family| (family.name().to_owned(), family)).collect()
}

fn kind(family: &MetricFamily) -> &'static str {
    match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        other => panic!("{}: {other:?}", family.name()),
    }
}

/// The unit at the end of a name, as Prometheus recommends.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = ["seconds", "bytes", "packets", "entries"];
    if name.ends_with("_info") {
        return "1";
    }
    if name.ends_with("_timestamp_seconds") || name.ends_with("_start_time_seconds") {
        return "seconds since 1970";
    }
    units.into_iter().find(|unit| name.ends_with(&format!("_{unit}"))).unwrap_or("-")
}

fn labels(family: &MetricFamily) -> String {
    let pairs = family.get_metric().iter().flat_map(|metric| metric.get_label());
    let names: BTreeSet<String> = pairs.map(|pair| format!("`{}`", pair.name())).collect();
    if names.is_empty() { "-".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
}

fn page() -> String {
    let families = families();
    let mut text = INTRODUCTION.to_owned();
    for (title, metrics) in GROUPS {
        let _ = write!(
            text,
            "\n## {title}\n\n| metric | type | labels | unit | meaning | example |\n|---|---|---|---|---|---|\n"
        );
        for (name, query) in metrics {
            let family = families.get(*name).unwrap_or_else(|| panic!("there is no metric {name}"));
            let (kind, labels, unit, help) = (kind(family), labels(family), unit(name), family.help());
            let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {unit} | {help} | `{query}` |");
        }
    }
    text
}

#[test]
fn every_metric_is_on_the_page_once_with_a_query_that_names_it() {
    let mut told: Vec<&str> = Vec::new();
    for (name, query) in GROUPS.iter().flat_map(|(_, metrics)| *metrics) {
        assert!(query.contains(name), "{name}: {query}");
        told.push(name);
    }
    told.sort_unstable();
    assert_eq!(told, families().keys().collect::<Vec<_>>());
}

#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page()).expect("it can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/metrics.md is not what the code says: UPDATE=1 cargo test -p knockplane-control page"
    );
}

#[test]
fn the_other_pages_name_no_metric_that_there_is_not() {
    let families = families();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs")).expect("docs").flatten().map(|entry| entry.path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for path in pages.chain([root.join("README.md"), root.join("ARCHITECTURE.md")]) {
        let text = fs::read_to_string(&path).expect("it can be read");
        for (at, _) in text.match_indices("knockplane_") {
            let name =
                text[at..].split(|char: char| !char.is_ascii_lowercase() && char != '_').next().unwrap_or_default();
            let is_known = families.keys().any(|family| match text[at + name.len()..].chars().next() {
                Some('…') => family.starts_with(name),
                _ => family == name || name.strip_prefix(family.as_str()).is_some_and(|rest| rest == "_bucket"),
            });
            let is_crate = matches!(name, "knockplane_bench" | "knockplane_ring");
            assert!(is_known || is_crate, "{}: {name}", path.display());
        }
    }
}
