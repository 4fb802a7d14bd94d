//! Rates of candidates under load, in turns.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};

use super::candidate::{CandidateKind, Role, start};
use super::lab::Lab;
use super::results::{Arrangement, Counted, Series, Throughput, Window};
use super::rules::LoadRules;
use super::window::Bench;
use crate::generator::{Profile, Spec};

/// A load, and the set-up of every candidate for it.
#[derive(Clone, Debug)]
pub struct Load {
    /// The name in results.
    pub name: String,
    /// The series of the load, if it belongs to one.
    pub series: Option<Series>,
    /// The frames.
    pub spec: Spec,
    /// The compared count.
    pub counted: Counted,
    /// The action of candidates without rules.
    pub role: Role,
    /// The rules of the other candidates.
    pub rules: LoadRules,
    /// The frames that fill the lists before the measurement, from `count` sources in order.
    pub first: Option<Spec>,
}

impl Load {
    /// Frames that are sent before the measurement, besides some short windows.
    pub(super) fn warm_up_frames(&self) -> u64 {
        match self.series {
            Some(Series::Entries(entries @ ..=MOST_WARM_SOURCES)) => FRAMES_OF_A_SOURCE * entries,
            _ => 0,
        }
    }
}

/// The extent of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Windows of each candidate.
    pub windows: usize,
    /// Length of a window.
    pub window: Duration,
    /// After this time no round of windows begins, except the first ones, and lists are not filled further.
    pub deadline: Instant,
}

/// The result of a measurement.
#[derive(Debug, Default)]
pub struct Measured {
    /// Rows of the candidates that succeeded, in the order of the candidates.
    pub rows: Vec<Throughput>,
    /// Failed candidates and their reasons.
    pub failed: Vec<String>,
    /// Repeated windows and their reasons.
    pub repeated: Vec<String>,
}

/// Unmeasured windows at the start, after which the offered rate is stable.
const WARM_UP: Duration = Duration::from_millis(300);
const WARM_UPS: usize = 3;

/// Frames of each source that are sent before the measurement, because candidates that keep flows need some packets of each.
const FRAMES_OF_A_SOURCE: u64 = 16;
/// The largest number of sources that they are sent from: no candidate keeps more flows.
const MOST_WARM_SOURCES: u64 = 1 << 20;
/// Frames of one window of these.
pub(super) const WARM_UP_STEP: u64 = 1 << 21;

/// Minimum number of rounds, which have no time limit.
pub(super) const LEAST_ROUNDS: usize = 2;

/// Frames of one step of filling the lists: some seconds, after which the run can stop.
pub(super) const FILL: u64 = 1 << 19;
/// Number of repetitions of a step, each at half the rate, until it loses at most this part.
const GOES: u32 = 4;
const LOST: f64 = 0.005;
/// The part of the sources that must then be on the list, and the rate of the check, at which no candidate loses frames.
const FILLED: f64 = 0.99;
const LOOK: u64 = 50_000;

/// A candidate and its windows so far.
struct Turn<'lab> {
    kind: CandidateKind,
    bench: Bench<'lab>,
    windows: Vec<Window>,
}

/// Starts the candidates, lets them take turns under the load, and ends them. Failed candidates are left out. `progress` is
/// called before each step, and can end the measurement; earlier windows remain.
///
/// # Errors
/// If a lab cannot be created.
pub fn measure(
    load: &Load,
    arrangement: Arrangement,
    kinds: &[CandidateKind],
    effort: &Effort,
    mut progress: impl FnMut(CandidateKind, &str) -> ControlFlow<()>,
) -> Result<Measured> {
    let labs = kinds.iter().map(|_| Lab::new(arrangement)).collect::<Result<Vec<_>>>()?;
    let mut measured = Measured::default();
    let mut turns = Vec::new();
    for (kind, lab) in kinds.iter().zip(&labs) {
        if progress(*kind, "start").is_break() {
            return Ok(measured);
        }
        match ready(load, *kind, lab, effort.deadline, &mut progress) {
            Ok(bench) => turns.push(Turn { kind: *kind, bench, windows: Vec::with_capacity(effort.windows) }),
            Err(error) => measured.failed.push(failure(load, arrangement, *kind, &error)),
        }
    }
    let begin = Instant::now();
    let mut ended = false;
    for round in 0..effort.windows {
        let a_round = begin.elapsed() / round.max(1) as u32;
        if ended || round >= LEAST_ROUNDS && Instant::now() + a_round > effort.deadline {
            break;
        }
        turns.retain_mut(|turn| {
            ended = ended || progress(turn.kind, &format!("window {}/{}", round + 1, effort.windows)).is_break();
            if ended {
                return true;
            }
            let window = turn.window(load, effort.window).or_else(|error| {
                // A candidate that stalls once keeps its row. A candidate that has ended is omitted.
                let window = turn.window(load, effort.window)?;
                measured.repeated.push(failure(load, arrangement, turn.kind, &error));
                Ok(window)
            });
            match window {
                Ok(window) => turn.windows.push(window),
                Err(error) => measured.failed.push(failure(load, arrangement, turn.kind, &error)),
            }
            turn.windows.len() == round + 1
        });
    }
    let row = |turn: Turn| Throughput {
        load: load.name.clone(),
        series: load.series,
        arrangement,
        candidate: turn.kind.to_string(),
        counted: load.counted,
        windows: turn.windows,
    };
    measured.rows = turns.into_iter().map(row).filter(|row| !row.windows.is_empty()).collect();
    Ok(measured)
}

fn failure(load: &Load, arrangement: Arrangement, kind: CandidateKind, error: &anyhow::Error) -> String {
    format!("{}, {arrangement:?}, {kind}: {error:#}", load.name)
}

/// A candidate that has started, with filled lists if the load needs them, and has received the load once.
fn ready<'lab>(
    load: &Load,
    kind: CandidateKind,
    lab: &'lab Lab,
    deadline: Instant,
    progress: &mut impl FnMut(CandidateKind, &str) -> ControlFlow<()>,
) -> Result<Bench<'lab>> {
    let candidate = start(kind, lab, &load.rules, load.role).context("does not start")?;
    let mut bench = Bench::new(lab, candidate);
    if let Some(first) = &load.first {
        fill(load, first, &mut bench, |done| {
            ensure!(Instant::now() < deadline, "there was no time to fill lists, but for {:.0} %", done * 100.0);
            Ok(progress(kind, &format!("filling lists, {:.0} %", done * 100.0)))
        })?;
    }
    for _ in 0..WARM_UPS {
        bench.window(&Spec { duration: WARM_UP, ..load.spec.clone() })?;
    }
    let frames = load.warm_up_frames();
    for sent in (0..frames).step_by(WARM_UP_STEP as usize) {
        if Instant::now() >= deadline || progress(kind, &format!("warming up, {} %", 100 * sent / frames)).is_break() {
            break;
        }
        bench.window(&Spec { count: Some(WARM_UP_STEP.min(frames - sent)), ..load.spec.clone() })?;
    }
    Ok(bench)
}

/// Sends from all sources of `first`, in steps. Then the forwarded frames of these sources prove that all are on the list.
fn fill(
    load: &Load,
    first: &Spec,
    bench: &mut Bench,
    mut progress: impl FnMut(f64) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let all = first.count.context("as many as it takes")?;
    for from in (0..all).step_by(FILL as usize) {
        let source = later(first.source, from)?;
        for go in 0..GOES {
            if progress(from as f64 / all as f64)?.is_break() {
                return Ok(());
            }
            let rate = first.rate.map(|rate| rate >> go);
            let spec = Spec { source, count: Some(FILL.min(all - from)), rate, ..first.clone() };
            // If lists only have to be full, with any sources, losses have no effect.
            if bench.window(&spec)?.loss() <= LOST || load.counted == Counted::Decided {
                break;
            }
        }
    }
    if load.counted == Counted::Decided {
        return Ok(());
    }
    let look = bench.window(&Spec { duration: WARM_UP, rate: Some(LOOK), ..load.spec.clone() })?;
    let passed = look.forwarded as f64 / look.decided.max(1) as f64;
    ensure!(passed >= FILLED, "of {all} sources that knocked, only {:.1} % may pass", passed * 100.0);
    Ok(())
}

/// The prefix that begins this many addresses later.
fn later(source: IpNet, by: u64) -> Result<IpNet> {
    let IpNet::V4(source) = source else { bail!("lists are filled from IPv4 addresses") };
    let address = u32::from(source.addr()) + u32::try_from(by)?;
    Ok(Ipv4Net::new(address.into(), source.prefix_len())?.into())
}

impl Turn<'_> {
    fn window(&mut self, load: &Load, duration: Duration) -> Result<Window> {
        let mut window = self.bench.window(&Spec { duration, ..load.spec.clone() })?;
        ensure!(window.rate(load.counted) > 0.0, "nothing got through in {:.1} s", window.seconds);
        if load.counted == Counted::Forwarded && load.spec.profile == Profile::Flow {
            // Every frame should arrive, so frames in no counter, or in two, can be found.
            let named: u64 = window.lost.values().sum();
            let nowhere = window.offered.abs_diff(window.forwarded + named);
            if nowhere > 0 {
                window.lost.insert("nowhere".to_owned(), nowhere);
            }
        }
        Ok(window)
    }
}
