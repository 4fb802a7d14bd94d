//! Measures whether a real knock opens the door during a flood of first knocks.
//!
//! Each first knock of the flood comes from a different source, which sends no second knock. The flood shares an
//! interface with the real knocks of the client `knock` (Debian's package knockd). A listener that stores every source
//! fills its memory, or becomes slow. The outside (flood and clients) has one core and the listener has the other,
//! except that nftables works on the core where frames arrive. Before the first real knock, the flood runs for the
//! timeout of a first knock, or until it had more sources than any listener stores.

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

/// Sources of first knocks: more addresses than a flood needs.
pub(super) const FLOOD: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8));

/// Sources of real knocks, each from the next address.
pub(super) const KNOCKERS: &str = "198.18.1.0/24";

/// Number of sources that fills the memory of every listener.
const FULL: u64 = 80_000;

/// Minimum duration of a flood before the first real knock.
const SETTLED: Duration = Duration::from_secs(1);

/// Default size of a dynamic set of nftables, which recipes use.
const SET_SIZE: usize = 65_535;

/// Entries of both lists of knockplane together: half of what nftables has.
const LIST_CAPACITY: usize = SET_SIZE;

/// Time between two real knocks.
const BETWEEN: Duration = Duration::from_millis(100);

/// The listeners.
const LISTENERS: [&str; 3] = ["knockd", "nftables", "knockplane"];

/// Measures floods, in first knocks a second: full takes three minutes, quick forty seconds. If the generator does not reach
/// the rate of a flood, the results have the actual rate. `progress` is called for every flood.
///
/// # Errors
/// Without root, nftables or knockd; if a listener does not start, or does not hear a knock without a flood.
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
    // A listener that does not react to knocks without a flood must fail the measurement.
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

/// Moves this thread, and the processes that it starts, to the core of the outside.
pub(super) fn go_outside() -> Result<()> {
    let core = core_affinity::CoreId { id: GENERATOR_CORE };
    ensure!(core_affinity::set_for_current(core), "cannot run on core {GENERATOR_CORE}");
    Ok(())
}

/// Knocks from each of these addresses. Returns the number of successful knocks, and the part of a core that the
/// listener used.
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

/// Waits until a flood has reached its full effect.
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

/// Sends both knocks from this address.
fn knock(client: &Namespace, address: &str) -> Result<()> {
    // The client has no option for its source address.
    client.ip(&format!("route replace {SERVER} dev eth0 src {address}"))?;
    checked(client, &format!("knock {SERVER} 1234:tcp 4321:tcp"))
}

/// Floods until `stop` is set.
fn send(client: &Namespace, flood: u64, stop: &AtomicBool) -> Result<Summary> {
    let spec =
        Spec { rate: Some(flood), duration: Duration::from_secs(60), source: FLOOD, ..Spec::new(Profile::FirstKnocks) };
    client.within(|| {
        go_outside()?;
        Generator::new(&Device::open("eth0")?, &spec)?.run(stop)
    })
}
