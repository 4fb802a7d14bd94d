//! The manager: the one thread that is not on the packets' way. It answers control, and keeps house.
//!
//! One mio loop over the control socket, its connections and the signals. Every tick: the lists are swept of what
//! expired, events of the workers are logged, replaced generations are folded into the book, hung workers and links
//! that went down are said once. SIGHUP has it read the configuration again. When it ends, it stops the workers and waits
//! for them.

mod adding;
mod answer;
mod connection;
mod doors;
mod listener;
mod lists;
mod notes;
mod page;
mod reload;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use knockplane_engine::events::Event;
use knockplane_engine::lists::{Gone, ListId, Why};
use knockplane_policy::door::What;
use knockplane_policy::eval::log::Entry;
use knockplane_policy::packet::Side;
use knockplane_policy::time::{Time, format_duration};
use knockplane_policy::wire::Request;
use knockplane_ring::{Device, Program};
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::connection::Connection;
pub(crate) use self::listener::Listener;
pub(crate) use self::notes::Notes;
use crate::clock;
use crate::config::Config;
use crate::counters::WorkerCounters;
use crate::generation::Book;
use crate::held::Held;
use crate::idle::Waker;
use crate::start::{self, EVENT_QUEUE};
use crate::store::Store;
use crate::worker::Shared;

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// How often it keeps house. Five ticks, half a second, sweep all lists, so that expiry shows within a second.
const TICK: Duration = Duration::from_millis(100);

/// Slots that a sweep looks at beyond the lists' capacity in each second, see `Lists::sweep`.
const SWEEP_MARGIN: usize = 65_536;

/// A worker that has not been heard of for so long hangs.
const HUNG: Duration = Duration::from_secs(2);

/// Frames in a tick below which nothing can be said about cores.
const FEW_FRAMES: u64 = 20;

/// A core that takes less than this part of all frames is as good as free of them: 1 in 20.
const SHARE: u64 = 20;

/// Connections at once: control, and a few people with tools.
const MAX_CONNECTIONS: usize = 16;

/// Events logged a tick; further ones are counted as lost.
const MAX_LOGGED_EVENTS: usize = 64;

/// A running worker, as the manager sees it.
pub(crate) struct WorkerHandle {
    pub(crate) core: Option<usize>,
    pub(crate) counters: Arc<WorkerCounters>,
    /// Whether nothing arrives on its core, so that it may spin a little.
    pub(crate) own_core: Arc<AtomicBool>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) hung: bool,
}

/// One of the two interfaces with its program.
pub(crate) struct Port {
    pub(crate) device: Device,
    pub(crate) zero_copy: bool,
    /// Why frames are copied, if they are.
    pub(crate) copy_reason: Option<String>,
    pub(crate) queues: u32,
    pub(crate) mtu: u32,
    /// How the host would forward past the filter if the process ended now.
    pub(crate) way_past: Option<String>,
}

/// Everything the manager owns. The programs are detached when it is dropped, after the workers have ended.
pub(crate) struct Manager {
    pub(crate) config: Config,
    pub(crate) listener: Listener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) ports: [Port; 2],
    pub(crate) programs: [Program; 2],
    pub(crate) book: Book,
    pub(crate) store: Store,
    pub(crate) held: Held,
    pub(crate) notes: Notes,
    pub(crate) applied: u64,
    pub(crate) refused: u64,
    /// Frames that had arrived on each core at the last look.
    pub(crate) arrived: Vec<u64>,
}

impl Manager {
    /// Serves until SIGINT or SIGTERM, then stops the workers. `hangup` says that SIGHUP came, perhaps before this.
    ///
    /// # Errors
    /// If an interface is gone, or the kernel has no more descriptors.
    pub(crate) fn run(mut self, hangup: &AtomicBool, on_ready: impl FnOnce()) -> anyhow::Result<()> {
        let mut poll = Poll::new().context("cannot make an event queue")?;
        poll.registry().register(&mut self.listener.socket, LISTENER, Interest::READABLE)?;
        let mut signals = signals().context("cannot catch signals")?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;

        let mut events = Events::with_capacity(64);
        let mut connections = HashMap::<Token, Connection>::new();
        let mut next_token = FIRST_CONNECTION;
        let mut next_tick = Instant::now();
        let mut callers = false;
        on_ready();
        loop {
            match poll.poll(&mut events, Some(next_tick.saturating_duration_since(Instant::now()))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => callers = true,
                    SIGNALS => {
                        tracing::info!("stopping");
                        return self.stop();
                    }
                    token => {
                        if let Some(connection) = connections.get_mut(&token)
                            && !connection.serve(|request| self.answer(request))
                        {
                            connections.remove(&token);
                        }
                    }
                }
            }
            let tick = Instant::now() >= next_tick;
            // Who did not get in at once is looked at again: the event comes only once.
            if callers || tick {
                callers = false;
                for stream in self.listener.accept(MAX_CONNECTIONS - connections.len()) {
                    let token = Token(next_token);
                    next_token += 1;
                    if let Some(connection) = Connection::greet(stream, poll.registry(), token) {
                        connections.insert(token, connection);
                    }
                }
            }
            if hangup.swap(false, Relaxed) {
                // What comes of it is in the log.
                self.answer(Request::Reload);
            }
            if tick {
                next_tick = Instant::now() + TICK;
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
        lists.sweep_telling(budget, now, |gone| self.shared.events.push(Event::Gone(gone)));
        self.expire_held(now);
        self.log_events(now);
        self.book.settle(self.oldest_generation());
        self.watch_workers(now);
        self.watch_cores();
        self.watch_links()
    }

    /// The oldest generation of rules that a worker still runs.
    fn oldest_generation(&self) -> u64 {
        self.workers.iter().map(|worker| worker.counters.generation.observe()).min().unwrap_or_default()
    }

    fn log_events(&self, now: Time) {
        for _ in 0..MAX_LOGGED_EVENTS {
            match self.shared.events.pop() {
                None => return,
                Some(Event::Listed { list, level, address, expiry }) => {
                    let list = self.shared.state.lists.name(list).unwrap_or_default();
                    let lasts = expiry == Time::NEVER;
                    let time = if lasts { "no timeout".to_owned() } else { format_duration(expiry.since(now)) };
                    tracing::info!(%address, list, level, time, "listed");
                }
                Some(Event::Gone(Gone { list, level, address, why, .. })) => {
                    let list = self.shared.state.lists.name(list).unwrap_or_default();
                    let what = match why {
                        Why::Expired => "expired",
                        Why::Evicted => "evicted: the lists are full",
                    };
                    tracing::info!(%address, list, level, "{what}");
                }
                Some(Event::Door { open, source, destination, what }) => self.log_door(open, source, destination, what),
                Some(Event::Logged { table, rule, entry }) => self.log_packet(table, rule, &entry),
            }
        }
        self.shared.events.discard(EVENT_QUEUE);
    }

    /// That a door was opened or closed by a knock, unless the door is gone by now, or is not to be told of.
    fn log_door(&self, open: ListId, source: IpAddr, destination: IpAddr, what: What) {
        let generation = self.shared.generation.load();
        let list = self.shared.state.lists.name(open).unwrap_or_default();
        let doors = &generation.table.settings().doors;
        let Some(door) = doors.iter().find(|door| door.log && door.open_list() == list) else { return };
        let name = &door.name;
        match what {
            What::Opened => {
                let time = format_duration(door.open_for);
                tracing::info!(door = name, %source, %destination, time, "door opened");
            }
            What::Closed => tracing::info!(door = name, %source, %destination, "door closed"),
            What::Stepped(_) | What::Failed(_) => {}
        }
    }

    /// The line of a rule that logs, unless the rule is gone by now.
    fn log_packet(&self, table: u32, rule: u32, entry: &Entry) {
        let generation = self.shared.generation.load();
        let Some(rule) = generation.rules().rules.get(rule as usize).filter(|_| generation.table.number() == table)
        else {
            return;
        };
        let prefix = rule.log.as_ref().map_or("", |log| &log.prefix);
        tracing::info!(rule = %rule.id, "{}", entry.line(prefix, &rule.chain));
    }

    fn watch_workers(&mut self, now: Time) {
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let hung = worker.counters.heartbeat_age(now) > HUNG;
            if hung && !worker.hung {
                tracing::error!(worker = number, "the worker hangs: nothing passes on its queue");
            } else if !hung && worker.hung {
                tracing::info!(worker = number, "the worker goes on");
            }
            worker.hung = hung;
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
        let new = |core: usize| self.arrived.get(core).zip(before.get(core)).map_or(0, |(now, before)| now - before);
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
    ///
    /// # Errors
    /// If an interface is gone: program and sockets went with it, and one of the same name would not have them.
    fn watch_links(&mut self) -> anyhow::Result<()> {
        for (side, port) in Side::ALL.iter().zip(&mut self.ports) {
            let name = port.device.name();
            let way_past = start::way_past(name);
            if let Some(way) = way_past.as_ref().filter(|_| port.way_past.is_none()) {
                tracing::error!(%side, "{way}");
            }
            port.way_past = way_past;
            if !port.device.is_there() {
                bail!(
                    "interface {name} ({side}) is gone, and the filter's end of the wire with it; start again once it is back"
                );
            }
            let link = &self.shared.links[side.index()];
            match (link.load(Relaxed), port.device.is_up().unwrap_or(false)) {
                (true, false) => tracing::warn!(%side, interface = name, "link is down"),
                (false, true) => tracing::info!(%side, interface = name, "link is up"),
                _ => continue,
            }
            link.fetch_xor(true, Relaxed);
        }
        Ok(())
    }

    /// Stops the workers and waits for them, but not for one that hangs: then the process ends as it stands, and the
    /// kernel takes everything away.
    fn stop(self) -> anyhow::Result<()> {
        self.shared.stop.store(true, Relaxed);
        for worker in &self.workers {
            worker.waker.wake();
        }
        let patience = Instant::now() + HUNG;
        while self.workers.iter().any(|worker| !worker.thread.is_finished()) {
            if Instant::now() > patience {
                tracing::error!("a worker hangs and does not stop");
                process::abort();
            }
            thread::sleep(Duration::from_millis(1));
        }
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
