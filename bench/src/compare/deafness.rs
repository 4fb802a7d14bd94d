//! Whether a real knock is heard while others begin to knock.
//!
//! A flood of first knocks, each from another source that never knocks on, comes in by the same interface as real
//! knocks, by the client `knock` of Debian's package knockd. What remembers every source that began fills up, or slows
//! down. Outside, which is the flood and the clients, is one core, and what listens has the other, as far as the kernel
//! lets it: nftables works where frames come in. Each listener has time to do so before the first real knock: as long as sources are remembered, or until there
//! were more of them than any listener remembers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net};
use knockplane_ring::Device;
use knockplane_tests::Namespace;

use super::lab::{GENERATOR_CORE, Lab, checked, traffic};
use super::listener::{Listener, REMEMBERED, SERVER};
use super::nftables::GATEWAY_MAC;
use super::results::{Arrangement, Deafness};
use crate::generator::{Generator, Profile, Spec, Summary};

/// Where first knocks come from: more addresses than a flood takes.
pub(super) const FLOOD: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8));

/// Where real knocks come from, each from the next address.
pub(super) const KNOCKERS: &str = "198.18.1.0/24";

/// Sources that every listener's memory is full of.
const FULL: u64 = 80_000;

/// Even a fast flood has lasted for so long before anyone knocks.
const SETTLED: Duration = Duration::from_secs(1);

/// A dynamic set of nftables has this size if its rules do not say another one, and recipes do not.
const SET_SIZE: usize = 65_535;

/// Entries of both lists of knockplane together: half of what nftables has.
const LIST_CAPACITY: usize = SET_SIZE;

/// From one real knock to the next.
const BETWEEN: Duration = Duration::from_millis(100);

/// What listens.
const LISTENERS: [&str; 3] = ["knockd", "nftables", "knockplane"];

/// Floods, in first knocks a second: full takes three minutes, quick forty seconds. A flood that could not be made is
/// given in the results as it was in fact. Tells about every flood.
///
/// # Errors
/// Without root, nftables or knockd, if a listener does not start, or does not hear a knock in silence.
pub fn measure(quick: bool, mut progress: impl FnMut(&str) -> Result<()>) -> Result<Vec<Deafness>> {
    let (floods, knocks): (&[u64], u8) = match quick {
        true => (&[0, 20_000, 1_000_000], 6),
        false => (&[0, 2_000, 4_000, 8_000, 20_000, 100_000, 1_000_000], 12),
    };
    let mut results = Vec::new();
    for flood in floods {
        for listener in LISTENERS {
            let name = format!("{listener} at {flood} first knocks a second");
            progress(&name)?;
            results.push(under_flood(listener, *flood, knocks).context(name)?);
        }
    }
    Ok(results)
}

fn under_flood(name: &str, flood: u64, knocks: u8) -> Result<Deafness> {
    let lab = Lab::new(Arrangement::S)?;
    let listener = Listener::start(name, &lab, SET_SIZE, LIST_CAPACITY)?;
    let client = &lab.topology.client;
    client.ip(&format!("route add local {KNOCKERS} dev lo"))?;
    client.ip(&format!("neigh replace {SERVER} lladdr {GATEWAY_MAC} dev eth0 nud permanent"))?;
    // Otherwise a listener that never heard anything would pass for a deaf one.
    knock(client, &knocker(0))?;
    ensure!(listener.heard_all(&[knocker(0)])?, "it hears nothing in silence{}", listener.log());

    let knockers: Vec<String> = (1..=knocks).map(knocker).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let generator = (flood > 0).then(|| scope.spawn(|| send(client, flood, &stop)));
        let filled = if flood > 0 { fill(&lab) } else { Ok(()) };
        let listened = join(scope.spawn(|| listen(&listener, client, &knockers)));
        stop.store(true, Relaxed);
        let offered = generator.map(join).transpose()?.map_or(0.0, |sent| sent.rate());
        let (heard, cpu) = filled.and(listened)?;
        let flood = if offered > 0.9 * flood as f64 { flood as f64 } else { offered };
        Ok(Deafness { candidate: name.to_owned(), flood, knocks: knocks.into(), heard, cpu })
    })
}

pub(super) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Puts this thread, and what it starts, outside.
pub(super) fn go_outside() -> Result<()> {
    let core = core_affinity::CoreId { id: GENERATOR_CORE };
    ensure!(core_affinity::set_for_current(core), "cannot run on core {GENERATOR_CORE}");
    Ok(())
}

/// Knocks from each of these addresses. How many were heard, and the part of a core that this took the listener.
fn listen(listener: &Listener<'_>, client: &Namespace, knockers: &[String]) -> Result<(u32, Option<f64>)> {
    go_outside()?;
    let (since, before) = (Instant::now(), listener.on_core()?);
    for address in knockers {
        knock(client, address)?;
        thread::sleep(BETWEEN);
    }
    listener.heard_all(knockers)?;
    let (seconds, after) = (since.elapsed().as_secs_f64(), listener.on_core()?);
    let cpu = after.zip(before).map(|(after, before)| after.saturating_sub(before).as_secs_f64() / seconds);
    Ok((listener.heard(knockers)?, cpu))
}

fn knocker(number: u8) -> String {
    format!("198.18.1.{}", 1 + number)
}

/// Waits until a flood that has begun would change nothing any more.
fn fill(lab: &Lab) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed().as_secs() < REMEMBERED {
        thread::sleep(Duration::from_millis(100));
        let received = traffic(&lab.topology.filter, "outside")?.received;
        if received > FULL && begin.elapsed() > SETTLED {
            break;
        }
    }
    Ok(())
}

/// Both knocks, from this address.
fn knock(client: &Namespace, address: &str) -> Result<()> {
    // The client has no option for the address that it knocks from.
    client.ip(&format!("route replace {SERVER} dev eth0 src {address}"))?;
    checked(client, &format!("knock {SERVER} 1234:tcp 4321:tcp"))
}

/// Floods until told to stop.
fn send(client: &Namespace, flood: u64, stop: &AtomicBool) -> Result<Summary> {
    let spec =
        Spec { rate: Some(flood), duration: Duration::from_secs(60), source: FLOOD, ..Spec::new(Profile::FirstKnocks) };
    client.within(|| {
        go_outside()?;
        Generator::new(&Device::open("eth0")?, &spec)?.run(stop)
    })
}
