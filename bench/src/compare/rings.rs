//! Measures the cost and the gain of larger AF_XDP rings.
//!
//! A larger ring has room for a longer burst: TCP senders whose windows together exceed the ring lose frames while the
//! worker does not run. A smaller ring reuses frames that are still in the processor's cache. The measurement covers
//! both effects with each size, in turns: retransmissions of parallel TCP streams (iperf3), and the rate of the
//! smallest frames at full load.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::{CLIENT, Filter, FilterOptions, Process, SERVER, binary, run};

use super::iperf::{Direction, IperfServer};
use super::lab::{CANDIDATE_CORE, GENERATOR_CORE, Lab, traffic};
use super::results::{Arrangement, quantile};
use crate::report::ResultTable;

/// Time of one measurement.
const SECONDS: u64 = 5;

/// Time of the generator before and after the counted part.
const MARGIN: Duration = Duration::from_secs(1);

/// Number of parallel TCP streams.
const STREAMS: u32 = 8;

/// Results with one size.
#[derive(Debug)]
pub struct SizeResult {
    /// Descriptors in each ring.
    pub ring_size: u32,
    /// Frames of 60 bytes forwarded in a second, of each round.
    pub rates: Vec<f64>,
    /// TCP throughput in received bits a second, of each round.
    pub throughputs: Vec<f64>,
    /// Retransmitted TCP segments, of each round.
    pub retransmissions: Vec<f64>,
}

/// A row for each size, with the processor's caches in a note, because the result depends on them.
pub fn table(measured: &[SizeResult]) -> ResultTable {
    let columns = ["ring size", "forwarded, Mpps (least–most)", "TCP, Gbit/s", "retransmitted (least–most)"];
    let rows = measured.iter().map(|result| {
        let at = |values: &[f64], scale: f64| [0.5, 0.0, 1.0].map(|part| quantile(values, part) / scale);
        let [rate, slowest, fastest] = at(&result.rates, 1e6);
        let [throughput, ..] = at(&result.throughputs, 1e9);
        let [sent_again, least, most] = at(&result.retransmissions, 1.0);
        vec![
            result.ring_size.to_string(),
            format!("{rate:.3} ({slowest:.3}–{fastest:.3})"),
            format!("{throughput:.2}"),
            format!("{sent_again:.0} ({least:.0}–{most:.0})"),
        ]
    });
    let table = ResultTable::new("rings", "Size of the rings", &columns).with_rows(rows);
    ResultTable { notes: vec![caches()], ..table }
}

/// Measures each size in `rounds` rounds, with the sizes in turns.
///
/// # Errors
/// Without root or two cores, or if a process does not start.
pub fn measure(sizes: &[u32], rounds: u32) -> Result<Vec<SizeResult>> {
    let mut measured: Vec<SizeResult> = sizes
        .iter()
        .map(|size| SizeResult { ring_size: *size, rates: vec![], throughputs: vec![], retransmissions: vec![] })
        .collect();
    for _ in 0..rounds {
        for result in &mut measured {
            let (rate, throughput, sent_again) =
                one_round(result.ring_size).with_context(|| format!("ring size {}", result.ring_size))?;
            result.rates.push(rate);
            result.throughputs.push(throughput);
            result.retransmissions.push(sent_again);
        }
    }
    Ok(measured)
}

/// Forwarded frames a second, TCP bits a second, and retransmitted segments.
fn one_round(ring_size: u32) -> Result<(f64, f64, f64)> {
    let lab = Lab::new(Arrangement::T)?;
    let options = FilterOptions {
        dataplane: format!("cores = [{CANDIDATE_CORE}]\nring-size = {ring_size}\n"),
        ..FilterOptions::from_rules(
            "/ip firewall filter\nadd action=accept chain=input\nadd action=accept chain=output\n",
        )
    };
    let filter = Filter::start(&lab.topology, &options)?;
    lab.pin()?;
    let tcp = IperfServer::start(&lab.topology)?.transfer(Direction::Upload, STREAMS, SECONDS)?;
    Ok((forwarded(&lab, &filter)?, tcp.bits_per_second, tcp.retransmissions))
}

fn forwarded(lab: &Lab, filter: &Filter<'_>) -> Result<f64> {
    let mut command = lab.topology.client.command(binary("knockplane-generate")?);
    let seconds = (SECONDS + 2 * MARGIN.as_secs()).to_string();
    command.args(["--profile", "flow", "--frame-bytes", "60", "--from", CLIENT, "--to", SERVER, "--seconds", &seconds]);
    command.args(["--core", &GENERATOR_CORE.to_string(), "eth0"]);
    let _generator = Process::start("knockplane-generate", &mut command, &filter.path("generate.log"))?;
    thread::sleep(MARGIN);
    let before = traffic(&lab.topology.server, "eth0")?.received;
    let begun = Instant::now();
    thread::sleep(Duration::from_secs(SECONDS));
    let frames = traffic(&lab.topology.server, "eth0")?.received - before;
    let rate = frames as f64 / begun.elapsed().as_secs_f64();
    ensure!(rate > 1_000.0, "nothing is forwarded: {}", filter.log());
    Ok(rate)
}

/// The sizes of the processor's caches.
fn caches() -> String {
    let sizes = run(Command::new("getconf").arg("-a")).map(|output| output.stdout).unwrap_or_default();
    let size = |name: &str| {
        let line = sizes.lines().find(|line| line.starts_with(name));
        let bytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} KiB", bytes / 1024))
    };
    let [l1, l2, l3] = ["LEVEL1_DCACHE_SIZE", "LEVEL2_CACHE_SIZE", "LEVEL3_CACHE_SIZE"].map(size);
    format!("Caches: L1d {l1}, L2 {l2}, L3 {l3}")
}
