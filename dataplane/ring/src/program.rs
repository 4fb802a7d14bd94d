//! The XDP program on one interface: loaded, attached, and gone when this value or the process is.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use libbpf_rs::{MapCore, MapFlags, MapMut, ObjectBuilder, PrintLevel};

use crate::buffers::{largest_native_mtu, may_split};
use crate::device::Device;
use crate::error::Error;

/// Where the program runs. Native, in the driver; or generic, behind it, at a fraction of the speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, for drivers without XDP.
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

/// What the program counted on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Frames that arrived.
    pub seen: u64,
    /// Of these, dropped because their queue has no socket.
    pub unbound: u64,
    /// Of these, without the time of their arrival, though they should carry it: the driver has no metadata.
    pub unstamped: u64,
    /// Of these, dropped because they may be the rest of a frame that was too long.
    pub tails: u64,
}

/// The program of `bpf/filter.c` on one interface.
#[derive(Debug)]
pub struct Program {
    object: libbpf_rs::Object,
    mode: XdpMode,
    /// The attachment. It is not pinned: closing it detaches the program, and the kernel closes it for a dead process.
    _link: OwnedFd,
}

impl Program {
    /// Loads the program and attaches it, native if the driver can, else generic. From here on the interface drops
    /// everything until [`Program::set_socket`]. `max_frame` is the longest frame in bytes, with Ethernet header and VLAN
    /// tags: what may be the rest of a longer one is dropped.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, or if another program holds the interface.
    pub fn attach(device: &Device, queues: u32, max_frame: u32) -> Result<Self, Error> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filter.o"));
        libbpf_rs::set_print(Some((
            PrintLevel::Warn,
            |_, text| tracing::debug!(target: "libbpf", "{}", text.trim_end()),
        )));
        let load = |settings: Settings| {
            load(OBJECT, queues, settings).map_err(|error| {
                Error::system(
                    format!("cannot load the XDP program for {}", device.name()),
                    io::Error::other(error),
                    "run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
                )
            })
        };
        let attach = |object: &libbpf_rs::Object, mode| {
            let program = object.progs().next().expect("the object holds one program").as_fd().as_raw_fd();
            link(program, device.index(), mode)
        };
        // The order of arrival can only be lost between queues.
        let settings = Settings { stamp: queues > 1, split_above: 0 };
        let split_above = if may_split(device.driver()) { max_frame } else { 0 };
        let (mut object, mut mode) = (load(Settings { split_above, ..settings })?, XdpMode::Native);
        let mut link = attach(&object, mode);
        if link.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
            // The stack puts frames together before the program sees them.
            (object, mode) = (load(settings)?, XdpMode::Generic);
            link = attach(&object, mode);
        }
        let link = link.map_err(|error| {
            let remedy = match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => format!(
                    "another XDP program is attached there: find it with `ip link show dev {0}`, remove it with \
                     `ip link set dev {0} xdp off`",
                    device.name()
                ),
                Some(libc::EINVAL | libc::ERANGE) => match largest_native_mtu(device.driver()) {
                    Some(mtu) => format!("{} takes an MTU of {mtu} at most with XDP", device.driver()),
                    None => "the driver may need a smaller MTU for XDP".to_owned(),
                },
                _ => String::new(),
            };
            Error::system(format!("cannot attach the XDP program to {}", device.name()), error, remedy)
        })?;
        Ok(Program { object, mode, _link: link })
    }

    /// Where the program runs.
    pub const fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Frames of this queue go to this AF_XDP socket from now on.
    ///
    /// # Errors
    /// If the socket is not bound to this queue of this interface.
    pub fn set_socket(&mut self, queue: u32, socket: RawFd) -> Result<(), Error> {
        map(&mut self.object, "sockets")
            .update(&queue.to_ne_bytes(), &socket.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| Error::system(format!("cannot bind queue {queue}"), io::Error::other(error), ""))
    }

    /// What the program counted so far, by core.
    ///
    /// # Errors
    /// If the kernel refuses to read its own map.
    pub fn counts(&mut self) -> Result<Vec<CoreCounts>, Error> {
        let per_core = map(&mut self.object, "counts")
            .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| Error::system("cannot read the program's counters", io::Error::other(error), ""))?;
        let word = |bytes: &[u8], index: usize| {
            let bytes = bytes.get(8 * index..8 * (index + 1)).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_ne_bytes).unwrap_or_default()
        };
        let counts = |bytes: Vec<u8>| CoreCounts {
            seen: word(&bytes, 0),
            unbound: word(&bytes, 1),
            unstamped: word(&bytes, 2),
            tails: word(&bytes, 3),
        };
        Ok(per_core.into_iter().flatten().map(counts).collect())
    }
}

/// `struct settings` of `bpf/filter.c`.
#[derive(Clone, Copy)]
struct Settings {
    stamp: bool,
    split_above: u32,
}

impl Settings {
    fn encode(self) -> [u8; 8] {
        let words = [u32::from(self.stamp), self.split_above].map(u32::to_ne_bytes);
        *words.as_flattened().first_chunk().expect("two words")
    }
}

fn load(bytes: &[u8], queues: u32, settings: Settings) -> Result<libbpf_rs::Object, libbpf_rs::Error> {
    let mut open = ObjectBuilder::default().open_memory(bytes)?;
    for mut map in open.maps_mut() {
        if map.name() == "sockets" || map.name() == "splits" {
            map.set_max_entries(queues)?;
        } else if map.name().to_string_lossy().ends_with(".rodata") {
            map.set_initial_value(&settings.encode())?;
        }
    }
    open.load()
}

fn map<'a>(object: &'a mut libbpf_rs::Object, name: &str) -> MapMut<'a> {
    object.maps_mut().find(|map| map.name() == name).expect("the program declares its maps")
}

/// A bpf_link, which libbpf-rs makes only without flags, and so without a say in the mode.
pub(crate) fn link(program: RawFd, interface: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: mem::size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: mode.flags(),
        ..Default::default()
    };
    // SAFETY: the program's descriptor is open, and the options live across the call and say their own size.
    let fd = unsafe { libbpf_sys::bpf_link_create(program, interface as i32, libbpf_sys::BPF_XDP, &raw const options) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor is new, valid, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_FRAME: u32 = 1522;

    /// Runs the program on frames of these lengths, one after the other, as they would arrive on the loopback's only queue.
    /// No queue has a socket: what is not a tail is unbound.
    fn run(split_above: u32, lengths: &[usize]) -> Vec<&'static str> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filter.o"));
        let object = load(OBJECT, 1, Settings { stamp: false, split_above }).expect("programs can be loaded, as root");
        let fd = object.progs().next().expect("the object holds one program").as_fd().as_raw_fd();
        let mut program =
            Program { object, mode: XdpMode::Generic, _link: OwnedFd::from(std::fs::File::open("/").unwrap()) };
        let mut before = CoreCounts::default();
        let outcome = |length: &usize| {
            let frame = vec![0x45_u8; *length];
            // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            let context = [0, frame.len() as u32, 0, 1, 0, 0];
            let mut options = libbpf_sys::bpf_test_run_opts {
                sz: mem::size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
                data_in: frame.as_ptr().cast(),
                data_size_in: frame.len() as u32,
                ctx_in: (&raw const context).cast(),
                ctx_size_in: mem::size_of_val(&context) as u32,
                repeat: 1,
                ..Default::default()
            };
            // SAFETY: the program's descriptor is open; frame and context live across the call, and the options say their
            // lengths and their own.
            let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(fd, &raw mut options) };
            assert_eq!(result, 0, "a frame of {length} bytes: {}", io::Error::from_raw_os_error(-result));
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
    fn what_follows_a_frame_that_is_too_long_is_dropped() {
        // A frame of the greatest length that is allowed is followed by nothing.
        assert_eq!(run(MAX_FRAME, &[60, 1522, 60, 1522]), ["frame"; 4]);
        // Two parts; three; parts that fill their buffers, and the end of the last one.
        assert_eq!(run(MAX_FRAME, &[3072, 490, 60]), ["frame", "tail", "frame"]);
        assert_eq!(run(MAX_FRAME, &[3072, 3072, 490, 60]), ["frame", "tail", "tail", "frame"]);
        assert_eq!(run(MAX_FRAME, &[1523, 1523, 1522, 1522]), ["frame", "tail", "tail", "frame"]);
        // Two such frames behind each other.
        assert_eq!(run(MAX_FRAME, &[3072, 490, 3072, 60, 60]), ["frame", "tail", "frame", "tail", "frame"]);
    }

    #[test]
    fn a_driver_that_keeps_frames_whole_loses_no_frame() {
        assert_eq!(run(0, &[3072, 490, 3072, 3072, 60]), ["frame"; 5]);
    }
}
