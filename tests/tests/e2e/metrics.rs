//! What a scrape says while rules, lists and doors come and go, and processes restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use knockplane_tests::{Filter, FilterOptions, SERVER, Topology};

use crate::dice::Dice;
use crate::scene::{client, with};

/// One scrape: values by series, as they are written.
type Scrape = BTreeMap<String, f64>;

fn scrape(filter: &Filter<'_>) -> Scrape {
    let text = filter.http("/metrics").expect("metrics");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// The name of a series' metric, and the value of one of its labels.
fn label<'s>(series: &'s str, label: &str) -> Option<&'s str> {
    let (_, labels) = series.split_once('{')?;
    let (_, value) = labels.split_once(&format!("{label}=\""))?;
    value.split_once('"').map(|(value, _)| value)
}

/// Whether a series is a counter of the dataplane's, so that only a restart of the dataplane may make it sink.
fn is_of_the_dataplane(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    name.ends_with("_total")
        && !name.starts_with("process_")
        && !name.starts_with("knockplane_control_")
        && name != "knockplane_dataplane_request_failures_total"
        && !series.contains("result=\"invalid\"")
        && !series.contains("process=\"control\"")
}

/// Counters as they were when they were last there. A series may go and come back.
#[derive(Default)]
struct Highest(Scrape);

impl Highest {
    /// Takes in a scrape, in which nothing may have sunk.
    fn check(&mut self, scrape: &Scrape, after: &str) {
        let counters: Vec<_> = scrape.iter().filter(|(series, _)| is_of_the_dataplane(series)).collect();
        assert!(counters.len() > 50, "there are counters: {counters:?}");
        let sunk: Vec<_> = counters
            .iter()
            .filter_map(|(series, value)| {
                self.0.get(*series).filter(|before| before > value).map(|before| (series, before, value))
            })
            .collect();
        assert!(sunk.is_empty(), "after {after}: {sunk:?}");
        self.0.extend(counters.into_iter().map(|(series, value)| (series.clone(), *value)));
    }
}

/// Nothing has series but the rules, lists and doors that there are.
fn assert_nothing_is_gone(filter: &Filter<'_>, scrape: &Scrape, lists: &BTreeSet<String>, doors: &BTreeSet<String>) {
    let rules = filter.ask(&["show", "rules"]).expect("rules").to_string();
    let labels = |name: &str| scrape.keys().filter_map(|series| label(series, name)).collect::<BTreeSet<_>>();
    for rule in labels("rule") {
        assert!(rules.contains(&format!("\"{rule}\"")), "there is no rule {rule} in {rules}");
    }
    for list in labels("list") {
        let has_entries = || scrape[&format!("knockplane_address_list_entries{{list=\"{list}\"}}")] > 0.0;
        assert!(lists.contains(list) || list.starts_with("door-") || has_entries(), "there is no list {list}");
    }
    assert_eq!(labels("door"), doors.iter().map(String::as_str).collect());
    for list in labels("list").into_iter().filter(|list| list.starts_with("door-")) {
        assert!(
            doors.iter().any(|door| list.strip_prefix("door-").is_some_and(|rest| rest.starts_with(door))),
            "{list}"
        );
    }
}

/// Some rules that log nothing and add to lists, of which each apply has another part. Ports are what the client sends to.
fn rules(dice: &mut Dice, many: usize) -> (String, BTreeSet<String>) {
    let mut text = String::from("/ip firewall filter\n");
    let mut lists = BTreeSet::new();
    for port in 1..=12 {
        if dice.below(2) == 0 {
            let list = format!("list{}", dice.below(6));
            text += &format!(
                "add chain=input protocol=tcp dst-port={port} action=add-src-to-address-list address-list={list} \
                 address-list-timeout=1s comment=\"port {port}\"\n"
            );
            lists.insert(list);
        }
    }
    // Each counts every packet, and most have no series of their own.
    for number in 0..many {
        text += &format!("add chain=input action=passthrough protocol=tcp src-port=!{}\n", 1 + number);
    }
    if dice.below(2) == 0 {
        text += "add chain=input protocol=icmp action=accept\n";
    }
    (text + "add chain=input action=drop comment=\"the rest\"\n", lists)
}

const DOORS: [&str; 4] = [
    "",
    "[[door]]\nname = \"a\"\nknock = [\"tcp/21\", \"tcp/22\"]\nstrict = false\n",
    "[[door]]\nname = \"a\"\nknock = [\"tcp/21\", \"tcp/22\", \"tcp/23\"]\nstrict = false\n",
    "[[door]]\nname = \"b\"\nknock = [\"tcp/21\"]\n[[door]]\nname = \"a\"\nknock = [\"tcp/22\"]\n",
];

const CHOICES: [&str; 3] = ["", "[metrics]\nrules = [\"comment=port*\"]\n", "[metrics]\nrules = []\n"];

/// SYNs to the ports that rules and doors ask for, and a knock at each door.
fn traffic(topology: &Topology) {
    let ports: Vec<String> = (1..=12).chain([21, 22, 23]).map(|port| format!("{port}:tcp")).collect();
    client(topology, &format!("knock {SERVER} {}", ports.join(" ")));
}

#[test]
fn no_counter_sinks_and_nothing_that_is_gone_has_series_over_random_applies_reloads_and_restarts_of_control() {
    let mut dice = Dice(0x5eed);
    with(&FilterOptions::from_rules("/ip firewall filter\nadd chain=input action=drop\n"), |topology, filter| {
        let mut highest = Highest::default();
        let (mut lists, mut doors) = (BTreeSet::new(), BTreeSet::new());
        let base = fs::read_to_string(filter.path("knockplane.toml")).expect("the configuration");
        let file = filter.path("next.rsc");
        let mut before = scrape(filter);
        for round in 0..24 {
            let what = match dice.below(6) {
                0 => {
                    filter.control.kill().expect("killed");
                    filter.restart_control().expect("control starts again");
                    "a restart of control"
                }
                1 | 2 => {
                    let door = dice.of(&DOORS);
                    let choice = dice.of(&CHOICES);
                    fs::write(filter.path("knockplane.toml"), format!("{base}\n{choice}{door}")).expect("written");
                    let reloaded = filter.knockctl(&["reload"]).expect("knockctl");
                    assert!(reloaded.ok(), "{reloaded:?}");
                    doors = door
                        .lines()
                        .filter_map(|line| line.strip_prefix("name = "))
                        .map(|name| name.trim_matches('"').to_owned())
                        .collect();
                    "a reload"
                }
                _ => {
                    let (text, named) = rules(&mut dice, if round % 3 == 0 { 1_300 } else { 40 });
                    fs::write(&file, text).expect("written");
                    let applied = filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl");
                    assert!(applied.ok(), "{applied:?}");
                    lists = named;
                    "an apply"
                }
            };
            for _ in 0..2 {
                let now = scrape(filter);
                highest.check(&now, what);
                assert_nothing_is_gone(filter, &now, &lists, &doors);
                let rules = now.keys().filter(|series| series.starts_with("knockplane_rule_packets_total")).count();
                let without = now["knockplane_rules_without_series"];
                assert_eq!(rules as f64 + without, now["knockplane_rules"], "after {what}");
                before = now;
                traffic(topology);
            }
        }
        assert!(before["knockplane_rule_overflow_packets_total"] > 1_000.0, "there was an overflow to speak of");

        let started = before["knockplane_dataplane_start_time_seconds"];
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("the dataplane starts again");
        let now = scrape(filter);
        assert!(now["knockplane_dataplane_start_time_seconds"] > started, "what counts from 0 says since when");
    });
}
