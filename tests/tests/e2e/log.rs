//! The log: a line that cannot be written is lost, without any other effect, and no kind of line displaces another.
//!
//! The tests are short, with a low rate. `make soak-log` runs them with the duration and the rate of the environment
//! variables.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use knockplane_tests::{Filter, FilterOptions, Folder, Topology, run};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::Signal;
use serde_json::Value;

use crate::end::End;
use crate::scenario::{PATIENCE, Stop, eventually, with};

/// A door for any source, and a list of operators. All other packets are dropped.
pub(crate) const DOOR: &str =
    "[[door]]\nname = \"ssh\"\nknock = [\"udp/1001\", \"udp/1002\"]\nopens = [\"tcp/22\"]\nfor = \"1h\"\n";
const RULES: &str = "/ip firewall filter\nadd chain=input src-address-list=staff\nadd chain=input action=drop\n";

/// The name of the only log that does not fail.
const WORKS: &str = "works";

const STAFF: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const SCANNER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Duration, frames per second, and whether times are measured.
struct Load {
    time: Duration,
    rate: u64,
    /// Logged packets a second.
    scan: u64,
    is_soak: bool,
}

fn load() -> Load {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("KNOCKPLANE_LOG_SECONDS") {
        None => Load { time: Duration::from_secs(3), rate: 1_000, scan: 20_000, is_soak: false },
        Some(seconds) => {
            let rate = number("KNOCKPLANE_LOG_RATE").unwrap_or(50_000);
            let scan = number("KNOCKPLANE_LOG_SCAN").unwrap_or(200_000);
            Load { time: Duration::from_secs(seconds), rate, scan, is_soak: true }
        }
    }
}

fn options(rules: &str) -> FilterOptions {
    FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules(rules) }
}

/// A frame that no network stack processes: only interfaces count it.
pub(crate) fn frame(source: Ipv4Addr, port: u16, syn: bool) -> Vec<u8> {
    let [client, nobody] = [1, 9].map(|last| [2, 0, 0, 0, 0, last]);
    let ip = PacketBuilder::ethernet2(client, nobody).ipv4(source.octets(), SERVER.octets(), 64);
    let mut frame = Vec::new();
    let written = match syn {
        true => ip.tcp(40_000, port, 1, 1_024).syn().write(&mut frame, &[]),
        false => ip.udp(40_000, port).write(&mut frame, b"payload"),
    };
    written.expect("a frame");
    frame
}

/// The source with this number, each with its own address.
pub(crate) fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 78, 0, 1)) + number)
}

pub(crate) fn knock(end: &End, number: u32) {
    for port in [1001, 1002] {
        end.send(&frame(source(number), port, false)).expect("sent");
    }
}

/// Lost lines of all kinds of a process, and waiting lines.
fn lost(status: &Value, process: &str) -> (u64, u64) {
    let log = if process == "control" { &status["control"]["log"] } else { &status["log"] };
    let lost = log["lost"].as_array().expect("kinds").iter().filter_map(|kind| kind["lines"].as_u64()).sum();
    (lost, log["waiting"].as_u64().expect("a number"))
}

fn door(filter: &Filter<'_>) -> Value {
    filter.ask(&["show", "doors", "--limit", "1000"]).expect("doors")
}

/// Sends accepted frames at a steady rate until stopped. Returns their number.
fn accepted_traffic(topology: &Topology, rate: u64, stop: &AtomicBool) -> u64 {
    let end = End::open(&topology.client).expect("an end");
    let frame = frame(STAFF, 9, false);
    let began = Instant::now();
    let mut sent = 0;
    while !stop.load(Relaxed) {
        while sent < began.elapsed().as_micros() as u64 * rate / 1_000_000 && !stop.load(Relaxed) {
            end.send(&frame).expect("sent");
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Both processes, started by the script with these standard errors, under accepted traffic with knocks, changes and
/// queries of operators. `broken` makes the log fail, once they are ready.
fn endures(
    name: &str,
    script: &str,
    stderr: [Stdio; 2],
    broken: impl FnOnce(&Filter<'_>),
    then: impl FnOnce(&Filter<'_>),
) {
    let (load, fails) = (load(), name != WORKS);
    with(&options(RULES), |topology, filter| {
        filter.restart_by(script, stderr).expect("started again");
        filter.knockctl(&["list", "add", "staff", &STAFF.to_string()]).expect("knockctl");
        broken(filter);
        let end = End::open(&topology.client).expect("an end");
        let arrived = || topology.server.traffic("eth0").expect("counters").1;
        let (stop, before) = (AtomicBool::new(false), arrived());
        let (mut slowest, mut knocks, mut questions) = (Duration::ZERO, 0, 0_u32);
        let sent = thread::scope(|scope| {
            let traffic = scope.spawn(|| accepted_traffic(topology, load.rate, &stop));
            let stops = Stop(&stop);
            let began = Instant::now();
            while began.elapsed() < load.time {
                knock(&end, knocks);
                knocks += 1;
                if knocks % 4 == 0 {
                    let change = if knocks % 8 == 0 { "add" } else { "remove" };
                    let changed = filter.knockctl(&["list", change, "noted", "192.0.2.1"]).expect("knockctl");
                    assert!(changed.ok() || knocks == 4, "{name}: {changed:?}");
                    let asked = Instant::now();
                    let answer = filter.knockctl(&["show", "status"]).expect("knockctl");
                    slowest = slowest.max(asked.elapsed());
                    questions += 1;
                    assert!(answer.ok(), "{name}: {answer:?}");
                }
                thread::sleep(Duration::from_millis(25));
            }
            drop(stops);
            traffic.join().expect("the traffic")
        });
        let received = || filter.metric("knockplane_rx_packets_total", &["side=\"outside\""]).unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        while arrived() - before < sent {
            let (there, drops) = (arrived() - before, filter.http("/metrics").unwrap_or_default());
            let drops: Vec<_> =
                drops.lines().filter(|line| line.contains("_drops_total{") && !line.ends_with(" 0")).collect();
            let taken = received();
            assert!(
                Instant::now() < until,
                "{name}: {there} of {sent} frames arrived; the filter got {taken}: {drops:?}"
            );
            thread::sleep(Duration::from_millis(100));
        }
        let opened = door(filter)["doors"][0]["opened"].as_u64().expect("a counter");
        assert_eq!(opened, u64::from(knocks), "{name}: every knock opens");
        let status = filter.ask(&["show", "status"]).expect("status");
        let (dataplane, control) = (lost(&status, "dataplane"), lost(&status, "control"));
        println!(
            "{name}: {sent} frames in {:?}, none lost; {knocks} knocks; slowest of {questions} answers {slowest:?}; \
             lines lost and waiting: dataplane {dataplane:?}, control {control:?}",
            load.time
        );
        if fails {
            assert!(dataplane.0 + dataplane.1 > 0 && control.0 + control.1 > 0, "{name}: {status}");
        } else {
            assert_eq!((dataplane.0, control.0), (0, 0), "{name}: {status}");
        }
        let metric = filter.metric("knockplane_log_lines_lost_total", &["process=\"dataplane\""]).expect("a counter");
        assert!(metric as u64 >= dataplane.0, "{name}: {metric}");
        assert!(!load.is_soak || slowest < Duration::from_millis(100), "{name}: {slowest:?}");
        then(filter);
        for process in [&mut filter.dataplane, &mut filter.control] {
            assert!(process.runs().expect("known"), "{name}: it runs");
            let ended = process.stop(Signal::TERM).expect("it ends");
            assert!(ended.success(), "{name}: {ended}");
        }
    });
}

fn everything_is_lost(filter: &Filter<'_>, problem: &str) {
    let status = filter.ask(&["show", "status"]).expect("status");
    for log in [&status["log"], &status["control"]["log"]] {
        assert!(log["problem"].as_str().is_some_and(|said| said.contains(problem)), "{status}");
        assert_eq!(log["waiting"], 0, "{status}");
    }
}

/// The readers and writers of two pipes, whose ends no other child inherits.
fn pipes() -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    [(); 2].map(|()| pipe_with(PipeFlags::CLOEXEC).expect("a pipe")).into_iter().unzip()
}

#[test]
fn a_log_with_a_reader_loses_nothing() {
    let folder = Folder::make(&format!("kp{}-works", std::process::id())).expect("a folder");
    let file = |name: &str| Stdio::from(fs::File::create(folder.0.join(name)).expect("a file"));
    endures(
        WORKS,
        "exec \"$@\"",
        [file("dataplane"), file("control")],
        |_| {},
        |filter| {
            let opened = door(filter)["doors"][0]["opened"].as_u64().expect("a counter");
            let log = || fs::read_to_string(folder.0.join("dataplane")).expect("the log");
            eventually("each opening is logged", || log().matches("door opened").count() as u64 == opened);
        },
    );
}

#[test]
fn a_log_on_a_full_disk_costs_lines_and_nothing_else() {
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").expect("/dev/full"));
    let lost = |filter: &Filter<'_>| {
        eventually("the lines are counted", || {
            let status = filter.ask(&["show", "status"]).expect("status");
            status["log"]["waiting"] == 0 && status["control"]["log"]["waiting"] == 0
        });
        everything_is_lost(filter, "No space left");
    };
    endures("/dev/full", "exec \"$@\"", [full(), full()], |_| {}, lost);
}

#[test]
fn a_log_whose_reader_goes_away_costs_lines_and_nothing_else() {
    let (readers, writers) = pipes();
    let stderr: [_; 2] = writers.into_iter().map(Stdio::from).collect::<Vec<_>>().try_into().expect("two");
    endures("broken pipe", "exec \"$@\"", stderr, |_| drop(readers), |_| {});
}

#[test]
fn a_log_whose_reader_stalls_costs_lines_and_nothing_else() {
    let (readers, writers) = pipes();
    for writer in &writers {
        // The pipe is full from the start.
        let size = fcntl_setpipe_size(writer, 4096).expect("a small pipe");
        rustix::io::write(writer, &vec![b'\n'; size]).expect("all of it");
    }
    let stderr: [_; 2] = writers.into_iter().map(Stdio::from).collect::<Vec<_>>().try_into().expect("two");
    endures(
        "stalled reader",
        "exec \"$@\"",
        stderr,
        |_| {},
        |filter| {
            let status = filter.ask(&["show", "status"]).expect("status");
            let problem = status["log"]["problem"].as_str().unwrap_or_default();
            assert!(problem.contains("has not been read for"), "{status}");
        },
    );
    drop(readers);
}

#[test]
fn a_log_that_was_closed_costs_lines_and_nothing_else() {
    // The first files that the process opens would get these numbers.
    let script = "exec \"$@\" <&- >&- 2>&-";
    endures(
        "closed",
        script,
        [Stdio::null(), Stdio::null()],
        |_| {},
        |filter| {
            everything_is_lost(filter, "was closed");
            for process in [&filter.dataplane, &filter.control] {
                for descriptor in 0..=2 {
                    let leads = fs::read_link(format!("/proc/{}/fd/{descriptor}", process.id())).expect("a descriptor");
                    assert_eq!(leads.to_str(), Some("/dev/null"), "descriptor {descriptor}");
                }
            }
        },
    );
}

#[test]
fn a_log_on_a_full_file_system_continues_once_there_is_room() {
    let folder = env::temp_dir().join(format!("kp{}-tiny", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let tiny = folder.display().to_string();
    // `ip netns exec` gives each process its own mounts, which are removed with it. Fewer than 200 bytes are left for
    // the log.
    let script = format!(
        "mount -t tmpfs -o size=16k none {tiny} && head -c 12288 /dev/zero > {tiny}/filler && \
         head -c 3900 /dev/zero | tr '\\000' '\\n' > {tiny}/log && exec \"$@\" 2>> {tiny}/log"
    );
    endures(
        "full tmpfs",
        &script,
        [Stdio::null(), Stdio::null()],
        |_| {},
        |filter| {
            for process in [&filter.dataplane, &filter.control] {
                let seen = format!("/proc/{}/root{tiny}", process.id());
                let log = || fs::read_to_string(format!("{seen}/log")).expect("the log");
                let before = log();
                assert!(before.len() <= 4096 && !before.contains("not logged"), "{before}");
                fs::remove_file(format!("{seen}/filler")).expect("room");
                eventually("the losses are reported", || log().contains("not logged"));
                let whole = |line: &str| line.is_empty() || line.contains(" INFO ") || line.contains(" WARN ");
                let text = log();
                let cut =
                    text.lines().filter(|line| line.matches("Z ").count() > 1 || !whole(line)).collect::<Vec<_>>();
                assert!(cut.len() <= 1, "a line that was cut ends before the next: {cut:?}");
                assert!(cut.iter().all(|line| line.matches("Z ").count() <= 1), "{cut:?}");
            }
        },
    );
    fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_logged_scan_displaces_no_line_about_doors() {
    const SOURCES: u32 = 100;
    let load = load();
    let rules = "/ip firewall filter\nadd chain=input action=drop log=yes log-prefix=scan\n";
    // A second knock of a source does not open the door again.
    let options = options(rules);
    let options = FilterOptions { sections: format!("{}hold-off = \"1h\"\n", options.sections), ..options };
    with(&options, |topology, filter| {
        let (stop, scanned) = (AtomicBool::new(false), AtomicU64::new(0));
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let end = End::open(&topology.client).expect("an end");
                let frames: Vec<_> = (20_000..21_000).map(|port| frame(SCANNER, port, true)).collect();
                let began = Instant::now();
                for (number, frame) in (0..).zip(frames.iter().cycle()) {
                    if stop.load(Relaxed) {
                        break;
                    }
                    // If the sender is late, it sends without pauses.
                    while number > began.elapsed().as_micros() as u64 * load.scan / 1_000_000 {
                        thread::yield_now();
                    }
                    // The kernel's buffers may be full.
                    scanned.fetch_add(end.send(frame).is_ok().into(), Relaxed);
                }
            });
            let _stops = Stop(&stop);
            let end = End::open(&topology.client).expect("an end");
            let mut left: HashSet<u32> = (0..SOURCES).collect();
            while !left.is_empty() || began.elapsed() < load.time {
                for number in &left {
                    knock(&end, *number);
                    thread::sleep(Duration::from_millis(5));
                }
                let doors = door(filter);
                let open =
                    doors["open"].as_array().expect("sources").iter().filter_map(|open| open["address"].as_str());
                let open: HashSet<String> = open.map(str::to_owned).collect();
                left.retain(|number| !open.contains(&source(*number).to_string()));
                assert!(began.elapsed() < load.time + Duration::from_secs(60), "{} do not get in", left.len());
            }
        });
        let took = began.elapsed();
        let opened = door(filter)["doors"][0]["opened"].as_u64().expect("a counter") as usize;
        let log = || fs::read_to_string(filter.path("knockplane-dataplane.log")).expect("the log");
        let openings =
            || log().lines().filter(|line| line.contains("door opened")).map(str::to_owned).collect::<Vec<_>>();
        let since = Instant::now();
        while openings().len() < opened && since.elapsed() < Duration::from_secs(2) {
            thread::sleep(Duration::from_millis(20));
        }
        let doors = openings();
        assert_eq!((doors.len(), opened), (SOURCES as usize, SOURCES as usize), "each opening is logged, once");
        let sources: HashSet<_> = (0..SOURCES).map(|number| format!("source={} ", source(number))).collect();
        assert!(sources.iter().all(|source| doors.iter().any(|line| line.contains(source))), "{doors:?}");
        let matched = || filter.ask(&["show", "rules"]).expect("rules")["rules"].clone();
        let mut told = (0, 0, 0);
        eventually("every packet is a line or is reported as none", || {
            let rule = matched().as_array().expect("rules").last().expect("the drop")["counter"]["packets"].as_u64();
            let (lines, not_logged) = scan_lines(&log());
            told = (lines, not_logged, rule.expect("a counter"));
            told.0 + told.1 == told.2
        });
        println!(
            "{} frames sent in {took:?}, {:.0} a second; {} matched: {} logged, {} reported as not logged; {} doors \
             opened, {} lines say so",
            scanned.load(Relaxed),
            scanned.load(Relaxed) as f64 / took.as_secs_f64(),
            told.2,
            told.0,
            told.1,
            opened,
            doors.len()
        );
        assert!(told.1 > 0, "more than can be logged was scanned");
    });
}

/// Lines about scanned packets, and packets that lines report as not logged.
fn scan_lines(log: &str) -> (u64, u64) {
    let lines = log.lines().filter(|line| line.contains("scan input:")).count() as u64;
    let reports = log.lines().filter(|line| line.contains("of rule") && line.contains("not logged"));
    let number = |line: &str| line.rsplit_once("lines=").and_then(|(_, number)| number.parse::<u64>().ok());
    (lines, reports.filter_map(number).sum())
}

/// Checks that the line of a closing has the same fields in the same order as the line of its opening, except for the cause.
/// Returns the values of the closing, by field.
fn same_fields(opened: &Value, closed: &Value) -> serde_json::Map<String, Value> {
    let names = |line: &Value| {
        let names = line["fields"].as_object().expect("fields").keys();
        names.filter(|name| *name != "entry.cause").cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(opened), names(closed), "{opened} {closed}");
    closed["fields"].as_object().expect("fields").clone()
}

#[test]
fn openings_and_closings_of_doors_have_the_same_fields_in_text_and_json() {
    const V6: &str = "2001:db8:77::";
    let doors = "[[door]]\nname = \"short\"\nknock = [\"udp/1001\"]\nclose = [\"udp/1009\"]\nopens = [\"tcp/22\"]\n\
                 for = \"1s\"\n";
    let rules = "/ip firewall filter\nadd chain=input action=drop log=yes log-prefix=scan\n\
                 /ipv6 firewall filter\nadd chain=input action=drop log=yes log-prefix=six\n";
    let options = FilterOptions { sections: doors.to_owned(), ..FilterOptions::from_rules(rules) };
    with(&options, |topology, filter| {
        let end = End::open(&topology.client).expect("an end");
        let datagram = |port: u16| {
            let mut frame = Vec::new();
            let address = |last| format!("{V6}{last}").parse::<std::net::Ipv6Addr>().expect("an address").octets();
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9])
                .ipv6(address(1), address(2), 64)
                .udp(40_000, port)
                .write(&mut frame, b"payload")
                .expect("a frame");
            frame
        };
        let text = || fs::read_to_string(filter.path("knockplane-dataplane.log")).expect("the log");
        end.send(&frame(source(1), 1001, false)).expect("sent");
        eventually("an expiry is a closing", || text().contains("door closed"));
        end.send(&frame(source(2), 1001, false)).expect("sent");
        eventually("the second one gets in", || text().matches("door opened").count() == 2);
        end.send(&frame(source(2), 1009, false)).expect("sent");
        eventually("a knock closes", || text().matches("door closed").count() == 2);
        let lines: Vec<String> = text().lines().filter(|line| line.contains(" door ")).map(str::to_owned).collect();
        let line = |what: &str, number, kind: &str, cause: &str| {
            format!(
                " INFO door {what} door=\"short\" source={} kind=\"{kind}\"{cause} entry.to.address={SERVER}",
                source(number)
            )
        };
        let packet = " entry.cause=\"packet\"";
        let expected = [
            line("opened", 1, "granted", packet),
            line("closed", 1, "expired", ""),
            line("opened", 2, "granted", packet),
            line("closed", 2, "removed", packet),
        ];
        let before_expiry = |line: &str| line.split_once(" entry.expires=").map(|(line, _)| line.to_owned());
        let lines: Vec<String> = lines.iter().filter_map(|line| before_expiry(line)).collect();
        assert!(lines.len() == 4 && lines.iter().zip(&expected).all(|(line, end)| line.ends_with(end)), "{lines:#?}");
        assert!(!text().contains("expired source="), "no second line of the list");

        let json = filter.path("json.log");
        let stderr = [Stdio::from(fs::File::create(&json).expect("a file")), Stdio::null()];
        filter.restart_by("exec \"$@\" --log-format json", stderr).expect("started again");
        let lines = || -> Vec<Value> {
            let text = fs::read_to_string(&json).expect("the log");
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let find = |what: &str, field: &str, value: &str| {
            lines().into_iter().find(|line| {
                line["fields"]["message"].as_str().is_some_and(|said| said.starts_with(what))
                    && line["fields"][field] == value
            })
        };
        end.send(&datagram(1001)).expect("sent");
        end.send(&frame(SCANNER, 9, true)).expect("sent");
        eventually("an IPv6 grant ends", || find("door closed", "kind", "expired").is_some());
        let opened = find("door opened", "kind", "granted").expect("it was opened");
        let closed = same_fields(&opened, &find("door closed", "kind", "expired").expect("it is there"));
        assert_eq!(
            (&closed["source"], &closed["entry.to.address"]),
            (&format!("{V6}1").into(), &format!("{V6}2").into())
        );
        let scanned = find("scan input:", "packet.chain", "input").expect("the packet is logged");
        let fields = &scanned["fields"];
        assert_eq!((&fields["source"], &fields["packet.source_port"]), (&SCANNER.to_string().into(), &40_000.into()));
        let destination = (&fields["packet.destination"], &fields["packet.destination_port"]);
        assert_eq!(destination, (&SERVER.to_string().into(), &9.into()));
        assert_eq!((&fields["packet.protocol"], &fields["packet.side"]), (&"tcp".into(), &"outside".into()));
        let shown = filter.ask(&["show", "rules"]).expect("rules");
        let rules = shown["rules"].as_array().expect("rules");
        let last = rules.iter().rfind(|rule| rule["menu"] == "/ip firewall filter").expect("a rule");
        assert_eq!(fields["rule.number"], last["number"], "as `show rules` counts");
    });
}

/// The fields of a datagram in the journal's native protocol: a line for each field, or a name and a length before a value
/// with line ends. Source: systemd, `docs/JOURNAL_NATIVE_PROTOCOL.md`.
fn journal_fields(mut datagram: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&datagram[..end]).into_owned();
        datagram = &datagram[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.push((name.to_owned(), value.to_owned()));
        } else {
            let (length, rest) = datagram.split_first_chunk::<8>().expect("a length");
            let (value, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
            fields.push((line, String::from_utf8_lossy(value).into_owned()));
            datagram = &rest[1..];
        }
    }
    fields
}

#[test]
fn journald_gets_a_field_for_each_value_and_its_absence_is_an_error() {
    let folder = Folder::make(&format!("kp{}-journal", std::process::id())).expect("a folder");
    let journal = UnixDatagram::bind(folder.0.join("socket")).expect("a socket");
    journal.set_read_timeout(Some(PATIENCE)).expect("set");
    // `ip netns exec` gives each process its own mounts.
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && \
         exec \"$@\" --log-format journald",
        folder.0.display()
    );
    with(&options(RULES), |topology, filter| {
        filter.restart_by(&script, [Stdio::null(), Stdio::null()]).expect("started again");
        let end = End::open(&topology.client).expect("an end");
        knock(&end, 1);
        filter.knockctl(&["list", "add", "noted", "192.0.2.1"]).expect("knockctl");
        let (mut opened, mut added) = (None, None);
        let mut room = vec![0; 64 << 10];
        while opened.is_none() || added.is_none() {
            let length = journal.recv(&mut room).expect("a line");
            let fields: HashMap<String, String> = journal_fields(&room[..length]).into_iter().collect();
            match fields["MESSAGE"].split_once(' ').expect("words").0 {
                "door" => opened = Some(fields),
                "entry" => added = Some(fields),
                _ => {}
            }
        }
        let (opened, added) = (opened.expect("a grant"), added.expect("a change"));
        assert_eq!((&*opened["KNOCKPLANE_DOOR"], &*opened["KNOCKPLANE_ENTRY_CAUSE"]), ("ssh", "packet"), "{opened:?}");
        assert_eq!((&*opened["PRIORITY"], &*opened["SYSLOG_IDENTIFIER"]), ("6", "knockplane-dataplane"), "{opened:?}");
        assert!(opened["MESSAGE"].starts_with("door opened ") && opened["KNOCKPLANE_ID"].contains('-'), "{opened:?}");
        assert_eq!((&*added["KNOCKPLANE_LIST"], &*added["SYSLOG_IDENTIFIER"]), ("noted", "knockplane-control"));
        for program in ["knockplane-dataplane", "knockplane-control"] {
            // Without journald, the reason is on standard error.
            let line = format!(
                "unshare -m sh -c 'mount -t tmpfs none /run && exec {} --log-format journald'",
                knockplane_tests::binary(program).expect("built").display()
            );
            let refused = run(Command::new("sh").args(["-c", &line])).expect("started");
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(
                refused.stderr.contains("journald does not listen") && refused.stderr.contains("text"),
                "{refused:?}"
            );
        }
    });
}
