//! `knockctl apply --confirm`: rules that remain only if an operator confirms them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use knockplane_tests::{CLIENT, Filter, FilterOptions, Topology};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::doors::{goes_on, session};
use crate::scenario::{eventually, knock, listed, ping, rule_ids, serve_tcp, with};

/// Sources with a grant may do everything.
const BEFORE: &str = "/ip firewall filter
add action=accept chain=input connection-state=established
add action=add-src-to-address-list address-list=secured address-list-timeout=1h chain=input dst-port=4321 protocol=tcp
add action=accept chain=input src-address-list=secured
add action=drop chain=input
";

/// The same rules, except that sources with a grant may not ping.
fn after() -> String {
    BEFORE.replace("add action=accept chain=input src", "add action=accept chain=input protocol=tcp src")
}

/// The shortest time for a confirmation.
pub(crate) const TIME: &str = "5s";

/// A time in which a loaded machine carries out the commands of a test.
pub(crate) const LONG_TIME: &str = "20s";

/// Runs a test with [`BEFORE`], a source with a grant, and a file with the other rules. It is the configured file, so that
/// a restart would read the unconfirmed rules if it read that file.
fn with_grant(test: impl FnOnce(&Topology, &mut Filter<'_>, &str)) {
    with(&FilterOptions::from_rules(BEFORE), |topology, filter| {
        serve_tcp(topology, 8080);
        knock(topology, "4321:tcp");
        eventually("the knock is decided", || listed(filter, "secured", CLIENT));
        let file = filter.path("rules.rsc");
        fs::write(&file, after()).expect("written");
        test(topology, filter, &file.display().to_string());
    });
}

fn rules(filter: &Filter<'_>) -> Value {
    filter.ask(&["show", "rules"]).expect("rules")
}

pub(crate) fn generation(filter: &Filter<'_>) -> u64 {
    rules(filter)["generation"].as_u64().expect("a generation")
}

pub(crate) fn confirmation(filter: &Filter<'_>) -> Value {
    filter.ask(&["show", "status"]).expect("the status")["confirmation"].clone()
}

/// Applies the file, which must be confirmed. Returns the time before it.
fn apply(filter: &Filter<'_>, file: &str, time: &str) -> Instant {
    let began = Instant::now();
    let applied = filter.knockctl(&["apply", "--confirm", time, file]).expect("knockctl");
    assert!(applied.ok(), "{applied:?}");
    for part in ["generation 2 runs, 4 rules", &format!("rolled back in {time}"), "`knockctl confirm`"] {
        assert!(applied.stdout.contains(part), "{part}: {applied:?}");
    }
    began
}

pub(crate) fn kill(id: u32) {
    kill_process(Pid::from_raw(id as i32).expect("a process has an id"), Signal::KILL).expect("killed");
}

#[test]
fn confirmed_rules_remain() {
    with_grant(|topology, filter, file| {
        // The server answers each connection once, in order.
        let mut sessions = [session(topology, 8080), session(topology, 8080)];
        assert!(ping(topology, "") && confirmation(filter).is_null());
        let before = rules(filter);
        let began = apply(filter, file, LONG_TIME);
        assert!(!ping(topology, ""), "the new rules are in force");
        goes_on(&mut sessions[0]);

        let pending = confirmation(filter);
        assert_eq!((&pending["generation"], &pending["back_to_generation"]), (&2.into(), &1.into()), "{pending}");
        assert_eq!(pending["back_to_rules"], 4, "{pending}");
        assert!(pending["time_left_seconds"].as_f64().is_some_and(|left| left <= 20.0), "{pending}");
        let labels = ["generation=\"2\"", "back_to=\"1\""];
        let left = filter.metric("knockplane_config_confirmation_left_seconds", &labels).expect("a metric");
        assert!(left <= 20.0, "{left}");
        assert!(filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout.contains("is rolled back in"));

        for change in
            [&["apply", file][..], &["apply", "--confirm", "1m", file], &["reload"], &["reload", "--confirm", "1m"]]
        {
            let refused = filter.knockctl(change).expect("knockctl");
            assert_eq!(refused.code, Some(6), "{change:?}: {refused:?}");
            for part in ["while generation 2 waits for a confirmation", "nothing changed", "`knockctl confirm`"] {
                assert!(refused.stderr.contains(part), "{part}: {refused:?}");
            }
        }
        kill_process(Pid::from_raw(filter.dataplane.id() as i32).expect("an id"), Signal::HUP).expect("sent");
        assert_eq!(generation(filter), 2);

        let confirmed = filter.ask(&["confirm"]).expect("confirmed");
        assert_eq!(confirmed["generation"], 2, "{confirmed}");
        assert!(confirmation(filter).is_null());
        assert!(filter.metric("knockplane_config_confirmation_left_seconds", &[]).is_err());
        let again = filter.knockctl(&["confirm"]).expect("knockctl");
        assert_eq!(again.code, Some(6), "{again:?}");
        assert!(
            again.stderr.contains("no apply and no reload waits for a confirmation; nothing changed: generation 2"),
            "{again:?}"
        );

        thread::sleep(Duration::from_secs(21).saturating_sub(began.elapsed()));
        assert_eq!(generation(filter), 2);
        assert!(!ping(topology, "") && listed(filter, "secured", CLIENT));
        goes_on(&mut sessions[1]);
        let counters = |rules: &Value| rules["rules"][1]["counter"].clone();
        assert_eq!(counters(&rules(filter)), counters(&before), "the counter of a rule in both sets continues");
        eventually("the log has it", || {
            let log = filter.log();
            let confirmed = log.lines().any(|line| line.contains(" confirmed ") && line.contains("generation=2"));
            log.contains("waits for a confirmation, or is rolled back") && confirmed
        });
        assert!(!filter.log().contains("not confirmed in time"), "{}", filter.log());

        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert!(filter.knockctl(&["list", "add", "secured", CLIENT]).expect("knockctl").ok());
        assert!(!ping(topology, ""), "a restart keeps the confirmed rules");
    });
}

#[test]
fn a_change_that_waits_is_cancelled_at_once() {
    with_grant(|topology, filter, file| {
        let before = rule_ids(&rules(filter));
        apply(filter, file, "1h");
        assert!(!ping(topology, ""), "the new rules are in force");
        let cancelled = filter.ask(&["cancel"]).expect("cancelled");
        assert_eq!((&cancelled["generation"], &cancelled["revision"]), (&3.into(), &3.into()), "{cancelled}");
        assert!(ping(topology, "") && confirmation(filter).is_null());
        assert_eq!(rule_ids(&rules(filter)), before);
        let history = filter.ask(&["history"]).expect("the history");
        let last = history["revisions"].as_array().and_then(|revisions| revisions.last()).expect("a revision");
        assert_eq!((&last["origin"], &last["uid"]), (&"unconfirmed".into(), &0.into()), "{last}");
        let again = filter.knockctl(&["cancel"]).expect("knockctl");
        assert!(
            again.code == Some(6) && again.stderr.contains("waits for a confirmation; nothing changed"),
            "{again:?}"
        );
        eventually("the log has it", || filter.log().contains("cancelled: rolled back"));

        // A reload's doors as well; there is none before.
        let configuration = filter.path("knockplane.toml");
        let text = fs::read_to_string(&configuration).expect("the configuration");
        let door =
            "[[door]]\nname = \"new\"\nknock = [\"tcp/7000\", \"udp/7001\"]\nopens = [\"tcp/8081\"]\nfor = \"1h\"\n";
        fs::write(&configuration, format!("{text}{door}")).expect("written");
        let doors = || filter.ask(&["show", "doors"]).expect("doors")["doors"].as_array().expect("doors").len();
        assert!(filter.knockctl(&["reload", "--confirm", "1h"]).expect("knockctl").ok());
        assert_eq!(doors(), 1);
        assert!(filter.knockctl(&["cancel"]).expect("knockctl").ok());
        assert_eq!((doors(), rule_ids(&rules(filter))), (0, before));
    });
}

#[test]
fn rules_without_a_confirmation_are_rolled_back_as_they_were() {
    with_grant(|topology, filter, file| {
        // The server answers each connection once, in order.
        let mut sessions = [session(topology, 8080), session(topology, 8080)];
        assert!(ping(topology, ""));
        let before = rules(filter);
        apply(filter, file, TIME);
        assert!(!ping(topology, ""), "the new rules are in force");
        goes_on(&mut sessions[0]);
        eventually("the rollback", || generation(filter) == 3);
        assert!(ping(topology, "") && listed(filter, "secured", CLIENT), "the grant is in force");
        goes_on(&mut sessions[1]);
        let after = rules(filter);
        assert_eq!(rule_ids(&after), rule_ids(&before));
        assert_eq!(after["source"], before["source"]);
        let packets =
            |rules: &Value, rule: usize| rules["rules"][rule]["counter"]["packets"].as_u64().expect("packets");
        assert_eq!(packets(&after, 1), packets(&before, 1), "the counter of a rule in both sets continues");
        assert!(packets(&after, 2) > packets(&before, 2), "the counter of a rule that returns continues");
        assert!(confirmation(filter).is_null());
        eventually("the log has it", || {
            let log = filter.log();
            log.lines().any(|line| line.contains("WARN") && line.contains("not confirmed in time: rolled back"))
        });
        let late = filter.knockctl(&["confirm"]).expect("knockctl");
        assert_eq!(late.code, Some(6), "{late:?}");
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok(), "changes are possible again");
        assert!(filter.knockctl(&["apply", file]).expect("knockctl").ok());
    });
}

#[test]
fn the_rollback_does_not_need_control() {
    with_grant(|topology, filter, file| {
        apply(filter, file, TIME);
        kill(filter.control.id());
        assert!(!ping(topology, ""), "the new rules are in force");
        eventually("the rollback", || ping(topology, ""));
        filter.restart_control().expect("started again");
        assert_eq!(generation(filter), 3);
        assert!(confirmation(filter).is_null() && listed(filter, "secured", CLIENT));
    });
}

#[test]
fn a_dataplane_that_restarts_meanwhile_begins_with_the_rules_before() {
    for with_control in [false, true] {
        with_grant(|topology, filter, file| {
            assert!(filter.knockctl(&["list", "add", "secured", CLIENT]).expect("knockctl").ok());
            let before = rules(filter);
            apply(filter, file, TIME);
            assert!(!ping(topology, ""), "the new rules are in force");
            if with_control {
                kill(filter.control.id());
                kill(filter.dataplane.id());
                filter.restart_both().expect("started again");
            } else {
                kill(filter.dataplane.id());
                filter.restart_dataplane().expect("started again");
            }
            assert!(ping(topology, ""), "the rules before are in force");
            assert_eq!(rule_ids(&rules(filter)), rule_ids(&before));
            assert!(confirmation(filter).is_null());
            assert_eq!(filter.knockctl(&["confirm"]).expect("knockctl").code, Some(6));
            let history = filter.ask(&["history"]).expect("the history");
            let last = history["revisions"].as_array().and_then(|all| all.last()).expect("revisions");
            assert_eq!(last["origin"], "unconfirmed", "no undo returns to the rules that nobody confirmed: {last}");
            thread::sleep(Duration::from_secs(6));
            assert_eq!(generation(filter), 1, "no rollback follows");
            // The source is stored without the words that a start adds to it.
            assert!(filter.knockctl(&["apply", "--confirm", "5s", file]).expect("knockctl").ok());
            kill(filter.dataplane.id());
            filter.restart_dataplane().expect("started again");
            let source = rules(filter)["source"].as_str().expect("a source").to_owned();
            assert_eq!(source.matches("kept from the last apply").count(), 1, "{source}");
            assert!(ping(topology, ""));
        });
    }
}

#[test]
fn an_invalid_time_changes_nothing() {
    with_grant(|_, filter, file| {
        for time in ["4s", "2h", "soon"] {
            let refused = filter.knockctl(&["apply", "--confirm", time, file]).expect("knockctl");
            assert_eq!((refused.code, generation(filter)), (Some(2), 1), "{time}: {refused:?}");
        }
    });
}
