//! An export reads as the same rules: for generated rules, for every matcher and action, and for the rule files of this
//! repository.

mod any;
mod conditions;
mod text;

use proptest::prelude::*;

use super::*;
use crate::cases::cases;
use crate::rule::{Action, Bytes, Condition, Log, Matcher, RuleSet};
use crate::settings::Settings;

/// The rules of a text that has no problems.
fn rules_of(text: impl AsRef<[u8]>) -> RuleSet {
    let text = text.as_ref();
    let reading = read(text);
    assert_eq!(reading.problems, [], "{}", text.escape_ascii());
    comparable(reading.rules)
}

/// Whether the rule has a condition that is not supported.
fn is_invalid(rule: &Rule) -> bool {
    let asks = |asked: fn(&Condition) -> bool| rule.matchers.iter().any(|matcher| asked(&matcher.condition));
    let other_ports = asks(|condition| matches!(condition, Condition::Protocol(132)))
        && asks(|it| matches!(it, Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_)));
    other_ports || asks(|condition| matches!(condition, Condition::Other { .. }))
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn an_export_reads_as_the_same_rules(mut rules in any::rule_set()) {
        let text = written(&rules);
        prop_assert!(text.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{}", text);
        let back = rules_of(&text);
        for (rule, back) in rules.rules.iter_mut().zip(&back.rules) {
            prop_assert_eq!(back.invalid.is_some(), is_invalid(rule), "{:?}", rule);
            rule.invalid.clone_from(&back.invalid);
        }
        prop_assert_eq!(&back, &rules, "{}", text);
        prop_assert_eq!(written(&back), text);
    }
}

/// A text with every menu, matcher and action.
const EVERYTHING: &str = include_str!("everything.rsc");

#[test]
fn everything_is_written_as_routeros_does() {
    let rules = rules_of(EVERYTHING);
    let text = written(&rules);
    insta::assert_snapshot!(text);
    assert_eq!(rules_of(&text), rules);
}

#[test]
fn everything_has_every_matcher_and_action() {
    let rules = rules_of(EVERYTHING);
    let menus = crate::rsc::reference();
    let has = |name: &str| rules.rules.iter().any(|rule| rule.matchers.iter().any(|it| it.condition.name() == name));
    for property in menus[0].properties.iter().filter(|property| property.is_matcher) {
        assert!(has(property.name), "{}", property.name);
    }
    for action in &menus[0].actions {
        assert!(rules.rules.iter().any(|rule| rule.action.name() == action.name), "{}", action.name);
    }
}

#[test]
fn doors_are_a_line_each_and_their_rules_are_left_out() {
    let doors = r#"[{"name":"ssh","knock":["tcp/7"]},{"name":"all","knock":["udp/7"]}]"#;
    let settings = Settings { doors: crate::door::tests::doors(doors), ..Settings::default() };
    let file = rules_of("/ip firewall filter\nadd chain=input action=drop\n");
    let text = export(&crate::door::rules(&settings, file.clone())).unwrap();
    let comment = |door: &str| format!("# door {door}: a [[door]] of the configuration, not part of the rules\n");
    assert_eq!(text, [&comment("all"), &comment("ssh"), &export(&file).unwrap()[..]].concat());
    assert_eq!(rules_of(&text), file);
}

#[test]
fn an_empty_rule_set_has_an_empty_export() {
    assert_eq!(written(&RuleSet::default()), "");
}

/// The order of words and written defaults do not change the export.
#[test]
fn a_text_has_one_form() {
    let one = "/ip firewall filter add chain=input routing-table=x p2p=all-p2p src-address=192.0.2.7/24 action=accept \
        disabled=no log=no log-prefix=\"\" protocol=17 limit=1/00:01:00,5 realm=1\n";
    let other = "/ip firewall filter\n\
        add limit=1/1m,5:packet realm=1 p2p=all-p2p protocol=udp routing-table=x src-address=192.0.2.0/24 chain=input\n";
    assert_eq!(rules_of(one), rules_of(other));
    let text = "/ip firewall filter\n\
        add action=accept chain=input limit=1/1m,5:packet p2p=all-p2p protocol=udp \\\n    \
        realm=1 routing-table=x src-address=192.0.2.0/24\n";
    assert_eq!(written(&rules_of(one)), text);
}

/// A default of an old export may differ from that of a new one.
#[test]
fn defaults_of_old_exports_are_written() {
    let text = written(&rules_of("# jan/02/1970 04:55:05 by RouterOS 6.48\n"));
    assert_eq!(text, "/ip firewall connection tracking\nset udp-timeout=10s\n");
}

/// Covers comments, contents, names and prefixes, at any position of a line.
#[test]
fn special_characters_of_the_language_are_escaped() {
    let long = "x".repeat(255);
    let blanks = " ".repeat(255);
    let texts = [
        r#"say "friend"\ for $5?"#,
        r"\",
        r"\\\",
        r"ends in \",
        "$",
        "$a",
        "?",
        "a;b",
        ";;; a",
        "# a",
        "[find]",
        "{a}",
        "(a)",
        " a ",
        "a=b",
        "!",
        "!a",
        "!!a",
        "-",
        "a,!b",
        "a\nb",
        "a\r\nb\t",
        "\0",
        "\u{7f}\u{1b}[2J",
        "café ☂",
        "\\_",
        "\\41",
        "_",
        &long,
        &blanks,
    ];
    for special in texts {
        for shift in 1..=80 {
            let chain = "c".repeat(shift);
            let mut rule = Rule { comment: special.to_owned(), ..Rule::new(Family::Ipv4, &chain, Action::Log) };
            let is_name = !special.starts_with('!') && !special.contains(char::is_control);
            if is_name {
                let content = Condition::Content(Bytes([special.as_bytes(), b"\xE1\x00"].concat()));
                rule.matchers.push(Matcher { negated: shift % 2 == 0, condition: content });
                let list = Condition::SrcAddressList(special.replace(',', ""));
                rule.matchers.push(Matcher { negated: shift % 3 == 0, condition: list });
                rule.matchers.sort_by_key(|matcher| matcher.condition.rank());
            }
            rule.log = Some(Log { prefix: if is_name { special.to_owned() } else { String::new() } });
            let mut rules = RuleSet { rules: vec![rule], ..RuleSet::default() };
            rules.assign_ids();
            let text = written(&rules);
            assert_eq!(rules_of(&text), rules, "{text}");
            // A value without quotes is not divided, and a string may end at the maximum length of a line.
            let is_whole = |line: &str| line.contains(&chain) || line.contains(&long);
            assert!(text.lines().all(|line| line.len() <= 80 || is_whole(line)), "{text}");
        }
    }
}

/// Rules from JSON.
#[test]
fn rules_that_cannot_be_written_are_not_exported() {
    let rules = |matcher: Matcher| {
        let rule = Rule { matchers: vec![matcher], ..Rule::new(Family::Ipv4, "input", Action::Drop) };
        RuleSet { rules: vec![Rule::new(Family::Ipv4, "input", Action::Accept), rule], ..RuleSet::default() }
    };
    let content = |negated, bytes: &[u8]| Matcher { negated, condition: Condition::Content(Bytes(bytes.to_vec())) };
    assert!(export(&rules(content(true, b"!a"))).is_ok());
    let refused = export(&rules(content(false, b"!a")));
    assert_eq!(refused, Err("the rule `chain=input action=drop content=\"!a\"`".to_owned()));
    assert!(export(&rules(content(false, b""))).is_err());
    assert!(export(&rules(Matcher { negated: true, condition: Condition::Random(5) })).is_err());
    let list = InterfaceList { name: "a,b".to_owned(), ..InterfaceList::default() };
    assert_eq!(
        export(&RuleSet { interface_lists: vec![list], ..RuleSet::default() }),
        Err("a pattern, a list, an address or a timeout".to_owned())
    );
}

/// This text already has the form of an export.
#[test]
fn an_export_stays_the_same_text() {
    for text in [include_str!("files/gateway.rsc"), include_str!("files/router.rsc")] {
        let reading = read(text.as_bytes());
        assert_eq!((written(&reading.rules), reading.problems), (text.to_owned(), Vec::new()));
    }
}

/// Example files, and the rule files of this repository.
#[test]
fn rules_of_files_read_back_unchanged() {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    let of_tests = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rsc/export/tests/files");
    let exports = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rsc/tests/exports");
    let files =
        [ours, of_tests, exports].map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let files = files.into_iter().flatten().filter(|file| file.extension().is_some_and(|extension| extension == "rsc"));
    let mut rules_in_all = 0;
    for file in files {
        let reading = read(&std::fs::read(&file).unwrap());
        if file.starts_with(exports) && !reading.problems.is_empty() {
            continue;
        }
        let rules = comparable(reading.rules);
        let text = written(&rules);
        let back = rules_of(&text);
        assert_eq!(back, rules, "{}", file.display());
        assert_eq!(written(&back), text, "{}", file.display());
        rules_in_all += rules.rules.len();
    }
    assert!(rules_in_all > 40, "{rules_in_all}");
}
