//! `knockctl history`, `diff` and `rollback`: the rule sets that have run.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, binary};
use serde_json::Value;

use crate::scenario::{QUICK, eventually, ping, rule_ids, with};

fn revisions(filter: &Filter<'_>) -> Vec<Value> {
    filter.ask(&["history"]).expect("the history")["revisions"].as_array().expect("revisions").clone()
}

/// The numbers, origins and returns of all revisions.
fn origins(filter: &Filter<'_>) -> Vec<(u64, String, Option<u64>)> {
    let origin = |revision: &Value| {
        let number = revision["revision"].as_u64().expect("a number");
        (number, revision["origin"].as_str().expect("an origin").to_owned(), revision["back_to"].as_u64())
    };
    revisions(filter).iter().map(origin).collect()
}

fn of(number: u64, origin: &str, back_to: Option<u64>) -> (u64, String, Option<u64>) {
    (number, origin.to_owned(), back_to)
}

/// Writes these rules to a file, and applies it.
fn apply(filter: &Filter<'_>, rules: &str, more: &[&str]) -> String {
    let file = filter.path("new.rsc");
    fs::write(&file, rules).expect("written");
    let file = file.display().to_string();
    let applied = filter.knockctl(&[&["apply", &file], more].concat()).expect("knockctl");
    assert!(applied.ok(), "{applied:?}");
    file
}

/// The rules, with pings for everybody.
fn open() -> String {
    QUICK.replacen("add ", "add chain=input protocol=icmp comment=pings\nadd ", 1)
}

#[test]
fn each_change_is_a_revision_that_can_be_compared_and_restored() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        assert_eq!(origins(filter), [of(1, "start", None)]);
        let before = filter.ask(&["show", "rules"]).expect("rules");
        let file = apply(filter, &open(), &["--comment", "pings for everybody"]);
        assert!(ping(topology, ""));
        assert!(filter.knockctl(&["apply", &file]).expect("knockctl").ok());
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        assert_eq!(origins(filter), [of(1, "start", None), of(2, "apply", None)], "the same rules are no revision");
        let second = revisions(filter)[1].clone();
        assert_eq!((&second["comment"], &second["source"]), (&"pings for everybody".into(), &file.into()), "{second}");
        assert_eq!((&second["uid"], &second["rules"]), (&0.into(), &5.into()), "{second}");
        assert_eq!((&second["changes"]["added"], &second["changes"]["removed"]), (&1.into(), &0.into()), "{second}");

        let diff = filter.knockctl(&["diff", "1", "2"]).expect("knockctl").stdout;
        assert!(diff.contains("\n+add action=accept chain=input comment=pings protocol=icmp\n"), "{diff}");
        assert!(diff.starts_with("--- revision 1\t") && diff.contains("\n+++ revision 2\t"), "{diff}");
        assert_eq!(diff.lines().filter(|line| line.starts_with(['-', '+'])).count(), 3, "{diff}");
        let same = filter.knockctl(&["diff", "2", "2"]).expect("knockctl").stdout;
        assert_eq!(same, "revisions 2 and 2 have the same rules\n");

        let back = filter.ask(&["rollback"]).expect("rolled back");
        assert_eq!(back["rules"], 4, "{back}");
        assert!(!ping(topology, ""));
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!((rule_ids(&after), &after["source"]), (rule_ids(&before), &before["source"]));
        assert_eq!(after["rules"][0]["line"], before["rules"][0]["line"], "lines are those of the file");
        assert!(filter.knockctl(&["rollback", "2", "--comment", "again"]).expect("knockctl").ok());
        assert!(ping(topology, ""));
        let all = [of(1, "start", None), of(2, "apply", None), of(3, "rollback", Some(1)), of(4, "rollback", Some(2))];
        assert_eq!(origins(filter), all);

        for unknown in [&["rollback", "9"][..], &["diff", "1", "9"], &["diff", "0", "1"]] {
            let refused = filter.knockctl(unknown).expect("knockctl");
            assert_eq!(refused.code, Some(6), "{refused:?}");
            assert!(refused.stderr.contains("there is no revision"), "{refused:?}");
        }
        let table = filter.knockctl(&["history"]).expect("knockctl").stdout;
        for part in ["REVISION", "rollback to 2", "pings for", "+1 -0 ~0"] {
            assert!(table.contains(part), "{part}: {table}");
        }
        assert_eq!(origins(filter), all, "nothing changed");

        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert_eq!(origins(filter), all, "a restart keeps the history, and is no revision");
        assert!(ping(topology, ""));
        assert!(filter.knockctl(&["rollback", "1"]).expect("knockctl").ok());
        assert!(!ping(topology, ""));
    });
}

/// The rollback closes the last way in.
#[test]
fn a_rollback_has_the_checks_and_the_confirmation_of_an_apply() {
    let closed = "/ip firewall filter\nadd chain=input action=drop\n";
    with(&FilterOptions::from_rules(closed), |topology, filter| {
        apply(filter, &open(), &[]);
        let refused = filter.knockctl(&["rollback"]).expect("knockctl");
        assert_eq!(refused.code, Some(5), "{refused:?}");
        assert!(ping(topology, ""));
        let back = filter.knockctl(&["rollback", "--force", "--confirm", "5s"]).expect("knockctl");
        assert!(back.ok() && back.stdout.contains("rolled back in 5s"), "{back:?}");
        assert!(!ping(topology, ""));
        let refused = filter.knockctl(&["rollback", "2"]).expect("knockctl");
        assert_eq!(refused.code, Some(6), "{refused:?}");
        eventually("the rollback", || ping(topology, ""));
        let last = revisions(filter).last().cloned().expect("a revision");
        assert_eq!(last["origin"], "unconfirmed", "{last}");
        assert_eq!(revisions(filter)[2]["confirm_within_seconds"], 5.0);
    });
}

#[test]
fn a_restart_during_a_confirmation_and_a_reload_of_doors_are_revisions() {
    let sections =
        "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"tcp/8000\"]\nopens = [\"tcp/22\"]\nfor = \"1m\"\n";
    let options = FilterOptions { sections: sections.to_owned(), ..FilterOptions::from_rules(QUICK) };
    with(&options, |_, filter| {
        let config = filter.path("knockplane.toml");
        let text = fs::read_to_string(&config).expect("the configuration");
        fs::write(&config, text.replace("for = \"1m\"", "for = \"1m\"\ncut = true")).expect("written");
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        assert_eq!(origins(filter), [of(1, "start", None), of(2, "reload", None)]);
        let diff = filter.knockctl(&["diff", "1", "2"]).expect("knockctl").stdout;
        assert!(diff.contains("differ only in the rules of doors"), "{diff}");

        apply(filter, &open(), &["--confirm", "1m"]);
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        let all = origins(filter);
        assert_eq!(all[2..], [of(3, "apply", None), of(4, "unconfirmed", None)]);
        // The rules of doors are those of the configuration.
        assert!(filter.knockctl(&["rollback", "1"]).expect("knockctl").ok());
        assert_eq!(origins(filter).len(), 4, "the rules of revision 1 run already");
    });
}

#[test]
fn a_damaged_history_does_not_prevent_a_start() {
    with(&FilterOptions::from_rules(QUICK), |_, filter| {
        apply(filter, &open(), &[]);
        let file = filter.path("state").join("history.state");
        for place in [3, 60] {
            filter.dataplane.kill().expect("killed");
            let mut damaged = fs::read(&file).expect("a file");
            damaged[place] ^= 1;
            fs::write(&file, &damaged).expect("written");
            filter.restart_dataplane().expect("started");
            let shown = filter.knockctl(&["history"]).expect("knockctl");
            assert!(shown.ok() && shown.stdout.contains("history.state is damaged"), "{shown:?}");
            assert!(!revisions(filter).is_empty(), "the running rules are a revision");
            assert!(filter.log().contains("history.state is damaged"));
            assert!(filter.knockctl(&["rollback"]).is_ok());
        }
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started");
        assert!(filter.ask(&["history"]).expect("the history")["damage"].is_null(), "the file was replaced");
    });
}

/// The history names the user of the operator, not that of the control process.
#[test]
fn the_history_names_the_user() {
    const USER: u32 = 54_321;
    with(&FilterOptions::from_rules(QUICK), |_, filter| {
        use std::os::unix::fs::PermissionsExt as _;
        let socket = filter.path("control.sock");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("set");
        let file = filter.path("new.rsc");
        fs::write(&file, open()).expect("written");
        // Another user may not read the program's folder.
        let program = filter.path("knockctl");
        fs::copy(binary("knockctl").expect("built"), &program).expect("copied");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
        let mut command = Command::new(&program);
        command.arg("--socket").arg(&socket).arg("apply").arg(&file).uid(USER).gid(USER);
        let output = command.output().expect("started");
        assert!(output.status.success(), "{output:?}");
        thread::sleep(Duration::from_millis(1));
        assert_eq!(revisions(filter)[1]["uid"], USER);
    });
}
