//! Steps with too long or too short timeouts, and knocks that are not needed.

use super::scans::knock_rules;
use super::*;

/// A knock of UDP datagrams with contents, which no scan completes, and its door.
fn knock(first: &str, second: &str) -> Vec<(&'static str, u32)> {
    found(&format!(
        "add chain=input protocol=udp content=a action=add-src-to-address-list address-list=step {first}\n\
         add chain=input protocol=udp content=b src-address-list=step action=add-src-to-address-list \\\n    \
         address-list=door {second}\nadd chain=input src-address-list=door\n"
    ))
}

#[test]
fn how_long_a_knock_counts() {
    let timeouts = |first: &str, second: &str| {
        knock(&format!("address-list-timeout={first}"), &format!("address-list-timeout={second}"))
    };
    assert_eq!(timeouts("10s", "1m"), []);
    assert_eq!(timeouts("10s", "10s"), []);
    assert_eq!(timeouts("2s", "2s"), []);
    assert_eq!(timeouts("1s", "1m"), [("short-step", 2)]);
    assert_eq!(timeouts("1s", "1s"), [("short-step", 2), ("short-step", 3)]);
    assert_eq!(timeouts("5m", "1m"), [("long-step", 2)]);
    assert_eq!(timeouts("1d", "none-dynamic"), []);
    assert_eq!(timeouts("none-static", "1m"), [("long-step", 2)]);
    assert_eq!(knock("", ""), [("long-step", 2)]);
}

#[test]
fn the_easiest_way_into_a_list_counts() {
    let more = |rule: &str| {
        found(&format!(
            "{rule}add chain=input protocol=udp content=a action=add-src-to-address-list address-list=step address-list-timeout=1s\n\
             add chain=input protocol=udp content=b src-address-list=step action=add-src-to-address-list \
             address-list=door address-list-timeout=30s\nadd chain=input src-address-list=door\n"
        ))
    };
    let step = "add chain=input protocol=tcp content=c action=add-src-to-address-list address-list=step";
    assert_eq!(more(""), [("short-step", 2)]);
    assert_eq!(more(&format!("{step} address-list-timeout=10s\n")), []);
    let refresh = "add chain=input src-address-list=door action=add-src-to-address-list address-list=door";
    assert_eq!(more(&format!("{step} address-list-timeout=1m\n")), [("long-step", 2)]);
    assert_eq!(more(&format!("{step} address-list-timeout=1m\n{refresh} address-list-timeout=1m\n")), []);
}

/// Checks that stages of a blacklist and lists that are doors may have any timeout.
#[test]
fn lists_that_lead_to_no_door_have_no_lint() {
    let ladder = "add chain=input src-address-list=black action=drop\n\
        add chain=input src-address-list=s1 action=add-src-to-address-list address-list=black address-list-timeout=1m\n\
        add chain=input protocol=tcp dst-port=22 action=add-src-to-address-list address-list=s1 address-list-timeout=1s\n";
    assert_eq!(found(ladder), []);
    let two_doors = "add chain=input content=a protocol=udp action=add-src-to-address-list address-list=a\n\
        add chain=input src-address-list=a protocol=udp content=b action=add-src-to-address-list address-list=b \
        address-list-timeout=10s\nadd chain=input src-address-list=b protocol=udp\n\
        add chain=input src-address-list=a protocol=tcp\n";
    assert_eq!(found(two_doors), []);
}

#[test]
fn knocks_that_are_not_needed() {
    let knock = knock_rules(&["protocol=icmp packet-size=99"]);
    let door = "add chain=input src-address-list=step1\n";
    let narrow = "add chain=input src-address-list=step1 protocol=tcp dst-port=22\n";
    let with = |rules: &str| found(&knock.replace(door, rules));
    assert_eq!(with(&format!("{narrow}add chain=input protocol=tcp dst-port=22,80\n")), [("moot-knock", 4)]);
    assert_eq!(with(&format!("{narrow}add chain=input src-address-list=!x protocol=udp\n")), [("empty-list", 4)]);
    assert_eq!(with(&format!("{narrow}add chain=input protocol=tcp dst-port=80\n")), []);
    assert_eq!(with(&format!("{door}add chain=input protocol=tcp dst-port=80\n")), []);
    assert_eq!(with(&format!("add chain=input protocol=tcp\n{narrow}")), [("moot-knock", 3)]);
    assert_eq!(with(&format!("add chain=input protocol=tcp src-address=192.0.2.0/24\n{narrow}")), []);
    let behind =
        |between: &str| with(&format!("{door}{between}add chain=input\n")).into_iter().map(|(code, _)| code).next();
    assert_eq!(behind(""), Some("moot-knock"));
    assert_eq!(behind("add chain=input connection-state=invalid action=drop\n"), Some("moot-knock"));
    assert_eq!(behind("add chain=input protocol=tcp limit=1,5\n"), Some("moot-knock"));
    assert_eq!(behind("add chain=input protocol=tcp action=drop\n"), Some("unreachable-rule"));
}
