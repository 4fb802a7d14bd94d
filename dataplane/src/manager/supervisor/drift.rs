//! Reports the findings of the watcher (`crate::drift`) in the log and to control, and ends the filter if it cannot
//! continue. The manager only reads memory and the programs' counters here; the watcher makes the requests to the
//! kernel.
//!
//! Only counters show two kinds of drift, which this module adds: frames that arrive on a queue without a worker, and
//! frames that pass the XDP program.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use arc_swap::ArcSwap;
use knockplane_engine::headers;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Drift, DriftKind, FastPathMisses, InterfaceCounters, Repairs};
use knockplane_policy::word::Word as _;
use knockplane_ring::CoreCounts;

use super::Supervisor;
use crate::drift::{Findings, REPAIRABLE};

/// Time for which frames without a worker are reported after the last one.
const LINGER: Duration = Duration::from_secs(10);

/// A watcher that has published nothing for this time waits for the kernel.
const SILENT: Duration = Duration::from_secs(10);

/// Maximum time that one check adds to the silence. The manager checks every 100 ms. If it did not, the watcher may
/// have been paused too.
const PAUSE: Duration = Duration::from_secs(1);

/// The findings of the watcher, and the reported ones.
pub(crate) struct DriftState {
    findings: Arc<ArcSwap<Findings>>,
    silence: Silence,
    /// The last reported unmet requirements, by side.
    reported: [Vec<Drift>; 2],
    mtu: [u32; 2],
    no_socket: [Growth; 2],
    past_program: [Growth; 2],
    /// The programs' counters at the last check, by side.
    counted: [CoreCounts; 2],
}

/// Measures the time since the watcher last published.
///
/// The measure uses the manager's own checks, as with a worker's heartbeat: after a pause of the whole process
/// (SIGSTOP, a suspended virtual machine) the last check of the watcher is old, although the kernel answers.
#[derive(Debug, Default)]
struct Silence {
    looked: Time,
    /// The time of the watcher's last check at that moment; `None` before the first.
    checked: Option<Time>,
    silent: Duration,
}

impl Silence {
    /// Updates the measure with the time of the watcher's last check.
    fn look(&mut self, checked: Time, now: Time) -> Duration {
        self.silent = match self.checked == Some(checked) {
            true => self.silent + now.since(self.looked).min(PAUSE),
            false => Duration::ZERO,
        };
        (self.looked, self.checked) = (now, Some(checked));
        self.silent
    }
}

/// A counter that should not grow, and the time when it last grew.
#[derive(Clone, Copy, Default)]
struct Growth {
    last: Option<u64>,
    grew: Option<Time>,
}

impl Growth {
    /// Records the present value, if it could be read. Returns whether the counter has grown recently. The first value
    /// is the baseline.
    fn is_growing(&mut self, count: Option<u64>, now: Time) -> bool {
        if let Some(count) = count
            && self.last.replace(count).is_some_and(|last| count > last)
        {
            self.grew = Some(now);
        }
        self.grew.is_some_and(|grew| now.since(grew) < LINGER)
    }
}

impl DriftState {
    /// Frames that came up on this side while the fast path was on, as of the last reading of the counters.
    pub(super) fn misses(&self, side: Side) -> FastPathMisses {
        self.counted[side.index()].misses
    }

    pub(crate) fn new(findings: Arc<ArcSwap<Findings>>) -> Self {
        let mtu = findings.load().mtu;
        DriftState {
            findings,
            silence: Silence::default(),
            reported: Default::default(),
            mtu,
            no_socket: Default::default(),
            past_program: Default::default(),
            counted: Default::default(),
        }
    }

    /// The unmet requirements of this side.
    pub(crate) fn of(&self, side: Side) -> Vec<Drift> {
        self.reported[side.index()].clone()
    }

    /// MTU in bytes, as of the last check.
    pub(crate) fn mtu(&self, side: Side) -> u32 {
        self.mtu[side.index()]
    }

    /// Repairs on this side since start.
    pub(crate) fn repairs(&self, side: Side) -> Vec<Repairs> {
        let times = self.findings.load().repairs[side.index()];
        REPAIRABLE.into_iter().zip(times).map(|(kind, times)| Repairs { kind, times }).collect()
    }
}

impl Supervisor {
    /// Reports the changes since the last call.
    ///
    /// # Errors
    /// If the filter must end, with the cause and the remedy.
    pub(super) fn watch_drift(&mut self, now: Time) -> anyhow::Result<()> {
        let findings = self.drift.findings.load_full();
        if let Some(end) = &findings.end {
            bail!("{end}");
        }
        let silent = self.drift.silence.look(findings.at, now);
        for side in Side::ALL {
            let mut drift = findings.drift[side.index()].clone();
            drift.extend(self.unserved(side, now));
            drift.extend(silence(self.ports[side.index()].device.name(), silent));
            log_changes(side, &self.drift.reported[side.index()], &drift);
            self.drift.reported[side.index()] = drift;
        }
        self.log_mtu(findings.mtu);
        Ok(())
    }

    /// The problems of recent frames that no worker received.
    fn unserved(&mut self, side: Side, now: Time) -> Vec<Drift> {
        let name = self.ports[side.index()].device.name().to_owned();
        let counts = self.programs[side.index()].counts().ok();
        let no_socket = counts.map(|cores| cores.iter().map(|core| core.unbound).sum());
        let past_program = self.past_program(side);
        let mut drift = Vec::new();
        if self.drift.no_socket[side.index()].is_growing(no_socket, now) {
            let problem = format!(
                "frames arrive on queues of {name} that no worker serves, and are dropped; compare `ethtool -l {name}` with \
                 the queues in `knockctl show status`, or start the dataplane again"
            );
            drift.push(Drift { kind: DriftKind::NoSocket, problem });
        }
        if self.drift.past_program[side.index()].is_growing(past_program, now) {
            let problem = format!(
                "frames get past the XDP program on {name}, and are dropped: its driver does not run the program on all \
                 queues; compare `ethtool -l {name}` with the queues in `knockctl show status`, or start the dataplane again"
            );
            drift.push(Drift { kind: DriftKind::PastProgram, problem });
        }
        drift
    }

    /// Logs a change of both MTUs, which is no drift.
    fn log_mtu(&mut self, mtu: [u32; 2]) {
        let was = std::mem::replace(&mut self.drift.mtu, mtu);
        if mtu != was
            && mtu[0] == mtu[1]
            && self.drift.reported.iter().flatten().all(|drift| drift.kind != DriftKind::Mtu)
        {
            tracing::info!(mtu = mtu[0], "both interfaces have this MTU now");
            // What the driver may split is shorter now.
            let longest = headers::max_frame(mtu[0] as usize) as u32;
            if let Err(error) = self.programs[0].set_longest(longest) {
                tracing::error!(%error, "parts of frames that are too long may pass");
            }
        }
    }

    /// Counters of an interface: the present ones of the programs, and those of the driver at the last check.
    pub(super) fn interface_counters(&mut self, side: Side) -> InterfaceCounters {
        let counted = &mut self.drift.counted[side.index()];
        // A failed read must not make counters decrease.
        if let Ok(cores) = self.programs[side.index()].counts() {
            *counted = cores.into_iter().fold(CoreCounts::default(), |sum, core| CoreCounts {
                seen: sum.seen + core.seen,
                unbound: sum.unbound + core.unbound,
                unstamped: sum.unstamped + core.unstamped,
                tails: sum.tails + core.tails,
                misses: sum.misses + core.misses,
            });
        }
        let counted = *counted;
        let past_program = self.past_program(side);
        let driver = self.drift.findings.load().counters[side.index()];
        InterfaceCounters {
            arrived: counted.seen,
            no_socket: counted.unbound,
            tails: counted.tails,
            past_program,
            rx_packets: driver.rx_packets,
            tx_packets: driver.tx_packets,
            rx_errors: driver.rx_errors,
            tx_errors: driver.tx_errors,
            rx_dropped: driver.rx_dropped,
            tx_dropped: driver.tx_dropped,
            rx_missed: driver.rx_missed,
        }
    }

    /// Frames that passed the XDP program; `None` if the kernel does not count them.
    fn past_program(&mut self, side: Side) -> Option<u64> {
        self.ingress[side.index()].as_mut().and_then(|ingress| ingress.count().ok())
    }
}

/// The problem of a watcher that has waited for the kernel for too long.
fn silence(name: &str, silent: Duration) -> Option<Drift> {
    let seconds = silent.as_secs();
    let problem = format!("the state of {name} is not known: the kernel has not answered for {seconds} s");
    (silent > SILENT).then_some(Drift { kind: DriftKind::Unverified, problem })
}

/// Logs each problem when it begins, when its text changes, and when it ends.
fn log_changes(side: Side, before: &[Drift], now: &[Drift]) {
    for drift in now {
        let same = |reported: &&Drift| {
            reported.kind == drift.kind && (reported.problem == drift.problem || !is_new_by_text(drift.kind))
        };
        if before.iter().find(same).is_none() {
            tracing::error!(%side, kind = drift.kind.name(), "{}", drift.problem);
        }
    }
    for drift in before {
        if now.iter().all(|still| still.kind != drift.kind) {
            tracing::info!(%side, kind = drift.kind.name(), "meets its requirement again");
        }
    }
}

/// Whether a new text of this kind is a new problem. The text of other kinds contains a time.
fn is_new_by_text(kind: DriftKind) -> bool {
    kind != DriftKind::Unverified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_does_not_answer_is_reported() {
        assert_eq!(silence("eth1", SILENT), None);
        let reported = silence("eth1", SILENT + Duration::from_secs(1)).expect("a problem");
        assert!(reported.kind == DriftKind::Unverified && reported.problem.contains("eth1"), "{reported:?}");
        assert!(reported.problem.contains("for 11 s"), "{reported:?}");
    }

    #[test]
    fn a_pause_of_the_whole_process_is_no_silence_of_the_kernel() {
        let at = |millis: u64| Time::from_nanos((3_600_000 + millis) * 1_000_000);
        let mut silence = Silence::default();
        assert_eq!(silence.look(at(0), at(500)), Duration::ZERO, "however old the first one is");
        assert_eq!(silence.look(at(0), at(600)), Duration::from_millis(100));
        // The manager runs again before the watcher does.
        assert!(silence.look(at(0), at(60_000)) < SILENT);
        assert_eq!(silence.look(at(60_050), at(60_100)), Duration::ZERO);
        // A watcher that waited before the pause still does.
        let waits = (60_200..=70_200).step_by(100).map(|millis| silence.look(at(60_050), at(millis))).last();
        assert!(waits > Some(SILENT), "{waits:?}");
        assert!(silence.look(at(60_050), at(130_000)) > SILENT);
    }

    #[test]
    fn a_counter_is_growing_until_a_while_after_it_last_grew() {
        let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
        let mut growth = Growth::default();
        assert!(!growth.is_growing(Some(5), at(1)), "counted while the filter started");
        assert!(!growth.is_growing(Some(5), at(2)));
        assert!(growth.is_growing(Some(6), at(3)) && growth.is_growing(Some(6), at(12)));
        assert!(!growth.is_growing(Some(6), at(13)));
    }

    #[test]
    fn a_counter_that_cannot_be_read_for_a_while_has_not_grown() {
        let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
        let mut growth = Growth::default();
        for (second, count) in [None, Some(5), None, Some(5)].into_iter().enumerate() {
            assert!(!growth.is_growing(count, at(second as u64)), "{second}");
        }
        assert!(growth.is_growing(Some(6), at(4)) && growth.is_growing(None, at(5)));
    }
}
