//! State of matchers: only packets for which all earlier matchers were true change it.

use super::*;
use crate::eval::RuleOutcome;
use crate::rule::{ClassifierFields, LimitMode, PortSet, Rate, RateUnit};

fn knock(port: u16) -> Vec<u8> {
    udp((CLIENT, 40_000), (SERVER, port), b"")
}

fn port(port: u16) -> Condition {
    Condition::DstPort(PortSet(vec![port..=port]))
}

fn rate(count: u64, seconds: u64, burst: u64) -> Rate {
    Rate { count, per: Duration::from_secs(seconds), burst, unit: RateUnit::Packet }
}

/// The number of matching packets, out of `packets` packets at one time.
fn matches(evaluator: &mut Evaluator<'_>, packets: usize, now: Time) -> usize {
    (0..packets).filter(|_| evaluator.outside(&knock(1), now).matched == [0]).count()
}

#[test]
fn a_token_is_spent_only_if_everything_before_it_matched() {
    // The file has the opposite order. The limit is still evaluated last.
    let rules = rules(vec![rule(vec![Condition::Limit(rate(1, 3_600, 1)), port(1)], Action::Accept)]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert!(evaluator.outside(&knock(2), ms(0)).matched.is_empty());
    assert_eq!(evaluator.outside(&knock(1), ms(0)).matched, [0]);
    let packet = knock(1);
    let explanation = evaluator.explain(&view(Side::Outside, &packet), ms(0));
    assert_eq!(
        explanation.tried[0].outcome,
        RuleOutcome::Missed {
            matcher: 0,
            observed: "limit is used up".to_owned(),
            workers_decide: Some("it reads `limit` of each packet".to_owned())
        }
    );
}

#[test]
fn a_limit_passes_its_burst_at_once_and_then_its_rate() {
    let rules = rules(vec![rule(vec![Condition::Limit(rate(10, 1, 5))], Action::Accept)]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert_eq!(matches(&mut evaluator, 10, ms(5)), 5);
    assert_eq!(matches(&mut evaluator, 10, ms(99)), 0);
    assert_eq!(matches(&mut evaluator, 10, ms(100)), 1);
    assert_eq!(matches(&mut evaluator, 10, ms(300)), 2);
    assert_eq!(matches(&mut evaluator, 10, ms(60_000)), 5);
}

#[test]
fn a_negated_limit_matches_packets_beyond_the_rate() {
    let matchers = vec![Matcher { negated: true, condition: Condition::Limit(rate(10, 1, 5)) }];
    let rules = rules(vec![Rule { matchers, ..rule(vec![], Action::Drop) }]);
    let settings = Settings::default();
    assert_eq!(matches(&mut Evaluator::new(&rules, &settings, 1), 10, ms(0)), 5);
}

#[test]
fn each_rule_has_its_own_limit() {
    let limit = || rule(vec![Condition::Limit(rate(1, 1, 1))], Action::Passthrough);
    let rules = rules(vec![limit(), limit()]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert_eq!(evaluator.outside(&knock(1), ms(0)).matched, [0, 1]);
    assert!(evaluator.outside(&knock(1), ms(0)).matched.is_empty());
}

#[test]
fn dst_limit_has_a_bucket_for_each_key_and_removes_it_after_a_pause() {
    let limit = |mode| Condition::DstLimit { rate: rate(1, 3_600, 1), mode, expire: Duration::from_secs(10) };
    let settings = Settings::default();
    let datagrams = [
        ((CLIENT, 1), (SERVER, 1)),
        ((CLIENT, 1), (SERVER, 2)),
        ((CLIENT, 1), (CLIENT, 2)),
        ((SERVER, 1), (CLIENT, 2)),
    ];
    for (mode, expected) in [
        (LimitMode::DstAddress, [true, false, true, false]),
        (LimitMode::DstAddressAndPort, [true, true, true, false]),
        (LimitMode::SrcAddress, [true, false, false, true]),
        (LimitMode::SrcAndDstAddresses, [true, false, true, true]),
        (LimitMode::AddressesAndDstPort, [true, true, true, true]),
    ] {
        let rules = rules(vec![rule(vec![limit(mode)], Action::Accept)]);
        let mut evaluator = Evaluator::new(&rules, &settings, 1);
        let passed = datagrams.map(|(from, to)| evaluator.outside(&udp(from, to, b""), ms(0)).matched == [0]);
        assert_eq!(passed, expected, "{mode:?}");
    }
    let rules = rules(vec![rule(vec![limit(LimitMode::SrcAddress)], Action::Accept)]);
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    // Every packet renews the bucket, also one that does not match.
    let passed = [0, 9_999, 19_998, 29_998].map(|now| matches(&mut evaluator, 1, ms(now)));
    assert_eq!(passed, [1, 0, 0, 1]);
}

#[test]
fn nth_counts_packets_that_reach_it() {
    let rules = rules(vec![
        rule(vec![port(1), Condition::Nth { every: 3, packet: 1 }], Action::Accept),
        rule(vec![port(1), Condition::Nth { every: 2, packet: 2 }], Action::Accept),
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut knocks = |port: u16| evaluator.outside(&knock(port), ms(0)).matched;
    let matched = [1, 2, 1, 1, 1, 2, 1, 1].map(&mut knocks);
    assert_eq!(matched, [vec![0], vec![], vec![], vec![1], vec![0], vec![], vec![], vec![1]]);
}

#[test]
fn random_has_its_frequency_and_is_determined_by_the_seed() {
    let rules = rules(vec![rule(vec![Condition::Random(30)], Action::Accept)]);
    let settings = Settings::default();
    let of = |seed| {
        let mut evaluator = Evaluator::new(&rules, &settings, seed);
        (0..10_000).map(|_| evaluator.outside(&knock(1), ms(0)).matched.len()).collect::<Vec<_>>()
    };
    let chosen: usize = of(1).iter().sum();
    assert!((2_800..3_200).contains(&chosen), "{chosen}");
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn a_classifier_distributes_connections() {
    let of = |remainder| Condition::PerConnectionClassifier {
        fields: ClassifierFields::BothAddressesAndPorts,
        denominator: 3,
        remainder,
    };
    let all = (0..3).map(|remainder| rule(vec![of(remainder)], Action::Accept)).collect();
    let (rules, settings) = (rules(all), Settings::default());
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut shares = [0; 3];
    for port in 0..300 {
        let first = evaluator.outside(&knock(port), ms(0)).matched;
        assert_eq!(evaluator.outside(&knock(port), ms(9)).matched, first);
        shares[first[0]] += 1;
    }
    assert!(shares.iter().all(|share| *share > 60), "{shares:?}");
}

#[test]
fn the_weight_of_a_scan_lasts_until_the_source_pauses() {
    let psd = Condition::Psd { weight: 7, delay: Duration::from_secs(3), low_weight: 3, high_weight: 1 };
    let rules = rules(vec![rule(vec![psd], add_src("scanners", 60))]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut knock = |port: u16, now| evaluator.outside(&knock(port), ms(now)).matched == [0];
    // The weights are 3, 3 for a repeated port, 6 and 7. Then every packet matches.
    assert_eq!(
        [knock(22, 0), knock(22, 1), knock(23, 2), knock(2_000, 3_002), knock(22, 6_002)],
        [false, false, false, true, true]
    );
    // A pause longer than the delay resets the scan.
    assert_eq!([knock(25, 9_003), knock(26, 9_003), knock(2_001, 9_003)], [false, false, true]);
}

#[test]
fn scans_of_more_sources_than_routeros_records_are_detected() {
    let psd = Condition::Psd { weight: 50, delay: Duration::from_secs(3), low_weight: 1, high_weight: 1 };
    let rules = rules(vec![rule(vec![psd], Action::Drop)]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    for port in 0..50 {
        for host in 0..400_u16 {
            let source = format!("10.0.{}.{}", host >> 8, host & 0xff);
            let matched = evaluator.outside(&udp((&source, 1), (SERVER, port), b""), ms(u64::from(port))).matched;
            assert_eq!(matched == [0], port == 49);
        }
    }
}
