//! Putting the dataplane together, in an order in which every failure leaves nothing behind: rules first, which touch
//! nothing; then the interfaces, which are checked before anything is changed; then programs, which drop everything;
//! then rings and workers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::thread;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use core_affinity::CoreId;
use knockplane_engine::events::EventQueue;
use knockplane_engine::headers;
use knockplane_engine::state::{self, State};
use knockplane_engine::table::Table;
use knockplane_policy::packet::Side;
use knockplane_ring::{
    Buffers, CopyReason, Device, Offload, Program, RingSettings, Rings, XdpMode, raise_memlock_limit,
};

use crate::clock::{self, Clock};
use crate::config::{Config, Offloads};
use crate::counters::WorkerCounters;
use crate::generation::{Book, Generation};
use crate::held::Held;
use crate::idle::Idle;
use crate::manager::{Listener, Manager, Notes, Port, WorkerHandle};
use crate::memory::{self, Connections};
use crate::store::{self, Store};
use crate::worker::{Shared, Worker};

/// Events that wait for the manager at most; further ones are counted as lost.
pub(crate) const EVENT_QUEUE: usize = 4096;

/// What is decided by, before any interface is touched.
pub(crate) struct Decided {
    state: State,
    store: Store,
    held: Held,
    source: String,
    table: Table,
}

/// Reads and compiles the rules that are to run: those applied last, or else the configured ones. The state directory is
/// ours from here on.
///
/// # Errors
/// What is wrong with them, and what to do about it.
pub(crate) fn decide(config: &Config, store: Store) -> anyhow::Result<Decided> {
    let stored = store.load_or_read(&config.rules)?;
    let capacity = config.connection_capacity;
    let bytes = state::connection_bytes(capacity, &stored.rules, &config.settings);
    memory::check(config.list_capacity, config.first_steps, Connections { capacity, bytes })?;
    let mut state = State::new(config.list_capacity, capacity)?;
    state.lists.set_first_steps(config.first_steps)?;
    let now = Clock::start().now();
    let mut table = Table::compile(Arc::clone(&stored.rules), &config.settings, &state, now)
        .with_context(|| format!("rules of {}", stored.source))?;
    let held = Held::load(&config.state_dir)?;
    held.install(&state.lists).with_context(|| format!("the entries in {}", held.path().display()))?;
    table.begin(&state, now);
    Ok(Decided { state, store, held, source: stored.source, table })
}

/// Checks the configured rules, whatever was applied last.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    let configured = store::read_rules(&config.rules)?;
    Table::compile(configured.rules, &config.settings, &State::new(1, 1)?, Clock::start().now())
        .with_context(|| format!("rules of {}", configured.source))?;
    Ok(())
}

/// Starts the workers and returns the manager, which is to be run.
///
/// # Errors
/// What is wrong, and what to do about it.
pub(crate) fn start(config: Config, decided: Decided) -> anyhow::Result<Manager> {
    let Decided { state, store, held, source, table } = decided;
    // A second dataplane ends here, before it touches an interface.
    let listener = Listener::bind(&config.socket, &config.socket_uids)?;
    let mut devices = [open(&config.outside)?, open(&config.inside)?];
    let (queues, mtu) = agree(&devices)?;
    for device in &devices {
        prepare(device, config.offloads)?;
    }

    let max_frame = headers::max_frame(mtu as usize) as u32;
    let drivers = [devices[0].driver(), devices[1].driver()];
    let mut buffers = Buffers::choose(drivers, max_frame, config.zero_copy)?;

    raise_memlock_limit();
    let mut programs =
        [Program::attach(&devices[0], queues, max_frame)?, Program::attach(&devices[1], queues, max_frame)?];
    for (device, program) in devices.iter().zip(&programs) {
        if program.mode() == XdpMode::Generic {
            buffers = buffers.for_generic(device.name())?;
            tracing::warn!(
                interface = device.name(),
                "its driver refused native XDP: generic XDP works, at a fraction of the speed"
            );
        }
    }
    say_buffers(&buffers, drivers);
    for device in &mut devices {
        device.promiscuous()?;
    }
    let clock = Clock::start();
    let generation = Arc::new(Generation::new(1, clock.now(), source, table, queues as usize));
    let links = [devices[0].is_up()?, devices[1].is_up()?].map(AtomicBool::new);
    let shared = Arc::new(Shared {
        links,
        clock,
        generation: ArcSwap::new(generation),
        state,
        wall: AtomicI64::new(clock::wall()),
        events: EventQueue::new(EVENT_QUEUE),
        stamped: AtomicBool::new(queues > 1),
        stop: AtomicBool::new(false),
    });
    let ring_settings = RingSettings { ring_size: config.ring_size, buffers };
    let cores = cores(&config)?;
    let mut workers = Vec::new();
    let mut zero_copy = [true; 2];
    for queue in 0..queues {
        let rings = Rings::bind([&devices[0], &devices[1]], queue, &ring_settings)?;
        rings.connect(&mut programs, queue)?;
        for side in Side::ALL {
            zero_copy[side.index()] &= rings.zero_copy(side);
        }
        let core = cores.get(queue as usize % cores.len().max(1)).copied();
        let counters = Arc::new(WorkerCounters::default());
        let own_core = Arc::new(AtomicBool::new(false));
        let idle = Idle::new(config.busy_poll, Arc::clone(&own_core))
            .with_context(|| format!("cannot make the event descriptor of worker {queue}"))?;
        let worker =
            Worker::new(queue as usize, rings, Arc::clone(&shared), Arc::clone(&counters), mtu, idle, queues > 1);
        workers.push(spawn(queue, worker, counters, own_core, core)?);
    }
    let mut zero_copy = zero_copy.into_iter();
    let copy_reason = ring_settings.buffers.copy_reason().map_or_else(
        || "the kernel gave none: one of the two drivers has no zero-copy, or not with these settings".to_owned(),
        ToString::to_string,
    );
    let ports = devices.map(|device| {
        let zero_copy = zero_copy.next().unwrap_or(false);
        Port { device, zero_copy, copy_reason: (!zero_copy).then(|| copy_reason.clone()), queues, mtu, way_past: None }
    });
    Ok(Manager {
        config,
        listener,
        shared,
        workers,
        ports,
        programs,
        book: Book::default(),
        store,
        held,
        notes: Notes::default(),
        applied: 0,
        refused: 0,
        arrived: Vec::new(),
    })
}

/// Logs why zero-copy is not asked for, or asked for on demand alone.
fn say_buffers(buffers: &Buffers, drivers: [&str; 2]) {
    match buffers.copy_reason() {
        // The driver could, and its buffers cannot: somebody will want to know.
        Some(reason @ CopyReason::BufferTooSmall { .. }) => tracing::warn!("copy mode: {reason}"),
        Some(reason) => tracing::info!("copy mode: {reason}"),
        None => {}
    }
    if let Some(driver) = buffers.unlisted(drivers) {
        tracing::warn!(
            driver,
            "zero-copy = \"force\": it is not known whether this driver keeps long frames whole in zero-copy mode; if \
             it does not, parts of strangers' frames pass as frames; see docs/hardware.md"
        );
    }
}

/// Looks an interface up and makes sure that nothing but us would forward what arrives there: when this process ends,
/// the wire must be closed.
fn open(name: &str) -> anyhow::Result<Device> {
    let device = Device::open(name)?;
    if !device.is_enabled()? {
        bail!("{name} is down; run: ip link set dev {name} up");
    }
    if let Some(way) = way_past(name) {
        bail!("{way}");
    }
    Ok(device)
}

/// How the host would forward what arrives on an interface once the program is gone, and the remedy; none if it would
/// not.
pub(crate) fn way_past(name: &str) -> Option<String> {
    if Path::new("/sys/class/net").join(name).join("master").exists() {
        let remedy = format!("ip link set dev {name} nomaster");
        return Some(format!("{name} belongs to a bridge or bond, which would forward past the filter; run: {remedy}"));
    }
    ["ipv4", "ipv6"].into_iter().find_map(|family| {
        let forwards = fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/forwarding")).ok()?;
        let remedy = format!("sysctl -w net.{family}.conf.{name}.forwarding=0");
        (forwards.trim() == "1")
            .then(|| format!("this host routes what arrives on {name}, past the filter once it is gone; run: {remedy}"))
    })
}

/// Makes sure that an interface shows frames as they are on the wire.
fn prepare(device: &Device, offloads: Offloads) -> anyhow::Result<()> {
    let name = device.name();
    for offload in Offload::ALL {
        if !device.offload(offload)? {
            continue;
        }
        let command = format!("ethtool -K {name} {} off", offload.name());
        match offloads {
            Offloads::TurnOff => {
                device.turn_off(offload)?;
                tracing::info!(interface = name, offload = offload.name(), "turned off");
            }
            Offloads::Refuse => bail!("{name} has {} on, which changes frames; run: {command}", offload.name()),
        }
    }
    Ok(())
}

/// The number of queues and the MTU that both interfaces have.
fn agree(devices: &[Device; 2]) -> anyhow::Result<(u32, u32)> {
    let [outside, inside] = devices;
    let queues = (outside.rx_queues()?, inside.rx_queues()?);
    if queues.0 != queues.1 {
        let (more, count) = if queues.0 > queues.1 { (outside, queues.1) } else { (inside, queues.0) };
        bail!(
            "{} has {} receive queues and {} has {}; a queue without its counterpart would drop everything; run: \
             ethtool -L {} combined {count} (or rx {count} tx {count}, as the driver has it)",
            outside.name(),
            queues.0,
            inside.name(),
            queues.1,
            more.name()
        );
    }
    let mtu = (outside.mtu()?, inside.mtu()?);
    if mtu.0 != mtu.1 {
        bail!(
            "{} has an MTU of {} and {} one of {}; a wire has one MTU; run: ip link set dev NAME mtu NUMBER",
            outside.name(),
            mtu.0,
            inside.name(),
            mtu.1
        );
    }
    Ok((queues.0, mtu.0))
}

/// The cores to pin workers to, one after the other.
fn cores(config: &Config) -> anyhow::Result<Vec<CoreId>> {
    let there = core_affinity::get_core_ids().unwrap_or_default();
    if config.cores.is_empty() {
        return Ok(there);
    }
    let wanted = config.cores.iter().map(|wanted| {
        there.iter().copied().find(|core| core.id == *wanted).with_context(|| {
            let there: Vec<_> = there.iter().map(|core| core.id).collect();
            format!("`cores` names core {wanted}, but this process may run on {there:?}")
        })
    });
    wanted.collect()
}

fn spawn(
    number: u32,
    worker: Worker,
    counters: Arc<WorkerCounters>,
    own_core: Arc<AtomicBool>,
    core: Option<CoreId>,
) -> anyhow::Result<WorkerHandle> {
    let waker = worker.waker();
    let thread = thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            if core.is_some_and(|core| !core_affinity::set_for_current(core)) {
                tracing::warn!(worker = number, "cannot be pinned to its core");
            }
            worker.run();
        })
        .context("cannot start a worker thread")?;
    Ok(WorkerHandle { core: core.map(|core| core.id), counters, own_core, waker, thread, hung: false })
}
