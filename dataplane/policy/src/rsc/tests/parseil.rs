//! Compares the words of this reader with those of RouterOS: the output of RouterOS's `:parse` for an export, command
//! by command.
//!
//! `:parse` prints a program. In it, `(evl /path/verb…)` is a command with its properties in alphabetical order,
//! separated by `;`. A `;` also separates the parts of a value, and precedes the first part of a value that may be
//! negated, where `true` means negated.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::rsc::lexer::Lexer;
use crate::rsc::menu::{Invocation, Line, Menus, Place};

const EXPORT: &str = r#"/interface list
add name=WAN comment=outside
/interface list member add list=WAN interface=ether1
/ip/firewall/address-list
add list=friends address=192.0.2.0/24    comment="friends: all \
    of \"them\""
/ipv6 firewall filter
add chain=input   action=accept connection-state=established,related,untracked comment="a, b"
add chain=input action=accept protocol=udp dst-port=500,4500-4600 src-address=fe80::/10 ipsec-policy=in,none
# a comment
add chain=forward action=drop in-interface-list=!WAN src-address-list=!friends protocol=139
add chain=forward action=drop protocol=icmpv6 hop-limit=equal:1
"#;

const PARSED: &str = "/;/interface/list/;(evl /interface/list/addcomment=outside;name=WAN);/interface/list/member/;\
    (evl /interface/list/member/addinterface=ether1;list=WAN);/ip/firewall/address-list/;\
    (evl /ip/firewall/address-list/addaddress=192.0.2.0/24;comment=friends: all of \"them\";list=friends);\
    /ipv6/firewall/filter/;(evl /ipv6/firewall/filter/addaction=accept;chain=input;comment=a, b;\
    connection-state=;established;related;untracked);(evl /ipv6/firewall/filter/addaction=accept;chain=input;\
    dst-port=;500;4500-4600;ipsec-policy=in;none;protocol=;udp;src-address=;fe80::/10);\
    (evl /ipv6/firewall/filter/addaction=drop;chain=forward;in-interface-list=true;WAN;protocol=;139;\
    src-address-list=true;friends);\
    (evl /ipv6/firewall/filter/addaction=drop;chain=forward;hop-limit=equal;1;protocol=;icmpv6)";

/// The menus of the tested exports.
const MENUS: &[&str] = &[
    "/interface/list",
    "/interface/list/member",
    "/ip/firewall/address-list",
    "/ip/firewall/filter",
    "/ipv6/firewall/address-list",
    "/ipv6/firewall/filter",
];

/// A command: its path, and its properties.
type CommandWords = (String, BTreeMap<String, String>);

/// The commands of RouterOS's program.
fn theirs(parsed: &str) -> Vec<CommandWords> {
    let mut commands = Vec::new();
    for command in parsed.split("(evl ").skip(1) {
        let command = &command[..command.rfind(')').unwrap()];
        let add = |menu: &&str| command.strip_prefix(*menu)?.strip_prefix("/add");
        let path = MENUS.iter().find(|menu| add(menu).is_some()).unwrap_or_else(|| panic!("{command}"));
        let properties = add(path).unwrap_or_default();
        let mut said = BTreeMap::new();
        let mut last = String::new();
        for part in properties.split(';') {
            let of_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            match part.split_once('=').filter(|(name, _)| !name.is_empty() && name.bytes().all(of_name)) {
                Some((name, value)) => {
                    last = name.to_owned();
                    said.insert(last.clone(), value.to_owned());
                }
                None => *said.get_mut(&last).unwrap() += &format!(";{part}"),
            }
        }
        commands.push(((*path).to_owned(), said));
    }
    commands
}

/// The words of this reader in the same form.
fn ours(text: &[u8]) -> Vec<CommandWords> {
    let (mut lexer, mut menus) = (Lexer::new(text), Menus::default());
    let mut commands = Vec::new();
    while let Some(command) = lexer.next(|_| true) {
        assert!(command.flaws.is_empty(), "{command:?}");
        let Line::Command(Invocation { place: Place::Understood(menu), verb: Some((verb, _)), arguments, .. }) =
            menus.follow(&command.words)
        else {
            continue;
        };
        assert_eq!(verb, "add");
        let words = command.words[arguments..].iter().map(|word| {
            let [name, value] = [&word.name, word.value.as_ref().unwrap()].map(|text| utf8(&text.bytes));
            let value = said_as_theirs(&name, &value);
            (name, value)
        });
        commands.push((menu.path().replace(' ', "/"), words.collect()));
    }
    commands
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn said_as_theirs(name: &str, value: &str) -> String {
    let menus = reference();
    let Some(matcher) = menus[0].properties.iter().find(|property| property.is_matcher && property.name == name) else {
        return value.to_owned();
    };
    let parts = |value: &str| value.replace(',', ";");
    match value.strip_prefix('!') {
        Some(value) => format!("true;{}", parts(value)),
        None if matcher.grammar.starts_with("[!]") => format!(";{}", parts(value)),
        None if name == "hop-limit" => value.replace(':', ";"),
        None => parts(value),
    }
}

/// Compares the words, and checks that each rule has exactly the properties in its words.
fn compare(text: &[u8], parsed: &str) {
    let (ours, theirs) = (ours(text), theirs(parsed));
    assert!(!theirs.is_empty());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());

    let reading = read(text);
    assert_eq!(reading.problems, []);
    let mut rules = reading.rules.rules.iter();
    let mut entries = reading.rules.address_lists.iter();
    for (path, said) in &theirs {
        if path.ends_with("/filter") {
            let rule = rules.next().unwrap();
            assert_eq!((&rule.chain, rule.action.name()), (&said["chain"], &*said["action"]));
            assert_eq!(Some(&rule.comment).filter(|comment| !comment.is_empty()), said.get("comment"));
            let mut asked: Vec<(&str, bool)> =
                rule.matchers.iter().map(|matcher| (matcher.condition.name(), matcher.negated)).collect();
            asked.sort_unstable();
            let matchers = said.iter().filter(|(name, _)| !["action", "chain", "comment"].contains(&name.as_str()));
            assert!(matchers.map(|(name, value)| (name.as_str(), value.starts_with("true;"))).eq(asked), "{said:?}");
        } else if path.ends_with("/address-list") {
            let entry = entries.next().unwrap();
            assert_eq!((&entry.list, Some(&entry.comment)), (&said["list"], said.get("comment")));
        }
    }
    assert!(rules.next().is_none() && entries.next().is_none());
}

#[test]
fn our_words_are_those_of_routeros() {
    compare(EXPORT.as_bytes(), PARSED);
}

/// `KNOCKPLANE_PARSEIL=18.rsc,18.parseil.txt cargo test -p knockplane-policy parseil -- --ignored`
#[test]
#[ignore = "needs an export and what `:parse` makes of it, in KNOCKPLANE_PARSEIL"]
fn our_words_are_those_of_routeros_in_a_real_export() {
    let files = std::env::var("KNOCKPLANE_PARSEIL").unwrap();
    let (export, parsed) = files.split_once(',').unwrap();
    compare(&std::fs::read(Path::new(export)).unwrap(), &std::fs::read_to_string(Path::new(parsed)).unwrap());
}
