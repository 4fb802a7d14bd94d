use knockplane_policy::door::Failure;
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::reason::Reason;
use knockplane_policy::rule::{ConnectionState, RuleId};
use knockplane_policy::wire::ListEntry;
use knockplane_policy::wire::source::{IgnoredFor, SourceAttempts, SourceGrant, SourcePorts, SourceQuota};

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A source without any state, at a dataplane with one door.
fn stranger(text: &str) -> SourceReport {
    SourceReport {
        address: address(text),
        protected: None,
        network: None,
        first_steps_by_network: false,
        lists: Vec::new(),
        lists_truncated: false,
        doors: vec![door("ssh", 3)],
        ports: vec![ports(0, false, 0)],
        quota: None,
        connections: Some(SourceConnections::default()),
        matchers: Vec::new(),
        drops: SourceDrops { capacity: 3_584, ..SourceDrops::default() },
        doors_remember: 65_536,
        uptime: seconds(7_200),
    }
}

fn ports(tried: u32, ignored: bool, left: u64) -> SourcePorts {
    let (within, ignore_for) = (seconds(10), seconds(60));
    SourcePorts { vlan: Vlan::NONE, tried, budget: 32, within, ignore_for, ignored, time_left: seconds(left) }
}

fn door(name: &str, steps: u8) -> SourceDoor {
    SourceDoor {
        door: name.to_owned(),
        vlan: Vlan::NONE,
        strict: true,
        steps,
        has_passphrase: false,
        admitted: true,
        progress: None,
        closing: None,
        grants: Vec::new(),
        held_off: None,
        attempts: None,
        ignored: Vec::new(),
        failures: Vec::new(),
    }
}

fn packet(port: u16) -> SourcePacket {
    SourcePacket { side: Side::Outside, vlan: Vlan::NONE, protocol: Some(6), port: Some(port) }
}

fn failure(reason: Failure, times: u64, port: u16) -> SourceFailure {
    SourceFailure { reason, times, last_ago: Duration::from_millis(2_040), packet: packet(port) }
}

fn rule(line: u32, comment: &str) -> RuleRef {
    let number = serde_json::from_str(&format!("\"ip filter {}\"", line.saturating_sub(1))).unwrap();
    RuleRef { id: RuleId("0a1b2c3d".into()), number, line, chain: "input".into(), comment: comment.into() }
}

fn list(name: &str, set: &str, origin: Origin, left: Option<u64>) -> SourceList {
    let entry = ListEntry {
        list: name.into(),
        address: set.parse().unwrap(),
        vlan: Vlan::NONE,
        name: None,
        to: None,
        steps: 0,
        time_left: left.map(seconds),
        dynamic: left.is_some(),
        line: None,
        comment: String::new(),
    };
    SourceList { entry, origin, door: None, added_by: Vec::new(), used_by: vec![rule(4, "")] }
}

fn drop_of(reason: Reason, rule: Option<RuleRef>, packets: u64, port: u16) -> SourceDrop {
    SourceDrop {
        reason,
        rule,
        rule_is_gone: false,
        packets,
        first_ago: seconds(50),
        last_ago: Duration::from_millis(300),
        packet: packet(port),
    }
}

/// A client behind the address of a scanner.
fn behind_a_scanner() -> SourceReport {
    let ssh = SourceDoor {
        ignored: vec![
            IgnoredFor { reason: Failure::Ports, time_left: Some(seconds(41)) },
            IgnoredFor { reason: Failure::HeldOff, time_left: Some(seconds(4)) },
        ],
        held_off: Some(seconds(4)),
        failures: vec![failure(Failure::Ports, 60, 7000), failure(Failure::StartedOver, 17, 80)],
        ..door("ssh", 3)
    };
    let office = SourceDoor {
        has_passphrase: true,
        ignored: vec![
            IgnoredFor { reason: Failure::Ports, time_left: Some(seconds(41)) },
            IgnoredFor { reason: Failure::Attempts, time_left: Some(seconds(12)) },
        ],
        attempts: Some(SourceAttempts { used: 7, limit: 5, per: seconds(60), time_left: seconds(12) }),
        failures: vec![failure(Failure::Evicted, 3, 7000)],
        ..door("office", 2)
    };
    let closed = SourceDoor {
        admitted: false,
        ignored: vec![IgnoredFor { reason: Failure::Source, time_left: None }],
        ..door("lab", 1)
    };
    let mut all = stranger("198.51.100.7");
    all.doors = vec![ssh, office, closed];
    all.ports = vec![ports(33, true, 41)];
    all.quota = Some(SourceQuota { prefix: "198.51.100.0/24".parse().unwrap(), used: 8, limit: 8 });
    all.drops.recent = vec![
        drop_of(Reason::Rule, Some(rule(5, "the rest")), 1_204, 8080),
        drop_of(Reason::ChainDefault, None, 3, 7000),
        SourceDrop { rule_is_gone: true, ..drop_of(Reason::Rule, None, 1, 9) },
        SourceDrop {
            packet: SourcePacket { protocol: None, port: None, ..packet(0) },
            ..drop_of(Reason::Ipv4Malformed, None, 2, 0)
        },
    ];
    all.drops.complete_for = Some(Duration::from_millis(1_500));
    all
}

/// A client that knocks at one door, and is admitted at another one.
fn client() -> SourceReport {
    let progress = |steps, of, next: &str| SourceProgress {
        steps,
        of,
        next: next.into(),
        to: Some(address("203.0.113.5")),
        time_left: Duration::from_millis(4_200),
    };
    let ssh = SourceDoor {
        progress: Some(progress(2, 3, "udp/4321 with its passphrase")),
        attempts: Some(SourceAttempts { used: 1, limit: 5, per: seconds(60), time_left: seconds(50) }),
        ..door("ssh", 3)
    };
    let office = SourceDoor {
        grants: vec![
            SourceGrant { to: Some(address("203.0.113.5")), time_left: Some(seconds(1_790)) },
            SourceGrant { to: None, time_left: None },
        ],
        closing: Some(progress(1, 2, "udp/4322")),
        ..door("office", 2)
    };
    let connection = |port, state, door: Option<&str>| SourceConnection {
        vlan: Vlan::NONE,
        protocol: 6,
        from: (address("198.51.100.7"), port),
        to: (address("203.0.113.5"), 22),
        state,
        closed: false,
        fasttracked: false,
        door: door.map(str::to_owned),
        bytes: 1_000,
        time_left: seconds(86_400),
    };
    let mut client = stranger("198.51.100.7");
    client.doors = vec![ssh, office];
    client.ports = vec![ports(5, false, 8)];
    client.lists = vec![
        SourceList { door: Some("office".into()), ..list("door-office", "198.51.100.7", Origin::Door, Some(1_790)) },
        SourceList {
            added_by: vec![rule(2, ""), rule(3, "")],
            ..list("knock1", "198.51.100.7", Origin::Packet, Some(9))
        },
        list("trusted", "198.51.100.0/24", Origin::Operator, None),
    ];
    client.lists[2].entry.comment = "the branch office".into();
    client.connections = Some(SourceConnections {
        count: 1_200,
        oldest: vec![connection(40_000, ConnectionState::Established, Some("office"))],
        newest: vec![SourceConnection { closed: true, ..connection(40_001, ConnectionState::New, None) }],
    });
    let matcher = |memory| SourceMatcher { rule: rule(7, ""), memory };
    client.matchers = vec![
        matcher(MatcherMemory::Psd { weight: 9, threshold: 21, time_left: seconds(3) }),
        matcher(MatcherMemory::DstLimit { tokens: 3, burst: 5, time_left: seconds(60) }),
        matcher(MatcherMemory::ConnectionLimit { connections: 12, limit: 10, prefix_length: 24 }),
    ];
    client.drops.watch = Some(SourceWatch {
        since: seconds(30),
        time_left: Duration::ZERO,
        drops: vec![drop_of(Reason::ChainDefault, None, 12, 22)],
        failures: vec![DoorFailure { door: "ssh".into(), failure: failure(Failure::StartedOver, 1, 80) }],
        truncated: false,
    });
    client
}

/// The output, after a check that no line is too long for a terminal.
fn shown(source: &SourceReport) -> String {
    let text = text(source);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    text
}

#[test]
fn what_keeps_a_source_out_is_said_with_the_remedy() {
    insta::assert_snapshot!(shown(&behind_a_scanner()));
}

#[test]
fn progress_grants_lists_and_connections_are_shown() {
    insta::assert_snapshot!(shown(&client()));
}

#[test]
fn a_source_that_nothing_is_known_of_begins_at_step_1() {
    insta::assert_snapshot!(shown(&stranger("198.51.100.7")));
}

#[test]
fn an_ipv6_address_is_told_with_its_network_and_a_protected_one_as_such() {
    let network = "2001:db8:1:2::/64".parse().ok();
    let protected = "2001:db8:1::/48".parse().ok();
    let v6 = SourceReport { network, protected, first_steps_by_network: true, ..stranger("2001:db8:1:2:3:4:5:6") };
    insta::assert_snapshot!(shown(&v6));
}

#[test]
fn steps_that_failed_long_ago_or_before_the_door_opened_keep_nobody_out() {
    let failed = |grants, last_ago| {
        let failures = vec![SourceFailure { last_ago, ..failure(Failure::StartedOver, 1, 80) }];
        let source =
            SourceReport { doors: vec![SourceDoor { grants, failures, ..door("ssh", 3) }], ..stranger("192.0.2.1") };
        findings(&source).len()
    };
    let grant = || vec![SourceGrant { to: None, time_left: None }];
    assert_eq!(
        (failed(Vec::new(), seconds(600)), failed(Vec::new(), seconds(601)), failed(grant(), seconds(1))),
        (1, 0, 0)
    );
}

#[test]
fn what_is_cut_says_so() {
    let mut cut = client();
    (cut.lists_truncated, cut.drops.truncated) = (true, true);
    if let Some(watch) = &mut cut.drops.watch {
        (watch.time_left, watch.truncated) = (seconds(12), true);
    }
    let text = shown(&cut);
    for part in ["there are more; --limit", "there are more reasons; --limit", "12s are left", "some are missing"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn json_names_times_ends_and_what_is_not_known() {
    for (name, source) in [("scanner", behind_a_scanner()), ("client", client()), ("stranger", stranger("2001:db8::1"))]
    {
        let document = crate::json::Document::new(crate::json::source::SourceJson::from(source));
        let text = serde_json::to_string_pretty(&document).unwrap();
        crate::json::schema::assert_valid("explain-source", &text);
        insta::assert_snapshot!(format!("json_{name}"), text);
    }
}

#[test]
fn the_answer_is_the_same_over_json() {
    for source in [behind_a_scanner(), client(), stranger("2001:db8::1")] {
        let json = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<SourceReport>(&json).unwrap(), source, "{json}");
    }
}
