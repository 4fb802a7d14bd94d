//! `knockctl reload --confirm`: doors and `[policy]` that remain only if an operator confirms them.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use knockplane_tests::{CLIENT, Filter, FilterOptions, Topology, binary, run};
use serde_json::Value;

use crate::confirm::{LONG_TIME, TIME, confirmation, generation, kill};
use crate::doors::{goes_on, session};
use crate::scenario::{eventually, knock, listed, ping, serve_tcp, with};

/// The configuration before: pings are dropped.
const BEFORE: &str = "[[door]]\nname = \"echo\"\nknock = [\"tcp/7000\"]\nopens = [\"tcp/8080\"]\nfor = \"1h\"\n";

/// The configuration after: another door, and pings pass.
const AFTER: &str = "[[door]]\nname = \"other\"\nknock = [\"udp/7001\"]\nopens = [\"tcp/8081\"]\n[policy.chain-default]\ninput = \"accept\"\n";

const WARNING: &str = "the doors and [policy] are those from before a reload that was not confirmed";

/// Runs a test with a grant of the door [`BEFORE`], and [`AFTER`] in the configuration file.
fn with_grant(test: impl FnOnce(&Topology, &mut Filter<'_>)) {
    let options = FilterOptions { sections: BEFORE.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") };
    with(&options, |topology, filter| {
        serve_tcp(topology, 8080);
        knock(topology, "7000:tcp");
        eventually("the door opens", || listed(filter, "door-echo", CLIENT));
        assert!(!ping(topology, ""));
        write(filter, &configuration(filter).replace(BEFORE, AFTER));
        test(topology, filter);
    });
}

fn configuration(filter: &Filter<'_>) -> String {
    fs::read_to_string(filter.path("knockplane.toml")).expect("the configuration")
}

fn write(filter: &Filter<'_>, text: &str) {
    fs::write(filter.path("knockplane.toml"), text).expect("written");
}

/// Reloads the file, which must be confirmed. Returns the time before it.
fn reload(filter: &Filter<'_>, time: &str) -> Instant {
    let began = Instant::now();
    let reloaded = filter.knockctl(&["reload", "--confirm", time]).expect("knockctl");
    assert!(reloaded.ok(), "{reloaded:?}");
    for part in ["generation 2 runs, 1 door", &format!("rolled back in {time}"), "`knockctl confirm`"] {
        assert!(reloaded.stdout.contains(part), "{part}: {reloaded:?}");
    }
    began
}

/// The names of the doors that run.
fn doors(filter: &Filter<'_>) -> Vec<String> {
    let doors = filter.ask(&["show", "doors"]).expect("doors")["doors"].clone();
    let name = |door: &Value| door["door"].as_str().expect("a name").to_owned();
    doors.as_array().expect("doors").iter().map(name).collect()
}

/// Whether the dataplane tells that the file has other doors or another `[policy]` than those that run.
fn differs_from_file(filter: &Filter<'_>) -> bool {
    let text = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let status = filter.ask(&["show", "status"]).expect("the status");
    let warnings = status["warnings"].as_array().expect("warnings");
    let is_told = warnings.iter().any(|warning| warning.as_str().is_some_and(|warning| warning.starts_with(WARNING)));
    assert_eq!((text.contains(WARNING), filter.http("/readyz").expect("ready").contains(WARNING)), (is_told, is_told));
    is_told
}

fn has_stored_settings(filter: &Filter<'_>) -> bool {
    filter.path("state").join("settings.state").exists()
}

#[test]
fn confirmed_settings_remain() {
    with_grant(|topology, filter| {
        let mut session = session(topology, 8080);
        let began = reload(filter, LONG_TIME);
        assert!(ping(topology, ""), "[policy] of the file is in force");
        assert_eq!(doors(filter), ["other"]);
        assert!(has_stored_settings(filter) && !differs_from_file(filter), "those of the file run");

        let pending = confirmation(filter);
        assert_eq!((&pending["change"], &pending["back_to_generation"]), (&"reload".into(), &1.into()), "{pending}");
        let shown = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
        assert!(shown.contains("to the doors and [policy] of generation 1"), "{shown}");
        let file = filter.path("rules.rsc").display().to_string();
        for change in [
            &["apply", "--force", &file][..],
            &["apply", "--force", "--confirm", "1m", &file],
            &["reload"],
            &["reload", "--confirm", "1m"],
        ] {
            let refused = filter.knockctl(change).expect("knockctl");
            assert_eq!(refused.code, Some(6), "{change:?}: {refused:?}");
            for part in ["while generation 2 waits for a confirmation", "nothing changed", "doors and [policy] of"] {
                assert!(refused.stderr.contains(part), "{part}: {refused:?}");
            }
        }

        assert_eq!(filter.ask(&["confirm"]).expect("confirmed")["generation"], 2);
        assert!(confirmation(filter).is_null() && !has_stored_settings(filter));
        assert_eq!(filter.knockctl(&["confirm"]).expect("knockctl").code, Some(6));
        thread::sleep(Duration::from_secs(21).saturating_sub(began.elapsed()));
        assert_eq!((generation(filter), doors(filter)), (2, vec!["other".to_owned()]));
        assert!(ping(topology, ""));
        goes_on(&mut session);

        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert!(ping(topology, "") && !differs_from_file(filter), "a restart keeps the confirmed settings");
        assert_eq!(doors(filter), ["other"]);
        write(filter, &configuration(filter).replace(AFTER, BEFORE));
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        assert!(!listed(filter, "door-echo", CLIENT), "the confirmation has removed the door with its grants");
    });
}

#[test]
fn settings_without_a_confirmation_are_rolled_back_and_differ_from_the_file() {
    with_grant(|topology, filter| {
        let mut sessions = [session(topology, 8080), session(topology, 8080)];
        reload(filter, TIME);
        assert!(ping(topology, ""));
        goes_on(&mut sessions[0]);
        eventually("the rollback", || generation(filter) == 3);
        assert!(!ping(topology, "") && listed(filter, "door-echo", CLIENT), "the grant is in force");
        goes_on(&mut sessions[1]);
        assert_eq!(doors(filter), ["echo"]);
        assert!(confirmation(filter).is_null() && differs_from_file(filter));
        assert_eq!(filter.knockctl(&["confirm"]).expect("knockctl").code, Some(6));
        let history = filter.ask(&["history"]).expect("the history")["revisions"].clone();
        assert_eq!((&history[1]["origin"], &history[1]["confirm_within_seconds"]), (&"reload".into(), &5.0.into()));
        assert_eq!(
            (&history[2]["origin"], &history[2]["comment"]),
            (&"reload".into(), &"not confirmed in time".into())
        );
        let is_told = |filter: &Filter<'_>, line: &str| {
            let log = filter.log();
            log.lines().any(|told| told.contains("WARN") && told.contains(line))
        };
        eventually("the log has it", || {
            is_told(filter, "not confirmed in time: rolled back") && is_told(filter, "[policy] from before the reload")
        });

        for _ in 0..2 {
            filter.dataplane.kill().expect("killed");
            filter.restart_dataplane().expect("started again");
            assert_eq!(doors(filter), ["echo"]);
            assert!(!ping(topology, "") && listed(filter, "door-echo", CLIENT) && differs_from_file(filter));
            assert!(is_told(filter, "[policy] from before a reload that was not confirmed"));
        }
        let doctor = filter.knockctl(&["doctor", "--config", &filter.path("knockplane.toml").display().to_string()]);
        let doctor = doctor.expect("knockctl").stdout;
        assert!(doctor.contains("stored-settings"), "{doctor}");

        // An apply takes neither the settings of the file nor the difference.
        let rules = filter.path("rules.rsc").display().to_string();
        assert!(filter.knockctl(&["apply", "--force", &rules]).expect("knockctl").ok());
        assert!(doors(filter) == ["echo"] && differs_from_file(filter));

        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        assert_eq!(doors(filter), ["other"]);
        assert!(ping(topology, "") && !differs_from_file(filter) && !has_stored_settings(filter));
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert!(ping(topology, "") && !differs_from_file(filter));
    });
}

#[test]
fn the_rollback_of_settings_does_not_need_control() {
    with_grant(|topology, filter| {
        reload(filter, TIME);
        kill(filter.control.id());
        assert!(ping(topology, ""), "[policy] of the file is in force");
        eventually("the rollback", || !ping(topology, ""));
        filter.restart_control().expect("started again");
        assert_eq!((generation(filter), doors(filter)), (3, vec!["echo".to_owned()]));
        assert!(differs_from_file(filter) && listed(filter, "door-echo", CLIENT));
    });
}

/// Kills the dataplane, or `knockctl`, control and the dataplane.
#[test]
fn a_dataplane_that_restarts_meanwhile_begins_with_the_settings_before() {
    for all in [false, true] {
        with_grant(|topology, filter| {
            if all {
                let mut knockctl = filter.command(&["reload", "--confirm", TIME]).expect("built");
                let mut knockctl = knockctl.stdout(Stdio::null()).spawn().expect("started");
                eventually("the reload", || has_stored_settings(filter) && ping(topology, ""));
                knockctl.kill().expect("killed, or it has ended");
                kill(filter.control.id());
                kill(filter.dataplane.id());
                knockctl.wait().expect("ended");
                filter.restart_both().expect("started again");
            } else {
                reload(filter, TIME);
                assert!(ping(topology, ""));
                kill(filter.dataplane.id());
                filter.restart_dataplane().expect("started again");
            }
            assert!(!ping(topology, "") && listed(filter, "door-echo", CLIENT), "the settings before are in force");
            assert!(doors(filter) == ["echo"] && differs_from_file(filter) && confirmation(filter).is_null());
            assert_eq!(filter.knockctl(&["confirm"]).expect("knockctl").code, Some(6));
            thread::sleep(Duration::from_secs(6));
            assert_eq!(generation(filter), 1, "no rollback follows");
            session(topology, 8080);

            // The file has the settings that run: there is no difference any more.
            write(filter, &configuration(filter).replace(AFTER, BEFORE));
            kill(filter.dataplane.id());
            filter.restart_dataplane().expect("started again");
            assert!(doors(filter) == ["echo"] && !differs_from_file(filter));
        });
    }
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    with_grant(|topology, filter| {
        let unchanged = |filter: &Filter<'_>, why: &str| {
            assert_eq!((generation(filter), doors(filter)), (1, vec!["echo".to_owned()]), "{why}");
            assert!(confirmation(filter).is_null() && !differs_from_file(filter), "{why}");
        };
        for time in ["4s", "2h", "soon"] {
            assert_eq!(filter.knockctl(&["reload", "--confirm", time]).expect("knockctl").code, Some(2), "{time}");
            unchanged(filter, time);
        }
        let valid = configuration(filter);
        write(filter, &format!("{valid}protekt = []\n"));
        let refused = filter.knockctl(&["reload", "--confirm", TIME]).expect("knockctl");
        assert_eq!(refused.code, Some(3), "{refused:?}");
        unchanged(filter, "an invalid file");
        assert!(!has_stored_settings(filter));

        // A directory in place of the file: it can be neither written nor removed.
        write(filter, &valid);
        let stored = filter.path("state").join("settings.state");
        fs::create_dir(&stored).expect("a folder");
        for change in [&["reload", "--confirm", TIME][..], &["reload"]] {
            let refused = filter.knockctl(change).expect("knockctl");
            assert_eq!(refused.code, Some(1), "{change:?}: {refused:?}");
            assert!(
                refused.stderr.contains("settings.state: ") && refused.stderr.contains("nothing changed"),
                "{refused:?}"
            );
            unchanged(filter, "the disk refuses");
        }
        fs::remove_dir(&stored).expect("removed");

        reload(filter, LONG_TIME);
        kill(filter.dataplane.id());
        let mut damaged = fs::read(&stored).expect("a file");
        damaged[3] ^= 1;
        fs::write(&stored, &damaged).expect("written");
        let mut check = topology.filter.command(binary("knockplane-dataplane").expect("built"));
        check.arg("--config").arg(filter.path("knockplane.toml"));
        for arguments in [&[][..], &["--check"]] {
            let refused = run(check.args(arguments)).expect("it runs");
            assert_eq!(refused.code, Some(3), "{refused:?}");
            assert!(refused.stderr.contains("settings.state is damaged"), "{refused:?}");
        }
        filter.restart_dataplane_with(&["--without-state"]).expect("started");
        assert!(doors(filter) == ["other"] && !differs_from_file(filter), "the file's settings, as for the first time");
    });
}
