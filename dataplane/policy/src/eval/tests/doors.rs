//! Packets that open a door, packets that do not, and connections after a door closes.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::cases::cases;
use crate::door::tests::doors;
use crate::door::{self, Event, Failure, What};
use crate::eval::ListedAddress;
use crate::packet::Vlan;
use crate::reason::{Reason, Verdict};

const OTHER: &str = "203.0.113.2";
/// A knock of three steps, which no port scan meets in this order.
const SSH: &str = r#""name":"ssh","knock":["tcp/7000","udp/4321","tcp/1234"],"opens":["tcp/22"]"#;

/// Doors with these keys, and no other rule that accepts packets.
fn with(json: &[&str]) -> (RuleSet, Settings) {
    let settings = Settings { doors: doors(&format!("[{{{}}}]", json.join("},{"))), ..Settings::default() };
    (door::rules(&settings, RuleSet::default()), settings)
}

/// A packet from this source port. A TCP packet is a SYN.
fn packet(from: (&str, u16), step: &str, to: &str) -> Vec<u8> {
    let (protocol, port) = step.split_once('/').unwrap_or((step, "0"));
    let port = port.parse().unwrap();
    match protocol {
        "tcp" => tcp(from, (to, port), "S", (1, 0), b""),
        "udp" => udp(from, (to, port), b"\0"),
        _ => echo(from.0, to, if to.contains(':') { 128 } else { 8 }, 1),
    }
}

/// A knock client. Each packet advances the time by a tenth of a second and has a different source port.
struct Knocker<'r> {
    evaluator: Evaluator<'r>,
    now: u64,
    port: u16,
}

impl<'r> Knocker<'r> {
    fn at((rules, settings): &'r (RuleSet, Settings)) -> Self {
        Knocker { evaluator: Evaluator::new(rules, settings, 1), now: 0, port: 40_000 }
    }

    fn send_from(&mut self, from: &str, step: &str, to: &str) -> Evaluation {
        self.now += 100;
        self.port += 1;
        self.evaluator.outside(&packet((from, self.port), step, to), ms(self.now))
    }

    fn send(&mut self, step: &str) -> Vec<What> {
        let told = self.send_from(CLIENT, step, SERVER).doors;
        told.into_iter().map(|event| event.what).collect()
    }

    fn knock(&mut self, steps: &[&str]) -> Option<What> {
        steps.iter().flat_map(|step| self.send(step)).last()
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now += seconds * 1_000;
        self
    }

    /// Whether a connection to the port is accepted.
    fn gets_in(&mut self, step: &str) -> bool {
        self.send_from(CLIENT, step, SERVER).verdict == Verdict::Forward
    }
}

const KNOCK: [&str; 3] = ["tcp/7000", "udp/4321", "tcp/1234"];

#[test]
fn the_knock_opens_the_openings_for_its_source_and_destination() {
    let firewall = with(&[SSH]);
    let mut knocker = Knocker::at(&firewall);
    assert!(!knocker.gets_in("tcp/22"));
    assert_eq!(knocker.send("tcp/7000"), [What::Stepped(1)]);
    assert_eq!(knocker.send("udp/4321"), [What::Stepped(2)]);
    let opened = knocker.send_from(CLIENT, "tcp/1234", SERVER);
    let (source, destination) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
    assert_eq!(opened.doors, [Event { door: "ssh".to_owned(), source, destination, what: What::Opened }]);
    assert_eq!((opened.verdict, opened.reason), (Verdict::Drop, Reason::ChainDefault));
    assert!(knocker.gets_in("tcp/22") && !knocker.gets_in("tcp/23") && !knocker.gets_in("udp/22"));
    assert_eq!(knocker.send_from("198.51.100.8", "tcp/22", SERVER).verdict, Verdict::Drop);
    assert_eq!(knocker.send_from(CLIENT, "tcp/22", OTHER).verdict, Verdict::Drop, "another address");
    assert!(knocker.wait(3_590).gets_in("tcp/22") && !knocker.wait(10).gets_in("tcp/22"));
}

#[test]
fn an_entry_of_a_dataplane_counts_for_its_peer() {
    let firewall = with(&[SSH]);
    let mut knocker = Knocker::at(&firewall);
    let time_left = Some(Duration::from_secs(9));
    let put = |knocker: &mut Knocker<'_>, list, to: &str, steps, now| {
        let client = (Vlan::NONE, CLIENT.parse().unwrap());
        knocker.evaluator.put_for(list, client, to.parse().unwrap(), steps, time_left, ms(now));
    };
    put(&mut knocker, "door-ssh", OTHER, 0, 0);
    put(&mut knocker, "door-ssh", "::", 0, 0);
    assert!(!knocker.gets_in("tcp/22"));
    assert_eq!(knocker.send_from(CLIENT, "tcp/22", OTHER).verdict, Verdict::Forward);
    put(&mut knocker, "door-ssh-knocking", SERVER, 2, 300);
    assert_eq!(knocker.send("tcp/1234"), [What::Opened], "one step was left");
    assert!(knocker.wait(10).gets_in("tcp/22"));
    assert_eq!(knocker.send_from(CLIENT, "tcp/22", OTHER).verdict, Verdict::Drop, "its time has expired");
}

#[test]
fn a_door_without_openings_opens_everything_at_the_address() {
    let firewall = with(&[r#""name":"all","knock":["icmp"]"#]);
    let mut knocker = Knocker::at(&firewall);
    assert!(!knocker.gets_in("udp/53"));
    assert_eq!(knocker.send("icmp"), [What::Opened]);
    assert!(knocker.gets_in("udp/53") && knocker.gets_in("tcp/1") && knocker.gets_in("icmp"));
}

#[test]
fn ipv6_behaves_like_ipv4() {
    let firewall = with(&[r#""name":"a","knock":["udp/9","icmp"],"opens":["icmp"]"#]);
    let mut knocker = Knocker::at(&firewall);
    for (step, verdict) in [("icmp", Verdict::Drop), ("udp/9", Verdict::Drop), ("icmp", Verdict::Forward)] {
        assert_eq!(knocker.send_from(CLIENT6, step, SERVER6).verdict, verdict);
    }
    assert_eq!(knocker.send_from(CLIENT6, "icmp", "2001:db8:ff::2").verdict, Verdict::Drop);
}

#[test]
fn an_established_connection_outlives_the_grant_unless_it_is_cut() {
    for cut in [false, true] {
        let (_, settings) = with(&[&format!(r#"{SSH},"for":"10s","cut":{cut}"#)]);
        // The usual rule for established connections does not keep a cut connection.
        let file = b"/ip firewall filter\nadd chain=input connection-state=established,related action=accept\n";
        let firewall = (door::rules(&settings, crate::rsc::read(file).rules), settings);
        let mut knocker = Knocker::at(&firewall);
        assert_eq!(knocker.knock(&KNOCK), Some(What::Opened));
        let (client, server) = ((CLIENT, 50_000), (SERVER, 22));
        let Knocker { evaluator, now, .. } = &mut knocker;
        let at = |later: u64| ms(*now + later);
        assert_eq!(evaluator.outside(&tcp(client, server, "S", (1, 0), b""), at(1)).verdict, Verdict::Forward);
        // A retransmission: it belongs to the door's connection and is not a new packet.
        assert_eq!(evaluator.outside(&tcp(client, server, "S", (1, 0), b""), at(2)).doors, []);
        assert_eq!(evaluator.inside(&tcp(server, client, "SA", (1, 2), b""), at(3)).reason, Reason::Rule);
        let data = tcp(client, server, "A", (2, 2), b"a");
        assert_eq!(evaluator.outside(&data, at(4)).verdict, Verdict::Forward);
        let kept = if cut { Verdict::Drop } else { Verdict::Forward };
        assert_eq!(evaluator.outside(&data, at(11_000)).verdict, kept, "cut: {cut}");
        // The client begins the connection again.
        let again = tcp(client, server, "S", (900, 0), b"");
        assert_eq!(evaluator.outside(&again, at(11_000)).verdict, kept, "cut: {cut}");
        let answer = evaluator.inside(&tcp(server, client, "A", (2, 3), b"a"), at(11_000));
        assert_eq!((answer.verdict, answer.reason), (kept, Reason::Rule));
        assert_eq!(
            evaluator.outside(&tcp((CLIENT, 50_001), server, "S", (1, 0), b""), at(11_001)).verdict,
            Verdict::Drop
        );
    }
}

#[test]
fn scans_open_nothing() {
    let firewall = with(&[r#""name":"a","knock":["tcp/10","tcp/20","tcp/30"]"#]);
    let opened = |ports: Vec<u16>| {
        let (rules, settings) = &firewall;
        let settings =
            Settings { port_budget: door::ports::PortBudget { ports: 0, ..settings.port_budget }, ..settings.clone() };
        let mut evaluator = Evaluator::new(rules, &settings, 1);
        ports.into_iter().any(|port| {
            let told = evaluator.outside(&packet((CLIENT, 50_000), &format!("tcp/{port}"), SERVER), ms(1)).doors;
            told.iter().any(|event| event.what == What::Opened)
        })
    };
    assert!(!opened((1..=1_000).collect()) && !opened((1..=1_000).rev().collect()), "also in the door's own order");
    // A generator of all ports up to 256, in a different order for each seed.
    for seed in 0..50_u16 {
        assert!(!opened((0..256_u16).map(|place| (place * (2 * seed + 1) + seed) % 256).collect()));
    }
    assert!(opened(vec![10, 20, 30]));
}

#[test]
fn packets_to_open_ports_restart_no_knock() {
    let firewall = with(&[
        r#""name":"a","knock":["tcp/7000","udp/4321","tcp/1234"],"opens":["tcp/22","udp/60000-61000"]"#,
        r#""name":"b","knock":["udp/1"],"opens":["tcp/443"]"#,
        r#""name":"all","knock":["udp/2"],"sources":["198.51.100.0/24"]"#,
    ]);
    let knock_around = |knocker: &mut Knocker<'_>, other: &str| {
        let steps = ["tcp/7000", other, other, "udp/4321", other, "tcp/1234"];
        steps.iter().flat_map(|step| knocker.send(step)).any(|what| what == What::Opened)
    };
    for exempt in ["tcp/22", "udp/60001", "udp/61000"] {
        assert!(knock_around(&mut Knocker::at(&firewall), exempt), "{exempt}");
    }
    for other in ["tcp/443", "udp/22", "udp/61001", "icmp"] {
        assert!(!knock_around(&mut Knocker::at(&firewall), other), "{other}");
    }
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.send("udp/1"), [What::Opened]);
    assert!(knock_around(&mut knocker, "tcp/443"), "it is open");
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.send("udp/2"), [What::Opened]);
    assert!(!knock_around(&mut knocker, "udp/61001"), "a grant of one door does not help to scan another one");
    // A port that another door opens is still a step.
    let firewall = with(&[r#""name":"a","knock":["tcp/7","tcp/22","tcp/9"],"opens":["tcp/22"]"#]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&["tcp/7", "tcp/22", "tcp/9"]), Some(What::Opened));
}

#[test]
fn an_open_door_without_openings_accepts_a_knock_between_other_packets() {
    let firewall = with(&[r#""name":"a","knock":["tcp/7","tcp/5"],"for":"10s""#]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&["tcp/7", "tcp/6", "tcp/5"]), Some(What::Failed(Failure::StartedOver)));
    assert_eq!(knocker.knock(&["tcp/7", "tcp/5"]), Some(What::Opened));
    assert_eq!(knocker.knock(&["tcp/7", "tcp/6", "tcp/5"]), Some(What::Opened));
    assert_eq!(knocker.wait(10).knock(&["tcp/7", "tcp/6", "tcp/5"]), Some(What::Failed(Failure::StartedOver)));
}

#[test]
fn doors_with_the_same_first_steps_progress_side_by_side() {
    let firewall = with(&[
        r#""name":"a","knock":["tcp/1","tcp/2","tcp/3"]"#,
        r#""name":"b","knock":["tcp/1","tcp/2","tcp/4"],"opens":["udp/9"]"#,
    ]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.send("tcp/1"), [What::Stepped(1), What::Stepped(1)]);
    assert_eq!(knocker.send("tcp/2"), [What::Stepped(2), What::Stepped(2)]);
    assert_eq!(knocker.send("tcp/4"), [What::Failed(Failure::StartedOver), What::Opened]);
    assert!(knocker.gets_in("udp/9") && !knocker.gets_in("tcp/9"));
}

#[test]
fn progress_belongs_to_one_source() {
    let firewall = with(&[SSH]);
    let mut knocker = Knocker::at(&firewall);
    for step in KNOCK {
        for from in [CLIENT, "198.51.100.8"] {
            assert!(knocker.send_from(from, step, SERVER).doors.iter().all(|it| !matches!(it.what, What::Failed(_))));
        }
        // In between, a source that does not know the knock sends packets.
        knocker.send_from("198.51.100.9", "tcp/80", SERVER);
    }
    assert!(knocker.gets_in("tcp/22"));
}

#[test]
fn packets_of_known_connections_restart_no_knock() {
    let file = "/ip firewall filter\nadd chain=input protocol=udp dst-port=53 action=accept\n";
    let settings = Settings { doors: doors(&format!("[{{{SSH}}}]")), ..Settings::default() };
    let firewall = (door::rules(&settings, crate::rsc::read(file.as_bytes()).rules), settings);
    let mut knocker = Knocker::at(&firewall);
    let (client, server) = ((CLIENT, 30_000), (SERVER, 53));
    let flow = |knocker: &mut Knocker<'_>| knocker.evaluator.outside(&udp(client, server, b"q"), ms(knocker.now));
    assert_eq!(flow(&mut knocker).verdict, Verdict::Forward);
    knocker.evaluator.inside(&udp(server, client, b"a"), ms(1));
    for step in KNOCK {
        knocker.send(step);
        assert_eq!(flow(&mut knocker).doors, [], "of an established connection");
        knocker.evaluator.inside(&tcp((SERVER, 7_000), (CLIENT, knocker.port), "RA", (1, 2), b""), ms(knocker.now));
    }
    assert!(knocker.gets_in("tcp/22"));
}

#[test]
fn the_closing_knock_closes_for_its_source_alone_and_is_never_strict() {
    let firewall = with(&[&format!(r#"{SSH},"close":["udp/1","udp/2"]"#)]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&["udp/1", "udp/2"]), None, "there is nothing to close");
    assert_eq!(knocker.knock(&KNOCK), Some(What::Opened));
    for step in KNOCK {
        knocker.send_from("198.51.100.8", step, SERVER);
    }
    assert_eq!(knocker.knock(&["udp/1", "tcp/99", "udp/2"]), Some(What::Closed));
    assert!(!knocker.gets_in("tcp/22"));
    assert_eq!(knocker.send_from("198.51.100.8", "tcp/22", SERVER).verdict, Verdict::Forward);
}

#[test]
fn the_same_knock_may_open_and_close() {
    let knock = r#"["udp/1","udp/2"]"#;
    let firewall = with(&[&format!(r#""name":"a","knock":{knock},"close":{knock},"hold-off":"5s""#)]);
    let mut knocker = Knocker::at(&firewall);
    for what in [What::Opened, What::Closed, What::Opened, What::Closed] {
        assert_eq!(knocker.knock(&["udp/1", "udp/2"]), Some(what));
        if what == What::Opened {
            // Retransmissions close no door.
            assert!(knocker.send("udp/2").iter().all(|what| *what == What::Failed(Failure::HeldOff)));
            knocker.wait(5);
        }
    }
    // A retransmission of the last packet does not open the door again.
    assert_eq!(knocker.send("udp/2"), []);
}

#[test]
fn hold_off_ignores_knocks_after_one_that_opened() {
    let firewall = with(&[&format!(r#"{SSH},"hold-off":"1m""#)]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&KNOCK), Some(What::Opened));
    assert_eq!(knocker.send("tcp/7000"), [What::Failed(Failure::HeldOff)]);
    assert!(knocker.gets_in("tcp/22"));
    assert_eq!(knocker.wait(60).knock(&KNOCK), Some(What::Opened));
}

#[test]
fn attempts_beyond_the_limit_are_ignored_and_a_knock_in_progress_continues() {
    let firewall = with(&[&format!(r#"{SSH},"max-attempts":"2/1m""#)]);
    let mut knocker = Knocker::at(&firewall);
    let over = What::Failed(Failure::StartedOver);
    assert_eq!((knocker.send("tcp/7000"), knocker.send("tcp/9")), (vec![What::Stepped(1)], vec![over]));
    assert_eq!(knocker.send("tcp/7000"), [What::Stepped(1)]);
    assert_eq!(knocker.send("udp/4321"), [What::Stepped(2)]);
    assert_eq!(knocker.send("tcp/1234"), [What::Opened]);
    assert_eq!(knocker.send("tcp/7000"), [What::Failed(Failure::Attempts)]);
    assert!(knocker.gets_in("tcp/22"));
    assert_eq!(knocker.wait(60).send("tcp/7000"), [What::Stepped(1)]);
}

#[test]
fn only_permitted_sources_can_knock() {
    let firewall = with(&[&format!(r#"{SSH},"sources":["198.51.100.8"]"#)]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&KNOCK), Some(What::Failed(Failure::Source)));
    assert!(!knocker.gets_in("tcp/22"));
}

#[test]
fn too_many_ports_ignore_knocks_and_keep_the_grant() {
    let firewall = with(&[SSH]);
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&KNOCK), Some(What::Opened));
    for port in 100..160 {
        knocker.now -= 100;
        knocker.send(&format!("udp/{port}"));
    }
    assert_eq!(knocker.send("tcp/7000"), [What::Failed(Failure::Ports)]);
    assert!(knocker.gets_in("tcp/22"));
    assert_eq!(knocker.wait(61).knock(&KNOCK), Some(What::Opened));
}

#[test]
fn lists_contain_knocks_and_grants_and_rules_may_match_them() {
    let file = "/ip firewall filter\nadd chain=input src-address-list=door-ssh action=log\n";
    let settings = Settings { doors: doors(&format!("[{{{SSH}}}]")), ..Settings::default() };
    let firewall = (door::rules(&settings, crate::rsc::read(file.as_bytes()).rules), settings);
    let last = firewall.0.rules.len() - 1;
    let mut knocker = Knocker::at(&firewall);
    let listed = |knocker: &Knocker<'_>| knocker.evaluator.listed(ms(knocker.now));
    let client: IpAddr = CLIENT.parse().unwrap();
    let entry = |list: &str, seconds| ListedAddress {
        list: list.to_owned(),
        address: client,
        vlan: Vlan::NONE,
        time_left: Some(Duration::from_secs(seconds)),
    };
    knocker.send("tcp/7000");
    assert_eq!(listed(&knocker), [entry("door-ssh-knocking", 10)]);
    knocker.knock(&KNOCK[1..]);
    assert_eq!(listed(&knocker), [entry("door-ssh", 3_600)]);
    assert!(knocker.send_from(CLIENT, "tcp/80", SERVER).matched.contains(&last));
    assert!(!knocker.send_from(CLIENT, "tcp/80", OTHER).matched.contains(&last));
    // An entry of an operator counts for every destination.
    knocker.evaluator.lists_mut().add("door-ssh", client, ListTimeout::NoneDynamic, ms(0));
    assert_eq!(knocker.send_from(CLIENT, "tcp/22", OTHER).verdict, Verdict::Forward);
}

#[test]
fn without_tracking_every_packet_may_be_a_knock() {
    let mut firewall = with(&[SSH]);
    firewall.0.rules.push(raw("prerouting", vec![], Action::Notrack));
    let mut knocker = Knocker::at(&firewall);
    assert_eq!(knocker.knock(&KNOCK), Some(What::Opened));
    assert!(knocker.gets_in("tcp/22"));
}

#[test]
fn an_explanation_shows_the_effect_of_a_packet_at_a_door() {
    let firewall = with(&[SSH]);
    let mut evaluator = Evaluator::new(&firewall.0, &firewall.1, 1);
    let mut effects = |step: &str| -> Vec<String> {
        let frame = packet((CLIENT, 40_000), step, SERVER);
        let tried = evaluator.explain(&view(Side::Outside, &frame), ms(0)).tried.into_iter();
        tried
            .filter_map(|tried| match tried.outcome {
                super::super::Outcome::Matched { effect } => effect,
                _ => None,
            })
            .collect()
    };
    assert_eq!(effects("tcp/7000"), ["step 1 of door ssh"]);
    assert_eq!(effects("tcp/7000"), ["a repeated step of door ssh"]);
    assert_eq!(effects("tcp/80"), ["restarts the knock at door ssh"]);
    assert_eq!((effects("tcp/7000").len(), effects("udp/4321").len()), (1, 1));
    assert_eq!(effects("tcp/7000"), ["a repeated step of door ssh"]);
    assert_eq!(effects("tcp/1234"), ["door ssh opened for 1h"]);
    assert_eq!(effects("tcp/22"), ["the connection belongs to door ssh"]);
}

proptest! {
    #![proptest_config(cases(200))]

    /// Checks that a source with a grant of a strict door has sent the door's knock as its last packets, apart from
    /// repeated steps.
    #[test]
    fn a_strict_door_opens_only_to_its_knock(
        knock in prop::collection::vec(1_u16..5, 1..5),
        sent in prop::collection::vec((1_u16..6, select(vec![SERVER, OTHER])), 0..40),
    ) {
        let steps: Vec<_> = knock.iter().map(|port| format!("\"udp/{port}\"")).collect();
        let firewall = with(&[&format!(r#""name":"a","knock":[{}],"opens":["tcp/9"]"#, steps.join(","))]);
        let mut knocker = Knocker::at(&firewall);
        for (place, (port, to)) in sent.iter().enumerate() {
            let told = knocker.send_from(CLIENT, &format!("udp/{port}"), to).doors;
            if !told.iter().any(|event| event.what == What::Opened) {
                continue;
            }
            // From the last packet backwards, every packet is the expected step or one of the two steps before it.
            let mut left = knock.len();
            for (port, other) in sent[..=place].iter().rev() {
                prop_assert_eq!(other, to);
                if left > 0 && knock[left - 1] == *port {
                    left -= 1;
                } else {
                    prop_assert!(knock[left.saturating_sub(2)..].contains(port), "{:?} {:?}", knock, sent);
                }
                if left == 0 {
                    break;
                }
            }
            prop_assert_eq!(left, 0);
        }
    }
}
