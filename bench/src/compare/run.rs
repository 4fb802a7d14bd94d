//! The whole run: all measurements in order, within a given time.
//!
//! The main loads come first, then the measurements of fixed length (loss, latency, deafness,
//! upkeep), then the other loads, which share the remaining time. On a slow machine they get fewer windows, and the run
//! still ends in time.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::candidate::CandidateKind;
use super::machine::memory_available;
use super::plan::{Planned, plan};
use super::results::{Arrangement, DROP, FORWARD, Latency, LossCurve, Machine, Results};
use super::throughput::{self, Effort, LEAST_ROUNDS};
use super::{deafness, latency, loss, upkeep};

/// Selection of measurements.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The short run.
    pub quick: bool,
    /// Only measurements with this in their name.
    pub only: Option<String>,
    /// Only candidates of these names, under loads.
    pub candidates: Option<Vec<String>>,
    /// Number of windows under each load, without a limit of time.
    pub windows: Option<usize>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Finished {
    /// The measurements.
    pub results: Results,
    /// Failed measurements and their reasons. The results list them as omitted.
    pub failed: Vec<String>,
    /// Whether the run was ended early.
    pub interrupted: bool,
}

/// Seconds of a run. The rest of 32 and of five minutes is for tables and for pauses of the machine.
const FULL: f64 = 1850.0;
const QUICK: f64 = 292.0;

const fn whole(quick: bool) -> f64 {
    if quick { QUICK } else { FULL }
}

/// The length of a window. Shorter ones are less reliable: the slow phases of a virtual machine take seconds.
pub(super) const fn window(quick: bool) -> Duration {
    Duration::from_millis(if quick { 500 } else { 1000 })
}

/// Measures everything, until the end or until `stop` is set. Failed measurements are left out, with the reason.
///
/// # Errors
/// If no measurement has this name.
pub fn run(options: &Options, stop: &AtomicBool) -> Result<Finished> {
    let steps = steps(options);
    ensure!(!steps.is_empty(), "no measurement has this in its name: {}", options.only.as_deref().unwrap_or_default());
    let mut run = ComparisonRun {
        options,
        stop,
        begin: Instant::now(),
        results: Results { machine: Machine::this(), quick: options.quick, ..Results::default() },
        failed: Vec::new(),
    };
    for (index, step) in steps.iter().enumerate() {
        if stop.load(Relaxed) {
            break;
        }
        let progress =
            RunProgress { number: index + 1, of: steps.len(), name: step.name(), ends: run.end(&steps[index..]) };
        progress.begin();
        if let Err(error) = run.measure(step, &steps[index + 1..], &progress) {
            run.fail([format!("{}: {error:#}", step.name())]);
        }
    }
    Ok(run.finish())
}

/// The measurements, in order.
fn steps(options: &Options) -> Vec<Measurement> {
    let (main, others): (Vec<Planned>, Vec<Planned>) =
        plan(options.quick).into_iter().partition(|planned| [FORWARD, DROP].contains(&planned.load.name.as_str()));
    let loads = |loads: Vec<Planned>| loads.into_iter().map(|planned| Measurement::Throughput(Box::new(planned)));
    let mut steps: Vec<Measurement> = loads(main).chain(Measurement::FIXED).chain(loads(others)).collect();
    steps.retain(|step| options.only.as_ref().is_none_or(|only| step.name().contains(only.as_str())));
    for step in &mut steps {
        let Measurement::Throughput(planned) = step else { continue };
        planned.windows = options.windows.unwrap_or(planned.windows);
        if let Some(names) = &options.candidates {
            planned.kinds.retain(|kind| names.iter().any(|name| name == kind.name()));
        }
    }
    steps
}

/// A measurement.
enum Measurement {
    Throughput(Box<Planned>),
    /// Before latency, which needs the loss-free rates.
    Loss,
    Latency,
    Deafness,
    Upkeep,
}

impl Measurement {
    /// Measurements of fixed length.
    const FIXED: [Measurement; 4] =
        [Measurement::Loss, Measurement::Latency, Measurement::Deafness, Measurement::Upkeep];

    fn name(&self) -> String {
        match self {
            Measurement::Throughput(planned) => planned.name(),
            Measurement::Loss => "loss".to_owned(),
            Measurement::Latency => "latency".to_owned(),
            Measurement::Deafness => "deafness".to_owned(),
            Measurement::Upkeep => "upkeep".to_owned(),
        }
    }

    /// Estimated seconds.
    fn seconds(&self, quick: bool) -> f64 {
        let (full, short) = match self {
            Measurement::Throughput(planned) => return planned.seconds(window(quick)),
            Measurement::Loss => (330.0, 50.0),
            Measurement::Latency => (120.0, 25.0),
            Measurement::Deafness => (180.0, 20.0),
            Measurement::Upkeep => (20.0, 10.0),
        };
        if quick { short } else { full }
    }

    /// Estimated seconds with the smallest number of windows.
    fn least_seconds(&self, quick: bool) -> f64 {
        match self {
            Measurement::Throughput(planned) => {
                Planned { windows: LEAST_ROUNDS.min(planned.windows), ..(**planned).clone() }.seconds(window(quick))
            }
            _ => self.seconds(quick),
        }
    }
}

fn seconds<'steps>(steps: impl IntoIterator<Item = &'steps Measurement>, quick: bool) -> f64 {
    steps.into_iter().map(|step| step.seconds(quick)).sum()
}

struct ComparisonRun<'run> {
    options: &'run Options,
    stop: &'run AtomicBool,
    begin: Instant,
    results: Results,
    failed: Vec<String>,
}

impl ComparisonRun<'_> {
    fn measure(&mut self, step: &Measurement, after: &[Measurement], progress: &RunProgress) -> Result<()> {
        let (quick, stop) = (self.options.quick, self.stop);
        let tell = |doing: &str| {
            progress.tell(doing);
            ensure!(!stop.load(Relaxed), "the run is to end");
            Ok(())
        };
        match step {
            Measurement::Throughput(planned) => {
                let deadline = Instant::now() + self.share(step, after);
                self.throughput(planned, deadline, progress)?;
            }
            Measurement::Loss => self.results.loss = loss(quick, tell)?,
            Measurement::Latency => self.results.latency = latency(quick, &self.results.loss, tell)?,
            Measurement::Deafness => self.results.deafness = deafness::measure(quick, tell)?,
            Measurement::Upkeep => self.results.upkeep = Some(upkeep::measure(quick, tell)?),
        }
        Ok(())
    }

    fn throughput(&mut self, planned: &Planned, deadline: Instant, progress: &RunProgress) -> Result<()> {
        let (wanted, available) = (planned.memory(), memory_available());
        if wanted > available {
            let [wanted, available] = [wanted, available].map(|bytes| bytes >> 20);
            let reason = format!("{}: takes {wanted} MiB of memory, and there are {available}", planned.name());
            self.results.left_out.push(reason);
            return Ok(());
        }
        let effort = Effort { windows: planned.windows, window: window(self.options.quick), deadline };
        let measured =
            throughput::measure(&planned.load, planned.arrangement, &planned.kinds, &effort, |kind, doing| {
                progress.tell(&format!("{kind}, {doing}"));
                if self.stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        self.results.throughput.extend(measured.rows);
        self.results.left_out.extend(measured.repeated.iter().map(|window| format!("A window, taken again: {window}")));
        self.fail(measured.failed);
        Ok(())
    }

    /// Records failures, unless the run is ending.
    fn fail(&mut self, failed: impl IntoIterator<Item = String>) {
        if !self.stop.load(Relaxed) {
            self.failed.extend(failed);
        }
    }

    fn left(&self) -> f64 {
        (whole(self.options.quick) - self.begin.elapsed().as_secs_f64()).max(0.0)
    }

    /// The least time of the step, and its part of the remaining time after the least times of all later steps: lists are
    /// filled first, then there are as many windows as time allows.
    fn share(&self, step: &Measurement, after: &[Measurement]) -> Duration {
        if self.options.windows.is_some() {
            return Duration::from_secs(u64::from(u32::MAX));
        }
        let quick = self.options.quick;
        let least = |step: &Measurement| step.least_seconds(quick);
        let spare = |step: &Measurement| step.seconds(quick) - step.least_seconds(quick);
        let others: f64 = after.iter().map(least).sum();
        let spares = spare(step) + after.iter().map(spare).sum::<f64>();
        let left = (self.left() - least(step) - others).max(0.0);
        Duration::from_secs_f64(least(step) + left * spare(step) / spares.max(1.0))
    }

    /// The expected end of these steps.
    fn end(&self, steps: &[Measurement]) -> Instant {
        let expected = seconds(steps, self.options.quick);
        let most = if self.options.windows.is_some() { expected } else { self.left() };
        Instant::now() + Duration::from_secs_f64(expected.min(most))
    }

    fn finish(self) -> Finished {
        let ComparisonRun { begin, mut results, failed, stop, .. } = self;
        let interrupted = stop.load(Relaxed);
        if interrupted {
            results.left_out.push("Measurements after the early end of the run.".to_owned());
        }
        // The order of the plan, not the order of measurement.
        let order: Vec<String> = plan(results.quick).iter().map(Planned::name).collect();
        results.throughput.sort_by_key(|row| {
            let name = format!("{}, {:?}", row.load, row.arrangement);
            order.iter().position(|other| *other == name)
        });
        results.left_out.extend(failed.iter().cloned());
        results.took = begin.elapsed().as_secs_f64();
        progress_end();
        Finished { results, failed, interrupted }
    }
}

/// The candidates for the comparison of losses and latencies.
const FORWARDERS: [CandidateKind; 6] = [
    CandidateKind::Knockplane,
    CandidateKind::Smallest,
    CandidateKind::SmallestSpinning,
    CandidateKind::Nftables,
    CandidateKind::NftablesBridge,
    CandidateKind::Xdp,
];

fn loss(quick: bool, tell: impl Fn(&str) -> Result<()>) -> Result<Vec<LossCurve>> {
    let settings = if quick { loss::LossSettings::quick() } else { loss::LossSettings::full() };
    let mut curves = Vec::new();
    for arrangement in Arrangement::ALL {
        let mut kinds = FORWARDERS.to_vec();
        match arrangement {
            Arrangement::S => kinds.push(CandidateKind::NftablesRps),
            // This candidate leaves the kernel no time on its core, so it loses frames at every rate.
            Arrangement::T => kinds.retain(|kind| *kind != CandidateKind::SmallestSpinning),
        }
        curves
            .extend(loss::measure(arrangement, &kinds, &settings, |doing| tell(&format!("{arrangement:?}, {doing}")))?);
    }
    Ok(curves)
}

fn latency(quick: bool, loss: &[LossCurve], tell: impl Fn(&str) -> Result<()>) -> Result<Vec<Latency>> {
    let windows = if quick { 3 } else { 9 };
    let mut latencies = Vec::new();
    for arrangement in Arrangement::ALL {
        let kinds: &[CandidateKind] = match arrangement {
            Arrangement::S => &[
                CandidateKind::Knockplane,
                CandidateKind::Smallest,
                CandidateKind::SmallestSpinning,
                CandidateKind::Nftables,
            ],
            Arrangement::T => &[CandidateKind::Knockplane, CandidateKind::Smallest, CandidateKind::Nftables],
        };
        let loss_free = |kind: CandidateKind| {
            let curve = loss.iter().find(|curve| curve.arrangement == arrangement && curve.candidate == kind.name());
            curve.map(|curve| curve.loss_free).filter(|rate| *rate > 0.0)
        };
        let tell = |doing: &str, window| tell(&format!("{arrangement:?}, {doing}, window {}/{windows}", window + 1));
        latencies.extend(latency::measure(arrangement, kinds, &loss_free, windows, tell)?);
    }
    Ok(latencies)
}

/// Progress of the run on standard error: line by line, or in place on a terminal.
struct RunProgress {
    number: usize,
    of: usize,
    name: String,
    ends: Instant,
}

impl RunProgress {
    fn begin(&self) {
        if stderr().is_terminal() { self.tell("") } else { eprintln!("{}", self.line("")) }
    }

    fn tell(&self, doing: &str) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K{}", self.line(doing));
            let _ = stderr().flush();
        }
    }

    fn line(&self, doing: &str) -> String {
        let RunProgress { number, of, name, ends } = self;
        let left = ends.saturating_duration_since(Instant::now()).as_secs();
        let colon = if doing.is_empty() { "" } else { ": " };
        format!("[{number}/{of}, {}:{:02} left] {name}{colon}{doing}", left / 60, left % 60)
    }
}

fn progress_end() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_measurements_fit_their_time() {
        for quick in [true, false] {
            let all = seconds(&steps(&Options { quick, ..Options::default() }), quick);
            assert!(all <= whole(quick), "{all:.0} seconds");
        }
    }

    #[test]
    fn a_name_selects_measurements() {
        let names = |only: &str| {
            let options = Options { only: Some(only.to_owned()), ..Options::default() };
            steps(&options).iter().map(Measurement::name).collect::<Vec<_>>()
        };
        assert_eq!(names("drop 60"), ["drop 60 B, S", "drop 60 B, T"]);
        assert_eq!(names("latency"), ["latency"]);
        assert!(names("no such thing").is_empty());
    }
}
