//! The targets of a run with the measured values, and the loads under which nftables is faster.

use super::candidate::CandidateKind;
use super::results::{Arrangement, Counted, DROP, FIRST_KNOCKS, FORWARD, Latency, Probe, Results, STRANGERS};
use super::tables::{mebibytes, mpps};
use crate::report::{NONE, ResultTable};

/// A bound of a measured value.
enum Bound {
    Least(f64),
    Most(f64),
    Below(f64),
}

impl Bound {
    fn admits(&self, value: f64) -> bool {
        match self {
            Bound::Least(bound) => value >= *bound,
            Bound::Most(bound) => value <= *bound,
            Bound::Below(bound) => value < *bound,
        }
    }

    fn text(&self, shown: fn(f64) -> String) -> String {
        match self {
            Bound::Least(bound) => format!("at least {}", shown(*bound)),
            Bound::Most(bound) => format!("at most {}", shown(*bound)),
            Bound::Below(bound) => format!("under {}", shown(*bound)),
        }
    }
}

/// The targets with their values. Empty if none of them was measured.
pub(super) fn table(results: &Results) -> ResultTable {
    let mut rows = Vec::new();
    let mut was_measured = false;
    let mut target = |name: String, bound: Bound, value: Option<f64>, shown: fn(f64) -> String| {
        was_measured |= value.is_some();
        let verdict = match value.map(|value| bound.admits(value)) {
            None => "not measured",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        rows.push(vec![name, bound.text(shown), value.map_or_else(|| NONE.to_owned(), shown), verdict.to_owned()]);
    };
    let ratio = |value| format!("{value:.2}");
    let ours = CandidateKind::Knockplane;
    let userspace = CandidateKind::KnockplaneUserspace;
    let rates = [
        // The kernel's fast path.
        (ours, FORWARD, Arrangement::S, CandidateKind::XdpParse, 0.8),
        (ours, FORWARD, Arrangement::T, CandidateKind::XdpParse, 0.8),
        (ours, FORWARD, Arrangement::T, CandidateKind::Nftables, 2.5),
        (ours, STRANGERS, Arrangement::S, CandidateKind::Xdp, 0.85),
        (ours, STRANGERS, Arrangement::T, CandidateKind::Xdp, 0.6),
        (ours, STRANGERS, Arrangement::S, CandidateKind::Nftables, 3.5),
        (ours, STRANGERS, Arrangement::T, CandidateKind::Nftables, 3.5),
        // Workers.
        (userspace, FORWARD, Arrangement::S, CandidateKind::Smallest, 0.95),
        (userspace, FORWARD, Arrangement::T, CandidateKind::Smallest, 0.95),
        (userspace, DROP, Arrangement::S, CandidateKind::Smallest, 0.95),
        (userspace, DROP, Arrangement::T, CandidateKind::Smallest, 0.95),
        (userspace, DROP, Arrangement::T, CandidateKind::Nftables, 2.4),
        (ours, FORWARD, Arrangement::S, CandidateKind::NftablesRps, 1.0),
        // The cost of a strict door over plain rules.
        (CandidateKind::KnockplaneDoor, FIRST_KNOCKS, Arrangement::S, ours, 0.8),
        (CandidateKind::KnockplaneDoor, FIRST_KNOCKS, Arrangement::T, ours, 0.8),
    ];
    for (candidate, load, arrangement, peer, least) in rates {
        let rate = |kind: CandidateKind| results.rate(load, arrangement, kind.name());
        let value = rate(candidate).zip(rate(peer).filter(|rate| *rate > 0.0));
        let name = format!("{load}, {arrangement}: {candidate} ÷ {peer}");
        target(name, Bound::Least(least), value.map(|(rate, peers)| rate / peers), ratio);
    }
    // A worker with its own core spins while frames arrive. A worker that shares its core with softirq sleeps.
    for (arrangement, peer) in
        [(Arrangement::S, CandidateKind::SmallestSpinning), (Arrangement::T, CandidateKind::Smallest)]
    {
        let value = p50(results, arrangement, CandidateKind::Knockplane).zip(p50(results, arrangement, peer));
        let name = format!("one-way p50 at 100 kpps, {arrangement}: knockplane ÷ {peer}");
        target(name, Bound::Most(1.2), value.map(|(ours, peers)| ours / peers), ratio);
    }
    let upkeep = results.upkeep.as_ref();
    let start = upkeep.map(|upkeep| upkeep.start_seconds);
    target("from start to the first frame forwarded".to_owned(), Bound::Below(1.0), start, |value| {
        format!("{value:.2} s")
    });
    let idle = upkeep.map(|upkeep| upkeep.idle);
    target("part of a core, idle".to_owned(), Bound::Below(0.01), idle, |value| format!("{:.2} %", value * 100.0));
    let resident = upkeep.map(|upkeep| upkeep.resident_bytes.saturating_sub(upkeep.table_bytes) as f64);
    let most = Bound::Most(f64::from(64 << 20));
    target("resident memory without list entries".to_owned(), most, resident, mebibytes);
    let unexplained =
        results.throughput.iter().any(|row| row.counted == Counted::Forwarded).then(|| unexplained(results));
    target("lost frames in no counter or two counters".to_owned(), Bound::Most(0.0), unexplained, |value| {
        format!("{value:.0}")
    });
    let table = ResultTable::new("targets", "Targets", &["target", "bound", "value", "verdict"]);
    if was_measured { table.with_rows(rows) } else { table }
}

fn p50(results: &Results, arrangement: Arrangement, candidate: CandidateKind) -> Option<f64> {
    let its = |latency: &&Latency| {
        latency.arrangement == arrangement && latency.probe == Probe::OneWay && latency.candidate == candidate.name()
    };
    results.latency.iter().find(its).map(|latency| latency.p50).filter(|p50| *p50 > 0.0)
}

fn unexplained(results: &Results) -> f64 {
    let windows = results.throughput.iter().flat_map(|row| &row.windows);
    windows.filter_map(|window| window.lost.get("nowhere")).sum::<u64>() as f64
}

/// Loads under which nftables, in one of its set-ups, is faster than knockplane.
pub(super) fn nftables_ahead(results: &Results) -> ResultTable {
    let columns = ["load", "arrangement", "knockplane, Mpps", "set-up of nftables", "nftables, Mpps", "÷ knockplane"];
    let ours = results.throughput.iter().filter(|row| row.candidate == CandidateKind::Knockplane.name());
    let rows = ours.flat_map(|row| {
        let rate = row.rate(0.9);
        [CandidateKind::Nftables, CandidateKind::NftablesRps, CandidateKind::NftablesBridge].into_iter().filter_map(
            move |kind| {
                let theirs = results.rate(&row.load, row.arrangement, kind.name())?;
                (theirs > rate && rate > 0.0).then(|| {
                    let (load, arrangement) = (row.load.clone(), row.arrangement.to_string());
                    vec![load, arrangement, mpps(rate), kind.to_string(), mpps(theirs), format!("{:.2}", theirs / rate)]
                })
            },
        )
    });
    ResultTable::new("nftables-ahead", "Loads under which nftables is faster than knockplane", &columns).with_rows(rows)
}
