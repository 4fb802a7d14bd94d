//! Starts the dataplane. The order ensures that a failed start leaves no change except offloads that are turned off.
//!
//! ```text
//!   rules and state read, lists filled ──────────────────────────────────────┐
//!   interfaces checked ─► program attached ──────────┬─► sockets bound ──────┴─► queues opened, workers started ─► rest
//!                    ├──► frames' memory taken ──────┤
//!                    └──► fast path's tables created ┘
//! ```
//! The start checks the interfaces before it changes anything. The attached program drops all frames until a queue is
//! opened, and no queue is opened before the state is in force. When frames are forwarded, the start
//! adds the fast path and the drop behind the programs, populates the lists' memory, and starts the watcher.

mod interfaces;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::thread;

use anyhow::{Context as _, anyhow};
use arc_swap::{ArcSwap, ArcSwapOption};
use core_affinity::CoreId;
use crossbeam::queue::ArrayQueue;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::state::{self, State};
use knockplane_engine::table::RuleTable;
use knockplane_limits::predecessor::Deadline;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_policy::wire::RestoreReport;
use knockplane_ring::{Device, IngressDrop, XdpMode, XdpProgram};

use self::interfaces::{Closed, close, prepare};
use crate::administration::{Administration, ListAdministration, Published, RuleAdministration, WorkerView};
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::counters::WorkerCounters;
use crate::drift::{self, Attached, Baseline};
use crate::fast_path;
use crate::generation::Generation;
use crate::history::RevisionHistory;
use crate::huge_pages;
use crate::idle::Idle;
use crate::journal::{self, Journal, JournalWriter, StoredGrants};
use crate::manager::{
    DriftState, EventLog, HeartbeatWatch, Manager, OffloadWatch, PacketFeed, Port, ROOM_FOR_RESETS, Supervisor,
    TableWatch, WallClockWatch, WorkerHandle,
};
use crate::memory::{self, ConnectionMemory, MemoryError};
use crate::names::ResolvedNames;
use crate::requirements::configured;
use crate::shared::{EVENT_QUEUE, Shared};
use crate::state_dir::StateDir;
use crate::static_entries::{OperatorEntry, StoredEntries};
use crate::stored_counters::StoredCounters;
use crate::stored_rules::StoredRules;
use crate::stored_settings::StoredSettings;
use crate::worker::Worker;

/// The rules and state that workers decide by, complete before the first frame is forwarded.
struct Decided {
    state: State,
    stored_rules: StoredRules,
    entries: StoredEntries,
    names: ResolvedNames,
    source: String,
    table: RuleTable,
    restored: RestoreReport,
    /// Entries and comments of operators in the journal.
    by_operators: Vec<(String, OperatorEntry)>,
    counters: StoredCounters,
}

/// The reason that a start failed.
pub(crate) enum StartError {
    /// The configuration, the rules or the state files are not valid. Another attempt does not help.
    Configuration(anyhow::Error),
    /// Another reason, which may not apply at the next start.
    Other(anyhow::Error),
}

impl StartError {
    /// The reason that the rules cannot run. A lack of memory may not apply at the next start.
    fn of_rules(error: anyhow::Error) -> StartError {
        match error.downcast_ref::<MemoryError>() {
            Some(lack) if !lack.is_permanent => StartError::Other(error),
            _ => StartError::Configuration(error),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for StartError {
    fn from(error: E) -> StartError {
        StartError::Other(error.into())
    }
}

/// Reads and compiles the rules to run: the last applied rules, or otherwise the configured ones.
///
/// # Errors
/// The problem and its remedy.
fn decide(config: &Config, state_dir: &Arc<StateDir>) -> anyhow::Result<Decided> {
    thread::scope(|scope| {
        let entries = scope.spawn(|| StoredEntries::load(state_dir));
        let grants = scope.spawn(|| StoredGrants::load(state_dir));
        let stored_rules = StoredRules::new(Arc::clone(state_dir));
        let stored = stored_rules.load_or_read(&config.rules)?;
        let capacity = config.connection_capacity;
        let bytes = state::connection_bytes(capacity, &stored.rules, &config.settings);
        memory::check(config.list_capacity, config.first_steps, ConnectionMemory { capacity, bytes })?;
        let mut state = State::reserve(config.list_capacity, capacity)?;
        state.lists.set_first_steps(config.first_steps)?;
        // Before entries are added: a page that exists stays as it is.
        huge_pages::advise_lists(&state.lists);
        let now = Clock::start().now();
        let mut names = ResolvedNames::load(state_dir)?;
        names.run(&stored.rules, None);
        let of_names = names.entries(&stored.rules, now);
        let mut table = RuleTable::compile(Arc::clone(&stored.rules), &config.settings, &state, now)
            .with_context(|| format!("rules of {}", stored.source))?;
        state.connections().into_iter().for_each(huge_pages::collapse_connections);
        // A panic ends the process.
        let entries = entries.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let grants = grants.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let by_operators = grants.by_operators().to_vec();
        entries.install(&state.lists, &of_names, &by_operators)?;
        table.begin(&state, now);
        huge_pages::populate_lists(&state.lists, grants.len());
        let restored = grants.install(&state.lists, Clock::start().now());
        let counters = StoredCounters::load(state_dir)?;
        let source = stored.source;
        Ok(Decided { state, stored_rules, entries, names, source, table, restored, by_operators, counters })
    })
}

/// Reads the state, and meanwhile takes the interfaces, while an exiting process releases them. Changes no interface if
/// reading has failed by then, or if a check fails.
///
/// # Errors
/// The problem and its remedy; that of the state first.
fn decide_and_close(
    config: &Config,
    state_dir: &Arc<StateDir>,
    deadline: Deadline,
) -> Result<(Decided, Closed), StartError> {
    thread::scope(|scope| {
        let decided = thread::Builder::new()
            .name("state".to_owned())
            .spawn_scoped(scope, || decide(config, state_dir))
            .context("cannot start a thread")?;
        // A panic ends the process.
        let join = |decided: thread::ScopedJoinHandle<'_, anyhow::Result<Decided>>| {
            let decided = decided.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            decided.map_err(StartError::of_rules)
        };
        match prepare(config, deadline) {
            Ok(prepared) if !decided.is_finished() => {
                let closed = close(config, prepared);
                Ok((join(decided)?, closed?))
            }
            prepared => {
                let decided = join(decided)?;
                Ok((decided, close(config, prepared?)?))
            }
        }
    })
}

/// Starts the workers and returns the manager, which the caller must run. Forwards no frame before the state is in force.
///
/// # Errors
/// The problem and its remedy.
pub(crate) fn start(mut config: Config, state_dir: StateDir, deadline: Deadline) -> Result<Manager, StartError> {
    let state_dir = Arc::new(state_dir);
    let stored_settings = StoredSettings::new(Arc::clone(&state_dir));
    let differs_from_file = stored_settings.replace_in(&mut config).map_err(StartError::Configuration)?;
    let (decided, closed) = decide_and_close(&config, &state_dir, deadline)?;
    let Decided { mut state, stored_rules, entries, names, source, table, restored, by_operators, counters } = decided;
    let Closed { listener, devices, queues, mtu, mut programs, fast_path, rings, zero_copy, copy_reason } = closed;
    let fast_path = Arc::new(fast_path::switch(fast_path, &programs, queues as usize));
    if let Some(tables) = fast_path.tables() {
        state.set_fast_path(tables.epochs(), tables.records());
        let strangers = tables.strangers();
        strangers.set_by_prefix(config.first_steps.v6_by_prefix);
        state.set_known_sources(strangers.known_sources(), strangers.networks());
    }
    let restored_events = state.lists.last_event();
    let clock = Clock::start();
    let generation = Generation::new(1, clock.now(), source, table, queues as usize);
    let generation = Arc::new(generation.with_fast_path(Arc::clone(&fast_path), &state.lists));
    fast_path.follow(&generation.table, &generation.strangers, &state.lists);
    let links = [devices[0].is_up()?, devices[1].is_up()?].map(AtomicBool::new);
    let shared = Arc::new(Shared {
        links,
        clock,
        generation: ArcSwap::new(generation),
        state,
        wall: AtomicI64::new(clock::wall()),
        logged: LoggedPackets::new(EVENT_QUEUE),
        stamped: AtomicBool::new(queues > 1),
        resets: ArrayQueue::new(ROOM_FOR_RESETS),
        fast_path,
        sample: ArcSwapOption::empty(),
        trace: ArcSwapOption::empty(),
        stop: AtomicBool::new(false),
    });
    let cores = configured::cores(&config).map_err(|finding| StartError::Configuration(anyhow!("{finding}")))?;
    let mut workers = Vec::new();
    for (queue, rings) in (0..queues).zip(rings) {
        rings.connect(&mut programs, queue)?;
        let core = cores.get(queue as usize % cores.len().max(1)).copied();
        let counters = Arc::new(WorkerCounters::default());
        let own_core = Arc::new(AtomicBool::new(false));
        let idle = Idle::new(config.busy_poll, Arc::clone(&own_core))
            .with_context(|| format!("cannot make the event descriptor of worker {queue}"))?;
        let worker =
            Worker::new(queue as usize, rings, Arc::clone(&shared), Arc::clone(&counters), mtu, idle, queues > 1);
        workers.push(spawn(queue, worker, counters, own_core, core)?);
    }
    // Frames are forwarded now. These calls take tens of milliseconds, which a restart need not wait for.
    shared.fast_path.begin([&*devices[0], &*devices[1]], &mut programs);
    XdpProgram::settle(&mut programs);
    // Each of these calls takes a grace period of RCU.
    let ingress = [drop_behind(&devices[0])?, drop_behind(&devices[1])?];
    // The memory was checked before. This call allocates it before another process can use it.
    shared.state.lists.populate();
    huge_pages::collapse_lists(&shared.state.lists);
    let entries = {
        let running = shared.generation.load();
        entries.into_map(names.entries(running.rules(), running.table.begun()), &by_operators)?
    };
    journal::log_restore(&restored);
    let journal = Arc::new(Journal::new(restored, &by_operators));
    let writer = JournalWriter::start(Arc::clone(&shared), Arc::clone(&journal), Arc::clone(&state_dir))?;
    let ids = [programs[0].id()?, programs[1].id()?];
    let interfaces = Side::ALL.map(|side| Attached {
        device: Arc::clone(&devices[side.index()]),
        program: ids[side.index()],
        is_native: programs[side.index()].mode() == XdpMode::Native,
    });
    let findings = drift::watch(
        Baseline { interfaces, queues, mtu, offloads: config.offloads, dedicated: config.dedicated },
        clock,
        Arc::clone(&shared.fast_path),
    )?;
    let ports = Side::ALL.map(|side| Port {
        device: Arc::clone(&devices[side.index()]),
        zero_copy: zero_copy[side.index()],
        copy_reason: (!zero_copy[side.index()]).then(|| copy_reason.clone()),
        queues,
    });
    let (kept, counter_store) = counters.store();
    let published = Published::new(&shared.generation.load(), &config.metrics, kept, differs_from_file);
    let published = Arc::new(published);
    let counter_store = Arc::new(counter_store);
    let counter_writer = counter_store.start_writer(Arc::clone(&state_dir), {
        let (shared, published) = (Arc::clone(&shared), Arc::clone(&published));
        move || published.ledger().book.kept(&shared.generation.load())
    })?;
    let views = workers.iter().map(|worker| WorkerView {
        counters: Arc::clone(&worker.counters),
        history: Arc::clone(&worker.history),
        waker: Arc::clone(&worker.waker),
    });
    let views = views.collect();
    let supervisor = Supervisor {
        shared: Arc::clone(&shared),
        published: Arc::clone(&published),
        workers,
        ports,
        programs,
        ingress,
        drift: DriftState::new(findings),
        connection_capacity: config.connection_capacity,
        refusals: Arc::clone(&listener.refusals),
        arrived: Vec::new(),
        // The restored entries are no news.
        event_log: EventLog::after(restored_events),
        packet_feed: PacketFeed::default(),
        restored_events,
        next_recovery: Time::default(),
        journal: Arc::clone(&journal),
        counter_store,
        table_watch: TableWatch::default(),
        offload_watch: OffloadWatch::default(),
        wall_clock: WallClockWatch::default(),
        fast_path_configured: config.fast_path_flows.is_some(),
        cut_next: 0,
    };
    // Nothing waits for the history.
    let history = RevisionHistory::load(&state_dir);
    let rules = RuleAdministration { config, stored_rules, stored_settings, history };
    let lists = ListAdministration::new(entries, names, Arc::clone(&journal), by_operators, &shared.state.lists);
    let administration = Administration::new(shared, journal, published, views, rules, lists);
    Ok(Manager { listener, supervisor, administration, writers: [writer, counter_writer] })
}

/// Drops frames that pass the XDP program, if the kernel supports this.
fn drop_behind(device: &Device) -> anyhow::Result<Option<IngressDrop>> {
    let ingress = IngressDrop::attach(device)?;
    if ingress.is_none() {
        tracing::info!(
            interface = device.name(),
            "this kernel cannot drop and count frames that a driver passes around the XDP program; Linux 6.6 can"
        );
    }
    Ok(ingress)
}

fn spawn(
    number: u32,
    worker: Worker,
    counters: Arc<WorkerCounters>,
    own_core: Arc<AtomicBool>,
    core: Option<CoreId>,
) -> anyhow::Result<WorkerHandle> {
    let (waker, history) = (worker.waker(), worker.history());
    let thread = thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
                tracing::warn!(worker = number, "cannot be pinned to its core");
            }
            worker.run();
        })
        .context("cannot start a worker thread")?;
    Ok(WorkerHandle {
        core: core.map(|core| core.id),
        counters,
        history,
        own_core,
        waker,
        thread,
        heartbeat: HeartbeatWatch::default(),
    })
}
