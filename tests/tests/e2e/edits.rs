//! `knockctl rule`, `undo`, `redo` and `edit`: changes of single rules while they run, and editors at the same time.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use knockplane_tests::{CLIENT, Filter, FilterOptions, Output};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::scenario::{QUICK, eventually, knock, listed, ping, rule_ids, with};

fn rules(filter: &Filter<'_>) -> Value {
    filter.ask(&["show", "rules"]).expect("rules")
}

fn generation(filter: &Filter<'_>) -> u64 {
    rules(filter)["generation"].as_u64().expect("a generation")
}

fn revision(filter: &Filter<'_>) -> u64 {
    rules(filter)["revision"].as_u64().expect("a revision")
}

fn history(filter: &Filter<'_>) -> Vec<Value> {
    filter.ask(&["history"]).expect("the history")["revisions"].as_array().expect("revisions").clone()
}

/// Runs a command that must succeed.
fn done(filter: &Filter<'_>, arguments: &[&str]) -> String {
    let output = filter.knockctl(arguments).expect("knockctl");
    assert!(output.ok(), "{arguments:?}: {output:?}");
    output.stdout
}

/// Runs a command that must fail with this code, and change neither the rules nor the history.
fn refused(filter: &Filter<'_>, arguments: &[&str], code: i32, parts: &[&str]) {
    let (before, export) = (generation(filter), done(filter, &["export"]));
    let revisions = history(filter).len();
    let output = filter.knockctl(arguments).expect("knockctl");
    assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
    for part in parts {
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
    assert_eq!((generation(filter), done(filter, &["export"])), (before, export), "{arguments:?}");
    assert_eq!(history(filter).len(), revisions);
}

/// The comments of the rules, in order.
fn comments(filter: &Filter<'_>) -> Vec<String> {
    let rules = rules(filter);
    let rules = rules["rules"].as_array().expect("rules");
    rules.iter().map(|rule| rule["comment"].as_str().expect("a comment").to_owned()).collect()
}

#[test]
fn an_edit_takes_effect_at_once_and_is_a_revision() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        knock(topology, "1234:tcp");
        eventually("the knock is decided", || listed(filter, "temporary", CLIENT));
        assert!(!ping(topology, ""));
        let before = rules(filter);
        let add = ["rule", "add", "chain=input", "protocol=icmp", "place-before=0", "comment=pings for all"];
        let answer = done(filter, &[&add[..], &["--comment", "ticket 7"]].concat());
        for part in ["generation 2 runs, 5 rules; revision 2", "rules: 1 added, 0 removed, 0 moved, 0 changed"] {
            assert!(answer.contains(part), "{part}: {answer}");
        }
        assert!(ping(topology, ""));

        let after = rules(filter);
        assert_eq!(rule_ids(&after)[1..], rule_ids(&before));
        assert_eq!(after["rules"][1]["counter"], before["rules"][0]["counter"], "counters continue");
        assert_eq!(after["rules"][1]["counter"]["packets"], 1);
        assert_eq!((&after["rules"][1]["line"], &after["rules"][0]["line"]), (&2.into(), &Value::Null));
        let file = filter.path("rules.rsc").display().to_string();
        assert_eq!(after["source"], format!("{file}, edited"));
        let command = "rule add chain=input protocol=icmp place-before=0 comment=\"pings for all\"";
        let origin = |rule: usize| after["rules"][rule]["origin"].clone();
        let of = |revision: u64, change: &str, source: &str| serde_json::json!({"revision": revision, "change": change, "source": source});
        assert_eq!((origin(0), origin(1)), (of(2, "edit", command), of(1, "start", &file)));
        let last = history(filter).pop().expect("a revision");
        let told = (&last["origin"], &last["edit"], &last["comment"], &last["uid"], &last["changes"]["added"]);
        assert_eq!(told, (&"edit".into(), &command.into(), &"ticket 7".into(), &0.into(), &1.into()), "{last}");
        let export = done(filter, &["export"]);
        assert!(export.contains("add action=accept chain=input comment=\"pings for all\" protocol=icmp\n"), "{export}");
        let shown = done(filter, &["show", "rules"]);
        for part in [" 0    r2  ;;; pings for all\n", " 1    r1  chain=input", "  r1: start, "] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(done(filter, &["history"]).contains("rule add chain=input"));

        let id = after["rules"][0]["id"].as_str().expect("an id").to_owned();
        done(filter, &["rule", "disable", &id]);
        assert!(!ping(topology, ""));
        assert_eq!(rules(filter)["rules"][0]["origin"]["revision"], 3, "the edit changed the rule");
        done(filter, &["rule", "enable", "0"]);
        assert!(ping(topology, ""));
        let moved = filter.knockctl(&["rule", "move", &id]).expect("knockctl");
        assert!(moved.ok() && moved.stderr.contains("warning[K001]: rule ip filter 4: "), "{moved:?}");
        assert!(!ping(topology, ""), "the rule is behind the one that drops");
        done(filter, &["rule", "set", &id, "protocol=tcp", "dst-port=2222", "comment=other"]);
        done(filter, &["rule", "move", "4", "destination=2"]);
        assert_eq!(comments(filter), ["", "", "other", "", ""]);
        done(filter, &["rule", "comment", "2", "a; \"b\" $c"]);
        assert_eq!(comments(filter)[2], "a; \"b\" $c");
        done(filter, &["rule", "remove", "[find comment~\"^a\"]"]);
        assert_eq!(rule_ids(&rules(filter)), rule_ids(&before));
        assert_eq!(history(filter).len(), 9);
        // No change is no revision.
        done(filter, &["rule", "enable", "0"]);
        assert_eq!(revision(filter), 9);

        done(filter, &["rule", "add", "chain=input", "protocol=icmp", "place-before=0"]);
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert!(ping(topology, ""), "a restart keeps the edit");
        assert_eq!((revision(filter), rules(filter)["rules"][0]["origin"]["revision"].clone()), (10, 10.into()));
        done(filter, &["rule", "remove", "0"]);
        assert_eq!(rules(filter)["source"], format!("{file}, edited"), "{}", rules(filter));
    });
}

#[test]
fn an_edit_that_cannot_be_is_refused_and_changes_nothing() {
    let door = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"tcp/8000\"]\nopens = [\"tcp/22\"]\nfor = \"1m\"\n";
    let options = FilterOptions { sections: door.to_owned(), ..FilterOptions::from_rules(QUICK) };
    with(&options, |_, filter| {
        let numbers = rules(filter);
        let all = numbers["rules"].as_array().expect("rules");
        let own = all.iter().find(|rule| rule["dynamic"] == false).expect("a rule");
        let of_door = all.iter().find(|rule| rule["dynamic"] == true).expect("a rule");
        let number = own["number"].as_str().and_then(|number| number.split(' ').next_back()).expect("a number");
        let config = filter.path("knockplane.toml").display().to_string();
        assert_eq!(
            (&of_door["origin"]["source"], &of_door["origin"]["revision"]),
            (&config.clone().into(), &Value::Null)
        );
        let id = of_door["id"].as_str().expect("an id");
        for edit in [
            &["rule", "remove", "0"][..],
            &["rule", "disable", id],
            &["rule", "add", "chain=input", "place-before=0"],
            &["rule", "move", number, "0"],
        ] {
            refused(
                filter,
                edit,
                6,
                &["comes from the configuration file", &config, "nothing changed", "knockctl reload"],
            );
        }
        for (edit, code, part) in [
            (&["rule", "set", number, "dst-port=x"][..], 3, "dst-port"),
            (&["rule", "add", "chain=input", "action=jump", "jump-target=input"], 3, "forms a cycle"),
            (&["rule", "add", "chain=input", "layer7-protocol=none"], 3, "none"),
            (&["rule", "remove", "99"], 6, "no rule is named `99`"),
            (&["rule", "remove", "0badc0de"], 6, "no rule is named `0badc0de`"),
            (&["rule", "set", number, "dst-port 22"], 2, "is no property"),
            (&["rule", "add"], 2, "PROPERTY"),
        ] {
            refused(filter, edit, code, &[part]);
        }
        done(filter, &["rule", "set", number, "comment=first"]);
        assert!(done(filter, &["export"]).contains("comment=first"));
        let back = done(filter, &["rollback"]);
        assert!(back.contains("rules: 0 added, 0 removed, 0 moved, 1 changed"), "rules of doors stay: {back}");
        let json = filter.knockctl(&["--json", "rule", "remove", "99"]).expect("knockctl").stdout;
        assert!(json.contains("\"code\": \"conflict\""), "{json}");
    });
    // The last way in needs a confirmation, as at an apply.
    with(&FilterOptions::from_rules(QUICK), |_, filter| {
        refused(filter, &["rule", "disable", "2"], 5, &["accept nothing from outside", "--force"]);
        let answer = done(filter, &["rule", "disable", "2", "--force", "--confirm", "20s"]);
        assert!(answer.contains("rolled back in 20s"), "{answer}");
        refused(filter, &["rule", "enable", "2"], 6, &["waits for a confirmation"]);
        refused(filter, &["undo"], 6, &["waits for a confirmation"]);
        done(filter, &["confirm"]);
        done(filter, &["rule", "enable", "2"]);
    });
}

#[test]
fn counters_are_reset_and_nothing_else() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        eventually("the knock is decided", || listed(filter, "secured", CLIENT));
        let packets = |rule: usize| rules(filter)["rules"][rule]["counter"]["packets"].as_u64().expect("a number");
        assert_eq!((packets(0), packets(1)), (1, 1));
        let (before, export) = (rules(filter), done(filter, &["export"]));
        let id = before["rules"][0]["id"].as_str().expect("an id");
        let total = || filter.metric("knockplane_rule_packets_total", &[&format!("rule=\"{id}\"")]).expect("a metric");
        assert_eq!(total(), 1.0);

        assert_eq!(done(filter, &["rule", "reset-counters", id]), "the counters of 1 rule begin at zero\n");
        assert_eq!((packets(0), packets(1)), (0, 1));
        knock(topology, "1234:tcp");
        eventually("the packet is counted", || packets(0) == 1);
        assert_eq!(total(), 2.0, "metrics continue");
        done(filter, &["rule", "reset-counters"]);
        assert_eq!((packets(0), packets(1), packets(2)), (0, 0, 0));
        let after = rules(filter);
        assert_eq!((&after["generation"], &after["revision"]), (&before["generation"], &before["revision"]));
        assert_eq!(done(filter, &["export"]), export);
        refused(filter, &["rule", "reset-counters", "9"], 6, &["no rule is named `9`"]);
    });
}

#[test]
fn a_change_of_an_earlier_revision_is_refused_with_the_changes_since() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        done(filter, &["rule", "add", "chain=input", "protocol=icmp", "place-before=0", "--revision", "1"]);
        let file = filter.path("new.rsc");
        fs::write(&file, done(filter, &["export"]).replace("protocol=icmp", "protocol=icmp comment=p"))
            .expect("written");
        let file = file.display().to_string();
        done(filter, &["apply", &file, "--revision", "2", "--comment", "named"]);
        let since = [
            "based on revision 1, and revision 3 runs; nothing changed",
            "revision 2, edit by user 0: rule add chain=input protocol=icmp place-before=0; rules +1 -0 ~0",
            &format!("revision 3, apply by user 0: {file}; rules +0 -0 ~1; named"),
        ];
        // The rule 0 of revision 1 is another rule now.
        for change in [
            &["rule", "remove", "0", "--revision", "1"][..],
            &["rule", "reset-counters", "0", "--revision", "1"],
            &["apply", &file, "--revision", "1"],
            &["rollback", "1", "--revision", "1"],
            &["rollback", "--revision", "1"],
            &["undo", "--revision", "1"],
            &["edit", "--revision", "1", "--force"],
        ] {
            refused(filter, change, 6, &since);
        }
        refused(filter, &["rule", "remove", "0", "--revision", "9"], 6, &["there is no revision 9: revision 3 runs"]);
        assert!(ping(topology, ""));
        done(filter, &["rule", "remove", "0", "--revision", "3"]);
        assert!(!ping(topology, ""));
        assert_eq!(revision(filter), 4);
    });
}

/// Editors that start from the same revision at the same time: one succeeds, and the others learn of it.
#[test]
fn one_of_several_editors_at_the_same_time_succeeds() {
    const EDITORS: usize = 4;
    with(&FilterOptions::from_rules(QUICK), |_, filter| {
        for round in 0..5 {
            let base = revision(filter).to_string();
            let outputs: Vec<Output> = thread::scope(|scope| {
                let editor = |editor: usize| {
                    let (base, filter) = (&base, &*filter);
                    scope.spawn(move || {
                        let port = format!("dst-port={}", 10_000 + 100 * round + editor);
                        let add = ["rule", "add", "chain=input", "protocol=tcp", &port, "--revision", base];
                        filter.knockctl(&add).expect("knockctl")
                    })
                };
                let editors: Vec<_> = (0..EDITORS).map(editor).collect();
                editors.into_iter().map(|editor| editor.join().expect("an output")).collect()
            });
            let (ok, others): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.ok());
            assert_eq!((ok.len(), others.len()), (1, EDITORS - 1), "{outputs:?}");
            for other in others {
                assert_eq!(other.code, Some(6), "{other:?}");
                assert!(other.stderr.contains(&format!("based on revision {base}")), "{other:?}");
                assert!(other.stderr.contains("edit by user 0: rule add chain=input protocol=tcp"), "{other:?}");
            }
            assert_eq!(rules(filter)["rules"].as_array().map(Vec::len), Some(5 + round));
        }
    });
}

#[test]
fn undo_and_redo_step_through_the_changes() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        refused(filter, &["undo"], 6, &["no change to undo", "nothing changed"]);
        refused(filter, &["redo"], 6, &["no undo to reverse", "nothing changed"]);
        for comment in ["one", "two"] {
            done(
                filter,
                &["rule", "add", "chain=input", "protocol=icmp", "place-before=0", &format!("comment={comment}")],
            );
        }
        let shown =
            |comments: &[String]| comments.iter().filter(|comment| !comment.is_empty()).cloned().collect::<Vec<_>>();
        let is = |expected: &[&str]| assert_eq!(shown(&comments(filter)), expected);
        is(&["two", "one"]);
        done(filter, &["undo", "--comment", "too much"]);
        is(&["one"]);
        done(filter, &["undo"]);
        is(&[]);
        assert!(!ping(topology, ""));
        refused(filter, &["undo"], 6, &["no change to undo"]);
        done(filter, &["redo"]);
        is(&["one"]);
        assert!(ping(topology, ""));
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        let is = |expected: &[&str]| assert_eq!(shown(&comments(filter)), expected);
        done(filter, &["redo"]);
        is(&["two", "one"]);
        refused(filter, &["redo"], 6, &["no undo to reverse"]);
        let told: Vec<(String, Option<u64>)> = history(filter)
            .iter()
            .map(|revision| (revision["origin"].as_str().expect("a word").to_owned(), revision["back_to"].as_u64()))
            .collect();
        let step = |origin: &str, back_to| (origin.to_owned(), Some(back_to));
        assert_eq!(told[3..], [step("undo", 2), step("undo", 1), step("redo", 2), step("redo", 3)]);
        assert_eq!(history(filter)[3]["comment"], "too much");

        done(filter, &["undo"]);
        done(filter, &["rule", "add", "chain=input", "protocol=icmp", "comment=three"]);
        refused(filter, &["redo"], 6, &["other changes followed"]);
        done(filter, &["undo"]);
        is(&["one"]);
        // What was not confirmed has not happened.
        done(filter, &["undo", "--confirm", "5s"]);
        is(&[]);
        eventually("the rollback", || history(filter).last().is_some_and(|last| last["origin"] == "unconfirmed"));
        is(&["one"]);
        done(filter, &["undo"]);
        is(&[]);
    });
}

/// Runs `knockctl edit` with this editor, whose temporary files are in the filter's folder.
fn edit(filter: &Filter<'_>, editor: &str, arguments: &[&str]) -> Command {
    let folder = filter.path("edits");
    fs::create_dir_all(&folder).expect("a folder");
    let mut command = filter.command(&["edit"]).expect("built");
    command.args(arguments).env("TMPDIR", folder).env_remove("VISUAL").env("EDITOR", editor);
    command
}

fn output(mut command: Command) -> Output {
    knockplane_tests::run(&mut command).expect("started")
}

/// Runs the command on a terminal, whose user answers every question with this line.
fn on_terminal(mut command: Command, answer: &str) -> Output {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&user).expect("granted");
    unlockpt(&user).expect("unlocked");
    let name = ptsname(&user, Vec::new()).expect("a name").into_string().expect("text");
    let terminal = File::options().read(true).write(true).open(name).expect("opened");
    command.stdin(terminal.try_clone().expect("a descriptor")).stderr(terminal).stdout(Stdio::piped());
    let child = command.spawn().expect("started");
    // The command has the last descriptors of the terminal, so reading ends with it.
    drop(command);
    let mut user = File::from(user);
    user.write_all(format!("{answer}\n").as_bytes()).expect("typed");
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        // The end of the terminal is an error of reading.
        let _ = user.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let output = child.wait_with_output().expect("an output");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Output { code: output.status.code(), stdout, stderr: reader.join().expect("read") }
}

/// The kept texts.
fn kept(filter: &Filter<'_>) -> Vec<PathBuf> {
    fs::read_dir(filter.path("edits")).expect("a folder").map(|file| file.expect("a file").path()).collect()
}

/// An editor that allows pings.
const PINGS: &str = "sed -i -e '/^\\/ip firewall filter/a add chain=input protocol=icmp comment=pings'";

#[test]
fn the_editor_shows_the_plan_asks_and_waits_for_a_confirmation() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        eventually("the knock is decided", || listed(filter, "secured", CLIENT));
        let before = rules(filter);
        let declined = on_terminal(edit(filter, PINGS, &[]), "n");
        assert_eq!(declined.code, Some(5), "{declined:?}");
        for part in ["rules: 1 added, 0 removed", "comment=pings", "verdicts: ", "Apply them? [y/N]", "not applied"] {
            assert!(declined.stderr.contains(part), "{part}: {declined:?}");
        }
        let [file] = &kept(filter)[..] else { panic!("{:?}", kept(filter)) };
        assert!(declined.stderr.contains(&file.display().to_string()), "{declined:?}");
        let text = fs::read_to_string(file).expect("the text");
        assert!(text.contains("# revision 1;") && text.contains("comment=pings"), "{text}");
        fs::remove_file(file).expect("removed");
        assert_eq!(generation(filter), 1);

        let applied = on_terminal(edit(filter, PINGS, &["--comment", "by hand"]), "y");
        assert_eq!(applied.code, Some(0), "{applied:?}");
        for part in ["generation 2 runs, 5 rules; revision 2", "rolled back in 1m", "run `knockctl confirm`"] {
            assert!(applied.stdout.contains(part), "{part}: {applied:?}");
        }
        assert!(kept(filter).is_empty());
        done(filter, &["confirm"]);
        assert!(ping(topology, ""));
        let after = rules(filter);
        assert_eq!(after["rules"][1]["counter"]["packets"], before["rules"][0]["counter"]["packets"]);
        assert_eq!(after["rules"][1]["line"], before["rules"][0]["line"]);
        let last = history(filter).pop().expect("a revision");
        let told = (&last["origin"], &last["edit"], &last["comment"], &last["confirm_within_seconds"]);
        assert_eq!(told, (&"edit".into(), &"edit".into(), &"by hand".into(), &60.0.into()), "{last}");
    });
}

#[test]
fn a_text_that_is_not_applied_is_kept() {
    with(&FilterOptions::from_rules(QUICK), |_, filter| {
        let unchanged = output(edit(filter, "true", &[]));
        assert!(unchanged.ok() && unchanged.stdout.contains("unchanged"), "{unchanged:?}");
        assert!(kept(filter).is_empty() && generation(filter) == 1);
        let failing = output(edit(filter, "false", &[]));
        assert!(failing.code == Some(1) && failing.stderr.contains("the editor `false` failed"), "{failing:?}");
        assert!(kept(filter).is_empty());

        let other = filter.knockctl_line(&["rule", "add", "chain=input", "protocol=gre"]).expect("built");
        for (editor, arguments, code, part) in [
            ("sed -i s/1234/x/".to_owned(), &["--force"][..], 3, "dst-port"),
            (PINGS.to_owned(), &[], 5, "give `--force`"),
            (format!("sh -c '{other} && sed -i s/1234/1235/ \"$0\"'"), &["--force"], 6, "edit by user 0: rule add"),
        ] {
            let failed = output(edit(filter, &editor, arguments));
            assert_eq!(failed.code, Some(code), "{failed:?}");
            let [file] = &kept(filter)[..] else { panic!("{:?}", kept(filter)) };
            let told = format!("your text is kept in {}", file.display());
            assert!(failed.stderr.contains(part) && failed.stderr.contains(&told), "{failed:?}");
            fs::remove_file(file).expect("removed");
        }
        let export = done(filter, &["export"]);
        assert!(export.contains("gre") && !export.contains("1235") && !export.contains("icmp"), "{export}");
        assert_eq!(revision(filter), 2, "the edit of the other editor");
        let applied = output(edit(filter, "sed -i s/1234/1235/", &["--force", "--confirm", "10s"]));
        assert!(applied.ok() && applied.stdout.contains("rolled back in 10s"), "{applied:?}");
        done(filter, &["confirm"]);
        assert!(done(filter, &["export"]).contains("1235") && kept(filter).is_empty());
    });
}
