//! `knockctl top` in a terminal, under traffic: rates, order, filter, sizes, its end, and daemons that end meanwhile.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_tests::{CLIENT, Filter, FilterOptions, Terminal, VISITOR, key};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fast_path::{PORT, RULES, control, receiver, with_fast_path};
use crate::scenario::{Stop, eventually, udp_from, udp_to, with};

/// Packets a second of the known flow, and of a stranger.
const RATE: u64 = 500;

/// A usual small terminal: rows, columns.
pub(crate) const SCREEN: (u16, u16) = (24, 80);

/// `knockctl` in a terminal.
pub(crate) fn on_screen(filter: &Filter<'_>, arguments: &[&str]) -> Terminal {
    Terminal::start(&mut filter.command(arguments).expect("built"), SCREEN)
        .expect("a terminal (needs util-linux's setsid)")
}

/// Sends packets of 100 bytes of payload from each socket, [`RATE`] of them a second, while `test` runs.
pub(crate) fn under_traffic(sockets: &[&UdpSocket], test: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stops = Stop(&is_over);
        scope.spawn(|| {
            let begin = Instant::now();
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                while sent < (begin.elapsed().as_secs_f64() * RATE as f64) as u64 {
                    // The far end may refuse.
                    sockets.iter().for_each(|socket| _ = socket.send(&[0x2e; 100]));
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        test();
    });
}

/// The line of the screen with this text, in words.
fn words(screen: &str, text: &str) -> Option<Vec<String>> {
    let line = screen.lines().find(|line| line.contains(text))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

/// A short number of the screen: `1250`, `75.0k`.
fn number(word: &str) -> Option<f64> {
    let digits = word.trim_end_matches(|letter: char| letter.is_alphabetic());
    let unit = match &word[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|number| number * unit)
}

/// Whether the number is the rate of the flow. The interval is measured by the dataplane, and the sender sleeps: some spread.
fn is_rate(number: f64, rate: f64) -> bool {
    (0.7 * rate..1.3 * rate).contains(&number)
}

/// The rates of packets and bytes of a rule on the screen.
fn rule_rates(screen: &str, comment: &str) -> Option<(f64, f64)> {
    let words = words(screen, comment)?;
    Some((number(words.get(3)?)?, number(words.get(4)?)?))
}

#[test]
fn rates_of_a_known_flow_are_on_the_screen_and_keys_choose_what_is_shown() {
    with_fast_path(&FilterOptions::from_rules(RULES), |topology, filter| {
        let (flow, _receiver) = (udp_to(topology, PORT), receiver(topology));
        let stranger = udp_from(topology, VISITOR, PORT);
        control(filter, &["list", "add", "secured", CLIENT]);
        under_traffic(&[&flow, &stranger], || {
            let mut top = on_screen(filter, &["top", "--interval", "500ms"]);
            // 28 bytes of headers and 100 of payload.
            let is_known = |screen: &str, comment: &str| {
                rule_rates(screen, comment).is_some_and(|(packets, bytes)| {
                    is_rate(packets, RATE as f64) && is_rate(bytes, RATE as f64 * 128.0)
                })
            };
            let screen = top.wait_for("the rates of both flows", |screen| {
                is_known(screen, "granted") && is_known(screen, "others")
            });
            let screen = screen.expect("rates");
            assert!(screen.contains("[1 rules]") && screen.contains("by packets/s"), "{screen}");
            // The kernel carries the known flow; with Ethernet headers it has 142 bytes.
            top.wait_for("the way of the known flow", |screen| {
                let carried = words(screen, "carried by the kernel").expect("a line");
                number(&carried[4]).is_some_and(|frames| is_rate(frames, RATE as f64))
                    && number(&carried[5]).is_some_and(|bytes| is_rate(bytes, RATE as f64 * 142.0))
            })
            .expect("it is carried");
            top.wait_for("the way of the stranger", |screen| {
                let of = |line: &str, at: usize| number(&words(screen, line).expect("a line")[at]).unwrap_or_default();
                is_rate(of("dropped by the kernel", 4) + of("of them dropped", 3), RATE as f64)
            })
            .expect("it is dropped by the kernel or by workers");

            // Order.
            top.send("n").expect("sent");
            let by_name = top.wait_for("the order", |screen| screen.contains("by name")).expect("by name");
            let order = |screen: &str| -> Vec<usize> {
                ["granted", "others"].map(|comment| screen.find(comment).expect("a rule")).to_vec()
            };
            assert!(order(&by_name).is_sorted(), "{by_name}");
            top.send("r").expect("sent");
            let reversed = top.wait_for("the order", |screen| screen.contains("by name, reversed")).expect("reversed");
            assert!(!order(&reversed).is_sorted(), "{reversed}");

            // Filter, by typing: `q` is a letter of it.
            top.send("/othersq").expect("sent");
            top.wait_for("no row", |screen| screen.contains("no rows") && screen.contains("filter: othersq_"))
                .expect("none");
            top.send(key::BACKSPACE).expect("sent");
            top.send(key::ENTER).expect("sent");
            let filtered = top.wait_for("one row", |screen| screen.contains("rows 1 to 1 of 1")).expect("a row");
            assert!(filtered.contains("others") && !filtered.contains("granted"), "{filtered}");
            top.send(key::ESCAPE).expect("sent");
            top.wait_for("all rows", |screen| screen.contains("granted")).expect("the filter is gone");

            // Views, by number and by Tab.
            for (keys, view, told) in [
                ("2", "[2 lists]", "secured"),
                (key::TAB, "[3 doors]", "no rows"),
                ("4", "[4 workers]", "kernel"),
                ("5", "[5 drops]", "rule"),
                ("6", "[6 sources]", "At least"),
            ] {
                top.send(keys).expect("sent");
                top.wait_for(view, |screen| screen.contains(view) && screen.contains(told)).expect(view);
            }
            top.wait_for("the stranger among the sources", |screen| {
                words(screen, VISITOR).is_some_and(|words| words.last().is_some_and(|word| word == "rule"))
            })
            .expect("a source with drops");

            // Sizes.
            for size in [(5, 20), (1, 1), (3, 200), (60, 200), SCREEN] {
                top.resize(size).expect("resized");
                top.send("1").expect("sent");
                thread::sleep(Duration::from_millis(200));
            }
            let screen =
                top.wait_for("the usual size", |screen| screen.contains("q quit") && screen.contains("granted"));
            assert_eq!(screen.expect("drawn").lines().count(), 24);
            assert!(!top.is_restored().expect("a terminal"), "while it runs");
            top.send("q").expect("sent");
            assert!(top.wait().expect("it ends").success());
            top.wait_until_restored().expect("restored");
        });
    });
}

#[test]
fn it_ends_with_a_restored_terminal_by_ctrl_c_and_by_signals() {
    with(&FilterOptions::from_rules(RULES), |_, filter| {
        let mut top = on_screen(filter, &["top"]);
        top.wait_for("the screen", |screen| screen.contains("q quit")).expect("drawn");
        top.send(key::CTRL_C).expect("sent");
        assert!(top.wait().expect("it ends").success());
        top.wait_until_restored().expect("restored");
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let mut top = on_screen(filter, &["top", "--view", "workers"]);
            top.wait_for("the view", |screen| screen.contains("[4 workers]")).expect("drawn");
            kill_process(Pid::from_raw(top.id() as i32).expect("an id"), signal).expect("sent");
            assert!(top.wait().expect("it ends").success(), "{signal:?}");
            top.wait_until_restored().unwrap_or_else(|error| panic!("{signal:?}: {error}"));
        }
    });
}

#[test]
fn a_lost_control_process_and_a_restart_are_told_and_no_rate_is_negative_or_giant() {
    with(&FilterOptions::from_rules(RULES), |topology, filter| {
        let stranger = udp_to(topology, PORT);
        under_traffic(&[&stranger], || {
            let mut top = on_screen(filter, &["top", "--interval", "200ms"]);
            let flows =
                |screen: &str| rule_rates(screen, "others").is_some_and(|(packets, _)| is_rate(packets, RATE as f64));
            top.wait_for("the rate", flows).expect("a rate");
            filter.control.kill().expect("killed");
            let lost = top.wait_for("the loss", |screen| screen.contains("no answer since")).expect("told");
            assert!(lost.contains("others"), "the last rates stay: {lost}");
            filter.restart_control().expect("started again");
            top.wait_for("the rate again", |screen| !screen.contains("no answer") && flows(screen))
                .expect("it recovers");

            // Every screen from here on: no rate is negative or far above that of the flow.
            filter.dataplane.kill().expect("killed");
            filter.start_dataplane().expect("started");
            let is_told = |screen: &str| {
                if let Some((packets, _)) = rule_rates(screen, "others") {
                    assert!((0.0..3.0 * RATE as f64).contains(&packets), "{screen}");
                }
                screen.contains("RESTARTED")
            };
            top.wait_for("the restart", is_told).expect("told");
            top.wait_for("the rate after the restart", |screen| !screen.contains("no answer") && flows(screen))
                .expect("rates begin anew");
            top.send("q").expect("sent");
            assert!(top.wait().expect("it ends").success());
        });
    });
}

#[test]
fn without_a_terminal_it_prints_tables_or_json() {
    with(&FilterOptions::from_rules(RULES), |topology, filter| {
        let stranger = udp_to(topology, PORT);
        under_traffic(&[&stranger], || {
            let tables = filter.knockctl(&["top", "--interval", "500ms", "--count", "2"]).expect("knockctl");
            assert!(tables.ok() && tables.stderr.is_empty(), "{tables:?}");
            for told in [
                "carried by the kernel",
                "\nrules\n",
                "\nlists\n",
                "\ndoors\n",
                "\nworkers\n",
                "\ndrops\n",
                "\nsources\n",
            ] {
                assert_eq!(tables.stdout.matches(told).count(), 2, "{told}: {}", tables.stdout);
            }
            assert!(!tables.stdout.contains('\x1b') && tables.stdout.lines().all(|line| line.len() <= 100));
            let only = filter.knockctl(&["top", "--batch", "--interval", "200ms", "--count", "1", "--view", "drops"]);
            let only = only.expect("knockctl").stdout;
            assert!(only.contains("\ndrops\n") && !only.contains("\nrules\n"), "{only}");

            let json = filter.knockctl(&["top", "--json", "--interval", "500ms", "--count", "3"]).expect("knockctl");
            let documents: Vec<Value> =
                json.stdout.lines().map(|line| serde_json::from_str(line).expect("a document in each line")).collect();
            assert_eq!((documents.len(), &documents[0]["interval_seconds"]), (3, &Value::Null), "{json:?}");
            for document in &documents[1..] {
                let interval = document["interval_seconds"].as_f64().expect("an interval");
                assert!((0.3..1.5).contains(&interval), "{interval}");
                let rule = document["rules"].as_array().expect("rules").iter().find(|rule| rule["comment"] == "others");
                let rate = rule.expect("the rule")["packets"]["per_second"].as_f64().expect("a rate");
                assert!(is_rate(rate, RATE as f64), "{rate}");
            }
            let sources = &documents[2]["sources"]["sources"];
            let client = sources.as_array().expect("sources").iter().find(|source| source["address"] == CLIENT);
            let dropped = &client.unwrap_or_else(|| panic!("{sources}"))["dropped"];
            // A worker records every drop while batches are small.
            assert!(
                dropped["per_second"].as_f64().is_some_and(|rate| rate > 0.0 && rate < 1.5 * RATE as f64),
                "{dropped}"
            );
        });
        filter.control.kill().expect("killed");
        for arguments in [&["top"][..], &["top", "--json"]] {
            assert_eq!(filter.knockctl(arguments).expect("knockctl").code, Some(4));
        }
        assert_eq!(filter.knockctl(&["top", "--interval", "5ms"]).expect("knockctl").code, Some(2));
    });
}

/// The bytes of a connection are those of its source.
#[test]
fn sources_have_the_bytes_of_their_connections() {
    let rules = "/ip firewall filter\nadd chain=input connection-state=new,established action=accept\n";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        let (flow, _receiver) = (udp_to(topology, PORT), receiver(topology));
        under_traffic(&[&flow], || {
            eventually("the bytes of the flow", || {
                let json = filter.knockctl(&["top", "--json", "--interval", "1s", "--count", "2"]).expect("knockctl");
                let last: Value = serde_json::from_str(json.stdout.lines().last().expect("a line")).expect("JSON");
                let sources = last["sources"]["sources"].as_array().expect("sources");
                let client = sources.iter().find(|source| source["address"] == CLIENT);
                client.is_some_and(|client| {
                    let rate = client["bytes"]["per_second"].as_f64().unwrap_or_default();
                    client["connections"] == 1 && is_rate(rate, RATE as f64 * 128.0)
                })
            });
        });
    });
}
