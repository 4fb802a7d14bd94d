//! Resources of knockplane besides packets: time to start, idle CPU time, memory. As installed, with as many list entries as
//! the default configuration has, and rules that accept everything.

use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use knockplane_ring::Device;
use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology};

use super::defaults;
use super::lab::CANDIDATE_CORE;
use super::lab::GENERATOR_CORE;
use super::results::{Upkeep, quantile};
use crate::generator::{Generator, Profile, Spec};

/// Every packet passes, so that the first frame after the start shows that the filter forwards.
const RULES: &str = "/ip firewall filter\nadd action=accept chain=input\n";

/// The server's link address, so that no ARP request is needed.
const SERVER_MAC: &str = "02:00:00:00:00:06";

/// Destination port.
const PORT: u16 = 9;

/// Time between two frames, which limits the resolution of the start time.
const BETWEEN: Duration = Duration::from_micros(200);

/// Longest time of a start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time under load before the dataplane is idle, and time to become idle.
const BURST: Duration = Duration::from_secs(1);
const CALM: Duration = Duration::from_millis(500);

/// Measures the resources. A full measurement takes a quarter of a minute. `progress` receives the next step.
///
/// # Errors
/// Without root or two cores, or if the dataplane does not start, or does not forward.
pub fn measure(quick: bool, mut progress: impl FnMut(&str) -> Result<()>) -> Result<Upkeep> {
    let (starts, idle_time) = if quick { (3, Duration::from_secs(3)) } else { (5, Duration::from_secs(10)) };
    let topology = Topology::new(1)?;
    topology.server.ip(&format!("link set eth0 address {SERVER_MAC}"))?;
    topology.client.ip(&format!("neigh replace {SERVER} lladdr {SERVER_MAC} dev eth0 nud permanent"))?;
    let list_capacity = defaults::dataplane("list-capacity")?;

    progress("resident memory")?;
    // The difference to a filter without list entries is the memory of the entries.
    let bare_bytes = resident_bytes(&start(&topology, 1)?)?;
    let mut filter = start(&topology, list_capacity)?;
    let resident_bytes = resident_bytes(&filter)?;

    progress("idle processor")?;
    burst(&topology)?;
    thread::sleep(CALM);
    let (since, before) = (Instant::now(), filter.dataplane.on_core()?);
    thread::sleep(idle_time);
    let on_core = filter.dataplane.on_core()?.saturating_sub(before);
    let idle = on_core.as_secs_f64() / since.elapsed().as_secs_f64();

    progress("time to start")?;
    let starts: Vec<f64> = (0..starts).map(|_| first_frame(&topology, &mut filter)).collect::<Result<_>>()?;
    Ok(Upkeep {
        start_seconds: quantile(&starts, 0.5),
        idle,
        resident_bytes,
        table_bytes: resident_bytes.saturating_sub(bare_bytes),
    })
}

fn start(topology: &Topology, list_capacity: usize) -> Result<Filter<'_>> {
    let options = FilterOptions {
        list_capacity,
        dataplane: format!("cores = [{CANDIDATE_CORE}]\n"),
        ..FilterOptions::from_rules(RULES)
    };
    Filter::start(topology, &options)
}

/// Physical memory of the dataplane. It includes the frames of its rings, which the kernel pins, but which are pages of the
/// process.
fn resident_bytes(filter: &Filter<'_>) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", filter.dataplane.id()))?;
    resident_in(&text).with_context(|| format!("no resident memory in {text}"))
}

/// The field `VmRSS` of proc_pid_status(5), in bytes.
fn resident_in(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

/// A load that wakes the dataplane up.
fn burst(topology: &Topology) -> Result<()> {
    let spec = Spec { duration: BURST, ..Spec::new(Profile::Flow) };
    topology.client.within(|| {
        core_affinity::set_for_current(core_affinity::CoreId { id: GENERATOR_CORE });
        Generator::new(&Device::open("eth0")?, &spec)?.run(&AtomicBool::new(false))?;
        Ok(())
    })
}

/// Seconds from the start of the dataplane's process to the first frame that the server received.
fn first_frame(topology: &Topology, filter: &mut Filter<'_>) -> Result<f64> {
    filter.dataplane.kill()?;
    // Frames in flight have arrived before the socket is bound.
    thread::sleep(CALM);
    let server = topology.server.within(|| Ok(UdpSocket::bind((SERVER, PORT))?))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let client = topology.client.within(|| Ok(UdpSocket::bind((CLIENT, 0))?))?;
    client.connect((SERVER, PORT))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // The server has no socket at first, which is not an error of the sender.
                let _ = client.send(b"first");
                thread::sleep(BETWEEN);
            }
        });
        let received = scope.spawn(|| {
            let received = server.recv(&mut [0; 64]).context("no frame was forwarded");
            stop.store(true, Relaxed);
            received.map(|_| Instant::now())
        });
        let started = Instant::now();
        let ready = filter.restart_dataplane();
        let received = received.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ready?;
        Ok((received - started).as_secs_f64())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_configuration_says_how_many_entries_there_are() {
        assert!(defaults::dataplane::<usize>("list-capacity").expect("a number") > 1);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_in("VmHWM:\t     900 kB\nVmRSS:\t     848 kB\nRssAnon:\t 90 kB\n"), Some(848 * 1024));
        assert_eq!(resident_in("VmSize: 1 kB\n"), None);
    }
}
