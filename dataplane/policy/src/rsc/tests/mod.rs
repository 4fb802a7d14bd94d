//! Whole files: results, problems, and messages.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cases::cases;
use crate::rule::{Action, Condition, ListAdd, ListTimeout, Rule};

mod commands;
mod exports;
mod fuzz;
mod large;
mod menus;
mod misplaced;
mod names;
mod parseil;

/// Patterns with a line break without `\`, and rules with a `\` after `=`.
const PASSPHRASES: &str = r#"/ip firewall layer7-protocol
add comment="" name=knock1
    regexp="^supersecretpassword1\$"
add comment="" name=knock2
    regexp="^supersecretpassword2\$"
/ip firewall filter
add action=add-src-to-address-list address-list=temporary \
    address-list-timeout=10s chain=input comment="" disabled=no dst-port=1234 \
    layer7-protocol=knock1 protocol=udp
add action=add-src-to-address-list address-list=secured address-list-timeout=\
    10s chain=input comment="" disabled=no dst-port=4321 layer7-protocol=\
    knock2 protocol=udp src-address-list=temporary
add action=accept chain=input comment="" disabled=no src-address-list=secured
add action=drop chain=input comment="" disabled=no
"#;

const PORTS: &str = r"/ip firewall filter
add action=add-src-to-address-list address-list=temporary address-list-timeout=10s chain=input dst-port=1234 protocol=tcp
add action=add-src-to-address-list address-list=secured address-list-timeout=1m chain=input dst-port=4321 protocol=tcp src-address-list=temporary
add action=accept chain=input src-address-list=secured
add action=drop chain=input
";

fn rules(text: &str) -> RuleSet {
    let reading = read(text.as_bytes());
    assert_eq!(reading.problems, [], "{text}");
    reading.rules
}

/// The text and position of each problem.
fn places(text: &str) -> Vec<(String, u32, u32)> {
    let problems = read(text.as_bytes()).problems;
    problems.into_iter().map(|problem| (text[problem.span].to_owned(), problem.line, problem.column)).collect()
}

fn conditions(rule: &Rule) -> Vec<&str> {
    rule.matchers.iter().map(|matcher| matcher.condition.name()).collect()
}

#[test]
fn knocks_with_passphrases() {
    let said = rules(PASSPHRASES);
    let patterns: Vec<_> = said.layer7.iter().map(|pattern| (&*pattern.name, &*pattern.regexp, pattern.line)).collect();
    assert_eq!(patterns, [("knock1", "^supersecretpassword1$", 2), ("knock2", "^supersecretpassword2$", 4)]);
    assert_eq!(said.rules.iter().map(|rule| rule.line).collect::<Vec<_>>(), [7, 10, 13, 14]);
    let second = &said.rules[1];
    let add = ListAdd { list: "secured".to_owned(), timeout: ListTimeout::After(Duration::from_secs(10)) };
    assert_eq!(second.action, Action::AddSrcToAddressList(add));
    assert_eq!(conditions(second), ["protocol", "src-address-list", "dst-port", "layer7-protocol"]);
    assert_eq!(second.matchers[3].condition, Condition::Layer7("knock2".to_owned()));
}

#[test]
fn the_lost_backslash_makes_no_difference() {
    let mended = PASSPHRASES.replace("knock1\n    regexp", "knock1 \\\n    regexp");
    let mended = mended.replace("knock2\n    regexp", "knock2 \\\n    regexp");
    assert_ne!(mended, PASSPHRASES);
    assert_eq!(rules(&mended), rules(PASSPHRASES));
}

#[test]
fn knocks_on_ports() {
    let said = rules(PORTS);
    let actions: Vec<_> = said.rules.iter().map(|rule| rule.action.name()).collect();
    assert_eq!(actions, ["add-src-to-address-list", "add-src-to-address-list", "accept", "drop"]);
    assert_eq!(conditions(&said.rules[1]), ["protocol", "src-address-list", "dst-port"]);
    let ids: std::collections::HashSet<_> = said.rules.iter().map(|rule| rule.id.0.clone()).collect();
    assert!(ids.len() == 4 && !ids.contains(""));
}

#[test]
fn every_line_end_reads_the_same() {
    for text in [PASSPHRASES, PORTS] {
        assert_eq!(rules(&text.replace('\n', "\r\n")), rules(text));
        assert_eq!(rules(&text.replace('\n', "\r")), rules(text));
        assert_eq!(rules(&format!("\u{FEFF}{text}")), rules(text));
    }
    let one_line = PORTS.trim_end().replace('\n', ";");
    assert_eq!(rules(&one_line).rules.len(), 4);
}

#[test]
fn every_form_of_a_menu_reads_the_same() {
    let inline = PORTS.replace("/ip firewall filter\n", "");
    let ids = |text: &str| rules(text).rules.into_iter().map(|rule| rule.id).collect::<Vec<_>>();
    let expected = ids(PORTS);
    for path in
        ["/ip firewall filter add", "/ip/firewall/filter add", "/ip/firewall/filter/add", "ip firewall filter add"]
    {
        assert_eq!(ids(&inline.replace("add action", &format!("{path} action"))), expected, "{path}");
    }
    for path in ["/ip/firewall/filter", "/ip firewall\nfilter", "ip firewall filter", "/ip firewall nat\n.. filter"] {
        assert_eq!(ids(&PORTS.replace("/ip firewall filter", path)), expected, "{path}");
    }
}

#[test]
fn other_menus_are_skipped_with_their_scripts() {
    let text = r#"# 2024-01-01 00:00:00 by RouterOS 7.16
/system script
add name=poll source={
    # it's a comment
    :local list "a\"b"; :if ([:len $list] > 0) do={ /ip firewall filter add chain=no }
}
/system script add name=b source=":put \"\$x\"
second line"
/ip firewall nat
add chain=srcnat action=masquerade comment=$x
set [ find default-name=ether1 ] name=x
/ip firewall filter
add chain=input
"#;
    let reading = read(text.as_bytes());
    assert_eq!(reading.problems, []);
    assert_eq!(reading.rules.rules.len(), 1);
    let skipped: Vec<_> = reading.skipped.iter().map(|menu| (&*menu.menu, menu.commands)).collect();
    assert_eq!(skipped, [("/system script", 2), ("/ip firewall nat", 2)]);
}

#[test]
fn scripting_is_refused_at_its_position() {
    let text = "/ip firewall filter\nadd chain=input\n:while (true) do={\n  add chain=x\n}\n:set a 1\nadd chain=$a\n\
        /ip firewall nat\n:execute \"x\"\n";
    assert_eq!(
        places(text),
        [(":while".to_owned(), 3, 1), ("a".to_owned(), 6, 6), ("$a".to_owned(), 7, 11), (":execute".to_owned(), 9, 1)]
    );
    assert_eq!(places("/ip firewall filter\n:if (x) \\").len(), 1);
    assert_eq!(places("/ip firewall :if (true) do={\nfilter add chain=input }\n").len(), 1);
    assert_eq!(places("/ip firewall {\nfilter add chain=input\n}\n").len(), 1);
    assert_eq!(places("add chain=input\n").len(), 1);
}

#[test]
fn a_line_that_is_not_a_command_is_refused() {
    let text = "/ip firewall filter\nprint\nad chain=input\nunset 0 comment\n/ip firewall layer7-protocol\nexport\n\
        /ip firewall connection tracking\nadd enabled=yes\n";
    let places = places(text);
    let at: Vec<_> = places.iter().map(|(at, line, _)| (at.as_str(), *line)).collect();
    assert_eq!(at, [("ad", 3), ("unset", 4), ("add", 8)]);
}

#[test]
fn an_indented_line_is_a_continuation_only_if_it_cannot_be_a_command() {
    let menu = "/ip firewall filter\n";
    let refused = |text: &str| {
        let reading = read(format!("{menu}{text}").as_bytes());
        assert_eq!(reading.problems.len(), 1, "{text}: {:?}", reading.problems);
    };
    assert_eq!(rules(&format!("{menu}add chain=input\n  dst-port=1\n\tprotocol=tcp\n")).rules[0].matchers.len(), 2);
    assert_eq!(rules(&format!("{menu}add chain=input\n  add chain=output\n")).rules.len(), 2);
    refused("add chain=input\ndst-port=1 protocol=tcp\n");
    refused("add chain=input\n\n  dst-port=1 protocol=tcp\n");
    refused("add chain=input\n  dst-prt=1 protocol=tcp\n");
    refused("add chain=input\n  protocol=tcp !dst-port\n");
    refused("add chain=input;\n  protocol=tcp\n");
    refused("  protocol=tcp\n");
}

#[test]
fn nothing_is_lost_between_words() {
    let refused = [
        r#"add chain=input comment="a"dst-port=1 protocol=tcp"#,
        r#"add chain=input comment="a" comment"b""#,
        "add chain=input comment=a#b protocol=tcp",
        "add chain=input comment=aprotocol=tcp",
        "add chain=input protocol = tcp",
        "add chain=input protocol= tcp",
        "add chain=input comment=a\\ protocol=tcp",
        "add chain=input protocol=tcp \\",
        "add chain=input protocol=tcp \\\n",
        "add chain=input comment=\"a protocol=tcp",
        "add chain=input comment=\"a \\q\"",
        "add chain=input comment=\"a \\e1\"",
        "add chain=input comment=(a)",
        "add chain=input \\ \n protocol=tcp",
    ];
    for text in refused {
        let reading = read(format!("/ip firewall filter\n{text}").as_bytes());
        assert!(!reading.problems.is_empty() && reading.rules.rules.is_empty(), "{text}");
    }
}

#[test]
fn a_string_that_does_not_end_spoils_one_line_only() {
    let text = "/ip firewall filter\nadd chain=input comment=\"a\nadd chain=input comment=\"b\"\nadd chain=\"c\n";
    assert_eq!(places(text), [("\"a".to_owned(), 2, 25), ("\"c".to_owned(), 4, 11)]);
    assert_eq!(read(text.as_bytes()).rules.rules.len(), 1);
}

#[test]
fn the_part_of_a_value_that_is_wrong_is_shown() {
    let text = "/ip firewall filter\nadd chain=input protocol=tcp dst-port=!1,\\\n    x,2 src-address-list=\"a,b\"\n";
    assert_eq!(places(text), [("x".to_owned(), 3, 5), (",".to_owned(), 3, 28)]);
}

#[test]
fn encodings() {
    let mut text = b"/ip firewall filter\nadd chain=input comment=\"caf\xE9 \\E1\"\nadd chain=\"a\xE9b\"\n".to_vec();
    text.extend_from_slice("add chain=input src-address-list=\"señor\" x=1\n".as_bytes());
    let reading = read(&text);
    assert_eq!(reading.rules.rules[0].comment, "caf\\E9 \\E1");
    let places: Vec<_> = reading.problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(4, 42)]);
    assert_eq!(reading.rules.rules[1].chain, "a\\E9b");
    assert!(report(&reading.problems, "a.rsc", &text, true).contains("a.rsc:4:42"));
}

#[test]
fn ten_mistakes_are_told_in_one_go() {
    let text = concat!(
        "/ip firewall layer7-protocol\n",
        "add name=secret regexp=\"^(open\"\n",
        "/ip firewall filter\n",
        "add action=accept chain=input connection-state=established,relatde\n",
        "add action=add-src-to-address-list address-list=knock1 address-list-timeout=10x \\\n",
        "    chain=input dst-port=1234 protocol=tcp\n",
        "add action=add-src-to-address-list chain=input dst-port=22,XXXXX,80 protocol=tcp \\\n",
        "    src-adress-list=knock1\n",
        "add action=accept chain=input dst-port=22 src-address=172.16.1.X\n",
        "add action=jump chain=input comment=\"t\u{fc}r\" jump-target=tur\n",
        "add action=drop action=accept chain=tuer\n",
        "add action=accept chain=input layer7-protocol=secert protocol=udp\n",
        "set 0 disabled=yes\n",
        ":put $x\n",
    );
    insta::assert_snapshot!(report(&read(text.as_bytes()).problems, "rules.rsc", text.as_bytes(), false));
}

#[test]
fn many_problems_are_all_reported() {
    let text = format!("/ip firewall filter\n{}", "add chain=input limit=1\n".repeat(1_000));
    let reading = read(text.as_bytes());
    assert_eq!(reading.problems.len(), 1_000);
    let told = report(&reading.problems, "a.rsc", text.as_bytes(), false);
    assert!(told.contains("a.rsc:2:23") && told.contains("error[E001]: a.rsc:1001:23: `1` is not a limit"));
    assert_eq!(report(&[], "a.rsc", text.as_bytes(), false), "");
}

/// Pieces with a meaning for the reader. Random files of these pieces cover more of the reader than random bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "/ip firewall filter\n",
        "/ipv6/firewall/filter\n",
        "/ip firewall layer7-protocol\n",
        "/system script\n",
        "/ip firewall raw\n",
        "/ip/firewall/address-list\n",
        "/ipv6 firewall address-list\n",
        "/interface list\n",
        "/interface list member\n",
        "/ip address\n",
        "/ip firewall connection tracking set enabled=yes\n",
        "add list=a address=192.0.2.1 interface=b\n",
        "add chain=input\n",
        "set",
        "remove",
        "move",
        "disable",
        "comment",
        " 0",
        " *1",
        " a",
        ",",
        " [find",
        " where",
        " list=a",
        "~\"",
        " || ",
        " place-before=",
        "..",
        "add",
        " chain=input",
        " chain=",
        " action=jump jump-target=a",
        " dst-port=1,2",
        " protocol=tcp",
        " !src-address",
        " comment=\"",
        "\"",
        "\\",
        "\\\n    ",
        "\n",
        "\r\n",
        "\r",
        ";",
        "#",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "$",
        "=",
        ":if",
        " regexp=\"^a\\$\"",
        " name=a",
        " layer7-protocol=a",
        "\\E1",
        "\\_",
        "\u{e9}",
        " ",
        "\t",
        "    name=b",
        "!",
    ];
    prop_oneof![
        6 => proptest::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ]
}

/// Checks the properties of the result for any bytes.
fn check_reading(text: &[u8]) -> Result<(), TestCaseError> {
    let reading = read(text);
    let mut last = 0;
    for problem in &reading.problems {
        let span = &problem.span;
        prop_assert!(span.start <= span.end && span.end <= text.len(), "{problem:?}");
        prop_assert!(last <= span.start);
        last = span.start;
        prop_assert_eq!((problem.line, problem.column), place(text, span.start), "{:?}", problem);
        prop_assert!(!problem.message.is_empty());
    }
    for rule in &reading.rules.rules {
        prop_assert!(!rule.chain.is_empty() && rule.matchers.is_sorted_by_key(|matcher| matcher.condition.rank()));
    }
    let told = report(&reading.problems, "a.rsc", text, false);
    for problem in &reading.problems {
        prop_assert!(told.contains(&format!("a.rsc:{}:{}", problem.line, problem.column)), "{problem:?}\n{told}");
    }
    Ok(())
}

/// Computes line and column in the simplest way: splits all text before the position at line ends, and counts the
/// characters of the last part.
fn place(text: &[u8], offset: usize) -> (u32, u32) {
    let mut before = &text[..offset];
    // Between CR and LF no line has ended yet.
    if before.ends_with(b"\r") && text[offset..].starts_with(b"\n") {
        before = &before[..offset - 1];
    }
    let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rest = before;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'\r' if rest.starts_with(b"\n") => {}
            b'\r' | b'\n' => lines.push(Vec::new()),
            _ => lines.last_mut().unwrap().push(*byte),
        }
    }
    let last = lines.last().unwrap();
    // Bytes of a character that continues beyond the offset do not count; bytes that are not UTF-8 do.
    let start = offset - last.len();
    let line = &text[start..];
    let mut columns = 1;
    let mut at = 0;
    for chunk in line.utf8_chunks() {
        for char in chunk.valid().chars() {
            at += char.len_utf8();
            columns += u32::from(at <= last.len());
        }
        for _ in chunk.invalid() {
            at += 1;
            columns += u32::from(at <= last.len());
        }
        if at > last.len() {
            break;
        }
    }
    (lines.len() as u32, columns)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_reading(&text)?;
    }

    #[test]
    fn any_pieces_are_read(pieces in proptest::collection::vec(piece(), 0..40)) {
        check_reading(&pieces.concat())?;
    }

    #[test]
    fn files_with_changed_bytes_are_read(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = [PASSPHRASES, PORTS, commands::COMMANDS].concat().into_bytes();
        for (place, byte) in changes {
            let place = place.index(text.len());
            text[place] = byte;
        }
        check_reading(&text)?;
        text.truncate(cut.index(text.len()));
        check_reading(&text)?;
    }

    /// Checks that a rule from a line without one word is refused, or has all remaining matchers.
    #[test]
    fn a_rule_has_all_matchers_of_its_line(words in proptest::sample::subsequence(vec![
        "action=drop", "chain=input", "comment=\"a b\"", "dst-port=1", "protocol=tcp", "src-address=192.0.2.0/24",
        "src-address-list=!a", "packet-size=1-9", "!limit", "limit=1,5", "disabled=yes",
    ], 0..=11).prop_shuffle()) {
        let text = format!("/ip firewall filter\nadd {}\n", words.join(" \\\n    "));
        let reading = read(text.as_bytes());
        prop_assert_eq!(reading.problems.is_empty(), reading.rules.rules.len() == 1);
        if let Some(rule) = reading.rules.rules.first() {
            let settings = ["action=", "chain=", "comment=", "disabled=", "!limit"];
            let asked = words.iter().filter(|word| !settings.iter().any(|setting| word.starts_with(setting))).count();
            prop_assert_eq!(rule.matchers.len(), asked);
        }
    }
}
