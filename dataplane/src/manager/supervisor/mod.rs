//! The supervisor: workers, interfaces and connections, ten times a second.

mod cut;
mod drift;
mod event_names;
mod events;
mod feed;
mod grants;
mod heartbeat;
mod offload;
mod packet_feed;
mod status;
mod tracked;
mod wall_clock;

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use knockplane_engine::pipeline::history::History;
use knockplane_limits::refusal::Refusals;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_ring::{Device, IngressDrop, XdpProgram};

pub(crate) use self::cut::ROOM_FOR_RESETS;
pub(crate) use self::drift::DriftState;
pub(crate) use self::events::EventLog;
use self::heartbeat::HUNG;
pub(crate) use self::heartbeat::HeartbeatWatch;
pub(crate) use self::offload::OffloadWatch;
pub(crate) use self::packet_feed::PacketFeed;
pub(crate) use self::tracked::TableWatch;
pub(crate) use self::wall_clock::WallClockWatch;
use crate::administration::Published;
use crate::counters::WorkerCounters;
use crate::idle::Waker;
use crate::journal::Journal;
use crate::shared::Shared;
use crate::stored_counters::CounterStore;

/// Slots that a sweep reads beyond the lists' capacity in each second, see `Lists::sweep`.
const SWEEP_MARGIN: usize = 65_536;

/// Minimum number of frames in a tick that allows a conclusion about cores.
const FEW_FRAMES: u64 = 20;

/// A core with less than this part of all frames counts as free of them: 1 in 20.
const SHARE: u64 = 20;

/// The manager's handle of a running worker.
pub(crate) struct WorkerHandle {
    pub(crate) core: Option<usize>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) history: Arc<History>,
    /// Whether no frames arrive on the worker's core, so that the worker may spin for a short time.
    pub(crate) own_core: Arc<AtomicBool>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) heartbeat: HeartbeatWatch,
}

/// One of the two interfaces with its program.
pub(crate) struct Port {
    pub(crate) device: Arc<Device>,
    pub(crate) zero_copy: bool,
    /// The reason that frames are copied, if they are.
    pub(crate) copy_reason: Option<String>,
    pub(crate) queues: u32,
}

/// The state of supervision. The programs are detached when it is dropped, after the workers have ended.
pub(crate) struct Supervisor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) published: Arc<Published>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) ports: [Port; 2],
    pub(crate) programs: [XdpProgram; 2],
    /// The drops behind the programs, which are removed after the programs.
    pub(crate) ingress: [Option<IngressDrop>; 2],
    pub(crate) drift: DriftState,
    pub(crate) connection_capacity: usize,
    /// Connections to the control socket that a limit refused or closed.
    pub(crate) refusals: Arc<Refusals>,
    /// The number of frames that had arrived on each core at the last check.
    pub(crate) arrived: Vec<u64>,
    pub(crate) event_log: EventLog,
    pub(crate) packet_feed: PacketFeed,
    /// The number of the last event of the restoration at the start.
    pub(crate) restored_events: u64,
    /// The time of the next read of the lists for a reader of events with a gap.
    pub(crate) next_recovery: Time,
    pub(crate) journal: Arc<Journal>,
    pub(crate) counter_store: Arc<CounterStore>,
    pub(crate) table_watch: TableWatch,
    pub(crate) offload_watch: OffloadWatch,
    pub(crate) wall_clock: WallClockWatch,
    /// Whether the configuration asks for the fast path.
    pub(crate) fast_path_configured: bool,
    /// The slot at which the search for connections to cut continues.
    pub(crate) cut_next: u64,
}

impl Supervisor {
    pub(super) fn keep_house(&mut self) -> anyhow::Result<()> {
        let now = self.shared.clock.now();
        self.watch_wall_clock();
        let ticks_in_half_a_second = 5;
        let lists = &self.shared.state.lists;
        let budget = (lists.capacity() + SWEEP_MARGIN) / ticks_in_half_a_second;
        lists.sweep(budget, now);
        // Before the events: a generation that a worker leaves only now may have later events.
        let oldest = self.oldest_generation();
        self.log_events(now);
        // After the events: the events of a generation that no worker runs count for its rules.
        self.published.ledger().book.settle(oldest, &self.shared.generation.load());
        self.watch_connections(now);
        self.watch_offload(now);
        self.cut_connections(now);
        self.watch_workers(now);
        self.watch_cores();
        self.watch_links(now);
        self.watch_drift(now)
    }

    /// Whether an apply or a reload was not confirmed in time.
    pub(super) fn must_roll_back(&self) -> bool {
        let unconfirmed = self.published.unconfirmed.load();
        unconfirmed.as_deref().is_some_and(|unconfirmed| unconfirmed.is_due(self.shared.clock.now()))
    }

    /// The oldest generation of rules that a worker still runs.
    fn oldest_generation(&self) -> u64 {
        self.workers.iter().map(|worker| worker.counters.generation.observe()).min().unwrap_or_default()
    }

    fn watch_workers(&mut self, now: Time) {
        for (number, worker) in self.workers.iter_mut().enumerate() {
            match worker.heartbeat.look(worker.counters.heartbeat(), now) {
                Some(true) => tracing::error!(worker = number, "the worker hangs: nothing passes on its queue"),
                Some(false) => tracing::info!(worker = number, "the worker goes on"),
                None => {}
            }
        }
        self.watch_drops();
        self.shared.fast_path.watch_workers(self.workers.iter().any(|worker| worker.heartbeat.hangs()));
    }

    /// Finds the workers without other work on their core, by the cores on which frames arrive. Without frames nothing
    /// changes.
    fn watch_cores(&mut self) {
        let mut arrived = Vec::new();
        for program in &mut self.programs {
            let counts = program.counts().unwrap_or_default();
            if counts.iter().any(|core| core.unstamped > 0) && self.shared.stamped.swap(false, Relaxed) {
                tracing::warn!(
                    "a driver cannot stamp frames with their arrival: knocks of one source on several queues may be \
                     decided in another order; let queues be chosen by addresses (ethtool -N … rx-flow-hash … sd)"
                );
            }
            arrived.resize(counts.len().max(arrived.len()), 0);
            for (sum, core) in arrived.iter_mut().zip(counts) {
                *sum += core.seen;
            }
        }
        let before = std::mem::replace(&mut self.arrived, arrived);
        let new = |core: usize| {
            self.arrived.get(core).zip(before.get(core)).map_or(0, |(now, before)| now.saturating_sub(*before))
        };
        let total: u64 = (0..self.arrived.len()).map(new).sum();
        if total < FEW_FRAMES {
            return;
        }
        for worker in &self.workers {
            let own = worker.core.is_some_and(|core| new(core) * SHARE < total);
            worker.own_core.store(own, Relaxed);
        }
    }

    /// Logs links that go up and down.
    fn watch_links(&self, now: Time) {
        for (side, port) in Side::ALL.iter().zip(&self.ports) {
            let name = port.device.name();
            let link = &self.shared.links[side.index()];
            let is_up = port.device.is_up().unwrap_or(false);
            self.shared.fast_path.watch_link(*side, is_up, now);
            match (link.load(Relaxed), is_up) {
                (true, false) => tracing::warn!(%side, interface = name, "link is down"),
                (false, true) => tracing::info!(%side, interface = name, "link is up"),
                _ => continue,
            }
            link.fetch_xor(true, Relaxed);
        }
    }

    /// Stops the workers and waits for them, except for a worker that hangs: then the process ends at once, and the
    /// kernel releases everything.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for worker in &self.workers {
            worker.waker.wake();
        }
        let patience = Instant::now() + HUNG;
        while self.workers.iter().any(|worker| !worker.thread.is_finished()) {
            if Instant::now() > patience {
                tracing::error!("a worker hangs and does not stop");
                knockplane_log::flush(Some(knockplane_log::AT_EXIT));
                process::abort();
            }
            thread::sleep(Duration::from_millis(1));
        }
        // Doors that opened since the last tick.
        self.log_last_events(self.shared.clock.now());
    }
}
