//! How results are shown: the same sections for terminals and as Markdown, and plots. All from the results alone, so
//! that a run can be shown again from its file.

mod figures;
mod plot;
mod section;
mod tables;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::results::{Machine, Results};
use section::Section;

/// Everything, for a terminal.
pub fn text(results: &Results) -> String {
    let sections: String = sections(results).iter().map(Section::text).collect();
    format!("{}\n\n{sections}", heading(results))
}

/// Everything, for docs/benchmarks.md, with links to the plots beside it.
pub fn markdown(results: &Results) -> String {
    let sections: String = sections(results).iter().map(Section::markdown).collect();
    let plots = figures::all(results);
    let plots: String = plots.iter().map(|plot| format!("![{}]({PLOTS}/{}.svg)\n\n", plot.title, plot.file)).collect();
    format!("{}\n\n{plots}{}\n", heading(results), sections.trim_end())
}

/// Where plots are, seen from the Markdown.
const PLOTS: &str = "plots";

/// Writes Markdown and plots into a folder, and says where they are.
///
/// # Errors
/// If they cannot be written.
pub fn write(results: &Results, folder: &Path) -> Result<Vec<PathBuf>> {
    let plots = folder.join(PLOTS);
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let mut files = vec![(folder.join("report.md"), markdown(results))];
    for figure in figures::all(results) {
        files.push((plots.join(figure.file).with_extension("svg"), plot::svg(&figure)?));
    }
    for (path, content) in &files {
        fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

fn sections(results: &Results) -> Vec<Section> {
    let mut sections = tables::throughput(results);
    sections.extend([
        tables::loss(results),
        tables::latency(results),
        tables::deafness(results),
        tables::upkeep(results),
        targets::section(results),
        targets::nftables_ahead(results),
        Section { title: "Left out".to_owned(), text: results.left_out.clone(), ..Section::default() },
    ]);
    sections.retain(|section| !section.is_empty());
    sections
}

/// What was run, and on what.
fn heading(results: &Results) -> String {
    let Machine { cpu, cores, kernel, memory, compiler, nftables } = &results.machine;
    let kind = if results.quick { "Quick run" } else { "Full run" };
    let (minutes, seconds) = (results.took as u64 / 60, results.took as u64 % 60);
    let gibibytes = *memory as f64 / f64::from(1 << 30);
    format!(
        "{kind} of {minutes} min {seconds} s on {cores} × {cpu}, {gibibytes:.0} GiB, Linux {kernel}, {compiler}, {nftables}."
    )
}

/// Millions of frames a second, with three digits that mean something.
fn mpps(rate: f64) -> String {
    let rate = rate / 1e6;
    let decimals = if rate < 0.0995 { 4 } else { 3 };
    format!("{rate:.decimals$}")
}

/// A part as percent.
fn percent(part: f64) -> String {
    if part > 0.0 && part < 0.0005 { "<0.1 %".to_owned() } else { format!("{:.1} %", part * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::candidate::Kind;
    use crate::compare::results::{
        Arrangement, Counted, DROP, Deafness, FORWARD, Latency, LossCurve, LossPoint, Probe, Series, Throughput,
        Upkeep, Window,
    };

    fn row(load: &str, series: Option<Series>, arrangement: Arrangement, kind: Kind, rate: u64) -> Throughput {
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

    /// Of each kind of result a few, with numbers that are easy.
    fn results() -> Results {
        let mut results = Results::default();
        for arrangement in Arrangement::ALL {
            let candidates = [
                (Kind::Knockplane, 1_000_000, 4_000_000),
                (Kind::Smallest, 1_020_000, 8_000_000),
                (Kind::Nftables, 1_500_000, 1_600_000),
                (Kind::Xdp, 4_000_000, 9_000_000),
            ];
            let rows = &mut results.throughput;
            rows.extend(candidates.map(|(kind, forwarded, _)| row(FORWARD, None, arrangement, kind, forwarded)));
            rows.extend(candidates.map(|(kind, _, dropped)| row(DROP, None, arrangement, kind, dropped)));
            for rules in [1, 1_000] {
                let (name, series) = (format!("{rules} rules"), Some(Series::Rules(rules)));
                rows.extend(candidates.map(|(kind, rate, _)| row(&name, series, arrangement, kind, rate / rules)));
            }
            let latency = |kind: Kind, p50| Latency {
                arrangement,
                candidate: kind.to_string(),
                probe: Probe::OneWay,
                rate: 1e5,
                loss: 0.0,
                p50,
                p99: 3.0 * p50,
            };
            results.latency.extend([latency(Kind::Knockplane, 6.0), latency(Kind::Smallest, 4.0)]);
            let point = |rate, loss| LossPoint { rate, offered: rate, forwarded: rate * (1.0 - loss), loss };
            results.loss.push(LossCurve {
                arrangement,
                candidate: Kind::Knockplane.to_string(),
                points: vec![point(1e5, 0.0), point(1e6, 0.5)],
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

    /// The line with these words.
    fn line<'text>(text: &'text str, words: &[&str]) -> &'text str {
        let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
        text.lines().find(is_it).unwrap_or_else(|| panic!("no line with {words:?} in\n{text}"))
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!([4.651e6, 0.1e6, 5_812.0].map(mpps), ["4.651", "0.100", "0.0058"]);
        assert_eq!([0.0, 0.0001, 0.0234, 1.0].map(percent), ["0.0 %", "<0.1 %", "2.3 %", "100.0 %"]);
    }

    #[test]
    fn rates_are_compared_with_ours() {
        let text = text(&results());
        let (_, drop) = text.split_once(&format!("{DROP}, T")).expect("the group");
        let words: Vec<&str> = line(drop, &["nftables"]).split_whitespace().collect();
        assert_eq!(words[..3], ["nftables", "1.600", "1.600"]);
        assert_eq!(words.last(), Some(&"2.50"));
        assert!(line(drop, &["nftables"]).contains("fill-ring-empty 50.0 %"));
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let text = text(&results());
        assert!(line(&text, &["forward 60 B, S", "÷ smallest"]).ends_with("0.98  met"));
        assert!(line(&text, &["drop 60 B, T", "÷ smallest"]).ends_with("0.50  MISSED"));
        assert!(line(&text, &["drop 60 B, T", "÷ nftables"]).ends_with("2.50  met"));
        assert!(line(&text, &["÷ nftables-rps"]).ends_with("not measured"));
        assert!(line(&text, &["one-way p50", "T:"]).ends_with("1.50  MISSED"));
        assert!(line(&text, &["one-way p50", "S:"]).ends_with("not measured"));
        assert!(line(&text, &["resident besides"]).ends_with("60.0 MiB  met"));
        assert!(line(&text, &["no counter, or two"]).ends_with("0  met"));
        let empty = super::text(&Results::default());
        assert!(!empty.contains(" met") && !empty.contains("MISSED"), "{empty}");
    }

    #[test]
    fn a_loss_without_a_name_is_seen() {
        let mut results = results();
        results.throughput[0].windows[0].lost.insert("nowhere".to_owned(), 7);
        let text = text(&results);
        assert!(line(&text, &["no counter, or two"]).ends_with("7  MISSED"));
        line(&text, &["knockplane", "nowhere <0.1 %"]);
    }

    #[test]
    fn it_says_where_nftables_is_ahead() {
        let text = text(&results());
        assert!(line(&text, &["- forward 60 B, S: "]).ends_with("nftables 1.500, which is 1.50 times as much."));
        assert!(!text.contains("- drop"), "{text}");
        line(&text, &["ten million entries: memory"]);
    }

    #[test]
    fn there_is_a_plot_for_whatever_was_measured() {
        let files = |results: &Results| figures::all(results).iter().map(|figure| figure.file).collect::<Vec<_>>();
        assert!(files(&Results::default()).is_empty());
        let results = results();
        assert_eq!(files(&results), ["throughput", "rules", "loss", "latency", "deafness"]);
        for figure in figures::all(&results) {
            let svg = plot::svg(&figure).expect("a picture");
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains(&figure.title), "{} {svg}", figure.title);
            assert!(markdown(&results).contains(&format!("](plots/{}.svg)", figure.file)));
        }
        // Also of a run that ended early, or in which nothing got through.
        let mut early = results.clone();
        early.throughput.retain(|row| row.load == "1 rules");
        early.throughput.iter_mut().flat_map(|row| &mut row.windows).for_each(|window| window.forwarded = 0);
        for figure in figures::all(&early) {
            plot::svg(&figure).expect("a picture");
        }
        let rules = figures::all(&results).swap_remove(1);
        assert!(rules.title.contains("nftables forwards 1.5 times as many frames as knockplane"), "{}", rules.title);
    }

    #[test]
    fn results_come_back_from_their_file() {
        let file = serde_json::to_string(&results()).expect("JSON");
        assert_eq!(serde_json::from_str::<Results>(&file).expect("its own JSON"), results());
    }
}
