//! The tables of measurements.

use super::section::{Row, Section};
use super::{mpps, percent};
use crate::compare::candidate::Kind;
use crate::compare::results::{
    Arrangement, CoreUse, Deafness, Latency, LossCurve, Probe, Results, Series, Throughput, quantile,
};

/// Rates under load: by themselves, then each series.
pub(super) fn throughput(results: &Results) -> Vec<Section> {
    type Belongs = fn(Option<Series>) -> bool;
    let parts: [(&str, Belongs); 3] = [
        ("Throughput", |series| series.is_none()),
        ("Throughput behind rules that match nothing", |series| matches!(series, Some(Series::Rules(_)))),
        ("Throughput with entries in the list", |series| matches!(series, Some(Series::Entries(_)))),
    ];
    let section = |(title, belongs): (&str, Belongs)| Section {
        title: title.to_owned(),
        text: Vec::new(),
        columns: vec![
            " candidate",
            "p90, Mpps",
            "median",
            "spread",
            "lost",
            " lost where",
            "core 0 u/s/si",
            "core 1 u/s/si",
            "knockplane ÷ this",
        ],
        rows: rates(results, results.throughput.iter().filter(|row| belongs(row.series))),
    };
    let mut sections = parts.map(section).to_vec();
    sections.retain(|section| !section.is_empty());
    if let Some(first) = sections.first_mut() {
        first.text.extend(disturbance(results));
        first.text.push(
            "Millions of frames a second that arrived (forward, rules, entries) or were decided about (drop, knocks). \
             S: the kernel's receive side on the generator's core. T: all of the filter on core 1. Cores: percent of \
             the time in user, system and softirq."
                .to_owned(),
        );
    }
    sections
}

/// Whether something else ran: in S, what forwards and drops in the kernel leaves core 1 alone.
fn disturbance(results: &Results) -> Option<String> {
    let in_kernel = [Kind::Nftables, Kind::NftablesBridge, Kind::Xdp].map(Kind::name);
    let rows = results
        .throughput
        .iter()
        .filter(|row| row.arrangement == Arrangement::S && in_kernel.contains(&row.candidate.as_str()));
    let cores = rows.flat_map(|row| &row.windows).filter_map(|window| window.cores.get(1));
    let used: Vec<f64> = cores.map(|core| core.user + core.system + core.softirq).collect();
    let used = quantile(&used, 0.5);
    (used > DISTURBED).then(|| {
        format!(
            "**Something else ran on this machine**: core 1 was busy for {} of the time when nobody compared here used \
             it. These figures say little.",
            percent(used)
        )
    })
}

/// The part of a core that a machine may be busy with besides.
const DISTURBED: f64 = 0.15;

fn rates<'results>(results: &Results, rows: impl Iterator<Item = &'results Throughput>) -> Vec<Row> {
    let mut table = Vec::new();
    let mut group = String::new();
    for row in rows {
        let its = format!("{}, {:?}", row.load, row.arrangement);
        if its != group {
            table.push(Row::Group(its.clone()));
            group = its;
        }
        let ours = results.rate(&row.load, row.arrangement, Kind::Knockplane.name());
        let ratio = ours.map(|ours| ours / row.rate(0.9)).filter(|ratio| ratio.is_finite());
        table.push(Row::Cells(vec![
            row.candidate.clone(),
            mpps(row.rate(0.9)),
            mpps(row.rate(0.5)),
            percent(row.spread()),
            percent(row.lost().iter().fold(0.0, |sum, (_, part)| sum + part)),
            lost_where(row),
            core_use(row, 0),
            core_use(row, 1),
            ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        ]));
    }
    table
}

/// The two largest losses, and always those that nobody counted.
fn lost_where(row: &Throughput) -> String {
    let named = |(name, part): &(&str, f64)| format!("{name} {}", percent(*part));
    let lost = row.lost();
    let main =
        lost.iter().enumerate().filter(|(place, (name, part))| *name == "nowhere" || *place < 2 && *part >= 0.001);
    main.map(|(_, lost)| named(lost)).collect::<Vec<_>>().join(", ")
}

/// The means, so that they add up.
fn core_use(row: &Throughput, core: usize) -> String {
    let part = |part: fn(&CoreUse) -> f64| {
        let sum: f64 = row.windows.iter().filter_map(|window| window.cores.get(core)).map(part).sum();
        sum / row.windows.len() as f64 * 100.0
    };
    format!("{:.0}/{:.0}/{:.0}", part(|core| core.user), part(|core| core.system), part(|core| core.softirq))
}

/// Rates that come through.
pub(super) fn loss(results: &Results) -> Section {
    let row = |curve: &LossCurve| {
        let most = curve.points.iter().map(|point| point.forwarded).fold(0.0, f64::max);
        let last = curve.points.last();
        Row::Cells(vec![
            curve.candidate.clone(),
            format!("{:?}", curve.arrangement),
            mpps(curve.loss_free),
            mpps(most),
            last.map_or_else(String::new, |point| mpps(point.offered)),
            last.map_or_else(String::new, |point| percent(point.loss)),
        ])
    };
    Section {
        title: "Rates that come through".to_owned(),
        columns: vec![
            " candidate",
            " arrangement",
            "loss-free (at most 1 %), Mpps",
            "most forwarded, Mpps",
            "at the highest rate, Mpps",
            "lost there",
        ],
        rows: results.loss.iter().map(row).collect(),
        ..Section::default()
    }
}

/// How long frames take.
pub(super) fn latency(results: &Results) -> Section {
    let mut rows = Vec::new();
    for probe in [Probe::OneWay, Probe::OneWayHalfLoad, Probe::RoundTrip] {
        for arrangement in Arrangement::ALL {
            let its = |latency: &&Latency| latency.probe == probe && latency.arrangement == arrangement;
            let mut latencies = results.latency.iter().filter(its).peekable();
            if latencies.peek().is_some() {
                rows.push(Row::Group(format!("{}, {arrangement:?}", probe_name(probe))));
            }
            rows.extend(latencies.map(|latency| {
                Row::Cells(vec![
                    latency.candidate.clone(),
                    mpps(latency.rate),
                    percent(latency.loss),
                    format!("{:.1}", latency.p50),
                    format!("{:.1}", latency.p99),
                ])
            }));
        }
    }
    Section {
        title: "Latency".to_owned(),
        columns: vec![" candidate", "sent, Mpps", "lost", "p50, µs", "p99, µs"],
        rows,
        ..Section::default()
    }
}

pub(super) fn probe_name(probe: Probe) -> &'static str {
    match probe {
        Probe::OneWay => "one way at 100,000 frames a second",
        Probe::OneWayHalfLoad => "one way at half of its loss-free rate",
        Probe::RoundTrip => "there and back, one frame at a time",
    }
}

/// Real knocks among others.
pub(super) fn deafness(results: &Results) -> Section {
    let row = |deafness: &Deafness| {
        Row::Cells(vec![
            deafness.candidate.clone(),
            format!("{:.0}", deafness.flood),
            format!("{}/{}", deafness.heard, deafness.knocks),
            deafness.cpu.map_or_else(|| "–".to_owned(), percent),
        ])
    };
    Section {
        title: "Real knocks heard in a flood of first knocks".to_owned(),
        columns: vec![" candidate", "first knocks/s", "heard", "core"],
        rows: results.deafness.iter().map(row).collect(),
        ..Section::default()
    }
}

/// What knockplane takes besides packets.
pub(super) fn upkeep(results: &Results) -> Section {
    let rows = results.upkeep.iter().flat_map(|upkeep| {
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        [
            ("from start to the first frame forwarded", format!("{:.2} s", upkeep.start_seconds)),
            ("of a core, idle", format!("{:.2} %", upkeep.idle * 100.0)),
            ("resident", mebibytes(upkeep.resident_bytes)),
            ("of it entries of lists and their index", mebibytes(upkeep.table_bytes)),
        ]
    });
    Section {
        title: "Start, idleness and memory of knockplane".to_owned(),
        columns: vec![" what", "value"],
        rows: rows.map(|(what, value)| Row::Cells(vec![what.to_owned(), value])).collect(),
        ..Section::default()
    }
}
