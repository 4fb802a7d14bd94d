//! Starts the dataplane. The order ensures that a failed start leaves no change except offloads that are turned off.
//! First the start reads rules and state, and meanwhile prepares all parts that change no interface. Then it checks the
//! interfaces before it changes anything. Then it attaches the programs, which drop all frames. Then it creates rings
//! and workers. When frames are forwarded, it adds the drop behind the programs, populates the lists' memory, and
//! starts the watcher.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use arc_swap::{ArcSwap, ArcSwapOption};
use core_affinity::CoreId;
use crossbeam::queue::ArrayQueue;
use knockplane_engine::headers;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::state::{self, State};
use knockplane_engine::table::RuleTable;
use knockplane_limits::predecessor::{self, Deadline};
use knockplane_policy::doctor::{HostFinding, Level};
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_policy::wire::RestoreReport;
use knockplane_ring::{
    Buffers, CopyReason, Device, FastPath, IngressDrop, LinkReader, LoadedProgram, Memory, OffloadState, RingSettings,
    Rings, XdpMode, XdpProgram, raise_memlock_limit,
};

use crate::administration::{Administration, ListAdministration, Published, RuleAdministration, WorkerView};
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::control_socket::Listener;
use crate::counters::WorkerCounters;
use crate::doctor;
use crate::drift::{self, Attached, Baseline};
use crate::fast_path;
use crate::generation::Generation;
use crate::history::RevisionHistory;
use crate::holder;
use crate::huge_pages;
use crate::idle::Idle;
use crate::journal::{self, Journal, JournalWriter, StoredGrants};
use crate::manager::{
    DriftState, EventLog, HeartbeatWatch, Manager, OffloadWatch, PacketFeed, Port, ROOM_FOR_RESETS, Supervisor,
    TableWatch, WallClockWatch, WorkerHandle,
};
use crate::memory::{self, ConnectionMemory, MemoryError};
use crate::names::ResolvedNames;
use crate::requirements::{Observed, Unmet, configured, mode, wire};
use crate::shared::{EVENT_QUEUE, Shared};
use crate::state_dir::StateDir;
use crate::static_entries::{OperatorEntry, StoredEntries};
use crate::stored_counters::StoredCounters;
use crate::stored_rules::StoredRules;
use crate::stored_settings::StoredSettings;
use crate::worker::Worker;

/// The rules and state that workers decide by, complete before the start changes any interface.
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
        let restored = grants.install(&state.lists, Clock::start().now());
        let counters = StoredCounters::load(state_dir)?;
        let source = stored.source;
        Ok(Decided { state, stored_rules, entries, names, source, table, restored, by_operators, counters })
    })
}

/// The resources of a start. No interface has changed yet.
struct Prepared {
    listener: Listener,
    devices: [Arc<Device>; 2],
    observed: [Observed; 2],
    queues: u32,
    mtu: u32,
    ring_settings: RingSettings,
    program: LoadedProgram,
    /// The tables of the fast path, or the reason that there are none.
    fast_path: Result<FastPath, String>,
    /// One for each queue.
    memory: Vec<Memory>,
}

/// Checks the socket and the interfaces, and allocates the resources that change neither.
///
/// # Errors
/// The problem and its remedy.
fn prepare(config: &Config, deadline: Deadline) -> Result<Prepared, StartError> {
    let mut reader = LinkReader::open()?;
    let (outside, seen_outside) = open(&config.outside, &mut reader)?;
    let (inside, seen_inside) = open(&config.inside, &mut reader)?;
    let (devices, observed) = ([outside, inside], [seen_outside, seen_inside]);
    for device in &devices {
        device.open_packet_socket()?;
    }
    let (queues, mtu) = (observed[0].queues.rx, observed[0].link.mtu);
    let max_frame = headers::max_frame(mtu as usize) as u32;
    let checked = wire::at_start(config, [&devices[0], &devices[1]], [&observed[0], &observed[1]], max_frame);
    let (refused, warnings): (Vec<_>, Vec<_>) = checked.findings.into_iter().partition(HostFinding::is_refused);
    if let Some(error) = doctor::as_error(&refused) {
        let is_invalid = refused.iter().any(|finding| finding.level == Level::Invalid);
        return Err(if is_invalid { StartError::Configuration(error) } else { StartError::Other(error) });
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let buffers = checked.buffers.context("no buffers suit the two drivers")?;
    // A second dataplane fails here, before it changes an interface.
    let listener = Listener::bind(&config.socket, &config.socket_uids, deadline)?;
    raise_memlock_limit();
    let sizes = fast_path::sizes(config, &buffers);
    let program = LoadedProgram::load([&*devices[0], &*devices[1]], queues, max_frame, sizes.clone().ok())?;
    let tables = program.fast_path(RandomState::new().hash_one("flows"))?;
    let fast_path = tables.ok_or_else(|| sizes.err().unwrap_or_default());
    let ring_settings = RingSettings { ring_size: config.ring_size, buffers };
    let memory = (0..queues).map(|_| Memory::take(&ring_settings)).collect::<Result<_, _>>()?;
    Ok(Prepared { listener, devices, observed, queues, mtu, ring_settings, program, fast_path, memory })
}

/// Starts the workers and returns the manager, which the caller must run. Reads the state while it prepares the parts
/// that change no interface, and while an exiting process releases the interfaces. Changes no interface before the
/// state is in force.
///
/// # Errors
/// The problem and its remedy.
pub(crate) fn start(mut config: Config, state_dir: StateDir, deadline: Deadline) -> Result<Manager, StartError> {
    let state_dir = Arc::new(state_dir);
    let stored_settings = StoredSettings::new(Arc::clone(&state_dir));
    let differs_from_file = stored_settings.replace_in(&mut config).map_err(StartError::Configuration)?;
    let (decided, prepared) = thread::scope(|scope| {
        let decided = thread::Builder::new()
            .name("state".to_owned())
            .spawn_scoped(scope, || decide(&config, &state_dir))
            .context("cannot start a thread")?;
        let prepared = prepare(&config, deadline);
        // A panic ends the process.
        let decided = decided.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let decided = decided.map_err(StartError::of_rules)?;
        Ok::<_, StartError>((decided, prepared?))
    })?;
    let Decided { mut state, stored_rules, entries, names, source, table, restored, by_operators, counters } = decided;
    let Prepared { listener, devices, observed, queues, mtu, mut ring_settings, program, fast_path, memory } = prepared;
    for (device, observed) in devices.iter().zip(&observed) {
        turn_off_offloads(device, observed)?;
        device.promiscuous()?;
    }
    let mut programs = attach(program, &devices)?;
    for (side, device) in Side::ALL.into_iter().zip(&devices) {
        let mode = programs[side.index()].mode();
        if mode == XdpMode::Generic {
            ring_settings.buffers = ring_settings.buffers.for_generic(device.name())?;
        }
        require(mode::is_required(config.require, side, device, mode, None))?;
    }
    say_buffers(&ring_settings.buffers, [devices[0].driver(), devices[1].driver()]);
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
    let mut zero_copy = [true; 2];
    let mut all_rings = Vec::new();
    for (queue, memory) in (0..queues).zip(memory) {
        let rings = Rings::bind_in(memory, [&*devices[0], &*devices[1]], queue, &ring_settings)?;
        for side in Side::ALL {
            zero_copy[side.index()] &= rings.zero_copy(side);
        }
        all_rings.push(rings);
    }
    let copy_reason = ring_settings.buffers.copy_reason().map_or_else(
        || "the kernel gave none: one of the two drivers has no zero-copy, or not with these settings".to_owned(),
        ToString::to_string,
    );
    for side in Side::ALL {
        let (device, mode) = (&devices[side.index()], programs[side.index()].mode());
        let reason = (!zero_copy[side.index()]).then_some(&*copy_reason);
        require(mode::is_required(config.require, side, device, mode, reason))?;
        match mode::cost(mode, zero_copy[side.index()]) {
            Some(cost) => tracing::warn!(interface = device.name(), "{cost}"),
            None => tracing::info!(interface = device.name(), "native XDP, zero-copy"),
        }
    }
    for (queue, rings) in (0..queues).zip(all_rings) {
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
    shared.fast_path.count_losses([&*devices[0], &*devices[1]], &programs);
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

/// Attaches the program to both interfaces.
fn attach(program: LoadedProgram, devices: &[Arc<Device>; 2]) -> anyhow::Result<[XdpProgram; 2]> {
    program.attach([&*devices[0], &*devices[1]]).map_err(|error| {
        let holder = devices.iter().find_map(|device| holder::of_xdp_link(device.index())).filter(|_| error.is_busy());
        let error = anyhow::Error::new(error);
        match holder {
            Some(pid) => error.context(format!("{} holds an interface", predecessor::describe(Some(pid)))),
            None => error,
        }
    })
}

/// Refuses a mode below the configured requirement.
fn require(finding: Option<HostFinding>) -> anyhow::Result<()> {
    finding.map_or(Ok(()), |finding| bail!("{finding}"))
}

/// Logs the reason that zero-copy is not requested, or requested only on demand.
fn say_buffers(buffers: &Buffers, drivers: [&str; 2]) {
    match buffers.copy_reason() {
        // The checks before the start warn about this case.
        Some(CopyReason::BufferTooSmall { .. }) | None => {}
        Some(reason) => tracing::info!("copy mode: {reason}"),
    }
    if let Some(driver) = buffers.unlisted(drivers) {
        tracing::warn!(
            driver,
            "zero-copy = \"force\": it is not known whether this driver keeps long frames whole in zero-copy mode; if \
             it does not, parts of strangers' frames pass as frames; see docs/hardware.md"
        );
    }
    if let Some(driver) = buffers.repeating(drivers) {
        tracing::warn!(
            driver,
            "zero-copy = \"force\": when this driver runs out of buffers, it delivers frames twice, and a frame can change \
             after it was decided about; see docs/hardware.md"
        );
    }
}

/// Opens an interface by its name.
fn open(name: &str, reader: &mut LinkReader) -> anyhow::Result<(Arc<Device>, Observed)> {
    let device = Device::open(name)?;
    let observed = Observed::read(&device, reader)?.with_context(|| format!("interface {name} went away"))?;
    Ok((Arc::new(device), observed))
}

/// Turns off offloads, so that an interface shows frames as they are on the wire. An offload stays off if the start
/// fails later: every start turns it off.
fn turn_off_offloads(device: &Device, observed: &Observed) -> anyhow::Result<()> {
    // No program is attached yet, native or generic.
    for offload in observed.harmful_offloads(false) {
        if device.turn_off(offload)? != OffloadState::Off {
            let Unmet { finding, .. } = wire::offload_is_on(observed, offload);
            bail!("{}; it cannot be turned off: the driver does not do without it", finding.found);
        }
        tracing::info!(interface = device.name(), offload = offload.name(), "turned off");
    }
    Ok(())
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
