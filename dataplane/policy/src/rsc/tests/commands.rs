//! Commands and their effect on entries.

use super::*;
use crate::rule::EntryAddress;

/// Every command once.
pub(super) const COMMANDS: &str = r#"/ip firewall address-list
add list=guests address=192.0.2.1 comment="tmp 1"
add list=guests address=192.0.2.2 timeout=1d
add list=friends address=192.0.2.0/24
remove [find where list=guests and comment~"^tmp"]
set [find list=friends] comment="a friend" \
    disabled=yes
enable [find disabled]
/ip firewall filter
add chain=input action=accept comment=b
add chain=input action=drop place-before=[find comment="b"]
move 1 0
disable [find action=drop !comment]
comment [find comment=b] "last one"
remove *2
"#;

/// The comments of the rules, in order.
fn comments(text: &str) -> String {
    let comments: Vec<String> = rules(text).rules.into_iter().map(|rule| rule.comment).collect();
    comments.join(" ")
}

/// Four rules with the comments a, b, c, d, after these commands.
fn four(commands: &str) -> String {
    let add = |comment| format!("add chain=input comment={comment}\n");
    format!("/ip firewall filter\n{}{commands}\n", ["a", "b", "c", "d"].map(add).concat())
}

/// The message and help of the only problem, and its text.
fn problem(text: &str) -> (String, String, String) {
    let mut problems = read(text.as_bytes()).problems;
    assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    let problem = problems.remove(0);
    (text[problem.span].to_owned(), problem.message, problem.help.unwrap_or_default())
}

#[test]
fn every_command_works() {
    let said = rules(COMMANDS);
    let entries: Vec<_> =
        said.address_lists.iter().map(|entry| (&*entry.list, &*entry.comment, entry.disabled)).collect();
    assert_eq!(entries, [("guests", "", false), ("friends", "a friend", false)]);
    assert_eq!(said.rules.iter().map(|rule| &*rule.comment).collect::<Vec<_>>(), ["last one"]);
}

#[test]
fn entries_are_placed_and_moved() {
    for (command, order) in [
        ("add chain=input comment=e place-before=0", "e a b c d"),
        ("add chain=input comment=e place-before=2", "a b e c d"),
        ("add chain=input place-before=*2 comment=e", "a e b c d"),
        ("add chain=input comment=e place-before=[find comment=d]", "a b c e d"),
        (
            "add chain=input comment=e place-before=[ /ip firewall filter find where comment=\"d\" ] action=drop",
            "a b c e d",
        ),
        ("move 3 0", "d a b c"),
        ("move 0 destination=3", "b c a d"),
        ("move numbers=3,2 destination=0", "d c a b"),
        ("move [find comment~\"a|b\"] 3", "c a b d"),
        ("move *1", "b c d a"),
        ("move 0", "b c d a"),
        ("move [find comment=c] [find comment=a]", "c a b d"),
        ("remove 1", "a c d"),
        ("remove 0,2", "b d"),
        ("remove numbers=3", "a b c"),
        ("remove *2,*3\nremove [find comment=a]", "d"),
        ("remove [find]", ""),
        ("comment 0 \"x\"", "x b c d"),
        ("comment numbers=1 comment=x", "a x c d"),
        ("set [find comment=b or comment=d] comment=x", "a x c x"),
        ("set 0 !comment", " b c d"),
        ("set numbers=0 comment=x\nset 0 comment=y", "y b c d"),
    ] {
        assert_eq!(comments(&four(command)), order, "{command}");
    }
}

#[test]
fn entries_that_are_moved_keep_their_place_among_other_menus() {
    let text = "/ip firewall filter\nadd chain=input comment=a\n/ip firewall raw\nadd chain=prerouting comment=r\n\
        /ip firewall filter\nadd chain=input comment=b\nmove 1 0\n";
    assert_eq!(comments(text), "b r a");
}

#[test]
fn a_set_reads_the_entry_again() {
    let said = rules(&four("set 1 action=drop protocol=tcp dst-port=22\nset 1 !dst-port disabled=yes"));
    let rule = &said.rules[1];
    assert_eq!((rule.action.name(), rule.disabled, &*rule.comment), ("drop", true, "b"));
    assert_eq!((conditions(rule), rule.line), (vec!["protocol"], 3));
    assert!(!rules(&four("disable 1\nenable [find disabled=yes]")).rules.iter().any(|rule| rule.disabled));

    let at = |text: &str| problem(text).0;
    assert_eq!(at(&four("set 0 dst-port=22")), "22");
    assert_eq!(at(&four("set 0 protocol=tcp protocol=udp")), "protocol=udp");
    assert_eq!(at(&four("set [find] dst-port=22")), "22");
    assert_eq!(at(&four("set 0 nothing=22")), "nothing");
    // An error that was reported already is not reported again.
    assert_eq!(places(&four("add chain=input dst-port=x protocol=tcp\nset 4 disabled=yes\nset 4 comment=x")).len(), 1);
    // The rule is still refused.
    assert_eq!(read(four("add chain=input dst-port=x protocol=tcp\nset 4 dst-port=1").as_bytes()).problems.len(), 1);
}

#[test]
fn an_empty_selection_is_reported() {
    for (command, at) in [
        ("set [find where comment~\"x\"] disabled=yes", "[find where comment~\"x\"]"),
        ("disable [find disabled]", "[find disabled]"),
        ("remove 4", "4"),
        ("remove 0,9", "9"),
        ("set *0 disabled=yes", "*0"),
        ("set *5 disabled=yes", "*5"),
        ("remove 99999999999999999999", "99999999999999999999"),
        ("remove input", "input"),
        ("add chain=input place-before=7", "7"),
        ("add chain=input place-before=[find comment=x]", "[find comment=x]"),
        ("move 0 9", "9"),
    ] {
        let (found, message, help) = problem(&four(command));
        assert_eq!(found, at, "{command}");
        assert!(!help.is_empty() && message.contains("/ip firewall filter"), "{command}: {message}");
    }
    let (_, message, _) =
        problem("/ip firewall address-list\nadd list=x address=192.0.2.1\nset [find list=y] list=z\n");
    assert_eq!(message, "no entry of `/ip firewall address-list` is found by `[find list=y]`");
}

/// A script that may run again first removes the entries that it adds, which may not exist yet.
#[test]
fn nothing_is_removed_where_nothing_is_found() {
    for command in [
        "remove [find comment=x]",
        "remove [find where dynamic]",
        "remove numbers=[find comment~\"^PK-\"]",
        "remove [find chain=output or disabled]",
    ] {
        assert_eq!(comments(&four(command)), "a b c d", "{command}");
    }
}

#[test]
fn one_of_several_entries_is_taken_by_its_number() {
    let place = |place: &str| comments(&four(&format!("add chain=input comment=e place-before={place}")));
    assert_eq!(place("([find chain=input]->0)"), "e a b c d");
    assert_eq!(place("([find where comment~\"[cd]\"]->1)"), "a b c e d");
    assert_eq!(place("[:pick [find chain=input] 2]"), "a b e c d");
    assert_eq!(place("[find comment=b]"), "a e b c d");
    assert_eq!(place("3"), "a b c e d");
    assert_eq!(comments(&four("remove ([find]->1)\nmove [find comment=d] ([find]->0)")), "d a c");
    let (at, ..) = problem(&four("add chain=input place-before=([find]->4)"));
    assert_eq!(at, "([find]->4)");
    let (.., help) = problem(&four("add chain=input place-before=[find]"));
    assert!(help.contains("->0"), "{help}");
}

#[test]
fn commands_that_print_entries_change_none() {
    let shows = "print\nprint where chain=input\nexport\nfind chain=input\nreset-counters [find]\n";
    assert_eq!(comments(&four(shows)), "a b c d");
    let others = "/ip/firewall/address-list/print\n/ip firewall connection tracking print\n/interface list member print\n\
        /ip firewall raw print stats\n/system/resource/print\n";
    assert_eq!(comments(&four(others)), "a b c d");
    // Numbers are those of the last print.
    assert_eq!(comments(&four("remove 0\nprint\nremove 0")), "c d");
    assert_eq!(problem(&four("print\nremove 0\nremove 0")).0, "0");
}

#[test]
fn commands_that_are_not_clear_are_refused() {
    for (command, at) in [
        ("remove", "remove"),
        ("set disabled=yes", "set"),
        ("set 0 1 disabled=yes", "1"),
        ("remove 0 disabled=yes", "disabled=yes"),
        ("remove 0,,1", "0,,1"),
        ("comment 0", "comment"),
        ("comment 0 a b", "b"),
        ("comment 0 a comment=b", "a"),
        ("comment 0 comment=b comment=c", "comment=c"),
        ("set numbers=0 numbers=1 comment=x", "numbers=1"),
        ("add chain=input place-before=0 place-before=1", "place-before=1"),
        ("move 0 1 destination=2", "1"),
        ("move 0 0", "0"),
        ("move 0 [find]", "[find]"),
        ("add chain=input place-before=[find]", "[find]"),
        ("set [find color=red] disabled=yes", "color"),
        // Validity is not a property in files, so no entry is found.
        ("set [find invalid] disabled=yes", "[find invalid]"),
        ("set [:find x] disabled=yes", "[:find x]"),
        ("set [find comment=$x] disabled=yes", "$"),
        ("set $x disabled=yes", "$"),
        ("set 0 comment=[find]", "[find]"),
        ("set [/ip firewall nat find comment=a] disabled=yes", "[/ip firewall nat find comment=a]"),
        // The number 0 is ambiguous: two entries had it.
        ("remove 0\nremove 0", "0"),
        ("add chain=input place-before=0\nadd chain=input place-before=0", "0"),
    ] {
        assert_eq!(problem(&four(command)).0, at, "{command}");
    }
    let refused = |menu: &str, command: &str| problem(&format!("{menu}\n{command}\n")).0;
    assert_eq!(refused("/interface list", "disable all"), "disable");
    assert_eq!(refused("/ip firewall address-list", "add list=x place-before=0"), "place-before");
    assert_eq!(refused("/ip firewall layer7-protocol", "move 0"), "move");
}

#[test]
fn entries_are_selected_by_name() {
    let text = "/ip firewall layer7-protocol\nadd name=a regexp=x\nadd name=b regexp=y\nset a regexp=z\nremove b\n\
        /interface list\nadd name=WAN\nset WAN comment=x\nset [ find name=all ] comment=\"contains all interfaces\"\n";
    let said = rules(text);
    assert_eq!(said.layer7.iter().map(|pattern| &*pattern.regexp).collect::<Vec<_>>(), ["z"]);
    let lists: Vec<_> = said.interface_lists.iter().map(|list| (&*list.name, &*list.comment)).collect();
    assert_eq!(lists, [("all", "contains all interfaces"), ("WAN", "x")]);
}

#[test]
fn lists_are_searched_by_what_entries_mean() {
    let entries = |commands: &str| {
        let text = format!(
            "/ip firewall address-list\nadd list=a address=192.0.2.1\nadd list=a address=192.0.2.0/24 timeout=1h\n\
            add list=b address=192.0.2.1 comment=\"# 1\"\nadd list=b address=www.example.org\n{commands}\n"
        );
        rules(&text).address_lists.len()
    };
    for (command, left) in [
        ("remove [find list=a]", 2),
        ("remove [find list=a address=192.0.2.1/32]", 3),
        ("remove [find address=\"192.0.2.7/24\"]", 3),
        ("remove [find address=192.0.2.1]", 2),
        ("remove [find dynamic=no]", 1),
        ("remove [find dynamic]", 3),
        ("remove [find timeout=60m]", 3),
        ("remove [find address~\"^www\\\\.\"]", 3),
        ("remove [find list~\"a|b\" comment=\"# 1\"]", 3),
        ("remove [find list=a]\nadd list=a address=192.0.2.1", 3),
        ("set [find list=a] list=c\nremove [find list=c]", 2),
        ("set [find list=a] list=c\nset [find list=c] list=a\nremove [find list=a]", 2),
    ] {
        assert_eq!(entries(command), left, "{command}");
    }
}

#[test]
fn many_entries_are_found_by_list() {
    let lists = 2_000;
    let mut text = "/ip firewall address-list\n".to_owned();
    for entry in 0..200_000 {
        let [_, b, c, d] = u32::to_be_bytes(entry);
        text.push_str(&format!("add address=10.{b}.{c}.{d} list=list-{} comment=\"no {entry}\"\n", entry % lists));
    }
    for list in 1..lists {
        text.push_str(&format!("remove [find list=list-{list}]\n"));
    }
    let left = rules(&text).address_lists;
    assert!(left.len() == 100 && left.iter().all(|entry| matches!(entry.address, EntryAddress::Set(_))));
}

#[test]
fn too_much_searching_is_reported_once() {
    let long = "x".repeat(1_000_000);
    let text =
        format!("/ip firewall address-list\nadd list=a comment={long}\n{}", "remove [find comment=x]\n".repeat(500));
    let problems = read(text.as_bytes()).problems;
    let too_much = problems.iter().filter(|problem| problem.message.contains("too many entries")).count();
    assert!(too_much == 1 && problems.len() < 500, "{}", problems.len());
}
