//! One thread at both ends of a path: it sends frames into one end, and spins on the other until they arrive. So the
//! measurement includes no sleep, no wake-up and no second clock.
//!
//! ```text
//!   client  ── there: number, time ──►  candidate  ──►  server
//!   client  ◄──  candidate  ◄── back: the same ───────  server      (round trips only)
//! ```
//! The time of a frame begins when the thread writes it, and ends when the thread finds it in the receive ring. The
//! time includes the system call that sends the frame, and the part of the path that the kernel runs in that call: see
//! [`Arrangement`](super::results::Arrangement).

use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use knockplane_ring::{Device, Endpoint, Program, raise_memlock_limit};
use knockplane_tests::{Namespace, Topology};

use super::nftables::INSIDE_MAC;
use super::results::quantile;
use crate::generator::{Profile, Spec, parse_mac};

/// Frame size, the generator's default: it has room for number and time behind the headers of UDP.
const FRAME_BYTES: usize = 64;

/// Offset of number and time: behind Ethernet, IPv4 and UDP. The two ports before them do not change on the path.
const NUMBER: usize = 14 + 20 + 8;
const TIME: usize = NUMBER + 8;
const PORTS: Range<usize> = 14 + 20..14 + 20 + 4;
const UDP_SUM: Range<usize> = NUMBER - 2..NUMBER;

/// The source port of the generator's flow.
const CLIENT_PORT: u16 = 1024;

/// Time to wait for the last frames of a window and for each round trip. Later frames count as lost.
const PATIENCE: Duration = Duration::from_millis(20);

/// The result of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Time from the first frame to the last.
    pub(super) seconds: f64,
    /// Number of frames sent.
    pub(super) sent: u64,
    /// Number of frames that arrived.
    pub(super) arrived: u64,
    /// Median of the frames that arrived, in microseconds.
    pub(super) p50: f64,
    /// 99th percentile, in microseconds.
    pub(super) p99: f64,
}

/// Both ends of a path, and their sockets.
pub(super) struct Ends {
    client: End,
    server: End,
    clock: Instant,
    /// Number of the next frame. Numbers are unique, so that frames of an earlier window are recognised.
    number: u64,
}

struct End {
    endpoint: Endpoint,
    /// The program on the interfaces. Its drop detaches it.
    _program: Program,
    /// The frame, without number and time.
    frame: Vec<u8>,
}

/// Number and time of a frame.
#[derive(Clone, Copy)]
struct Mark {
    number: u64,
    /// Time of sending, in nanoseconds on the clock of [`Ends`].
    time: u64,
}

impl Ends {
    /// Opens sockets on the interfaces of this name, of client and server.
    ///
    /// # Errors
    /// If there are no such interfaces, or another program uses them.
    pub(super) fn of(topology: &Topology, interface: &str) -> Result<Self> {
        raise_memlock_limit();
        let spec = Spec::new(Profile::Flow);
        let (IpNet::V4(client), IpAddr::V4(server)) = (spec.source, spec.destination) else {
            unreachable!("the generator's defaults are of IPv4")
        };
        let (client, server) = (client.addr().octets(), server.octets());
        let there = PacketBuilder::ethernet2(spec.source_mac, spec.destination_mac)
            .ipv4(client, server, 64)
            .udp(CLIENT_PORT, spec.port);
        let back = PacketBuilder::ethernet2(spec.source_mac, parse_mac(INSIDE_MAC)?)
            .ipv4(server, client, 64)
            .udp(spec.port, CLIENT_PORT);
        let (mut frames, payload) = ([Vec::new(), Vec::new()], [0; FRAME_BYTES - NUMBER]);
        there.write(&mut frames[0], &payload)?;
        back.write(&mut frames[1], &payload)?;
        for frame in &mut frames {
            // No checksum, because the payload differs from frame to frame.
            frame[UDP_SUM].fill(0);
        }
        let [there, back] = frames;
        Ok(Ends {
            client: End::of(&topology.client, interface, there)?,
            server: End::of(&topology.server, interface, back)?,
            clock: Instant::now(),
            number: 0,
        })
    }

    /// Sends one way from the client to the server, `rate` frames a second, evenly spaced. Late frames are skipped,
    /// because sending them later would cause a burst.
    pub(super) fn one_way(&mut self, rate: f64, duration: Duration) -> Sample {
        let (interval, first) = ((1e9 / rate) as u64, self.number);
        let mut times = Vec::with_capacity((rate * duration.as_secs_f64()) as usize + 1);
        let begin = self.now();
        let end = begin + nanos(duration);
        let (mut due, mut now) = (begin, begin);
        while now < end {
            if now >= due {
                due = (due + interval).max(now);
                self.client.send(self.number, None, self.clock);
                self.number += 1;
            }
            self.receive(first, &mut times);
            now = self.now();
        }
        let patience = now + nanos(PATIENCE);
        let sent = self.number - first;
        while (times.len() as u64) < sent && self.now() < patience {
            self.client.endpoint.kick();
            self.receive(first, &mut times);
        }
        sample(now - begin, sent, &times)
    }

    /// Sends one frame at a time there and back. The answer of the server has the time of the request, so no pause lies
    /// between the two ways.
    pub(super) fn round_trips(&mut self, duration: Duration) -> Sample {
        let first = self.number;
        let mut times = Vec::new();
        let begin = self.now();
        let end = begin + nanos(duration);
        let mut now = begin;
        while now < end {
            let number = self.number;
            self.number += 1;
            let patience = now + nanos(PATIENCE);
            self.client.send(number, None, self.clock);
            if let Some((mark, _)) = self.server.wait_for(number, self.clock, patience) {
                self.server.send(number, Some(mark.time), self.clock);
                if let Some((mark, arrived)) = self.client.wait_for(number, self.clock, patience) {
                    times.push(micros(mark, arrived));
                }
            }
            now = self.now();
        }
        sample(now - begin, self.number - first, &times)
    }

    fn receive(&mut self, first: u64, times: &mut Vec<f64>) {
        self.server.receive(self.clock, |mark, arrived| {
            if mark.number >= first {
                times.push(micros(mark, arrived));
            }
        });
    }

    fn now(&self) -> u64 {
        nanos(self.clock.elapsed())
    }
}

impl End {
    fn of(namespace: &Namespace, interface: &str, frame: Vec<u8>) -> Result<Self> {
        let (endpoint, program) = namespace
            .within(|| {
                let device = Device::open(interface)?;
                let mut program = Program::attach(&device, 1, device.mtu()? + 22)?;
                let endpoint = Endpoint::bind(&device, 0, FRAME_BYTES)?;
                endpoint.connect(&mut program, 0)?;
                Ok((endpoint, program))
            })
            .with_context(|| format!("cannot take {interface} of {}", namespace.name()))?;
        Ok(End { endpoint, _program: program, frame })
    }

    /// Sends one frame, with this time or the present one. If the limit of frames in flight is reached, the frame is lost.
    fn send(&mut self, number: u64, time: Option<u64>, clock: Instant) {
        let count = self.endpoint.room().min(1);
        self.endpoint.send(count, |frame| {
            frame.copy_from_slice(&self.frame);
            frame[NUMBER..TIME].copy_from_slice(&number.to_ne_bytes());
            let time = time.unwrap_or_else(|| nanos(clock.elapsed()));
            frame[TIME..TIME + 8].copy_from_slice(&time.to_ne_bytes());
        });
        self.endpoint.kick();
    }

    /// Passes the arrived frames to `look`, with the time at which they were found. All frames of a batch have the same
    /// time.
    fn receive(&mut self, clock: Instant, mut look: impl FnMut(Mark, u64)) {
        let mut seen = None;
        // The ports of the other end, in reverse order.
        let [from, to] = [&self.frame[PORTS][..2], &self.frame[PORTS][2..]];
        self.endpoint.receive(|frame| {
            let arrived = *seen.get_or_insert_with(|| nanos(clock.elapsed()));
            if frame.len() == FRAME_BYTES && frame[PORTS][..2] == *to && frame[PORTS][2..] == *from {
                look(Mark { number: word(frame, NUMBER), time: word(frame, TIME) }, arrived);
            }
        });
    }

    /// Spins until this frame arrives, or until its time limit. Returns the time of arrival.
    fn wait_for(&mut self, number: u64, clock: Instant, patience: u64) -> Option<(Mark, u64)> {
        let mut found = None;
        while found.is_none() && nanos(clock.elapsed()) < patience {
            self.receive(clock, |mark, arrived| {
                if mark.number == number {
                    found = Some((mark, arrived));
                }
            });
        }
        found
    }
}

fn word(frame: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(frame[at..at + 8].try_into().expect("eight bytes"))
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn micros(mark: Mark, arrived: u64) -> f64 {
    arrived.saturating_sub(mark.time) as f64 / 1e3
}

fn sample(nanos: u64, sent: u64, times: &[f64]) -> Sample {
    Sample {
        seconds: nanos as f64 / 1e9,
        sent,
        arrived: times.len() as u64,
        p50: quantile(times, 0.5),
        p99: quantile(times, 0.99),
    }
}
