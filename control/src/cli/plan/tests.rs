use knockplane_policy::packet::Family;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::{Action, Rule, RuleId};
use knockplane_policy::wire::sample::{SampledPacket, TrafficSample};
use knockplane_policy::wire::{ListEntry, ListPage, RunningRules};
use serde_json::Value;

use super::super::capture::sample;
use super::super::tests::{Kept, asking, borrowed, frame, knockctl, knocks};
use super::*;
use crate::api::messages::{BeginSample, SampleBegun, Tracked};
use crate::json::schema::assert_valid;
use crate::plan::changes::{Changes, Linted};

const OLD: &str = "\
/ip firewall address-list
add list=office address=192.0.2.0/24
/ip firewall filter
add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=10s
add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list \\
    address-list=secured address-list-timeout=1m
add chain=input src-address-list=secured action=accept comment=\"who knocked\"
add chain=input protocol=icmp action=accept
add chain=input action=drop
";

/// One rule is added, one removed, one moved (and makes another unreachable), and one has another comment.
const NEW: &str = "\
/ip firewall address-list
add list=office address=198.51.100.0/24
/ip firewall filter
add chain=input src-address-list=secured action=accept comment=\"sources that knocked\"
add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=10s
add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list \\
    address-list=secured address-list-timeout=1m
add chain=input protocol=tcp dst-port=22 src-address=192.0.2.0/24 action=accept
add chain=input action=drop
add chain=input action=drop disabled=no log=yes
";

/// The text of `plan` with these two files, and its exit code.
fn plan(old: &str, new: &str, more: &[&str]) -> (String, Exit) {
    let dir = tempfile::tempdir().unwrap();
    let [old_file, new_file] = ["old.rsc", "new.rsc"].map(|name| dir.path().join(name).display().to_string());
    std::fs::write(&old_file, old).unwrap();
    std::fs::write(&new_file, new).unwrap();
    let result = knockctl(&[&["plan", &new_file, "--rules", &old_file], more].concat());
    let without_folder = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
    match result {
        Ok(text) => (without_folder(text), Exit::Ok),
        Err(failed) if failed.exit == Exit::Unconfirmed => {
            assert_eq!(failed.message, "", "the plan is no failure");
            (without_folder(failed.output), failed.exit)
        }
        Err(failed) => (without_folder(format!("{}\n{}", failed.message, failed.output)), failed.exit),
    }
}

fn json(text: &str) -> Value {
    assert_valid("plan", text);
    serde_json::from_str(text).unwrap()
}

fn capture() -> Kept {
    Kept::new(&sample::pcap(false, false, 1, &borrowed(&knocks())))
}

#[test]
fn every_change_is_told() {
    let capture = capture();
    let file = capture.path("file");
    let more = ["--pcap", &file, "--inside", "203.0.113.0/24"];
    let (text, exit) = plan(OLD, NEW, &more);
    assert_eq!(exit, Exit::Unconfirmed);
    insta::assert_snapshot!("plan", text);
    let (text, exit) = plan(OLD, NEW, &[&more[..], &["--json"]].concat());
    assert_eq!(exit, Exit::Unconfirmed);
    json(&text);
    insta::assert_snapshot!("plan_json", text);
}

#[test]
fn the_same_rules_change_nothing() {
    let capture = capture();
    let file = capture.path("file");
    let lines_differ = format!("# a comment\n\n{OLD}");
    for more in [&[][..], &["--pcap", &file]] {
        let (text, exit) = plan(OLD, &lines_differ, more);
        assert!(exit == Exit::Ok && text.ends_with("\nnothing would change\n"), "{text}");
        let (text, exit) = plan(OLD, &lines_differ, &[more, &["--json"]].concat());
        let plan = json(&text);
        assert_eq!((exit, &plan["would_change"]), (Exit::Ok, &false.into()));
        assert_eq!(plan["verdicts"].is_null(), more.is_empty());
    }
}

#[test]
fn rows_beyond_the_limit_are_counted_and_json_has_all() {
    let old = "/ip firewall filter\nadd chain=input action=drop\n";
    let new: String = (1..=30).map(|port| format!("add chain=input protocol=tcp dst-port={port}\n")).collect();
    let new = format!("/ip firewall filter\n{new}add chain=input action=drop\n");
    let packets: Vec<_> =
        (1..=30).map(|port| (1_700_000_000, port, frame(&format!("tcp 192.0.2.1 > 203.0.113.5:{port}")))).collect();
    let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&packets)));
    let file = capture.path("file");
    let (text, _) = plan(old, &new, &["--pcap", &file, "--limit", "7"]);
    assert!(text.contains("rules: 30 added, 0 removed, 0 moved, 0 changed\n"), "{text}");
    assert!(text.contains("verdicts: 30 of 30 packets would change\n"), "{text}");
    assert_eq!(text.matches("23 more; --limit shows more, and --json all\n").count(), 2, "{text}");
    assert_eq!((text.matches("\nadded   ip filter").count(), text.matches("\npacket ").count()), (7, 7), "{text}");
    let (text, _) = plan(old, &new, &["--pcap", &file, "--limit", "0"]);
    assert_eq!(text.matches("30 more; --limit").count(), 2, "{text}");
    let (text, _) = plan(old, &new, &["--pcap", &file, "--limit", "7", "--json"]);
    let plan = json(&text);
    let number = |part: &Value| part.as_array().unwrap().len();
    assert_eq!((number(&plan["rules"]["added"]), number(&plan["verdicts"]["changed"])), (30, 30));
}

#[test]
fn a_line_of_another_menu_is_a_change() {
    let rules = "/ip firewall filter\nadd chain=input action=drop\n";
    for (menu, line) in [
        ("/ip firewall address-list", "add address=192.0.2.1 list=a"),
        ("/ip firewall layer7-protocol", "add name=p regexp=\"^open\""),
        ("/ip firewall connection tracking", "set udp-timeout=10s"),
        ("/interface list", "add name=WAN"),
        ("/ip address", "add address=192.0.2.1/24 interface=ether1"),
    ] {
        let more = format!("{rules}{menu}\n{line}\n");
        for (old, new, what) in [(rules, more.as_str(), "added"), (more.as_str(), rules, "removed")] {
            let (text, exit) = plan(old, new, &["--json"]);
            let commands = &json(&text)["other_menus"][what];
            assert_eq!((exit, commands[0]["menu"].as_str()), (Exit::Unconfirmed, Some(menu)), "{text}");
            assert_eq!(commands[0]["command"].as_str().unwrap(), line.replace("\\\"", "\""), "{text}");
        }
        assert_eq!(plan(&more, &more, &[]).1, Exit::Ok, "{menu}");
    }
    let [one, other] = ["1\nadd list=a address=192.0.2.2\n", "2\nadd list=a address=192.0.2.1\n"]
        .map(|rest| format!("/ip firewall address-list\nadd list=a address=192.0.2.{rest}"));
    assert_eq!(plan(&one, &other, &[]).1, Exit::Ok, "the order of entries has no meaning");
}

#[test]
fn lints_are_compared_without_their_lines() {
    let old = "/ip firewall filter\nadd chain=input action=drop\nadd chain=input protocol=tcp\n";
    let moved_down = old.replace("filter\n", "filter\n# one\n# two\n");
    assert_eq!(plan(old, &moved_down, &[]).1, Exit::Ok);
    let fixed = "/ip firewall filter\nadd chain=input action=drop\n";
    for (from, to, what, other, line) in [(old, fixed, "gone", "added", 3), (fixed, old, "added", "gone", 3)] {
        let (text, _) = plan(from, to, &["--json"]);
        let lints = json(&text)["lints"].take();
        assert_eq!((&lints[what][0]["code"], &lints[what][0]["line"]), (&"K001".into(), &line.into()), "{text}");
        assert_eq!(lints[other].as_array().map(Vec::len), Some(0), "{text}");
    }
}

#[test]
fn rules_of_doors_count_and_lints_of_doors_stay() {
    let config = Kept::new(b"[[door]]\nname = 'ssh'\nknock = ['tcp/7000']\nopens = ['tcp/22']\n");
    let with_doors = ["--config", &config.path("file")];
    let rules = "/ip firewall filter\nadd chain=input action=drop\n";
    assert_eq!(plan(rules, rules, &with_doors).1, Exit::Ok);
    let (text, _) = plan(rules, &rules.replace("drop", "reject"), &with_doors);
    assert!(text.contains("rules: 1 added, 1 removed, 0 moved, 0 changed"), "{text}");
    assert!(text.contains("lints: 0 added, 0 gone"), "{text}");
    let filled = "/ip firewall filter\nadd chain=input action=add-src-to-address-list address-list=door-ssh\n";
    assert_eq!(plan(rules, filled, &with_doors).1, Exit::Invalid);
}

#[test]
fn what_cannot_be_compared_is_told_with_its_file() {
    let good = "/ip firewall filter\nadd chain=input action=drop\n";
    let bad = "/ip firewall filter\nadd chain=input dst-port=X action=drop\n";
    let marked = "/ip firewall filter\nadd chain=input packet-mark=video\nadd chain=input action=drop\n";
    for bad in [bad, marked] {
        for (old, new, name) in [(good, bad, "new.rsc"), (bad, good, "old.rsc")] {
            let (text, exit) = plan(old, new, &["--json"]);
            assert_eq!(exit, Exit::Invalid);
            let document: Value =
                serde_json::from_str(text.split_once("\n{").map(|(_, rest)| format!("{{{rest}")).as_deref().unwrap())
                    .unwrap();
            let place = document["error"]["where"].as_str().unwrap();
            assert!(place.contains(&format!("{name}:2:")), "{place}");
        }
    }
    assert_eq!(plan(marked, good, &["--allow-invalid"]).1, Exit::Unconfirmed);

    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        std::fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name).display().to_string()
    };
    let rules = file("good.rsc", good.as_bytes());
    let exit = |arguments: &[&str]| knockctl(&[&["plan"], arguments].concat()).unwrap_err();
    let failed = exit(&["/nonexistent.rsc", "--rules", &rules]);
    assert!(
        failed.exit == Exit::Invalid && failed.message.starts_with("/nonexistent.rsc is not valid: "),
        "{failed:?}"
    );
    let failed = exit(&[&rules, "--rules", "/nonexistent.rsc"]);
    assert!(
        failed.exit == Exit::Invalid && failed.message.starts_with("/nonexistent.rsc is not valid: "),
        "{failed:?}"
    );
    assert_eq!(exit(&["-", "--rules", "-"]).exit, Exit::Usage);
    assert_eq!(exit(&[&rules]).exit, Exit::Unreachable, "without old rules the running ones are requested");

    let whole = sample::pcap(false, false, 1, &borrowed(&knocks()));
    let captures = [
        ("/nonexistent.pcap".to_owned(), "it cannot be read"),
        (file("none.pcap", b""), "it is too short"),
        (file("text.pcap", good.as_bytes()), "neither pcap nor pcapng"),
        (file("empty.pcap", &sample::pcap(false, false, 1, &[])), "the capture has no packets"),
        (
            file("empty.pcapng", &[sample::section(), sample::interface("wan", 9)].concat()),
            "the capture has no packets",
        ),
        (file("cut.pcap", &whole[..whole.len() - 1]), "packet 6: the file ends in the middle of it"),
    ];
    for (capture, why) in &captures {
        let failed = exit(&[&rules, "--rules", &rules, "--pcap", capture]);
        assert_eq!(failed.exit, Exit::Runtime);
        assert!(failed.message.starts_with(capture.as_str()) && failed.message.contains(why), "{}", failed.message);
    }
    let (cut, _) = captures.last().unwrap();
    let open = file("open.rsc", b"/ip firewall filter\nadd chain=input\n");
    let failed = exit(&[&rules, "--rules", &open, "--pcap", cut, "--json"]);
    let told = json(&failed.output);
    assert!(failed.exit == Exit::Runtime && told["error"]["code"] == "failed", "{told}");
    assert_eq!(
        (&told["verdicts"]["packets"], &told["verdicts"]["changed"][0]["number"]),
        (&5.into(), &2.into()),
        "{told}"
    );

    for alone in [&["--inside", "192.0.2.0/24"][..], &["--in-list", "a=192.0.2.1"], &["--lists", "x"]] {
        let parsed = clap::Parser::try_parse_from([&["knockctl", "plan", "a"], alone].concat());
        let error = parsed.map(|_: super::super::Cli| ()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("--pcap"), "{error}");
    }
}

#[test]
fn entries_at_the_start_count_for_both() {
    let open = "/ip firewall filter\nadd chain=input src-address-list=a\nadd chain=input action=drop\n";
    let wide = "/ip firewall filter\nadd chain=input src-address-list=a\nadd chain=input src-address-list=b\nadd chain=input action=drop\n";
    let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&knocks()[1..2])));
    let file = capture.path("file");
    let changed = |more: &[&str]| {
        let (text, _) = plan(open, wide, &[&["--json", "--pcap", &file], more].concat());
        json(&text)["verdicts"]["changed"].as_array().unwrap().len()
    };
    assert_eq!(changed(&[]), 0);
    assert_eq!(changed(&["--in-list", "b=198.51.100.7"]), 1);
    assert_eq!(changed(&["--in-list", "b=198.51.100.7", "--in-list", "a=198.51.100.7"]), 0);
}

/// Ids are short hashes: two rules of two files can have the same id.
#[test]
fn rules_that_differ_are_not_the_same_because_of_their_ids() {
    let rule = |action: Action| Rule { id: RuleId("0a1b2c3d".to_owned()), ..Rule::new(Family::Ipv4, "input", action) };
    let set = |action: Action| RuleSet { rules: vec![rule(action)], ..RuleSet::default() };
    let settings = Settings::default();
    let (one, other) = (set(Action::Accept), set(Action::Drop));
    let changes = Changes::of(&Linted::new("a", &one, &settings), &Linted::new("b", &other, &settings));
    let counts = changes.counts();
    assert_eq!((counts.rules_added, counts.rules_removed, counts.rules_changed), (1, 1, 0));
}

/// A control process with these rules, the entries of [`crate::sample::lists`] and some connections.
fn running(rules: &str) -> axum::Router {
    running_with(rules, crate::sample::tracked())
}

fn running_with(rules: &str, tracked: Tracked) -> axum::Router {
    use axum::Json;
    use axum::routing::get;

    let reading = knockplane_policy::rsc::read(rules.as_bytes());
    assert_eq!(reading.problems, []);
    let running = RunningRules { rules: reading.rules, ..crate::sample::rules() };
    let router = axum::Router::new().route("/api/v1/rules", get(async move || Json(running)));
    router
        .route("/api/v1/status", get(async || Json(crate::sample::status())))
        .route("/api/v1/lists", get(async || Json(crate::sample::lists())))
        .route("/api/v1/connections", get(async move || Json(tracked)))
}

/// The running rules of tests: a source that knocked may use SSH, and all may be pinged.
const RUNNING: &str = "\
/ip firewall filter
add chain=input protocol=tcp dst-port=22 src-address-list=knock1 action=accept
add chain=input protocol=icmp action=accept
/ipv6 firewall filter
add chain=input protocol=tcp src-address-list=trusted action=accept
";

/// The same for another port.
fn other_port() -> Kept {
    Kept::new(RUNNING.replace("dst-port=22", "dst-port=443").as_bytes())
}

#[test]
fn without_a_capture_the_connections_and_sources_of_the_dataplane_are_compared() {
    let new = other_port();
    let file = new.path("file");
    let told = |more: &[&str]| {
        let failed = asking(running(RUNNING), &[&["plan", &file], more].concat()).unwrap_err();
        assert_eq!(failed.exit, Exit::Unconfirmed, "{failed:?}");
        failed.output.replace(&file, "new.rsc")
    };
    insta::assert_snapshot!("plan_known", told(&[]));
    let text = told(&["--json"]);
    json(&text);
    insta::assert_snapshot!("plan_known_json", text);
    let few = told(&["--known", "1"]);
    assert!(few.contains("--known compares more") && few.contains(" and 1 listed source,"), "{few}");

    let same = Kept::new(RUNNING.as_bytes());
    let text = asking(running(RUNNING), &["plan", &same.path("file")]).unwrap();
    assert!(text.ends_with("\nnothing would change\n") && text.contains("verdicts: 0 of "), "{text}");
}

/// A control process whose dataplane samples these packets.
fn sampling(packets: Vec<SampledPacket>) -> axum::Router {
    use axum::Json;
    use axum::routing::post;

    let begin = async |Json(asked): Json<BeginSample>| {
        assert_eq!(asked, BeginSample { time: "1s".to_owned(), packets: 7 });
        Json(SampleBegun { sample: 3 })
    };
    let sample = TrafficSample { packets, missed: 2 };
    let tracked = Tracked { truncated: false, ..crate::sample::tracked() };
    let router = running_with(RUNNING, tracked).route("/api/v1/sample", post(begin));
    router.route("/api/v1/sample/3/end", post(async move || Json(sample)))
}

#[test]
fn a_sample_of_live_traffic_is_compared() {
    let new = other_port();
    let file = new.path("file");
    let arguments = ["plan", &file, "--live", "1s", "--live-packets", "7"];
    let headers = frame("icmp 192.0.2.7 > 203.0.113.5");
    let ping = |verdict| SampledPacket {
        age: std::time::Duration::from_secs(1),
        side: knockplane_policy::packet::Side::Outside,
        verdict,
        headers: headers.clone(),
        rest: 0,
    };
    let told = |verdict| {
        let failed = asking(sampling(vec![ping(verdict)]), &arguments).unwrap_err();
        assert_eq!(failed.exit, Exit::Unconfirmed, "the rules change");
        failed.output
    };
    let text = told(Verdict::Forward);
    let verdicts = "verdicts: 0 of 1 first packet would change, of 1 packet in 1 s of live traffic\n";
    assert!(text.contains(verdicts) && text.contains("not sampled: 2 packets;"), "{text}");
    let text = told(Verdict::Drop);
    assert!(text.contains("\nundecided: 1 packet\npacket 1, 0.000000000 s: icmp 8:0 192.0.2.7"), "{text}");
    let failed = asking(sampling(vec![ping(Verdict::Drop)]), &[&arguments[..], &["--json"]].concat()).unwrap_err();
    assert_eq!(json(&failed.output)["live"]["undecided"][0]["packet"], "icmp 8:0 192.0.2.7 > 203.0.113.5, 28 bytes");
    let failed = asking(sampling(Vec::new()), &arguments).unwrap_err();
    assert!(failed.exit == Exit::Runtime && failed.message.contains("no packet arrived"), "{failed:?}");
    assert!(failed.output.contains("rules: 1 added"), "{failed:?}");

    let same = Kept::new(RUNNING.as_bytes());
    let arguments = ["plan", &same.path("file"), "--live", "1s", "--live-packets", "7"];
    let text = asking(sampling(vec![ping(Verdict::Forward)]), &arguments).unwrap();
    assert!(text.ends_with("\nnothing would change\n"), "{text}");
    let text = asking(sampling(vec![ping(Verdict::Drop)]), &arguments).unwrap();
    assert!(text.ends_with("except perhaps the verdicts on the undecided packets\n"), "{text}");
}

#[test]
fn the_verdicts_on_known_packets_are_those_of_explain() {
    let new = other_port();
    let file = new.path("file");
    let output = asking(running(RUNNING), &["plan", &file, "--json"]).unwrap_err().output;
    let plan = json(&output);
    let changed = plan["known"]["changed"].as_array().unwrap();
    assert!(changed.len() > 2, "{plan}");
    let new_rules = std::fs::read_to_string(&file).unwrap();
    for one in changed {
        // A summary without its length is a description.
        let (packet, _) = one["packet"].as_str().unwrap().rsplit_once(", ").unwrap();
        for (rules, which) in [(RUNNING, "old"), (new_rules.as_str(), "new")] {
            let arguments = ["explain", packet, "--from", one["from"].as_str().unwrap(), "--json"];
            let explained: Value = serde_json::from_str(&asking(running(rules), &arguments).unwrap()).unwrap();
            let decided = explained["decided_by"].as_u64().map(|at| &explained["rules"][at as usize]);
            let outcome = &one[which];
            assert_eq!(
                (&outcome["verdict"], &outcome["reason"]),
                (&explained["verdict"], &explained["reason"]),
                "{packet}"
            );
            assert_eq!(outcome["rule"], decided.map_or(Value::Null, |rule| rule["id"].clone()), "{packet}");
        }
    }
}

#[test]
fn a_capture_begins_with_the_entries_of_the_dataplane() {
    let packets = [(1_700_000_000, 7, frame("tcp 192.0.2.7 > 203.0.113.5:22"))];
    let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&packets)));
    let new = other_port();
    let arguments = ["plan", &new.path("file"), "--pcap", &capture.path("file"), "--json"];
    let told = json(&asking(running(RUNNING), &arguments).unwrap_err().output);
    let changed = &told["verdicts"]["changed"];
    assert_eq!(
        (&changed[0]["old"]["verdict"], &changed[0]["new"]["verdict"]),
        (&"forward".into(), &"drop".into()),
        "{told}"
    );
    assert!(told["known"].is_null(), "{told}");
}

#[test]
fn addresses_of_a_host_name_stay_while_the_list_has_the_name() {
    let named = "/ip firewall address-list\nadd list=office address=gate.example.net\n";
    let rules = "/ip firewall filter\nadd chain=input src-address-list=office\nadd chain=input action=drop\n";
    let compared = |new: &str| {
        let entry = ListEntry {
            list: "office".to_owned(),
            name: Some("gate.example.net".to_owned()),
            dynamic: false,
            line: Some(2),
            ..crate::sample::lists().entries[0].clone()
        };
        Compared {
            old_name: "old".to_owned(),
            old: knockplane_policy::rsc::read(format!("{named}{rules}").as_bytes()).rules,
            new_name: "new".to_owned(),
            new: knockplane_policy::rsc::read(new.as_bytes()).rules,
            new_lints: None,
            settings: Settings::default(),
            lists: Some(ListPage { entries: vec![entry], ..crate::sample::lists() }),
            loss: None,
        }
    };
    let planned = |new: &str| {
        let compared = compared(new);
        let tracked = Tracked { table: None, connections: Vec::new(), truncated: false };
        Plan { known: compared.known(&tracked, Limits::of(10)), ..Plan::new(&compared) }
    };
    let changed = |new: &str| planned(new).known.unwrap().changed.len();
    assert_eq!(changed(&format!("{named}{rules}")), 0);
    assert!(changed(rules) > 0, "the addresses of the name are gone");
    assert!(changed(&format!("{}{rules}", named.replace("gate", "other"))) > 0);
    let text = text::text(&planned(rules), 9);
    assert!(text.contains("removed  /ip firewall address-list  add address=gate.example.net list=office\n"), "{text}");
    assert!(text.contains("\nsource in office, by gate.example.net: tcp "), "{text}");
}

/// A prefix contains the source of a connection; the list that is negated has another address.
#[test]
fn entries_of_the_rules_count_for_known_packets() {
    let rules = "/ip firewall address-list\nadd list=office address=192.0.2.0/29\nadd list=away address=198.51.100.1\n\
        /ip firewall filter\nadd chain=input src-address-list=office dst-address-list=!away\nadd chain=input action=drop\n";
    let opposite = rules.replace("src-address-list=office", "src-address-list=!office");
    let file = Kept::new(opposite.as_bytes());
    let output = asking(running(rules), &["plan", &file.path("file"), "--json"]).unwrap_err().output;
    let known = json(&output)["known"].take();
    let changed: Vec<_> = known["changed"].as_array().unwrap().iter().filter(|one| one["lists"].is_null()).collect();
    assert_eq!(changed.len(), 1, "{known}");
    assert_eq!((&changed[0]["old"]["verdict"], &changed[0]["new"]["verdict"]), (&"forward".into(), &"drop".into()));
}
