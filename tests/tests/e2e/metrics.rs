//! Scrapes while rules, lists and doors change, and processes restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Instant;

use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology};
use rustix::process::{Pid, Signal, kill_process};

use crate::random::Random;
use crate::scenario::{client, eventually, knock, with};

/// One scrape: values by series, as written.
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

/// Whether a series is a counter of the dataplane, which may decrease only when the dataplane restarts.
fn is_of_the_dataplane(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    name.ends_with("_total")
        && !name.starts_with("process_")
        && !name.starts_with("knockplane_control_")
        && !name.starts_with("knockplane_resolver_")
        && name != "knockplane_dataplane_request_failures_total"
        && !series.contains("result=\"invalid\"")
        && !series.contains("process=\"control\"")
}

/// The last value of each counter. A series may disappear and return.
#[derive(Default)]
struct Highest(Scrape);

impl Highest {
    /// Adds a scrape, in which no counter may have decreased.
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

/// Checks that only existing rules, lists and doors have series.
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

/// Rules that add to lists and do not log. Each apply has a different part of them. The ports are those to which the
/// client sends.
fn rules(dice: &mut Random, many: usize) -> (String, BTreeSet<String>) {
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
    // Each of these rules counts every packet, and most have no separate series.
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

/// SYNs to the ports of rules and doors, and a knock at each door.
fn traffic(topology: &Topology) {
    let ports: Vec<String> = (1..=12).chain([21, 22, 23]).map(|port| format!("{port}:tcp")).collect();
    client(topology, &format!("knock {SERVER} {}", ports.join(" ")));
}

#[test]
fn no_counter_decreases_and_removed_objects_have_no_series_over_random_applies_reloads_and_restarts_of_control() {
    let mut dice = Random(0x5eed);
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
                    let applied =
                        filter.knockctl(&["apply", "--force", &file.display().to_string()]).expect("knockctl");
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

#[test]
fn with_a_hanging_dataplane_health_and_metrics_report_it_and_commands_end() {
    with(&FilterOptions::from_rules("/ip firewall filter\nadd chain=input action=drop\n"), |_, filter| {
        assert_eq!(scrape(filter)["knockplane_dataplane_up"], 1.0);
        let rules = filter.path("rules.rsc").display().to_string();
        let pid = Pid::from_raw(filter.dataplane.id() as i32).expect("a process has an id");
        kill_process(pid, Signal::STOP).expect("stopped");
        let commands: [&[&str]; 7] = [
            &["show", "status"],
            &["show", "rules"],
            &["list", "add", "friends", CLIENT],
            &["list", "remove", "friends", CLIENT],
            &["reload"],
            &["apply", &rules],
            &["explain", "tcp 198.51.100.7 > 203.0.113.5:22"],
        ];
        let filter = &*filter;
        thread::scope(|scope| {
            for command in commands {
                scope.spawn(move || {
                    let output = filter.knockctl(command).expect("knockctl");
                    assert_eq!(output.code, Some(4), "{command:?}: {output:?}");
                    assert!(
                        output.stderr.contains("the dataplane did not answer within 5 s: it is stopped"),
                        "{output:?}"
                    );
                });
            }
            assert!(filter.http("/healthz").is_ok());
            let unready = filter.http("/readyz").expect_err("it is not ready").to_string();
            assert!(unready.contains(" 503 ") && unready.contains("did not answer within 0.8 s"), "{unready}");
            let now = scrape(filter);
            assert_eq!(now["knockplane_dataplane_up"], 0.0);
            // The scrape itself waited longer.
            assert!(now["knockplane_dataplane_answer_age_seconds"] > 1.0, "{now:?}");
            assert!(now["process_cpu_seconds_total"] > 0.0 && !now.contains_key("knockplane_rules"), "{now:?}");
        });
        kill_process(pid, Signal::CONT).expect("continued");
        eventually("ready again", || filter.http("/readyz").is_ok());
        assert_eq!(scrape(filter)["knockplane_dataplane_up"], 1.0);
    });
}

#[test]
fn a_scrape_with_ten_thousand_rules_has_the_series_of_a_thousand() {
    let rules: String = (1..10_000)
        .map(|number| {
            format!("add chain=input action=passthrough protocol=tcp dst-port={number} comment=\"rule {number}\"\n")
        })
        .collect();
    let rules = format!("/ip firewall filter\n{rules}add chain=input action=drop\n");
    with(&FilterOptions::from_rules(&rules), |topology, filter| {
        traffic(topology);
        let times: Vec<_> = (0..20)
            .map(|_| {
                let begin = Instant::now();
                let text = filter.http("/metrics").expect("metrics");
                (begin.elapsed(), text.len())
            })
            .collect();
        let mut sorted: Vec<_> = times.iter().map(|(time, _)| *time).collect();
        sorted.sort();
        let (median, longest, bytes) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1], times[0].1);
        println!("a scrape with 10,000 rules: median {median:?}, longest {longest:?}, {bytes} bytes");
        let now = scrape(filter);
        assert_eq!(now["knockplane_rules"], 10_000.0);
        let series = now.keys().filter(|series| series.starts_with("knockplane_rule_packets_total{")).count();
        assert_eq!((series, now["knockplane_rules_without_series"]), (1_001, 8_999.0));
    });
}

/// Rules of several menus, one of them disabled, identified by their comments.
const NUMBERED: &str = "/ip firewall filter
add chain=input protocol=tcp dst-port=1 comment=first disabled=yes
add chain=input protocol=tcp dst-port=2 action=passthrough comment=second
add chain=input protocol=tcp dst-port=80 action=accept log=yes comment=web
/ipv6 firewall filter
add chain=input action=drop comment=six
/ip firewall raw
add chain=prerouting protocol=tcp dst-port=3 action=drop comment=raw
/ip firewall filter
add chain=input action=drop comment=last
";

/// The number of each rule by its comment, as `show rules` prints it under the name of its menu.
fn shown(text: &str) -> BTreeMap<String, String> {
    let (mut menu, mut number) = (String::new(), String::new());
    let mut numbers = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('/') {
            menu = name.replace(" firewall", "");
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.bytes().all(|byte| byte.is_ascii_digit()) && !first.is_empty() {
            number = format!("{menu} {first}");
        }
        if let Some((_, comment)) = line.split_once(";;; ") {
            numbers.insert(comment.to_owned(), number.clone());
        }
    }
    numbers
}

#[test]
fn a_rule_has_one_number_everywhere() {
    let door = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7001\", \"tcp/7002\"]\nopens = [\"tcp/22\"]\n";
    let options = FilterOptions { sections: door.to_owned(), ..FilterOptions::from_rules(NUMBERED) };
    with(&options, |topology, filter| {
        let said = |arguments: &[&str]| filter.knockctl(arguments).expect("knockctl").stdout;
        let numbers = shown(&said(&["show", "rules"]));
        let number = |comment: &str| numbers[comment].as_str();
        assert_eq!((number("six").split(' ').next(), number("raw")), (Some("ipv6"), "ip raw 0"));
        assert!(
            !["ip filter 0", "ip filter 1"].contains(&number("first")),
            "the door's rules stand before it: {numbers:?}"
        );

        let info: Vec<String> = scrape(filter).into_keys().filter(|series| series.contains("rule_info{")).collect();
        for (comment, number) in numbers.iter().filter(|(comment, _)| !comment.starts_with("door ")) {
            let told = info.iter().find(|series| label(series, "comment") == Some(comment));
            assert_eq!(told.and_then(|series| label(series, "number")), Some(&**number), "{info:?}");
        }

        let web = format!("tcp {CLIENT} > {SERVER}:80");
        let decided = format!("a rule decided, {}", number("web"));
        let [rules, config] = ["rules.rsc", "knockplane.toml"].map(|file| filter.path(file).display().to_string());
        for offline in [&[][..], &["--rules", &rules, "--config", &config]] {
            let told = said(&[&["explain", &web], offline].concat());
            assert!(told.contains(&decided) && told.contains(&format!("{} ", number("second"))), "{told}");
        }
        let test = filter.path("number.test.toml");
        let text = format!(
            "rules = \"rules.rsc\"\nconfig = \"knockplane.toml\"\n[[test]]\nname = \"a\"\n[[test.step]]\npacket = \"{web}\"\n\
             rule = \"{}\"\n",
            number("web")
        );
        fs::write(&test, text).expect("written");
        let tested = filter.knockctl(&["test", &test.display().to_string()]).expect("knockctl");
        assert!(tested.ok(), "{tested:?}");

        knock(topology, "80:tcp 9:tcp");
        let in_log = format!("number={}", number("web"));
        eventually("the packet is logged", || filter.log().contains(&in_log));
        let source = said(&["explain-source", CLIENT]);
        assert!(source.contains(&format!("{}, line 10 (last)", number("last"))), "{source}");
    });
}
