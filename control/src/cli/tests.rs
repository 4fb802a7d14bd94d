use std::path::Path;

use clap::CommandFactory;
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::{self, DataplaneStatus};

use super::capture::sample;
use super::*;
use crate::api::messages::{Applied, Apply};
use crate::json::schema::assert_valid;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
    let cli = Cli::try_parse_from(["knockctl", "show", "lists", "trusted", "--limit", "5", "--json"]).unwrap();
    assert!(cli.json && cli.socket == Path::new(DEFAULT_SOCKET));
}

#[test]
fn a_bad_timeout_is_wrong_usage() {
    let parse = |timeout| Cli::try_parse_from(["knockctl", "list", "add", "a", "192.0.2.1", "--timeout", timeout]);
    assert!(parse("10m").is_ok() && parse("1d00:00:00").is_ok());
    assert_eq!(parse("soon").unwrap_err().exit_code(), 2);
}

#[test]
fn troubles_become_exit_codes() {
    let refused = |status| Failed::from(ControlError::Refused(status, ErrorMessage::default())).exit;
    assert_eq!(Failed::from(ControlError::Unreachable(ErrorMessage::default())).exit, Exit::Unreachable);
    assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE), Exit::Unreachable);
    assert_eq!(refused(StatusCode::UNPROCESSABLE_ENTITY), Exit::Runtime);
    assert_eq!(refused(StatusCode::CONFLICT), Exit::Conflict);
}

/// Standard output, or the error, of a command that needs no daemon.
pub(super) fn knockctl(arguments: &[&str]) -> Result<String, Failed> {
    let cli = Cli::try_parse_from(["knockctl", "--socket", "/nonexistent"].iter().chain(arguments)).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(cli))
}

pub(super) fn config(name: &str) -> String {
    format!("{}/../configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file in a temporary folder.
pub(super) struct Kept(tempfile::TempDir);

impl Kept {
    pub(super) fn new(content: &[u8]) -> Kept {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), content).unwrap();
        Kept(dir)
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// The frame of a packet, as a record: seconds, fraction, bytes.
pub(super) fn frame(text: &str) -> Vec<u8> {
    crate::packet::describe(text).unwrap().frame
}

/// The knocks of `two-ports.rsc`, with ARP, an answer from inside, and a packet after the door has closed.
pub(super) fn knocks() -> Vec<(u32, u32, Vec<u8>)> {
    let mac = [2, 0, 0, 0, 0, 1];
    let (request, ends) = ([0, 1, 8, 0, 6, 4, 0, 1], [198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 203, 0, 113, 5]);
    let arp = [&[0xff; 6][..], &mac, &[0x08, 0x06], &request, &mac, &ends].concat();
    let at = |seconds: u32, text: &str| (1_700_000_000 + seconds, 7, frame(text));
    vec![
        (1_700_000_000, 1, arp),
        at(1, "tcp 198.51.100.7:4000 > 203.0.113.5:1234"),
        at(2, "tcp 198.51.100.7:4001 > 203.0.113.5:4321"),
        at(3, "tcp 198.51.100.7:4002 > 203.0.113.5:22"),
        at(3, "tcp 203.0.113.5:22 > 198.51.100.7:4002 syn ack"),
        at(20, "tcp 192.0.2.1:4002 > 203.0.113.5:22"),
    ]
}

pub(super) fn borrowed(packets: &[(u32, u32, Vec<u8>)]) -> Vec<(u32, u32, &[u8])> {
    packets.iter().map(|(seconds, fraction, frame)| (*seconds, *fraction, &frame[..])).collect()
}

#[test]
fn an_explanation_tells_every_rule() {
    let rules = config("two-ports.rsc");
    let explain =
        |packet, more: &[&str]| knockctl(&[&["explain", packet, "--rules", &rules][..], more].concat()).unwrap();
    insta::assert_snapshot!("explain_closed", explain("tcp 198.51.100.7:4000 > 203.0.113.5:22 syn", &[]));
    let listed = ["--in-list", "temporary=198.51.100.7,5s"];
    insta::assert_snapshot!("explain_second_knock", explain("tcp 198.51.100.7 > 203.0.113.5:4321", &listed));
    let inside = ["--from", "inside"];
    insta::assert_snapshot!("explain_inside", explain("udp 203.0.113.5:53 > 198.51.100.7:4000", &inside));
    let json = explain("tcp 198.51.100.7 > 203.0.113.5:4321", &["--json", listed[0], listed[1]]);
    assert_valid("explain", &json);
    insta::assert_snapshot!("explain_json", json);
}

#[test]
fn chains_are_indented_and_comments_told() {
    let rules = Kept::new(
        b"/ip firewall filter\n\
          add chain=input protocol=udp action=jump jump-target=knock comment=\"the knocks\"\n\
          add chain=input action=accept disabled=yes\n\
          add chain=knock dst-port=1 protocol=udp action=drop\n\
          add chain=knock action=return\n\
          /ipv6 firewall filter\nadd chain=input action=accept\n",
    );
    let packet = "udp 198.51.100.7 > 203.0.113.5:2 in outside";
    insta::assert_snapshot!(knockctl(&["explain", packet, "--rules", &rules.path("file")]).unwrap());
}

#[test]
fn what_the_command_line_says_must_make_sense() {
    let rules = config("two-ports.rsc");
    let packet = "tcp 198.51.100.7 > 203.0.113.5:22";
    let exit = |arguments: &[&str]| knockctl(arguments).unwrap_err();
    let failed = exit(&["explain", "tcp 198.51.100.7 > 203.0.113.5:22 snyc", "--rules", &rules]);
    assert!(failed.exit == Exit::Usage && failed.message.ends_with("^^^^"), "{failed:?}");
    let failed = exit(&["explain", &format!("{packet} in outside"), "--from", "inside", "--rules", &rules]);
    assert_eq!(failed.exit, Exit::Usage, "{failed:?}");
    let failed = exit(&["explain", &format!("{packet} in ether7"), "--rules", &rules]);
    assert!(failed.exit == Exit::Usage && failed.message.contains("[policy.interfaces]"), "{failed:?}");
    assert_eq!(exit(&["explain", packet]).exit, Exit::Unreachable);
    assert_eq!(exit(&["explain", packet, "--rules", "/nonexistent.rsc"]).exit, Exit::Invalid);
    let bad = Kept::new(b"/ip firewall filter\nadd chain=input dst-port=X action=drop\n");
    assert_eq!(exit(&["replay", "--rules", &bad.path("file"), "--pcap", "/x"]).exit, Exit::Invalid);
    assert_eq!(exit(&["replay", "--rules", &rules, "--pcap", "/nonexistent.pcap"]).exit, Exit::Runtime);
    for arguments in [&["explain"][..], &["explain", packet, "--pcap", "x"], &["replay"], &["test"]] {
        let parsed = Cli::try_parse_from([&["knockctl"][..], arguments].concat());
        assert_eq!(parsed.unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn a_capture_is_replayed_by_its_own_clock() {
    let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&knocks())));
    let rules = config("two-ports.rsc");
    let replay = |more: &[&str]| {
        let file = capture.path("file");
        knockctl(&[&["replay", "--rules", &rules, "--pcap", &file][..], more].concat()).unwrap()
    };
    insta::assert_snapshot!("replay", replay(&["--inside", "203.0.113.0/24"]));
    let json = replay(&["--json", "--inside", "203.0.113.0/24"]);
    assert_valid("replay", &json);
    insta::assert_snapshot!("replay_json", json);
    // Without an option for it, all packets come from outside.
    assert!(replay(&["--summary"]).ends_with("6 packets: 3 forwarded, 3 dropped\n"), "{}", replay(&[]));
    let all = ["--in-list", "secured=192.0.2.1", "--summary", "--inside", "203.0.113.0/24"];
    assert!(replay(&all).ends_with("6 packets: 5 forwarded, 1 dropped\n"), "{}", replay(&all));
}

#[test]
fn frames_of_a_class_are_replayed_with_their_settings() {
    let (_, _, arp) = knocks().swap_remove(0);
    let padded = [&arp[..], b"a message inwards!"].concat();
    let hop_limit = frame("icmpv6 135 fe80::7 > 2001:db8::5");
    let capture = [arp.clone(), arp.clone(), arp, padded, hop_limit];
    let capture: Vec<_> = (0..).zip(capture).map(|(fraction, frame)| (1_700_000_000, fraction, frame)).collect();
    let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&capture)));
    let dataplane = "[dataplane]\noutside = \"a\"\ninside = \"b\"\nrules = \"r\"\n";
    let reasons = |settings: &str| -> Vec<String> {
        let kept = Kept::new(format!("{dataplane}{settings}").as_bytes());
        let (file, settings) = (capture.path("file"), kept.path("file"));
        let rules = config("two-ports.rsc");
        let text = knockctl(&["--json", "replay", "--rules", &rules, "--config", &settings, "--pcap", &file]).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let packets = report["packets"].as_array().unwrap();
        packets.iter().map(|packet| format!("{} {}", packet["verdict"], packet["reason"]).replace('"', "")).collect()
    };
    let malformed = ["drop arp-malformed", "drop neighbour-discovery-malformed"];
    assert_eq!(reasons(""), [["forward arp"; 3].as_slice(), &malformed].concat());
    let limited = reasons("[policy.frames]\nrate = 2\n");
    assert_eq!(limited[..3], ["forward arp", "forward arp", "drop frame-class-rate"]);
    let claims = reasons("[policy]\nprotect = [\"198.51.100.0/24\"]\n");
    assert_eq!(claims[..3], ["drop arp-claim"; 3]);
}

#[test]
fn what_is_forwarded_is_the_capture_byte_for_byte_without_the_rest() {
    let rules = config("two-ports.rsc");
    let open = Kept::new(b"/ip firewall filter\nadd chain=input action=accept\n");
    for (big_endian, nanoseconds) in [(false, false), (false, true), (true, false), (true, true)] {
        let pcap = |packets: &[_]| sample::pcap(big_endian, nanoseconds, 1, &borrowed(packets));
        let whole = knocks();
        let capture = Kept::new(&pcap(&whole));
        let (file, out) = (capture.path("file"), capture.path("out"));
        let replay = |rules: &str| {
            knockctl(&["replay", "--rules", rules, "--pcap", &file, "--forwarded", &out]).unwrap();
            std::fs::read(&out).unwrap()
        };
        assert_eq!(replay(&open.path("file")), pcap(&whole), "all of it");
        let passed = [&whole[..1], &whole[2..4]].concat();
        assert_eq!(replay(&rules), pcap(&passed), "ARP, the second knock, and what comes after it");
    }
}

#[test]
fn pcapng_tells_sides_by_interfaces_and_keeps_what_is_no_packet() {
    let (out, back) = (frame("tcp 198.51.100.7 > 203.0.113.5:22"), frame("udp 203.0.113.5:53 > 198.51.100.7:9"));
    let head = [sample::section(), sample::interface("wan", 9), sample::interface("lan", 6)].concat();
    let [first, second] = [(0, &out), (1, &back)].map(|(interface, frame)| {
        sample::packet(
            interface,
            1_700_000_000_000_000 * (1 + 999 * (1 - u64::from(interface))),
            frame,
            frame.len() as u32,
        )
    });
    let note = sample::block(0x0bad, b"note");
    let capture = Kept::new(&[&head[..], &first, &note, &second].concat());
    let (rules, file, written) = (config("two-ports.rsc"), capture.path("file"), capture.path("out"));
    let arguments = ["replay", "--rules", &rules, "--pcap", &file, "--forwarded", &written, "--inside"];
    let text = knockctl(&[&arguments[..], &["lan"]].concat()).unwrap();
    assert!(text.contains("inside   forward  chain-default"), "{text}");
    assert_eq!(std::fs::read(&written).unwrap(), [head, note, second].concat());
    let failed = knockctl(&[&arguments[..], &["eth9"]].concat()).unwrap_err();
    assert!(failed.exit == Exit::Usage && failed.message.contains("has wan, lan"), "{failed:?}");
}

#[test]
fn a_broken_capture_is_told_up_to_the_packet_that_is() {
    let mut bytes = sample::pcap(false, false, 1, &borrowed(&knocks()));
    bytes.truncate(bytes.len() - 1);
    let capture = Kept::new(&bytes);
    let rules = config("two-ports.rsc");
    for command in ["replay", "explain"] {
        let failed = knockctl(&[command, "--rules", &rules, "--pcap", &capture.path("file")]).unwrap_err();
        assert_eq!(failed.exit, Exit::Runtime);
        assert!(failed.message.ends_with("file: packet 6: the file ends in the middle of it"), "{}", failed.message);
        assert!(failed.output.contains("tcp 198.51.100.7:4002"), "{}", failed.output);
        let json = knockctl(&[command, "--rules", &rules, "--pcap", &capture.path("file"), "--json"]).unwrap_err();
        assert_valid(if command == "replay" { "replay" } else { "explain-pcap" }, &json.output);
        assert!(json.output.contains("\"code\": \"failed\"") && json.output.contains("198.51.100.7:4002"));
    }
    let file = capture.path("file");
    std::fs::write(&file, sample::pcap(false, false, 1, &[])).unwrap();
    let failed = knockctl(&["replay", "--rules", &rules, "--pcap", &file, "--forwarded", &file]).unwrap_err();
    assert_eq!(failed.exit, Exit::Usage);
}

#[test]
fn a_capture_is_explained_packet_by_packet() {
    let capture = Kept::new(&sample::pcap(true, true, 1, &borrowed(&knocks()[..3])));
    let rules = config("two-ports.rsc");
    let explain = ["explain", "--rules", &rules, "--pcap", &capture.path("file")];
    insta::assert_snapshot!(knockctl(&explain).unwrap());
    assert_valid("explain-pcap", &knockctl(&[&explain[..], &["--json"]].concat()).unwrap());
}

/// Rules in which every part is long: names, comments, matchers, prefixes of logs.
fn long_rules() -> Vec<u8> {
    let mut text = "/ip firewall layer7-protocol\nadd name=pattern regexp=\"^knock (one|two|three|four)\"\n\
        /ip firewall filter\n"
        .to_owned();
    for number in 0..60_usize {
        let list = "name-of-a-list-".repeat(1 + number % 5);
        let comment = "a comment with words ".repeat(number % 9);
        let content = "x".repeat(number * 2);
        let matcher = match number % 6 {
            0 => format!("src-address-list=\"{list}\" dst-address=203.0.113.0-203.0.113.255"),
            1 => {
                "protocol=tcp dst-port=22,80,443,1000-2000,3000-4000,5000-6000 tcp-flags=syn,!ack,!rst,!fin".to_owned()
            }
            2 => format!("protocol=udp content=\"{content} {content}\""),
            3 => "layer7-protocol=pattern connection-state=established,related,new".to_owned(),
            4 => format!("dst-limit=5,10,src-and-dst-addresses/1m protocol=tcp log=yes log-prefix=\"words of {list}\""),
            _ => "protocol=tcp psd=21,3s,3,1 packet-size=0-1500".to_owned(),
        };
        let action = match number % 4 {
            0 => format!("add-src-to-address-list address-list=\"{list}\" address-list-timeout=1w2d3h4m5s"),
            1 => "passthrough".to_owned(),
            2 => "log".to_owned(),
            _ => format!("jump jump-target=\"{list}\""),
        };
        text += &format!("add chain=input {matcher} action={action} comment=\"{comment}\"\n");
        text += &format!("add chain=\"{list}\" action=return comment=\"{comment}\"\n");
    }
    text.into_bytes()
}

/// Fails if a line is too long and has a word after its indentation that could be moved to the next line.
fn assert_fits(text: &str) {
    use unicode_width::UnicodeWidthStr as _;

    for line in text.lines() {
        let longest = line.split_whitespace().map(|word| word.width()).max().unwrap_or_default();
        assert!(line.width() <= 100 || longest > 90, "{} columns: {line}", line.width());
    }
}

#[test]
fn nothing_is_wider_than_a_terminal() {
    let rules = Kept::new(&long_rules());
    let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&knocks())));
    let (rules, capture) = (rules.path("file"), capture.path("file"));
    for packet in [
        "tcp 198.51.100.7 > 203.0.113.5:22",
        "udp 2001:db8:1111:2222:3333:4444:5555:6666 > 2001:db8:1111:2222:3333:4444:5555:7777:4321 payload \"knock one\"",
        "tcp [2001:db8:1111:2222:3333:4444:5555:6666]:49152 > [2001:db8:1111:2222:3333:4444:5555:7777]:22 syn ack urg psh",
    ] {
        if let Ok(text) = knockctl(&["explain", packet, "--rules", &rules]) {
            assert_fits(&text);
        }
    }
    let text = knockctl(&["explain", "tcp 198.51.100.7 > 203.0.113.5:22", "--rules", &rules]).unwrap();
    assert!(text.lines().count() > 100, "{text}");
    assert_fits(&knockctl(&["explain", "--pcap", &capture, "--rules", &rules]).unwrap());
    assert_fits(&knockctl(&["replay", "--pcap", &capture, "--rules", &rules]).unwrap());

    let reading = knockplane_policy::rsc::read(&long_rules());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    let mut running = crate::sample::rules();
    running.counters = vec![crate::sample::rules().counters[1]; reading.rules.rules.len()];
    running.rules = reading.rules;
    let mut overview = crate::sample::overview();
    for interface in &mut overview.dataplane.interfaces {
        interface.copy_reason = Some("a reason with words ".repeat(12));
        let drift = knockplane_policy::wire::Drift {
            kind: knockplane_policy::wire::DriftKind::Mtu,
            problem: "a problem with words ".repeat(12),
        };
        interface.drift.push(drift);
        interface.counters.rx_packets = u64::MAX;
        interface.counters.rx_errors = u64::MAX;
        interface.counters.rx_dropped = u64::MAX;
        interface.counters.tx_dropped = u64::MAX;
    }
    overview.dataplane.settings.protect = (0..40).map(|n| format!("192.0.{n}.0/24").parse().unwrap()).collect();
    overview.dataplane.rules_source = "/etc/knockplane/a folder with words/".repeat(6);
    let status = overview.dataplane.clone();
    let mut lists = crate::sample::lists();
    lists.entries[0].comment = "a comment with words ".repeat(12);
    lists.lists[0].summary.evicted = u64::MAX;
    let mut doors = crate::sample::doors();
    doors.doors[0].steps = vec![1_000_000; 16];
    doors.doors[0].door = "d".repeat(32);
    let mut tracked = crate::sample::tracked();
    tracked.truncated = true;
    for connection in &mut tracked.connections {
        connection.door = Some("d".repeat(32));
        connection.source.0 = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        connection.destination.0 = "2001:db8:1111:2222:3333:4444:5555:7777".parse().unwrap();
    }
    overview.dataplane.connections = tracked.table;
    overview.dataplane.offload.checksums = [u64::MAX; 2];
    overview.dataplane.offload.last = Some(Duration::from_secs(1));
    for text in [
        print::rules(&running, &crate::sample::history(), &status, 100),
        print::stats(&running, &crate::sample::history(), &status),
        show::status(&overview, Err("a reason with words ".repeat(12))),
        show::lists(&lists, None),
        doors::doors(&doors),
        connections::text(&tracked),
    ] {
        assert_fits(&text);
    }
}

#[test]
fn lists_can_come_from_what_show_lists_printed() {
    let lists = Kept::new(
        br#"{"version":1,"lists":[],"names":[],"entries":[{"list":"secured","address":"198.51.100.7","to":null,"steps":null,
            "time_left_seconds":9,"dynamic":true,"of_rules":false,"line":null,"name":null,"comment":""}],"truncated":false}"#,
    );
    let rules = config("two-ports.rsc");
    let packet = "tcp 198.51.100.7 > 203.0.113.5:22";
    let text = knockctl(&["explain", packet, "--rules", &rules, "--lists", &lists.path("file")]).unwrap();
    assert!(text.ends_with("forward: a rule decided, ip filter 2, line 4\n"), "{text}");
}

/// Standard output, or the error, of a command that sends requests to a control process with these answers.
pub(super) fn asking(answers: axum::Router, arguments: &[&str]) -> Result<String, Failed> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let all = [&["knockctl", "--socket", socket.to_str().unwrap()], arguments].concat();
    let cli = Cli::try_parse_from(all).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async { axum::serve(listener, answers).await });
        let result = run(cli).await;
        server.abort();
        result
    })
}

/// The output of `knockctl apply` with a dataplane with these settings, and the request that it sent.
fn apply(arguments: &[&str], text: &[u8], settings: Settings) -> (Result<String, Failed>, Option<Apply>) {
    use std::sync::{Arc, Mutex};

    use axum::Json;
    use axum::routing::{get, post};

    let rules = Kept::new(text);
    let sent = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&sent);
    let status = DataplaneStatus { settings, ..crate::sample::status() };
    let mut running = crate::sample::rules();
    running.rules =
        knockplane_policy::rsc::read(b"/ip firewall filter\nadd chain=input protocol=tcp dst-port=22\n").rules;
    let answers = axum::Router::new().route("/api/v1/status", get(async move || Json(status)));
    let answers = answers.route("/api/v1/rules", get(async move || Json(running))).route(
        "/api/v1/apply",
        post(async move |Json(body): Json<Apply>| {
            *taken.lock().unwrap() = Some(body);
            Json(Applied { generation: 2, revision: 1, rules: 2, patterns: 0, unresolved: Vec::new() })
        }),
    );
    let result = asking(answers, &[&["apply", &rules.path("file")][..], arguments].concat());
    let sent = sent.lock().unwrap().take();
    (result, sent)
}

#[test]
fn rules_that_nobody_can_run_are_applied_as_disabled_ones_or_not_at_all() {
    let text = b"/ip firewall filter\nadd chain=input packet-mark=video\nadd chain=input action=drop\n";
    let (refused, sent) = apply(&[], text, Settings::default());
    assert_eq!((refused.unwrap_err().exit, sent), (Exit::Invalid, None));
    let (applied, sent) = apply(&["--allow-invalid", "--force"], text, Settings::default());
    let text = "generation 2 runs, 2 rules; revision 1\n\
        rules: 2 added, 1 removed, 0 moved, 0 changed; lints: 0 added, 2 gone\n";
    assert_eq!(applied.unwrap(), text);
    let rules = sent.unwrap().rules.unwrap().rules;
    assert!(rules[0].disabled && rules[0].invalid.is_some() && !rules[1].disabled, "{rules:?}");
}

#[test]
fn what_closes_the_last_way_in_is_forced_or_not_applied() {
    let text = b"/ip firewall filter\nadd chain=input action=drop\n";
    let (refused, sent) = apply(&[], text, Settings::default());
    let refused = refused.unwrap_err();
    assert_eq!((refused.exit, sent), (Exit::Unconfirmed, None));
    for said in
        ["not applied: these rules accept nothing from outside; ", "dst-port=22", "give `--force` if that is meant"]
    {
        assert!(refused.message.contains(said), "{}", refused.message);
    }
    let (applied, sent) = apply(&["--force", "--json"], text, Settings::default());
    let applied = applied.unwrap();
    assert_valid("apply", &applied);
    let applied: serde_json::Value = serde_json::from_str(&applied).unwrap();
    assert_eq!((&applied["changes"]["rules_added"], &applied["changes"]["rules_moved"]), (&1.into(), &0.into()));
    assert!(sent.is_some());
}

#[test]
fn an_apply_with_a_time_tells_what_to_do_next() {
    let text = b"/ip firewall filter\nadd chain=input protocol=tcp dst-port=22\n";
    let (applied, sent) = apply(&["--confirm", "90s"], text, Settings::default());
    assert_eq!(
        applied.unwrap(),
        "generation 2 runs, 2 rules; revision 1\n\
         rules: 0 added, 0 removed, 0 moved, 0 changed; lints: 0 added, 0 gone\n\
         it is rolled back in 1m30s: try a new connection, then run `knockctl confirm` to keep \
         it, or `knockctl cancel` to roll it back now\n"
    );
    assert_eq!(sent.unwrap().confirm_within.as_deref(), Some("1m30s"));
    let (applied, _) = apply(&["--confirm", "2m", "--json"], text, Settings::default());
    let applied: serde_json::Value = serde_json::from_str(&applied.unwrap()).unwrap();
    assert_eq!(applied["confirm_within_seconds"], 120.0);
    let parse = |time| Cli::try_parse_from(["knockctl", "apply", "x", "--confirm", time]);
    assert!(parse("5s").is_ok() && parse("1h").is_ok());
    for time in ["4s", "61m", "soon", ""] {
        assert_eq!(parse(time).unwrap_err().exit_code(), 2, "{time}");
    }
}

#[test]
fn rules_are_applied_by_the_settings_of_the_dataplane() {
    let text = b"/ip firewall filter\nadd chain=input in-interface=ether1 action=drop\n";
    let unmapped = |settings| match apply(&["--json"], text, settings).0 {
        Ok(_) => false,
        Err(failed) => failed.output.contains("E004"),
    };
    assert!(unmapped(Settings::default()));
    let mut settings = Settings::default();
    settings.interfaces.outside.push("ether1".to_owned());
    assert!(!unmapped(settings));
    let (unreadable, sent) = apply(&[], b"add chain=input\n", Settings::default());
    assert_eq!((unreadable.unwrap_err().exit, sent), (Exit::Invalid, None));
}

/// A control process with rules that run.
fn running() -> axum::Router {
    use crate::api::messages::ListQuery;
    use crate::sample::{lists, rules, status};
    use axum::Json;
    use axum::extract::Query;
    use axum::routing::get;
    use knockplane_policy::packet::Vlan;
    use knockplane_policy::wire::After;

    // Each answer has one entry, and reports that there are more.
    let one = |query: ListQuery| {
        let wire::ListPage { lists, mut entries, .. } = lists();
        let behind = query.after_tag == 7;
        entries.swap(0, usize::from(behind));
        entries.truncate(1);
        let next = (!behind).then(|| After {
            list: "knock1".into(),
            address: "::".parse().unwrap(),
            vlan: Vlan::NONE,
            tag: 7,
        });
        wire::ListPage { lists, entries, names: Vec::new(), truncated: !behind, next }
    };

    axum::Router::new()
        .route("/api/v1/status", get(async || Json(status())))
        .route("/api/v1/history", get(async || Json(crate::sample::history())))
        .route("/api/v1/rules", get(async || Json(rules())))
        .route("/api/v1/lists", get(async move |Query(query)| Json(one(query))))
}

/// In the running rules, all traffic from outside enters `knock1`, and the chain's default decides.
#[test]
fn without_rules_what_runs_is_explained() {
    let explained = asking(running(), &["explain", "udp 192.0.2.9 > 192.0.2.1:5", "--json"]).unwrap();
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    let outcomes: Vec<_> = explained["rules"].as_array().unwrap().iter().map(|step| &step["outcome"]).collect();
    assert_eq!(outcomes, ["matched", "disabled"]);
    assert_eq!((&explained["reason"], explained["lists"].as_array().unwrap().len()), (&"chain-default".into(), 3));
}

/// The first line of an export.
const HEADER: &str = concat!("# by knockplane ", env!("CARGO_PKG_VERSION"), "\n");

#[test]
fn what_runs_is_exported() {
    let text = HEADER.to_owned()
        + "/ip firewall filter\n\
        add action=add-src-to-address-list address-list=knock1 address-list-timeout=\\\n    \
        10s chain=input comment=\"first knock\"\n\
        add action=drop chain=input disabled=yes\n";
    assert_eq!(asking(running(), &["export"]).unwrap(), text);
    assert_eq!(knockctl(&["export"]).unwrap_err().exit, Exit::Unreachable);
    let file = Kept::new(text.as_bytes());
    assert_eq!(knockctl(&["export", "--rules", &file.path("file")]).unwrap(), text);
}

/// A file cannot contain a chain with such a name, but running rules can.
#[test]
fn what_routeros_cannot_say_is_not_exported() {
    let mut odd = crate::sample::rules();
    odd.rules.rules[1].chain = "!input".to_owned();
    let answers = axum::Router::new().route("/api/v1/rules", axum::routing::get(async move || axum::Json(odd)));
    let failed = asking(answers.clone(), &["export"]).unwrap_err();
    assert!(failed.exit == Exit::Runtime && failed.output.is_empty(), "{failed:?}");
    assert!(failed.message.contains("chain=\"!input\" action=drop") && failed.message.contains("--json"), "{failed:?}");
    assert!(asking(answers, &["export", "--json"]).unwrap().contains("!input"));
}

#[test]
fn rules_and_their_counters_are_printed() {
    let show = |arguments: &[&str]| asking(running(), &[&["show", "rules"], arguments].concat()).unwrap();
    assert!(show(&[]).contains(" 1 X  r2  chain=input action=drop\n"), "{}", show(&[]));
    assert!(show(&["--stats"]).contains("98 765 432 100"), "{}", show(&["--stats"]));
    assert_eq!(show(&["--json"]), show(&["--json", "--stats"]));
    assert_valid("show-rules", &show(&["--json"]));
}

/// An export does not check the names of interfaces, which have a meaning only for the filter that runs the rules.
#[test]
fn files_are_exported_unless_a_line_is_wrong() {
    let export = |text: &[u8], more: &[&str]| {
        let file = Kept::new(text);
        knockctl(&[&["export", "--rules", &file.path("file")], more].concat())
    };
    let good = b"/ip firewall filter\nadd chain=input in-interface=ether1\n";
    let text = "/ip firewall filter\nadd action=accept chain=input in-interface=ether1\n";
    assert_eq!(export(good, &[]).unwrap(), HEADER.to_owned() + text);
    let json: serde_json::Value = serde_json::from_str(&export(good, &["--json"]).unwrap()).unwrap();
    assert_eq!(json["rules"][0]["chain"], "input");
    let bad = b"/ip firewall filter\nadd chain=input dst-port=X action=drop\n";
    let failed = export(bad, &[]).unwrap_err();
    assert!(failed.exit == Exit::Invalid && failed.output.is_empty(), "{failed:?}");
    let told: serde_json::Value = serde_json::from_str(&export(bad, &["--json"]).unwrap_err().output).unwrap();
    assert_eq!(told["files"][0]["problems"][0]["line"], 2);
}

#[test]
fn entries_of_all_answers_are_shown_or_as_many_as_wanted() {
    let show = |arguments: &[&str]| asking(running(), &[&["list", "show"], arguments].concat());
    insta::assert_snapshot!(show(&[]).unwrap());
    assert!(show(&["--limit", "1"]).unwrap().ends_with("only the first 1; --limit shows more\n"));
    let export = show(&["--export"]).unwrap();
    assert!(export.contains("timeout=9s") && export.contains("comment=\"the office\""), "{export}");
    assert!(show(&["nobody"]).unwrap_err().message.contains("`nobody`"));
    let text = show(&["--json"]).unwrap();
    assert_valid("show-lists", &text);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((json["entries"].as_array().map(Vec::len), &json["truncated"]), (Some(2), &false.into()));
}

/// The request of a command: method, path with query, body.
fn sent(arguments: &[&str]) -> (Result<String, Failed>, Vec<String>) {
    use std::sync::{Arc, Mutex};

    use axum::extract::Request;
    use http_body_util::BodyExt;

    let all = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&all);
    let answers = axum::Router::new().fallback(async move |request: Request| {
        let (head, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        taken.lock().unwrap().push(format!("{} {} {body}", head.method, head.uri));
        r#"{"removed":2,"left":0,"unused":[]}"#
    });
    let result = asking(answers, arguments);
    let sent = all.lock().unwrap().clone();
    (result, sent)
}

#[test]
fn changes_are_sent_as_they_are_meant() {
    let (told, asked) = sent(&["list", "add", "a b", "192.0.2.7/24", "--timeout", "1m", "--comment", "x"]);
    assert_eq!(told.unwrap(), "192.0.2.0/24 is in a b for 1m\n");
    assert_eq!(asked, [r#"POST /api/v1/lists/a%20b {"address":"192.0.2.0/24","timeout":"1m","comment":"x"}"#]);
    let (told, asked) = sent(&["list", "remove", "a", "192.0.2.0/24"]);
    assert_eq!(told.unwrap(), "192.0.2.0/24 is no longer in a\n");
    assert_eq!(asked, ["DELETE /api/v1/lists/a/192.0.2.0%2F24 "]);
    for (name, arguments) in [
        ("list-add", &["list", "add", "a", "192.0.2.7", "--json"][..]),
        ("list-remove", &["list", "remove", "a", "192.0.2.7", "--json"]),
        ("list-flush", &["list", "flush", "a", "--json"]),
    ] {
        assert_valid(name, &sent(arguments).0.unwrap());
    }
    let (told, asked) = sent(&["list", "flush", "a", "--dynamic"]);
    assert_eq!(told.unwrap(), "2 entries are no longer in a\n");
    assert_eq!(asked, ["DELETE /api/v1/lists/a?dynamic=true "]);
    let file = Kept::new(b"a 192.0.2.7 1m # x\n");
    let (told, asked) = sent(&["list", "import", &file.path("file")]);
    assert!(told.unwrap().ends_with("file: 1 entry of it is in\n"));
    let entry = r#"{"list":"a","address":"192.0.2.7","timeout":{"secs":60,"nanos":0},"comment":"x"}"#;
    assert_eq!(asked, [format!("POST /api/v1/lists {{\"entries\":[{entry}]}}")]);
    let bad = Kept::new(b"a 192.0.2.7\na 192.0.2.X\n");
    let (told, asked) = sent(&["list", "import", &bad.path("file")]);
    assert_eq!((told.unwrap_err().exit, asked.len()), (Exit::Invalid, 0), "all or nothing");
}

#[test]
fn a_source_is_one_address_however_it_is_written() {
    let (_, asked) = sent(&["explain-source", "::ffff:198.51.100.7", "--limit", "5"]);
    assert_eq!(asked, ["GET /api/v1/sources/198.51.100.7?limit=5 "]);
    let (_, asked) = sent(&["explain-source", "2001:db8::7", "--watch", "1s"]);
    let watch = r#"POST /api/v1/sources/2001:db8::7/watch {"time":"1s"}"#;
    assert_eq!(asked, [watch, "GET /api/v1/sources/2001:db8::7?limit=10 "]);
    for (wrong, remedy) in
        [("198.51.100.0/24", "knockctl list show --address 198.51.100.0/24"), ("gate.example.net", "write one, as")]
    {
        let error = Cli::try_parse_from(["knockctl", "explain-source", wrong]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(remedy), "{error}");
    }
    for time in ["0s", "2h", "soon"] {
        let error = Cli::try_parse_from(["knockctl", "explain-source", "192.0.2.1", "--watch", time]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{time}");
    }
}
