mod forged;

use super::*;
use crate::eval::Evaluator;
use crate::eval::tests::*;
use crate::packet::Side;
use crate::packet::Vlan;
use crate::rule::{Matcher, Rule};
use crate::settings::Settings;
use ConnectionState::{Established, Invalid, New, Related, Untracked};

/// The tracker without rules.
struct Wire<'r> {
    tracker: Tracker<'r>,
    now: u64,
    /// The next numbers of client and server.
    next: [u32; 2],
}

const CLIENT_ISN: u32 = 1_000;
/// An initial sequence number close to 2³².
const SERVER_ISN: u32 = u32::MAX - 1;

impl<'r> Wire<'r> {
    fn new(settings: &'r Tracking) -> Wire<'r> {
        Wire { tracker: Tracker::new(settings), now: 0, next: [CLIENT_ISN, SERVER_ISN] }
    }

    fn sees(&mut self, frame: &[u8]) -> ConnectionState {
        self.sees_from(Side::Outside, frame)
    }

    fn sees_from(&mut self, side: Side, frame: &[u8]) -> ConnectionState {
        let state = self.tracker.observe(&view(side, frame), Vlan::NONE, ms(self.now)).state;
        for tcp in self.tracker.flows.values().filter_map(|flow| flow.tcp) {
            let (packed, remembered) = tcp.pack();
            assert_eq!(packed.flags >> PackedTcp::FLAG_BITS, 0);
            assert_eq!(TcpConnection::unpack(&packed, || remembered), tcp);
        }
        state
    }

    /// Segments of one connection, each by its flags: lower-case ones come from the server. Numbers continue.
    fn talk(&mut self, segments: &[&str]) -> Vec<ConnectionState> {
        segments.iter().map(|flags| self.say(flags)).collect()
    }

    fn say(&mut self, flags: &str) -> ConnectionState {
        let from = usize::from(flags.chars().any(char::is_lowercase));
        let flags = flags.to_uppercase();
        if flags.contains('S') {
            self.next[from] = [CLIENT_ISN, SERVER_ISN][from];
        }
        let numbers = (self.next[from], if flags.contains('A') { self.next[1 - from] } else { 0 });
        if flags.contains(['S', 'F']) {
            self.next[from] = self.next[from].wrapping_add(1);
        }
        self.sees_from([Side::Outside, Side::Inside][from], &segment(from, &flags, numbers))
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
    }
}

/// A segment from the client (0) or the server (1).
fn segment(from: usize, flags: &str, numbers: (u32, u32)) -> Vec<u8> {
    let ends = [(CLIENT, 40_000), (SERVER, 22)];
    tcp(ends[from], ends[1 - from], flags, numbers, b"")
}

fn there() -> Vec<u8> {
    udp((CLIENT, 40_000), (SERVER, 53), b"?")
}

fn back() -> Vec<u8> {
    udp((SERVER, 53), (CLIENT, 40_000), b"!")
}

#[test]
fn tracking_is_on_if_a_rule_that_runs_needs_it() {
    let needs = |condition: Condition| rules(vec![rule(vec![condition], Action::Accept)]);
    let limit = Condition::ConnectionLimit { count: 1, prefix_length: 32 };
    let mut set = needs(limit);
    assert!(is_needed(&set));
    set.rules[0].disabled = true;
    assert!(!is_needed(&set));
    set.tracking.enabled = TrackingMode::Yes;
    assert!(is_needed(&set));
    set.rules[0].disabled = false;
    set.tracking.enabled = TrackingMode::No;
    assert!(!is_needed(&set));
    assert!(is_needed(&needs(Condition::TlsHost("*".to_owned()))));
    assert!(is_needed(&rules(vec![rule(vec![], Action::FasttrackConnection)])));
    assert!(!is_needed(&needs(Condition::Layer7("knock".to_owned()))));
    assert!(!is_needed(&needs(Condition::ConnectionNatState(crate::word::Set::EMPTY))));
}

#[test]
fn udp_is_new_until_it_is_seen_both_ways() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    assert_eq!(
        [wire.sees(&there()), wire.sees(&there()), wire.sees(&back()), wire.sees(&there())],
        [New, New, Established, Established]
    );
    wire.wait(179_999);
    assert_eq!(wire.sees(&back()), Established);
    wire.wait(180_000);
    // The next packet of either end begins the connection.
    assert_eq!([wire.sees(&back()), wire.sees(&back()), wire.sees(&there())], [New, New, Established]);
    let mut wire = Wire::new(&settings);
    wire.sees(&there());
    wire.wait(30_000);
    assert_eq!(wire.sees(&back()), New);
}

#[test]
fn a_tcp_connection_from_open_to_close() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    assert_eq!(
        wire.talk(&["S", "S", "sa", "A", "AP", "a"]),
        [New, New, Established, Established, Established, Established]
    );
    wire.wait(86_399_999);
    assert_eq!(wire.talk(&["a", "FA", "a", "fa", "A"]), [Established; 5]);
    wire.wait(9_999);
    assert_eq!(wire.talk(&["A"]), [Established]);
    // Another connection of the same ports.
    assert_eq!(wire.talk(&["S", "sa"]), [New, Established]);
    wire.wait(5_000);
    assert_eq!(wire.talk(&["sa"]), [Invalid]);
}

#[test]
fn each_state_has_its_timeout() {
    let mut settings = Tracking::default();
    for (place, timeout) in [
        &mut settings.tcp_syn_sent,
        &mut settings.tcp_syn_received,
        &mut settings.tcp_established,
        &mut settings.tcp_fin_wait,
        &mut settings.tcp_close_wait,
        &mut settings.tcp_last_ack,
        &mut settings.tcp_time_wait,
    ]
    .into_iter()
    .enumerate()
    {
        *timeout = Duration::from_millis(100 + place as u64);
    }
    settings.tcp_close = Duration::from_millis(90);
    let segments = ["S", "sa", "A", "FA", "a", "fa", "A"];
    let known = |segments: &[&str], wait: u64| {
        let mut wire = Wire::new(&settings);
        wire.talk(segments);
        wire.wait(wait);
        wire.tracker.sweep(ms(wire.now));
        !wire.tracker.flows.is_empty()
    };
    for count in 1..=segments.len() {
        let timeout = 99 + count as u64;
        assert!(known(&segments[..count], timeout - 1) && !known(&segments[..count], timeout), "{count}");
    }
    assert!(known(&["S", "sa", "R"], 89) && !known(&["S", "sa", "R"], 90));
}

#[test]
fn impossible_segments_are_invalid_and_change_nothing() {
    let settings = Tracking::default();
    for flags in ["", "SF", "SR", "F", "P", "SAF", "FPU", "RF", "SA", "sa", "FA", "RA", "R"] {
        let mut wire = Wire::new(&settings);
        assert_eq!(wire.talk(&[flags, flags]), [Invalid; 2], "{flags}");
        assert!(wire.tracker.flows.is_empty());
    }
    let mut wire = Wire::new(&settings);
    // Data before the answer to the SYN, and data before any other segment.
    assert_eq!(wire.talk(&["S", "A", "fa", "SF", "sa", "A"])[..5], [New, Invalid, Invalid, Invalid, Established]);
    // The responder sends no SYN, and the originator no SYN-ACK.
    let next = wire.next;
    assert_eq!(wire.talk(&["s", "SA"]), [Invalid; 2]);
    wire.next = next;
    assert_eq!(wire.talk(&["a", "A"]), [Established; 2]);
    // A SYN with the flags of ECN.
    assert_eq!(Wire::new(&settings).talk(&["SEC", "saE", "A"])[0], New);
}

#[test]
fn segments_of_a_connection_that_the_ends_see_differently_are_ignored() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    let bytes = |wire: &Wire<'_>| wire.tracker.flows.values().map(|flow| flow.bytes).collect::<Vec<_>>();
    wire.talk(&["S"]);
    wire.wait(4_999);
    assert_eq!((wire.talk(&["S"]), bytes(&wire)), (vec![New], vec![40]));
    // Repeated SYNs do not renew the connection.
    wire.wait(1);
    assert_eq!(wire.talk(&["sa"]), [Invalid]);
    let mut wire = Wire::new(&settings);
    assert_eq!(
        wire.talk(&["S", "a", "sa", "A", "S", "sa"]),
        [New, Established, Established, Established, Established, Established]
    );
    assert_eq!(bytes(&wire), [120]);
    // A simultaneous open.
    assert_eq!(
        Wire::new(&settings).talk(&["S", "s", "SA", "sa", "A"]),
        [New, Established, Established, Established, Established]
    );
}

#[test]
fn a_reset_ends_an_unanswered_connection_at_once() {
    let settings = Tracking::default();
    let rules =
        rules(vec![rule(vec![Condition::ConnectionState([Established].into_iter().collect())], Action::Passthrough)]);
    let open = open();
    for (answer, expected) in [("RA", 0), ("SA", 1)] {
        let mut evaluator = Evaluator::new(&rules, &open, 1);
        evaluator.outside(&segment(0, "S", (1, 0)), ms(0));
        evaluator.inside(&segment(1, answer, (0, 2)), ms(0));
        assert_eq!(evaluator.connections(ms(0)).len(), expected, "{answer}");
    }
    // A reset established connection is known for a while, and so are its late packets.
    let mut wire = Wire::new(&settings);
    assert_eq!(wire.talk(&["S", "sa", "r", "A", "S"]), [New, Established, Established, Established, New]);
}

#[test]
fn a_dropped_packet_begins_no_connection() {
    let known = |states: &[ConnectionState]| Condition::ConnectionState(states.iter().copied().collect());
    let rules = rules(vec![rule(vec![known(&[Established, Related])], Action::Accept)]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    // A packet of a stranger, and an ICMP error of the stranger about the answer.
    evaluator.outside(&there(), ms(0));
    let error = icmp(CLIENT, SERVER, (3, 3), [0; 4], &back()[14..][..28]);
    assert!(evaluator.outside(&error, ms(0)).matched.is_empty());
    assert_eq!(evaluator.connections(ms(0)), []);
    // After the server has sent a packet, both belong to the connection.
    evaluator.inside(&back(), ms(0));
    assert_eq!(evaluator.outside(&error, ms(0)).matched, [0]);
    assert_eq!(evaluator.outside(&there(), ms(0)).matched, [0]);
}

#[test]
fn loose_tracking_picks_up_a_connection_but_a_strangers_ack_is_new() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    assert_eq!(wire.talk(&["A", "A", "a", "A"]), [New, New, Established, Established]);
    wire.wait(86_399_999);
    assert_eq!(wire.talk(&["A"]), [Established]);
    let strict = Tracking { loose_tcp: false, ..Tracking::default() };
    assert_eq!(Wire::new(&strict).talk(&["A", "a"]), [Invalid, Invalid]);
    assert_eq!(Wire::new(&strict).talk(&["S", "sa", "A"]), [New, Established, Established]);
}

#[test]
fn icmp_queries_are_connections_by_code_and_identifier() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    let states = [
        wire.sees(&echo(SERVER, CLIENT, 0, 1)),
        wire.sees(&echo(CLIENT, SERVER, 8, 1)),
        wire.sees(&echo(SERVER, CLIENT, 0, 2)),
        wire.sees(&echo(SERVER, CLIENT, 8, 1)),
        wire.sees(&echo(SERVER, CLIENT, 0, 1)),
        wire.sees(&echo(CLIENT, SERVER, 8, 1)),
        wire.sees(&icmp(SERVER, CLIENT, (14, 0), [0, 1, 0, 0], &[0; 12])),
        wire.sees(&icmp(SERVER, CLIENT, (9, 0), [0; 4], b"")),
    ];
    assert_eq!(states, [Invalid, New, Invalid, New, Established, Established, Invalid, Invalid]);
    // Packets with other codes belong to other connections.
    assert_eq!(wire.sees(&icmp(CLIENT, SERVER, (8, 1), [0, 1, 0, 1], b"ping")), New);
    wire.wait(10_000);
    assert_eq!(wire.sees(&echo(SERVER, CLIENT, 0, 1)), Invalid);
    let states = [
        wire.sees(&echo(CLIENT6, SERVER6, 128, 1)),
        wire.sees(&echo(SERVER6, CLIENT6, 129, 1)),
        wire.sees(&echo(SERVER6, CLIENT6, 135, 1)),
        wire.sees(&echo(SERVER6, CLIENT6, 200, 1)),
    ];
    assert_eq!(states, [New, Established, Untracked, Invalid]);
}

#[test]
fn other_protocols_are_connections_by_their_addresses() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    let states = [
        wire.sees(&other(CLIENT, SERVER, 47)),
        wire.sees(&other(SERVER, CLIENT, 50)),
        wire.sees(&other(SERVER, CLIENT, 47)),
    ];
    assert_eq!(states, [New, New, Established]);
    wire.wait(599_999);
    assert_eq!(wire.sees(&other(CLIENT, SERVER, 50)), Established);
}

#[test]
fn errors_about_a_known_connection_to_its_sender_are_related() {
    let settings = Tracking::default();
    let router = "192.0.2.99";
    let error = |to: &str, about: &[u8]| icmp(router, to, (3, 3), [0; 4], &about[14..][..28]);
    let mut wire = Wire::new(&settings);
    assert_eq!(wire.sees(&error(CLIENT, &there())), Invalid);
    wire.sees(&there());
    wire.wait(29_999);
    let states = [
        wire.sees(&error(CLIENT, &there())),
        wire.sees(&error(SERVER, &back())),
        wire.sees(&error(SERVER, &there())),
        wire.sees(&icmp(router, CLIENT, (3, 3), [0; 4], &there()[14..][..22])),
        wire.sees(&icmp(router, CLIENT, (3, 3), [0; 4], b"")),
        wire.sees(&error(CLIENT, &error(CLIENT, &there()))),
        wire.sees(&error(CLIENT, &fragment(there(), 1, 3, false))),
    ];
    assert_eq!(states, [Related, Related, Invalid, Invalid, Invalid, Invalid, Invalid]);
    // An error is not a packet of the connection, and does not renew it.
    wire.wait(1);
    assert_eq!(wire.sees(&error(CLIENT, &there())), Invalid);

    wire.sees(&echo(CLIENT, SERVER, 8, 1));
    assert_eq!(wire.sees(&error(CLIENT, &echo(CLIENT, SERVER, 8, 1))), Related);
    let datagram = udp((CLIENT6, 1), (SERVER6, 2), b"");
    wire.sees(&datagram);
    // The error quotes the header of a first fragment.
    let quoted =
        [&datagram[14..20], &[44, 64], &datagram[22..54], &[17, 0, 0, 1, 0, 0, 0, 9], &datagram[54..]].concat();
    assert_eq!(wire.sees(&icmp(SERVER6, CLIENT6, (2, 0), [0; 4], &quoted)), Related);
}

#[test]
fn later_fragments_belong_to_the_connection_of_their_first() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    let big = udp((CLIENT, 40_000), (SERVER, 53), &[b'a'; 24]);
    let first = fragment(big.clone(), 9, 0, true);
    let later = |id| fragment(big.clone(), id, 4, false);
    assert_eq!(wire.sees(&later(9)), Invalid);
    assert_eq!([wire.sees(&first), wire.sees(&later(9)), wire.sees(&later(8))], [New, New, Invalid]);
    wire.sees(&back());
    assert_eq!(wire.sees(&later(9)), Established);
    wire.wait(60_000);
    assert_eq!([wire.sees(&later(9)), wire.sees(&first)], [Invalid, Established]);

    // IPv6, with the fragment header after destination options.
    let whole = udp((CLIENT6, 1), (SERVER6, 2), &[0; 8]);
    let parts = |offset: u8, more: u8| {
        let headers = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 0, offset << 3 | more, 0, 0, 0, 5]].concat();
        let mut frame = [&whole[..54], &headers, &whole[54..]].concat();
        (frame[20], frame[19]) = (60, frame[19] + 16);
        frame
    };
    assert_eq!([wire.sees(&parts(0, 1)), wire.sees(&parts(2, 0))], [New, New]);
}

#[test]
fn bytes_and_rate_count_both_directions() {
    let settings = open();
    let rules = rules(vec![
        rule(vec![Condition::ConnectionBytes { from: 60, to: Some(100) }], Action::Passthrough),
        rule(vec![Condition::ConnectionBytes { from: 80, to: None }], Action::Passthrough),
        rule(vec![Condition::ConnectionRate(29 * 16..=29 * 16)], Action::Passthrough),
    ]);
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut at = |now| evaluator.outside(&there(), ms(now)).matched;
    // Each packet has 29 bytes.
    let matched = [100, 999, 1_000, 1_999, 2_000, 3_999].map(&mut at);
    assert_eq!(matched, [vec![], vec![], vec![0, 1, 2], vec![1, 2], vec![1, 2], vec![1]]);
    // A second without packets.
    let bytes = |evaluator: &mut Evaluator<'_>, frame: &[u8]| evaluator.outside(frame, ms(5_999)).matched;
    assert_eq!(bytes(&mut evaluator, &back()), [1]);
    assert!(bytes(&mut evaluator, &udp((SERVER, 54), (CLIENT, 40_000), b"")).is_empty());
}

#[test]
fn a_connection_limit_counts_connections_that_reached_the_rule() {
    let settings = open();
    let limit = Condition::ConnectionLimit { count: 2, prefix_length: 24 };
    let rules = rules(vec![rule(vec![Condition::Protocol(6), limit], Action::Passthrough)]);
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut say = |source: &str, port: u16, flags: &str, now| {
        let frame = tcp((source, port), (SERVER, 22), flags, (u32::from(flags == "R") + 1, 0), b"");
        evaluator.outside(&frame, ms(now)).matched == [0]
    };
    assert_eq!([say(CLIENT, 1, "S", 0), say(CLIENT, 1, "S", 0), say("198.51.100.8", 2, "S", 0)], [false; 3]);
    assert_eq!([say(CLIENT, 3, "S", 0), say(CLIENT, 1, "S", 0), say("198.51.101.8", 2, "S", 0)], [true, true, false]);
    // One connection is closed, so two remain.
    assert!(!say(CLIENT, 3, "R", 1));
    // Two connections have expired.
    assert_eq!(
        [say(CLIENT, 4, "S", 4_999), say(CLIENT, 5, "S", 5_000), say(CLIENT, 6, "S", 5_000)],
        [true, false, true]
    );
}

#[test]
fn untracked_packets_have_no_connection_not_even_when_negated() {
    let settings = Settings::default();
    for condition in [
        Condition::ConnectionLimit { count: 0, prefix_length: 32 },
        Condition::ConnectionBytes { from: 0, to: None },
        Condition::ConnectionRate(0..=u64::MAX),
    ] {
        for negated in [false, true] {
            let matchers = vec![Matcher { negated, condition: condition.clone() }];
            let mut set = rules(vec![Rule { matchers, ..rule(vec![], Action::Accept) }]);
            let tracked = Evaluator::new(&set, &settings, 1).outside(&there(), ms(0)).matched;
            assert_eq!(tracked == [0], !negated);
            set.rules.push(raw("prerouting", vec![], Action::Notrack));
            assert_eq!(Evaluator::new(&set, &settings, 1).outside(&there(), ms(0)).matched, [1]);
        }
    }
}
