//! The whole run: every measurement in its turn, within a time that is given.
//!
//! What candidates are judged by comes first, then what takes a fixed time (loss, latency, deafness, upkeep), then the
//! other loads, which share what is left: on a slow machine they get fewer windows, and the run ends all the same.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::candidate::Kind;
use super::machine::memory_available;
use super::plan::{Planned, plan};
use super::results::{Arrangement, DROP, FORWARD, Latency, LossCurve, Machine, Results};
use super::throughput::{self, Effort, LEAST_ROUNDS};
use super::{deafness, latency, loss, upkeep};

/// What of it is wanted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The short run.
    pub quick: bool,
    /// Only measurements with this in their name.
    pub only: Option<String>,
    /// Only candidates of these names, under loads.
    pub candidates: Option<Vec<String>>,
    /// So many windows under each load, whatever time they take.
    pub windows: Option<usize>,
}

/// What came of it.
#[derive(Debug)]
pub struct Finished {
    /// What was measured.
    pub results: Results,
    /// What failed, and why; the results leave it out, and say so.
    pub failed: Vec<String>,
    /// Whether it was told to end early.
    pub interrupted: bool,
}

/// Seconds of a run. Tables, plots, and what machines do now and then take the rest of half an hour and of five minutes.
const FULL: f64 = 1775.0;
const QUICK: f64 = 292.0;

const fn whole(quick: bool) -> f64 {
    if quick { QUICK } else { FULL }
}

/// The length of a window. Short ones tell less: the slow phases of a virtual machine take seconds.
pub(super) const fn window(quick: bool) -> Duration {
    Duration::from_millis(if quick { 500 } else { 1000 })
}

/// Measures until all is measured or `stop` is set. What fails is left out, with the reason.
///
/// # Errors
/// If nothing has this name.
pub fn run(options: &Options, stop: &AtomicBool) -> Result<Finished> {
    let steps = steps(options);
    ensure!(!steps.is_empty(), "no measurement has this in its name: {}", options.only.as_deref().unwrap_or_default());
    let mut run = Run {
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
        let place = Place { number: index + 1, of: steps.len(), name: step.name(), ends: run.end(&steps[index..]) };
        place.begin();
        if let Err(error) = run.measure(step, &steps[index + 1..], &place) {
            run.fail([format!("{}: {error:#}", step.name())]);
        }
    }
    Ok(run.finish())
}

/// What has to be measured, in this order.
fn steps(options: &Options) -> Vec<Step> {
    let (judged, others): (Vec<Planned>, Vec<Planned>) =
        plan(options.quick).into_iter().partition(|planned| [FORWARD, DROP].contains(&planned.load.name.as_str()));
    let loads = |loads: Vec<Planned>| loads.into_iter().map(|planned| Step::Throughput(Box::new(planned)));
    let mut steps: Vec<Step> = loads(judged).chain(Step::FIXED).chain(loads(others)).collect();
    steps.retain(|step| options.only.as_ref().is_none_or(|only| step.name().contains(only.as_str())));
    for step in &mut steps {
        let Step::Throughput(planned) = step else { continue };
        planned.windows = options.windows.unwrap_or(planned.windows);
        if let Some(names) = &options.candidates {
            planned.kinds.retain(|kind| names.iter().any(|name| name == kind.name()));
        }
    }
    steps
}

/// A measurement.
enum Step {
    Throughput(Box<Planned>),
    /// Before latency, which needs the rates that come through.
    Loss,
    Latency,
    Deafness,
    Upkeep,
}

impl Step {
    /// Those whose time does not give way.
    const FIXED: [Step; 4] = [Step::Loss, Step::Latency, Step::Deafness, Step::Upkeep];

    fn name(&self) -> String {
        match self {
            Step::Throughput(planned) => planned.name(),
            Step::Loss => "loss".to_owned(),
            Step::Latency => "latency".to_owned(),
            Step::Deafness => "deafness".to_owned(),
            Step::Upkeep => "upkeep".to_owned(),
        }
    }

    /// What it takes, roughly.
    fn seconds(&self, quick: bool) -> f64 {
        let (full, short) = match self {
            Step::Throughput(planned) => return planned.seconds(window(quick)),
            Step::Loss => (330.0, 50.0),
            Step::Latency => (120.0, 25.0),
            Step::Deafness => (180.0, 20.0),
            Step::Upkeep => (20.0, 10.0),
        };
        if quick { short } else { full }
    }

    /// The same with as few windows as can be.
    fn least_seconds(&self, quick: bool) -> f64 {
        match self {
            Step::Throughput(planned) => {
                Planned { windows: LEAST_ROUNDS.min(planned.windows), ..(**planned).clone() }.seconds(window(quick))
            }
            _ => self.seconds(quick),
        }
    }
}

fn seconds<'steps>(steps: impl IntoIterator<Item = &'steps Step>, quick: bool) -> f64 {
    steps.into_iter().map(|step| step.seconds(quick)).sum()
}

struct Run<'run> {
    options: &'run Options,
    stop: &'run AtomicBool,
    begin: Instant,
    results: Results,
    failed: Vec<String>,
}

impl Run<'_> {
    fn measure(&mut self, step: &Step, after: &[Step], place: &Place) -> Result<()> {
        let (quick, stop) = (self.options.quick, self.stop);
        let tell = |doing: &str| {
            place.tell(doing);
            ensure!(!stop.load(Relaxed), "the run is to end");
            Ok(())
        };
        match step {
            Step::Throughput(planned) => {
                let deadline = Instant::now() + self.share(step, after);
                self.throughput(planned, deadline, place)?;
            }
            Step::Loss => self.results.loss = loss(quick, tell)?,
            Step::Latency => self.results.latency = latency(quick, &self.results.loss, tell)?,
            Step::Deafness => self.results.deafness = deafness::measure(quick, tell)?,
            Step::Upkeep => self.results.upkeep = Some(upkeep::measure(quick, tell)?),
        }
        Ok(())
    }

    fn throughput(&mut self, planned: &Planned, deadline: Instant, place: &Place) -> Result<()> {
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
                place.tell(&format!("{kind}, {doing}"));
                if self.stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        self.results.throughput.extend(measured.rows);
        self.results.left_out.extend(measured.repeated.iter().map(|window| format!("A window, taken again: {window}")));
        self.fail(measured.failed);
        Ok(())
    }

    /// Notes what failed, unless that is because the run is to end.
    fn fail(&mut self, failed: impl IntoIterator<Item = String>) {
        if !self.stop.load(Relaxed) {
            self.failed.extend(failed);
        }
    }

    fn left(&self) -> f64 {
        (whole(self.options.quick) - self.begin.elapsed().as_secs_f64()).max(0.0)
    }

    /// What the step takes at least, and of what is left, without what all others take at least, its part: lists are
    /// filled first, then there are as many windows as there is time.
    fn share(&self, step: &Step, after: &[Step]) -> Duration {
        if self.options.windows.is_some() {
            return Duration::from_secs(u64::from(u32::MAX));
        }
        let quick = self.options.quick;
        let least = |step: &Step| step.least_seconds(quick);
        let spare = |step: &Step| step.seconds(quick) - step.least_seconds(quick);
        let others: f64 = after.iter().map(least).sum();
        let spares = spare(step) + after.iter().map(spare).sum::<f64>();
        let left = (self.left() - least(step) - others).max(0.0);
        Duration::from_secs_f64(least(step) + left * spare(step) / spares.max(1.0))
    }

    /// When these steps will be over.
    fn end(&self, steps: &[Step]) -> Instant {
        let expected = seconds(steps, self.options.quick);
        let most = if self.options.windows.is_some() { expected } else { self.left() };
        Instant::now() + Duration::from_secs_f64(expected.min(most))
    }

    fn finish(self) -> Finished {
        let Run { begin, mut results, failed, stop, .. } = self;
        let interrupted = stop.load(Relaxed);
        if interrupted {
            results.left_out.push("What was not measured when the run was told to end.".to_owned());
        }
        // The order of the plan, not that of time.
        let order: Vec<String> = plan(results.quick).iter().map(Planned::name).collect();
        results.throughput.sort_by_key(|row| {
            let name = format!("{}, {:?}", row.load, row.arrangement);
            order.iter().position(|other| *other == name)
        });
        results.left_out.extend(failed.iter().cloned());
        results.took = begin.elapsed().as_secs_f64();
        place_end();
        Finished { results, failed, interrupted }
    }
}

/// Those whose losses and latencies are compared.
const FORWARDERS: [Kind; 6] =
    [Kind::Knockplane, Kind::Smallest, Kind::SmallestSpinning, Kind::Nftables, Kind::NftablesBridge, Kind::Xdp];

fn loss(quick: bool, tell: impl Fn(&str) -> Result<()>) -> Result<Vec<LossCurve>> {
    let settings = if quick { loss::Settings::quick() } else { loss::Settings::full() };
    let mut curves = Vec::new();
    for arrangement in Arrangement::ALL {
        let mut kinds = FORWARDERS.to_vec();
        match arrangement {
            Arrangement::S => kinds.push(Kind::NftablesRps),
            // It leaves no time to the kernel on its core: there is no rate that it does not lose of.
            Arrangement::T => kinds.retain(|kind| *kind != Kind::SmallestSpinning),
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
        let kinds: &[Kind] = match arrangement {
            Arrangement::S => &[Kind::Knockplane, Kind::Smallest, Kind::SmallestSpinning, Kind::Nftables],
            Arrangement::T => &[Kind::Knockplane, Kind::Smallest, Kind::Nftables],
        };
        let loss_free = |kind: Kind| {
            let curve = loss.iter().find(|curve| curve.arrangement == arrangement && curve.candidate == kind.name());
            curve.map(|curve| curve.loss_free).filter(|rate| *rate > 0.0)
        };
        let tell = |doing: &str, window| tell(&format!("{arrangement:?}, {doing}, window {}/{windows}", window + 1));
        latencies.extend(latency::measure(arrangement, kinds, &loss_free, windows, tell)?);
    }
    Ok(latencies)
}

/// Where the run is, told on standard error: line by line, or in place on a terminal.
struct Place {
    number: usize,
    of: usize,
    name: String,
    ends: Instant,
}

impl Place {
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
        let Place { number, of, name, ends } = self;
        let left = ends.saturating_duration_since(Instant::now()).as_secs();
        let colon = if doing.is_empty() { "" } else { ": " };
        format!("[{number}/{of}, {}:{:02} left] {name}{colon}{doing}", left / 60, left % 60)
    }
}

fn place_end() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_fits_its_time() {
        for quick in [true, false] {
            let all = seconds(&steps(&Options { quick, ..Options::default() }), quick);
            assert!(all <= whole(quick), "{all:.0} seconds");
        }
    }

    #[test]
    fn a_name_limits_the_run() {
        let names = |only: &str| {
            let options = Options { only: Some(only.to_owned()), ..Options::default() };
            steps(&options).iter().map(Step::name).collect::<Vec<_>>()
        };
        assert_eq!(names("drop"), ["drop 60 B, S", "drop 60 B, T"]);
        assert_eq!(names("latency"), ["latency"]);
        assert!(names("no such thing").is_empty());
    }
}
