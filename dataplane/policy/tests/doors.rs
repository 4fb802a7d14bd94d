//! `docs/doors.md` contains the results of knocks that networks have changed, and of knocks of a client that shares its
//! address with a scanner. This test generates the tables with the reference evaluator and compares them. It also
//! parses the examples.
//!
//! `UPDATE=1 cargo test -p knockplane-policy --test doors` regenerates the tables.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use knockplane_policy::door::ports::PortBudget;
use knockplane_policy::door::{self, Door};
use knockplane_policy::eval::Evaluator;
use knockplane_policy::packet::{Packet, Side, protocol};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use serde::Deserialize;

/// The markers around the table on the page.
const BEGIN: &str = "<!-- knocks: made by a test -->\n";
const END: &str = "<!-- knocks end -->\n";

/// The packets at a door whose knock is `a b c d`: `x` is any other port, `o` is a port that the door opens, `A` is `a`
/// at another address, and a number is a time in seconds without a packet.
const KNOCKS: &[(&str, &str)] = &[
    ("the knock", "a b c d"),
    ("a step twice, as a SYN that is sent again", "a b b c d"),
    ("all steps twice", "a a b b c c d d"),
    ("the step before once more, late", "a b a c d"),
    ("an older step once more, later still", "a b c a d"),
    ("two steps in the other order", "a c b d"),
    ("the last two in the other order", "a b d c"),
    ("the first two in the other order", "b a c d"),
    ("a step lost", "a b d"),
    ("a step lost, and the knock again", "a b d a b c d"),
    ("the last step lost, and the knock again", "a b c a b c d"),
    ("another packet in between", "a b x c d"),
    ("another packet before and behind", "x a b c d x"),
    ("packets to what the door opens, before and in between", "o a o b o o c o d"),
    ("10 s before a step", "a b 10 c d"),
    ("9 s before each step", "a 9 b 9 c 9 d"),
    ("more than 30 s in all", "a 9 b 9 c 9 c 9 d"),
    ("a step at another address", "a b C d"),
    ("the knock, begun at another address", "A a b c d"),
];

/// The table of a client that shares its address.
const SHARED_BEGIN: &str = "<!-- shared address: made by a test -->\n";
const SHARED_END: &str = "<!-- shared address end -->\n";

/// The number of knocks of the client.
const KNOCKS_TRIED: usize = 20;

/// Number of different ports that the scanner tries per second.
const SCANS: [u32; 3] = [1, 10, 100];

/// A door and its settings: the name on the page, the ports of the knock, whether the last step has a passphrase,
/// `strict`, and `[policy.port-budget]`.
const SHARED: &[(&str, &[u16], bool, bool, &str)] = &[
    ("the defaults", &[7001, 5002, 9003], false, true, ""),
    ("`strict = false`", &[7001, 5002, 9003], false, false, ""),
    ("`ports = 0`", &[7001, 5002, 9003], false, true, "ports = 0"),
    ("`ports = 0`, `strict = false`", &[7001, 5002, 9003], false, false, "ports = 0"),
    (
        "a passphrase in one of three steps, `ports = 0`, `strict = false`",
        &[7001, 5002, 9003],
        true,
        false,
        "ports = 0",
    ),
    ("one step, with a passphrase", &[9003], true, true, ""),
    ("one step, with a passphrase, `ignore-for = \"1s\"`", &[9003], true, true, "ignore-for = '1s'"),
    ("one step, with a passphrase, `ports = 0`", &[9003], true, true, "ports = 0"),
];

#[derive(Deserialize)]
struct File {
    #[serde(deserialize_with = "door::distinct")]
    door: Vec<Door>,
}

#[derive(Deserialize)]
struct Budget {
    budget: PortBudget,
}

fn doors(toml: &str) -> Vec<Door> {
    toml::from_str::<File>(toml).unwrap_or_else(|error| panic!("{toml}: {error}")).door
}

/// Whether the door is open for `CLIENT` at the end.
fn opens(arrives: &str, strict: bool) -> bool {
    let door = "[[door]]\nname = 'd'\nknock = ['udp/7001', 'udp/5002', 'udp/9003', 'udp/6004']\nopens = ['udp/60001']";
    let settings = Settings { doors: doors(&format!("{door}\nstrict = {strict}")), ..Settings::default() };
    let rules = door::rules(&settings, RuleSet::default());
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut now = Time::default();
    let source: IpAddr = [198, 51, 100, 7].into();
    for word in arrives.split(' ') {
        let port = match word.to_ascii_lowercase().as_str() {
            "a" => 7001,
            "b" => 5002,
            "c" => 9003,
            "d" => 6004,
            "x" => 8005,
            "o" => 60_001,
            seconds => {
                now = now + Duration::from_secs(seconds.parse().expect("seconds"));
                continue;
            }
        };
        let here = word.chars().all(|char| char.is_ascii_lowercase());
        let destination = [203, 0, 113, if here { 1 } else { 2 }].into();
        let packet = Packet::bare(Side::Outside, source, destination, protocol::UDP);
        evaluator.evaluate(&Packet { ports: Some((40_000, port)), ..packet }, now);
    }
    evaluator.listed(now).iter().any(|entry| entry.list == "door-d")
}

fn table() -> String {
    let mut table = "| what arrives | | strict | not strict |\n|---|---|---|---|\n".to_owned();
    for (what, arrives) in KNOCKS {
        let outcome = |strict| if opens(arrives, strict) { "opens" } else { "–" };
        let shown: Vec<String> = arrives
            .split(' ')
            .map(|word| match word {
                word if word.parse::<u32>().is_ok() => format!("*{word} s*"),
                word if word.chars().all(|char| char.is_ascii_uppercase()) => {
                    format!("{} (elsewhere)", word.to_lowercase())
                }
                word => word.to_owned(),
            })
            .collect();
        let _ = writeln!(table, "| {what} | {} | {} | {} |", shown.join(" "), outcome(true), outcome(false));
    }
    table
}

/// A door of the second table, with its evaluator, for packets from one address.
struct Shared<'s> {
    evaluator: Evaluator<'s>,
}

impl Shared<'_> {
    fn with<T>(
        (_, ports, has_passphrase, strict, budget): (&str, &[u16], bool, bool, &str),
        test: impl FnOnce(&mut Shared<'_>) -> T,
    ) -> T {
        let steps: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(place, port)| match has_passphrase && place + 1 == ports.len() {
                true => format!("'udp/{port} \"open sesame\"'"),
                false => format!("'udp/{port}'"),
            })
            .collect();
        let door = format!(
            "[[door]]\nname = 'd'\nknock = [{}]\nopens = ['tcp/22']\nfor = '1s'\nstrict = {strict}",
            steps.join(", ")
        );
        let Budget { budget } = toml::from_str(&format!("[budget]\n{budget}")).expect("a budget");
        let settings = Settings { doors: doors(&door), port_budget: budget, ..Settings::default() };
        let rules = door::rules(&settings, RuleSet::default());
        test(&mut Shared { evaluator: Evaluator::new(&rules, &settings, 1) })
    }

    fn send(&mut self, source_port: u16, port: u16, payload: &[u8], now: Time) {
        let packet = Packet::bare(Side::Outside, [198, 51, 100, 7].into(), [203, 0, 113, 1].into(), protocol::UDP);
        self.evaluator.evaluate(&Packet { ports: Some((source_port, port)), payload, ..packet }, now);
    }

    fn is_open(&self, now: Time) -> bool {
        self.evaluator.listed(now).iter().any(|entry| entry.list == "door-d")
    }
}

/// The number of times that the door opens for a client that knocks during a scan from its own address, with 10 ms
/// between steps, as `knocker` does, and with the passphrase in its step.
fn opened_beside_a_scan(shape: (&str, &[u16], bool, bool, &str), scans: u32) -> usize {
    let ms = |ms: u64| Time::from_nanos(ms * 1_000_000);
    let every = 1_000 / u64::from(scans);
    let mut scanned = 0;
    Shared::with(shape, |shared| {
        let mut opened = 0;
        for attempt in 0..KNOCKS_TRIED as u64 {
            // The knocks are distributed over the time for which the budget ignores knocks, and over the scan's pauses.
            let begin = 12_000 + attempt * 3_173;
            let mut now = begin;
            for (place, port) in (0..).zip(shape.1) {
                now = begin + 10 * place;
                // The scanned ports are no steps, so that only their number counts.
                for number in scanned..now.div_ceil(every) {
                    shared.send(40_000, 10_000 + (number % 1_000) as u16, b"", ms(number * every));
                }
                scanned = now.div_ceil(every);
                shared.send(50_000, *port, b"open sesame", ms(now));
            }
            opened += usize::from(shared.is_open(ms(now)));
        }
        opened
    })
}

/// Whether a scan that meets the door's ports in order, with others in between, opens the door.
fn opens_to_a_scan(shape: (&str, &[u16], bool, bool, &str)) -> bool {
    Shared::with(shape, |shared| {
        let mut now = Time::default();
        for port in shape.1.iter().flat_map(|port| [port - 1, *port, port + 1]) {
            shared.send(40_000, port, b"", now);
            now = now + Duration::from_millis(10);
        }
        shared.is_open(now)
    })
}

fn shared_table() -> String {
    let heads = SCANS.map(|scans| format!("{scans} a second |"));
    let mut table =
        format!("| door and settings | {} a scan opens it |\n|---|{}---|\n", heads.join(" "), "---|".repeat(3));
    for shape in SHARED {
        let opened = SCANS.map(|scans| opened_beside_a_scan(*shape, scans).to_string());
        let scan = if opens_to_a_scan(*shape) { "yes" } else { "no" };
        let _ = writeln!(table, "| {} | {} | {scan} |", shape.0, opened.join(" | "));
    }
    table
}

fn page() -> (std::path::PathBuf, String) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doors.md"));
    (path.to_owned(), fs::read_to_string(path).expect("docs/doors.md is there"))
}

#[test]
fn the_tables_of_knocks_are_up_to_date() {
    let (path, mut page) = page();
    for (begin, end, table) in [(BEGIN, END, table()), (SHARED_BEGIN, SHARED_END, shared_table())] {
        let (before, rest) = page.split_once(begin).expect("the table begins");
        let (committed, behind) = rest.split_once(end).expect("the table ends");
        if env::var_os("UPDATE").is_some() {
            page = [before, begin, &table, end, behind].concat();
            fs::write(&path, &page).expect("docs/doors.md can be written");
            continue;
        }
        assert_eq!(
            committed, table,
            "docs/doors.md is not what comes of knocks: renew it with\nUPDATE=1 cargo test -p knockplane-policy --test doors"
        );
    }
}

#[test]
fn the_examples_of_the_page_are_doors() {
    let page = page().1;
    let examples: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("an example ends").0)
        .filter(|example| example.contains("[[door]]"))
        .collect();
    assert!(examples.len() >= 2, "{}", examples.len());
    for example in examples {
        assert!(!doors(example).is_empty(), "{example}");
    }
}
