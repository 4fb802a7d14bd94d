//! `knockctl trace`: live packets with the rules that they met, on real interfaces.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use knockplane_tests::{Filter, FilterOptions, Output, SERVER, run};
use serde_json::Value;

use crate::fast_path::{self, carried, control, fast_path, receiver, send, with_fast_path};
use crate::json;
use crate::scenario::{CLIENT, QUICK, eventually, knock, listed, udp_to, with, with_queues};
use crate::strangers::{CLOSED, Forger, SOURCE, amid_strangers, dropped};

/// A running `knockctl trace`.
struct Trace {
    knockctl: Child,
    messages: BufReader<ChildStderr>,
}

impl Trace {
    /// Starts a trace, and waits until it shows packets.
    fn begin(filter: &Filter<'_>, arguments: &[&str]) -> Trace {
        let mut knockctl = filter
            .command(arguments)
            .expect("it is built")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("knockctl starts");
        let mut messages = BufReader::new(knockctl.stderr.take().expect("a pipe"));
        let mut first = String::new();
        messages.read_line(&mut first).expect("a message");
        assert!(first.contains("tracing for"), "{first}");
        Trace { knockctl, messages }
    }

    /// Waits for the end. Returns the output and the last messages.
    fn end(mut self) -> (String, String) {
        let output = self.knockctl.wait_with_output().expect("it ends");
        let mut last = String::new();
        self.messages.read_to_string(&mut last).expect("messages");
        assert!(output.status.success(), "{output:?}: {last}");
        (String::from_utf8(output.stdout).expect("text"), last)
    }

    /// Waits for the end of a trace with `--json`. Returns its packets.
    fn packets(self) -> Vec<Value> {
        let (lines, _) = self.end();
        let of_schema = |line: &str| Output { code: Some(0), stdout: line.to_owned(), stderr: String::new() };
        lines.lines().take(3).for_each(|line| _ = json::document("trace", &of_schema(line)));
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON in each line")).collect()
    }
}

/// The outcomes of the rules that a packet met, each with its reason.
fn outcomes(packet: &Value) -> Vec<String> {
    let outcome = |rule: &Value| {
        let because = rule["because"].as_str().map(|because| format!(": {because}"));
        format!("{}{}", rule["outcome"].as_str().expect("an outcome"), because.unwrap_or_default())
    };
    packet["rules"].as_array().expect("rules").iter().map(outcome).collect()
}

#[test]
fn a_dropped_packet_names_the_rules_that_it_met() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let trace = Trace::begin(filter, &["--json", "trace", "src", CLIENT, "dst-port", "4321", "--count", "2"]);
        knock(topology, "1234:tcp");
        knock(topology, "4321:tcp");
        eventually("the knock counts", || listed(filter, "secured", CLIENT));
        // The second packet is let in; the filter is not about its port.
        udp_to(topology, 9).send(b"hello").expect("sent");
        let udp = udp_to(topology, 4321);
        udp.send(b"hello").expect("sent");
        let packets = trace.packets();
        let [first, second] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!((&first["verdict"], &first["reason"]), (&"forward".into(), &"rule".into()));
        let met = outcomes(first);
        assert_eq!(met.len(), 3, "{first}");
        assert_eq!(met[0], "missed: dst-port=1234, but dst-port is 4321");
        assert_eq!(met[1], format!("matched: added {CLIENT} to secured for 3s"));
        assert_eq!(first["source_lists"], serde_json::json!(["temporary"]), "before the packet");
        assert_eq!(second["packet"].as_str().map(|packet| packet.starts_with("udp ")), Some(true), "{second}");

        let trace =
            Trace::begin(filter, &["trace", "src", CLIENT, "and", "dst-port", "9", "--dropped", "--count", "1"]);
        eventually("the grant ends", || !listed(filter, "secured", CLIENT));
        udp_to(topology, 9).send(b"hello").expect("sent");
        let (text, last) = trace.end();
        // The cells of a table can have several lines.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "packet 1, ",
            "bytes udp ",
            "missed: protocol=tcp, but protocol is udp",
            &format!("missed: src-address-list=secured, but {CLIENT} is not in secured"),
            "drop: a rule decided, ip filter 3",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(last.contains("1 packet"), "{last}");
    });
}

#[test]
fn a_traced_flow_leaves_the_kernel_and_returns_to_it() {
    with_fast_path(&FilterOptions::from_rules(fast_path::RULES), |topology, filter| {
        let filter: &Filter<'_> = filter;
        let (sender, receiver) = (udp_to(topology, fast_path::PORT), receiver(topology));
        control(filter, &["list", "add", "secured", CLIENT]);
        let is_carried = || {
            let before = carried(filter);
            assert_eq!(send(&sender, &receiver, 2), 200);
            carried(filter) > before + 50
        };
        assert!(is_carried());
        let port = sender.local_addr().expect("an address").port().to_string();
        let trace = Trace::begin(
            filter,
            &["--json", "trace", "src-port", &port, "verdict", "forward", "--rate", "2000", "--count", "300"],
        );
        assert_eq!(fast_path(filter)["traced"], true);
        assert_eq!(filter.metric("knockplane_fast_path_traced", &[]).expect("a gauge"), 1.0);
        let before = carried(filter);
        assert_eq!(send(&sender, &receiver, 2), 200);
        assert_eq!(carried(filter), before, "the kernel carries none of its packets");
        let other = udp_to(topology, fast_path::PORT);
        assert_eq!(send(&other, &receiver, 2), 200);
        assert!(carried(filter) > before + 50, "it carries another flow meanwhile");
        assert_eq!(send(&sender, &receiver, 1), 100);
        let packets = trace.packets();
        assert_eq!(packets.len(), 300);
        let ports = format!("udp {CLIENT}:{port} > {SERVER}:{}, 38 bytes", fast_path::PORT);
        assert!(packets.iter().all(|packet| packet["packet"] == ports.as_str()), "{}", packets[0]);
        assert!(packets.iter().all(|packet| packet["rules"][0]["comment"] == "granted"), "{}", packets[0]);
        eventually("the trace ends", || fast_path(filter)["traced"] == false);
        eventually("the kernel carries the flow again", is_carried);
    });
}

#[test]
fn one_trace_runs_at_a_time_and_ends_with_its_client() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let mut first = Trace::begin(filter, &["trace", "--for", "1h"]);
        let second = filter.knockctl(&["trace", "--for", "1s"]).expect("knockctl runs");
        assert_eq!(second.code, Some(6), "{second:?}");
        assert!(second.stderr.contains("another trace runs"), "{second:?}");
        first.knockctl.kill().expect("killed");
        first.knockctl.wait().expect("it has ended");
        eventually("the trace ends", || filter.knockctl(&["trace", "--for", "1s"]).expect("knockctl runs").ok());
        eventually("no trace is left", || fast_path(filter)["traced"] == false);
        // It ends by a signal as well.
        let third = Trace::begin(filter, &["--json", "trace", "dst-port", "9", "--for", "1h"]);
        udp_to(topology, 9).send(b"hello").expect("sent");
        thread::sleep(std::time::Duration::from_millis(500));
        run(Command::new("kill").args(["-INT", &third.knockctl.id().to_string()])).expect("a signal");
        assert_eq!(third.packets().len(), 1);
    });
}

#[test]
fn a_trace_ends_at_its_count_and_its_time_and_a_wrong_filter_is_explained() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let udp = udp_to(topology, 9);
        let trace = Trace::begin(filter, &["--json", "trace", "dst-port", "9", "--count", "2"]);
        (0..5).for_each(|_| _ = udp.send(b"hello").expect("sent"));
        assert_eq!(trace.packets().len(), 2);
        let trace = Trace::begin(filter, &["--json", "trace", "dst-port", "9", "--for", "1s", "--rate", "3"]);
        (0..5).for_each(|_| _ = udp.send(b"hello").expect("sent"));
        let (lines, last) = trace.end();
        let shown = lines.lines().count();
        // The packets can arrive in two seconds, each with its rate.
        assert!((3..=5).contains(&shown), "{lines}");
        let more = format!("{} more fitted", 5 - shown);
        assert!(shown == 5 || last.contains(&more), "{last}");
        for (wrong, parts) in [
            ("port 9", ["`port` is no word of a filter; the words are src, dst, src-port", "\n  ^^^^\n"]),
            (
                "dst-port 9 src nowhere",
                ["`nowhere` is no value of `src`: write addresses", "\n                 ^^^^^^^\n"],
            ),
        ] {
            let output = filter.knockctl(&["trace", wrong]).expect("knockctl runs");
            assert_eq!(output.code, Some(2), "{output:?}");
            let plain = output.stderr.replace("knockctl: ", "");
            assert!(parts.iter().all(|part| plain.contains(part)), "{}", output.stderr);
        }
        for wrong in [["--for", "2h"], ["--rate", "0"], ["--count", "0"]] {
            let output = filter.knockctl(&[&["trace"], &wrong[..]].concat()).expect("knockctl runs");
            assert_eq!(output.code, Some(2), "{output:?}");
        }
    });
}

#[test]
fn in_a_flood_all_packets_that_fit_are_shown() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let filter: &Filter<'_> = filter;
        let forger = Forger::new(topology);
        amid_strangers(topology, || {
            eventually("the kernel drops", || dropped(filter) > 10_000);
            let source = SOURCE.to_string();
            let trace = Trace::begin(
                filter,
                &["--json", "trace", "--dropped", "src", &source, "--rate", "2000", "--count", "300"],
            );
            for _ in 0..30 {
                (0..10).for_each(|_| forger.udp(SOURCE, CLOSED));
                thread::sleep(std::time::Duration::from_millis(5));
            }
            let packets = trace.packets();
            assert_eq!(packets.len(), 300);
            assert!(packets.iter().all(|packet| packet["reason"] == "rule"), "{}", packets[0]);
            // The kernel still drops the others.
            let before = dropped(filter);
            eventually("the kernel drops others", || dropped(filter) > before + 1_000);
        });
    });
}

#[test]
fn a_trace_without_a_source_shows_strangers_that_the_kernel_would_drop() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let filter: &Filter<'_> = filter;
        amid_strangers(topology, || {
            eventually("the kernel drops", || dropped(filter) > 10_000);
            let trace = Trace::begin(filter, &["--json", "trace", "dst-port", &CLOSED.to_string(), "--for", "2s"]);
            let before = dropped(filter);
            let (lines, last) = trace.end();
            assert!(lines.lines().count() >= 100 && last.contains("more fitted"), "{last}");
            // Frames between the last look and the end of the trace.
            let after = dropped(filter);
            assert!(after < before + 500_000, "{before} {after}");
            eventually("the kernel drops again", || dropped(filter) > after + 10_000);
        });
    });
}

#[test]
fn packets_of_all_queues_and_frames_without_rules_are_shown() {
    with_queues(2, &FilterOptions::from_rules(QUICK), |topology, filter| {
        let trace = Trace::begin(filter, &["--json", "trace", "dst-port", "9", "--count", "40"]);
        // Open sockets have different ports.
        let sockets: Vec<_> = (0..40).map(|_| udp_to(topology, 9)).collect();
        sockets.iter().for_each(|socket| _ = socket.send(b"hello").expect("sent"));
        let packets = trace.packets();
        let sources: HashSet<_> = packets.iter().map(|packet| packet["packet"].to_string()).collect();
        assert_eq!((packets.len(), sources.len()), (40, 40), "{packets:?}");
        assert!(packets.is_sorted_by_key(|packet| packet["number"].as_u64()), "{packets:?}");

        let trace = Trace::begin(filter, &["trace", "reason", "arp", "side", "outside", "--count", "1"]);
        topology.client.run("ip neighbour flush all").expect("the command can be run");
        udp_to(topology, 9).send(b"hello").expect("sent");
        let (text, _) = trace.end();
        assert!(text.contains("a frame that rules cannot see, from outside"), "{text}");
        assert!(text.contains("forward: ARP, decided by its frame class"), "{text}");
    });
}

#[test]
fn an_accepted_packet_that_does_not_leave_is_shown_as_dropped() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let filter: &Filter<'_> = filter;
        control(filter, &["list", "add", "secured", CLIENT]);
        let (udp, receiver) = (udp_to(topology, fast_path::PORT), receiver(topology));
        let port = fast_path::PORT.to_string();
        let trace = Trace::begin(filter, &["--json", "trace", "dst-port", &port, "--dropped", "--count", "1"]);
        udp.send(b"this leaves").expect("sent");
        receiver.recv(&mut [0; 16]).expect("arrived");
        topology.server.ip("link set eth0 down").expect("down");
        eventually("the link is down", || filter.http("/readyz").is_err());
        // The client has the address of the server, which does not answer any more.
        udp.send(b"this does not").expect("sent");
        let packets = trace.packets();
        assert_eq!(
            (packets.len(), &packets[0]["reason"], &packets[0]["verdict"]),
            (1, &"link-down".into(), &"drop".into())
        );
        assert_eq!(outcomes(&packets[0])[2], "matched", "the rule that accepted: {}", packets[0]);
    });
}

#[test]
fn a_capture_of_a_trace_has_frames_and_comments() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let file = filter.path("trace.pcapng");
        let name = file.to_str().expect("a name");
        let trace = Trace::begin(filter, &["--json", "trace", "dst-port", "9", "--count", "2", "--write", name]);
        let udp = udp_to(topology, 9);
        udp.send(b"hello").expect("sent");
        udp.send(&[7; 1_000]).expect("sent");
        assert_eq!(trace.packets().len(), 2);
        let read = run(Command::new("tcpdump").args(["-n", "-v", "-r", name])).expect("tcpdump is installed");
        assert!(read.ok(), "{read:?}");
        assert!(read.stdout.contains(&format!("> {SERVER}.9: ")), "{read:?}");
        let lengths = ["UDP, length 5", "UDP, length 1000"];
        assert!(lengths.iter().all(|length| read.stdout.contains(length)), "{read:?}");
        let bytes = fs::read(&file).expect("the file");
        let comment = b"drop: a rule decided, ip filter 3";
        assert_eq!(bytes.windows(comment.len()).filter(|part| part == comment).count(), 2);
        // The filter's own reader reads whole packets only.
        let rules = filter.path("rules.rsc");
        let explain = ["explain", "--rules", rules.to_str().expect("a name"), "--pcap", name];
        let explained = filter.knockctl(&explain).expect("knockctl runs");
        assert!(explained.stdout.contains("packet 1, ") && explained.stderr.contains("packet 2"), "{explained:?}");
    });
}

#[test]
fn a_knock_at_a_door_is_shown_step_by_step() {
    const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080"]
for = "30s"
"#;
    let options = FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") };
    with(&options, |topology, filter| {
        let trace = Trace::begin(
            filter,
            &["--json", "trace", "src", CLIENT, "dst-port", "7000,4321,1234,99", "side", "outside", "--count", "5"],
        );
        knock(topology, "7000:tcp 99:udp 7000:tcp 4321:udp 1234:tcp");
        let packets = trace.packets();
        let at_door = |packet: &Value| {
            let rules = packet["rules"].as_array().expect("rules");
            let knocks =
                rules.iter().filter(|rule| rule["action"].as_str().is_some_and(|action| action.contains("knock")));
            knocks.filter_map(|rule| rule["because"].as_str().map(str::to_owned)).collect::<Vec<_>>().join(", ")
        };
        let told: Vec<_> = packets.iter().map(at_door).collect();
        assert_eq!(
            told,
            [
                "step 1 of door echo",
                "a failed step of door echo: started-over",
                "step 1 of door echo",
                "step 2 of door echo",
                "door echo opened for 30s"
            ],
            "{packets:?}"
        );
        assert!(packets.iter().all(|packet| packet["verdict"] == "drop"), "{packets:?}");
    });
}

#[test]
fn a_replaced_rule_set_is_explained_by_its_own_rules() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let trace = Trace::begin(filter, &["--json", "trace", "dst-port", "9", "--count", "2"]);
        let udp = udp_to(topology, 9);
        udp.send(b"hello").expect("sent");
        let file = filter.path("other.rsc");
        fs::write(&file, "/ip firewall filter\nadd chain=input action=drop comment=other\n").expect("written");
        thread::sleep(std::time::Duration::from_millis(500));
        control(filter, &["apply", "--force", file.to_str().expect("a name")]);
        udp.send(b"hello").expect("sent");
        let packets = trace.packets();
        assert_eq!((outcomes(&packets[0]).len(), outcomes(&packets[1]).len()), (4, 1), "{packets:?}");
        assert_eq!(packets[1]["rules"][0]["comment"], "other");
        assert_ne!(packets[0]["generation"], packets[1]["generation"]);
    });
}
