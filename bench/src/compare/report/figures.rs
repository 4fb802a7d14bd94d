//! Which pictures there are, and what they say.

use super::mpps;
use super::plot::{Axes, Axis, Bar, Bars, Curves, Figure, Panels, Ranges};
use super::tables::probe_name;
use crate::compare::candidate::Kind;
use crate::compare::results::{
    Arrangement, DROP, Deafness, FORWARD, Latency, LossCurve, Probe, Results, Series, Throughput,
};

/// Those that there are results for.
pub(super) fn all(results: &Results) -> Vec<Figure> {
    [throughput, rules, entries, loss, latency, deafness].iter().filter_map(|figure| figure(results)).collect()
}

/// Rates of the loads that stand by themselves: a row each, S and T beside each other.
fn throughput(results: &Results) -> Option<Figure> {
    let rows: Vec<&Throughput> = results.throughput.iter().filter(|row| row.series.is_none()).collect();
    let mut loads: Vec<&str> = rows.iter().map(|row| row.load.as_str()).collect();
    loads.dedup();
    let mut panels = Vec::new();
    for load in loads {
        let of_load: Vec<&&Throughput> = rows.iter().filter(|row| row.load == load).collect();
        // The bound in the driver would make all others small.
        let compared = of_load.iter().filter(|row| row.candidate != Kind::Xdp.name());
        let most = compared.map(|row| row.rate(0.9)).fold(0.0, f64::max) * 1.02;
        for arrangement in Arrangement::ALL {
            let its = of_load.iter().filter(|row| row.arrangement == arrangement);
            let bar = |row: &&&Throughput| Bar {
                name: row.candidate.clone(),
                value: row.rate(0.9),
                mark: row.rate(0.5),
                label: per_second(row.rate(0.9)),
            };
            let heading = format!("{load} · {arrangement:?}");
            panels.push(Bars { heading, most, bars: its.map(bar).collect() });
        }
    }
    let rates = |kind: Kind| {
        let rate = |load| results.rate(load, Arrangement::S, kind.name()).map(mpps);
        rate(DROP).zip(rate(FORWARD))
    };
    let title = match (rates(Kind::Knockplane), rates(Kind::Nftables)) {
        (Some(ours), Some(theirs)) => format!(
            "60 B frames: knockplane drops {} and forwards {} Mpps, nftables {} and {} (S)",
            ours.0, ours.1, theirs.0, theirs.1
        ),
        _ => "Frames a second under load".to_owned(),
    };
    (!panels.is_empty()).then(|| Figure {
        file: "throughput",
        title,
        subtitle: "Frames a second, longer is better: 90th percentile of windows that took turns; white line: median. \
                   Each row has its own scale.\nS: the kernel's receive side on the generator's core. T: all of the \
                   filter on one core. xdp filters nothing: it is the bound, and may be cut."
            .to_owned(),
        panels: Panels::Bars(panels),
    })
}

/// Rates over the rules in front.
fn rules(results: &Results) -> Option<Figure> {
    let rules = |series| if let Some(Series::Rules(rules)) = series { Some(rules as f64) } else { None };
    let panels = series(results, rules);
    let axis = Axis { label: "rules that match nothing in front", is_logarithmic: true, ..x_axis(&panels, grouped) };
    let (least, most) = bounds(&panels, |(_, y)| y);
    let y = Axis { label: "frames a second", least: least / 1.5, most: most * 1.5, is_logarithmic: true, shown: short };
    let title =
        compared(results, rules, 1_000.0, "1,000 rules").unwrap_or_else(|| "Forwarding behind rules".to_owned());
    (!panels.is_empty()).then(|| Figure {
        file: "rules",
        title,
        subtitle: "One flow forwarded, 60 B, 90th percentile of windows; higher is better. Both axes are logarithmic."
            .to_owned(),
        panels: Panels::Curves(Axes { x: axis, y }, panels),
    })
}

/// Rates over the entries of the list.
fn entries(results: &Results) -> Option<Figure> {
    let entries = |series| if let Some(Series::Entries(entries)) = series { Some(entries as f64) } else { None };
    let panels = series(results, entries);
    let axis = Axis { label: "sources in the list, all of which send", is_logarithmic: true, ..x_axis(&panels, short) };
    let (_, most) = bounds(&panels, |(_, y)| y);
    let y = Axis { label: "frames a second", least: 0.0, most: most * 1.1, is_logarithmic: false, shown: short };
    let (_, last) = bounds(&panels, |(x, _)| x);
    let title = compared(results, entries, last, &format!("{} entries", grouped(last)))
        .unwrap_or_else(|| "Forwarding with long lists".to_owned());
    (!panels.is_empty()).then(|| Figure {
        file: "entries",
        title,
        subtitle: "Frames of random sources forwarded, 60 B, 90th percentile of windows; higher is better.".to_owned(),
        panels: Panels::Curves(Axes { x: axis, y }, panels),
    })
}

/// A panel for each arrangement, with the rates of those loads that have a place on the axis.
fn series(results: &Results, place: fn(Option<Series>) -> Option<f64>) -> Vec<Curves> {
    let panel = |arrangement| {
        let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for row in results.throughput.iter().filter(|row| row.arrangement == arrangement) {
            let Some(x) = place(row.series) else { continue };
            let point = (x, row.rate(0.9));
            match curves.iter_mut().find(|(name, _)| *name == row.candidate) {
                Some((_, points)) => points.push(point),
                None => curves.push((row.candidate.clone(), vec![point])),
            }
        }
        Curves { heading: arrangement_name(arrangement).to_owned(), curves }
    };
    Arrangement::ALL.map(panel).into_iter().filter(|panel| !panel.curves.is_empty()).collect()
}

/// A sentence on knockplane and nftables in S at this place of a series.
fn compared(results: &Results, place: fn(Option<Series>) -> Option<f64>, at: f64, with: &str) -> Option<String> {
    let rate = |kind: Kind| {
        let its = |row: &&Throughput| {
            row.arrangement == Arrangement::S && row.candidate == kind.name() && place(row.series) == Some(at)
        };
        results.throughput.iter().find(its).map(|row| row.rate(0.9)).filter(|rate| *rate > 0.0)
    };
    let (ours, others) = (rate(Kind::Knockplane)?, rate(Kind::Nftables)?);
    Some(match ours / others {
        0.9..1.1 => format!("With {with}, knockplane and nftables forward about the same (S)"),
        ratio @ 1.0.. => format!("With {with}, knockplane forwards {ratio:.1} times as many frames as nftables (S)"),
        ratio => format!("With {with}, nftables forwards {:.1} times as many frames as knockplane (S)", ratio.recip()),
    })
}

/// The part that is lost over the rate.
fn loss(results: &Results) -> Option<Figure> {
    let panel = |arrangement| {
        let its = results.loss.iter().filter(|curve| curve.arrangement == arrangement);
        let curve = |curve: &LossCurve| {
            let mut points: Vec<(f64, f64)> = curve.points.iter().map(|point| (point.offered, point.loss)).collect();
            // Who holds the generator back may be offered less when more was asked for.
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            (curve.candidate.clone(), points)
        };
        Curves { heading: arrangement_name(arrangement).to_owned(), curves: its.map(curve).collect() }
    };
    let mut panels: Vec<Curves> = Arrangement::ALL.map(panel).to_vec();
    panels.retain(|panel| !panel.curves.is_empty());
    let ours = |arrangement| {
        let its = |curve: &&LossCurve| curve.arrangement == arrangement && curve.candidate == Kind::Knockplane.name();
        results.loss.iter().find(its).map(|curve| per_second(curve.loss_free))
    };
    let title = match (ours(Arrangement::S), ours(Arrangement::T)) {
        (Some(s), Some(t)) => format!("knockplane forwards {s} (S) and {t} (T) with at most 1 % lost"),
        _ => "Frames lost over the rate".to_owned(),
    };
    let x = Axis { label: "frames a second offered", is_logarithmic: true, ..x_axis(&panels, short) };
    let y = Axis {
        label: "lost",
        least: 0.0,
        most: 1.0,
        is_logarithmic: false,
        shown: |part| format!("{:.0} %", part * 100.0),
    };
    (!panels.is_empty()).then(|| Figure {
        file: "loss",
        title,
        subtitle: "Part of one flow that is lost, 60 B, median of windows; lower and further right is better."
            .to_owned(),
        panels: Panels::Curves(Axes { x, y }, panels),
    })
}

/// From the median to the 99th percentile.
fn latency(results: &Results) -> Option<Figure> {
    let values = || results.latency.iter().filter(|latency| latency.p50 > 0.0);
    let least = values().map(|latency| latency.p50).fold(f64::MAX, f64::min) / 1.3;
    let most = values().map(|latency| latency.p99.max(latency.p50)).fold(0.0, f64::max) * 1.1;
    let mut panels = Vec::new();
    for probe in [Probe::OneWay, Probe::OneWayHalfLoad, Probe::RoundTrip] {
        if !values().any(|latency| latency.probe == probe) {
            continue;
        }
        for arrangement in Arrangement::ALL {
            let its = values().filter(|latency| latency.probe == probe && latency.arrangement == arrangement);
            let range = |latency: &Latency| (latency.candidate.clone(), latency.p50, latency.p99.max(latency.p50));
            let heading = format!("{} · {arrangement:?}", probe_name(probe));
            panels.push(Ranges { heading, least, most, ranges: its.map(range).collect() });
        }
    }
    let ours = values().find(|latency| {
        latency.candidate == Kind::Knockplane.name()
            && latency.probe == Probe::OneWay
            && latency.arrangement == Arrangement::S
    });
    let title = ours.map_or_else(
        || "How long frames take".to_owned(),
        |ours| format!("Half of the frames are through knockplane in {:.1} µs at 100,000 a second (S)", ours.p50),
    );
    (!panels.is_empty()).then(|| Figure {
        file: "latency",
        title,
        subtitle: "Microseconds from the median (dot) to the 99th percentile (bar), on a logarithmic scale; further left is better."
            .to_owned(),
        panels: Panels::Ranges(panels),
    })
}

/// Real knocks heard over the flood.
fn deafness(results: &Results) -> Option<Figure> {
    let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for Deafness { candidate, flood, knocks, heard, .. } in &results.deafness {
        // Silence has no place on a logarithmic axis.
        if *flood <= 0.0 || *knocks == 0 {
            continue;
        }
        let point = (*flood, f64::from(*heard) / f64::from(*knocks));
        match curves.iter_mut().find(|(name, _)| name == candidate) {
            Some((_, points)) => points.push(point),
            None => curves.push((candidate.clone(), vec![point])),
        }
    }
    let panels = if curves.is_empty() { return None } else { vec![Curves { heading: String::new(), curves }] };
    let x =
        Axis { label: "first knocks a second, each of another source", is_logarithmic: true, ..x_axis(&panels, short) };
    let y = Axis {
        label: "real knocks heard",
        least: 0.0,
        most: 1.05,
        is_logarithmic: false,
        shown: |part| format!("{:.0} %", part * 100.0),
    };
    let least = |name: &str| {
        let its = results.deafness.iter().filter(|row| row.candidate == name && row.knocks > 0);
        its.map(|row| f64::from(row.heard) / f64::from(row.knocks)).reduce(f64::min)
    };
    let title = least(Kind::Knockplane.name()).map_or_else(
        || "Real knocks in a flood of first knocks".to_owned(),
        |least| match least {
            1.0.. => "knockplane hears every real knock in every flood".to_owned(),
            _ => format!("knockplane hears {:.0} % of the real knocks in the worst flood", least * 100.0),
        },
    );
    Some(Figure {
        file: "deafness",
        title,
        subtitle: "Real knocks that open the door while others begin to knock; higher and further right is better."
            .to_owned(),
        panels: Panels::Curves(Axes { x, y }, panels),
    })
}

fn x_axis(panels: &[Curves], shown: fn(f64) -> String) -> Axis {
    let (least, most) = bounds(panels, |(x, _)| x);
    // An axis has a length, also for one point.
    Axis { label: "", least, most: most.max(least * 2.0), is_logarithmic: false, shown }
}

/// The least and the most of what is more than nothing.
fn bounds(panels: &[Curves], coordinate: fn((f64, f64)) -> f64) -> (f64, f64) {
    let points = panels.iter().flat_map(|panel| &panel.curves).flat_map(|(_, points)| points);
    let values = points.map(|point| coordinate(*point)).filter(|value| *value > 0.0);
    let bounds = values.map(|value| (value, value));
    bounds.reduce(|(least, most), (value, _)| (least.min(value), most.max(value))).unwrap_or((1.0, 10.0))
}

fn arrangement_name(arrangement: Arrangement) -> &'static str {
    match arrangement {
        Arrangement::S => "S: receive side on the generator's core",
        Arrangement::T => "T: all of the filter on one core",
    }
}

/// `1.24 Mpps`, `312 kpps`.
fn per_second(rate: f64) -> String {
    if rate >= 999_500.0 {
        format!("{:.2} Mpps", rate / 1e6)
    } else if rate >= 99_500.0 {
        format!("{:.0} kpps", rate / 1e3)
    } else {
        format!("{:.1} kpps", rate / 1e3)
    }
}

/// `8.4 M`, `10 k`, `1`.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        n if n >= 999_500.0 => (n / 1e6, " M"),
        n if n >= 1_000.0 => (n / 1e3, " k"),
        n => (n, ""),
    };
    if number < 9.95 && number.fract() > 0.05 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

fn grouped(number: f64) -> String {
    crate::compare::plan::grouped(number as u64)
}
