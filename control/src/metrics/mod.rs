//! The metrics for Prometheus: one request to the dataplane, rendered as text.
//!
//! Each scrape fills a new sheet with the present numbers of the dataplane, so that nothing is counted twice, and no
//! series remains that the dataplane does not have any more. [`Metrics`] contains the counters of the control process.
//! If the dataplane does not answer, the scrape succeeds with `dataplane_up 0`.
//!
//! | file           | owns |
//! |----------------|------|
//! | `mod.rs`       | the numbers of the control process, and rendering |
//! | `streams.rs`   | streams of events, and the audit file |
//! | `packets.rs`   | the numbers of the dataplane: workers, rings, rules, lists, doors |
//! | `names.rs`     | host names in address lists |
//! | `resolver.rs`  | attempts to resolve host names |
//! | `requests.rs`  | requests to the control process |
//! | `journal.rs`   | the files that the dataplane writes |
//! | `events.rs`    | events of the lists: grants, and readers that missed events |
//! | `usage.rs`     | resources of the two processes |
//! | `sheet.rs`     | a thin layer over the library |
//! | `page.rs`      | `docs/metrics.md`, generated from all families |
//! | `files.rs`     | tests of `configs/prometheus`, `configs/grafana` and `docs/alerts.md` |
//!
//! The dataplane chooses the rules that have series, so that no counter decreases during its lifetime: the control process keeps
//! no state between scrapes.

mod events;
#[cfg(test)]
mod files;
mod journal;
mod names;
mod packets;
#[cfg(test)]
mod page;
pub(crate) mod requests;
pub(crate) mod resolver;
mod sheet;
mod streams;
mod usage;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use knockplane_limits::refusal::Refusals;
use knockplane_limits::usage as resources;
use knockplane_policy::wire::{self, LostLines};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts};

use self::requests::RequestMetrics;
use self::resolver::ResolverMetrics;
use self::sheet::{Sheet, flag};
pub use self::streams::EventNumbers;
use crate::dataplane::DataplaneError;
use crate::server::tls::TlsFailures;

/// Content type of the rendered text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Upper bounds in seconds of the buckets for applies: from a few rules to the time limit of an apply.
const APPLY_BUCKETS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];

/// The counters of the control process since its start.
#[derive(Debug)]
pub struct Metrics {
    reloads_invalid: AtomicU64,
    last_reload_successful: IntGauge,
    apply_duration: Histogram,
    failures: IntCounterVec,
    listeners: [(&'static str, Arc<Refusals>); 4],
    api_refused: IntCounterVec,
    tls_failures: Arc<TlsFailures>,
    pub(crate) requests: RequestMetrics,
    pub(crate) resolver: ResolverMetrics,
    /// Start of the process, since the Unix epoch.
    started: Duration,
    /// The time of the last answer of the dataplane.
    last_answer: Mutex<Option<Instant>>,
}

/// The listener for metrics and health, as a label.
pub const METRICS_LISTENER: &str = "metrics";

/// The listener for operators, as a label.
pub const OPERATORS_LISTENER: &str = "operators";

/// The listener of the API on TCP, as a label.
pub const API_LISTENER: &str = "api";

/// The read-only socket, as a label.
pub const READERS_LISTENER: &str = "readers";

/// The reasons for which the API refuses a request, before it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    /// The request has no valid token.
    Authentication,
    /// The role does not include the request.
    Role,
    /// Too many requests.
    Rate,
}

impl ApiRefusal {
    const ALL: [ApiRefusal; 3] = [ApiRefusal::Authentication, ApiRefusal::Role, ApiRefusal::Rate];

    const fn name(self) -> &'static str {
        match self {
            ApiRefusal::Authentication => "authentication",
            ApiRefusal::Role => "role",
            ApiRefusal::Rate => "rate",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let apply = HistogramOpts::new(
            "config_apply_duration_seconds",
            "Time from the request of a rule set to its application or refusal.",
        );
        let failures = Opts::new("dataplane_request_failures_total", "Requests that the dataplane did not answer.");
        let refused =
            Opts::new("control_api_requests_refused_total", "Requests that the API refused before it handled them.");
        let metrics = Metrics {
            reloads_invalid: AtomicU64::new(0),
            last_reload_successful: sheet::valid(IntGauge::new(
                "config_last_reload_successful",
                "Whether the last rule set or configuration given to this control process runs; 1 before the first.",
            )),
            apply_duration: sheet::valid(Histogram::with_opts(apply.buckets(APPLY_BUCKETS.to_vec()))),
            failures: sheet::valid(IntCounterVec::new(failures, &["reason"])),
            listeners: [METRICS_LISTENER, OPERATORS_LISTENER, API_LISTENER, READERS_LISTENER]
                .map(|listener| (listener, Arc::default())),
            api_refused: sheet::valid(IntCounterVec::new(refused, &["reason"])),
            tls_failures: Arc::default(),
            requests: RequestMetrics::default(),
            resolver: ResolverMetrics::default(),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            last_answer: Mutex::default(),
        };
        metrics.last_reload_successful.set(1);
        for kind in DataplaneError::FAILURES {
            metrics.failures.with_label_values(&[kind]);
        }
        for reason in ApiRefusal::ALL {
            metrics.api_refused.with_label_values(&[reason.name()]);
        }
        metrics
    }
}

impl Metrics {
    /// Counts a rule set that was invalid and not sent to the dataplane.
    pub fn apply_was_invalid(&self) {
        self.reloads_invalid.fetch_add(1, Ordering::Relaxed);
        self.last_reload_successful.set(0);
    }

    /// Counts a rule set that was sent to the dataplane, with the time until its answer.
    pub fn apply_ended(&self, took: Duration, successful: bool) {
        self.apply_duration.observe(took.as_secs_f64());
        self.last_reload_successful.set(successful.into());
    }

    /// Counts a request to the dataplane without an answer. A refusal is an answer and not counted.
    pub fn request_failed(&self, error: &DataplaneError) {
        if DataplaneError::FAILURES.contains(&error.kind()) {
            self.failures.with_label_values(&[error.kind()]).inc();
        }
    }

    /// Records that the dataplane answered or refused a request.
    pub fn answered(&self) {
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Counts a request that the API refused before it handled it.
    pub fn api_refused(&self, reason: ApiRefusal) {
        self.api_refused.with_label_values(&[reason.name()]).inc();
    }

    /// The failures of TLS.
    pub(crate) fn tls_failures(&self) -> Arc<TlsFailures> {
        Arc::clone(&self.tls_failures)
    }

    /// The counters of a listener for connections that a limit refused or closed.
    pub(crate) fn refusals(&self, listener: &str) -> Arc<Refusals> {
        let counted = self.listeners.iter().find(|(name, _)| *name == listener);
        counted.map(|(_, refusals)| Arc::clone(refusals)).unwrap_or_default()
    }

    /// The text of one scrape, from the answer of the dataplane if there is one, and the state of the control process's log.
    pub fn render(
        &self,
        answer: Option<&wire::MetricsReport>,
        log: &wire::LogStatus,
        events: &EventNumbers,
        now: SystemTime,
    ) -> String {
        self.sheet(answer, log, events, now).text()
    }

    fn sheet(
        &self,
        answer: Option<&wire::MetricsReport>,
        log: &wire::LogStatus,
        events: &EventNumbers,
        now: SystemTime,
    ) -> Sheet {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let sheet = Sheet::default();
        sheet.register(&self.last_reload_successful);
        sheet.register(&self.apply_duration);
        sheet.register(&self.failures);
        sheet.register(&self.api_refused);
        self.requests.register(&sheet);
        self.resolver.register(&sheet);
        let help = "Wall clock of the host at the scrape, in Unix time.";
        sheet.value("wall_clock_timestamp_seconds", help, now.as_secs_f64());
        let up = sheet.gauge("dataplane_up", "Whether the dataplane answered this scrape.", &[]);
        up.with_label_values::<&str>(&[]).set(flag(answer.is_some()));
        if let Some(last) = *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) {
            let help = "Time since the dataplane last answered the control process; absent before the first answer.";
            sheet.value("dataplane_answer_age_seconds", help, last.elapsed().as_secs_f64());
        }
        let help = "Time of the control process's start, in Unix time.";
        sheet.bare().value("process_start_time_seconds", help, self.started.as_secs_f64());
        if let Some(usage) = resources::read() {
            usage::fill(&usage::CONTROL, &sheet, &usage);
        }
        let build =
            sheet.gauge("build_info", "Versions of the two processes; the value is 1.", &["component", "version"]);
        build.with_label_values(&["control", env!("CARGO_PKG_VERSION")]).set(1.0);
        let reloads = sheet.counter(
            "config_reloads_total",
            "Rule sets and configurations that were given, by result.",
            &["result"],
        );
        let lost = sheet.counter(
            "log_lines_lost_total",
            "Log lines that were not written, because of a full queue, a failed write or a limit.",
            &["process", "kind"],
        );
        let written = sheet.gauge("log_ok", "Whether the log of the process is written.", &["process"]);
        let note_log = |process: &str, log: &wire::LogStatus| {
            written.with_label_values(&[process]).set(flag(log.problem.is_none()));
            for LostLines { kind, lines } in &log.lost {
                lost.with_label_values(&[process, kind]).inc_by(*lines);
            }
        };
        note_log("control", log);
        streams::fill(&sheet, events);
        reloads.with_label_values(&["invalid"]).inc_by(self.reloads_invalid.load(Ordering::Relaxed));
        let refused = sheet.counter(
            "control_connections_refused_total",
            "Connections to the control process that a limit refused or closed.",
            &["listener", "reason"],
        );
        for (listener, refusals) in &self.listeners {
            for (refusal, connections) in refusals.counts() {
                refused.with_label_values(&[listener, refusal.name()]).inc_by(connections);
            }
        }
        let help =
            "Changes of the API's certificate files that were not valid, so that the old certificate remained in use.";
        let failures = sheet.counter("control_api_certificate_failures_total", help, &[]);
        failures.with_label_values::<&str>(&[]).inc_by(self.tls_failures.files.load(Ordering::Relaxed));
        let handshakes = sheet.counter(
            "control_api_handshake_failures_total",
            "TLS handshakes of the API that failed, by class of the peer's address and cause.",
            &["peer", "reason"],
        );
        for (class, failure, number) in self.tls_failures.handshakes.counts() {
            handshakes.with_label_values(&[class.name(), failure.name()]).inc_by(number);
        }
        if let Some(answer) = answer {
            note_log("dataplane", &answer.status.log);
            build.with_label_values(&["dataplane", &answer.status.version]).set(1.0);
            reloads.with_label_values(&["applied"]).inc_by(answer.applied);
            reloads.with_label_values(&["refused"]).inc_by(answer.refused);
            packets::fill(&sheet, answer, now);
            names::fill(&sheet, &answer.names);
            events::fill(&sheet, answer);
            journal::fill(&sheet, &answer.status.journal);
            journal::fill_counters(&sheet, &answer.status.stored_counters);
            journal::fill_static_entries(&sheet, answer.status.static_entries_damage.is_some());
        }
        sheet
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use knockplane_limits::refusal::Refusal;

    use super::*;
    use crate::sample;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Fails if promtool reports a problem. It is in Debian's package `prometheus`.
    fn promtool(text: &str) {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool, of Debian's package prometheus");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|candidate| candidate == line), "no line `{line}` in:\n{text}");
    }

    #[test]
    fn promtool_accepts_a_full_scrape_and_one_without_the_dataplane() {
        let metrics = Metrics::default();
        promtool(&metrics.render(Some(&sample::metrics()), &sample::log(0), &EventNumbers::default(), at(1_000)));
        promtool(&metrics.render(None, &sample::log(0), &EventNumbers::default(), at(1_000)));
    }

    #[test]
    fn without_the_dataplane_a_scrape_has_the_numbers_of_the_control_process() {
        let metrics = Metrics::default();
        metrics.apply_was_invalid();
        metrics.request_failed(&DataplaneError::Silent(Duration::from_secs(5)));
        let text = metrics.render(None, &sample::log(0), &EventNumbers::default(), at(1_000));
        has(&text, "knockplane_dataplane_up 0");
        has(&text, "knockplane_control_requests_total{class=\"change\",status=\"5xx\"} 0");
        has(&text, "knockplane_control_request_duration_seconds_count{class=\"read\"} 0");
        has(&text, "knockplane_resolver_attempts_total{result=\"failed\"} 0");
        has(&text, "knockplane_config_reloads_total{result=\"invalid\"} 1");
        has(&text, "knockplane_config_last_reload_successful 0");
        has(&text, "knockplane_dataplane_request_failures_total{reason=\"silent\"} 1");
        has(&text, "knockplane_dataplane_request_failures_total{reason=\"unreachable\"} 0");
        for listener in ["metrics", "operators"] {
            for refusal in Refusal::ALL {
                let labels = format!("listener=\"{listener}\",reason=\"{}\"", refusal.name());
                has(&text, &format!("knockplane_control_connections_refused_total{{{labels}}} 0"));
            }
        }
        assert!(!text.contains("rx_packets"), "{text}");
    }

    #[test]
    fn a_full_scrape_has_the_numbers_of_the_dataplane() {
        let text =
            Metrics::default().render(Some(&sample::metrics()), &sample::log(0), &EventNumbers::default(), at(1_000));
        for line in [
            "knockplane_dataplane_up 1",
            "knockplane_rx_packets_total{side=\"outside\",worker=\"0\"} 1234567",
            "knockplane_packets_total{reason=\"chain-default\",verdict=\"drop\",worker=\"1\"} 1233567",
            "knockplane_packets_total{reason=\"ipv4-malformed\",verdict=\"drop\",worker=\"0\"} 0",
            "knockplane_rule_packets_total{chain=\"input\",rule=\"0a1b2c3d\"} 3",
            "knockplane_rule_bytes_total{chain=\"input\",rule=\"0a1b2c3d\"} 144",
            "knockplane_chain_default_packets_total{chain=\"input\"} 7",
            "knockplane_ring_drops_total{reason=\"rx-ring-full\",side=\"outside\",worker=\"0\"} 9",
            "knockplane_unbound_queue_drops_total{side=\"outside\"} 6",
            "knockplane_past_program_drops_total{side=\"inside\"} 3",
            "knockplane_interface_rx_packets_total{side=\"outside\"} 1234603",
            "knockplane_interface_tx_dropped_total{side=\"inside\"} 2",
            "knockplane_interface_rx_missed_total{side=\"inside\"} 0",
            "knockplane_xdp_frames_total{side=\"outside\"} 1234600",
            "knockplane_configuration_drift{kind=\"queues\",side=\"outside\"} 0",
            "knockplane_configuration_drift{kind=\"past-program\",side=\"inside\"} 0",
            "knockplane_configuration_repairs_total{kind=\"gro\",side=\"outside\"} 1",
            "knockplane_tail_drops_total{side=\"outside\"} 11",
            "knockplane_frames_in_flight{worker=\"0\"} 4",
            "knockplane_frames_lost{worker=\"0\"} 0",
            "knockplane_address_list_entries{list=\"trusted\"} 12345",
            "knockplane_address_list_capacity_entries 1048576",
            "knockplane_address_list_evictions_total{list=\"knock1\",reason=\"table-full\"} 5",
            "knockplane_address_list_refusals_total{list=\"trusted\"} 2",
            "knockplane_address_list_expired_total{list=\"knock1\"} 8",
            "knockplane_door_knocking{door=\"ssh\"} 2",
            "knockplane_door_open{door=\"office\"} 1",
            "knockplane_door_steps_total{door=\"ssh\",step=\"1\"} 1204",
            "knockplane_door_steps_total{door=\"ssh\",step=\"3\"} 12",
            "knockplane_door_opened_total{door=\"ssh\"} 12",
            "knockplane_door_closed_total{door=\"office\"} 1",
            "knockplane_door_failed_total{door=\"ssh\",reason=\"timed-out\"} 21",
            "knockplane_door_failed_total{door=\"office\",reason=\"source\"} 0",
            "knockplane_connections 21",
            "knockplane_connections_refused_packets_total 4",
            "knockplane_config_generation 3",
            "knockplane_config_reloads_total{result=\"applied\"} 3",
            "knockplane_config_last_reload_successful 1",
            "knockplane_config_last_reload_success_timestamp_seconds 970",
            "knockplane_worker_heartbeat_timestamp_seconds{worker=\"0\"} 999.995",
            "knockplane_worker_seconds_total{state=\"asleep\",worker=\"1\"} 44.5",
            "knockplane_xdp_mode_info{mode=\"native\",side=\"inside\",zero_copy=\"false\"} 1",
            "knockplane_interface_up{interface=\"kp-out\",side=\"outside\"} 1",
            "knockplane_events_lost_total 2",
            "knockplane_event_reader_gaps_total{reader=\"journal\"} 0",
            "knockplane_event_reader_missed_total{reader=\"log\"} 300",
            "knockplane_door_grants_total{change=\"granted\",door=\"ssh\"} 12",
            "knockplane_door_grants_ended_total{cause=\"expired\",door=\"ssh\"} 9",
            "knockplane_door_grants_ended_total{cause=\"operator\",door=\"office\"} 0",
            "knockplane_wall_clock_steps_total 1",
            "knockplane_wall_clock_synchronised 1",
            "knockplane_wall_clock_timestamp_seconds 1000",
            "knockplane_config_confirmation_pending 1",
            "knockplane_config_differs_from_file 0",
            "knockplane_connections_capacity 100000",
            "knockplane_fast_path_configured 1",
            "knockplane_fast_path_flows{family=\"ipv4\"} 1204",
            "knockplane_fast_path_capacity_flows{family=\"ipv6\"} 131072",
            "knockplane_static_entries_damaged 0",
            "knockplane_journal_clock_set_back 0",
            "knockplane_log_ok{process=\"dataplane\"} 1",
            "knockplane_log_lines_lost_total{kind=\"packet\",process=\"dataplane\"} 4310",
            "knockplane_log_lines_lost_total{kind=\"door\",process=\"control\"} 0",
            "knockplane_dataplane_connections_refused_total{reason=\"evicted\"} 3",
            "knockplane_dataplane_connections_refused_total{reason=\"idle\"} 0",
            "knockplane_dataplane_start_time_seconds 910",
            "knockplane_dataplane_process_cpu_seconds_total 12.5",
            "knockplane_dataplane_process_resident_memory_bytes 104857600",
            "knockplane_dataplane_process_open_fds 40",
            "knockplane_rule_overflow_packets_total 20",
            "knockplane_rule_overflow_bytes_total 960",
            "knockplane_rules_without_series 2",
            "knockplane_rule_info{action=\"add-src-to-address-list\",chain=\"input\",comment=\"first knock\",\
             number=\"ip filter 0\",rule=\"0a1b2c3d\"} 1",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn labels_have_no_addresses_and_no_text_of_users_but_comments_of_rules() {
        let mut answer = sample::metrics();
        let text = Metrics::default().render(Some(&answer), &sample::log(0), &EventNumbers::default(), at(1_000));
        assert!(!text.contains("192.0.2") && !text.contains("the office") && !text.contains("rules.rsc"), "{text}");
        assert_eq!(text.matches("first knock").count(), 1, "{text}");
        answer.rules[0].comment = "say \"hi\" \\ \n\u{1b}[2J é".to_owned();
        let text = Metrics::default().render(Some(&answer), &sample::log(0), &EventNumbers::default(), at(1_000));
        assert!(text.contains(r#"comment="say \"hi\" \\ \\n\\u{1b}[2J é","#), "{text}");
        promtool(&text);
    }

    #[test]
    fn the_age_of_the_last_answer_is_a_metric() {
        let metrics = Metrics::default();
        let age = |metrics: &Metrics| {
            let text = metrics.render(None, &sample::log(0), &EventNumbers::default(), at(1_000));
            let line = text.lines().find_map(|line| line.strip_prefix("knockplane_dataplane_answer_age_seconds "));
            line.and_then(|age| age.parse::<f64>().ok())
        };
        assert_eq!(age(&metrics), None);
        metrics.answered();
        assert!(age(&metrics).is_some_and(|age| (0.0..60.0).contains(&age)));
    }
}
