//! The tables of a run of the comparison. They follow from the results alone, so that a results file can be shown
//! again.

use super::candidate::CandidateKind;
use super::results::{Arrangement, CoreUse, Latency, Probe, Results, Series, Throughput, quantile};
use super::targets;
use crate::report::{NONE, ResultTable};

/// All tables, in the order in which they are shown.
pub fn all(results: &Results) -> Vec<ResultTable> {
    let mut left_out = ResultTable::new("left-out", "Left out", &[]);
    left_out.notes.clone_from(&results.left_out);
    let mut tables = throughput(results);
    tables.extend([
        loss(results),
        latency(results),
        deafness(results),
        upkeep(results),
        targets::table(results),
        targets::nftables_ahead(results),
        left_out,
    ]);
    tables
}

/// The points of the loss curves. They are written for plots and not shown.
pub fn loss_points(results: &Results) -> ResultTable {
    let columns = ["arrangement", "candidate", "offered, frames/s", "part lost"];
    let points = results.loss.iter().flat_map(|curve| {
        // A candidate that slows the generator down can be offered less at a higher requested rate.
        let mut points: Vec<(f64, f64)> = curve.points.iter().map(|point| (point.offered, point.loss)).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points.into_iter().map(|(offered, loss)| {
            vec![curve.arrangement.to_string(), curve.candidate.clone(), format!("{offered:.0}"), format!("{loss:.5}")]
        })
    });
    ResultTable::new("loss-points", "Loss by offered rate", &columns).with_rows(points)
}

/// The kind of run, and the machine.
pub fn heading(results: &Results) -> String {
    let kind = if results.quick { "Quick run" } else { "Full run" };
    let (minutes, seconds) = (results.took as u64 / 60, results.took as u64 % 60);
    format!("{kind} of {minutes} min {seconds} s on {}.", results.machine)
}

/// Millions of frames a second, with at least three significant digits.
pub(super) fn mpps(rate: f64) -> String {
    let rate = rate / 1e6;
    let decimals = if rate < 0.0995 { 4 } else { 3 };
    format!("{rate:.decimals$}")
}

/// A part of 1 as percent.
pub(super) fn percent(part: f64) -> String {
    // The sum of no parts is -0.0; adding 0.0 removes the sign.
    if part > 0.0 && part < 0.0005 { "<0.1 %".to_owned() } else { format!("{:.1} %", part * 100.0 + 0.0) }
}

/// Bytes as MiB.
pub(super) fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

/// Rates under load: the single loads, then the two series.
fn throughput(results: &Results) -> Vec<ResultTable> {
    let columns = |first| {
        let others = ["p90, Mpps", "median", "spread", "lost", "lost where", "core 0 u/s/si", "core 1 u/s/si"];
        [&[first, "arrangement", "candidate"][..], &others[..], &["knockplane ÷ this"][..]].concat()
    };
    let mut single = ResultTable::new("throughput", "Throughput", &columns("load"));
    let mut rules = ResultTable::new("rules", "Throughput behind rules that match nothing", &columns("rules in front"));
    let mut entries = ResultTable::new("entries", "Throughput with entries in the list", &columns("entries"));
    for row in &results.throughput {
        let (table, load) = match row.series {
            None => (&mut single, row.load.clone()),
            Some(Series::Rules(number)) => (&mut rules, number.to_string()),
            Some(Series::Entries(number)) => (&mut entries, number.to_string()),
        };
        table.rows.push(rate(results, row, load));
    }
    let mut tables = [single, rules, entries];
    if let Some(first) = tables.iter_mut().find(|table| !table.is_empty()) {
        first.notes.extend(disturbance(results));
        first.notes.push(
            "Millions of frames a second that arrived (forward, rules, entries) or were decided (drop, knocks). \
             S: the kernel's receive side runs on the generator's core. T: all of the filter runs on core 1. Cores: \
             percent of the time in user, system and softirq."
                .to_owned(),
        );
    }
    tables.to_vec()
}

fn rate(results: &Results, row: &Throughput, load: String) -> Vec<String> {
    let ours = results.rate(&row.load, row.arrangement, CandidateKind::Knockplane.name());
    let ratio = ours.map(|ours| ours / row.rate(0.9)).filter(|ratio| ratio.is_finite());
    vec![
        load,
        row.arrangement.to_string(),
        row.candidate.clone(),
        mpps(row.rate(0.9)),
        mpps(row.rate(0.5)),
        percent(row.spread()),
        percent(row.lost().iter().map(|(_, part)| part).sum()),
        lost_where(row),
        core_use(row, 0),
        core_use(row, 1),
        ratio.map_or_else(|| NONE.to_owned(), |ratio| format!("{ratio:.2}")),
    ]
}

/// The part of core 1 that can be busy in S, with a candidate in the kernel, on an otherwise idle machine.
const DISTURBED: f64 = 0.15;

/// A warning if other work ran: in S, a candidate that works in the kernel leaves core 1 idle.
fn disturbance(results: &Results) -> Option<String> {
    let in_kernel =
        [CandidateKind::Nftables, CandidateKind::NftablesBridge, CandidateKind::Xdp].map(CandidateKind::name);
    let is_idle = |row: &&Throughput| row.arrangement == Arrangement::S && in_kernel.contains(&&*row.candidate);
    let windows = results.throughput.iter().filter(is_idle).flat_map(|row| &row.windows);
    let used: Vec<f64> =
        windows.filter_map(|window| window.cores.get(1)).map(|core| core.user + core.system + core.softirq).collect();
    let used = quantile(&used, 0.5);
    (used > DISTURBED).then(|| {
        format!(
            "**Other work ran on this machine**: core 1 was busy for {} of the time while no candidate used it. These \
             figures are not reliable.",
            percent(used)
        )
    })
}

/// The two largest losses, and always the frames that no counter explains.
fn lost_where(row: &Throughput) -> String {
    let lost = row.lost().into_iter().enumerate();
    let main = lost.filter(|(place, (name, part))| *name == "nowhere" || *place < 2 && *part >= 0.001);
    main.map(|(_, (name, part))| format!("{name} {}", percent(part))).collect::<Vec<_>>().join(", ")
}

/// Means over the windows, so that the parts add up.
fn core_use(row: &Throughput, core: usize) -> String {
    let part = |part: fn(&CoreUse) -> f64| {
        let sum: f64 = row.windows.iter().filter_map(|window| window.cores.get(core)).map(part).sum();
        sum / row.windows.len() as f64 * 100.0
    };
    format!("{:.0}/{:.0}/{:.0}", part(|core| core.user), part(|core| core.system), part(|core| core.softirq))
}

fn loss(results: &Results) -> ResultTable {
    let columns = [
        "arrangement",
        "candidate",
        "loss-free (at most 1 %), Mpps",
        "most forwarded, Mpps",
        "at the highest rate, Mpps",
        "lost there",
    ];
    let rows = results.loss.iter().map(|curve| {
        let last = curve.points.last();
        vec![
            curve.arrangement.to_string(),
            curve.candidate.clone(),
            mpps(curve.loss_free),
            mpps(curve.points.iter().map(|point| point.forwarded).fold(0.0, f64::max)),
            last.map_or_else(String::new, |point| mpps(point.offered)),
            last.map_or_else(String::new, |point| percent(point.loss)),
        ]
    });
    ResultTable::new("loss", "Rates without loss", &columns).with_rows(rows)
}

fn latency(results: &Results) -> ResultTable {
    let columns = ["probe", "arrangement", "candidate", "sent, Mpps", "lost", "p50, µs", "p99, µs"];
    let row = |latency: &Latency| {
        vec![
            probe_name(latency.probe).to_owned(),
            latency.arrangement.to_string(),
            latency.candidate.clone(),
            mpps(latency.rate),
            percent(latency.loss),
            format!("{:.1}", latency.p50),
            format!("{:.1}", latency.p99),
        ]
    };
    let mut latencies: Vec<&Latency> = results.latency.iter().collect();
    latencies.sort_by_key(|latency| (latency.probe, latency.arrangement));
    ResultTable::new("latency", "Latency", &columns).with_rows(latencies.into_iter().map(row))
}

fn probe_name(probe: Probe) -> &'static str {
    match probe {
        Probe::OneWay => "one way at 100,000 frames a second",
        Probe::OneWayHalfLoad => "one way at half of its loss-free rate",
        Probe::RoundTrip => "round trip, one frame at a time",
    }
}

fn deafness(results: &Results) -> ResultTable {
    let rows = results.deafness.iter().map(|flood| {
        vec![
            flood.candidate.clone(),
            format!("{:.0}", flood.flood),
            flood.heard.to_string(),
            flood.knocks.to_string(),
            flood.cpu.map_or_else(|| NONE.to_owned(), percent),
        ]
    });
    let columns = ["candidate", "first knocks/s", "heard", "of knocks", "core"];
    ResultTable::new("deafness", "Real knocks heard in a flood of first knocks", &columns).with_rows(rows)
}

fn upkeep(results: &Results) -> ResultTable {
    let rows = results.upkeep.iter().flat_map(|upkeep| {
        [
            ("from start to the first frame forwarded", format!("{:.2} s", upkeep.start_seconds)),
            ("part of a core, idle", format!("{:.2} %", upkeep.idle * 100.0)),
            ("resident memory", mebibytes(upkeep.resident_bytes as f64)),
            ("of it list entries and their index", mebibytes(upkeep.table_bytes as f64)),
        ]
    });
    let rows = rows.map(|(property, value)| vec![property.to_owned(), value]);
    ResultTable::new("upkeep", "Start, idle load and memory of knockplane", &["property", "value"]).with_rows(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{
        Counted, DROP, Deafness, FIRST_KNOCKS, FORWARD, LossCurve, LossPoint, Upkeep, Window,
    };

    fn row(load: &str, series: Option<Series>, arrangement: Arrangement, kind: CandidateKind, rate: u64) -> Throughput {
        let window = |frames| Window {
            seconds: 1.0,
            offered: 2 * frames,
            decided: frames,
            forwarded: frames,
            lost: [("fill-ring-empty".to_owned(), frames)].into(),
            cores: Vec::new(),
        };
        Throughput {
            load: load.to_owned(),
            series,
            arrangement,
            candidate: kind.to_string(),
            counted: Counted::Forwarded,
            windows: [rate, rate / 2, rate].map(window).to_vec(),
        }
    }

    /// Some results of each kind, with simple numbers.
    fn results() -> Results {
        let mut results = Results::default();
        for arrangement in Arrangement::ALL {
            let candidates = [
                (CandidateKind::Knockplane, 1_000_000, 4_000_000),
                (CandidateKind::KnockplaneUserspace, 1_000_000, 4_000_000),
                (CandidateKind::Smallest, 1_020_000, 8_000_000),
                (CandidateKind::Nftables, 1_500_000, 1_600_000),
                (CandidateKind::Xdp, 4_000_000, 9_000_000),
            ];
            let rows = &mut results.throughput;
            rows.extend(candidates.map(|(kind, forwarded, _)| row(FORWARD, None, arrangement, kind, forwarded)));
            rows.extend(candidates.map(|(kind, _, dropped)| row(DROP, None, arrangement, kind, dropped)));
            let knocks = [(CandidateKind::Knockplane, 1_000_000), (CandidateKind::KnockplaneDoor, 750_000)];
            rows.extend(knocks.map(|(kind, decided)| row(FIRST_KNOCKS, None, arrangement, kind, decided)));
            for rules in [1, 1_000] {
                let (name, series) = (format!("{rules} rules"), Some(Series::Rules(rules)));
                rows.extend(candidates.map(|(kind, rate, _)| row(&name, series, arrangement, kind, rate / rules)));
            }
            let latency = |kind: CandidateKind, p50| Latency {
                arrangement,
                candidate: kind.to_string(),
                probe: Probe::OneWay,
                rate: 1e5,
                loss: 0.0,
                p50,
                p99: 3.0 * p50,
            };
            results.latency.extend([latency(CandidateKind::Knockplane, 6.0), latency(CandidateKind::Smallest, 4.0)]);
            let point = |rate, loss| LossPoint { rate, offered: rate, forwarded: rate * (1.0 - loss), loss };
            results.loss.push(LossCurve {
                arrangement,
                candidate: CandidateKind::Knockplane.to_string(),
                points: vec![point(1e6, 0.5), point(1e5, 0.0)],
                loss_free: 1e5,
            });
        }
        let heard =
            |flood, heard| Deafness { candidate: "knockd".to_owned(), flood, knocks: 20, heard, cpu: Some(0.5) };
        results.deafness = vec![heard(0.0, 20), heard(1e3, 19), heard(1e4, 0)];
        results.upkeep =
            Some(Upkeep { start_seconds: 0.5, idle: 0.02, resident_bytes: 100 << 20, table_bytes: 40 << 20 });
        results.left_out = vec!["ten million entries: memory".to_owned()];
        results
    }

    fn text(results: &Results) -> String {
        all(results).iter().filter(|table| !table.is_empty()).map(ResultTable::markdown).collect()
    }

    /// The cells of the first line with these words.
    fn line<'text>(text: &'text str, words: &[&str]) -> Vec<&'text str> {
        let has_words = |line: &&str| words.iter().all(|word| line.contains(word));
        let line = text.lines().find(has_words).unwrap_or_else(|| panic!("no line with {words:?} in\n{text}"));
        line.trim_matches('|').split('|').map(str::trim).collect()
    }

    #[test]
    fn rates_and_parts_have_significant_digits() {
        assert_eq!([4.651e6, 0.1e6, 5_812.0].map(mpps), ["4.651", "0.100", "0.0058"]);
        assert_eq!([0.0, -0.0, 0.0001, 0.0234, 1.0].map(percent), ["0.0 %", "0.0 %", "<0.1 %", "2.3 %", "100.0 %"]);
    }

    #[test]
    fn rates_are_compared_with_knockplane() {
        let text = text(&results());
        let cells = line(&text, &[DROP, "| T ", "nftables"]);
        assert_eq!(cells[..5], [DROP, "T", "nftables", "1.600", "1.600"]);
        assert_eq!(cells[7], "fill-ring-empty 50.0 %");
        assert_eq!(cells.last(), Some(&"2.50"));
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let text = text(&results());
        let ends = |words: &[&str]| line(&text, words).split_off(2);
        assert_eq!(ends(&["forward 60 B, S", "÷ smallest"]), ["0.98", "met"]);
        assert_eq!(ends(&["drop 60 B, T", "÷ smallest"]), ["0.50", "MISSED"]);
        assert_eq!(ends(&["drop 60 B, T", "÷ nftables"]), ["2.50", "met"]);
        assert_eq!(ends(&["forward 60 B, T", "÷ nftables"]), ["0.67", "MISSED"]);
        assert_eq!(ends(&["forward 60 B, S", "÷ xdp-parse"])[1], "not measured");
        assert_eq!(ends(&["÷ nftables-rps"])[1], "not measured");
        assert_eq!(ends(&["lists full, T", "knockplane-door ÷ knockplane"]), ["0.75", "MISSED"]);
        assert_eq!(ends(&["one-way p50", "T:"]), ["1.50", "MISSED"]);
        assert_eq!(ends(&["one-way p50", "S:"])[1], "not measured");
        assert_eq!(ends(&["resident memory without"]), ["60.0 MiB", "met"]);
        assert_eq!(ends(&["no counter or two counters"]), ["0", "met"]);
        let empty = super::tests::text(&Results::default());
        assert!(empty.is_empty(), "{empty}");
    }

    #[test]
    fn an_unexplained_loss_is_shown() {
        let mut results = results();
        results.throughput[0].windows[0].lost.insert("nowhere".to_owned(), 7);
        let text = text(&results);
        assert_eq!(line(&text, &["no counter or two counters"]).split_off(2), ["7", "MISSED"]);
        assert!(line(&text, &["knockplane", "nowhere"])[7].ends_with("nowhere <0.1 %"));
    }

    #[test]
    fn loads_with_nftables_ahead_are_listed() {
        let results = results();
        let table = targets::nftables_ahead(&results);
        assert!(table.rows.iter().all(|row| !row[0].starts_with("drop")), "{table:?}");
        assert_eq!(line(&table.markdown(), &[FORWARD, "| S "]), [FORWARD, "S", "1.000", "nftables", "1.500", "1.50"]);
        line(&text(&results), &["ten million entries: memory"]);
    }

    #[test]
    fn points_of_loss_curves_ascend_by_rate() {
        let points = loss_points(&results());
        assert_eq!(
            points.rows[..2],
            [["S", "knockplane", "100000", "0.00000"], ["S", "knockplane", "1000000", "0.50000"]]
        );
    }

    #[test]
    fn results_are_read_back_from_their_file() {
        let file = serde_json::to_string(&results()).expect("JSON");
        assert_eq!(serde_json::from_str::<Results>(&file).expect("its own JSON"), results());
    }
}
