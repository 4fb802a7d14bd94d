//! Checks the output of `knockctl --json` against the schemas in `docs/schema/`, and tests repeated output (`--watch`).

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use knockplane_tests::{Filter, FilterOptions, Output, SERVER};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scenario::{CLIENT, eventually, knock, serve_tcp, tcp_echo, with};

const DOOR: &str = "
[[door]]
name = \"echo\"
knock = [\"tcp/7000 syn\", \"udp/4321 \\\"open sesame\\\"\"]
opens = [\"tcp/8080\"]
max-attempts = \"5/1m\"
[[door]]
name = \"plain\"
knock = [\"tcp/1234 syn\"]
opens = [\"tcp/8080\"]
";

const RULES: &str = "/ip firewall address-list
add list=office address=10.77.9.0/24 comment=\"the office\"
/ip firewall filter
add chain=input protocol=udp dst-port=53 action=add-src-to-address-list address-list=asked address-list-timeout=1m
add chain=input connection-state=established,related action=accept
add chain=input src-address-list=asked protocol=udp psd=21,3s,3,1 action=drop comment=\"a scan\"
";

fn options() -> FilterOptions {
    FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules(RULES) }
}

/// The document of a command, which must match this schema.
pub(crate) fn document(schema: &str, output: &Output) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(schema).with_extension("json");
    let schema: Value = serde_json::from_slice(&fs::read(&file).expect("a schema")).expect("JSON");
    let document: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<_> =
        validator.iter_errors(&document).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{}: {errors:#?}\n{document}", file.display());
    assert_eq!(document["version"], 1);
    document
}

fn asked(filter: &Filter<'_>, arguments: &[&str]) -> Output {
    filter.knockctl(&[&["--json"], arguments].concat()).expect("knockctl")
}

#[test]
fn every_answer_is_a_document_of_its_schema() {
    with(&options(), |topology, filter| {
        serve_tcp(topology, 8080);
        knock(topology, "53:udp 7000:tcp 1234:tcp");
        eventually("the door opens", || tcp_echo(topology, 8080));
        let rules = filter.path("rules.rsc").display().to_string();
        let knockd = filter.path("knockd.conf");
        fs::write(&knockd, "[a]\nsequence = 7\ncommand = ufw allow from %IP% to any port 22 proto tcp\n")
            .expect("written");
        let knockd = knockd.display().to_string();
        let packet = format!("tcp {CLIENT}:4000 > {SERVER}:8080");
        let cases: &[(&str, &[&str])] = &[
            ("show-status", &["show", "status"]),
            ("show-workers", &["show", "workers"]),
            ("show-rules", &["show", "rules"]),
            ("show-lists", &["show", "lists"]),
            ("show-lists", &["list", "show", "asked"]),
            ("show-doors", &["show", "doors"]),
            ("show-connections", &["show", "connections"]),
            ("show-connections-count", &["show", "connections", "--count"]),
            ("connection-remove", &["connection", "remove", "state=syn-sent", "--force"]),
            ("top", &["top", "--count", "1"]),
            ("explain-source", &["explain-source", CLIENT]),
            ("explain-source", &["explain-source", "2001:db8::7"]),
            ("explain", &["explain", &packet]),
            ("export", &["export"]),
            ("check", &["check", &rules]),
            ("import", &["import", &knockd]),
            ("list-add", &["list", "add", "office", "192.0.2.0/28", "--timeout", "1m"]),
            ("list-remove", &["list", "remove", "office", "192.0.2.0/28"]),
            ("list-flush", &["list", "flush", "asked"]),
            ("plan", &["plan", &rules]),
            ("apply", &["apply", &rules]),
            ("apply", &["rule", "add", "chain=input", "protocol=icmp"]),
            ("apply", &["undo"]),
            ("apply", &["redo"]),
            ("history", &["history"]),
            ("rule-reset-counters", &["rule", "reset-counters"]),
            ("reload", &["reload"]),
        ];
        for (schema, arguments) in cases {
            let output = asked(filter, arguments);
            assert!(output.ok(), "{arguments:?}: {output:?}");
            let text = document(schema, &output).to_string();
            assert!(!text.contains("sesame"), "a passphrase is in {text}");
        }
        let status = document("show-status", &asked(filter, &["show", "status"]));
        assert_eq!((&status["ready"], &status["not_ready_because"]), (&true.into(), &Value::Null));
        assert_eq!(status["connections"]["refused_packets"], 0, "{status}");
        assert!(status["workers"][0]["received"]["outside"].as_u64() > Some(0), "{status}");
    });
}

#[test]
fn every_failure_is_a_document() {
    with(&options(), |_, filter| {
        let bad = filter.path("bad.rsc");
        fs::write(&bad, "/ip firewall filter\nadd chain=input dst-port=X\n").expect("written");
        let bad = bad.display().to_string();
        let closed = filter.path("closed.rsc");
        fs::write(&closed, "/ip firewall filter\n").expect("written");
        let closed = closed.display().to_string();
        for (schema, code, exit, arguments) in [
            ("error", "failed", 1, &["show", "lists", "nobody"][..]),
            ("error", "failed", 1, &["show", "doors", "nothing"]),
            ("error", "failed", 1, &["list", "remove", "office", "192.0.2.1"]),
            ("error", "usage", 2, &["show", "nothing"]),
            ("error", "usage", 2, &["explain", "tcp 192.0.2.1 >"]),
            ("error", "unconfirmed", 5, &["apply", &closed]),
            ("error", "conflict", 6, &["rule", "remove", "99"]),
            ("error", "conflict", 6, &["redo"]),
            ("check", "invalid", 3, &["rule", "add", "chain=input", "dst-port=X"]),
            ("check", "invalid", 3, &["apply", &bad]),
            ("check", "invalid", 3, &["plan", &bad]),
            ("check", "invalid", 3, &["check", &bad]),
        ] {
            let output = asked(filter, arguments);
            assert_eq!(output.code, Some(exit), "{arguments:?}: {output:?}");
            assert_eq!(document(schema, &output)["error"]["code"], code, "{output:?}");
        }
        filter.dataplane.kill().expect("killed");
        let output = asked(filter, &["show", "rules"]);
        let error = document("error", &output)["error"].clone();
        assert_eq!((output.code, &error["code"]), (Some(4), &"unreachable".into()));
        assert!(error["remedy"].as_str().is_some_and(|remedy| remedy.contains("systemctl start")), "{error}");
        filter.control.kill().expect("killed");
        assert_eq!(document("error", &asked(filter, &["show", "rules"]))["error"]["code"], "unreachable");
    });
}

#[test]
fn a_watch_continues_over_a_restart_and_ends_cleanly() {
    with(&options(), |_, filter| {
        for json in [false, true] {
            let mut command = filter.command(&["show", "status", "--watch=100ms"]).expect("built");
            let command = if json { command.arg("--json") } else { &mut command };
            let mut watching = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
            let mut lines =
                BufReader::new(watching.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
            let up = if json { "\"ready\": true" } else { "ready       yes" };
            let mut answer = || lines.by_ref().find(|line| line.contains(up)).expect("an answer");
            for _ in 0..3 {
                let line = answer();
                assert!(!json || serde_json::from_str::<Value>(&line).is_ok(), "{line}");
            }
            let mut told =
                BufReader::new(watching.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
            filter.control.kill().expect("killed");
            assert!(told.next().is_some_and(|line| line.ends_with("asking again")));
            filter.restart_control().expect("started again");
            assert!(told.next().is_some_and(|line| line.ends_with("it answers again")));
            answer();
            kill_process(Pid::from_child(&watching), Signal::INT).expect("sent");
            // The output must have a reader until the process ends.
            lines.for_each(drop);
            assert_eq!(watching.wait().expect("it ends").code(), Some(0));
        }
    });
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_watch() {
    with(&options(), |_, filter| {
        let mut command = filter.command(&["show", "workers", "--watch=100ms"]).expect("built");
        let mut watching = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
        assert!(lines.next().expect("a line").is_ok());
        drop(lines);
        assert_eq!(watching.wait().expect("it ends").code(), Some(0));
    });
}
