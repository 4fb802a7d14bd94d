//! A packet generator with the typical loads of a port-knocking firewall.
//!
//! In the order of use:
//! 1. [`Profile`]: the kind of frames. [`Spec`]: addresses, duration, rate.
//! 2. [`Generator::new`] checks both and computes the streams of frames (`streams`).
//! 3. [`Generator::run`] sends, from its thread, in one of two ways ([`Mode`]), with equal frames. It ends at a number of
//!    frames or a time, or within a second after `stop` is set.
//! 4. [`Summary`]: the sent frames.

mod pace;
mod profile;
mod spec;
mod streams;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use knockplane_generator::{Limits, LiveSequence};
use knockplane_ring::{Device, Endpoint, raise_memlock_limit};

use pace::Pace;
pub use profile::Profile;
pub use spec::{Mode, Spec, parse_mac, parse_prefix, parse_rate};
use streams::Streams;

/// Target duration of a call that makes live frames: the kernel pauses around each call, and no call ends early.
const CALL: Duration = Duration::from_millis(500);

/// Minimum time between two reports of progress.
const REPORT: Duration = Duration::from_millis(900);

/// Number of program runs in the first of those calls. Its speed determines the length of the next calls.
const FIRST_CALL: u32 = 1 << 18;

/// The largest number of program runs that the kernel accepts.
const MOST_RUNS: u32 = i32::MAX as u32;

/// Maximum number of frames of one kick, so that the smallest ring on the path (that of veth, with 256 places) has room
/// for them.
const BURST: usize = 64;

/// Longest wait at the end for frames that a link does not take.
const PATIENCE: Duration = Duration::from_millis(100);

/// Result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Kind of frames.
    pub profile: Profile,
    /// Way of making frames.
    pub mode: Mode,
    /// Bytes of each, without the checksum of Ethernet.
    pub frame_bytes: usize,
    /// Number of frames given to the interface.
    pub frames: u64,
    /// Frames that the interface counted as sent during the run, including those of other senders; `None` if unknown. The
    /// difference to `frames` was dropped by the interface.
    pub transmitted: Option<u64>,
    /// Time from the first frame to the last.
    pub elapsed: Duration,
    /// Number of runs of the program that makes live frames: see [`Generator::in_one_call`].
    pub runs: u64,
}

impl Summary {
    /// Frames given to the interface per second.
    pub fn rate(&self) -> f64 {
        per_second(self.frames, self.elapsed)
    }

    /// Frames a second that the interface sent, if known.
    pub fn transmitted_rate(&self) -> f64 {
        per_second(self.transmitted.unwrap_or(self.frames), self.elapsed)
    }
}

fn per_second(frames: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { frames as f64 / elapsed.as_secs_f64() }
}

/// A generator for one interface, ready to run.
pub struct Generator {
    spec: Spec,
    frame_bytes: usize,
    interface: String,
    streams: Streams,
    source: Source,
    /// Number of program runs in the first call that makes live frames.
    first_call: u32,
}

/// The maker of frames.
enum Source {
    Live(LiveSequence),
    Xsk(Box<Endpoint>),
}

impl Generator {
    /// Prepares to send from this interface. The interface, this thread and the thread of [`Generator::run`] must be in
    /// the same network namespace.
    ///
    /// # Errors
    /// If the spec contradicts itself or the interface, or without CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF.
    pub fn new(device: &Device, spec: &Spec) -> anyhow::Result<Self> {
        let frame_bytes = spec.checked_frame_bytes()?;
        let longest = device.mtu()? as usize + 14;
        ensure!(frame_bytes <= longest, "{} takes frames of {longest} bytes, not {frame_bytes}", device.name());
        ensure!(device.is_up()?, "{0} is down, or its other end is: ip link set {0} up", device.name());
        let streams = Streams::new(spec, frame_bytes)?;
        let source = match spec.mode {
            Mode::Live => Source::Live(LiveSequence::new(
                device,
                frame_bytes,
                &streams.streams,
                &streams.pattern,
                &Limits {
                    count: spec.count.unwrap_or(u64::MAX),
                    duration: spec.duration,
                    interval: spec.rate.map_or(0, pace::interval),
                },
            )?),
            Mode::Xsk => {
                raise_memlock_limit();
                Source::Xsk(Box::new(Endpoint::bind(device, 0, frame_bytes)?))
            }
        };
        Ok(Generator {
            spec: spec.clone(),
            frame_bytes,
            interface: device.name().to_owned(),
            streams,
            source,
            first_call: FIRST_CALL,
        })
    }

    /// Makes live frames in one call to the kernel, which pauses around each call. `runs` is that of an earlier run with the
    /// same spec. [`Generator::run`] does not end before this number of runs.
    #[must_use]
    pub fn in_one_call(self, runs: u64) -> Self {
        // Runs after the end of the time take no time; too few runs would need a second call.
        let with_margin = runs.saturating_add(runs / 4);
        Generator { first_call: u32::try_from(with_margin).unwrap_or(u32::MAX).clamp(FIRST_CALL, MOST_RUNS), ..self }
    }

    /// Sends until the spec's number of frames or time is reached, or `stop` is set.
    ///
    /// # Errors
    /// If the kernel stops taking frames.
    pub fn run(self, stop: &AtomicBool) -> anyhow::Result<Summary> {
        self.run_with(stop, |_| ())
    }

    /// As [`Generator::run`], and reports progress about every second.
    ///
    /// # Errors
    /// If the kernel stops taking frames.
    pub fn run_with(self, stop: &AtomicBool, mut progress: impl FnMut(&Summary)) -> anyhow::Result<Summary> {
        let Generator { spec, frame_bytes, interface, streams, source, first_call } = self;
        let before = transmitted(&interface);
        let summary = |Sent { frames, elapsed, runs }| Summary {
            profile: spec.profile,
            mode: spec.mode,
            frame_bytes,
            frames,
            transmitted: before.and_then(|before| Some(transmitted(&interface)?.saturating_sub(before))),
            elapsed,
            runs,
        };
        let mut reported = Instant::now();
        let mut tell = |sent| {
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                progress(&summary(sent));
            }
        };
        let sent = match source {
            Source::Live(sequence) => run_live(sequence, &spec, first_call, stop, &mut tell)?,
            Source::Xsk(endpoint) => run_xsk(*endpoint, &spec, &streams, stop, &mut tell)?,
        };
        Ok(summary(sent))
    }
}

/// Progress of a run. The fields are those of [`Summary`].
#[derive(Clone, Copy, Default)]
struct Sent {
    frames: u64,
    elapsed: Duration,
    runs: u64,
}

fn run_live(
    mut sequence: LiveSequence,
    spec: &Spec,
    first_call: u32,
    stop: &AtomicBool,
    tell: &mut impl FnMut(Sent),
) -> anyhow::Result<Sent> {
    let mut times = first_call;
    let mut sent = Sent::default();
    while !stop.load(Relaxed) {
        if spec.rate.is_none() {
            // Each run sends a frame, except the last one, which finds that there are enough.
            let rest = spec.count.unwrap_or(u64::MAX).saturating_sub(sent.frames).saturating_add(1);
            times = times.min(u32::try_from(rest).unwrap_or(u32::MAX));
        }
        let begin = Instant::now();
        let progress = sequence.run(times)?;
        sent = Sent { frames: progress.sent, elapsed: progress.elapsed, runs: progress.runs };
        if progress.done {
            break;
        }
        let took = begin.elapsed().as_secs_f64();
        // Limited growth: the first calls are mostly pause, and machines slow down.
        let next = f64::from(times) * (CALL.as_secs_f64() / took).min(8.0);
        times = (next as u32).clamp(FIRST_CALL, MOST_RUNS);
        tell(sent);
    }
    Ok(sent)
}

fn run_xsk(
    mut endpoint: Endpoint,
    spec: &Spec,
    streams: &Streams,
    stop: &AtomicBool,
    tell: &mut impl FnMut(Sent),
) -> anyhow::Result<Sent> {
    let most = spec.count.unwrap_or(u64::MAX);
    let mut pace = Pace::new(spec.rate.map_or(0, pace::interval));
    let (mut frames, mut last) = (0, Duration::ZERO);
    let begin = Instant::now();
    while frames < most && !stop.load(Relaxed) {
        let now = begin.elapsed();
        if now >= spec.duration {
            break;
        }
        let room = endpoint.room().min(BURST).min(usize::try_from(most - frames).unwrap_or(usize::MAX));
        let count = pace.allowance(now, room);
        if count > 0 {
            endpoint.send(count, |frame| {
                streams.write(frames, frame);
                frames += 1;
            });
            last = now;
            tell(Sent { frames, elapsed: now, runs: 0 });
        } else if endpoint.in_flight() == 0 {
            pace.wait(now);
        }
        endpoint.kick();
    }
    let patience = Instant::now() + PATIENCE;
    while endpoint.in_flight() > 0 && Instant::now() < patience {
        endpoint.kick();
        thread::yield_now();
    }
    Ok(Sent { frames: frames - endpoint.in_flight() as u64, elapsed: last, runs: 0 })
}

/// Frames that an interface of this thread's network namespace has sent, by the counter of its driver.
fn transmitted(interface: &str) -> Option<u64> {
    // /sys would show the namespace in which it was mounted.
    let text = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let (_, counters) = text.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.trim() == interface)?;
    // Eight counters of received data, then sent bytes and packets: proc_net(5).
    counters.split_whitespace().nth(9)?.parse().ok()
}
