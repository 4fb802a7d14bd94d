//! Frames of strangers with and without the drops of the kernel: the real XDP program, by test runs, and the engine.
//!
//! Two worlds receive the same frames. In one of them the engine decides about each frame at once. In the other one the
//! program receives each frame, and the engine decides later about those that go up, as behind a ring. Verdicts,
//! counters, log lines, lists, connections and doors must be equal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use knockplane_policy::door::Door;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::lab::{Numbers, Program, World, sequences, soak};
use crate::carrier::Carrier;
use crate::fast_path::FastPathSwitch;

/// Rules in random order.
const RULES: [&str; 44] = [
    "add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=10s",
    "add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list address-list=secured \
     address-list-timeout=30s",
    "add chain=input protocol=udp dst-port=7000 action=add-src-to-address-list address-list=secured address-list-timeout=10s",
    "add chain=input protocol=icmp action=add-src-to-address-list address-list=secured address-list-timeout=10s",
    "add chain=input src-address-list=secured action=accept",
    "add chain=input src-address-list=secured dst-port=22 protocol=tcp action=accept",
    "add chain=input src-address-list=!temporary protocol=udp action=drop",
    "add chain=input dst-address-list=blocked action=drop",
    "add chain=input src-address-list=blocked action=drop",
    "add chain=input connection-state=established,related action=accept",
    "add chain=input connection-state=invalid action=drop",
    "add chain=input connection-state=new protocol=udp dst-port=53 action=accept",
    "add chain=input connection-state=!new action=drop",
    "add chain=input connection-state=untracked action=passthrough",
    "add chain=input src-address=192.0.2.0/30 action=accept",
    "add chain=input src-address=!192.0.2.0/24 protocol=tcp action=drop",
    "add chain=input src-address=198.51.100.7 action=passthrough",
    "add chain=input dst-address=203.0.113.5 protocol=tcp dst-port=80 action=accept",
    "add chain=input dst-address=!203.0.113.0/24 action=drop",
    "add chain=input protocol=tcp tcp-flags=syn,!ack dst-port=22 action=passthrough",
    "add chain=input protocol=tcp tcp-flags=!syn action=drop",
    "add chain=input protocol=tcp tcp-flags=fin dst-port=7000 action=accept",
    "add chain=input protocol=tcp dst-port=1-79,81-6999 action=drop",
    "add chain=input protocol=udp port=53,123 action=passthrough",
    "add chain=input protocol=udp src-port=53 action=accept",
    "add chain=input protocol=tcp dst-port=!22 action=jump jump-target=closed",
    "add chain=input protocol=udp action=jump jump-target=closed",
    "add chain=input dst-port=80 protocol=tcp log=yes action=drop",
    "add chain=input dst-port=99 protocol=tcp action=reject reject-with=tcp-reset",
    "add chain=input limit=5,5:packet protocol=udp dst-port=123 action=accept",
    "add chain=input psd=21,3s,3,1 protocol=tcp action=add-src-to-address-list address-list=blocked address-list-timeout=20s",
    "add chain=input packet-size=0-64 action=passthrough",
    "add chain=input ttl=less-than:10 action=drop",
    "add chain=input protocol=tcp action=passthrough",
    "add chain=input protocol=udp action=drop",
    "add chain=input action=add-dst-to-address-list dst-port=99 protocol=udp address-list=blocked address-list-timeout=9s",
    "add chain=input in-interface=ether1 protocol=udp action=drop",
    "add chain=input src-address-type=unicast protocol=udp dst-port=123 action=accept",
    "add chain=input nth=3,1 protocol=tcp dst-port=80 action=accept",
    "add chain=input fragment=yes action=drop",
    "add chain=input connection-bytes=0-100 protocol=tcp dst-port=80 action=accept",
    "add chain=forward protocol=tcp action=drop",
    "add chain=forward src-address-list=secured action=accept",
    "add chain=forward dst-port=443 protocol=tcp action=accept",
];

const RAW_RULES: [&str; 5] = [
    "add chain=prerouting protocol=udp dst-port=123 action=notrack",
    "add chain=prerouting protocol=tcp tcp-flags=!syn dst-port=80 action=drop",
    "add chain=prerouting src-address-list=blocked action=drop",
    "add chain=prerouting protocol=tcp dst-port=22 action=accept",
    "add chain=prerouting src-address=198.51.100.0/25 action=drop",
];

const DOORS: [&str; 4] = [
    "[]",
    r#"[{"name":"ssh","knock":["tcp/1234","tcp/4321"],"opens":["tcp/22"],"for":"30s"}]"#,
    r#"[{"name":"one","knock":["udp/7000"],"close":["tcp/99"],"hold-off":"1s"},
        {"name":"two","knock":["tcp/80 syn","icmp","udp/99"],"strict":false,"opens":["udp/53"]}]"#,
    r#"[{"name":"word","knock":["udp/53 \"open\"","tcp/1234"],"cut":true,"sources":["192.0.2.0/24"]}]"#,
];

fn rule_set(numbers: &mut Numbers) -> String {
    let mut text = "/ip firewall filter\n".to_owned();
    for _ in 0..numbers.below(7) {
        text += numbers.one_of(&RULES);
        text.push('\n');
    }
    text += numbers.one_of(&["add chain=input action=drop\n", "add chain=input action=accept\n", "", ""]);
    text += "add chain=closed dst-port=4321 protocol=tcp action=return\nadd chain=closed protocol=udp dst-port=7 action=accept\n";
    text +=
        numbers.one_of(&["add chain=closed action=drop\n", "add chain=closed src-port=9 protocol=udp action=drop\n"]);
    text += "/ip firewall raw\n";
    for _ in 0..numbers.below(3) {
        text += numbers.one_of(&RAW_RULES);
        text.push('\n');
    }
    text += "/ipv6 firewall filter\nadd chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list \
             address-list=secured address-list-timeout=9s\nadd chain=input src-address-list=secured action=accept\n";
    text += numbers.one_of(&["add chain=input src-address=2001:db8::/64 protocol=udp action=accept\n", ""]);
    text += numbers.one_of(&["add chain=input protocol=tcp action=drop\n", "add chain=input action=drop\n"]);
    text += "/ip firewall address-list\n";
    text += numbers.one_of(&["add list=secured address=192.0.2.3\n", "add list=blocked address=198.51.100.0/26\n", ""]);
    text + numbers.one_of(&["add list=secured address=192.0.2.9 timeout=20s\n", ""])
}

fn settings(numbers: &mut Numbers) -> Settings {
    let doors: Vec<Door> = serde_json::from_str(numbers.one_of(&DOORS)).expect("valid doors");
    let protect = numbers.one_of(&[&["0.0.0.0/0", "::/0"][..], &["203.0.113.0/24", "2001:db8:1::/48"]]);
    let protect = protect.iter().map(|network| network.parse().expect("a network")).collect();
    let interfaces = serde_json::from_str(r#"{"outside":["ether1"]}"#).expect("valid interfaces");
    Settings { doors, protect, interfaces, ..Settings::default() }
}

/// A frame of one of many sources.
fn frame(numbers: &mut Numbers) -> Vec<u8> {
    let last = numbers.below(6) as u8 + 1;
    let source = numbers.one_of(&[[192, 0, 2, last], [198, 51, 100, last], [198, 51, 101, last], [10, 0, 0, last]]);
    let destination = numbers.one_of(&[[203, 0, 113, 5], [203, 0, 113, 6], [8, 8, 8, 8]]);
    let port =
        |numbers: &mut Numbers| -> u16 { numbers.one_of(&[22, 53, 80, 99, 123, 443, 1234, 4321, 7000, 7, 9, 60_000]) };
    let [from, to] = [numbers.one_of(&[40_000, 53, 9]), port(numbers)].map(u16::to_be_bytes);
    let payload: &[u8] = numbers.one_of(&[&b""[..], b"", b"open", &[7; 90]]);
    let protocol = numbers.one_of(&[6_u8, 6, 6, 17, 17, 1]);
    let transport = match protocol {
        6 => {
            let flags = numbers.one_of(&[0x02, 0x02, 0x02, 0x10, 0xc2, 0x01, 0x12, 0x04]);
            [&from[..], &to, &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0], payload].concat()
        }
        17 => [&from[..], &to, &(8 + payload.len() as u16).to_be_bytes(), &[0, 0], payload].concat(),
        _ => [&[8, 0, 0, 0, 0, 1, 0, 1][..], payload].concat(),
    };
    let mut frame = vec![2; 12];
    match numbers.below(24) {
        0..4 => frame.extend([0x81, 0, 0, numbers.one_of(&[0, 7])]),
        4 => frame.extend([numbers.one_of(&[0x88, 0x81]), 0xa8, 0, 5, 0x81, 0, 0, 7]),
        5 => frame.extend([0x81, 0, 0, 5, 0x81, 0, 0, 7]),
        _ => {}
    }
    if numbers.below(4) > 0 {
        let fragment = if numbers.below(12) == 0 { 0x20 } else { 0x40 };
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + transport.len() as u16).to_be_bytes());
        frame.extend([0, 0, fragment, 0, numbers.one_of(&[64, 5]), protocol, 0, 0]);
        frame.extend(source.into_iter().chain(destination));
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((transport.len() as u16).to_be_bytes());
        frame.extend([if protocol == 1 { 58 } else { protocol }, 64]);
        let network = numbers.one_of(&[0, 1]);
        frame.extend([&[0x20, 1, 0xd, 0xb8, 0, 0, 0, network][..], &[0; 7], &[last]].concat());
        frame.extend([&[0x20, 1, 0xd, 0xb8, 0, numbers.one_of(&[1, 2])][..], &[0; 9], &[5]].concat());
    }
    frame.extend(transport);
    if numbers.below(10) == 0 {
        let at = 12 + numbers.below(frame.len() - 12);
        frame[at] = numbers.below(256) as u8;
    }
    frame
}

/// One sequence of frames. Returns the number of dropped frames, and of those while others waited.
fn compare(program: &Program, fast_path: &Arc<FastPathSwitch>, seed: u64, now: &mut Time) -> [u64; 2] {
    let numbers = &mut Numbers(seed);
    let off = &Arc::new(FastPathSwitch::off("it is off".to_owned()));
    let (rules, settings) = (rule_set(numbers), settings(numbers));
    let [mut without, mut with] = [off, fast_path].map(|path| World::new(path, &rules, settings.clone(), *now));
    let mut carrier = Carrier::new(Arc::clone(fast_path), 0);
    let mut waiting = VecDeque::<(Vec<u8>, Side, Verdict)>::new();
    let mut recent: Vec<Vec<u8>> = (0..8).map(|_| frame(numbers)).collect();
    let mut dropped = [0, 0];
    let context = |step: usize| format!("seed {seed}, step {step}:\n{rules}{:?}", settings.doors);
    for step in 0..150 {
        if numbers.below(4) == 0 {
            let place = numbers.below(recent.len());
            recent[place] = frame(numbers);
        }
        let frame = &recent[numbers.below(recent.len())];
        let side = numbers.one_of(&[Side::Outside, Side::Outside, Side::Outside, Side::Outside, Side::Inside]);
        let expected = without.decide(side, &[frame], *now)[0];
        match with.by_kernel(program, side, frame) {
            Some(verdict) => {
                assert_eq!(verdict, expected, "{side} {frame:02x?} {}", context(step));
                dropped[0] += 1;
                dropped[1] += u64::from(!waiting.is_empty());
            }
            None => waiting.push_back((frame.clone(), side, expected)),
        }
        // A worker's turn. Time passes only between turns. An answer does not arrive before a frame from inside is forwarded.
        if numbers.below(3) == 0 || side == Side::Inside {
            carrier.begin(&mut with.decider);
            let is_last = numbers.below(4) > 0 || side == Side::Inside;
            let left = if is_last { 0 } else { waiting.len().min(1) };
            while waiting.len() > left {
                let Some((frame, side, expected)) = waiting.pop_front() else { break };
                let decided = with.decide(side, &[&frame], *now)[0];
                assert_eq!(decided, expected, "{side} {frame:02x?} {}", context(step));
            }
            carrier.end(waiting.is_empty(), *now);
            if waiting.is_empty() {
                for _ in 0..numbers.below(6) {
                    *now = *now + Duration::from_millis(10);
                    carrier.begin(&mut with.decider);
                    carrier.end(true, *now);
                }
                *now = *now + Duration::from_millis(numbers.one_of(&[0, 0, 0, 12, 400, 3_000]));
            }
        }
    }
    for (frame, side, expected) in waiting {
        assert_eq!(with.decide(side, &[&frame], *now)[0], expected);
    }
    let state = |world: &World| (world.counters(), world.contents(*now), world.logged_packets(), world.doors(*now));
    let (without, with_drops) = (state(&without), state(&with));
    assert!(without == with_drops, "{}\n{without:#?}\n{with_drops:#?}", context(0));
    with.generation.trails.end();
    dropped
}

#[test]
fn drops_of_strangers_change_no_verdict_no_counter_and_no_state() {
    let [all, overtaking] = sequences(400 * soak(), compare);
    let counts = format!("the program dropped {all} frames, {overtaking} of them while others waited");
    eprintln!("{counts}");
    assert!(all > 5_000 && overtaking > 1_000, "{counts}");
}
