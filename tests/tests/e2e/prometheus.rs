//! Debian's Prometheus in the filter's namespace, with the rules of `configs/prometheus` on a faster clock: it scrapes and
//! evaluates every second, windows have ten seconds, and alerts fire after one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use knockplane_tests::{Folder, Process, Topology};
use serde_json::Value;

/// The address of Prometheus in the filter's namespace.
const LISTEN: (&str, u16) = ("127.0.0.1", 9090);

/// The window of all expressions.
const WINDOW: &str = "[10s]";

/// A file of the repository.
pub(crate) fn repository(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Text with a short time in place of each window.
pub(crate) fn with_short_windows(text: &str) -> String {
    let mut parts = text.split('[');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((window, rest)) if is_time(window) => result += &format!("{WINDOW}{rest}"),
            _ => result += &format!("[{part}"),
        }
    }
    result
}

fn is_time(text: &str) -> bool {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_lowercase());
    text == "$__rate_interval" || (digits.len() + 1 == text.len() && digits.parse::<u32>().is_ok())
}

/// Rules in which alerts fire after a second.
fn fast(rules: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("for: ") {
        Some(_) => format!("{}for: 1s\n", &line[..line.len() - line.trim_start().len()]),
        None => format!("{line}\n"),
    };
    with_short_windows(&rules.lines().map(line).collect::<String>())
}

/// The second job has time for the scrape of a filter whose dataplane does not answer.
const CONFIGURATION: &str = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [recording.rules.yml, alerts.rules.yml]
scrape_configs:
  - job_name: knockplane
    static_configs: [{ targets: [\"127.0.0.1:9479\"] }]
  - job_name: patient
    scrape_interval: 4s
    scrape_timeout: 4s
    static_configs: [{ targets: [\"127.0.0.1:9479\"] }]
    metric_relabel_configs: [{ source_labels: [__name__], regex: knockplane_dataplane_up, action: keep }]
";

pub(crate) struct Prometheus<'t> {
    /// Ends before the removal of its folder.
    _process: Process,
    _folder: Folder,
    topology: &'t Topology,
}

impl<'t> Prometheus<'t> {
    pub(crate) fn start(topology: &'t Topology) -> Prometheus<'t> {
        let folder = Folder::make(&format!("{}-prometheus", topology.filter.name())).expect("a folder");
        let file = |name: &str| folder.0.join(name);
        fs::write(file("prometheus.yml"), CONFIGURATION).expect("written");
        for name in ["recording.rules.yml", "alerts.rules.yml"] {
            let rules = fast(&repository(&format!("configs/prometheus/{name}")));
            assert!(!rules.contains("[5m]"), "{rules}");
            fs::write(file(name), rules).expect("written");
        }
        let mut command = topology.filter.command("prometheus");
        command.arg(format!("--config.file={}", file("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", file("data").display()));
        command.arg(format!("--web.listen-address={}:{}", LISTEN.0, LISTEN.1)).arg("--log.level=warn");
        let process = Process::start("prometheus", &mut command, &file("prometheus.log")).expect("prometheus");
        Prometheus { _process: process, _folder: folder, topology }
    }

    /// The data of an answer of its API; `None` if it does not answer yet.
    fn get(&self, path: &str) -> Option<Value> {
        let answer = self.topology.filter.within(|| {
            let mut stream = TcpStream::connect(LISTEN)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let json: Value = serde_json::from_str(body).ok()?;
        assert_eq!(json["status"], "success", "{path}: {body}");
        Some(json["data"].clone())
    }

    /// The series of an expression now.
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={encoded}")).unwrap_or_default();
        data["result"].as_array().cloned().unwrap_or_default()
    }

    /// The rules, as Prometheus has read them.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let data = self.get("/api/v1/rules").unwrap_or_default();
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The instances of an alert that fire now.
    pub(crate) fn firing(&self, alert: &str) -> Vec<Value> {
        let data = self.get("/api/v1/alerts").unwrap_or_default();
        let mut alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        alerts.retain(|one| one["labels"]["alertname"] == alert && one["state"] == "firing");
        alerts
    }
}
