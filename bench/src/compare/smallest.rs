//! The smallest possible AF_XDP program, on the same rings as the dataplane: it forwards every frame to the other side, or
//! drops it, without reading it. The difference to the dataplane is the cost of the decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use knockplane_policy::packet::Side;
use knockplane_ring::{
    Buffers, Device, Dispositions, LoadedProgram, Program, RingSettings, Rings, SocketStatistics, ZeroCopy,
    raise_memlock_limit,
};
use std::sync::Mutex;

use super::candidate::{Candidate, Losses, Role};
use super::lab::{CANDIDATE_CORE, Lab};

/// The dataplane's default.
const RING_SIZE: u32 = 2048;

/// Longest sleep, after which the thread checks whether it must end.
const SLEEP: Duration = Duration::from_millis(50);

pub(super) struct Smallest {
    stop: Arc<AtomicBool>,
    losses: Arc<Mutex<Losses>>,
    thread: Option<JoinHandle<()>>,
}

struct Loop {
    rings: Rings,
    /// Detached when dropped.
    _programs: [Program; 2],
    _devices: [Device; 2],
    role: Role,
    spins: bool,
    tx_full: u64,
}

impl Smallest {
    pub(super) fn start(lab: &Lab, role: Role, spins: bool) -> Result<Self> {
        raise_memlock_limit();
        let mut running = lab.topology.filter.within(|| {
            let mut devices = [Device::open("outside")?, Device::open("inside")?];
            let max_frame = devices[0].mtu()? + 22;
            let both = [&devices[0], &devices[1]];
            let mut programs = LoadedProgram::load(both, 1, max_frame)?.attach(both)?;
            for device in &mut devices {
                device.promiscuous()?;
            }
            let drivers = [devices[0].driver(), devices[1].driver()];
            let buffers = Buffers::choose(drivers, max_frame, ZeroCopy::Auto)?;
            let settings = RingSettings { ring_size: RING_SIZE, buffers };
            let rings = Rings::bind([&devices[0], &devices[1]], 0, &settings)?;
            rings.connect(&mut programs, 0)?;
            Ok(Loop { rings, _programs: programs, _devices: devices, role, spins, tx_full: 0 })
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let losses = Arc::new(Mutex::new(running.losses()));
        let (its_stop, its_losses) = (Arc::clone(&stop), Arc::clone(&losses));
        let thread = thread::Builder::new().name("smallest".to_owned()).spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: CANDIDATE_CORE });
            running.run(&its_stop, &its_losses);
        });
        Ok(Smallest { stop, losses, thread: Some(thread.context("cannot start a thread")?) })
    }
}

impl Loop {
    fn run(&mut self, stop: &AtomicBool, losses: &Mutex<Losses>) {
        let mut turns: u32 = 0;
        while !stop.load(Relaxed) {
            let mut frames = 0;
            for side in Side::ALL {
                let count = self.rings.receive(side);
                if count > 0 {
                    let forward = match self.role {
                        Role::Forward => u64::MAX >> (64 - count),
                        Role::Drop => 0,
                    };
                    let settled = self.rings.settle(Dispositions { forward, reply: 0 }, |_| None);
                    self.tx_full += u64::from((forward & !settled.forwarded).count_ones());
                }
                frames += count;
            }
            for side in Side::ALL {
                self.rings.kick(side);
            }
            // The thread is at rest when it has slept twice, or spun for a while.
            let at_rest = if self.spins { 1 << 16 } else { 2 };
            if frames == 0 && (!self.spins || turns > at_rest) {
                // A spinning thread stops too, so that it leaves the core to the next candidate.
                self.rings.wait(None, SLEEP);
            }
            turns = if frames == 0 { turns.saturating_add(1) } else { 0 };
            if turns == at_rest {
                *losses.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = self.losses();
            }
        }
    }

    fn losses(&self) -> Losses {
        let mut losses = Losses::from([("tx-full".to_owned(), self.tx_full)]);
        for side in Side::ALL {
            let SocketStatistics { rx_dropped, rx_ring_full, fill_ring_empty, .. } = self.rings.statistics(side);
            let named = [
                // The kernel counts an empty fill ring in this counter too.
                ("rx-dropped", rx_dropped.saturating_sub(fill_ring_empty)),
                ("rx-ring-full", rx_ring_full),
                ("fill-ring-empty", fill_ring_empty),
            ];
            for (name, frames) in named {
                *losses.entry(name.to_owned()).or_default() += frames;
            }
        }
        losses
    }
}

impl Candidate for Smallest {
    fn losses(&self) -> Result<Losses> {
        Ok(self.losses.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone())
    }
}

impl Drop for Smallest {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The panic has already been printed.
            let _ = thread.join();
        }
    }
}
