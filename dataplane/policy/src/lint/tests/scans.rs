//! Knocks that scans complete, and rules that prevent it.

use super::*;

/// The rules of a knock on these ports, 10 s for each step, and the rules before its door.
fn ports(steps: &[&str], more: &str) -> Vec<(&'static str, u32)> {
    found(&(knock_rules(steps) + more))
}

pub(super) fn knock_rules(steps: &[&str]) -> String {
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
        &["protocol=tcp dst-port=1234", "protocol=udp dst-port=4321"][..],
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321 content=x"],
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321 src-port=7"],
        &["protocol=tcp dst-port=1234 dst-address=192.0.2.1", "protocol=tcp dst-port=4321 dst-address=192.0.2.2"],
        &["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321 tcp-flags=fin"],
        &["protocol=icmp packet-size=100", "protocol=icmp packet-size=200"],
    ] {
        assert_eq!(ports(steps, ""), [], "{steps:?}");
    }
}

/// Checks whether a scan in random order succeeds, and with which probability.
#[test]
fn ports_that_go_up_and_down_are_scanned_in_random_order() {
    let often = |steps: &[&str], more: &str| {
        let lints = all_with(&filter(&format!("{more}{}", knock_rules(steps))), &Settings::default());
        let lint = lints.into_iter().find(|lint| lint.code == Code::ScanOpens)?;
        Some(lint.sentence.split(" port scan").next().unwrap_or_default().to_owned())
    };
    let three = ["protocol=tcp dst-port=4321", "protocol=tcp dst-port=1234", "protocol=tcp dst-port=2345"];
    assert_eq!(often(&three, "").as_deref(), Some("one of 6"));
    assert_eq!(often(&["protocol=tcp dst-port=7-9", "protocol=tcp dst-port=8"], "").as_deref(), Some("a"));
    let ports = [9, 1, 8, 2, 7, 3, 6].map(|port| format!("protocol=udp dst-port={port}000"));
    let many = ports.each_ref().map(String::as_str);
    assert_eq!(often(&many[..6], "").as_deref(), Some("one of 720"));
    assert_eq!(often(&many, ""), None, "one of 5,040");
    let trap = |ports: &str| {
        format!(
            "add chain=input src-address-list=caught action=drop\n\
             add chain=input protocol=tcp dst-port={ports} action=add-src-to-address-list address-list=caught\n"
        )
    };
    assert_eq!(often(&three, &trap("5000")).as_deref(), Some("one of 24"));
    assert_eq!(often(&three, &trap("5000-5099")), None);
}

/// Ports 2 and 25 both complete the first step. If the search used port 2 for it, no port would remain for the second
/// step.
#[test]
fn a_port_of_several_steps_is_left_for_the_step_that_has_no_other() {
    let steps = ["protocol=tcp dst-port=25,2", "protocol=tcp dst-port=2", "protocol=tcp dst-port=25,19"];
    let rules = knock_rules(&steps);
    // The last step comes first, so that each packet completes one step.
    let lines: Vec<&str> = rules.lines().collect();
    let rules = [lines[2], lines[1], lines[0], lines[3]].join("\n") + "\n";
    assert_eq!(found(&rules), [("scan-opens", 2)]);
}

#[test]
fn a_scan_must_be_fast_enough() {
    let of = |second: u16| {
        let steps = ["protocol=tcp dst-port=1000".to_owned(), format!("protocol=tcp dst-port={second}")];
        let rules = knock_rules(&[&steps[0], &steps[1]]);
        found(&rules.replace("step1 address-list-timeout=10s", "step1 address-list-timeout=2s"))
    };
    let order = |second: u16| {
        let steps = ["protocol=tcp dst-port=1000".to_owned(), format!("protocol=tcp dst-port={second}")];
        let rules = knock_rules(&[&steps[0], &steps[1]]);
        let rules = rules.replace("step1 address-list-timeout=10s", "step1 address-list-timeout=2s");
        all_with(&filter(&rules), &Settings::default())[0].sentence.contains("ascending")
    };
    assert_eq!((of(20_999), of(21_001)), (vec![("scan-opens", 3)], vec![("scan-opens", 3)]));
    assert_eq!((order(20_999), order(21_001)), (true, false));
}

#[test]
fn rules_that_detect_a_scan() {
    let steps = ["protocol=tcp dst-port=1234", "protocol=tcp dst-port=4321"];
    let catch = "add chain=input protocol=tcp dst-port=2000 action=add-src-to-address-list address-list=caught\n";
    let stop = "add chain=input src-address-list=caught action=drop\n";
    for more in [
        "add chain=input psd=21,3s,3,1 action=drop\n",
        "add chain=input protocol=tcp limit=!10,5 action=drop\n",
        &format!("{stop}{}", catch.replace("2000", "2000-2099")),
        &format!("{stop}{}", catch.replace("dst-port=2000", "psd=21,3s,3,1")),
        &format!("{stop}{}", catch.replace("=2000", "=!1234,4321")),
    ] {
        let rules = format!("{more}{}", knock_rules(&steps));
        assert_eq!(found(&rules), [], "{rules}");
    }
    for more in [
        "add chain=input protocol=udp psd=21,3s,3,1 action=drop\n",
        &format!("{stop}{}", catch.replace("2000", "22")),
        &format!("{}{catch}", stop.replace("drop", "log")),
        // A blocked source may scan again while the first knock still counts.
        &format!("{stop}{}", catch.replace("=2000", "=2000-2099 address-list-timeout=2s")),
        // One of six scans in random order misses one port.
        &format!("{stop}{catch}"),
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

/// The jump needs the first knock, and the accepts of the chain need the second one.
#[test]
fn a_jump_that_needs_a_knock_is_not_a_door_by_itself() {
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

/// While the source is blocked for a second, the port that would block it for two hours has no effect.
#[test]
fn a_source_that_is_blocked_for_a_short_time_avoids_a_longer_one() {
    let steps = ["protocol=tcp dst-port=1", "protocol=tcp dst-port=31-32"];
    let stop = "add chain=input src-address-list=caught action=drop\n";
    let catch = |port: &str, timeout: &str| {
        format!(
            "add chain=input protocol=tcp dst-port={port} action=add-src-to-address-list address-list=caught \
             address-list-timeout={timeout}\n"
        )
    };
    let knock = knock_rules(&steps);
    let rules = format!("{stop}{}{stop}{}{knock}", catch("3", "2h"), catch("!42", "2s"));
    assert_eq!(found(&rules).iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["scan-opens"]);
}

/// Runs the scan of the lint, and checks that the source is in the list at this speed.
#[test]
fn the_scan_of_the_lint_opens() {
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

/// Checks that a rule that detects scans counts only if a scan meets it before the rules that it should protect.
#[test]
fn the_order_of_the_rules_counts() {
    let steps = ["protocol=tcp dst-port=1234", "protocol=tcp dst-port=5678", "protocol=tcp dst-port=9012"];
    let knock = knock_rules(&steps);
    let psd = "add chain=input protocol=tcp psd=21,3s,3,1 action=tarpit\n";
    let catch = "add chain=input protocol=tcp dst-port=2000-2100,6000-6100 action=add-src-to-address-list \
                 address-list=trapped address-list-timeout=1h\n";
    let stop = "add chain=input src-address-list=trapped action=drop\n";
    let opens = |rules: &str| found(rules).iter().any(|(code, _)| *code == "scan-opens");
    assert!(!opens(&format!("{psd}{knock}")) && opens(&format!("{knock}{psd}")));
    assert!(!opens(&format!("{stop}{catch}{knock}")) && !opens(&format!("{stop}{knock}{catch}")));
    assert!(opens(&format!("{knock}{catch}{stop}")));
    // In a chain that packets enter after the knock.
    let aside = |rules: &str| rules.replace("chain=input", "chain=aside");
    let jump = "add chain=input action=jump jump-target=aside\n";
    assert!(!opens(&format!("{jump}{knock}{}", aside(psd))) && opens(&format!("{knock}{jump}{}", aside(psd))));
    // The rules are before the knock, but scans do not reach them.
    let shield = "add chain=input protocol=tcp dst-port=1024-65535 action=jump jump-target=aside\n";
    let rules = format!("{shield}{psd}{}", knock.replace("chain=input", "chain=aside"));
    assert!(opens(
        &rules.replace(psd, &format!("{}add chain=input action=return\n", psd.replace("psd=", "dst-port=1-1023 psd=")))
    ));
}

/// The bucket of a limit is full at the begin of a scan, and then every second packet passes. The port with which the
/// scan begins determines the packets that pass.
#[test]
fn a_scan_may_begin_shortly_before_the_knock() {
    let scans = |first: u16, second: u16, guard: &str| {
        let steps = [format!("protocol=udp dst-port={first}"), format!("protocol=udp dst-port={second}")];
        let lints =
            all_with(&filter(&format!("{guard}{}", knock_rules(&[&steps[0], &steps[1]]))), &Settings::default());
        let lint = lints.into_iter().find(|lint| lint.code == Code::ScanOpens);
        lint.map(|lint| lint.sentence.split(" completes").next().unwrap_or_default().to_owned())
    };
    let limit = "add chain=input protocol=udp limit=!5,5 action=drop\n";
    let psd = "add chain=input protocol=udp psd=21,3s,3,1 action=drop\n";
    for (first, second, guard, expected) in [
        (45, 32, limit, Some("a port scan in descending order that begins at port 52")),
        (32, 45, limit, Some("a port scan in ascending order that begins at port 25")),
        (4045, 4040, psd, Some("a port scan in descending order that begins at port 4059")),
        (4045, 4080, psd, None),
    ] {
        assert_eq!(scans(first, second, guard).as_deref(), expected, "{first}, {second}: {guard}");
    }
}
