//! Who gets in while a flood of forged first knocks fills what remembers them: a hundred people, each with a pause of
//! their own between the steps, all through the flood; and what it does to a connection that is open.
//!
//! What is sent by the kernel for those people goes through the same interface as the flood. Where more is offered than
//! fits, some of it is lost before anybody could decide about it; so whoever is not let in tries again after a second, as
//! people do, and how often they had to is told.

use std::fmt;
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

/// How many knock.
const PEOPLE: u32 = 100;

/// Room for entries: of all lists of knockplane together, and of each set of nftables. A second of the flood fills it.
const ROOM: usize = 1_000_000;

/// The pauses between the two steps, in milliseconds.
const PAUSES: std::ops::Range<u32> = 5..500;

/// When people begin, the flood has lasted for so long: everything that can be full is.
const SETTLED: Duration = Duration::from_secs(3);

/// Behind the last of them, for those who try again.
const AGAIN: Duration = Duration::from_secs(4);

/// From one try to the next.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// From one packet of the open connection to the next.
const BETWEEN: Duration = Duration::from_millis(2);

/// What came of one flood.
#[derive(Debug)]
pub struct Crowd {
    /// Who listened.
    pub listener: &'static str,
    /// What the flood was of.
    pub flood: &'static str,
    /// Its frames a second, in millions.
    pub offered: f64,
    /// How many knocked, and are in.
    pub people: u32,
    /// See `people`.
    pub within: u32,
    /// How many of them at the first try.
    pub at_once: u32,
    /// Resident memory in MiB, before and at the end, if it is a process.
    pub memory: Option<(f64, f64)>,
    /// The open connection's delay one way in microseconds, median and of the slowest tenth the quickest, and the part of
    /// its packets that arrived.
    pub open: Option<(f64, f64, f64)>,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Crowd { listener, flood, offered, people, within, at_once, .. } = self;
        write!(
            f,
            "{listener:<11} {flood:<14} {offered:>5.2} Mpps  in {within:>3} of {people:>3}, at once {at_once:>3}"
        )?;
        if let Some((before, after)) = self.memory {
            write!(f, "  memory {before:.1} then {after:.1} MiB")?;
        }
        if let Some((p50, p90, arrived)) = self.open {
            write!(f, "  open: p50 {p50:.0} us, p90 {p90:.0} us, {:.1} % arrived", 100.0 * arrived)?;
        }
        Ok(())
    }
}

/// A flood of first knocks at this rate (none: as fast as it goes) for `length`, then one of as many packets that nobody
/// remembers: each in front of nftables and of knockplane. Tells of each as it is done.
///
/// # Errors
/// Without root or nftables, or if a listener does not start.
pub fn measure(rate: Option<u64>, length: Duration, mut told: impl FnMut(&Crowd)) -> Result<()> {
    for (flood, profile) in [("first knocks", Profile::FirstKnocks), ("closed port", Profile::SourcesSequential)] {
        for listener in ["nftables", "knockplane"] {
            told(&under_flood(listener, flood, profile, rate, length).with_context(|| listener)?);
        }
    }
    Ok(())
}

fn under_flood(
    name: &'static str,
    flood: &'static str,
    profile: Profile,
    rate: Option<u64>,
    length: Duration,
) -> Result<Crowd> {
    let lab = Lab::new(Arrangement::S)?;
    let listener = Listener::start(name, &lab, ROOM, ROOM)?;
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
    let people: Vec<Person> = (0..PEOPLE).map(|number| Person::new(number, length)).collect();
    let addresses: Vec<String> = people.iter().map(|person| person.address.to_string()).collect();
    let before = listener.resident()?;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let spec = Spec { rate, duration: length + AGAIN, source: FLOOD, ..Spec::new(profile) };
    thread::scope(|scope| {
        let generator = scope.spawn(|| {
            client.within(|| {
                go_outside()?;
                Generator::new(&Device::open("eth0")?, &spec)?.run(&stop)
            })
        });
        let open = is_wire.then(|| scope.spawn(|| open_connection(&lab.topology, begin + SETTLED, begin + length)));
        let knocked = knock(client, &listener, &people, begin);
        let open = open.map(join).transpose()?;
        let at_once = knocked?;
        stop.store(true, Relaxed);
        let offered = join(generator)?.rate() / 1e6;
        let within = listener.heard(&addresses)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let memory = before.zip(listener.resident()?).map(|(before, after)| (mib(before), mib(after)));
        Ok(Crowd { listener: name, flood, offered, people: PEOPLE, within, at_once, memory, open })
    })
}

/// Somebody who knocks: from where, when, and with what pause.
struct Person {
    address: Ipv4Addr,
    begin: Duration,
    pause: Duration,
}

impl Person {
    fn new(number: u32, length: Duration) -> Person {
        let between = length.saturating_sub(SETTLED) / PEOPLE;
        // Spread over all pauses, in no order.
        let pause = PAUSES.start + number * 37 % PEOPLE * (PAUSES.end - PAUSES.start) / PEOPLE;
        Person {
            address: Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 1).to_bits() + number),
            begin: SETTLED + between * number,
            pause: Duration::from_millis(pause.into()),
        }
    }
}

/// All of them knock, each in their time, and those who are not let in once more. How many needed only one try.
fn knock(client: &Namespace, listener: &Listener<'_>, people: &[Person], begin: Instant) -> Result<u32> {
    let mut steps: Vec<(Duration, usize, u16)> = Vec::new();
    for (number, person) in people.iter().enumerate() {
        steps.extend([(person.begin, number, 1234), (person.begin + person.pause, number, 4321)]);
    }
    steps.sort();
    client.within(|| steps.iter().try_for_each(|(at, number, port)| step(&people[*number], *port, begin + *at)))?;
    let address = |person: &Person| person.address.to_string();
    let all: Vec<String> = people.iter().map(address).collect();
    listener.heard_all(&all)?;
    let at_once = listener.heard(&all)?;
    let until = Instant::now() + AGAIN / 2;
    while Instant::now() + TRY_AGAIN < until {
        let mut left = Vec::new();
        for person in people {
            if listener.heard(&[address(person)])? == 0 {
                left.push(person);
            }
        }
        if left.is_empty() {
            break;
        }
        client.within(|| {
            let now = Instant::now();
            let first = left.iter().try_for_each(|person| step(person, 1234, now));
            first.and_then(|()| left.iter().try_for_each(|person| step(person, 4321, now + person.pause)))
        })?;
        thread::sleep(TRY_AGAIN / 2);
    }
    Ok(at_once)
}

/// One SYN, at its time.
fn step(person: &Person, port: u16, at: Instant) -> Result<()> {
    thread::sleep(at.saturating_duration_since(Instant::now()));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((person.address, 0)).into())?;
    let server: Ipv4Addr = SERVER.parse()?;
    // Nobody answers: that it is under way is all that can be.
    let _ = socket.connect(&SocketAddr::from((server, port)).into());
    Ok(())
}

/// Packets of a source that is in, from this time until then: median, ninth decile, and the part that arrived.
fn open_connection(topology: &Topology, from: Instant, until: Instant) -> Result<(f64, f64, f64)> {
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
        scope.spawn(|| {
            thread::sleep(from.saturating_duration_since(Instant::now()));
            while Instant::now() < until {
                let now = clock.elapsed().as_nanos() as u64;
                if sender.send(&now.to_be_bytes()).is_ok() {
                    sent.fetch_add(1, Relaxed);
                }
                thread::sleep(BETWEEN);
            }
        });
        let mut time = [0; 8];
        while Instant::now() < until + Duration::from_millis(200) {
            if receiver.recv(&mut time).is_ok() {
                let delay = (clock.elapsed().as_nanos() as u64).saturating_sub(u64::from_be_bytes(time));
                delays.push(delay as f64 / 1e3);
            }
        }
    });
    let arrived = delays.len() as f64 / (sent.load(Relaxed) as f64).max(1.0);
    Ok((quantile(&delays, 0.5), quantile(&delays, 0.9), arrived))
}
