//! What the manager makes of what the watcher found (`crate::drift`): it tells of it in the log and to control, and
//! ends the filter if it must. It only reads memory: the watcher asks the kernel.
//!
//! To that it adds what only counters show: frames that arrive where nobody serves them, and frames that get past the
//! XDP program.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use arc_swap::ArcSwap;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Drift, DriftKind, InterfaceCounters, Repairs};
use knockplane_policy::word::Word as _;

use super::Manager;
use crate::drift::{Findings, MENDED};
use crate::requirements::unmet;

/// How long frames that went astray are told of after the last one.
const ASTRAY: Duration = Duration::from_secs(10);

/// A watcher that has found nothing new for so long waits for the kernel.
const SILENT: Duration = Duration::from_secs(10);

/// What the watcher found, and what was told of it.
pub(crate) struct DriftState {
    findings: Arc<ArcSwap<Findings>>,
    /// What is not as it should be, by side, as it was told last.
    told: [Vec<Drift>; 2],
    mtu: [u32; 2],
    no_socket: [Growth; 2],
    past_program: [Growth; 2],
}

/// A counter that should stand still, and when it last did not.
#[derive(Clone, Copy, Default)]
struct Growth {
    last: Option<u64>,
    grew: Option<Time>,
}

impl Growth {
    /// Notes what it is now, and says whether it has grown lately. What it was at the first look does not count.
    fn is_growing(&mut self, count: u64, now: Time) -> bool {
        if self.last.replace(count).is_some_and(|last| count > last) {
            self.grew = Some(now);
        }
        self.grew.is_some_and(|grew| now.since(grew) < ASTRAY)
    }
}

impl DriftState {
    pub(crate) fn new(findings: Arc<ArcSwap<Findings>>) -> Self {
        let mtu = findings.load().mtu;
        DriftState {
            findings,
            told: Default::default(),
            mtu,
            no_socket: Default::default(),
            past_program: Default::default(),
        }
    }

    /// What is not as it should be on this side.
    pub(crate) fn of(&self, side: Side) -> Vec<Drift> {
        self.told[side.index()].clone()
    }

    /// MTU in bytes, as of the last look.
    pub(crate) fn mtu(&self, side: Side) -> u32 {
        self.mtu[side.index()]
    }

    /// How often something was mended on this side.
    pub(crate) fn repairs(&self, side: Side) -> Vec<Repairs> {
        let times = self.findings.load().repairs[side.index()];
        MENDED.into_iter().zip(times).map(|(kind, times)| Repairs { kind, times }).collect()
    }
}

impl Manager {
    /// Tells of what has changed since the last time.
    ///
    /// # Errors
    /// If the filter must end, with why and what to do.
    pub(super) fn watch_drift(&mut self, now: Time) -> anyhow::Result<()> {
        let findings = self.drift.findings.load_full();
        if let Some(end) = &findings.end {
            bail!("{end}");
        }
        for side in Side::ALL {
            let mut drift = findings.drift[side.index()].clone();
            drift.extend(self.astray(side, now));
            drift.extend(silence(self.ports[side.index()].device.name(), now.since(findings.at)));
            tell(side, &self.drift.told[side.index()], &drift);
            self.drift.told[side.index()] = drift;
        }
        self.tell_mtu(findings.mtu);
        Ok(())
    }

    /// Frames that arrive and that no worker receives, if there were any lately.
    fn astray(&mut self, side: Side, now: Time) -> Vec<Drift> {
        let name = self.ports[side.index()].device.name().to_owned();
        let counters = self.interface_counters(side);
        let mut drift = Vec::new();
        if self.drift.no_socket[side.index()].is_growing(counters.no_socket, now) {
            let problem = format!(
                "frames arrive on queues of {name} that no worker serves, and are dropped; compare `ethtool -l {name}` with \
                 the queues in `knockctl show status`, or start the dataplane again"
            );
            drift.push(unmet(DriftKind::NoSocket, problem));
        }
        if self.drift.past_program[side.index()].is_growing(counters.past_program.unwrap_or_default(), now) {
            let problem = format!(
                "frames get past the XDP program on {name}, and are dropped: its driver does not run the program on all \
                 queues; compare `ethtool -l {name}` with the queues in `knockctl show status`, or start the dataplane again"
            );
            drift.push(unmet(DriftKind::PastProgram, problem));
        }
        drift
    }

    /// That MTUs were changed in a way that is no harm. What is harm is told as drift.
    fn tell_mtu(&mut self, mtu: [u32; 2]) {
        let was = std::mem::replace(&mut self.drift.mtu, mtu);
        if mtu != was && mtu[0] == mtu[1] && self.drift.told.iter().flatten().all(|drift| drift.kind != DriftKind::Mtu)
        {
            tracing::info!(mtu = mtu[0], "both interfaces have this MTU now");
        }
    }

    /// What was counted at an interface: by the programs now, by the driver at the last look.
    pub(super) fn interface_counters(&mut self, side: Side) -> InterfaceCounters {
        let cores = self.programs[side.index()].counts().unwrap_or_default();
        let past_program = self.ingress[side.index()].as_mut().and_then(|ingress| ingress.count().ok());
        let driver = self.drift.findings.load().counters[side.index()];
        InterfaceCounters {
            arrived: cores.iter().map(|core| core.seen).sum(),
            no_socket: cores.iter().map(|core| core.unbound).sum(),
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
}

/// That nothing is known, if the watcher has waited for the kernel for too long.
fn silence(name: &str, silent: Duration) -> Option<Drift> {
    let seconds = silent.as_secs();
    let problem =
        format!("it is not known whether {name} is as it should be: the kernel has not answered for {seconds} s");
    (silent > SILENT).then(|| unmet(DriftKind::Unverified, problem))
}

/// Logs each thing once when it begins, again when it has changed, and once when it is over.
fn tell(side: Side, before: &[Drift], now: &[Drift]) {
    for drift in now {
        let same = |told: &&Drift| told.kind == drift.kind && (told.problem == drift.problem || !changes(drift.kind));
        if before.iter().find(same).is_none() {
            tracing::error!(%side, kind = drift.kind.name(), "{}", drift.problem);
        }
    }
    for drift in before {
        if now.iter().all(|still| still.kind != drift.kind) {
            tracing::info!(%side, kind = drift.kind.name(), "is as it should be again");
        }
    }
}

/// Whether another text about this means that something else has happened.
fn changes(kind: DriftKind) -> bool {
    kind != DriftKind::Unverified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_does_not_answer_is_told_of() {
        assert_eq!(silence("eth1", SILENT), None);
        let told = silence("eth1", SILENT + Duration::from_secs(1)).expect("it is told");
        assert!(told.kind == DriftKind::Unverified && told.problem.contains("eth1"), "{told:?}");
        assert!(told.problem.contains("for 11 s"), "{told:?}");
    }

    #[test]
    fn a_counter_is_told_of_while_it_grows_and_a_while_longer() {
        let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
        let mut growth = Growth::default();
        assert!(!growth.is_growing(5, at(1)), "what was counted while the filter started");
        assert!(!growth.is_growing(5, at(2)));
        assert!(growth.is_growing(6, at(3)) && growth.is_growing(6, at(12)));
        assert!(!growth.is_growing(6, at(13)));
    }
}
