//! Steps that last too long or too short, scans that open, doors that stand open.

use super::*;

/// A knock of UDP datagrams with a content each, which no scan gives, and its door.
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

/// Stages of a blacklist may be as they like, and so may lists that open something themselves.
#[test]
fn what_leads_to_no_door_is_left_alone() {
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

/// The rules of a knock on these ports, 10 s for each step, and what is before its door.
fn ports(steps: &[&str], more: &str) -> Vec<(&'static str, u32)> {
    found(&(knock_rules(steps) + more))
}

fn knock_rules(steps: &[&str]) -> String {
    let mut rules = String::new();
    for (step, words) in steps.iter().enumerate() {
        let before = if step > 0 { format!("src-address-list=step{step} ") } else { String::new() };
        rules += &format!(
            "add chain=input {words} {before}action=add-src-to-address-list address-list=step{} \
             address-list-timeout=10s\n",
            step + 1
        );
    }
    rules + &format!("add chain=input src-address-list=step{}\n", steps.len())
}

#[test]
fn ports_that_a_scan_tries_in_this_order() {
    for (steps, line) in [
        (&["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321"][..], 3),
        (&["protocol=udp dst-port=4321", "protocol=udp dst-port=1234"], 3),
        (&["protocol=tcp dst-port=1", "protocol=tcp dst-port=1000,2", "protocol=tcp dst-port=3,999"], 4),
        (&["protocol=tcp dst-port=7", "protocol=tcp dst-port=!7"], 3),
        (&["protocol=tcp dst-port=7"], 2),
        (
            &[
                "protocol=tcp dst-port=7 connection-state=new in-interface=outside dst-address=192.0.2.1",
                "protocol=tcp dst-port=9 tcp-flags=syn,!ack dst-address=192.0.2.1",
            ],
            3,
        ),
    ] {
        assert_eq!(ports(steps, ""), [("scan-opens", line)], "{steps:?}");
    }
    for steps in [
        &["protocol=tcp dst-port=4321", "protocol=tcp dst-port=1234", "protocol=tcp dst-port=2345"][..],
        &["protocol=tcp dst-port=7", "protocol=tcp dst-port=7"],
        &["protocol=tcp dst-port=1234", "protocol=udp dst-port=4321"],
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321 content=x"],
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321 src-port=7"],
        &["protocol=tcp dst-port=1234 dst-address=192.0.2.1", "protocol=tcp dst-port=4321 dst-address=192.0.2.2"],
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321 tcp-flags=fin"],
        &["protocol=icmp packet-size=100", "protocol=icmp packet-size=200"],
        &["protocol=tcp dst-port=1234", "protocol=tcp"],
    ] {
        assert_eq!(ports(steps, ""), [], "{steps:?}");
    }
}

#[test]
fn a_scan_must_be_fast_enough() {
    let of = |second: u16| {
        let steps = ["protocol=tcp dst-port=1000".to_owned(), format!("protocol=tcp dst-port={second}")];
        let rules = knock_rules(&[&steps[0], &steps[1]]);
        found(&rules.replace("step1 address-list-timeout=10s", "step1 address-list-timeout=2s"))
    };
    assert_eq!(of(21_000), [("scan-opens", 3)]);
    assert_eq!(of(21_001), []);
}

#[test]
fn rules_that_notice_a_scan() {
    let steps = ["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321"];
    let catch = "add chain=input protocol=tcp dst-port=2000 action=add-src-to-address-list address-list=caught\n";
    let stop = "add chain=input src-address-list=caught action=drop\n";
    for more in [
        "add chain=input psd=21,3s,3,1 action=drop\n",
        "add chain=input protocol=tcp limit=!10,5 action=drop\n",
        &format!("{stop}{catch}"),
        &format!("{stop}{}", catch.replace("dst-port=2000", "psd=21,3s,3,1")),
        &format!("{stop}{}", catch.replace("=2000", "=!1234,4321")),
    ] {
        let rules = format!("{more}{}", knock_rules(&steps));
        assert_eq!(found(&rules), [], "{rules}");
    }
    for more in [
        "add chain=input protocol=udp psd=21,3s,3,1 action=drop\n",
        &format!("{stop}{}", catch.replace("2000", "22")),
        &format!("{stop}{}", catch.replace("2000", "1234")),
        &format!("{}{catch}", stop.replace("drop", "log")),
    ] {
        let lints = found(&format!("{more}{}", knock_rules(&steps)));
        assert_eq!(lints.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["scan-opens"], "{more}");
    }
}

#[test]
fn knocks_in_chains_of_their_own() {
    let steps = knock_rules(&["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321"]).replace("=input", "=knock");
    let with = |jump: &str| {
        let lints = found(&format!("add chain=input action=jump jump-target=knock {jump}\n{steps}"));
        lints.into_iter().map(|(code, _)| code).collect::<Vec<_>>()
    };
    assert_eq!(with(""), ["scan-opens"]);
    assert_eq!(with("protocol=tcp dst-port=1234,4321 connection-state=new"), ["scan-opens"]);
    assert_eq!(with("protocol=tcp dst-port=4321"), [""; 0]);
    assert_eq!(with("src-mac-address=00:11:22:33:44:55"), [""; 0]);
}

/// The jump asks for the first knock; what the chain accepts asks for the second.
#[test]
fn a_jump_that_asks_for_a_knock_is_no_door_by_itself() {
    let rules = |accept: &str| {
        format!(
            "add chain=input protocol=tcp dst-port=7 action=add-src-to-address-list address-list=a address-list-timeout=9s\n\
             add chain=input src-address-list=a action=jump jump-target=second\n\
             add chain=second protocol=tcp dst-port=9 content=x action=add-src-to-address-list address-list=b \
             address-list-timeout=9s\nadd chain=second {accept}\n"
        )
    };
    assert_eq!(found(&rules("src-address-list=b")), []);
    assert_eq!(found(&rules("protocol=udp")), [("scan-opens", 2)]);
}

#[test]
fn doors_that_stand_open() {
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

/// What the sentence says, done: a scan at this speed, and who is in the list then.
#[test]
fn the_scan_that_is_told_of_opens() {
    use crate::eval::Evaluator;
    use crate::packet::{Packet, Side, protocol};
    use crate::time::Time;

    for steps in [
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321"][..],
        &["protocol=tcp dst-port=4321", "protocol=tcp dst-port=1234"],
        &["protocol=udp dst-port=7", "protocol=udp dst-port=50000"],
        &["protocol=tcp dst-port=5,30", "protocol=tcp dst-port=4,20,60000", "protocol=tcp dst-port=61000,3"],
    ] {
        let rules = crate::rsc::read(filter(&knock_rules(steps)).as_bytes()).rules;
        let settings = Settings::default();
        let lints = lint(&rules, &settings);
        let sentence = &lints[0].sentence;
        let rate = sentence.split("from ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let pause = 1_000_000_000 / rate.parse::<u64>().unwrap();
        let [client, server] = ["198.51.100.7", "203.0.113.1"].map(|address| address.parse().unwrap());
        let number = if steps[0].contains("tcp") { protocol::TCP } else { protocol::UDP };
        let mut evaluator = Evaluator::new(&rules, &settings, 7);
        let mut ports: Vec<u16> = (0..=u16::MAX).collect();
        if sentence.contains("descending") {
            ports.reverse();
        }
        let mut now = 0;
        let opens = ports.into_iter().any(|port| {
            now += pause;
            let packet = Packet { ports: Some((9, port)), ..Packet::bare(Side::Outside, client, server, number) };
            let now = Time::from_nanos(now);
            evaluator.evaluate(&packet, now);
            evaluator.lists().contains(&format!("step{}", steps.len()), client, now)
        });
        assert!(opens, "{sentence}");
    }
}
