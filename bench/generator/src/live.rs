//! Frames that the kernel creates, for load tests: a test run of a program with live frames. The kernel uses the frames
//! again after each batch, so they cost far less than frames from userspace.
//!
//! [`LiveFrames`] sends copies of one frame. [`LiveSequence`] sends frames whose addresses and ports vary by number, as
//! described by [`Stream`], at a rate, up to a number or a time. The programs are in `bpf/generate.c`.
//!
//! The peer of a veth must run an XDP program or receive by NAPI (`ethtool -K .. gro on`). Otherwise the frames are
//! lost, and no counter shows it. Source: Linux `Documentation/bpf/bpf_prog_run.rst`.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use knockplane_ring::{Device, Error, LiveRun};
use libbpf_rs::{Map, MapCore as _, MapFlags, ObjectBuilder, Program};

/// Sends copies of one frame from an interface, on this thread, at the maximum speed of the kernel.
#[derive(Debug)]
pub struct LiveFrames {
    object: libbpf_rs::Object,
    interface: u32,
}

impl LiveFrames {
    /// Prepares to send from this interface.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    pub fn new(device: &Device) -> Result<Self, Error> {
        Ok(LiveFrames { object: load()?, interface: device.index() })
    }

    /// Sends `count` copies of the frame, and returns when the interface has the last one.
    ///
    /// # Errors
    /// If the kernel does not support live frames (before 5.18), or accepts no frame of this length.
    pub fn send(&self, frame: &[u8], count: u32) -> Result<(), Error> {
        let (program, interface) = (program(&self.object, "copies"), self.interface);
        let run = LiveRun { program: program.as_fd(), interface, frame, times: count, frames_a_batch: MOST_A_BATCH };
        run.run().map_err(cannot_send)
    }
}

/// Maximum number of streams of a [`LiveSequence`].
pub const STREAMS: usize = 4;

/// Maximum length of a pattern of streams.
pub const PATTERN: usize = 128;

/// Maximum number of bytes of the headers of a [`Stream`].
pub const HEADER_BYTES: usize = 80;

/// TCP or UDP frames that differ only in source address and ports. These follow from the number of a frame and from its
/// round, the number of earlier repetitions of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Ethernet, IP and transport header as sent, then zeros. The varying fields (source address, ports) and the
    /// checksums are zero too.
    pub header: [u8; HEADER_BYTES],
    /// Whether the frames are IPv6; otherwise IPv4.
    pub is_ipv6: bool,
    /// Whether the frames are TCP; otherwise UDP.
    pub is_tcp: bool,
    /// Whether the network half of an IPv6 source address varies; otherwise the host half varies. The other half is in
    /// the header.
    pub varies_high: bool,
    /// The word of the source address that varies, without its varying bits: an IPv4 address, half an IPv6 address.
    pub network: u64,
    /// The bits of this word that vary.
    pub host_mask: u64,
    /// The value of these bits in the first round. It increases by one in each round.
    pub host_first: u64,
    /// Whether these bits are the scrambled number of the round instead.
    pub random_host: bool,
    /// The source port in the first round.
    pub source_port: u16,
    /// Number of source ports, one for each round in turns.
    pub source_ports: u16,
    /// The destination port. `None` means a port from 1 on that follows from the scrambled number.
    pub destination_port: Option<u16>,
    /// The sum of the IPv4 header's 16-bit words (RFC 1071) in the order of memory, zeros as in the header.
    pub ip_sum: u64,
    /// The same sum for the transport header, its pseudo-header and its payload.
    pub transport_sum: u64,
}

impl Stream {
    /// `struct stream` of `bpf/generate.c`.
    fn encode(&self) -> Vec<u8> {
        let words = [
            self.is_ipv6.into(),
            self.is_tcp.into(),
            self.varies_high.into(),
            self.network,
            self.host_first,
            self.host_mask,
            self.random_host.into(),
            self.source_port.into(),
            self.source_ports.into(),
            self.destination_port.unwrap_or(0).into(),
            self.ip_sum,
            self.transport_sum,
        ];
        self.header.into_iter().chain(words.into_iter().flat_map(u64::to_ne_bytes)).collect()
    }
}

/// The end and the rate of a [`LiveSequence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Total number of frames.
    pub count: u64,
    /// Maximum time since the first frame.
    pub duration: Duration,
    /// Time between two frames, in 1/256 ns; 0 is the maximum speed of the kernel.
    pub interval: u64,
}

/// The progress of a [`LiveSequence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of runs of the program, including runs without a frame that was due.
    pub runs: u64,
    /// Number of frames given to the interface.
    pub sent: u64,
    /// Time from the first to the last of these frames.
    pub elapsed: Duration,
    /// Whether a limit is reached.
    pub done: bool,
}

/// Sends the frames of a pattern of streams from an interface, on this thread.
#[derive(Debug)]
pub struct LiveSequence {
    object: libbpf_rs::Object,
    interface: u32,
    /// The initial bytes of a page; the program writes the headers.
    frame: Vec<u8>,
    frames_a_batch: u32,
}

impl LiveSequence {
    /// Prepares frames of `frame_bytes` bytes. The pattern contains indices of streams in the order of their frames.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    ///
    /// # Panics
    /// If there are more than [`STREAMS`] streams, or the pattern is empty, longer than [`PATTERN`], or names another.
    pub fn new(
        device: &Device,
        frame_bytes: usize,
        streams: &[Stream],
        pattern: &[u8],
        limits: &Limits,
    ) -> Result<Self, Error> {
        assert!(streams.len() <= STREAMS, "{} streams", streams.len());
        assert!((1..=PATTERN).contains(&pattern.len()), "a pattern of {}", pattern.len());
        assert!(pattern.iter().all(|stream| usize::from(*stream) < streams.len()), "a stream that is not there");
        // With a rate, small batches space frames evenly, because a batch leaves when it is complete.
        let frames_a_batch = if limits.interval == 0 { MOST_A_BATCH } else { 32 };
        let sequence =
            LiveSequence { object: load()?, interface: device.index(), frame: vec![0; frame_bytes], frames_a_batch };
        let mut config: Vec<u8> = streams.iter().flat_map(Stream::encode).collect();
        config.resize(STREAMS * size_of::<[u64; HEADER_BYTES / 8 + 12]>(), 0);
        config.extend_from_slice(pattern);
        config.resize(config.len() + PATTERN - pattern.len(), 0);
        let duration = u64::try_from(limits.duration.as_nanos() << 8).unwrap_or(u64::MAX);
        for word in [pattern.len() as u64, limits.count, duration, limits.interval] {
            config.extend_from_slice(&word.to_ne_bytes());
        }
        sequence.map("configs").update(&FIRST, &config, MapFlags::ANY).map_err(map_error)?;
        Ok(sequence)
    }

    /// Runs the program `times` times. Each run sends the next frame if it is due. The kernel pauses for tens of
    /// milliseconds around each call. A signal ends the call early.
    ///
    /// # Errors
    /// If the kernel does not support live frames (before 5.18), or accepts no frame of this length.
    pub fn run(&mut self, times: u32) -> Result<Progress, Error> {
        let program = program(&self.object, "sequence");
        let run = LiveRun {
            program: program.as_fd(),
            interface: self.interface,
            frame: &self.frame,
            times,
            frames_a_batch: self.frames_a_batch,
        };
        match run.run() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(cannot_send(error)),
            _ => self.progress(),
        }
    }

    /// Reads `struct state` of `bpf/generate.c`.
    fn progress(&self) -> Result<Progress, Error> {
        let bytes = self.map("states").lookup(&FIRST, MapFlags::ANY).map_err(map_error)?.unwrap_or_default();
        let word = |index: usize| {
            bytes.get(8 * index..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let [runs, sent, done, _, _, _, _, last, _] = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(word);
        Ok(Progress { runs, sent, elapsed: Duration::from_nanos(last >> 8), done: done != 0 })
    }

    fn map(&self, name: &str) -> Map<'_> {
        self.object.maps().find(|map| map.name() == name).expect("the object declares its maps")
    }
}

/// The key of the only entry.
const FIRST: [u8; 4] = [0; 4];

/// Maximum number of frames in a batch. The frames of a batch share the cost of the run around it.
const MOST_A_BATCH: u32 = 256;

fn load() -> Result<libbpf_rs::Object, Error> {
    static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/generate.o"));
    ObjectBuilder::default()
        .open_memory(OBJECT)
        .and_then(libbpf_rs::OpenObject::load)
        .map_err(|error| failed("cannot load the generator", io::Error::other(error), "run as root or with CAP_BPF"))
}

fn program<'o>(object: &'o libbpf_rs::Object, name: &str) -> Program<'o> {
    object.progs().find(|program| program.name() == name).expect("the object holds this program")
}

fn failed(action: &str, cause: io::Error, remedy: &str) -> Error {
    Error::System { action: action.to_owned(), cause, remedy: remedy.to_owned() }
}

fn cannot_send(error: io::Error) -> Error {
    failed("cannot send live frames", error, "needs Linux 5.18 or newer")
}

fn map_error(error: libbpf_rs::Error) -> Error {
    failed("cannot reach the generator's state", io::Error::other(error), "")
}
