//! The smallest possible AF_XDP program: it forwards every frame to the other side, or drops it, without reading it.
//!
//! On the dataplane's rings, the difference to the dataplane is the cost of the decision. On the rings of the crate
//! `xsk-rs`, the difference to the first program is the cost or the gain of the project's own rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use knockplane_peer::PeerSockets;
use knockplane_policy::packet::Side;
use knockplane_ring::{
    Buffers, Device, Dispositions, LoadedProgram, RingError, RingSettings, Rings, SocketStatistics, XdpProgram,
    ZeroCopy, raise_memlock_limit,
};
use std::sync::Mutex;

use super::candidate::{Candidate, Losses, Role};
use super::defaults;
use super::lab::{CANDIDATE_CORE, Lab};

/// Longest sleep, after which the thread checks whether it must end.
const SLEEP: Duration = Duration::from_millis(50);

pub(super) struct Smallest {
    stop: Arc<AtomicBool>,
    losses: Arc<Mutex<Losses>>,
    thread: Option<JoinHandle<()>>,
}

/// The library behind the sockets and rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Library {
    /// The rings of the dataplane.
    Own,
    /// The crate `xsk-rs`.
    XskRs,
}

/// Two sockets and their rings, whose frames are forwarded to the other side or dropped.
trait Forwarder: Send {
    /// Receives a batch on the side, and settles it. Returns the number of received frames, and of frames that the transmit ring
    /// had no room for.
    fn turn(&mut self, side: Side, role: Role) -> (usize, usize);

    /// Sends the side's frames, and refills its fill ring.
    fn kick(&mut self, side: Side);

    /// Sleeps until a frame has arrived.
    fn wait(&self, at_most: Duration);

    fn statistics(&self, side: Side) -> SocketStatistics;
}

impl Forwarder for Rings {
    fn turn(&mut self, side: Side, role: Role) -> (usize, usize) {
        let count = self.receive(side);
        if count == 0 {
            return (0, 0);
        }
        let forward = match role {
            Role::Forward => u64::MAX >> (64 - count),
            Role::Drop => 0,
        };
        let settled = self.settle(Dispositions { forward, reply: 0 }, |_| None);
        (count, (forward & !settled.forwarded).count_ones() as usize)
    }

    fn kick(&mut self, side: Side) {
        Rings::kick(self, side);
    }

    fn wait(&self, at_most: Duration) {
        Rings::wait(self, None, at_most);
    }

    fn statistics(&self, side: Side) -> SocketStatistics {
        Rings::statistics(self, side)
    }
}

impl Forwarder for PeerSockets {
    fn turn(&mut self, side: Side, role: Role) -> (usize, usize) {
        match role {
            Role::Forward => {
                let forwarded = self.forward(side.index(), side.opposite().index());
                (forwarded.received, forwarded.tx_full)
            }
            Role::Drop => (self.drop_batch(side.index()), 0),
        }
    }

    fn kick(&mut self, side: Side) {
        PeerSockets::kick(self, side.index());
    }

    fn wait(&self, at_most: Duration) {
        PeerSockets::wait(self, at_most);
    }

    fn statistics(&self, side: Side) -> SocketStatistics {
        PeerSockets::statistics(self, side.index())
    }
}

struct Loop<F> {
    forwarder: F,
    /// The programs on the interfaces. Their drop detaches them.
    _programs: [XdpProgram; 2],
    _devices: [Device; 2],
    role: Role,
    spins: bool,
    tx_full: u64,
}

impl Smallest {
    pub(super) fn start(lab: &Lab, library: Library, role: Role, spins: bool) -> Result<Self> {
        raise_memlock_limit();
        let filter = &lab.topology.filter;
        // The rings have the size of those of the dataplane, so that the size causes no difference.
        let ring_size = defaults::dataplane("ring-size")?;
        match library {
            Library::Own => Self::spawn(filter.within(|| {
                let (devices, mut programs, max_frame) = prepare()?;
                let drivers = [devices[0].driver(), devices[1].driver()];
                let buffers = Buffers::choose(drivers, max_frame, ZeroCopy::Auto)?;
                let settings = RingSettings { ring_size, buffers };
                let forwarder = Rings::bind([&devices[0], &devices[1]], 0, &settings)?;
                forwarder.connect(&mut programs, 0)?;
                Ok(Loop { forwarder, _programs: programs, _devices: devices, role, spins, tx_full: 0 })
            })?),
            Library::XskRs => Self::spawn(filter.within(|| {
                let (devices, mut programs, _) = prepare()?;
                let forwarder = PeerSockets::bind(&[&devices[0], &devices[1]], ring_size)?;
                for side in Side::ALL {
                    programs[side.index()].set_socket(0, forwarder.fd(side.index()))?;
                }
                Ok(Loop { forwarder, _programs: programs, _devices: devices, role, spins, tx_full: 0 })
            })?),
        }
    }

    fn spawn<F: Forwarder + 'static>(mut running: Loop<F>) -> Result<Self> {
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

/// Opens both interfaces and attaches the program. Returns the longest frame too.
fn prepare() -> Result<([Device; 2], [XdpProgram; 2], u32), RingError> {
    let mut devices = [Device::open("outside")?, Device::open("inside")?];
    let max_frame = devices[0].mtu()? + 22;
    let both = [&devices[0], &devices[1]];
    let programs = LoadedProgram::load(both, 1, max_frame)?.attach(both)?;
    for device in &mut devices {
        device.promiscuous()?;
    }
    Ok((devices, programs, max_frame))
}

impl<F: Forwarder> Loop<F> {
    fn run(&mut self, stop: &AtomicBool, losses: &Mutex<Losses>) {
        let mut turns: u32 = 0;
        while !stop.load(Relaxed) {
            let mut frames = 0;
            for side in Side::ALL {
                let (count, tx_full) = self.forwarder.turn(side, self.role);
                self.tx_full += tx_full as u64;
                frames += count;
            }
            for side in Side::ALL {
                self.forwarder.kick(side);
            }
            // The thread is at rest when it has slept twice, or spun for a while.
            let at_rest = if self.spins { 1 << 16 } else { 2 };
            if frames == 0 && (!self.spins || turns > at_rest) {
                // A spinning thread stops too, so that it leaves the core to the next candidate.
                self.forwarder.wait(SLEEP);
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
            let SocketStatistics { rx_dropped, rx_ring_full, fill_ring_empty, .. } = self.forwarder.statistics(side);
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
