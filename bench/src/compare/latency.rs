//! Measures the time of frames through an idle candidate, and through a half-loaded one. Candidates take turns, with a bare
//! wire beside them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::candidate::{Candidate, CandidateKind, Role, start};
use super::lab::{GENERATOR_CORE, Lab};
use super::probe::{Ends, Sample};
use super::results::{Arrangement, Latency, Probe, quantile};
use super::rules::Rules;

/// Frames a second of [`Probe::OneWay`].
const RATE: f64 = 100_000.0;

/// Length of a window of each probe. Fast and slow phases of a machine last for seconds, so that all candidates have a
/// turn within one.
const WINDOW: Duration = Duration::from_millis(500);

/// Unmeasured time before a window: sleeping threads wake up, and adaptive ones adapt.
const LEAD_IN: Duration = Duration::from_millis(250);

/// Measures latencies through the candidates, each in its own lab. In [`Arrangement::S`] it also measures a wire, for which
/// arrangements make no difference. `loss_free` is the rate that a candidate forwards without loss, if it is known. Then
/// the candidate is also measured at half of that rate, or at the highest rate of the probe. `progress` receives the
/// candidate and the window.
///
/// # Errors
/// If a candidate does not start, or the interfaces are not available.
pub fn measure(
    arrangement: Arrangement,
    kinds: &[CandidateKind],
    loss_free: &dyn Fn(CandidateKind) -> Option<f64>,
    windows: usize,
    mut progress: impl FnMut(&str, usize) -> Result<()>,
) -> Result<Vec<Latency>> {
    let wire = (arrangement == Arrangement::S).then_some(None);
    let all: Vec<Option<CandidateKind>> = wire.into_iter().chain(kinds.iter().copied().map(Some)).collect();
    let labs = all.iter().map(|_| Lab::new(arrangement)).collect::<Result<Vec<_>>>()?;
    let mut ways = Vec::new();
    for (kind, lab) in all.iter().zip(&labs) {
        ways.push(Way::through(*kind, lab, kind.and_then(loss_free))?);
    }
    for window in 0..windows {
        for way in &mut ways {
            progress(way.name(), window)?;
            way.window().with_context(|| format!("latency, {}", way.name()))?;
        }
    }
    Ok(ways.iter().flat_map(|way| way.rows.iter().map(|row| row.result(arrangement, way.name()))).collect())
}

/// A path between the two ends, and its measurements so far.
struct Way<'lab> {
    /// `None` for a wire.
    kind: Option<CandidateKind>,
    lab: &'lab Lab,
    ends: Ends,
    /// The running candidate; `None` between the turns of a candidate that spins, because it would use the core of the
    /// others.
    candidate: Option<Box<dyn Candidate + 'lab>>,
    rows: Vec<Row>,
}

struct Row {
    probe: Probe,
    /// Frames a second; ignored for round trips.
    rate: f64,
    samples: Vec<Sample>,
}

impl<'lab> Way<'lab> {
    fn through(kind: Option<CandidateKind>, lab: &'lab Lab, loss_free: Option<f64>) -> Result<Self> {
        let row = |probe, rate| Row { probe, rate, samples: Vec::new() };
        let mut rows = vec![row(Probe::OneWay, RATE)];
        rows.extend(loss_free.map(|rate| row(Probe::OneWayHalfLoad, rate / 2.0)));
        rows.push(row(Probe::RoundTrip, 0.0));
        if kind.is_none() {
            lab.add_wire()?;
        }
        let ends = Ends::of(&lab.topology, if kind.is_none() { "eth1" } else { "eth0" })?;
        let mut way = Way { kind, lab, ends, candidate: None, rows };
        if !way.spins() {
            way.start()?;
        }
        Ok(way)
    }

    fn name(&self) -> &'static str {
        self.kind.map_or("wire", CandidateKind::name)
    }

    fn spins(&self) -> bool {
        self.kind == Some(CandidateKind::SmallestSpinning)
    }

    fn start(&mut self) -> Result<()> {
        let Some(kind) = self.kind else { return Ok(()) };
        let rules = Rules { answers: true, ..Rules::default() };
        let candidate = start(kind, self.lab, &rules, Role::Forward);
        self.candidate = Some(candidate.with_context(|| format!("{kind} does not start"))?);
        Ok(())
    }

    fn window(&mut self) -> Result<()> {
        if self.spins() {
            self.start()?;
        }
        self.lab.pin()?;
        let (ends, rows) = (&mut self.ends, &mut self.rows);
        self.lab.topology.client.within(|| {
            ensure!(
                core_affinity::set_for_current(core_affinity::CoreId { id: GENERATOR_CORE }),
                "cannot run on core {GENERATOR_CORE}"
            );
            for row in rows {
                let _ = row.measure(ends, LEAD_IN);
                row.samples.push(row.measure(ends, WINDOW));
            }
            Ok(())
        })?;
        if self.spins() {
            self.candidate = None;
        }
        Ok(())
    }
}

impl Row {
    fn measure(&self, ends: &mut Ends, duration: Duration) -> Sample {
        match self.probe {
            Probe::OneWay | Probe::OneWayHalfLoad => ends.one_way(self.rate, duration),
            Probe::RoundTrip => ends.round_trips(duration),
        }
    }

    fn result(&self, arrangement: Arrangement, candidate: &str) -> Latency {
        let total = |figure: fn(&Sample) -> f64| self.samples.iter().map(figure).sum::<f64>();
        let median = |figure: fn(&Sample) -> f64| quantile(&self.samples.iter().map(figure).collect::<Vec<_>>(), 0.5);
        let sent = total(|sample| sample.sent as f64).max(1.0);
        Latency {
            arrangement,
            candidate: candidate.to_owned(),
            probe: self.probe,
            rate: sent / total(|sample| sample.seconds),
            loss: 1.0 - total(|sample| sample.arrived as f64) / sent,
            p50: median(|sample| sample.p50),
            p99: median(|sample| sample.p99),
        }
    }
}
