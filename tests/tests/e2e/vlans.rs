//! VLANs and PPPoE sessions as separate networks, with real clients: the same addresses in each.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use knockplane_tests::{CLIENT, Filter, FilterOptions, Folder, Topology};
use serde_json::Value;

use crate::doors::{goes_on, session};
use crate::end::End;
use crate::scenario::{eventually, knock, ping, serve_tcp, tcp_echo, with};
use crate::tags::{CUSTOMER, PROVIDER, SESSION, Tag, both_speak_in_vlans, both_use_session};

const PORT: u16 = 8080;
const KNOCK: &str = "7000:tcp 4321:udp 1234:tcp";

const TEN: &[Tag] = &[(CUSTOMER, 10)];
const TWENTY: &[Tag] = &[(CUSTOMER, 20)];
const TEN_TWENTY: &[Tag] = &[(PROVIDER, 10), (CUSTOMER, 20)];

/// A door that stays open for the test, and these sections.
fn door(sections: &str) -> FilterOptions {
    let door = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080", "icmp"]
for = "1h"
"#;
    FilterOptions { sections: format!("{door}{sections}"), ..FilterOptions::from_rules("/ip firewall filter\n") }
}

fn folder(topology: &Topology) -> Folder {
    Folder::make(&format!("{}-tags", topology.filter.name())).expect("a folder")
}

/// The VLAN of each grant of the door; empty without one.
fn open_in(filter: &Filter<'_>) -> Vec<String> {
    let doors = filter.ask(&["show", "doors"]).expect("doors are shown");
    let vlan = |visitor: &Value| {
        assert_eq!(visitor["address"], CLIENT);
        visitor["vlan"].as_str().unwrap_or_default().to_owned()
    };
    let mut vlans: Vec<String> = doors["open"].as_array().expect("visitors").iter().map(vlan).collect();
    vlans.sort();
    vlans
}

/// Whether the session's peer answers within a second.
fn answers(session: &mut TcpStream) -> bool {
    session.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    session.write_all(b"still here").expect("sent");
    session.read_exact(&mut [0; 10]).is_ok()
}

#[test]
fn a_knock_in_one_vlan_opens_no_other_and_a_session_stays_in_its_own() {
    with(&door(""), |topology, filter| {
        let folder = folder(topology);
        let speak_in = |tags| both_speak_in_vlans(topology, tags, &folder.0);
        serve_tcp(topology, PORT);
        speak_in(TEN);
        assert!(!tcp_echo(topology, PORT));
        knock(topology, KNOCK);
        eventually("the door opens", || open_in(filter) == ["10"]);
        let mut session = session(topology, PORT);
        for (tags, name) in [(TWENTY, "20"), (TEN_TWENTY, "10/20"), (&[], "")] {
            speak_in(tags);
            assert!(!tcp_echo(topology, PORT), "the knock was in VLAN 10, and `{name}` is open");
        }
        speak_in(TWENTY);
        assert!(!answers(&mut session), "a session of VLAN 10 goes on in VLAN 20");
        for (tags, open) in [(TWENTY, &["10", "20"][..]), (TEN_TWENTY, &["10", "10/20", "20"])] {
            speak_in(tags);
            knock(topology, KNOCK);
            eventually("the door opens here too", || open_in(filter) == open);
            assert!(tcp_echo(topology, PORT));
        }
        // The client retransmits data of the other VLAN in the session's own VLAN.
        speak_in(TEN);
        session.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        session.read_exact(&mut [0; 10]).expect("the session goes on in its own VLAN");

        let source = filter.ask(&["explain-source", CLIENT]).expect("the source is explained");
        let mut doors: Vec<String> = source["doors"]
            .as_array()
            .expect("doors")
            .iter()
            .filter(|door| !door["grants"].as_array().expect("grants").is_empty())
            .map(|door| door["vlan"].as_str().unwrap_or_default().to_owned())
            .collect();
        doors.sort();
        assert_eq!(doors, ["10", "10/20", "20"]);
        let log = filter.log();
        for vlan in ["10", "20", "10/20"] {
            let told = |line: &&str| line.contains("door opened") && line.contains(&format!("vlan=\"{vlan}\""));
            assert_eq!(log.lines().filter(told).count(), 1, "VLAN {vlan} in:\n{log}");
        }
    });
}

#[test]
fn with_shared_vlans_a_knock_opens_all() {
    with(&door("[policy]\nvlans = \"shared\"\n"), |topology, filter| {
        let folder = folder(topology);
        serve_tcp(topology, PORT);
        both_speak_in_vlans(topology, TEN, &folder.0);
        knock(topology, KNOCK);
        eventually("the door opens", || open_in(filter) == [""]);
        for tags in [TWENTY, TEN_TWENTY] {
            both_speak_in_vlans(topology, tags, &folder.0);
            assert!(tcp_echo(topology, PORT), "{tags:?}");
        }
    });
}

#[test]
fn a_knock_in_a_pppoe_session_opens_it_and_control_passes_by_its_class() {
    with(&door("[policy.frames]\npppoe = { outside = \"accept\", inside = \"drop\" }\n"), |topology, filter| {
        let folder = folder(topology);
        serve_tcp(topology, PORT);
        knock(topology, KNOCK);
        eventually("the door opens without a session", || open_in(filter) == [""]);
        assert!(tcp_echo(topology, PORT));

        both_use_session(topology, &folder.0);
        assert!(!tcp_echo(topology, PORT), "the knock was in no session");
        knock(topology, KNOCK);
        eventually("the door opens in the session", || {
            let doors = filter.ask(&["show", "doors"]).expect("doors are shown");
            let visitors = doors["open"].as_array().expect("visitors");
            visitors.iter().any(|visitor| visitor["pppoe"] == SESSION)
        });
        assert!(tcp_echo(topology, PORT));
        goes_on(&mut session(topology, PORT));
        // The longest packet that fits a session.
        assert!(ping(topology, "-M do -s 1464"), "a packet of 1,492 bytes");
        let malformed = ["pppoe-malformed", "ppp-unreadable", "ipv4-malformed", "frame-too-long"];
        for reason in malformed {
            assert_eq!(counted(filter, "drop", reason), 0.0, "{reason}: real hosts send no such thing");
        }

        // An LCP echo request from outside passes; from inside the class is dropped; compressed data is always dropped.
        let frame = |protocol: u16| {
            let words =
                [0x8864_u16, 0x1100, SESSION, 10, protocol, 0x0901, 0x0008, 0, 0].map(u16::to_be_bytes).concat();
            [&[2; 12][..], &words].concat()
        };
        let [outside, inside] =
            [&topology.client, &topology.server].map(|host| End::open(host).expect("an end of the wire"));
        outside.send(&frame(0xc021)).expect("sent");
        outside.send(&frame(0x00fd)).expect("sent");
        inside.send(&frame(0xc021)).expect("sent");
        eventually("all are decided", || {
            let counts = [("forward", "pppoe"), ("drop", "pppoe"), ("drop", "ppp-unreadable")];
            counts.map(|(verdict, reason)| counted(filter, verdict, reason)) == [1.0; 3]
        });
    });
}

fn counted(filter: &Filter<'_>, verdict: &str, reason: &str) -> f64 {
    let labels = [&*format!("verdict=\"{verdict}\""), &*format!("reason=\"{reason}\"")];
    filter.metric("knockplane_packets_total", &labels).expect("a counter")
}
