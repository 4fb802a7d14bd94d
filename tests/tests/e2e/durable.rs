//! Grants and entries with a timeout outlive the dataplane and the control process, however these end. What was removed
//! or has expired does not return.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use knockplane_tests::{Filter, FilterOptions, SERVER, Topology};
use rustix::process::Signal;

use crate::doors::{goes_on, session};
use crate::end::{End, mac_of};
use crate::fast_path::{self, matched, receiver, send, with_fast_path};
use crate::random::Random;
use crate::restart::SmallDisk;
use crate::scenario::{CLIENT, eventually, knock, listed, tcp_echo, udp_to, with};

/// Two packets lead into `secured`.
const RULES: &str = "/ip firewall filter
add action=add-src-to-address-list address-list=temporary address-list-timeout=10s chain=input dst-port=1234 protocol=udp
add action=add-src-to-address-list address-list=secured address-list-timeout=1h chain=input dst-port=4321 protocol=udp src-address-list=temporary
add action=accept chain=input src-address-list=secured
add action=accept chain=input src-address-list=friends
add action=drop chain=input
";

const DOOR: &str =
    "[[door]]\nname = \"echo\"\nknock = [\"tcp/7000\", \"udp/7001\"]\nopens = [\"tcp/8081\"]\nfor = \"1h\"\n";

/// A time after which a change is on the disk: the longest time between two groups, and a sync.
const STORED: Duration = Duration::from_millis(500);

fn options() -> FilterOptions {
    FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules(RULES) }
}

fn control(filter: &Filter<'_>, arguments: &[&str]) {
    let output = filter.knockctl(arguments).expect("knockctl runs");
    assert!(output.ok(), "knockctl {arguments:?}: {output:?}");
}

/// The dynamic entries of a list, with the seconds that they have left.
fn entries(filter: &Filter<'_>, list: &str) -> BTreeMap<String, f64> {
    let lists = filter.ask(&["show", "lists", list]).expect("lists are shown");
    let entries = lists["entries"].as_array().expect("entries").iter();
    let left = |entry: &serde_json::Value| entry["time_left_seconds"].as_f64().expect("seconds");
    entries.map(|entry| (entry["address"].as_str().expect("an address").to_owned(), left(entry))).collect()
}

/// The entries of a list, each with its comment.
fn comments(filter: &Filter<'_>, list: &str) -> Vec<String> {
    let lists = filter.ask(&["show", "lists", list]).expect("lists are shown");
    let entries = lists["entries"].as_array().expect("entries").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let mut lines: Vec<_> =
        entries.map(|entry| format!("{} {}", text(&entry["address"]), text(&entry["comment"]))).collect();
    lines.sort();
    lines
}

/// The addresses of all entries of a list, however many there are.
fn exported(filter: &Filter<'_>, list: &str) -> BTreeSet<String> {
    let output = filter.knockctl(&["list", "show", list, "--export"]).expect("knockctl runs");
    assert!(output.ok(), "{output:?}");
    let words = output.stdout.split_whitespace();
    words.filter_map(|word| word.strip_prefix("address=")).map(str::to_owned).collect()
}

/// Which processes are killed.
#[derive(Clone, Copy, Debug)]
enum Killed {
    Dataplane,
    Control,
    Both,
}

fn kill_and_restart(filter: &mut Filter<'_>, killed: Killed) {
    if !matches!(killed, Killed::Dataplane) {
        filter.control.kill().expect("killed");
    }
    if !matches!(killed, Killed::Control) {
        filter.dataplane.kill().expect("killed");
        if matches!(killed, Killed::Both) {
            // Without control.
            filter.start_dataplane().expect("the dataplane starts");
        } else {
            filter.restart_dataplane().expect("the dataplane starts");
        }
    }
    if !matches!(killed, Killed::Dataplane) {
        filter.restart_control().expect("control starts");
    }
}

#[test]
fn grants_entries_and_sessions_outlive_kills() {
    with(&options(), |topology, filter| {
        serve_echo(topology);
        knock(topology, "7000:tcp 7001:udp");
        eventually("the door opens", || listed(filter, "door-echo", CLIENT));
        let mut idle = session(topology, ECHO);
        control(filter, &["list", "add", "friends", "192.0.2.1", "--timeout", "1h"]);
        control(filter, &["list", "add", "friends", "192.0.2.2", "--timeout", "2s"]);
        control(filter, &["list", "add", "friends", "192.0.2.3", "--timeout", "1h"]);
        control(filter, &["list", "remove", "friends", "192.0.2.3"]);
        thread::sleep(STORED);
        for killed in [Killed::Dataplane, Killed::Both, Killed::Control, Killed::Dataplane] {
            let before = entries(filter, "friends");
            let mut transferring = session(topology, ECHO);
            let transfer = thread::spawn(move || exchange(&mut transferring, Duration::from_secs(3)));
            kill_and_restart(filter, killed);
            assert!(transfer.join().expect("it ends") > 0, "{killed:?}: a transferring session goes on");
            assert!(listed(filter, "door-echo", CLIENT), "{killed:?}");
            eventually("a new session is accepted", || tcp_echo(topology, ECHO));
            let after = entries(filter, "friends");
            assert_eq!(
                after.keys().collect::<Vec<_>>(),
                ["192.0.2.1"],
                "{killed:?}: the others were removed or expired"
            );
            let (before, after) = (before["192.0.2.1"], after["192.0.2.1"]);
            assert!(after < before && after > before - 60.0, "{killed:?}: {before} s, then {after} s");
        }
        idle.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        goes_on(&mut idle);
        let status = filter.ask(&["show", "status"]).expect("the status");
        assert_eq!(status["journal"]["restore"]["restored"], 2, "{}", status["journal"]);
        control(filter, &["list", "flush", "door-echo"]);
        kill_and_restart(filter, Killed::Dataplane);
        assert!(!listed(filter, "door-echo", CLIENT) && !tcp_echo(topology, ECHO), "a closed door stays closed");
    });
}

#[test]
fn prefixes_ranges_and_comments_of_operators_outlive_kills() {
    with(&options(), |_, filter| {
        let add = |filter: &Filter<'_>, address: &str, timeout: &str, comment: &str| {
            control(filter, &["list", "add", "friends", address, "--timeout", timeout, "--comment", comment]);
        };
        add(filter, "198.51.100.0/24", "1h", "an office");
        add(filter, "203.0.113.5-203.0.113.9", "1h", "guests");
        add(filter, "192.0.2.1", "1h", "Ada");
        add(filter, "2001:db8::/32", "2s", "a moment");
        add(filter, "10.0.0.0/8", "1h", "a mistake");
        control(filter, &["list", "remove", "friends", "10.0.0.0/8"]);
        // Each command was answered when its change was on the disk.
        kill_and_restart(filter, Killed::Dataplane);
        thread::sleep(Duration::from_secs(2));
        for killed in [Killed::Both, Killed::Dataplane] {
            let before = entries(filter, "friends");
            kill_and_restart(filter, killed);
            let comments: Vec<_> = comments(filter, "friends");
            let expected = ["192.0.2.1 Ada", "198.51.100.0/24 an office", "203.0.113.5-203.0.113.9 guests"];
            assert_eq!(comments, expected, "{killed:?}: the others were removed or expired");
            for (address, after) in entries(filter, "friends") {
                let before = before[&address];
                assert!(after < before && after > before - 60.0, "{killed:?}: {address}: {before} s, then {after} s");
            }
            let explained = filter.knockctl(&["explain-source", "198.51.100.7"]).expect("knockctl runs");
            assert!(explained.ok() && explained.stdout.contains("friends"), "{explained:?}");
        }
        control(filter, &["list", "remove", "friends", "198.51.100.0/24"]);
        kill_and_restart(filter, Killed::Dataplane);
        assert_eq!(comments(filter, "friends"), ["192.0.2.1 Ada", "203.0.113.5-203.0.113.9 guests"]);
        control(filter, &["list", "flush", "friends"]);
        kill_and_restart(filter, Killed::Dataplane);
        assert!(comments(filter, "friends").is_empty());
    });
}

#[test]
fn counters_of_rules_continue_after_a_kill_an_end_and_damage() {
    with_fast_path(&FilterOptions::from_rules(fast_path::RULES), |topology, filter| {
        let (sender, receiver) = (udp_to(topology, fast_path::PORT), receiver(topology));
        let counts = |filter: &Filter<'_>| (matched(filter, "granted"), matched(filter, "others"));
        let scraped = |filter: &Filter<'_>| filter.metric("knockplane_rule_packets_total", &[]).expect("series");
        assert_eq!(send(&sender, &receiver, 1), 0, "a stranger");
        control(filter, &["list", "add", "secured", CLIENT]);
        assert_eq!(send(&sender, &receiver, 5), 500);
        assert!(fast_path::carried(filter) > 0, "the kernel counts a part of them");
        assert_eq!((counts(filter), scraped(filter)), ((500, 100), 600.0));
        // What a scrape has shown is stored at once.
        thread::sleep(STORED);
        kill_and_restart(filter, Killed::Both);
        assert_eq!((counts(filter), scraped(filter)), ((500, 100), 600.0));
        // Without a scrape, it is stored some seconds later.
        assert_eq!(send(&sender, &receiver, 1), 100);
        thread::sleep(Duration::from_secs(6));
        kill_and_restart(filter, Killed::Dataplane);
        assert_eq!(counts(filter), (600, 100));
        // An end stores the last counts.
        assert_eq!(send(&sender, &receiver, 1), 100);
        assert!(filter.dataplane.stop(Signal::TERM).expect("an end").success());
        filter.restart_dataplane().expect("the dataplane starts");
        assert_eq!(counts(filter), (700, 100));
        filter.dataplane.kill().expect("killed");
        let file = filter.path("state").join("counters.state");
        let mut damaged = fs::read(&file).expect("a file");
        damaged[40] ^= 1;
        fs::write(&file, &damaged).expect("written");
        filter.restart_dataplane().expect("the dataplane starts");
        assert_eq!(counts(filter), (0, 0));
        assert_eq!(filter.metric("knockplane_stored_counters_damaged", &[]).expect("a gauge"), 1.0);
        let ready = filter.http("/readyz").expect("an answer");
        assert!(ready.starts_with("ready") && ready.contains("counters.state is damaged"), "{ready}");
        assert_eq!(fs::read(filter.path("state").join("counters.state.aside-1")).expect("kept"), damaged);
    });
}

/// The port of a server that echoes until the end of a connection.
const ECHO: u16 = 8081;

fn serve_echo(topology: &Topology) {
    let listener = topology.server.within(|| Ok(TcpListener::bind((SERVER, ECHO))?)).expect("the port is free");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
}

/// Sends numbers to the echo server for this time, and compares what returns. Returns how many there were.
fn exchange(session: &mut TcpStream, time: Duration) -> u64 {
    session.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let until = Instant::now() + time;
    let mut sent = 0_u64;
    while Instant::now() < until {
        let bytes = sent.to_be_bytes();
        session.write_all(&bytes).expect("the session goes on");
        let mut echo = [0; 8];
        session.read_exact(&mut echo).expect("the server answers");
        assert_eq!(echo, bytes);
        sent += 1;
    }
    sent
}

#[test]
fn a_full_disk_closes_nothing_and_the_journal_catches_up() {
    let topology = Topology::new(1).expect("a topology");
    let folder = std::env::temp_dir().join(topology.filter.name());
    let disk = SmallDisk::mount(folder.join("state"), "256k");
    let mut filter = Filter::start(&topology, &options()).expect("the filter starts");
    let ok = |filter: &Filter<'_>| filter.metric("knockplane_journal_ok", &[]).expect("a gauge");
    eventually("the journal is complete", || ok(&filter) == 1.0);
    let ballast = disk.0.join("ballast");
    let _ = fs::write(&ballast, vec![1; 1 << 20]);
    serve_echo(&topology);
    // Enough changes for more than the last page of the file.
    let add = |filter: &Filter<'_>, third: u32| {
        let lines: String = (0..200).map(|host| format!("friends 10.9.{third}.{host} 1h\n")).collect();
        let file = filter.path("more.txt");
        fs::write(&file, lines).expect("written");
        control(filter, &["list", "import", file.to_str().expect("text")]);
    };
    add(&filter, 1);
    eventually("the journal lacks changes", || ok(&filter) == 0.0);
    knock(&topology, "7000:tcp 7001:udp");
    eventually("the door opens", || listed(&filter, "door-echo", CLIENT));
    assert!(tcp_echo(&topology, ECHO), "traffic passes");
    let ready = filter.http("/readyz").expect("an answer");
    assert!(ready.starts_with("ready") && ready.contains("grants are not on the disk"), "{ready}");
    fs::remove_file(&ballast).expect("removed");
    eventually("the journal is complete again", || ok(&filter) == 1.0);
    assert!(filter.metric("knockplane_journal_failures_total", &[]).expect("a counter") >= 1.0);
    filter.dataplane.kill().expect("killed");
    filter.restart_dataplane().expect("the dataplane starts");
    assert!(listed(&filter, "door-echo", CLIENT));
    assert_eq!(entries(&filter, "friends").len(), 200);
}

/// Rounds of kills; `make soak-restarts` has 500.
fn rounds() -> u32 {
    std::env::var("KNOCKPLANE_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

/// Rounds until the list is flushed: more sources than its capacity would evict each other.
const ROUNDS_OF_SOURCES: u32 = 15;

/// Sends the packets of a knock from any source.
struct Knocker {
    end: End,
    mac: [u8; 6],
}

impl Knocker {
    fn send(&self, source: [u8; 4], port: u16) {
        let server: std::net::Ipv4Addr = SERVER.parse().expect("IPv4");
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], self.mac).ipv4(source, server.octets(), 64);
        packet.udp(40_000, port).write(&mut frame, b"knock").expect("a vector takes any frame");
        self.end.send(&frame).expect("sent");
    }
}

#[test]
fn after_kills_at_random_times_no_grant_is_lost_and_none_is_unearned() {
    with(&options(), |topology, filter| {
        let end = End::open(&topology.client).expect("the outside's end");
        let knocker = Knocker { end, mac: mac_of(&topology.server) };
        let mut dice = Random(std::process::id().into());
        // Who has knocked in time, who may have, and who was removed.
        let (mut earned, mut possible, mut removed) =
            (BTreeSet::<String>::new(), BTreeSet::<String>::new(), BTreeSet::<String>::new());
        let mut next = 0_u32;
        for round in 0..rounds() {
            let is_first = round % ROUNDS_OF_SOURCES == 0;
            if is_first {
                control(filter, &["list", "flush", "secured"]);
                removed.append(&mut earned);
            }
            let kill = Instant::now() + Duration::from_millis(300 + dice.below(700) as u64);
            let mut knocks = Vec::new();
            while Instant::now() < kill {
                let source = [10, (next >> 16) as u8, (next >> 8) as u8, next as u8];
                next += 1;
                knocker.send(source, 1234);
                // Some never finish their knock: they earn nothing.
                if !dice.percent(10) {
                    possible.insert(address(source));
                    knocks.push((Instant::now(), address(source)));
                    knocker.send(source, 4321);
                }
                thread::sleep(Duration::from_millis(2));
            }
            let killed = dice.of(&[Killed::Dataplane, Killed::Control, Killed::Both]);
            let died = Instant::now();
            if dice.percent(50)
                && let Some(one) = earned.pop_first()
            {
                control(filter, &["list", "remove", "secured", &one]);
                removed.insert(one);
            }
            // The lists count the time of the boot, so a wall clock that is set loses and extends nothing.
            filter.set_wall_clock(dice.of(&[-1, 0, 1])).expect("set");
            kill_and_restart(filter, killed);
            // The ring takes all of these few packets, so the earlier ones were decided and stored.
            let stored =
                knocks.iter().filter(|(at, _)| died.duration_since(*at) > STORED || matches!(killed, Killed::Control));
            earned.extend(stored.map(|(_, source)| source.clone()).filter(|source| !removed.contains(source)));
            let found = exported(filter, "secured");
            let lost: Vec<_> = earned.difference(&found).collect();
            let unearned: Vec<_> =
                found.iter().filter(|one| !possible.contains(*one) || removed.contains(*one)).collect();
            assert!(
                lost.is_empty() && unearned.is_empty(),
                "round {round}, {killed:?}: lost {lost:?}, unearned {unearned:?}"
            );
            assert!(is_first || !earned.is_empty());
            for (one, left) in entries(filter, "secured") {
                assert!((3_000.0..=3_600.0).contains(&left), "round {round}, {killed:?}: {one} has {left} s left");
            }
            earned = found;
        }
        // The clock of these processes is the one that the test sets.
        filter.set_wall_clock(0).expect("set");
        kill_and_restart(filter, Killed::Both);
        filter.set_wall_clock(1).expect("set");
        let steps = || filter.metric("knockplane_wall_clock_steps_total", &[]).expect("a counter");
        eventually("the dataplane sees the step", || steps() >= 1.0);
    });
}

fn address(source: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(source).to_string()
}
