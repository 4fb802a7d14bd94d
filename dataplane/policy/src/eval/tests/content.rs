//! Layer 7 and TLS over connections.

use super::*;
use crate::eval::tls::tests::client_hello;
use crate::rule::{Layer7Pattern, Tracking, TrackingMode};

fn tracked(rule: Rule) -> RuleSet {
    let pattern =
        Layer7Pattern { name: "p".to_owned(), regexp: "^open sesame$".to_owned(), comment: String::new(), line: 0 };
    let tracking = Tracking { enabled: TrackingMode::Yes, ..Tracking::default() };
    RuleSet { layer7: vec![pattern], tracking, ..rules(vec![rule]) }
}

fn there(payload: &[u8]) -> Vec<u8> {
    udp((CLIENT, 40_000), (SERVER, 1), payload)
}

fn back(payload: &[u8]) -> Vec<u8> {
    udp((SERVER, 1), (CLIENT, 40_000), payload)
}

fn layer7() -> RuleSet {
    tracked(rule(vec![Condition::Layer7("p".to_owned())], Action::Accept))
}

#[test]
fn a_pattern_sees_both_directions_one_after_the_other() {
    let (rules, settings) = (layer7(), open());
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert!(evaluator.outside(&there(b"Open\0 "), ms(0)).matched.is_empty());
    evaluator.inside(&back(b"ses"), ms(0));
    assert_eq!(evaluator.outside(&there(b"AME"), ms(0)).matched, [0]);
    // Later data does not undo the match while the connection is known.
    assert_eq!(evaluator.outside(&there(b"!"), ms(179_999)).matched, [0]);
    assert!(evaluator.outside(&there(b"!"), ms(359_999)).matched.is_empty());
}

#[test]
fn a_wrong_guess_spoils_its_connection_until_the_timeout() {
    let (rules, settings) = (layer7(), open());
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert!(evaluator.outside(&there(b"open barley"), ms(0)).matched.is_empty());
    assert!(evaluator.outside(&there(b"open sesame"), ms(29_999)).matched.is_empty());
    assert_eq!(evaluator.outside(&udp((CLIENT, 40_001), (SERVER, 1), b"open sesame"), ms(0)).matched, [0]);
    assert_eq!(evaluator.outside(&there(b"open sesame"), ms(59_999)).matched, [0]);
}

#[test]
fn packets_after_the_tenth_are_not_inspected() {
    let (rules, settings) = (layer7(), open());
    for (empty, expected) in [(9, true), (10, false)] {
        let mut evaluator = Evaluator::new(&rules, &settings, 1);
        for _ in 0..empty {
            evaluator.outside(&there(b""), ms(0));
        }
        assert_eq!(evaluator.outside(&there(b"open sesame"), ms(0)).matched == [0], expected);
    }
}

#[test]
fn a_packet_without_a_connection_is_inspected_alone() {
    let mut rules = layer7();
    rules.rules.push(raw("prerouting", vec![], Action::Notrack));
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let spoken = [&b"x"[..], b"open sesame", b"y"].map(|payload| evaluator.outside(&there(payload), ms(0)).matched);
    assert_eq!(spoken, [vec![1], vec![1, 0], vec![1]]);
}

/// The client's segments, each with its offset in the client's stream.
fn says(evaluator: &mut Evaluator<'_>, segments: &[(u32, &[u8])]) -> Vec<bool> {
    let say = |(at, payload): &(u32, &[u8])| {
        let frame = tcp((CLIENT, 40_000), (SERVER, 443), "AP", ((u32::MAX - 4).wrapping_add(*at), 1), payload);
        evaluator.outside(&frame, ms(0)).matched == [0]
    };
    segments.iter().map(say).collect()
}

#[test]
fn a_server_name_is_found_in_a_segmented_hello() {
    let rules = rules(vec![rule(vec![Condition::TlsHost("*.example.com".to_owned())], Action::Drop)]);
    let settings = open();
    let hello = client_hello("www.Example.com");
    let (one, rest) = hello.split_at(50);
    let (two, three) = rest.split_at(30);
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let syn = tcp((CLIENT, 40_000), (SERVER, 443), "S", (u32::MAX - 5, 0), b"");
    evaluator.outside(&syn, ms(0));
    evaluator.inside(&tcp((SERVER, 443), (CLIENT, 40_000), "SA", (0, u32::MAX - 4), b""), ms(0));
    let order: [(u32, &[u8]); 7] = [
        (0, b""),
        // Out of order, in order, retransmitted, and overlapping.
        (50, two),
        (0, one),
        (0, one),
        (40, &hello[40..80]),
        (80, three),
        // Later data does not change the result either.
        (hello.len() as u32, b"more"),
    ];
    assert_eq!(says(&mut evaluator, &order), [false, false, false, false, false, true, true]);
    // The server did not request it.
    let back = tcp((SERVER, 443), (CLIENT, 40_000), "AP", (1, 1), b"\x16\x03\x03\0\x04\x02\0\0\0");
    assert!(evaluator.outside(&back, ms(0)).matched.is_empty());
    // In one packet, without a connection.
    let whole: [(u32, &[u8]); 2] = [(0, &hello), (0, one)];
    let mut untracked = rules.clone();
    untracked.tracking.enabled = TrackingMode::No;
    assert_eq!(says(&mut Evaluator::new(&untracked, &settings, 1), &whole), [true, false]);
}

#[test]
fn without_a_server_name_a_negated_tls_host_is_false_too() {
    let other = Condition::TlsHost("*.example.org".to_owned());
    let hello = client_hello("www.example.com");
    let of = |payload: &[u8]| answer(other.clone(), &tcp((CLIENT, 1), (SERVER, 443), "AP", (1, 1), payload));
    assert_eq!((of(&hello), of(&hello[..40]), of(b"GET /")), (Some(false), None, None));
    assert_eq!(answer(other, &udp((CLIENT, 1), (SERVER, 443), &hello)), None);
}
