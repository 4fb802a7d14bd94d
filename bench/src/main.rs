//! How much the filter forwards, against the smallest possible AF_XDP forwarder, on the same veth pairs in the same
//! run.
//!
//! The machine's speed wanders from second to second, so the two take turns, in windows of a second, and medians and
//! the 90th percentiles of the windows are compared, never single figures.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use etherparse::PacketBuilder;
use knockplane_ring::{Device, LiveFrames};
use knockplane_tests::{CLIENT, Filter, FilterOptions, Process, SERVER, Topology, binary};

/// Forwarding, packets per second.
#[derive(Parser)]
#[command(name = "knockplane-bench")]
struct Arguments {
    /// Windows of a second for each candidate.
    #[arg(long, default_value_t = 16)]
    windows: usize,
    /// Bytes of each frame, without the checksum of Ethernet.
    #[arg(long, default_value_t = 60)]
    bytes: usize,
}

/// The generator's core, which is also where veth's receive side runs; and the candidate's.
const GENERATOR_CORE: usize = 0;
const CANDIDATE_CORE: usize = 1;

/// The kernel pauses for tens of milliseconds after each call; this many frames take about a second.
const FRAMES_A_CALL: u32 = 1 << 22;

const WARM_UP: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(1);

/// The rules of the two knocks, with a client that has knocked.
const RULES: &str = include_str!("../../configs/two-ports.rsc");

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let topology = Topology::new(1)?;
    let frame = frame(arguments.bytes)?;
    let mut ours = Vec::new();
    let mut smallest = Vec::new();
    for window in 0..arguments.windows {
        smallest.push(with_smallest(&topology, &frame)?);
        ours.push(with_filter(&topology, &frame)?);
        eprint!("\rwindow {} of {}", window + 1, arguments.windows);
    }
    eprintln!();
    println!("forwarding {} B frames, {} windows of {WINDOW:?}, Mpps", arguments.bytes, arguments.windows);
    println!("{:<22}{:>8}{:>8}{:>8}{:>8}", "", "p90", "median", "min", "max");
    row("smallest forwarder", &mut smallest);
    row("knockplane", &mut ours);
    println!("ratio of p90s {:.3}, of medians {:.3}", ours_to(&ours, &smallest, 0.9), ours_to(&ours, &smallest, 0.5));
    Ok(())
}

fn row(name: &str, rates: &mut [f64]) {
    rates.sort_by(f64::total_cmp);
    let at = |quantile| percentile(rates, quantile);
    println!("{name:<22}{:>8.3}{:>8.3}{:>8.3}{:>8.3}", at(0.9), at(0.5), at(0.0), at(1.0));
}

fn ours_to(ours: &[f64], smallest: &[f64], quantile: f64) -> f64 {
    percentile(ours, quantile) / percentile(smallest, quantile)
}

/// Of sorted values, the one at this part of the way.
fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
}

fn with_smallest(topology: &Topology, frame: &[u8]) -> anyhow::Result<f64> {
    let log = temporary("smallest.log", topology);
    let mut command = topology.filter.command(binary("smallest-forwarder")?);
    command.args(["outside", "inside", "--core", &CANDIDATE_CORE.to_string()]);
    let candidate = Process::start("smallest-forwarder", &mut command, &log)?;
    let ready = Instant::now() + Duration::from_secs(5);
    while !std::fs::read_to_string(&log)?.contains("ready") {
        ensure!(Instant::now() < ready, "the smallest forwarder is not ready: {}", std::fs::read_to_string(&log)?);
        thread::sleep(Duration::from_millis(5));
    }
    let rate = measure(topology, frame);
    drop(candidate);
    std::fs::remove_file(log)?;
    rate
}

fn with_filter(topology: &Topology, frame: &[u8]) -> anyhow::Result<f64> {
    let mut options = FilterOptions::from_rules(RULES);
    options.dataplane = format!("cores = [{CANDIDATE_CORE}]\n");
    let filter = Filter::start(topology, &options)?;
    let listed = filter.knockctl(&["list", "add", "secured", CLIENT])?;
    ensure!(listed.ok(), "knockctl: {}", listed.stderr);
    measure(topology, frame)
}

/// Packets per second that arrive at the server while the generator runs, in millions.
fn measure(topology: &Topology, frame: &[u8]) -> anyhow::Result<f64> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let generator = scope.spawn(|| {
            topology.client.within(|| {
                core_affinity::set_for_current(core_affinity::CoreId { id: GENERATOR_CORE });
                let frames = LiveFrames::new(&Device::open("eth0")?)?;
                while !stop.load(Relaxed) {
                    frames.send(frame, FRAMES_A_CALL)?;
                }
                Ok(())
            })
        });
        thread::sleep(WARM_UP);
        let (begin, before) = (Instant::now(), topology.server.traffic("eth0")?.1);
        thread::sleep(WINDOW);
        let (after, seconds) = (topology.server.traffic("eth0")?.1, begin.elapsed().as_secs_f64());
        stop.store(true, Relaxed);
        generator.join().expect("the generator does not panic")?;
        Ok((after - before) as f64 / seconds / 1e6)
    })
}

/// A UDP packet from client to server. Its link address is nobody's, so that the server drops it early.
fn frame(bytes: usize) -> anyhow::Result<Vec<u8>> {
    const HEADERS: usize = 14 + 20 + 8;
    let payload = bytes.checked_sub(HEADERS).with_context(|| format!("a frame has at least {HEADERS} bytes"))?;
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(CLIENT.parse::<std::net::Ipv4Addr>()?.octets(), SERVER.parse::<std::net::Ipv4Addr>()?.octets(), 64)
        .udp(1000, 9);
    let mut frame = Vec::new();
    builder.write(&mut frame, &vec![0; payload])?;
    Ok(frame)
}

fn temporary(name: &str, topology: &Topology) -> PathBuf {
    env::temp_dir().join(format!("{}-{name}", topology.filter.name()))
}
