//! Any two rule files and any capture: the plan against two runs of `replay`, and the changes of rules against the rules.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::Config;
use serde_json::{Value, json};

use super::super::capture::sample;
use super::super::tests::{Kept, borrowed, frame, knockctl};
use super::*;
use crate::plan::changes::{Changes, Linted, PlannedRule};

/// A few cases, KNOCKPLANE_SOAK times. PROPTEST_CASES overrides the number.
fn cases() -> Config {
    let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse::<u32>().ok()).unwrap_or(1);
    Config { cases: 96 * soak, failure_persistence: None, ..Config::default() }
}

/// A rule with few values, so that rules match packets and share lists.
fn rule() -> impl Strategy<Value = String> {
    let matchers = [
        "protocol=tcp",
        "protocol=udp",
        "protocol=icmp",
        "protocol=tcp dst-port=22",
        "protocol=tcp dst-port=!22",
        "protocol=udp dst-port=53,1000-2000",
        "protocol=tcp tcp-flags=syn,!ack",
        "src-address=192.0.2.1",
        "src-address=192.0.2.0/31",
        "dst-address=!203.0.113.5",
        "src-address-list=a",
        "src-address-list=b",
        "dst-address-list=!a",
        "connection-state=established,related",
        "connection-state=new",
        "limit=1,1:packet",
        "nth=2,1",
        "packet-size=0-40",
        "in-interface=inside",
        "content=open",
        "",
    ];
    let actions = [
        "accept",
        "accept",
        "drop",
        "drop",
        "reject",
        "passthrough",
        "add-src-to-address-list address-list=a address-list-timeout=2s",
        "add-src-to-address-list address-list=b address-list-timeout=1m",
        "add-dst-to-address-list address-list=a address-list-timeout=1s",
        "jump jump-target=other",
        "return",
    ];
    let chain = select(vec!["input", "input", "input", "forward", "other"]);
    let more = select(vec!["", "", "", "disabled=yes", "comment=one", "comment=two", "log=yes"]);
    (chain, select(matchers.to_vec()), select(actions.to_vec()), more).prop_map(|(chain, matchers, action, more)| {
        // Jumps lead from other chains, so there is no circle.
        let action = if chain == "other" && action.starts_with("jump") { "return" } else { action };
        format!("add chain={chain} {matchers} action={action} {more}\n")
    })
}

fn file(rules: &[String]) -> String {
    let entries = "/ip firewall address-list\nadd list=b address=192.0.2.2\n";
    // Jumps need a chain.
    let last = "add chain=other action=passthrough protocol=gre\nadd chain=input action=drop\n";
    format!("{entries}/ip firewall filter\n{}{last}", rules.concat())
}

/// Two files with common rules, perhaps in another order.
fn files() -> impl Strategy<Value = (String, String)> {
    let rules = || prop::collection::vec(rule(), 0..8);
    let parts = (rules(), rules(), any::<bool>()).prop_flat_map(|(old, fresh, shuffles)| {
        let kept = subsequence(old.clone(), 0..=old.len());
        let kept = kept.prop_flat_map(move |kept| {
            let all = [kept, fresh.clone()].concat();
            if shuffles { Just(all).prop_shuffle().boxed() } else { Just(all).boxed() }
        });
        (Just(old), kept)
    });
    parts.prop_map(|(old, new)| (file(&old), file(&new)))
}

/// Packets with the milliseconds before each.
fn packets() -> impl Strategy<Value = Vec<(u32, String)>> {
    let address =
        |addresses: &[&str]| select(addresses.iter().map(|address| (*address).to_owned()).collect::<Vec<_>>());
    let (source, destination) =
        (address(&["192.0.2.1", "192.0.2.2", "203.0.113.5"]), address(&["203.0.113.5", "192.0.2.1"]));
    let kind = select(vec![
        ("tcp", ":22", "syn"),
        ("tcp", ":22", "ack"),
        ("tcp", ":22", "ack payload \"open\""),
        ("tcp", ":80", "syn"),
        ("tcp", ":80", "rst"),
        ("udp", ":53", ""),
        ("udp", ":1500", "payload \"open\""),
        ("icmp", "", ""),
        ("gre", "", ""),
    ]);
    let packet = (source, destination, kind).prop_map(|(source, destination, (protocol, port, words))| {
        format!("{protocol} {source} > {destination}{port} {words}")
    });
    prop::collection::vec((select(vec![0, 1, 400, 1_100, 5_000]), packet), 1..30)
}

/// What `replay` prints about each packet.
fn replayed(rules: &str, capture: &str, more: &[&str]) -> Vec<Value> {
    let text = knockctl(&[&["replay", "--json", "--rules", rules, "--pcap", capture], more].concat()).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["packets"].as_array().unwrap().clone()
}

/// What `plan` must print about the packets for which two runs of `replay` print different verdicts.
fn expected(old: &[Value], new: &[Value]) -> Vec<Value> {
    let outcome = |packet: &Value| {
        let fields = ["verdict", "reason", "rule", "rule_number", "line"];
        Value::Object(fields.iter().map(|field| ((*field).to_owned(), packet[field].clone())).collect())
    };
    assert_eq!(old.len(), new.len());
    let both = old.iter().zip(new).filter(|(old, new)| old["verdict"] != new["verdict"]);
    both.map(|(old, new)| {
        let (number, time, from, packet) = (&new["number"], &new["time"], &new["from"], &new["packet"]);
        json!({ "number": number, "time": time, "from": from, "packet": packet, "old": outcome(old), "new": outcome(new) })
    })
    .collect()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_plan_names_exactly_the_packets_whose_verdict_replay_tells_otherwise((old, new) in files(), packets in packets()) {
        let mut milliseconds = 0_u32;
        let records: Vec<_> = packets.iter().map(|(after, packet)| {
            milliseconds += after;
            (1_700_000_000 + milliseconds / 1_000, milliseconds % 1_000 * 1_000, frame(packet))
        }).collect();
        let [old, new] = [old, new].map(|text| Kept::new(text.as_bytes()));
        let capture = Kept::new(&sample::pcap(false, false, 1, &borrowed(&records)));
        let [old, new, capture] = [&old, &new, &capture].map(|kept| kept.path("file"));
        for more in [&["--inside", "203.0.113.5"][..], &["--in-list", "b=192.0.2.1,3s"]] {
            let expected = expected(&replayed(&old, &capture, more), &replayed(&new, &capture, more));
            let arguments = [&["plan", "--json", &new, "--rules", &old, "--pcap", &capture], more].concat();
            let (text, would_change) = match knockctl(&arguments) {
                Ok(text) => (text, false),
                Err(failed) => {
                    prop_assert_eq!(failed.exit, Exit::Unconfirmed, "{:?}", failed);
                    (failed.output, true)
                }
            };
            let plan: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&plan["verdicts"]["changed"], &Value::from(expected));
            prop_assert_eq!(&plan["verdicts"]["packets"], &Value::from(records.len()));
            prop_assert_eq!(&plan["would_change"], &Value::from(would_change));
        }
    }

    #[test]
    fn the_changes_lead_from_the_old_rules_to_the_new_ones((old, new) in files()) {
        let [old, new] = [old, new].map(|text| knockplane_policy::rsc::read(text.as_bytes()).rules);
        let settings = Settings::default();
        let changes = Changes::of(&Linted::new("old", &old, &settings), &Linted::new("new", &new, &settings)).rules;
        let ids = |rules: &[PlannedRule]| -> Vec<_> { rules.iter().map(|rule| rule.rule.id.clone()).collect() };
        let (added, removed, moved) = (ids(&changes.added), ids(&changes.removed), ids(&changes.moved));
        let kept = |set: &RuleSet, others: &[_], chain: &str| -> Vec<_> {
            let of_chain = set.rules.iter().filter(|rule| rule.chain == chain);
            of_chain.map(|rule| rule.id.clone()).filter(|id| !others.contains(id)).collect()
        };
        let mut fewest = 0;
        for chain in ["input", "forward", "other"] {
            let (before, after) = (kept(&old, &removed, chain), kept(&new, &added, chain));
            // Both sets have the rest, in one order without those that moved.
            let without_moved = |ids: &[_]| ids.iter().filter(|id| !moved.contains(id)).cloned().collect::<Vec<_>>();
            prop_assert_eq!(without_moved(&before), without_moved(&after));
            let places: Vec<_> = after.iter().map(|id| before.iter().position(|one| one == id).unwrap()).collect();
            prop_assert_eq!(places.len(), before.len());
            fewest += places.len() - longest_ascending(&places);
        }
        prop_assert_eq!(moved.len(), fewest);
        let are_same = |rule: &PlannedRule| {
            let of = |set: &RuleSet| set.rules.iter().find(|other| other.id == rule.rule.id).cloned().unwrap();
            let (old, new) = (of(&old), of(&new));
            (old.comment, old.disabled) == (new.comment, new.disabled)
        };
        prop_assert!(!changes.changed.iter().any(are_same));
    }
}

/// The length of a longest ascending subsequence, by its definition.
fn longest_ascending(places: &[usize]) -> usize {
    let mut lengths: Vec<usize> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let before = (0..index).filter(|before| places[*before] < *place).map(|before| lengths[before]);
        lengths.push(before.max().unwrap_or_default() + 1);
    }
    lengths.into_iter().max().unwrap_or_default()
}
