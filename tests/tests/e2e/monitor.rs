//! The stream of events and the audit file: one event has one id everywhere, nothing is missed without a gap, and no reader
//! delays another.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, Folder, Process, Topology, granted, json_lines, shown_and_omitted};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::end::End;
use crate::log::{DOOR, SCANNER, SERVER, frame, knock, source};
use crate::scenario::{PATIENCE, Stop, eventually, with};

const RULES: &str = "/ip firewall filter\nadd chain=input action=drop log=yes log-prefix=scan\n";

/// A filter with the door, and an audit file in a folder of its own.
fn audited(name: &str, more: &str, test: impl FnOnce(&Topology, &mut Filter<'_>, &Path)) {
    let folder = Folder::make(&format!("kp{}-{name}", std::process::id())).expect("a folder");
    let audit = folder.0.join("audit.jsonl");
    let sections = format!("audit = \"{}\"\n{more}\n{DOOR}", audit.display());
    let options = FilterOptions { sections, ..FilterOptions::from_rules(RULES) };
    with(&options, |topology, filter| test(topology, filter, &audit));
}

/// A running `knockctl monitor --json`, whose output goes to a file.
struct Monitor {
    process: Process,
    output: PathBuf,
}

impl Monitor {
    fn start(filter: &Filter<'_>, name: &str, arguments: &[&str]) -> Monitor {
        let output = filter.path(&format!("{name}.jsonl"));
        let mut command = filter.command(&["--json", "monitor"]).expect("built");
        command.args(arguments).stdout(fs::File::create(&output).expect("a file"));
        let stderr = fs::File::create(filter.path(&format!("{name}.err"))).expect("a file");
        let process = Process::start_with("knockctl", &mut command, stderr).expect("started");
        Monitor { process, output }
    }

    /// As [`Monitor::start`], and waits until the control process has the stream.
    fn ready(filter: &Filter<'_>, name: &str, arguments: &[&str]) -> Monitor {
        let streams = || filter.ask(&["show", "status"]).expect("status")["control"]["event_streams"].as_u64();
        let before = streams();
        let monitor = Monitor::start(filter, name, arguments);
        eventually("the stream is open", || streams() > before);
        monitor
    }

    fn events(&self) -> Vec<Value> {
        lines(&self.output)
    }

    fn granted(&self) -> Vec<Value> {
        granted(&self.events())
    }
}

fn lines(file: &Path) -> Vec<Value> {
    json_lines(file).expect("documents")
}

fn of_source(events: &[Value], number: u32) -> Option<Value> {
    let source = source(number).to_string();
    granted(events).into_iter().find(|event| event["source"] == *source)
}

fn id(event: &Value) -> String {
    event["id"].as_str().unwrap_or_else(|| panic!("an id: {event}")).to_owned()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().filter_map(|event| Some(event["id"].as_str()?.to_owned())).collect()
}

/// The logged packet of the scanner.
fn scanned(events: &[Value]) -> Option<Value> {
    events.iter().find(|event| event["kind"] == "packet" && event["source"] == *SCANNER.to_string()).cloned()
}

/// Checks that each field of a log line is the field of the document with this path.
fn same_fields(line: &Value, event: &Value) {
    let fields = line.as_object().expect("fields").iter().filter(|(name, _)| *name != "message");
    for (name, value) in fields {
        let of_document = name.split('.').fold(event, |object, part| &object[part]);
        assert_eq!(of_document, value, "{name}: {line} {event}");
    }
}

#[test]
fn an_event_has_one_id_and_the_same_fields_in_the_monitor_the_log_and_the_audit_file() {
    audited("ids", "", |topology, filter, audit| {
        let logs = ["dataplane.json", "control.json"].map(|log| filter.path(log));
        let stderr = logs.each_ref().map(|log| fs::File::create(log).expect("a file").into());
        filter.restart_by("exec \"$@\" --log-format json", stderr).expect("started again");
        let monitor = Monitor::ready(filter, "monitor", &[]);
        let end = End::open(&topology.client).expect("an end");
        knock(&end, 1);
        end.send(&frame(SCANNER, 9, true)).expect("sent");
        filter.knockctl(&["list", "add", "staff", "192.0.2.1", "--timeout", "1h"]).expect("added");
        filter.knockctl(&["list", "add", "guests", "192.0.2.2", "--timeout", "1s"]).expect("added");
        let found = |kind: &str| monitor.events().into_iter().find(|event| event["kind"] == kind);
        eventually("grants and changes arrive", || found("granted").is_some() && found("operator").is_some());
        eventually("packets arrive", || scanned(&monitor.events()).is_some());
        let [granted, operator] = ["granted", "operator"].map(|kind| found(kind).expect("there"));
        let packet = scanned(&monitor.events()).expect("there");
        assert_eq!((&granted["door"], &granted["source"]), (&"ssh".into(), &source(1).to_string().into()));
        assert_eq!(granted["entry"]["to"]["address"], *SERVER.to_string());
        assert_eq!(
            (&packet["source"], &packet["packet"]["destination_port"]),
            (&SCANNER.to_string().into(), &9.into())
        );
        assert_eq!(
            (&operator["operator"]["action"], &operator["operator"]["by"]["uid"]),
            (&"list-add".into(), &0.into())
        );
        assert_eq!((&operator["list"], &operator["source"]), (&"staff".into(), &"192.0.2.1".into()));

        eventually("the entry expires", || found("expired").is_some());
        let expired = found("expired").expect("there");
        let logged = |id: &str| {
            let mut fields = logs.iter().flat_map(|log| lines(log)).map(|line| line["fields"].clone());
            fields.find(|fields| fields["id"] == *id)
        };
        for (event, field) in [
            (&granted, "entry.to.address"),
            (&granted, "entry.expires"),
            (&packet, "packet.destination_port"),
            (&operator, "operator.by.uid"),
            (&expired, "list"),
        ] {
            eventually("it is logged", || logged(&id(event)).is_some());
            let line = logged(&id(event)).expect("there");
            same_fields(&line, event);
            assert!(!line[field].is_null(), "{field}: {line}");
        }
        let opened = logged(&id(&granted)).expect("the grant is logged");
        assert_eq!((&opened["message"], &opened["source"]), (&"door opened".into(), &source(1).to_string().into()));
        let scanned = logged(&id(&packet)).expect("the packet is logged");
        assert_eq!(scanned["message"], packet["packet"]["line"], "the same line");

        eventually("both are in the audit file", || {
            let audited = ids(&lines(audit));
            audited.contains(&id(&granted)) && audited.contains(&id(&operator))
        });
        let audited = lines(audit);
        let same = |event: &Value| audited.iter().any(|line| line == event);
        assert!(same(&granted) && same(&operator), "the whole document: {audited:?}");
        assert!(!audited.iter().any(|line| line["kind"] == "packet" || line["kind"] == "stepped"), "{audited:?}");
        let mode = fs::metadata(audit).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    });
}

#[test]
fn filters_select_and_invalid_ones_are_refused() {
    audited("filters", "", |topology, filter, _| {
        let all = Monitor::ready(filter, "all", &[]);
        let first = source(1).to_string();
        let of_first = Monitor::ready(filter, "first", &["--source", &first]);
        let packets = Monitor::ready(filter, "packets", &["--kind", "packet"]);
        let end = End::open(&topology.client).expect("an end");
        knock(&end, 1);
        knock(&end, 2);
        end.send(&frame(SCANNER, 9, true)).expect("sent");
        eventually("all arrive", || all.granted().len() == 2 && scanned(&all.events()).is_some());
        eventually("the others too", || !of_first.granted().is_empty() && scanned(&packets.events()).is_some());
        assert!(of_first.events().iter().all(|event| event["source"] == *first), "{:?}", of_first.events());
        assert!(packets.events().iter().all(|event| event["kind"] == "packet"), "{:?}", packets.events());
        let rule = scanned(&packets.events()).expect("there")["rule"].clone();
        let number = rule["number"].as_str().expect("a number");
        let begin = id(&all.events()[0]);
        let of_rule = Monitor::start(filter, "rule", &["--since", &begin, "--rule", number]);
        eventually("the rule's packet", || scanned(&of_rule.events()).is_some());
        assert!(of_rule.events().iter().all(|event| event["rule"] == rule), "{:?}", of_rule.events());

        for (arguments, told) in [
            (["--kind", "opened"], "the kinds are granted"),
            (["--source", "nobody"], "`nobody` is not an address"),
            (["--rule", "web"], "is neither the id of a rule"),
            (["--since", "yesterday"], "is not the id of an event"),
            (["--since", "1000000"], "there is no event 1000000 yet"),
        ] {
            let refused = filter.knockctl(&[&["monitor"][..], &arguments].concat()).expect("knockctl");
            assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
            assert!(refused.stderr.contains(told), "{arguments:?}: {}", refused.stderr);
        }
    });
}

#[test]
fn a_reader_continues_after_an_id_and_over_restarts_of_both_processes() {
    audited("restarts", "", |topology, filter, audit| {
        let mut monitor = Monitor::ready(filter, "monitor", &[]);
        let end = End::open(&topology.client).expect("an end");
        (1..=4).for_each(|number| knock(&end, number));
        eventually("four get in", || monitor.granted().len() == 4);
        let events = monitor.events();
        let place =
            events.iter().position(|event| event["source"] == *source(2).to_string()).expect("the first of two");
        let continued = Monitor::start(filter, "continued", &["--since", &id(&events[place])]);
        eventually("the rest arrives", || continued.events().len() >= events.len() - place - 1);
        assert_eq!(continued.events(), events[place + 1..], "the same events");
        let number = id(&events[place]).rsplit_once('-').expect("a number").1.to_owned();
        let by_number = Monitor::start(filter, "number", &["--since", &number]);
        eventually("a number suffices", || by_number.events() == continued.events());
        drop((continued, by_number));

        // The control process is away, and a source gets in.
        filter.control.kill().expect("killed");
        knock(&end, 5);
        thread::sleep(Duration::from_millis(300));
        filter.restart_control().expect("started again");
        eventually("the monitor has continued", || of_source(&monitor.events(), 5).is_some());
        assert_eq!(monitor.granted().len(), 5, "nothing twice");
        eventually("so has the audit file", || of_source(&lines(audit), 5).is_some());
        assert_eq!(granted(&lines(audit)).len(), 5, "nothing twice: {:?}", lines(audit));
        assert!(!lines(audit).iter().any(|line| line["kind"] == "gap"), "no gap: {:?}", lines(audit));
        let old = Monitor::start(filter, "old", &["--since", &id(&events[place])]);
        eventually("the control process has the past of the dataplane", || of_source(&old.events(), 5).is_some());
        assert_eq!(old.granted().len(), 3, "those after the second");
        drop(old);

        // The dataplane is killed.
        let before = id(monitor.granted().last().expect("five"));
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        let end = End::open(&topology.client).expect("an end");
        eventually("a new source gets in", || {
            knock(&end, 6);
            of_source(&monitor.events(), 6).is_some()
        });
        let events = monitor.events();
        let gap = events.iter().find(|event| event["kind"] == "gap").expect("the end of the start is a gap");
        let start = before.split_once('-').expect("a start").0;
        assert_eq!((&gap["gap"]["start"], &gap["gap"]["last"]), (&start.into(), &Value::Null));
        let begun = events.iter().find(|event| event["kind"] == "start").expect("the start");
        assert_ne!(begun["start"]["start"], *start);
        eventually("the audit file has the same", || of_source(&lines(audit), 6).is_some());
        let audited = lines(audit);
        assert!(audited.contains(gap) || audited.iter().any(|line| line["gap"] == gap["gap"]), "{audited:?}");
        // An id of the start that has ended: a gap, and all of the present start.
        let ended = Monitor::start(filter, "ended", &["--since", &before]);
        eventually("the present start follows", || of_source(&ended.events(), 6).is_some());
        let kinds: Vec<Value> = ended.events().iter().map(|event| event["kind"].clone()).collect();
        let place = kinds.iter().position(|kind| kind == "gap").expect("the rest of that start");
        assert!(kinds[..place].iter().all(|kind| kind == "packet"), "{kinds:?}");
        assert_eq!(kinds[place + 1..place + 3], ["start", "granted"], "{kinds:?}");
        assert!(monitor.process.runs().expect("known"), "one process over all of this");
        assert!(monitor.process.stop(Signal::INT).expect("it ends").success());
    });
}

#[test]
fn events_that_are_gone_are_a_gap_and_their_entries_are_read_from_the_lists() {
    const SOURCES: u32 = 20;
    let folder = Folder::make(&format!("kp{}-gap", std::process::id())).expect("a folder");
    let audit = folder.0.join("audit.jsonl");
    // The dataplane keeps 1,024 events of so small lists.
    let options = FilterOptions {
        sections: format!("audit = \"{}\"\n{DOOR}", audit.display()),
        list_capacity: 200,
        ..FilterOptions::from_rules("/ip firewall filter\nadd chain=input action=drop\n")
    };
    with(&options, |topology, filter| {
        let end = End::open(&topology.client).expect("an end");
        knock(&end, 100);
        eventually("the first grant is written", || of_source(&lines(&audit), 100).is_some());
        let first = id(&of_source(&lines(&audit), 100).expect("there"));
        filter.control.kill().expect("killed");
        let knocks = || {
            (0..SOURCES).for_each(|number| {
                knock(&end, number);
                thread::sleep(Duration::from_millis(1));
            });
        };
        // Each further knock of a source extends its grant.
        (0..70).for_each(|_| knocks());
        filter.restart_control().expect("started again");
        let monitor = Monitor::start(filter, "monitor", &["--since", &first]);
        let opened = |events: &[Value]| -> BTreeSet<String> {
            let own = events.iter().filter(|event| event["door"] == "ssh");
            own.filter_map(|event| Some(event["source"].as_str()?.to_owned())).collect()
        };
        let sources: BTreeSet<String> = (0..SOURCES).map(|number| source(number).to_string()).collect();
        eventually("the stream has every source", || opened(&monitor.events()).is_superset(&sources));
        eventually("the audit file has every source", || opened(&lines(&audit)).is_superset(&sources));
        let number = |id: &str| id.split_once('-').expect("a number").1.parse::<u64>().expect("a number");
        let of_monitor = monitor.events();
        let after = lines(&audit).into_iter().skip_while(|line| line["id"] != *first).skip(1).collect::<Vec<_>>();
        for events in [&of_monitor, &after] {
            let gap = &events[0]["gap"];
            let [begin, last, found] = ["first", "last", "found"].map(|name| gap[name].as_u64().expect("a number"));
            assert_eq!(begin, number(&first) + 1, "{gap}");
            assert!(last > begin, "{gap}");
            // Every other number follows, once.
            let numbers: Vec<u64> = ids(&events[1..]).iter().map(|id| number(id)).collect();
            let missed = numbers.iter().take_while(|number| **number <= last).count() as u64;
            assert_eq!(missed, found, "{gap}");
            let rest = &numbers[missed as usize..];
            assert_eq!(rest.first(), Some(&(last + 1)), "{gap}");
            assert!(rest.windows(2).all(|pair| pair[1] == pair[0] + 1), "{rest:?}");
        }
    });
}

#[test]
fn more_events_at_once_than_any_ring_has_are_found_in_the_lists() {
    const ENTRIES: u32 = 24_000;
    let folder = Folder::make(&format!("kp{}-many", std::process::id())).expect("a folder");
    let audit = folder.0.join("audit.jsonl");
    let options = FilterOptions {
        sections: format!("audit = \"{}\"\naudit-file-bytes = 100_000_000\n{DOOR}", audit.display()),
        list_capacity: 30_000,
        ..FilterOptions::from_rules(RULES)
    };
    with(&options, |_, filter| {
        let monitor = Monitor::ready(filter, "monitor", &["--list", "many"]);
        let address = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 80, 0, 0)) + number);
        let entries: String =
            (0..ENTRIES).map(|number| format!("add list=many address={} timeout=1h\n", address(number))).collect();
        let file = filter.path("many.rsc");
        fs::write(&file, format!("/ip firewall address-list\n{entries}")).expect("written");
        let imported = filter.knockctl(&["list", "import", file.to_str().expect("text")]).expect("knockctl");
        assert!(imported.ok(), "{imported:?}");
        // The last one that any reader gets is this.
        filter.knockctl(&["list", "add", "many", "192.0.2.1"]).expect("knockctl");
        for file in [&monitor.output, &audit] {
            let until = std::time::Instant::now() + Duration::from_secs(120);
            let is_last = |line: &Value| line["kind"] == "listed" && line["source"] == "192.0.2.1";
            while !lines(file).iter().any(is_last) {
                assert!(std::time::Instant::now() < until, "the last one does not come");
                thread::sleep(Duration::from_millis(500));
            }
            let events = lines(file);
            let listed = events.iter().filter(|event| event["kind"] == "listed");
            let sources: Vec<&str> = listed.filter_map(|event| event["source"].as_str()).collect();
            let distinct: HashSet<&str> = sources.iter().copied().collect();
            let gaps = events.iter().filter(|event| event["kind"] == "gap").count();
            println!("{}: {} listed, {gaps} gaps", file.display(), sources.len());
            assert_eq!((distinct.len(), sources.len()), (ENTRIES as usize + 1, ENTRIES as usize + 1), "each once");
            assert!(gaps > 0, "the dataplane keeps fewer events");
        }
    });
}

#[test]
fn changes_without_an_operator_and_those_that_failed_are_recorded() {
    audited("changes", "", |_, filter, audit| {
        let monitor = Monitor::ready(filter, "monitor", &["--kind", "operator"]);
        let pid = rustix::process::Pid::from_raw(filter.dataplane.id() as i32).expect("a process");
        rustix::process::kill_process(pid, Signal::HUP).expect("sent");
        let rules = filter.path("other.rsc");
        fs::write(&rules, "/ip firewall filter\nadd chain=input action=drop comment=other\n").expect("written");
        let rules = rules.to_str().expect("text");
        let apply = |more: &[&str]| filter.knockctl(&[&["apply", rules, "--force"], more].concat()).expect("knockctl");
        let applied = apply(&["--confirm", "5s", "--comment", "a trial"]);
        assert!(applied.ok(), "{applied:?}");
        assert_eq!(apply(&[]).code, Some(6), "one waits");
        let of = |events: &[Value], action: &str, failed: bool| {
            let own = events.iter().filter(|event| event["operator"]["action"] == action);
            own.filter(|event| event["operator"]["error"].is_string() == failed).cloned().collect::<Vec<_>>()
        };
        eventually("the rollback is there", || !of(&monitor.events(), "not-confirmed", false).is_empty());
        let events = monitor.events();
        let reload = of(&events, "reload", false);
        assert_eq!((reload.len(), &reload[0]["operator"]["by"]["uid"]), (1, &Value::Null), "by a signal: {reload:?}");
        let apply = of(&events, "apply", false);
        assert_eq!((apply.len(), &apply[0]["operator"]["by"]["uid"]), (1, &0.into()), "{apply:?}");
        assert_eq!(apply[0]["operator"]["comment"], "a trial");
        assert_eq!(apply[0]["operator"]["confirm_within_seconds"], 5.0);
        assert_eq!(of(&events, "apply", true).len(), 1, "{events:?}");
        eventually("the audit file has the same", || {
            let audited = lines(audit);
            events.iter().all(|event| audited.contains(event))
        });
    });
}

/// Opens a stream and does not read it.
fn unread(filter: &Filter<'_>) -> UnixStream {
    let mut stream = UnixStream::connect(filter.path("control.sock")).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    stream
}

/// Sends scans as fast as possible until stopped.
fn scan(topology: &Topology, stop: &AtomicBool) -> u64 {
    let end = End::open(&topology.client).expect("an end");
    let frames: Vec<_> = (20_000..21_000).map(|port| frame(SCANNER, port, true)).collect();
    let mut sent = 0;
    for frame in frames.iter().cycle() {
        if stop.load(Relaxed) {
            break;
        }
        sent += u64::from(end.send(frame).is_ok());
    }
    sent
}

/// Lets these sources in during a flood. Returns when all of them are in.
fn let_in(topology: &Topology, filter: &Filter<'_>, sources: u32) {
    let end = End::open(&topology.client).expect("an end");
    let mut left: HashSet<u32> = (0..sources).collect();
    let until = std::time::Instant::now() + Duration::from_secs(120);
    while !left.is_empty() {
        for number in &left {
            knock(&end, *number);
            thread::sleep(Duration::from_millis(5));
        }
        let doors = filter.ask(&["show", "doors", "--limit", "1000"]).expect("doors");
        let open = doors["open"].as_array().expect("sources").iter().filter_map(|open| open["address"].as_str());
        let open: HashSet<String> = open.map(str::to_owned).collect();
        left.retain(|number| !open.contains(&source(*number).to_string()));
        assert!(std::time::Instant::now() < until, "{} do not get in", left.len());
    }
}

#[test]
fn a_flood_displaces_no_grant_and_packets_are_shown_or_counted() {
    const SOURCES: u32 = 100;
    audited("flood", "", |topology, filter, audit| {
        let monitor = Monitor::ready(filter, "monitor", &[]);
        let mut stalled = unread(filter);
        let stop = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            let scanner = scope.spawn(|| scan(topology, &stop));
            let stops = Stop(&stop);
            let_in(topology, filter, SOURCES);
            thread::sleep(Duration::from_secs(2));
            drop(stops);
            scanner.join().expect("the scanner")
        });
        let sources: BTreeSet<String> = (0..SOURCES).map(|number| source(number).to_string()).collect();
        let found = |events: &[Value]| -> BTreeSet<String> {
            granted(events).iter().filter_map(|event| Some(event["source"].as_str()?.to_owned())).collect()
        };
        eventually("every grant is in the monitor", || found(&monitor.events()) == sources);
        eventually("every grant is in the audit file", || found(&lines(audit)) == sources);
        let own = |events: &[Value]| ids(&granted(events)).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(own(&monitor.events()), own(&lines(audit)), "with the same ids");
        let log = fs::read_to_string(filter.path("knockplane-dataplane.log")).expect("the log");
        for id in own(&monitor.events()) {
            assert!(
                log.lines().any(|line| line.contains("door opened") && line.ends_with(&format!("id={id}"))),
                "{id}"
            );
        }
        let mut told = (0, 0, 0);
        eventually("every packet is shown or counted", || {
            let (shown, omitted) = shown_and_omitted(&monitor.events());
            told = (shown, omitted, filter.matched_by_last_rule().expect("a counter"));
            told.0 + told.1 == told.2
        });
        println!("{sent} frames sent, {} matched: {} shown, {} omitted; {SOURCES} grants", told.2, told.0, told.1);
        assert!(told.1 > 0, "more than can be shown was scanned");
        assert!(!lines(audit).iter().any(|line| line["kind"] == "gap" || line["kind"] == "packet"), "nothing else");

        // A reader that has not read until now gets everything that is kept, and the rest as a number.
        stalled.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
        let mut text = Vec::new();
        let _ = stalled.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let late: Vec<Value> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect();
        let (shown, omitted) = shown_and_omitted(&late);
        assert_eq!(shown + omitted, told.2, "shown {shown}, omitted {omitted}");
        assert_eq!(found(&late), sources, "grants are not displaced");
    });
}

#[test]
fn streams_are_limited_and_end_with_the_control_process() {
    audited("limit", "", |_, filter, _| {
        let mut streams: Vec<UnixStream> = (0..24).map(|_| unread(filter)).collect();
        let status = |stream: &mut UnixStream| {
            let mut head = [0; 12];
            stream.read_exact(&mut head).expect("an answer");
            String::from_utf8_lossy(&head).into_owned()
        };
        assert!(streams.iter_mut().all(|stream| status(stream) == "HTTP/1.1 200"));
        let refused = filter.knockctl(&["monitor"]).expect("knockctl");
        assert!(refused.stderr.contains("24 streams of events already"), "{refused:?}");
        assert_eq!(refused.code, Some(4));
        assert!(filter.knockctl(&["show", "status"]).expect("knockctl").ok(), "commands have room");
        drop(streams.pop());
        eventually("the place is free", || {
            let open = filter.ask(&["show", "status"]).expect("status")["control"]["event_streams"].clone();
            open == 23
        });
        let ended = filter.control.stop(Signal::TERM).expect("it ends");
        assert!(ended.success(), "{ended}");
        let log = fs::read_to_string(filter.path("knockplane-control.log")).expect("the log");
        assert!(!log.contains("requests unanswered"), "{log}");
    });
}

#[test]
fn the_audit_file_is_rotated_and_bounded() {
    audited("rotation", "audit-file-bytes = 65536\naudit-files = 3", |_, filter, audit| {
        let wanted = |number: usize| format!("192.0.2.{number}");
        for number in 0..250 {
            let command = if number % 2 == 0 { "add" } else { "remove" };
            filter.knockctl(&["list", command, "staff", &wanted(number / 2)]).expect("knockctl");
        }
        let files = || {
            let folder = fs::read_dir(audit.parent().expect("a folder")).expect("the folder");
            folder.map(|entry| entry.expect("a file").path()).collect::<Vec<_>>()
        };
        eventually("the last change is there", || {
            lines(audit)
                .iter()
                .any(|line| line["operator"]["action"] == "list-remove" && line["source"] == "192.0.2.124")
        });
        assert_eq!(files().len(), 3, "{:?}", files());
        for file in files() {
            let metadata = fs::metadata(&file).expect("a file");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o640, "{}", file.display());
            assert!(metadata.len() <= 65_536, "{}: {}", file.display(), metadata.len());
        }
        let all = ["jsonl.2", "jsonl.1", "jsonl"].map(|end| lines(&audit.with_extension(end))).concat();
        let distinct: BTreeSet<String> = ids(&all).into_iter().collect();
        assert_eq!(distinct.len(), all.len(), "each line once");
        let numbers = ids(&all).iter().filter_map(|id| id.split_once('-')?.1.parse::<u64>().ok()).collect::<Vec<_>>();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "all events, in order: {numbers:?}");
    });
}

/// A small file system, removed when dropped.
struct Tmpfs<'p>(&'p Path);

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_delays_the_audit_file_alone() {
    let folder = Folder::make(&format!("kp{}-full", std::process::id())).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&folder.0).status();
    assert!(mounted.expect("mount").success());
    let _tmpfs = Tmpfs(&folder.0);
    let audit = folder.0.join("audit.jsonl");
    let options = FilterOptions {
        sections: format!("audit = \"{}\"\n{DOOR}", audit.display()),
        ..FilterOptions::from_rules(RULES)
    };
    with(&options, |topology, filter| {
        let end = End::open(&topology.client).expect("an end");
        knock(&end, 1);
        eventually("the first grant is written", || of_source(&lines(&audit), 1).is_some());
        let filler = folder.0.join("filler");
        // Writes until the disk is full.
        let _ = fs::File::create(&filler).expect("a file").write_all(&[0; 128 << 10]);
        let monitor = Monitor::ready(filter, "monitor", &[]);
        (10..40).for_each(|number| knock(&end, number));
        eventually("the firewall and the stream go on", || monitor.granted().len() == 30);
        eventually("the status tells it", || {
            let status = filter.ask(&["show", "status"]).expect("status");
            status["control"]["audit"]["problem"].as_str().is_some_and(|problem| problem.contains("No space left"))
        });
        assert_eq!(filter.metric("knockplane_audit_ok", &[]).expect("a metric"), 0.0);
        assert!(filter.metric("knockplane_audit_failures_total", &[]).expect("a metric") > 0.0);
        assert!(filter.log().contains("the audit file cannot be written"), "{}", filter.log());
        let text = filter.knockctl(&["show", "status"]).expect("knockctl").stdout;
        assert!(text.contains("audit") && text.contains("not written"), "{text}");
        let whole = fs::read_to_string(&audit).expect("the file");
        assert!(whole.ends_with('\n'), "whole lines: {whole}");
        fs::remove_file(&filler).expect("room");
        eventually("the lines follow", || granted(&lines(&audit)).len() == 31);
        assert_eq!(ids(&granted(&lines(&audit)))[1..], ids(&monitor.granted()), "in order, each once");
        assert_eq!(filter.metric("knockplane_audit_ok", &[]).expect("a metric"), 1.0);
    });
}

#[test]
fn a_change_that_ends_while_the_control_process_stops_is_in_the_audit_file() {
    audited("stop", "", |_, filter, audit| {
        let send =
            |process: u32, signal| kill_process(Pid::from_raw(process as i32).expect("an id"), signal).expect("sent");
        let (dataplane, control) = (filter.dataplane.id(), filter.control.id());
        // The request waits for the dataplane while the control process begins to stop.
        send(dataplane, Signal::STOP);
        let added = thread::scope(|scope| {
            let filter = &*filter;
            let added = scope.spawn(|| filter.knockctl(&["list", "add", "door-ssh", "192.0.2.1"]).expect("knockctl"));
            thread::sleep(Duration::from_millis(500));
            send(control, Signal::TERM);
            thread::sleep(Duration::from_millis(500));
            send(dataplane, Signal::CONT);
            added.join().expect("it ends")
        });
        assert!(added.ok(), "{added:?}");
        let is_change = |line: &Value| line["operator"]["action"] == "list-add" && line["operator"]["error"].is_null();
        eventually("the change is in the file", || lines(audit).iter().any(is_change));
    });
}

#[test]
fn a_change_whose_client_disconnects_is_in_the_audit_file() {
    audited("disconnect", "", |_, filter, audit| {
        let send = |signal| {
            kill_process(Pid::from_raw(filter.dataplane.id() as i32).expect("an id"), signal).expect("sent");
        };
        send(Signal::STOP);
        let body = r#"{"address":"192.0.2.1"}"#;
        let request = format!(
            "POST /api/v1/lists/door-ssh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = UnixStream::connect(filter.path("control.sock")).expect("connected");
        client.write_all(request.as_bytes()).expect("sent");
        // The control process has the request and waits for the dataplane.
        thread::sleep(Duration::from_millis(500));
        drop(client);
        thread::sleep(Duration::from_millis(500));
        send(Signal::CONT);
        let is_change = |line: &Value| line["operator"]["action"] == "list-add" && line["operator"]["error"].is_null();
        eventually("the change is in the file", || lines(audit).iter().any(is_change));
    });
}
