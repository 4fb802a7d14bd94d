//! Measures what applies of rules cost accepted traffic: a probe sends 50,000 frames a second, in windows with applies one after
//! another, and in windows without, in turns.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::{Filter, FilterOptions};

use super::lab::{CANDIDATE_CORE, GENERATOR_CORE, Lab, traffic};
use super::probe::{Ends, Sample};
use super::results::{Arrangement, quantile};
use super::rules::CLIENT;
use crate::report::ResultTable;

/// Frames a second.
const RATE: f64 = 50_000.0;

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);

/// Time of frames on their way: a worker that shares its core with an apply may need some.
const ON_THEIR_WAY: Duration = Duration::from_millis(300);

/// A window of the probe.
#[derive(Debug)]
struct Window {
    sample: Sample,
    /// Frames that arrived at the filter and did not leave it.
    lost: u64,
}

/// Windows of one kind together.
#[derive(Debug)]
pub struct AppliesResult {
    /// Whether the kernel carries decided flows.
    pub has_fast_path: bool,
    /// Number of rules.
    pub rules: usize,
    /// Applies in these windows; 0 in windows without.
    pub applies: usize,
    /// Median time of an apply, in milliseconds: of the command, until it returns.
    pub apply: f64,
    windows: Vec<Window>,
}

/// A row for each kind of windows.
pub fn table(results: &[AppliesResult]) -> ResultTable {
    let columns = ["fast path", "rules", "applies", "an apply, ms", "frames", "lost", "p50, µs", "p99, µs"];
    let rows = results.iter().map(|result| {
        let total = |figure: fn(&Window) -> u64| result.windows.iter().map(figure).sum::<u64>().to_string();
        let median = |figure: fn(&Window) -> f64| {
            format!("{:.1}", quantile(&result.windows.iter().map(figure).collect::<Vec<_>>(), 0.5))
        };
        vec![
            if result.has_fast_path { "on" } else { "off" }.to_owned(),
            result.rules.to_string(),
            result.applies.to_string(),
            format!("{:.1}", result.apply),
            total(|window| window.sample.sent),
            total(|window| window.lost),
            median(|window| window.sample.p50),
            median(|window| window.sample.p99),
        ]
    });
    ResultTable::new("applies", "Applies of rules during accepted traffic", &columns).with_rows(rows)
}

/// Applies rule sets of this size `applies` times. Returns windows without applies, and those with them.
///
/// # Errors
/// Without root, or if an apply fails.
pub fn measure(has_fast_path: bool, rules: usize, applies: usize) -> Result<[AppliesResult; 2]> {
    let lab = Lab::new(Arrangement::S)?;
    lab.topology.allow_redirects()?;
    let texts = ["tcp", "udp"].map(|protocol| rule_set(rules, protocol));
    let fast_path = if has_fast_path { "" } else { "fast-path = \"off\"\n" };
    let options = FilterOptions {
        dataplane: format!("cores = [{CANDIDATE_CORE}]\n{fast_path}"),
        ..FilterOptions::from_rules(&texts[0])
    };
    let filter = Filter::start(&lab.topology, &options)?;
    let files = ["a.rsc", "b.rsc"].map(|name| filter.path(name));
    for (file, text) in files.iter().zip(&texts) {
        fs::write(file, text)?;
    }
    let files = files.map(|file| file.display().to_string());
    let mut ends = Ends::of(&lab.topology, "eth0")?;
    let (mut quiet, mut busy, mut times) = (Vec::new(), Vec::new(), Vec::new());
    while times.len() < applies {
        quiet.push(window(&lab, &mut ends)?);
        let is_over = AtomicBool::new(false);
        let (one, new) = thread::scope(|scope| {
            let applying = scope.spawn(|| {
                let mut times = Vec::new();
                while !is_over.load(Relaxed) {
                    let begin = Instant::now();
                    let applied = filter.knockctl(&["apply", &files[times.len() % 2]])?;
                    ensure!(applied.ok(), "{applied:?}");
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                }
                Ok(times)
            });
            let one = window(&lab, &mut ends);
            is_over.store(true, Relaxed);
            let times = applying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            anyhow::Ok((one?, times?))
        })?;
        busy.push(one);
        times.extend(new);
    }
    let result = |applies, apply, windows| AppliesResult { has_fast_path, rules, applies, apply, windows };
    Ok([result(0, 0.0, quiet), result(times.len(), quantile(&times, 0.5), busy)])
}

/// One window of the probe, on the generator's core, on a thread of its own: other threads must not inherit the core.
fn window(lab: &Lab, ends: &mut Ends) -> Result<Window> {
    lab.pin()?;
    let passed = || -> Result<[u64; 2]> {
        let arrived = traffic(&lab.topology.filter, "outside")?.received;
        Ok([arrived, traffic(&lab.topology.server, "eth0")?.received])
    };
    let before = passed()?;
    let sample = thread::scope(|scope| {
        let probe = scope.spawn(|| {
            ensure!(
                core_affinity::set_for_current(core_affinity::CoreId { id: GENERATOR_CORE }),
                "cannot run on core {GENERATOR_CORE}"
            );
            Ok(ends.one_way(RATE, WINDOW))
        });
        probe.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("the probe")
    })?;
    thread::sleep(ON_THEIR_WAY);
    let after = passed()?;
    Ok(Window { sample, lost: (after[0] - before[0]).saturating_sub(after[1] - before[1]) })
}

/// Rules that accept the probe behind `rules` others. Rule sets of another protocol differ in all of these.
fn rule_set(rules: usize, protocol: &str) -> String {
    let mut text = "/ip firewall filter\n".to_owned();
    for port in 0..rules {
        text += &format!("add action=drop chain=input protocol={protocol} dst-port={}\n", 20_000 + port);
    }
    text + &format!("add action=accept chain=input src-address={CLIENT}\nadd action=drop chain=input\n")
}
