//! The XDP program `bpf/filter.c`: loading, attaching, its settings and its counters.
//!
//! The order of calls: [`LoadedProgram::load`] loads the program into the kernel, [`LoadedProgram::attach`] attaches it
//! to both interfaces of a wire, [`XdpProgram::set_socket`] opens one queue after the other. The kernel detaches the
//! program when the [`XdpProgram`] is dropped or the process ends.
//!
//! The kernel verifies the program with the fast path in some 40 ms, and without it in a fraction of that. So a program without it
//! is attached first. Meanwhile [`FastPath::create`] takes the memory of the tables. [`XdpProgram::add_fast_path`] replaces the
//! program while frames are forwarded; the other maps stay.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use knockplane_policy::wire::FastPathMisses;
use libbpf_rs::{Map, MapCore, MapFlags, ObjectBuilder, OpenObject, PrintLevel};

use crate::attachment::Attachment;
use crate::buffers::{largest_native_mtu, may_split};
use crate::device::Device;
use crate::error::{RELEASE_PATIENCE, RELEASE_RETRY, RingError, is_busy};
use crate::fast_path::{self, FastPath, FastPathSizes};

/// The mode of the program. A native program runs in the driver. A generic program runs after the driver, at a fraction
/// of the speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The program runs in the driver.
    Native,
    /// The program runs in the network stack, for drivers without XDP.
    Generic,
}

impl XdpMode {
    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }

    /// `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE` of Linux `include/uapi/linux/if_link.h`.
    const fn flags(self) -> u32 {
        match self {
            XdpMode::Native => 1 << 2,
            XdpMode::Generic => 1 << 1,
        }
    }
}

/// Frames that the program has counted on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Frames that arrived.
    pub seen: u64,
    /// Of these, frames that were dropped because their queue has no socket.
    pub unbound: u64,
    /// Of these, frames without an arrival time although the program should write one: the driver has no metadata.
    pub unstamped: u64,
    /// Of these, frames that were dropped because they may be the rest of a frame that was too long.
    pub tails: u64,
    /// Of these, frames that came up while the fast path was on, by cause.
    pub misses: FastPathMisses,
}

/// The program of `bpf/filter.c`, in the kernel and not attached yet.
#[derive(Debug)]
pub struct LoadedProgram {
    object: libbpf_rs::Object,
    settings: ProgramSettings,
}

/// The program of `bpf/filter.c` on one interface.
#[derive(Debug)]
pub struct XdpProgram {
    /// The loaded object, which both interfaces share.
    object: Arc<libbpf_rs::Object>,
    /// 0 is the outside interface, or the only one; 1 is the inside interface.
    side: u32,
    settings: ProgramSettings,
    mode: XdpMode,
    /// Not pinned: the kernel detaches the program when the process ends.
    attachment: Attachment,
}

impl LoadedProgram {
    /// Loads the program for outside and inside, with `queues` receive queues each. `max_frame` is the longest frame in
    /// bytes, with Ethernet header and VLAN tags. A frame that may be the rest of a longer one is dropped.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    pub fn load(devices: [&Device; 2], queues: u32, max_frame: u32) -> Result<Self, RingError> {
        Self::load_for(devices[0], Some(devices[1]), queues, max_frame)
    }

    fn load_for(outside: &Device, inside: Option<&Device>, queues: u32, max_frame: u32) -> Result<Self, RingError> {
        let devices = || [Some(outside), inside].into_iter().flatten();
        let settings = ProgramSettings {
            inside: inside.map_or(0, Device::index),
            queues,
            // The order of arrival can only be lost between queues.
            stamp: queues > 1,
            may_split: devices().any(|device| may_split(device.driver())),
            has_fast_path: false,
        };
        let maps = Maps::New { sides: devices().count() as u32 };
        let object = load(settings, &maps).map_err(|error| {
            let names: Vec<_> = devices().map(Device::name).collect();
            let action = format!("cannot load the XDP program for {}", names.join(" and "));
            RingError::system(action, io::Error::other(error), LOAD_REMEDY)
        })?;
        set_longest(&object, max_frame)?;
        for (side, device) in (0..).zip(devices()) {
            if !may_split(device.driver()) {
                keeps_frames_whole(&object, side, queues)?;
            }
        }
        Ok(LoadedProgram { object, settings })
    }

    /// The program with the fast path instead, which uses these tables, and is off at first.
    ///
    /// # Errors
    /// If the kernel refuses the program.
    pub fn with_fast_path(self, tables: &FastPath) -> Result<Self, RingError> {
        let (object, settings) = load_fast_path(&self.object, tables, self.settings)?;
        Ok(LoadedProgram { object, settings })
    }

    /// The loaded program.
    pub fn program(&self) -> BorrowedFd<'_> {
        only_program(&self.object)
    }

    /// Attaches the program to both interfaces, native if the driver supports it, otherwise generic. Both interfaces
    /// then drop all frames until [`XdpProgram::set_socket`]. Waits until the program of an exiting process is
    /// detached.
    ///
    /// # Errors
    /// If another program holds an interface; see [`RingError::is_busy`].
    pub fn attach(self, devices: [&Device; 2]) -> Result<[XdpProgram; 2], RingError> {
        let (object, settings) = (Arc::new(self.object), self.settings);
        let attach = |side: u32| attach(Arc::clone(&object), devices[side as usize], side, settings);
        Ok([attach(0)?, attach(1)?])
    }
}

impl XdpProgram {
    /// Loads the program for this interface alone, and attaches it, native if the driver supports it, otherwise
    /// generic. The interface then drops all frames until [`XdpProgram::set_socket`]. `max_frame` is as for
    /// [`LoadedProgram::load`].
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, or if another program holds the interface.
    pub fn attach(device: &Device, queues: u32, max_frame: u32) -> Result<Self, RingError> {
        let LoadedProgram { object, settings } = LoadedProgram::load_for(device, None, queues, max_frame)?;
        attach(Arc::new(object), device, 0, settings)
    }

    /// Replaces the program of both interfaces by one with the fast path, which uses these tables, and is off. No frame is
    /// lost: the kernel replaces a program at once, and the other maps stay.
    ///
    /// # Errors
    /// If the kernel refuses the program, or after [`XdpProgram::settle`]. An interface then keeps its program.
    pub fn add_fast_path(programs: &mut [XdpProgram; 2], tables: &FastPath) -> Result<(), RingError> {
        let (object, settings) = load_fast_path(&programs[0].object, tables, programs[0].settings)?;
        let object = Arc::new(object);
        for program in programs {
            program.attachment.update(only_program(&object)).map_err(|error| {
                RingError::system("cannot replace the XDP program by one with the fast path", error, "")
            })?;
            (program.object, program.settings) = (Arc::clone(&object), settings);
        }
        Ok(())
    }

    /// Ends the changes of the attachments. A restart after a kill then finds the interfaces free earlier. If the kernel does
    /// not permit that, it finds them free later.
    pub fn settle(programs: &mut [XdpProgram; 2]) {
        let [outside, inside] = programs;
        if let Err(error) = Attachment::keep_apart([&mut outside.attachment, &mut inside.attachment]) {
            tracing::debug!("the attachments have no table of descriptors of their own: {error}");
        }
    }

    /// The mode of the program.
    pub const fn mode(&self) -> XdpMode {
        self.mode
    }

    /// The kernel's id of the program, as in the description of an interface with this program.
    ///
    /// # Errors
    /// If the kernel does not return the id.
    pub fn id(&self) -> Result<u32, RingError> {
        let mut info = libbpf_sys::bpf_prog_info::default();
        let mut length = mem::size_of_val(&info) as u32;
        let program = self.program();
        // SAFETY: the program's descriptor is open. The structure lives across the call, which gets its size. Its zero
        // fields request no arrays.
        let result =
            unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut length) };
        match result {
            0 => Ok(info.id),
            error => Err(RingError::system("cannot read the program's id", io::Error::from_raw_os_error(-error), "")),
        }
    }

    /// The loaded program.
    fn program(&self) -> BorrowedFd<'_> {
        only_program(&self.object)
    }

    /// A map of the program.
    pub(crate) fn map(&self, name: &str) -> Map<'_> {
        map(&self.object, name)
    }

    /// Redirects the frames of this queue to this AF_XDP socket.
    ///
    /// # Errors
    /// If the socket is not bound to this queue of this interface, or the program was loaded for fewer queues.
    pub fn set_socket(&mut self, queue: u32, socket: RawFd) -> Result<(), RingError> {
        let queues = self.settings.queues;
        if queue >= queues {
            let problem = format!("queue {queue} is none of the {queues} that the program was loaded for");
            return Err(RingError::unfit(problem, ""));
        }
        let key = self.side * queues + queue;
        map(&self.object, "sockets")
            .update(&key.to_ne_bytes(), &socket.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| RingError::system(format!("cannot bind queue {queue}"), io::Error::other(error), ""))
    }

    /// Sets the longest frame in bytes, with Ethernet header and VLAN tags. A frame that may be the rest of a longer
    /// one is dropped, on both interfaces of a wire.
    ///
    /// # Errors
    /// If the kernel refuses to write its own map.
    pub fn set_longest(&self, max_frame: u32) -> Result<(), RingError> {
        set_longest(&self.object, max_frame)
    }

    /// The program's counters so far, by core.
    ///
    /// # Errors
    /// If the kernel refuses to read its own map.
    pub fn counts(&mut self) -> Result<Vec<CoreCounts>, RingError> {
        let per_core = map(&self.object, "counts")
            .lookup_percpu(&self.side.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| RingError::system("cannot read the program's counters", io::Error::other(error), ""))?;
        let word = |bytes: &[u8], index: usize| {
            let bytes = bytes.get(8 * index..8 * (index + 1)).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_ne_bytes).unwrap_or_default()
        };
        let counts = |bytes: Vec<u8>| CoreCounts {
            seen: word(&bytes, 0),
            unbound: word(&bytes, 1),
            unstamped: word(&bytes, 2),
            tails: word(&bytes, 3),
            misses: FastPathMisses {
                unfit: word(&bytes, 4),
                unknown: word(&bytes, 5),
                ended: word(&bytes, 6),
                blocked: word(&bytes, 7),
                tracked: word(&bytes, 8),
            },
        };
        Ok(per_core.into_iter().flatten().map(counts).collect())
    }
}

/// The descriptor lives as long as the object.
fn only_program(object: &libbpf_rs::Object) -> BorrowedFd<'_> {
    let program = object.progs().next().expect("the object holds one program");
    // SAFETY: the object owns the program's descriptor, and is borrowed.
    unsafe { BorrowedFd::borrow_raw(program.as_fd().as_raw_fd()) }
}

/// Attaches the program to one interface.
fn attach(
    object: Arc<libbpf_rs::Object>,
    device: &Device,
    side: u32,
    settings: ProgramSettings,
) -> Result<XdpProgram, RingError> {
    let program = object.progs().next().expect("the object holds one program").as_fd().as_raw_fd();
    let patience = Instant::now() + RELEASE_PATIENCE;
    let (link, mode) = loop {
        let (link, mode) = match link(program, device.index(), XdpMode::Native) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                (link(program, device.index(), XdpMode::Generic), XdpMode::Generic)
            }
            result => (result, XdpMode::Native),
        };
        match link {
            Err(error) if is_busy(&error) && Instant::now() < patience => thread::sleep(RELEASE_RETRY),
            link => break (link, mode),
        }
    };
    let link = link.map_err(|error| {
        let remedy = match error.raw_os_error() {
            _ if is_busy(&error) => format!(
                "another XDP program is attached there: `bpftool net` and `ip link show dev {0}` name it; stop the process \
                 that attached it, or, if none did, run `ip link set dev {0} xdp off`",
                device.name()
            ),
            Some(libc::EINVAL | libc::ERANGE) => smaller_mtu(device),
            _ => String::new(),
        };
        RingError::system(format!("cannot attach the XDP program to {}", device.name()), error, remedy)
    })?;
    if mode == XdpMode::Generic {
        // The network stack joins the parts of a frame before the program runs.
        keeps_frames_whole(&object, side, settings.queues)?;
    }
    Ok(XdpProgram { object, side, settings, mode, attachment: Attachment::Here(link) })
}

/// The remedy if a driver may have refused the program because of the MTU.
fn smaller_mtu(device: &Device) -> String {
    let (name, driver) = (device.name(), device.driver());
    match largest_native_mtu(driver) {
        Some(mtu) if driver == "veth" => format!(
            "veth takes an MTU of {mtu} at most with XDP, at both ends of the pair; run: ip link set dev {name} mtu {mtu}, \
             and the same for its peer"
        ),
        Some(mtu) => {
            format!("{driver} takes an MTU of {mtu} at most with XDP; run: ip link set dev {name} mtu {mtu}")
        }
        None => format!("the driver may need a smaller MTU for XDP; try: ip link set dev {name} mtu 1500"),
    }
}

/// The remedy if the kernel refuses to load the program.
pub(crate) const LOAD_REMEDY: &str = "run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// `struct settings` of `bpf/filter.c`.
#[derive(Clone, Copy, Debug)]
struct ProgramSettings {
    inside: u32,
    queues: u32,
    stamp: bool,
    may_split: bool,
    has_fast_path: bool,
}

impl ProgramSettings {
    fn encode(self) -> Vec<u8> {
        let flags = [self.stamp, self.may_split, self.has_fast_path].map(u32::from);
        let words = [self.inside, self.queues].into_iter().chain(flags);
        words.flat_map(u32::to_ne_bytes).collect()
    }
}

/// The maps of a program, other than its settings.
enum Maps<'o> {
    /// New ones, for this number of interfaces. The tables of the fast path have one entry: the program does not use them.
    New { sides: u32 },
    /// Those of a program without the fast path, and the tables of the fast path.
    Of { program: &'o libbpf_rs::Object, tables: &'o libbpf_rs::Object },
}

/// The maps that programs without the fast path use.
const MAPS: [&str; 4] = ["sockets", "longest", "splits", "counts"];

/// The object of `bpf/filter.c`, not in the kernel yet.
fn open() -> Result<OpenObject, libbpf_rs::Error> {
    static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filter.o"));
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| tracing::debug!(target: "libbpf", "{}", text.trim_end()))));
    ObjectBuilder::default().open_memory(OBJECT)
}

fn load(settings: ProgramSettings, maps: &Maps<'_>) -> Result<libbpf_rs::Object, libbpf_rs::Error> {
    let mut open = open()?;
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if name.ends_with(".rodata") {
            map.set_initial_value(&settings.encode())?;
            continue;
        }
        match *maps {
            Maps::Of { program, .. } if MAPS.contains(&&*name) => map.reuse_fd(self::map(program, &name).as_fd())?,
            Maps::Of { tables, .. } => map.reuse_fd(self::map(tables, &name).as_fd())?,
            Maps::New { sides } if ["sockets", "splits"].contains(&&*name) => {
                map.set_max_entries(sides * settings.queues)?;
            }
            Maps::New { .. } if fast_path::FIXED_MAPS.contains(&&*name) => map.set_max_entries(1)?,
            Maps::New { .. } => {}
        }
    }
    open.load()
}

/// Creates the tables of the fast path, for no program yet.
pub(crate) fn load_tables(sizes: &FastPathSizes, queues: u32) -> Result<libbpf_rs::Object, libbpf_rs::Error> {
    let mut open = open()?;
    for mut program in open.progs_mut() {
        program.set_autoload(false);
    }
    let sizes = sizes.map_entries(queues);
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if let Some((_, entries)) = sizes.iter().find(|(sized, _)| *sized == name) {
            map.set_max_entries(*entries)?;
        }
    }
    open.load()
}

/// Loads the program with the fast path and its tables, with the other maps of a program without it.
fn load_fast_path(
    without: &libbpf_rs::Object,
    tables: &FastPath,
    settings: ProgramSettings,
) -> Result<(libbpf_rs::Object, ProgramSettings), RingError> {
    let settings = ProgramSettings { has_fast_path: true, ..settings };
    let maps = Maps::Of { program: without, tables: tables.maps() };
    let object = load(settings, &maps).map_err(|error| {
        RingError::system("cannot load the XDP program with the fast path", io::Error::other(error), LOAD_REMEDY)
    })?;
    Ok((object, settings))
}

fn set_longest(object: &libbpf_rs::Object, max_frame: u32) -> Result<(), RingError> {
    map(object, "longest")
        .update(&0_u32.to_ne_bytes(), &max_frame.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| RingError::system("cannot write the program's settings", io::Error::other(error), ""))
}

/// Informs the program that no frame of this side is a part of a longer frame.
fn keeps_frames_whole(object: &libbpf_rs::Object, side: u32, queues: u32) -> Result<(), RingError> {
    /// `NEVER_SPLIT` of `bpf/filter.c`.
    const NEVER_SPLIT: u32 = 2;
    for queue in 0..queues {
        let key = side * queues + queue;
        map(object, "splits")
            .update(&key.to_ne_bytes(), &NEVER_SPLIT.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| RingError::system("cannot write the program's settings", io::Error::other(error), ""))?;
    }
    Ok(())
}

pub(crate) fn map<'o>(object: &'o libbpf_rs::Object, name: &str) -> Map<'o> {
    object.maps().find(|map| map.name() == name).expect("the program declares its maps")
}

/// Attaches a loaded XDP program of the caller to an interface, in the driver. The close of the descriptor detaches it.
///
/// # Errors
/// If the driver has no XDP, or another program holds the interface.
pub fn attach_native(program: BorrowedFd<'_>, device: &Device) -> Result<OwnedFd, RingError> {
    link(program.as_raw_fd(), device.index(), XdpMode::Native).map_err(|error| {
        RingError::system(
            format!("cannot attach an XDP program to {}", device.name()),
            error,
            "needs a driver with XDP",
        )
    })
}

/// Creates a bpf_link. The function of libbpf-rs takes no flags, and so does not allow a choice of the mode.
fn link(program: RawFd, interface: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: mem::size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: mode.flags(),
        ..Default::default()
    };
    // SAFETY: the program's descriptor is open, and the options live across the call and contain their own size.
    let fd = unsafe { libbpf_sys::bpf_link_create(program, interface as i32, libbpf_sys::BPF_XDP, &raw const options) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor is new and valid, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_run::test_run;

    const MAX_FRAME: u32 = 1522;

    /// The index of the loopback interface in every network namespace.
    const LOOPBACK: u32 = 1;

    /// Runs the program on frames of these lengths, one after the other, as they would arrive on the loopback's only queue.
    /// No queue has a socket: a frame that is not a tail is unbound.
    fn run(may_split: bool, keeps_whole: bool, lengths: &[usize]) -> Vec<&'static str> {
        let settings = ProgramSettings { inside: 0, queues: 1, stamp: false, may_split, has_fast_path: false };
        let maps = Maps::New { sides: 1 };
        let object = load(settings, &maps).expect("programs can be loaded, as root");
        set_longest(&object, MAX_FRAME).expect("the map has the entry");
        if keeps_whole {
            keeps_frames_whole(&object, 0, 1).expect("the map has the entry");
        }
        let attachment = Attachment::Here(std::fs::File::open("/").unwrap().into());
        let mut program =
            XdpProgram { object: Arc::new(object), side: 0, settings, mode: XdpMode::Generic, attachment };
        let mut before = CoreCounts::default();
        let outcome = |length: &usize| {
            let frame = vec![0x45_u8; *length];
            test_run(program.program(), LOOPBACK, &frame).expect("the kernel runs the program");
            let after =
                program.counts().expect("counters").into_iter().fold(CoreCounts::default(), |sum, core| CoreCounts {
                    seen: sum.seen + core.seen,
                    unbound: sum.unbound + core.unbound,
                    tails: sum.tails + core.tails,
                    ..sum
                });
            let new = (after.seen - before.seen, after.unbound - before.unbound, after.tails - before.tails);
            before = after;
            match new {
                (1, 1, 0) => "frame",
                (1, 0, 1) => "tail",
                other => panic!("a frame of {length} bytes was counted as {other:?}"),
            }
        };
        lengths.iter().map(outcome).collect()
    }

    #[test]
    fn a_frame_behind_one_that_is_too_long_is_dropped() {
        // No tail follows a frame of the greatest permitted length.
        assert_eq!(run(true, false, &[60, 1522, 60, 1522]), ["frame"; 4]);
        // Frames in two parts, in three parts, and in parts that all fill their buffers.
        assert_eq!(run(true, false, &[3072, 490, 60]), ["frame", "tail", "frame"]);
        assert_eq!(run(true, false, &[3072, 3072, 490, 60]), ["frame", "tail", "tail", "frame"]);
        assert_eq!(run(true, false, &[1523, 1523, 1522, 1522]), ["frame", "tail", "tail", "frame"]);
        // Two such frames, one behind the other.
        assert_eq!(run(true, false, &[3072, 490, 3072, 60, 60]), ["frame", "tail", "frame", "tail", "frame"]);
    }

    #[test]
    fn a_driver_that_keeps_frames_whole_loses_no_frame() {
        assert_eq!(run(false, false, &[3072, 490, 3072, 3072, 60]), ["frame"; 5]);
        // The other side's driver may split frames.
        assert_eq!(run(true, true, &[3072, 490, 3072, 3072, 60]), ["frame"; 5]);
    }
}
