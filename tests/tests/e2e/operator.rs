//! Rules applied live, tables, lists, metrics.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use knockplane_tests::{CLIENT, FilterOptions, SERVER, binary, run};

use crate::doors::{goes_on, session};
use crate::scenario::{QUICK, eventually, knock, listed, ping, rule_ids, serve_tcp, tcp_echo, udp_to, with};

fn two_ports() -> FilterOptions {
    FilterOptions::from_configs("two-ports.rsc").expect("configs/two-ports.rsc")
}

#[test]
fn rules_are_shown_with_the_bytes_and_packets_that_they_matched() {
    with(&two_ports(), |topology, filter| {
        // A knock sends one SYN per step: 20 bytes IP, 20 bytes TCP, 20 bytes of options.
        knock(topology, "1234:tcp 4321:tcp");
        eventually("both hits are decided", || listed(filter, "secured", CLIENT));
        let rules = filter.ask(&["show", "rules"]).expect("rules");
        let counter = |rule: usize| {
            let counter = &rules["rules"][rule]["counter"];
            (counter["packets"].as_u64().expect("packets"), counter["bytes"].as_u64().expect("bytes"))
        };
        assert_eq!((counter(0), counter(1)), ((1, 60), (1, 60)));
        // At the second knock the source is in `secured` already, so the third rule accepts it.
        assert_eq!(counter(2), (1, 60));
        assert_eq!(counter(3), (1, 60));
        let table = filter.knockctl(&["show", "rules", "--stats"]).expect("knockctl").stdout;
        for part in ["CHAIN", "ACTION", "BYTES", "PACKETS", "add-src-to-address-list", "accept", "drop"] {
            assert!(table.contains(part), "{part} in:\n{table}");
        }
    });
}

#[test]
fn an_export_can_be_applied() {
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

/// The plan names the source that knocked, whose packets would be dropped; the rules that run stay.
#[test]
fn a_plan_names_changes_and_makes_none() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        eventually("the source is admitted", || ping(topology, ""));
        let rules = filter.path("rules.rsc").display().to_string();
        let generation = || filter.ask(&["show", "rules"]).expect("rules")["generation"].as_u64().expect("a number");
        let before = generation();
        let same = filter.knockctl(&["plan", &rules]).expect("knockctl");
        assert!(same.ok() && same.stdout.ends_with("\nnothing would change\n"), "{same:?}");
        let file = filter.path("closed.rsc");
        fs::write(&file, "/ip firewall filter\nadd chain=input action=drop\n").expect("written");
        let plan = filter.knockctl(&["plan", &file.display().to_string()]).expect("knockctl");
        assert_eq!((plan.code, plan.stderr.as_str()), (Some(5), ""), "{plan:?}");
        // The first step may have expired, so `temporary` may be named as well.
        let source = format!(": tcp {CLIENT}:");
        let numbers = "rules: 0 added, 3 removed, 0 moved, 0 changed";
        for said in [numbers, "source in secured", &source, "  new: drop: a rule decided"] {
            assert!(plan.stdout.contains(said), "{said} in {plan:?}");
        }
        assert_eq!(generation(), before);
        assert!(ping(topology, ""));
    });
}

/// Real packets, each for one rule: an accepted port that would be closed, a closed one that would be opened, a port whose
/// rule reads the payload, and a session that is open already.
#[test]
fn a_plan_on_live_traffic_names_the_packets_whose_verdict_would_change() {
    let rules = "/ip firewall filter
add action=accept chain=input connection-state=established
add action=accept chain=input dst-port=8080 protocol=tcp
add action=accept chain=input content=open dst-port=53 protocol=udp
add action=drop chain=input
";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        serve_tcp(topology, 8080);
        let mut open = session(topology, 8080);
        let file = filter.path("new.rsc");
        let new = rules.replace("dst-port=8080", "dst-port=8081");
        fs::write(&file, new).expect("written");
        let mut plan = filter.command(&["plan", "--live", "3s", "--json"]).expect("built");
        plan.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begin = || filter.log().matches("traffic sampled by request").count();
        let samples = begin();
        let child = plan.spawn().expect("started");
        eventually("the sample begins", || begin() > samples);
        let refused = filter.knockctl(&["plan", &file.display().to_string(), "--live", "1s"]).expect("knockctl");
        assert_eq!(refused.code, Some(6), "{refused:?}");
        // A worker notices the sample within a tenth of a second.
        thread::sleep(Duration::from_millis(300));
        goes_on(&mut open);
        drop(session(topology, 8080));
        assert!(!tcp_echo(topology, 8081), "it is closed");
        for payload in [&b"open"[..], b"shut"] {
            udp_to(topology, 53).send(payload).expect("sent");
        }
        let output = child.wait_with_output().expect("ended");
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let live = &told["live"];
        let packets = |of: &str| -> Vec<String> {
            let packets = live[of].as_array().expect("packets").iter();
            packets.map(|packet| packet["packet"].as_str().expect("a packet").to_owned()).collect()
        };
        let changed = packets("changed");
        assert!(changed.iter().any(|packet| packet.contains(&format!("> {SERVER}:8080 syn"))), "{live}");
        assert!(changed.iter().any(|packet| packet.contains(&format!("> {SERVER}:8081 syn"))), "{live}");
        assert!(changed.iter().all(|packet| packet.contains(":808") && packet.contains(" syn,")), "{live}");
        let undecided = packets("undecided");
        assert_eq!(undecided.len(), 2, "{live}");
        assert!(undecided.iter().all(|packet| packet.contains(&format!("> {SERVER}:53"))), "{live}");
        assert!(live["later"].as_u64().is_some_and(|later| later > 0), "the sessions have later packets: {live}");
        assert!(!live.to_string().contains("still here"), "{live}");
    });
}

/// On a terminal, the program asks for a confirmation; without one, `--force` is required.
#[test]
fn an_apply_that_closes_the_last_way_in_asks_for_confirmation() {
    with(&two_ports(), |_, filter| {
        let generation = || filter.ask(&["show", "rules"]).expect("rules")["generation"].as_u64().expect("a number");
        let before = generation();
        let file = filter.path("closed.rsc");
        fs::write(&file, "/ip firewall filter\nadd chain=input action=drop\n").expect("written");
        let file = file.display().to_string();
        let refused = filter.knockctl(&["apply", &file]).expect("knockctl");
        assert_eq!((refused.code, generation()), (Some(5), before), "{refused:?}");
        for said in ["these rules accept nothing from outside", "src-address-list=secured", "--force"] {
            assert!(refused.stderr.contains(said), "{said} in {refused:?}");
        }
        // The answer, and a terminal that stays open until it is read.
        let answered = |answer: &str| {
            let knockctl = filter.knockctl_line(&["apply", &file]).expect("knockctl");
            let line = format!("(echo {answer}; sleep 3) | script --quiet --return --command '{knockctl}' /dev/null");
            let output = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().expect("script");
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (code, said) = answered("n");
        assert_eq!((code, generation()), (Some(5), before), "{said}");
        assert!(said.contains("Apply them? [y/N]") && said.contains("the old rules keep running"), "{said}");
        let (code, said) = answered("y");
        assert_eq!((code, generation()), (Some(0), before + 1), "{said}");
        // This apply closes no way in.
        assert!(filter.knockctl(&["apply", &file]).expect("knockctl").ok());
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
fn a_list_that_no_rule_matches_is_warned_of() {
    let door = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7001\", \"tcp/7002\"]\nopens = [\"tcp/22\"]\n";
    with(&FilterOptions { sections: door.to_owned(), ..two_ports() }, |_, filter| {
        let add =
            |list: &str| filter.knockctl(&["list", "add", list, "192.0.2.9", "--timeout", "1m"]).expect("knockctl");
        for used in ["secured", "temporary", "door-ssh"] {
            let output = add(used);
            assert!(output.ok() && output.stderr.is_empty(), "{output:?}");
        }
        let output = add("secued");
        assert!(output.ok() && output.stdout.contains("is in secued for 1m"), "it is added all the same: {output:?}");
        assert!(output.stderr.contains("warning: no rule that runs matches the list secued,"), "{output:?}");
        let file = filter.path("entries");
        fs::write(&file, "secured 192.0.2.1\nfreinds 192.0.2.2\nfreinds 192.0.2.3\n").expect("written");
        let output = filter.knockctl(&["list", "import", &file.display().to_string()]).expect("knockctl");
        assert!(output.ok() && output.stderr.matches("warning: ").count() == 1, "{output:?}");
        assert!(output.stderr.contains("the list freinds,"), "{output:?}");
    });
}

#[test]
fn only_members_of_the_sockets_group_can_use_knockctl() {
    const GROUP: u32 = 4_711;
    let mut options = two_ports();
    options.sections = format!("socket-group = {GROUP}\n");
    with(&options, |_, filter| {
        // The user may not enter the build folder.
        let knockctl = filter.path("knockctl");
        fs::copy(binary("knockctl").expect("built"), &knockctl).expect("copied");
        let status = |group: u32| {
            let mut command = Command::new(&knockctl);
            command.arg("--socket").arg(filter.path("control.sock")).args(["show", "status"]);
            run(command.uid(65_534).gid(group)).expect("started")
        };
        let member = status(GROUP);
        assert!(member.ok(), "{member:?}");
        let stranger = status(65_534);
        assert!(stranger.code == Some(4) && stranger.stderr.contains("member of the socket's group"), "{stranger:?}");
        let control = fs::metadata(filter.path("control.sock")).expect("a socket");
        assert_eq!((control.gid(), control.mode() & 0o777), (GROUP, 0o660));
        // The group has no access to the dataplane's socket.
        let dataplane = fs::metadata(filter.path("dataplane.sock")).expect("a socket");
        assert_eq!((dataplane.gid(), dataplane.mode() & 0o777), (0, 0o600));
    });
}

#[test]
fn promtool_accepts_the_metrics() {
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
fn show_prints_the_running_state() {
    with(&two_ports(), |topology, filter| {
        let status = filter.ask(&["show", "status"]).expect("status");
        let text = status.to_string();
        let dropped = |status: &serde_json::Value| {
            let drops = status["drops"].as_array().expect("drops");
            drops.iter().find(|drop| drop["reason"] == "rule").and_then(|drop| drop["frames"].as_u64()).unwrap_or(0)
        };
        let before = dropped(&status);
        knock(topology, "99:tcp");
        eventually("the drop is told", || dropped(&filter.ask(&["show", "status"]).expect("status")) > before);
        let shown = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
        assert!(shown.contains("DROPPED  REASON") && shown.lines().any(|line| line.ends_with("  rule")), "{shown}");
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

#[test]
fn a_full_table_of_connections_is_logged_shown_and_warned_of() {
    // At most 32 connections, and 60 sessions through a door.
    let sections = "[[door]]\nname = \"echo\"\nknock = [\"udp/7001\"]\nopens = [\"tcp/8080\"]\n".to_owned();
    let dataplane = "connection-capacity = 16".to_owned();
    let rules = "/ip firewall filter\n";
    with(&FilterOptions { sections, dataplane, ..FilterOptions::from_rules(rules) }, |topology, filter| {
        serve_tcp(topology, 8080);
        knock(topology, "7001:udp");
        eventually("the door opens", || listed(filter, "door-echo", CLIENT));
        let first = session(topology, 8080);
        let shown = |more: &[&str]| filter.ask(&[&["show", "connections"], more].concat()).expect("connections");
        eventually("it is counted", || shown(&[])["table"]["known"] == 1);
        let alone = shown(&["--source", CLIENT]);
        let (port, row) = (first.local_addr().expect("an address").port(), &alone["connections"][0]);
        assert_eq!((&row["source"], &row["source_port"]), (&CLIENT.into(), &port.into()));
        assert_eq!((&row["destination"], &row["destination_port"]), (&SERVER.into(), &8080.into()));
        assert_eq!(
            (&row["side"], &row["tcp_state"], &row["door"]),
            (&"outside".into(), &"established".into(), &"echo".into())
        );
        assert!(row["grant_left_seconds"].as_f64().is_some_and(|left| left > 3_000.0), "{row}");
        assert_eq!(shown(&["--source", SERVER])["connections"].as_array().map(Vec::len), Some(0));
        assert_eq!(filter.http("/readyz").expect("ready"), "ready\n");

        let sessions: Vec<_> = (0..60).map(|_| session(topology, 8080)).collect();
        eventually("the warning", || !shown(&[])["table"]["warning"].is_null());
        let full = shown(&["--limit", "5"]);
        assert!(full["table"]["refused_packets"].as_u64().is_some_and(|packets| packets >= 29), "{full}");
        assert_eq!((full["connections"].as_array().map(Vec::len), &full["truncated"]), (Some(5), &true.into()));
        assert!(shown(&[])["connections"].as_array().is_some_and(|all| all.len() <= 32), "{full}");
        assert!(filter.http("/readyz").expect("ready").starts_with("ready\nwarning: the table of connections is full"));
        let status = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
        assert!(status.contains("room for 16; ") && status.contains("\nwarning     the table of"), "{status}");
        let said = |log: &str| log.matches("the table of connections is full").count();
        eventually("the log says so", || said(&filter.log()) >= 1);
        assert!(said(&filter.log()) <= 3, "not for each packet");
        drop(sessions);
    });
}
