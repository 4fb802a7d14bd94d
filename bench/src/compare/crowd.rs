//! Measures the number of clients that are admitted while a flood of forged first knocks fills the lists, and the delay
//! of an open connection by the flood. A hundred clients knock during the flood, each with a different pause between
//! the two steps.
//!
//! The knocks share an interface with the flood. When more frames are offered than fit into its ring, some knocks are
//! lost before they reach the filter. So a client that is not admitted tries again after a second. The result contains
//! the number of clients that were admitted at the first attempt.
//!
//! All senders run on the generator's core. A veth interface receives on the core of whoever sends while its ring is empty,
//! and stays there until the ring is empty again. A sender on the other core would move the kernel's receive side there, and
//! the arrangement would not be S: the generator would no longer wait for it, and every other program on that core would stop
//! it for longer than the ring lasts. A NIC has a fixed core for each queue.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use knockplane_ring::Device;
use knockplane_tests::{Namespace, Topology};
use socket2::{Domain, Socket, Type};

use super::deafness::{FLOOD, KNOCKERS, go_outside, join};
use super::lab::Lab;
use super::listener::{Listener, SERVER};
use super::nftables::GATEWAY_MAC;
use super::results::{Arrangement, quantile};
use super::rules::CLIENT;
use crate::generator::{Generator, Profile, Spec};
use crate::report::{NONE, ResultTable};

/// Number of clients.
const CLIENTS: u32 = 100;

/// Capacity in entries: of all lists of knockplane together, and of each set of nftables. A second of the flood fills it.
const CAPACITY: usize = 1_000_000;

/// Range of the pauses between the two steps, in milliseconds.
const PAUSES: std::ops::Range<u32> = 5..500;

/// Duration of the flood before the first client knocks: long enough to fill every table.
const SETTLED: Duration = Duration::from_secs(3);

/// Time after the last client, for repeated attempts.
const AGAIN: Duration = Duration::from_secs(4);

/// Time between two attempts of a client.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Time between two packets of the open connection.
const BETWEEN: Duration = Duration::from_millis(2);

/// The result of one flood.
#[derive(Debug)]
pub struct FloodResult {
    /// The filter under test.
    pub listener: &'static str,
    /// The kind of flood.
    pub flood: &'static str,
    /// Frames of the flood, in millions a second.
    pub offered: f64,
    /// Clients that knocked.
    pub clients: u32,
    /// Clients that were admitted.
    pub admitted: u32,
    /// Clients that were admitted at the first attempt.
    pub at_first_attempt: u32,
    /// Resident memory in MiB before the flood, if the listener is a process.
    pub memory_before: Option<f64>,
    /// Resident memory in MiB at the end, if the listener is a process.
    pub memory_after: Option<f64>,
    /// The open connection, if there is one.
    pub open: Option<OpenConnection>,
}

/// An open connection during a flood. Delays are one way, in microseconds.
#[derive(Debug)]
pub struct OpenConnection {
    /// Median delay.
    pub p50: f64,
    /// 90th percentile of the delay.
    pub p90: f64,
    /// Part of the packets that arrived.
    pub arrived: f64,
}

/// A row for each flood.
pub fn table(floods: &[FloodResult]) -> ResultTable {
    let columns = [
        "flood",
        "offered, Mpps",
        "listener",
        "admitted",
        "of clients",
        "at the first attempt",
        "memory before, MiB",
        "memory after, MiB",
        "open connection: p50, µs",
        "p90, µs",
        "arrived",
    ];
    let rows = floods.iter().map(|flood| {
        let number = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.1}"));
        let open = flood.open.as_ref();
        vec![
            flood.flood.to_owned(),
            format!("{:.2}", flood.offered),
            flood.listener.to_owned(),
            flood.admitted.to_string(),
            flood.clients.to_string(),
            flood.at_first_attempt.to_string(),
            number(flood.memory_before),
            number(flood.memory_after),
            number(open.map(|open| open.p50)),
            number(open.map(|open| open.p90)),
            open.map_or_else(|| NONE.to_owned(), |open| format!("{:.2} %", 100.0 * open.arrived)),
        ]
    });
    ResultTable::new("crowd", "Clients admitted during a flood", &columns).with_rows(rows)
}

/// Measures knockplane without a flood, for the delay of the open connection.
///
/// # Errors
/// Without root, or if knockplane does not start.
pub fn measure_quiet(length: Duration) -> Result<FloodResult> {
    eprintln!("knockplane, no flood");
    under_flood("knockplane", ("none", None), None, length).context("knockplane")
}

/// Measures nftables and knockplane, each under two floods: first knocks, and packets to a closed port, which add no
/// entries. A flood lasts for `length` and has this rate, or the highest possible rate. `done` receives each result.
///
/// # Errors
/// Without root or nftables, or if a listener does not start.
pub fn measure(rate: Option<u64>, length: Duration, mut done: impl FnMut(FloodResult)) -> Result<()> {
    for (flood, profile) in [("first knocks", Profile::FirstKnocks), ("closed port", Profile::SourcesSequential)] {
        for listener in ["nftables", "knockplane"] {
            eprintln!("{listener}, flood: {flood}");
            done(under_flood(listener, (flood, Some(profile)), rate, length).with_context(|| listener)?);
        }
    }
    Ok(())
}

fn under_flood(
    name: &'static str,
    (flood, profile): (&'static str, Option<Profile>),
    rate: Option<u64>,
    length: Duration,
) -> Result<FloodResult> {
    let lab = Lab::new(Arrangement::S)?;
    let listener = Listener::start(name, &lab, CAPACITY, CAPACITY)?;
    let Topology { client, server, .. } = &lab.topology;
    client.ip(&format!("route add local {KNOCKERS} dev lo"))?;
    client.ip(&format!("addr add {CLIENT}/32 dev lo"))?;
    client.ip(&format!("neigh replace {SERVER} lladdr {GATEWAY_MAC} dev eth0 nud permanent"))?;
    client.ip(&format!("route replace {SERVER} dev eth0"))?;
    let is_wire = matches!(listener, Listener::Knockplane(_));
    if is_wire {
        server.ip(&format!("link set eth0 address {GATEWAY_MAC}"))?;
        server.ip(&format!("addr add {SERVER}/32 dev lo"))?;
    }
    let clients: Vec<Client> = (0..CLIENTS).map(|number| Client::new(number, length)).collect();
    let addresses: Vec<String> = clients.iter().map(|client| client.address.to_string()).collect();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let memory_before = listener.resident()?.map(mib);
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let spec = |profile| Spec { rate, duration: length + AGAIN, source: FLOOD, ..Spec::new(profile) };
    thread::scope(|scope| {
        let stop = &stop;
        let generator = profile.map(spec).map(|spec| {
            scope.spawn(move || {
                client.within(|| {
                    go_outside()?;
                    Generator::new(&Device::open("eth0")?, &spec)?.run(stop)
                })
            })
        });
        let open = is_wire.then(|| scope.spawn(|| open_connection(&lab.topology, begin + SETTLED, begin + length)));
        let knocked = knock(client, &listener, &clients, begin);
        let open = open.map(join).transpose()?;
        let at_first_attempt = knocked?;
        stop.store(true, Relaxed);
        let offered = generator.map(join).transpose()?.map_or(0.0, |sent| sent.rate() / 1e6);
        Ok(FloodResult {
            listener: name,
            flood,
            offered,
            clients: CLIENTS,
            admitted: listener.heard(&addresses)?,
            at_first_attempt,
            memory_before,
            memory_after: listener.resident()?.map(mib),
            open,
        })
    })
}

/// A knocking client.
struct Client {
    address: Ipv4Addr,
    /// Time of the first step, from the start of the flood.
    begin: Duration,
    /// Time between the two steps.
    pause: Duration,
}

impl Client {
    fn new(number: u32, length: Duration) -> Client {
        let between = length.saturating_sub(SETTLED) / CLIENTS;
        // 37 and 100 have no common factor: each pause occurs once, and neighbours differ.
        let pause = PAUSES.start + number * 37 % CLIENTS * (PAUSES.end - PAUSES.start) / CLIENTS;
        Client {
            address: Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 1).to_bits() + number),
            begin: SETTLED + between * number,
            pause: Duration::from_millis(pause.into()),
        }
    }
}

/// Sends the knocks of all clients at their times, then repeats those of clients that were not admitted. Returns the number
/// of clients that were admitted at the first attempt.
fn knock(namespace: &Namespace, listener: &Listener<'_>, clients: &[Client], begin: Instant) -> Result<u32> {
    let mut steps: Vec<(Duration, usize, u16)> = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        steps.extend([(client.begin, number, 1234), (client.begin + client.pause, number, 4321)]);
    }
    steps.sort();
    let server: Ipv4Addr = SERVER.parse()?;
    let ends = |client: &Client| (client.address, server);
    let send_all = || steps.iter().try_for_each(|(at, number, port)| step(ends(&clients[*number]), *port, begin + *at));
    outside(namespace, send_all)?;
    let address = |client: &Client| client.address.to_string();
    let all: Vec<String> = clients.iter().map(address).collect();
    listener.heard_all(&all)?;
    let at_first_attempt = listener.heard(&all)?;
    let until = Instant::now() + AGAIN / 2;
    while Instant::now() + TRY_AGAIN < until {
        let mut left = Vec::new();
        for client in clients {
            if listener.heard(&[address(client)])? == 0 {
                left.push(client);
            }
        }
        if left.is_empty() {
            break;
        }
        outside(namespace, || {
            let now = Instant::now();
            left.iter().try_for_each(|client| step(ends(client), 1234, now))?;
            left.iter().try_for_each(|client| step(ends(client), 4321, now + client.pause))
        })?;
        thread::sleep(TRY_AGAIN / 2);
    }
    Ok(at_first_attempt)
}

/// Runs `send` in the namespace, on the generator's core, in a thread of its own: the caller's next listener must not
/// inherit the core.
fn outside(namespace: &Namespace, send: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        join(scope.spawn(|| {
            namespace.within(|| {
                go_outside()?;
                send()
            })
        }))
    })
}

/// Sends one SYN at this time.
pub(super) fn step((from, to): (Ipv4Addr, Ipv4Addr), port: u16, at: Instant) -> Result<()> {
    thread::sleep(at.saturating_duration_since(Instant::now()));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    // The server does not answer, so a non-blocking connection stays in progress.
    let _ = socket.connect(&SocketAddr::from((to, port)).into());
    Ok(())
}

/// Sends packets of an admitted source from one time until another.
fn open_connection(topology: &Topology, from: Instant, until: Instant) -> Result<OpenConnection> {
    let receiver = topology.server.within(|| Ok(UdpSocket::bind((SERVER, 9))?))?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let sender = topology.client.within(|| {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.connect((SERVER, 9))?;
        Ok(socket)
    })?;
    let clock = Instant::now();
    let sent = AtomicU64::new(0);
    let mut delays: Vec<f64> = Vec::new();
    thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            go_outside()?;
            thread::sleep(from.saturating_duration_since(Instant::now()));
            while Instant::now() < until {
                let now = clock.elapsed().as_nanos() as u64;
                if sender.send(&now.to_be_bytes()).is_ok() {
                    sent.fetch_add(1, Relaxed);
                }
                thread::sleep(BETWEEN);
            }
            Ok(())
        });
        let mut time = [0; 8];
        while Instant::now() < until + Duration::from_millis(200) {
            if receiver.recv(&mut time).is_ok() {
                let delay = (clock.elapsed().as_nanos() as u64).saturating_sub(u64::from_be_bytes(time));
                delays.push(delay as f64 / 1e3);
            }
        }
        join(sending)
    })?;
    let arrived = delays.len() as f64 / (sent.load(Relaxed) as f64).max(1.0);
    Ok(OpenConnection { p50: quantile(&delays, 0.5), p90: quantile(&delays, 0.9), arrived })
}
