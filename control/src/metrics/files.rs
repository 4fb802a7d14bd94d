//! Tests of the files for Prometheus and Grafana: promtool accepts them, they name metrics that exist, and every alert has its
//! paragraph in `docs/alerts.md` and its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::page::families;

const PROMETHEUS: &str = "configs/prometheus";

const DASHBOARDS: [&str; 2] = ["configs/grafana/operator.json", "configs/grafana/performance.json"];

/// Metrics of Prometheus itself.
const FOREIGN: [&str; 1] = ["up"];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs promtool, which must succeed and print nothing else than success.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output().expect("promtool, of Debian's package prometheus");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !said.contains("FAILED"), "promtool {arguments:?}: {said}");
}

/// The values of a key at the beginning of lines.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(|value| value.trim_matches('"')).collect()
}

/// The names of metrics in a text: words that begin as one of knockplane, and names of recording rules, which contain a colon.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && !"_:".contains(char));
    words.map(|word| word.trim_end_matches(':')).filter(|word| is_name(word)).collect()
}

fn is_name(word: &str) -> bool {
    word.starts_with("knockplane_") || word.starts_with("process_") || word.contains(":knockplane_")
}

/// Fails if the text names a metric or a recording rule that does not exist.
fn check_names(file: &str, text: &str) {
    let families = families();
    let recording = read(&format!("{PROMETHEUS}/recording.rules.yml"));
    let recorded = values(&recording, "record");
    for name in names(text) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let exists = families.contains_key(name)
            || families.get(base).is_some_and(|family| !family.get_metric()[0].get_histogram().get_bucket().is_empty())
            || recorded.contains(&name)
            || FOREIGN.contains(&name);
        assert!(exists, "{file}: there is no metric {name}");
    }
}

/// The alerts with the file's text of each.
fn alerts() -> BTreeMap<String, String> {
    let text = read(&format!("{PROMETHEUS}/alerts.rules.yml"));
    let alerts = text.split("- alert: ").skip(1);
    alerts.map(|alert| (alert.lines().next().unwrap_or_default().to_owned(), alert.to_owned())).collect()
}

#[test]
fn promtool_accepts_the_files_and_their_tests_pass() {
    let file = |name: &str| path(PROMETHEUS).join(name).display().to_string();
    promtool(&["check", "config", &file("prometheus.yml")]);
    promtool(&["check", "rules", "--lint-fatal", &file("recording.rules.yml"), &file("alerts.rules.yml")]);
    promtool(&["test", "rules", &file("alerts.test.yml")]);
}

#[test]
fn the_rules_name_metrics_that_exist() {
    for file in ["recording.rules.yml", "alerts.rules.yml", "alerts.test.yml"] {
        check_names(file, &read(&format!("{PROMETHEUS}/{file}")));
    }
}

#[test]
fn every_alert_has_a_severity_texts_a_paragraph_and_tests() {
    let (page, tests) = (read("docs/alerts.md"), read(&format!("{PROMETHEUS}/alerts.test.yml")));
    let alerts = alerts();
    assert!(alerts.len() > 20, "{alerts:?}");
    for (name, text) in &alerts {
        let severity = text.split_once("severity: ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
        assert!(severity.is_some_and(|severity| ["critical", "warning", "info"].contains(&severity)), "{text}");
        for key in ["summary", "description"] {
            assert!(values(text, key).iter().any(|value| value.len() > 10), "{name} has no {key}");
        }
        let anchor = format!("docs/alerts.md#{}", name.to_lowercase());
        assert_eq!(values(text, "runbook"), [anchor], "{name}");
        let paragraph = page.split_once(&format!("\n### {name}\n")).map(|(_, rest)| rest);
        let paragraph = paragraph.and_then(|rest| rest.split("\n#").next()).unwrap_or_default();
        assert!(paragraph.split_whitespace().count() > 20, "docs/alerts.md has no paragraph about {name}");
        // Each test has both expectations: quiet first, firing later.
        let test = tests.split("  - name: ").find(|test| test.lines().next() == Some(name));
        let test = test.unwrap_or_else(|| panic!("alerts.test.yml has no test of {name}"));
        assert!(test.contains("exp_samples: []") && test.contains(&format!("alertname=\"{name}\"")), "{test}");
        assert!(test.contains("value: 1"), "{name} never fires in its test");
    }
    for heading in page.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(alerts.contains_key(heading), "docs/alerts.md has a paragraph about {heading}, which is no alert");
    }
}

/// The panels of a dashboard, without its rows.
fn panels(file: &str) -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert!(variables.iter().any(|variable| variable["type"] == "datasource" && variable["name"] == "datasource"));
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "{file}: ids of panels");
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// An expression of a panel without Grafana's variables.
fn resolved(expression: &str) -> String {
    let variables = [("$__rate_interval", "2m"), ("$job", ".*"), ("$instance", ".*")];
    let text = variables.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!text.contains('$'), "{expression}");
    text
}

#[test]
fn dashboards_have_described_panels_with_units_and_expressions_that_parse() {
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    let mut number = 0;
    for file in DASHBOARDS {
        let panels = panels(file);
        assert!(panels.len() > 10, "{file}");
        for panel in &panels {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let title = text(&panel["title"]);
            assert!(title.ends_with(')') && title.contains(" ("), "{file}: no unit in the title `{title}`");
            assert!(text(&panel["description"]).len() > 20, "{file}: {title} has no description");
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{file}: {title} has no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{file}: {title} has no expression");
            for target in targets {
                let expression = text(&target["expr"]);
                check_names(file, &expression);
                let quoted = serde_json::to_string(&resolved(&expression)).expect("JSON");
                rules += &format!("      - record: panel:{number}\n        expr: {quoted}\n");
                number += 1;
            }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("panels.rules.yml");
    fs::write(&file, rules).expect("written");
    promtool(&["check", "rules", &file.display().to_string()]);
}
