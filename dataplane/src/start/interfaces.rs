//! The interfaces of a start: checked, then closed. A closed interface drops all frames until a queue is opened
//! ([`Rings::connect`]).
//!
//! [`prepare`] changes no interface, and [`close`] checks nothing that [`prepare`] could have checked.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, bail};
use knockplane_engine::headers;
use knockplane_limits::predecessor::{self, Deadline};
use knockplane_policy::doctor::{HostFinding, Level};
use knockplane_policy::packet::Side;
use knockplane_ring::{
    Buffers, CopyReason, Device, FastPath, FastPathSizes, LinkReader, LoadedProgram, Memory, OffloadState,
    RingSettings, Rings, XdpMode, XdpProgram, raise_memlock_limit,
};

use super::StartError;
use crate::config::Config;
use crate::control_socket::Listener;
use crate::requirements::{Observed, Unmet, mode, wire};
use crate::{doctor, fast_path, holder};

/// The resources of a start. No interface has changed yet.
pub(super) struct Prepared {
    listener: Listener,
    devices: [Arc<Device>; 2],
    observed: [Observed; 2],
    queues: u32,
    mtu: u32,
    buffers: Buffers,
    program: LoadedProgram,
    max_frame: u32,
    /// The sizes of the tables of the fast path, or the reason that there are none.
    sizes: Result<FastPathSizes, String>,
}

/// Both interfaces with the program attached and sockets bound. All frames are dropped yet.
pub(super) struct Closed {
    pub(super) listener: Listener,
    pub(super) devices: [Arc<Device>; 2],
    pub(super) queues: u32,
    pub(super) mtu: u32,
    pub(super) programs: [XdpProgram; 2],
    pub(super) fast_path: Result<FastPath, String>,
    /// One for each queue.
    pub(super) rings: Vec<Rings>,
    pub(super) zero_copy: [bool; 2],
    /// The reason that frames are copied, if they are.
    pub(super) copy_reason: String,
}

/// Checks the socket and the interfaces, and allocates the resources that change neither.
///
/// # Errors
/// The problem and its remedy.
pub(super) fn prepare(config: &Config, deadline: Deadline) -> Result<Prepared, StartError> {
    let mut reader = LinkReader::open()?;
    let (outside, seen_outside) = open(&config.outside, &mut reader)?;
    let (inside, seen_inside) = open(&config.inside, &mut reader)?;
    let (devices, observed) = ([outside, inside], [seen_outside, seen_inside]);
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
    let program = LoadedProgram::load([&*devices[0], &*devices[1]], queues, max_frame)?;
    Ok(Prepared { listener, devices, observed, queues, mtu, buffers, program, max_frame, sizes })
}

/// Attaches the program and binds the sockets. The kernel waits for a grace period of RCU at the first attachment; the
/// memory of frames and of the fast path's tables is taken meanwhile.
///
/// # Errors
/// The problem and its remedy.
pub(super) fn close(config: &Config, prepared: Prepared) -> Result<Closed, StartError> {
    let Prepared { listener, devices, observed, queues, mtu, buffers, program, max_frame, sizes } = prepared;
    let mut settings = RingSettings { ring_size: config.ring_size, buffers };
    let both = [&*devices[0], &*devices[1]];
    let (programs, memory, fast_path) = thread::scope(|scope| {
        let take = || (0..queues).map(|_| Memory::take(&settings)).collect::<Result<Vec<_>, _>>();
        let memory = thread::Builder::new().name("frames".to_owned()).spawn_scoped(scope, take);
        let memory = memory.context("cannot start a thread")?;
        let create = || {
            let secret = RandomState::new().hash_one("flows");
            sizes.map(|sizes| FastPath::create(both, &sizes, queues, secret, max_frame))
        };
        let tables = thread::Builder::new().name("tables".to_owned()).spawn_scoped(scope, create);
        let tables = tables.context("cannot start a thread")?;
        for (device, observed) in devices.iter().zip(&observed) {
            turn_off_offloads(device, observed)?;
            device.promiscuous()?;
        }
        let programs = attach(program, &devices)?;
        // A panic ends the process.
        let memory = memory.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let tables = tables.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let fast_path = match tables {
            Ok(created) => Ok(created?),
            Err(reason) => Err(reason),
        };
        Ok::<_, StartError>((programs, memory, fast_path))
    })?;
    for (side, device) in Side::ALL.into_iter().zip(&devices) {
        let mode = programs[side.index()].mode();
        if mode == XdpMode::Generic {
            settings.buffers = settings.buffers.for_generic(device.name())?;
        }
        require(mode::is_required(config.require, side, device, mode, None))?;
    }
    say_buffers(&settings.buffers, [devices[0].driver(), devices[1].driver()]);
    let bind = |(queue, memory)| Rings::bind_in(memory, both, queue, &settings);
    let rings = (0..queues).zip(memory).map(bind).collect::<Result<Vec<_>, _>>()?;
    let zero_copy = Side::ALL.map(|side| rings.iter().all(|rings| rings.zero_copy(side)));
    let copy_reason = settings.buffers.copy_reason().map_or_else(
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
    Ok(Closed { listener, devices, queues, mtu, programs, fast_path, rings, zero_copy, copy_reason })
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
