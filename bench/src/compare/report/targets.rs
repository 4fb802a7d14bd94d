//! What was aimed at, and whether it was met.

use super::mpps;
use super::section::{Row, Section};
use crate::compare::candidate::Kind;
use crate::compare::results::{Arrangement, Counted, DROP, FORWARD, Latency, Probe, Results, Throughput};

/// Something aimed at. Without a value it was not measured.
struct Target {
    what: String,
    wanted: String,
    value: Option<f64>,
    /// How the value is written.
    shown: fn(f64) -> String,
    is_met: fn(f64) -> bool,
}

/// All targets with their values.
pub(super) fn section(results: &Results) -> Section {
    let row = |target: &Target| {
        let verdict = match target.value.map(target.is_met) {
            None => "not measured",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        let value = target.value.map_or_else(|| "–".to_owned(), target.shown);
        Row::Cells(vec![target.what.clone(), target.wanted.clone(), value, verdict.to_owned()])
    };
    let targets = targets(results);
    let was_any_measured = targets.iter().any(|target| target.value.is_some());
    Section {
        title: "Targets".to_owned(),
        columns: vec![" target", " wanted", "value", " verdict"],
        rows: targets.iter().filter(|_| was_any_measured).map(row).collect(),
        ..Section::default()
    }
}

fn targets(results: &Results) -> Vec<Target> {
    let rate = |load, arrangement, other: Kind, is_met, wanted: &str| Target {
        what: format!("{load}, {arrangement:?}: knockplane ÷ {other}"),
        wanted: wanted.to_owned(),
        value: ratio(results, load, arrangement, other),
        shown: |value| format!("{value:.2}"),
        is_met,
    };
    let mut targets = Vec::new();
    for load in [FORWARD, DROP] {
        for arrangement in Arrangement::ALL {
            targets.push(rate(load, arrangement, Kind::Smallest, |value| value >= 0.95, "at least 0.95"));
        }
    }
    targets.push(rate(DROP, Arrangement::T, Kind::Nftables, |value| value >= 2.4, "at least 2.4"));
    targets.push(rate(FORWARD, Arrangement::S, Kind::NftablesRps, |value| value >= 1.0, "at least 1"));
    // A worker with a core to itself spins while frames come; one that shares it with softirq sleeps.
    for (arrangement, other) in [(Arrangement::S, Kind::SmallestSpinning), (Arrangement::T, Kind::Smallest)] {
        targets.push(Target {
            what: format!("one-way p50 at 100 kpps, {arrangement:?}: knockplane ÷ {other}"),
            wanted: "at most 1.2".to_owned(),
            value: p50(results, arrangement, Kind::Knockplane)
                .zip(p50(results, arrangement, other))
                .map(|(ours, others)| ours / others),
            shown: |value| format!("{value:.2}"),
            is_met: |value| value <= 1.2,
        });
    }
    let upkeep = results.upkeep.as_ref();
    targets.push(Target {
        what: "from start to the first frame forwarded".to_owned(),
        wanted: "under 1 s".to_owned(),
        value: upkeep.map(|upkeep| upkeep.start_seconds),
        shown: |value| format!("{value:.2} s"),
        is_met: |value| value < 1.0,
    });
    targets.push(Target {
        what: "of a core, idle".to_owned(),
        wanted: "under 1 %".to_owned(),
        value: upkeep.map(|upkeep| upkeep.idle),
        shown: |value| format!("{:.2} %", value * 100.0),
        is_met: |value| value < 0.01,
    });
    targets.push(Target {
        what: "resident besides list entries".to_owned(),
        wanted: "at most 64 MiB".to_owned(),
        value: upkeep.map(|upkeep| upkeep.resident_bytes.saturating_sub(upkeep.table_bytes) as f64),
        shown: |value| format!("{:.1} MiB", value / f64::from(1 << 20)),
        is_met: |value| value <= f64::from(64 << 20),
    });
    targets.push(Target {
        what: "frames lost that no counter, or two know of".to_owned(),
        wanted: "none".to_owned(),
        value: results.throughput.iter().any(|row| row.counted == Counted::Forwarded).then(|| nowhere(results)),
        shown: |value| format!("{value:.0}"),
        is_met: |value| value == 0.0,
    });
    targets
}

fn ratio(results: &Results, load: &str, arrangement: Arrangement, other: Kind) -> Option<f64> {
    let ours = results.rate(load, arrangement, Kind::Knockplane.name())?;
    let others = results.rate(load, arrangement, other.name())?;
    (others > 0.0).then(|| ours / others)
}

fn p50(results: &Results, arrangement: Arrangement, candidate: Kind) -> Option<f64> {
    let is_it = |latency: &&Latency| {
        latency.arrangement == arrangement
            && latency.probe == Probe::OneWay
            && latency.candidate == candidate.name()
            && latency.p50 > 0.0
    };
    results.latency.iter().find(is_it).map(|latency| latency.p50)
}

fn nowhere(results: &Results) -> f64 {
    let windows = results.throughput.iter().flat_map(|row| &row.windows);
    windows.filter_map(|window| window.lost.get("nowhere")).sum::<u64>() as f64
}

/// Sentences on loads under which nftables, however it is set up, does more than knockplane.
pub(super) fn nftables_ahead(results: &Results) -> Section {
    let all_nftables = [Kind::Nftables, Kind::NftablesRps, Kind::NftablesBridge];
    let sentence = |row: &Throughput| {
        let ours = row.rate(0.9);
        let ahead: Vec<String> = all_nftables
            .iter()
            .filter_map(|kind| Some((kind, results.rate(&row.load, row.arrangement, kind.name())?)))
            .filter(|(_, theirs)| *theirs > ours && ours > 0.0)
            .map(|(kind, theirs)| format!("{kind} {}, which is {:.2} times as much", mpps(theirs), theirs / ours))
            .collect();
        let load = &row.load;
        let sentence =
            format!("- {load}, {:?}: knockplane does {} Mpps, {}.", row.arrangement, mpps(ours), ahead.join(", "));
        (!ahead.is_empty()).then_some(sentence)
    };
    let ours = results.throughput.iter().filter(|row| row.candidate == Kind::Knockplane.name());
    Section {
        title: "Where nftables is ahead of knockplane".to_owned(),
        text: ours.filter_map(sentence).collect(),
        ..Section::default()
    }
}
