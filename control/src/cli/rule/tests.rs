//! Commands and the rules after them, without a dataplane.

use clap::Parser;
use knockplane_policy::rsc;
use knockplane_policy::rule::{RuleSet, numbers};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::history::MAX_APPLY_COMMENT;
use proptest::prelude::*;

use super::*;

const RULES: &str = "/ipv6 firewall filter
add chain=input comment=v6
/ip firewall filter
add action=drop chain=input comment=a dst-port=1 protocol=tcp

add action=drop chain=input comment=b dst-port=2 protocol=tcp
add action=drop chain=input comment=c dst-port=3 protocol=tcp
/ip firewall address-list
add list=secured address=192.0.2.1
";

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: EditCommand,
}

/// A door, whose rules are the first ones.
fn settings() -> Settings {
    let door = r#"{"name":"ssh","knock":["tcp/7000","udp/9000","tcp/8000"]}"#;
    Settings { doors: vec![serde_json::from_str(door).unwrap()], ..Settings::default() }
}

fn running(settings: &Settings) -> RunningRules {
    let rules = knockplane_policy::door::rules(settings, rsc::read(RULES.as_bytes()).rules);
    RunningRules { rules, ..crate::sample::rules() }
}

/// The number of the IPv4 rule with this comment.
fn number(running: &RunningRules, comment: &str) -> u32 {
    let all = numbers(&running.rules.rules).into_iter().zip(&running.rules.rules);
    let mut named = all.filter(|(number, rule)| number.menu() == "ip filter" && rule.comment == comment);
    named.next().expect("a rule").0.number()
}

/// The edit on a command line, without the requests.
fn edit(words: &[&str]) -> Result<Edit, Failed> {
    let line = Line::try_parse_from(["rule"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"));
    Given::from(line.command).edit()
}

fn after(running: &RunningRules, words: &[&str]) -> Result<RuleSet, Failed> {
    edit::edited(running, &[edit(words)?], &settings()).map_err(|error| refused(error, true))
}

/// The comments of the rules outside doors, in order; of disabled ones in brackets.
fn comments(rules: &RuleSet) -> String {
    let own = rules.rules.iter().filter(|rule| !rule.dynamic);
    let comment = |rule: &knockplane_policy::rule::Rule| match rule.disabled {
        true => format!("[{}]", rule.comment),
        false => rule.comment.clone(),
    };
    own.map(comment).collect::<Vec<_>>().join(" ")
}

#[test]
fn rules_are_edited_by_number_by_id_and_by_their_properties() {
    let running = running(&settings());
    let [a, b, c] = ["a", "b", "c"].map(|comment| number(&running, comment).to_string());
    let rule = |comment: &str| running.rules.rules.iter().find(|rule| rule.comment == comment).expect("a rule");
    let [id_a, id_b, id_v6] = ["a", "b", "v6"].map(|comment| rule(comment).id.to_string());
    assert_eq!(comments(&running.rules), "v6 a b c");
    let before_b = format!("place-before={b}");
    let before_id = format!("place-before={id_b}");
    let both = format!("{a},{c}");
    let named = format!("numbers={id_b},{c}");
    for (words, expected) in [
        (&["add", "chain=input", "comment=new"][..], "v6 a b c new"),
        (&["add", "chain=input", "comment=new", &before_b], "v6 a new b c"),
        (&["add", &before_id, "chain=input", "comment=new"], "v6 a new b c"),
        (&["add", "chain=input", "comment=new", "place-before=[find comment=c]"], "v6 a b new c"),
        (&["add", "chain=input", "comment=new", "--menu", "ipv6-filter"], "v6 a b c new"),
        (&["set", &b, "comment=x y"], "v6 a x y c"),
        (&["remove", &both], "v6 b"),
        (&["remove", &id_v6], "a b c"),
        (&["remove", "[find comment~\"a|c\"]"], "v6 b"),
        (&["move", &c, &a], "v6 c a b"),
        (&["move", &a], "v6 b c a"),
        (&["move", &id_a, "destination=[find comment=c]"], "v6 b a c"),
        (&["disable", &named], "v6 a [b] [c]"),
        (&["comment", &a, "it's \"a\" [b]; $c"], "v6 it's \"a\" [b]; $c b c"),
    ] {
        let rules = after(&running, words).unwrap_or_else(|failed| panic!("{words:?}: {}", failed.message));
        assert_eq!(comments(&rules), expected, "{words:?}");
        assert!(rules.rules.iter().any(|rule| rule.dynamic), "rules of doors stay");
        assert_eq!(rules.address_lists, running.rules.address_lists, "other menus stay, with their lines");
    }
}

#[test]
fn unchanged_rules_keep_lines_and_ids_and_a_changed_one_has_none() {
    let running = running(&settings());
    let b = number(&running, "b").to_string();
    let rules =
        after(&running, &["set", &b, "dst-port=4-6,9", "!comment"]).unwrap_or_else(|failed| panic!("{failed:?}"));
    let own = |rules: &RuleSet| rules.rules.iter().filter(|rule| !rule.dynamic).cloned().collect::<Vec<_>>();
    let (before, after) = (own(&running.rules), own(&rules));
    for kept in [0, 1, 3] {
        assert_eq!(after[kept], before[kept]);
    }
    assert_eq!((before[2].line, after[2].line), (6, 0));
    assert_ne!(after[2].id, before[2].id);
    assert!(wording::rule(&after[2]).contains(&"dst-port=4-6,9".to_owned()));
}

#[test]
fn what_names_no_rule_is_refused() {
    let running = running(&settings());
    let b = number(&running, "b").to_string();
    let v6 = running.rules.rules.iter().find(|rule| rule.comment == "v6").expect("a rule").id.to_string();
    let mixed = format!("{b},{v6}");
    let refused = |words: &[&str]| {
        let failed = after(&running, words).expect_err("refused");
        (failed.exit, failed.message)
    };
    for (words, exit, told) in [
        (
            &["remove", "99"][..],
            Exit::Conflict,
            "no rule is named `99`: /ip firewall filter of revision 2 has the numbers 0 to",
        ),
        (&["remove", "0badc0de"], Exit::Conflict, "no rule is named `0badc0de`"),
        (&["remove", "0", "--menu", "ip-raw"], Exit::Conflict, "has no rules"),
        (&["remove", "0"], Exit::Conflict, "comes from the configuration file /etc/knockplane/knockplane.toml"),
        (&["add", "chain=input", "place-before=0"], Exit::Conflict, "comes from the configuration file"),
        (&["remove", &mixed], Exit::Usage, "different menus"),
        (&["remove", "[find]\nadd chain=input"], Exit::Usage, "more than one"),
        (&["set", &b, "dst port=22"], Exit::Usage, "is no property"),
        (&["set", &b, "dst-port=22x"], Exit::Invalid, ""),
        (&["set", &b, "protocol=icmp"], Exit::Invalid, ""),
        (&["remove", "[find color=red]"], Exit::Invalid, ""),
        (&["add", "chain=input", "action=jump", "jump-target=input"], Exit::Invalid, ""),
    ] {
        let (code, message) = refused(words);
        assert!(code == exit && message.contains(told), "{words:?}: {code:?} {message}");
    }
}

#[test]
fn the_summary_is_the_command_line() {
    let summary = |words: &[&str]| edit::summary(&[edit(words).expect("an edit")]);
    assert_eq!(
        summary(&["add", "chain=input", "comment=ssh for the office", "src-address=!192.0.2.0/24"]),
        "rule add chain=input comment=\"ssh for the office\" src-address=!192.0.2.0/24"
    );
    assert_eq!(summary(&["move", "3", "0", "--menu", "ipv6-raw"]), "rule move 3 0 --menu ipv6-raw");
    let long = "é".repeat(MAX_APPLY_COMMENT);
    assert!(summary(&["comment", "3", &long]).len() <= MAX_APPLY_COMMENT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A list of comments is the model. Rules are named by their number, or by their id.
    #[test]
    fn edits_have_the_effect_that_they_have_on_a_list(
        edits in prop::collection::vec((0..5_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 1..12)
    ) {
        let mut running = running(&settings());
        let mut model = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        for (step, (verb, first, second, by_id)) in edits.into_iter().enumerate() {
            if model.is_empty() {
                break;
            }
            let (at, to) = (first.index(model.len()), second.index(model.len()));
            let named = |comment: &str| match by_id {
                true => running.rules.rules.iter().find(|rule| rule.comment == comment).expect("a rule").id.to_string(),
                false => number(&running, comment).to_string(),
            };
            let (rule, other) = (named(&model[at]), named(&model[to]));
            let (comment, port) = (format!("comment=x{step}"), format!("dst-port={}", 100 + step));
            let before = format!("place-before={other}");
            let words = match verb {
                0 => vec!["add", "chain=input", "protocol=tcp", &port, &comment, &before],
                1 => vec!["remove", &rule],
                2 if at != to => vec!["move", &rule, &other],
                3 => vec!["set", &rule, &port],
                _ => vec!["set", &rule, &comment],
            };
            match verb {
                0 => model.insert(to, format!("x{step}")),
                1 => _ = model.remove(at),
                2 if at != to => {
                    let moved = model.remove(at);
                    model.insert(to - usize::from(at < to), moved);
                }
                3 => {}
                _ => model[at] = format!("x{step}"),
            }
            let rules = after(&running, &words);
            let rules = rules.map_err(|failed| TestCaseError::fail(format!("{words:?}: {}", failed.message)))?;
            let expected = ["v6".to_owned()].iter().chain(&model).cloned().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(comments(&rules), expected);
            running.rules = rules;
        }
    }
}
