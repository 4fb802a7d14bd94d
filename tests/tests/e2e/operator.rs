//! Rules applied live, tables, lists, metrics.

use std::fs;
use std::process::{Command, Stdio};

use knockplane_tests::{CLIENT, FilterOptions};

use crate::scene::{QUICK, eventually, knock, listed, ping, rule_ids, with};

fn two_ports() -> FilterOptions {
    FilterOptions::from_configs("two-ports.rsc").expect("configs/two-ports.rsc")
}

#[test]
fn rules_are_shown_with_the_bytes_and_packets_that_they_matched() {
    with(&two_ports(), |topology, filter| {
        // The real knock sends one SYN a step: 20 bytes IP, 20 bytes TCP, 20 bytes of options.
        knock(topology, "1234:tcp 4321:tcp");
        eventually("both hits are decided", || listed(filter, "secured", CLIENT));
        let rules = filter.ask(&["show", "rules"]).expect("rules");
        let counter = |rule: usize| {
            let counter = &rules["rules"][rule]["counter"];
            (counter["packets"].as_u64().expect("packets"), counter["bytes"].as_u64().expect("bytes"))
        };
        assert_eq!((counter(0), counter(1)), ((1, 60), (1, 60)));
        // The second knock is in `secured` by its own rule already, so the third rule accepts it.
        assert_eq!(counter(2), (1, 60));
        assert_eq!(counter(3), (1, 60));
        let table = filter.knockctl(&["show", "rules", "--stats"]).expect("knockctl").stdout;
        for part in ["CHAIN", "ACTION", "BYTES", "PACKETS", "add-src-to-address-list", "accept", "drop"] {
            assert!(table.contains(part), "{part} in:\n{table}");
        }
    });
}

#[test]
fn what_is_exported_can_be_applied() {
    with(&two_ports(), |_, filter| {
        let export = || filter.knockctl(&["export"]).expect("knockctl").stdout;
        let before = filter.ask(&["show", "rules"]).expect("rules");
        let text = export();
        let file = filter.path("exported.rsc");
        fs::write(&file, &text).expect("written");
        let applied = filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl");
        assert!(applied.ok(), "{applied:?}");
        assert_eq!(export(), text);
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!(rule_ids(&after), rule_ids(&before));
        let shown = filter.knockctl(&["show", "rules"]).expect("knockctl").stdout;
        assert!(shown.contains("chain=input action=add-src-to-address-list address-list="), "{shown}");
    });
}

#[test]
fn a_new_rule_set_keeps_lists_and_the_counters_of_rules_that_stay() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, ""));
        let before = filter.ask(&["show", "rules"]).expect("rules");
        let file = filter.path("more.rsc");
        let more = fs::read_to_string(filter.path("rules.rsc")).expect("the rules");
        let more =
            more.replacen("add ", "add chain=input protocol=udp dst-port=53 comment=\"new, and first\"\nadd ", 1);
        fs::write(&file, more).expect("written");
        let applied = filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl");
        assert!(applied.ok(), "{applied:?}");
        assert!(listed(filter, "secured", CLIENT) && ping(topology, ""), "who was in stays in");
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!(after["generation"].as_u64(), before["generation"].as_u64().map(|number| number + 1));
        let (after, before) = (&after["rules"][1], &before["rules"][0]);
        assert_eq!(after["id"], before["id"], "the id does not depend on place");
        assert_eq!(after["counter"], before["counter"], "the counter goes with the id");
    });
}

#[test]
fn entries_are_added_and_removed_by_hand() {
    with(&two_ports(), |topology, filter| {
        let run = |arguments: &[&str]| filter.knockctl(arguments).expect("knockctl");
        assert!(run(&["list", "add", "secured", CLIENT, "--timeout", "1m30s"]).ok());
        let lists = filter.ask(&["show", "lists", "secured"]).expect("lists");
        let left = lists["entries"][0]["time_left_seconds"].as_f64().expect("time left");
        assert!((80.0..=90.0).contains(&left), "{lists}");
        assert!(ping(topology, ""), "open by hand");
        assert!(run(&["list", "remove", "secured", CLIENT]).ok());
        assert!(!ping(topology, ""), "closed by hand");
        assert_eq!(run(&["list", "remove", "secured", CLIENT]).code, Some(1), "what is not there cannot be removed");
        assert_eq!(run(&["list", "add", "secured", "10.0.0.300"]).code, Some(2), "an address that is none");
        assert_eq!(run(&["list", "add", "secured", CLIENT, "--timeout", "soon"]).code, Some(2));
    });
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, ""));
        let metrics = filter.http("/metrics").expect("metrics");
        let file = filter.path("metrics");
        fs::write(&file, &metrics).expect("written");
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::from(fs::File::open(&file).expect("readable")))
            .output()
            .expect("promtool is installed (package prometheus)");
        assert!(promtool.status.success() && promtool.stdout.is_empty() && promtool.stderr.is_empty(), "{promtool:?}");
        assert!(!metrics.contains(CLIENT), "no address is in a label");
        for (rule, count) in [("knockplane_rule_packets_total", 4), ("knockplane_rule_bytes_total", 4)] {
            let series = metrics.lines().filter(|line| line.starts_with(&format!("{rule}{{"))).count();
            assert_eq!(series, count, "{rule}");
        }
        assert!(filter.http("/healthz").is_ok() && filter.http("/readyz").is_ok());
    });
}

#[test]
fn show_tells_what_runs() {
    with(&two_ports(), |_, filter| {
        let status = filter.ask(&["show", "status"]).expect("status");
        let text = status.to_string();
        for part in ["\"outside\"", "\"inside\"", "native", "rules.rsc", "closed"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        for interface in status["interfaces"].as_array().expect("interfaces") {
            assert_eq!((&interface["driver"], &interface["zero_copy"]), (&"veth".into(), &false.into()));
            let reason = interface["copy_reason"].as_str().expect("why frames are copied");
            assert!(reason.contains("veth is not known to keep long frames whole"), "{reason}");
        }
        for what in ["status", "workers", "lists", "rules"] {
            let shown = filter.knockctl(&["show", what]).expect("knockctl");
            assert!(shown.ok() && !shown.stdout.is_empty(), "show {what}: {shown:?}");
        }
    });
}
