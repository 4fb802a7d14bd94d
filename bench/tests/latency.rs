//! The latency probe: its frames pass a router, a userspace forwarder and a wire, and return. The test does not check times.
//! Needs root.

use knockplane_bench::compare::candidate::CandidateKind;
use knockplane_bench::compare::latency::measure;
use knockplane_bench::compare::results::{Arrangement, Probe};

#[test]
fn frames_arrive_one_way_and_return() {
    let mut turns = Vec::new();
    let loss_free = |kind| (kind == CandidateKind::Nftables).then_some(100_000.0);
    let measured = measure(
        Arrangement::S,
        &[CandidateKind::Nftables, CandidateKind::SmallestSpinning],
        &loss_free,
        1,
        |name, window| {
            turns.push((name.to_owned(), window));
            Ok(())
        },
    );
    let latencies = measured.expect("network namespaces, for which the tests run as root");
    assert_eq!(turns, [("wire", 0), ("nftables", 0), ("smallest-spinning", 0)].map(|(name, n)| (name.to_owned(), n)));
    let rows: Vec<_> = latencies.iter().map(|latency| (latency.candidate.as_str(), latency.probe)).collect();
    let expected = [
        ("wire", Probe::OneWay),
        ("wire", Probe::RoundTrip),
        ("nftables", Probe::OneWay),
        ("nftables", Probe::OneWayHalfLoad),
        ("nftables", Probe::RoundTrip),
        ("smallest-spinning", Probe::OneWay),
        ("smallest-spinning", Probe::RoundTrip),
    ];
    assert_eq!(rows, expected);
    for latency in latencies {
        // A busy machine loses some frames.
        assert!(latency.loss < 1.0 && latency.rate > 0.0, "nothing arrived: {latency:?}");
        assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99, "{latency:?}");
    }
}
