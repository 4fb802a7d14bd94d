//! The manager: the only thread outside the packet path that never waits. It answers control, and supervises.
//!
//! One mio loop serves the control socket, its connections, the signals and the answers of the administration
//! ([`crate::administration`]), which executes all slow requests. At every tick, the [`Supervisor`] sweeps expired
//! entries from the lists, logs events of the workers, and adds the counters of replaced generations to the book. It
//! also logs hung workers, links that went down and interfaces that do not meet the requirements any more, once each.
//! An apply that was not confirmed in time is rolled back before any other job begins. SIGHUP makes the administration
//! read the configuration again. At its end, the manager waits for the job in progress, then stops the workers.

mod connection;
mod connections;
mod jobs;
mod supervisor;

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use knockplane_policy::wire::{Request, Response};
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::connection::Asked;
use self::connections::ClientConnections;
use self::jobs::Jobs;
pub(crate) use self::supervisor::{
    DriftState, EventLog, HeartbeatWatch, OffloadWatch, PacketFeed, Port, ROOM_FOR_RESETS, Supervisor, TableWatch,
    WallClockWatch, WorkerHandle,
};
use crate::administration::{Administration, Job, JobTask};
use crate::control_socket::Listener;

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const ANSWERS: Token = Token(2);
const FIRST_CONNECTION: usize = 3;

/// Time between two rounds of supervision. Five ticks, half a second, sweep all lists, so that expiry shows within a
/// second.
const TICK: Duration = Duration::from_millis(100);

/// The maximum time that the end waits for a job: the time that control waits for one.
const JOB_PATIENCE: Duration = Duration::from_secs(60);

/// The maximum time that the end waits for the disk.
const DISK_PATIENCE: Duration = Duration::from_secs(3);

/// The parts of the manager, each with its own state.
pub(crate) struct Manager {
    pub(crate) listener: Listener,
    pub(crate) supervisor: Supervisor,
    /// Runs on a separate thread.
    pub(crate) administration: Administration,
    /// Write the journal and the counters of rules, until the supervisor's end.
    pub(crate) writers: [JoinHandle<()>; 2],
}

impl Manager {
    /// Serves until SIGINT or SIGTERM, then stops the workers. SIGHUP sets `hangup`, possibly before this call.
    ///
    /// # Errors
    /// If an interface has been removed or has changed so that the filter cannot continue, or if the kernel provides no
    /// more descriptors.
    pub(crate) fn run(self, hangup: &AtomicBool, on_ready: impl FnOnce()) -> anyhow::Result<()> {
        let Manager { mut listener, mut supervisor, administration, writers } = self;
        let mut poll = Poll::new().context("cannot make an event queue")?;
        poll.registry().register(&mut listener.socket, LISTENER, Interest::READABLE)?;
        let mut signals = signals().context("cannot catch signals")?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let mut jobs = Jobs::start(administration, poll.registry(), ANSWERS)?;

        let mut events = Events::with_capacity(128);
        let mut connections = ClientConnections::new(FIRST_CONNECTION, Arc::clone(&listener.refusals));
        let mut next_tick = Instant::now();
        // The end of the wait for the job in progress, after a signal has arrived.
        let mut stopping: Option<Instant> = None;
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
                    SIGNALS if stopping.is_none() => {
                        tracing::info!("stopping");
                        stopping = Some(Instant::now() + JOB_PATIENCE);
                    }
                    SIGNALS | ANSWERS => {}
                    token => connections.wake(token),
                }
            }
            if let Some(answer) = jobs.answer() {
                connections.answer(answer);
            }
            // Requests before new connections: a connection with a waiting request must not be evicted as idle.
            connections.serve(|request| answer(&mut supervisor, request));
            if let Some(until) = stopping {
                // The answer of the last job is sent at this point.
                if !jobs.is_busy() || Instant::now() > until {
                    end(supervisor, jobs, &writers);
                    return Ok(());
                }
            } else {
                connections.accept(&listener, poll.registry(), Instant::now() >= next_tick);
                if !jobs.is_busy() {
                    // The log contains the outcome of a rollback, and of a reload by signal.
                    let own = |work| Some(Job { connection: None, work });
                    let job = if supervisor.must_roll_back() {
                        own(JobTask::RollBack)
                    } else if hangup.swap(false, Relaxed) {
                        own(JobTask::Request(Box::new(Request::Reload {
                            uid: None,
                            token: None,
                            page: false,
                            confirm_within: None,
                        })))
                    } else {
                        connections.next_job()
                    };
                    if let Some(job) = job {
                        jobs.begin(job);
                    }
                }
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                connections.expire();
                if let Err(error) = supervisor.keep_house() {
                    end(supervisor, jobs, &writers);
                    return Err(error);
                }
            }
        }
    }
}

/// Stops the workers and the administration, and waits until the last changes are on the disk, if it takes them.
fn end(mut supervisor: Supervisor, jobs: Jobs, writers: &[JoinHandle<()>]) {
    supervisor.stop();
    jobs.end();
    supervisor.journal.end();
    supervisor.counter_store.end();
    let patience = Instant::now() + DISK_PATIENCE;
    while !writers.iter().all(JoinHandle::is_finished) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers the status, counters, the metrics and readers of events, and passes all other requests to the administration.
fn answer(supervisor: &mut Supervisor, request: Request) -> Asked {
    match request {
        Request::Status => Asked::Answered(Response::Status(Box::new(supervisor.status())).into()),
        Request::RuleCounters => Asked::Answered(Response::RuleCounters(supervisor.rule_counters()).into()),
        Request::FrameTotals => Asked::Answered(Response::FrameTotals(supervisor.frame_totals()).into()),
        Request::Metrics => Asked::Answered(Response::Metrics(Box::new(supervisor.metrics())).into()),
        Request::Events(query) => Asked::Answered(Response::Events(Box::new(supervisor.events(&query))).into()),
        request => Asked::Job(JobTask::Request(Box::new(request))),
    }
}

/// SIGINT and SIGTERM as bytes on a socket, so that the loop receives them.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = StdUnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(UnixStream::from_std(read))
}
