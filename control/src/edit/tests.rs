use knockplane_policy::rule::numbers;
use proptest::prelude::*;

use super::*;

/// Rules of a door and of two menus.
fn running() -> (RunningRules, Settings) {
    let door = r#"{"name":"ssh","knock":["tcp/7000","tcp/8000"]}"#;
    let settings = Settings { doors: vec![serde_json::from_str(door).expect("a door")], ..Settings::default() };
    let rule = |name: char| format!("add chain=input comment={name} protocol=tcp dst-port={}\n", name as u32);
    let text = format!(
        "/ip firewall filter\n{}/ipv6 firewall filter\n{}",
        ('a'..='e').map(rule).collect::<String>(),
        ('v'..='x').map(rule).collect::<String>()
    );
    let rules = knockplane_policy::door::rules(&settings, rsc::read(text.as_bytes()).rules);
    (RunningRules { rules, ..crate::sample::rules() }, settings)
}

fn edits(commands: &[&str]) -> Vec<Edit> {
    commands.iter().map(|command| Edit { menu: Menu::IpFilter, command: (*command).to_owned() }).collect()
}

/// The comments of the rules outside doors, menu by menu: rules of different menus have no order.
fn comments(rules: &RuleSet) -> String {
    let of = |menu: Menu| rules.rules.iter().filter(move |rule| !rule.dynamic && menu.has(rule));
    let own = of(Menu::IpFilter).chain(of(Menu::Ipv6Filter));
    own.map(|rule| rule.comment.clone()).collect::<Vec<_>>().join(" ")
}

/// The command with the number of the IPv4 rule for `#x`, and the id of the rule for `@x`.
fn named(running: &RunningRules, command: &str) -> String {
    let numbers = numbers(&running.rules.rules);
    running.rules.rules.iter().zip(&numbers).filter(|(rule, _)| rule.comment.len() == 1).fold(
        command.to_owned(),
        |text, (rule, number)| {
            let text = text.replace(&format!("@{}", rule.comment), &rule.id.0);
            text.replace(&format!("#{}", rule.comment), &number.number().to_string())
        },
    )
}

#[test]
fn numbers_and_ids_of_all_commands_are_those_of_the_running_rules() {
    let (running, settings) = running();
    assert_eq!(comments(&running.rules), "a b c d e v w x");
    for (commands, expected) in [
        (&["remove #a", "remove #b"][..], "c d e v w x"),
        (&["move #e #a", "move #d #a"], "e d a b c v w x"),
        (&["remove #c", "add chain=input comment=n place-before=#d"], "a b n d e v w x"),
        (&["set @b dst-port=7", "comment @b \"b c\"", "move @b #d"], "a c b c d e v w x"),
        (
            &["add chain=input comment=n place-before=#a", "add chain=input comment=m place-before=#a"],
            "n m a b c d e v w x",
        ),
        (&["remove @x", "move @w @v", "remove #e"], "a b c d w v"),
        (&["remove [find comment~\"^[ab]\"]", "disable numbers=#c,#d", "move #e destination=#c"], "e c d v w x"),
    ] {
        let commands: Vec<String> = commands.iter().map(|command| named(&running, command)).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let rules =
            edited(&running, &edits(&commands), &settings).unwrap_or_else(|error| panic!("{commands:?}: {error:?}"));
        assert_eq!(comments(&rules), expected, "{commands:?}");
    }
}

#[test]
fn a_refused_command_is_named() {
    let (running, settings) = running();
    let refused = |commands: &[&str]| {
        let commands: Vec<String> = commands.iter().map(|command| named(&running, command)).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        match edited(&running, &edits(&commands), &settings).expect_err("refused") {
            EditError::Usage(refusal) => ("usage", 0, 0, refusal.message),
            EditError::Conflict(refusal) => ("conflict", 0, 0, refusal.message),
            EditError::Syntax(problems) => {
                ("syntax", problems[0].line, problems[0].column, problems[0].message.clone())
            }
            EditError::Invalid(invalid) => {
                let problem = invalid.problems().remove(0);
                ("invalid", problem.line, problem.column, problem.message)
            }
        }
    };
    for (commands, kind, line, column, part) in [
        (&["print"][..], "usage", 0, 0, "no command that edits rules"),
        (&["/ip firewall nat add chain=srcnat"], "usage", 0, 0, "no command that edits rules"),
        (&["remove #a", "remove #b; remove #c"], "syntax", 2, 11, "more than one"),
        (&["remove #a", "comment #b \"x"], "syntax", 2, 0, "never ends"),
        (&["remove 0"], "conflict", 0, 0, "comes from the configuration file"),
        (&["remove 99"], "conflict", 0, 0, "no rule is named `99`"),
        (&["remove #a,@v"], "usage", 0, 0, "different menus"),
        (&["remove #a", "set #b dst-port=x"], "invalid", 2, 0, ""),
        (&["remove #a", "disable #a"], "invalid", 2, 0, ""),
        (&["add chain=other action=jump jump-target=other"], "invalid", 1, 0, "forms a cycle"),
    ] {
        let (told, at, character, message) = refused(commands);
        assert!(told == kind && at == line && message.contains(part), "{commands:?}: {told} {at} {message}");
        assert!(column == 0 || column == character, "{commands:?}: {character}");
    }
}

#[test]
fn the_history_has_all_commands_in_a_bounded_text() {
    let mut two = edits(&["move 4 0", "comment 3 \"é\""]);
    assert_eq!(summary(&two), "rule move 4 0; rule comment 3 \"é\"");
    two[1].menu = Menu::Ipv6Raw;
    assert_eq!(summary(&two), "rule move 4 0; rule comment 3 \"é\" --menu ipv6-raw");
    assert!(summary(&edits(&["comment 3 \"é\""; 500])).len() <= MAX_APPLY_COMMENT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A command never reaches beyond itself: the next one, on the next line, has its own effect or none has one.
    #[test]
    fn no_text_of_a_command_changes_the_next_one(command in "(add chain=input |set [0-9] |comment 4 |)[\\[\\](){}\"\\\\;#$ a-c=!\n]{0,12}") {
        let (running, settings) = running();
        let last = named(&running, "remove #e");
        if let Ok(rules) = edited(&running, &edits(&[&command, &last]), &settings) {
            prop_assert!(!rules.rules.iter().any(|rule| rule.comment == "e" && rule.line > 0), "{:?}", command);
            prop_assert_eq!(rules.rules.iter().filter(|rule| rule.dynamic).count(), running.rules.rules.iter().filter(|rule| rule.dynamic).count());
        }
    }
}
