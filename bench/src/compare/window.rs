//! One window of load through a candidate. The counts are taken when all counters are stable: then every frame is in
//! exactly one counter.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_ring::Device;

use super::candidate::{Candidate, Losses};
use super::lab::{GENERATOR_CORE, InterfaceCounters, Lab, traffic};
use super::results::{Arrangement, CoreUse, Window};
use crate::generator::{Generator, Spec, Summary};

/// Time without change after which counters are exact: the dataplane reads the kernel's counters every tenth of a second.
const REST: Duration = Duration::from_millis(120);

/// Longest time of frames in flight.
const PATIENCE: Duration = Duration::from_secs(5);

/// A candidate in its lab, and its results so far.
pub struct Bench<'lab> {
    lab: &'lab Lab,
    candidate: Box<dyn Candidate + 'lab>,
    /// See [`Generator::in_one_call`].
    runs_a_second: f64,
    /// The highest number of decided frames a second in a window.
    most: f64,
}

/// Offered rate in [`Arrangement::T`], as a multiple of the highest decided rate so far. Frames that do not fit into veth's
/// ring go back to the generator's pool under the same lock as the frames that the candidate has finished. A much higher
/// rate would measure that lock.
const MORE: f64 = 1.25;

impl<'lab> Bench<'lab> {
    /// Takes a candidate that was started in this lab.
    pub fn new(lab: &'lab Lab, candidate: Box<dyn Candidate + 'lab>) -> Self {
        Bench { lab, candidate, runs_a_second: 0.0, most: 0.0 }
    }

    /// Sends the frames of the spec, waits until all counters are stable, and counts. Without a rate, the generator sends as
    /// much as it can in [`Arrangement::S`], and a quarter more than the highest decided rate in [`Arrangement::T`].
    ///
    /// # Errors
    /// If the generator cannot send, the candidate has ended, or frames do not come to rest.
    pub fn window(&mut self, spec: &Spec) -> Result<Window> {
        self.lab.pin()?;
        let before = self.counts()?;
        let ticks_before = ticks()?;
        let unpaced = spec.rate.is_none();
        let mut spec = spec.clone();
        if self.lab.arrangement == Arrangement::T && self.most > 0.0 {
            spec.rate = spec.rate.or(Some((MORE * self.most) as u64));
        }
        let sent = self.generate(&spec)?;
        let ticks_after = ticks()?;
        self.runs_a_second = sent.runs as f64 / sent.elapsed.as_secs_f64().max(0.001);
        let after = self.rest()?;
        let mut lost = Losses::new();
        for (name, total) in &after.losses {
            lost.insert(name.clone(), total - before.losses.get(name).copied().unwrap_or_default());
        }
        let arrived = after.outside.received - before.outside.received;
        let forwarded = after.server.received - before.server.received;
        let behind = |name: &str| BEHIND.contains(&name);
        let lost_before: u64 = lost.iter().filter(|(name, _)| !behind(name)).map(|(_, frames)| frames).sum();
        lost.insert("link".to_owned(), sent.frames.saturating_sub(arrived));
        lost.retain(|_, frames| *frames > 0);
        let decided = arrived.saturating_sub(lost_before);
        if unpaced {
            self.most = self.most.max(decided as f64 / sent.elapsed.as_secs_f64().max(0.001));
        }
        Ok(Window {
            seconds: sent.elapsed.as_secs_f64(),
            offered: sent.frames,
            decided,
            forwarded,
            lost,
            cores: core_uses(&ticks_before, &ticks_after),
        })
    }

    fn generate(&self, spec: &Spec) -> Result<Summary> {
        let runs = self.runs_a_second * spec.duration.as_secs_f64();
        self.lab.topology.client.within(|| {
            ensure!(
                core_affinity::set_for_current(core_affinity::CoreId { id: GENERATOR_CORE }),
                "cannot run on core {GENERATOR_CORE}"
            );
            let generator = Generator::new(&Device::open("eth0")?, spec)?;
            generator.in_one_call(runs as u64).run(&AtomicBool::new(false))
        })
    }

    fn counts(&self) -> Result<Counts> {
        Ok(Counts {
            outside: traffic(&self.lab.topology.filter, "outside")?,
            server: traffic(&self.lab.topology.server, "eth0")?,
            losses: self.candidate.losses()?,
        })
    }

    /// The counters when they no longer change.
    fn rest(&self) -> Result<Counts> {
        let patience = Instant::now() + PATIENCE;
        let mut last = self.counts()?;
        loop {
            thread::sleep(REST);
            let now = self.counts()?;
            if now == last {
                return Ok(now);
            }
            ensure!(Instant::now() < patience, "frames do not come to rest: {last:?}, then {now:?}");
            last = now;
        }
    }
}

/// Losses after the decision to forward.
const BEHIND: [&str; 3] = ["tx-full", "redirect-full", "inside-dropped"];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    outside: InterfaceCounters,
    server: InterfaceCounters,
    losses: Losses,
}

/// Time of each core since boot, in ticks: user, nice, system, idle, iowait, irq, softirq (proc_stat(5)).
pub(super) fn ticks() -> Result<Vec<Vec<u64>>> {
    let text = fs::read_to_string("/proc/stat")?;
    let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    cores
        .map(|line| {
            let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
            (ticks.len() >= 7).then_some(ticks).context("a column of /proc/stat is missing")
        })
        .collect()
}

/// The use of each core between two results of [`ticks`].
pub(super) fn core_uses(before: &[Vec<u64>], after: &[Vec<u64>]) -> Vec<CoreUse> {
    before.iter().zip(after).map(|(before, after)| core_use(before, after)).collect()
}

fn core_use(before: &[u64], after: &[u64]) -> CoreUse {
    let ticks: Vec<f64> =
        before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before) as f64).collect();
    let total: f64 = ticks.iter().sum::<f64>().max(1.0);
    let [user, nice, system, _, _, irq, softirq] = [0, 1, 2, 3, 4, 5, 6].map(|column: usize| ticks[column] / total);
    let used = CoreUse { user: user + nice, system, softirq: irq + softirq, idle: 0.0 };
    CoreUse { idle: 1.0 - used.user - used.system - used.softirq, ..used }
}
