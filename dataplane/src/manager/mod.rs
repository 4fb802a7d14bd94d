//! The manager: the one thread that is not on the packets' way. It answers control, and keeps house.
//!
//! One mio loop over the control socket, its connections and the signals. Every tick: the lists are swept of what
//! expired, events of the workers are logged, replaced generations are folded into the book, hung workers, links that
//! went down and interfaces that are no longer as they must be are said once. SIGHUP has it read the configuration
//! again. When it ends, it stops the workers and waits for them.

mod adding;
mod answer;
mod connection;
mod connections;
mod cut;
mod doors;
mod drift;
mod event_names;
mod events;
mod grants;
mod heartbeat;
mod listener;
mod lists;
mod names;
mod notes;
mod offload;
mod page;
mod reload;
mod source;
mod tracked;

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use knockplane_engine::pipeline::history::History;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_policy::wire::Request;
use knockplane_ring::{Device, IngressDrop, Program};
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::connections::Connections;
pub(crate) use self::cut::ROOM_FOR_RESETS;
pub(crate) use self::drift::DriftState;
pub(crate) use self::events::EventLog;
use self::heartbeat::HUNG;
pub(crate) use self::heartbeat::HeartbeatWatch;
pub(crate) use self::listener::Listener;
pub(crate) use self::notes::Notes;
pub(crate) use self::offload::OffloadWatch;
pub(crate) use self::source::Watch;
pub(crate) use self::tracked::TableWatch;
use crate::clock;
use crate::config::Config;
use crate::counters::WorkerCounters;
use crate::generation::Book;
use crate::held::Held;
use crate::idle::Waker;
use crate::names::Names;
use crate::store::Store;
use crate::worker::Shared;

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// How often it keeps house. Five ticks, half a second, sweep all lists, so that expiry shows within a second.
const TICK: Duration = Duration::from_millis(100);

/// Slots that a sweep looks at beyond the lists' capacity in each second, see `Lists::sweep`.
const SWEEP_MARGIN: usize = 65_536;

/// Frames in a tick below which nothing can be said about cores.
const FEW_FRAMES: u64 = 20;

/// A core that takes less than this part of all frames is as good as free of them: 1 in 20.
const SHARE: u64 = 20;

/// A running worker, as the manager sees it.
pub(crate) struct WorkerHandle {
    pub(crate) core: Option<usize>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) history: Arc<History>,
    /// Whether nothing arrives on its core, so that it may spin a little.
    pub(crate) own_core: Arc<AtomicBool>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) heartbeat: HeartbeatWatch,
}

/// One of the two interfaces with its program.
pub(crate) struct Port {
    pub(crate) device: Arc<Device>,
    pub(crate) zero_copy: bool,
    /// Why frames are copied, if they are.
    pub(crate) copy_reason: Option<String>,
    pub(crate) queues: u32,
}

/// Everything the manager owns. The programs are detached when it is dropped, after the workers have ended.
pub(crate) struct Manager {
    pub(crate) config: Config,
    pub(crate) listener: Listener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) ports: [Port; 2],
    pub(crate) programs: [Program; 2],
    /// What stands behind the programs, and goes after them.
    pub(crate) ingress: [Option<IngressDrop>; 2],
    pub(crate) drift: DriftState,
    pub(crate) book: Book,
    pub(crate) store: Store,
    pub(crate) held: Held,
    pub(crate) names: Names,
    pub(crate) notes: Notes,
    pub(crate) watch: Watch,
    pub(crate) applied: u64,
    pub(crate) refused: u64,
    /// Frames that had arrived on each core at the last look.
    pub(crate) arrived: Vec<u64>,
    pub(crate) event_log: EventLog,
    pub(crate) table_watch: TableWatch,
    pub(crate) offload_watch: OffloadWatch,
    /// The slot of the table of connections that the search for connections to cut goes on at.
    pub(crate) cut_next: u64,
}

impl Manager {
    /// Serves until SIGINT or SIGTERM, then stops the workers. `hangup` says that SIGHUP came, perhaps before this.
    ///
    /// # Errors
    /// If an interface is gone or has changed so that the filter cannot go on, or the kernel has no more descriptors.
    pub(crate) fn run(mut self, hangup: &AtomicBool, on_ready: impl FnOnce()) -> anyhow::Result<()> {
        let mut poll = Poll::new().context("cannot make an event queue")?;
        poll.registry().register(&mut self.listener.socket, LISTENER, Interest::READABLE)?;
        let mut signals = signals().context("cannot catch signals")?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;

        let mut events = Events::with_capacity(128);
        let mut connections = Connections::new(FIRST_CONNECTION, Arc::clone(&self.listener.refusals));
        let mut next_tick = Instant::now();
        on_ready();
        loop {
            let pause = next_tick.saturating_duration_since(Instant::now());
            match poll.poll(&mut events, Some(if connections.has_work() { Duration::ZERO } else { pause })) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => connections.callers_wait(),
                    SIGNALS => {
                        tracing::info!("stopping");
                        return self.stop();
                    }
                    token => connections.wake(token),
                }
            }
            let tick = Instant::now() >= next_tick;
            // Requests before newcomers: a connection whose request waits must not give way as an idle one.
            connections.serve(|request| self.answer(request));
            connections.accept(&self.listener, poll.registry(), tick);
            if hangup.swap(false, Relaxed) {
                // What comes of it is in the log.
                self.answer(Request::Reload);
            }
            if tick {
                next_tick = Instant::now() + TICK;
                connections.expire();
                if let Err(error) = self.keep_house() {
                    self.stop()?;
                    return Err(error);
                }
            }
        }
    }

    fn keep_house(&mut self) -> anyhow::Result<()> {
        let now = self.shared.clock.now();
        self.shared.wall.store(clock::wall(), Relaxed);
        let ticks_in_half_a_second = 5;
        let lists = &self.shared.state.lists;
        let budget = (lists.capacity() + SWEEP_MARGIN) / ticks_in_half_a_second;
        lists.sweep(budget, now);
        self.expire_held(now);
        // Before the events: of a generation that a worker leaves only now, some may come behind them.
        let oldest = self.oldest_generation();
        self.log_events(now);
        // Behind the events: those of a generation that is left for good are counted by its rules.
        self.book.settle(oldest, &self.shared.generation.load());
        self.watch_connections(now);
        self.watch_offload(now);
        self.cut_connections(now);
        self.watch_workers(now);
        self.watch_cores();
        self.watch_links();
        self.watch_drift(now)
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
    }

    /// Finds out which workers have their core to themselves, by where frames arrive. Without frames nothing changes.
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

    /// Notes links that go up and down.
    fn watch_links(&self) {
        for (side, port) in Side::ALL.iter().zip(&self.ports) {
            let name = port.device.name();
            let link = &self.shared.links[side.index()];
            match (link.load(Relaxed), port.device.is_up().unwrap_or(false)) {
                (true, false) => tracing::warn!(%side, interface = name, "link is down"),
                (false, true) => tracing::info!(%side, interface = name, "link is up"),
                _ => continue,
            }
            link.fetch_xor(true, Relaxed);
        }
    }

    /// Stops the workers and waits for them, but not for one that hangs: then the process ends as it stands, and the
    /// kernel takes everything away.
    fn stop(mut self) -> anyhow::Result<()> {
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
        Ok(())
    }
}

/// SIGINT and SIGTERM as bytes on a socket, so that the loop sees them.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = StdUnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(UnixStream::from_std(read))
}
