//! `docs/doors.md` says what becomes of knocks that networks have changed: the table is made here, from what the plain
//! evaluation does, and compared. Its examples are read.
//!
//! `UPDATE=1 cargo test -p knockplane-policy --test doors` renews the table.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use knockplane_policy::door::{self, Door};
use knockplane_policy::eval::Evaluator;
use knockplane_policy::packet::{Packet, Side, protocol};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use serde::Deserialize;

/// What stands around the table on the page.
const BEGIN: &str = "<!-- knocks: made by a test -->\n";
const END: &str = "<!-- knocks end -->\n";

/// What arrives at a door whose knock is `a b c d`; `x` is any other port, `A` is `a` at another address, a number is so many
/// seconds without a packet.
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
    ("10 s before a step", "a b 10 c d"),
    ("9 s before each step", "a 9 b 9 c 9 d"),
    ("more than 30 s in all", "a 9 b 9 c 9 c 9 d"),
    ("a step at another address", "a b C d"),
    ("the knock, begun at another address", "A a b c d"),
];

#[derive(Deserialize)]
struct File {
    #[serde(deserialize_with = "door::distinct")]
    door: Vec<Door>,
}

fn doors(toml: &str) -> Vec<Door> {
    toml::from_str::<File>(toml).unwrap_or_else(|error| panic!("{toml}: {error}")).door
}

/// Whether the door is open for `CLIENT` at the end.
fn opens(arrives: &str, strict: bool) -> bool {
    let door = "[[door]]\nname = 'd'\nknock = ['udp/7001', 'udp/5002', 'udp/9003', 'udp/6004']";
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
    evaluator.listed(now).iter().any(|(list, ..)| list == "door-d")
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

fn page() -> (std::path::PathBuf, String) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doors.md"));
    (path.to_owned(), fs::read_to_string(path).expect("docs/doors.md is there"))
}

#[test]
fn the_table_of_knocks_is_what_comes_of_them() {
    let (path, page) = page();
    let (before, rest) = page.split_once(BEGIN).expect("the table begins");
    let (committed, behind) = rest.split_once(END).expect("the table ends");
    if env::var_os("UPDATE").is_some() {
        fs::write(path, [before, BEGIN, &table(), END, behind].concat()).expect("docs/doors.md can be written");
        return;
    }
    assert_eq!(
        committed,
        table(),
        "docs/doors.md is not what comes of knocks: renew it with\nUPDATE=1 cargo test -p knockplane-policy --test doors"
    );
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
