//! Measures the throughput of TCP connections through a door, with and without the kernel's fast path, and through a
//! Linux bridge whose nftables rules accept the same connections, by address or by state.
//!
//! Each candidate has its own lab, in [`Arrangement::S`], and stays in it during all rounds. In each round the
//! candidates take turns under each load. The offloads of all interfaces are the same for all candidates:
//! - The hosts compute checksums and make segments themselves (`tx`, `tso` and `gso` are off), so that no frame exceeds
//!   the MTU. They join received segments (`gro` is on), which also makes a veth interface take redirected frames.
//! - The filter's interfaces join no segments (`gro` is off), as knockplane requires.

use std::time::{Duration, Instant};
use std::{fmt, thread};

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::{CLIENT, Filter, Namespace, SERVER, Topology, binary, run};
use serde_json::Value;

use super::iperf::{Direction, IperfServer};
use super::knockplane::Knockplane;
use super::lab::{InterfaceCounters, Lab, checked, traffic};
use super::nftables;
use super::results::{Arrangement, quantile};
use super::rules::LoadRules;
use super::window::{core_uses, ticks};
use crate::report::{NONE, ResultTable};

/// The candidates in the order of their turns.
const CANDIDATES: [TcpCandidateKind; 4] = [
    TcpCandidateKind::Knockplane { has_fast_path: true },
    TcpCandidateKind::Knockplane { has_fast_path: false },
    TcpCandidateKind::Bridge { tracks: false },
    TcpCandidateKind::Bridge { tracks: true },
];

/// Indices of the candidates that the others are compared with.
const BY_ADDRESS: usize = 2;
const BY_STATE: usize = 3;

/// The loads in their order within a round.
const LOADS: [TcpLoad; 4] = [
    TcpLoad { direction: Direction::Upload, streams: 1 },
    TcpLoad { direction: Direction::Download, streams: 1 },
    TcpLoad { direction: Direction::Upload, streams: 8 },
    TcpLoad { direction: Direction::Download, streams: 8 },
];

/// Time of one measurement.
const SECONDS: u64 = 5;

/// The smallest part of the frames that the kernel carries if the fast path works. The rest are first packets
/// and those that a worker must track, such as acknowledgements of gaps (SACK).
const LEAST_CARRIED: f64 = 0.5;

/// Longest time until the fast path is ready: the dataplane examines the far ends of its interfaces once a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rules of the bridge's own family. They accept all packets of the admitted client, and all packets to it.
const RULES_BY_ADDRESS: &str = "chain forward {
type filter hook forward priority 0; policy drop;
ether type arp counter accept
ip saddr @secured counter accept
ip daddr @secured counter accept
}";

/// Rules for IP packets of the bridge. They accept connections that the admitted client begins, as the door does.
const RULES_BY_STATE: &str = "chain forward {
type filter hook forward priority 0; policy drop;
ct state established,related counter accept
ct state new ip saddr @secured counter accept
}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TcpCandidateKind {
    /// Both processes, with a door.
    Knockplane { has_fast_path: bool },
    /// A bridge with nftables.
    Bridge { tracks: bool },
}

impl fmt::Display for TcpCandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TcpCandidateKind::Knockplane { has_fast_path: true } => "knockplane",
            TcpCandidateKind::Knockplane { has_fast_path: false } => "knockplane-userspace",
            TcpCandidateKind::Bridge { tracks: false } => "nftables-bridge",
            TcpCandidateKind::Bridge { tracks: true } => "nftables-bridge-ct",
        })
    }
}

/// The streams of one measurement.
#[derive(Clone, Copy, Debug)]
struct TcpLoad {
    direction: Direction,
    streams: u32,
}

impl fmt::Display for TcpLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Upload => "upload",
            Direction::Download => "download",
        };
        write!(f, "{direction}, {} {}", self.streams, if self.streams == 1 { "stream" } else { "streams" })
    }
}

/// The measurements under one load.
#[derive(Debug)]
pub struct TcpResult {
    load: TcpLoad,
    /// One measurement for each candidate, in their order.
    rounds: Vec<Vec<Measured>>,
}

/// One measurement of one candidate.
#[derive(Debug)]
struct Measured {
    bits_per_second: f64,
    retransmissions: f64,
    /// Frames that the veth interfaces of the hosts could not pass on to the filter.
    unsent: f64,
    /// Number of cores that were busy, as the sum of their parts, with all processes of the machine.
    busy_cores: f64,
    /// The part of the frames that the kernel's fast path carried; `None` without knockplane.
    carried: Option<f64>,
}

/// A row for each candidate under each load. All values are medians of the rounds.
pub fn table(results: &[TcpResult]) -> ResultTable {
    let columns = [
        "load",
        "candidate",
        "Gbit/s (least–most)",
        "÷ nftables-bridge",
        "÷ nftables-bridge-ct",
        "retransmitted (least–most)",
        "lost before the filter",
        "busy cores",
        "Gbit/s for a busy core",
        "carried by the kernel",
    ];
    let rows = results.iter().flat_map(|TcpResult { load, rounds }| {
        CANDIDATES.iter().enumerate().map(move |(index, candidate)| {
            let values = |value: &dyn Fn(&[Measured]) -> f64| -> Vec<f64> {
                rounds.iter().map(|measured| value(measured)).collect()
            };
            let median = |value: &dyn Fn(&[Measured]) -> f64| quantile(&values(value), 0.5);
            let spread = |value: &dyn Fn(&[Measured]) -> f64, decimals: usize| {
                let [middle, least, most] = [0.5, 0.0, 1.0].map(|part| quantile(&values(value), part));
                format!("{middle:.decimals$} ({least:.decimals$}–{most:.decimals$})")
            };
            let gigabits = |measured: &[Measured]| measured[index].bits_per_second / 1e9;
            let ratio = |peer: usize| {
                format!("{:.2}", median(&|measured| measured[index].bits_per_second / measured[peer].bits_per_second))
            };
            let carried = rounds.iter().map(|measured| measured[index].carried).collect::<Option<Vec<f64>>>();
            vec![
                load.to_string(),
                candidate.to_string(),
                spread(&gigabits, 2),
                ratio(BY_ADDRESS),
                ratio(BY_STATE),
                spread(&|measured| measured[index].retransmissions, 0),
                format!("{:.0}", median(&|measured| measured[index].unsent)),
                format!("{:.2}", median(&|measured| measured[index].busy_cores)),
                format!("{:.2}", median(&|measured| gigabits(measured) / measured[index].busy_cores)),
                carried.map_or_else(|| NONE.to_owned(), |parts| format!("{:.1} %", 100.0 * quantile(&parts, 0.5))),
            ]
        })
    });
    ResultTable::new("tcp", "TCP through a door", &columns).with_rows(rows)
}

/// Measures all loads in `rounds` rounds, with the candidates in turns.
///
/// # Errors
/// Without root, two cores or iperf3, if a candidate does not start, or if the kernel does not carry the frames of the
/// candidate with the fast path.
pub fn measure(rounds: u32) -> Result<Vec<TcpResult>> {
    let labs = CANDIDATES.iter().map(|_| Lab::new(Arrangement::S)).collect::<Result<Vec<_>>>()?;
    let started = CANDIDATES.iter().zip(&labs);
    let candidates = started
        .map(|(kind, lab)| TcpCandidate::start(*kind, lab).with_context(|| kind.to_string()))
        .collect::<Result<Vec<_>>>()?;
    let mut results: Vec<TcpResult> = LOADS.iter().map(|load| TcpResult { load: *load, rounds: vec![] }).collect();
    for round in 1..=rounds {
        for result in &mut results {
            eprintln!("round {round} of {rounds}: {}", result.load);
            let measured = candidates.iter().map(|candidate| {
                let context = || format!("{}, {}", candidate.kind, result.load);
                candidate.measure(result.load).with_context(context)
            });
            result.rounds.push(measured.collect::<Result<Vec<_>>>()?);
        }
    }
    Ok(results)
}

/// A candidate between client and server. It ends when dropped.
struct TcpCandidate<'lab> {
    kind: TcpCandidateKind,
    topology: &'lab Topology,
    server: IperfServer<'lab>,
    /// The processes of knockplane; `None` for the bridge.
    filter: Option<Filter<'lab>>,
}

impl<'lab> TcpCandidate<'lab> {
    fn start(kind: TcpCandidateKind, lab: &'lab Lab) -> Result<Self> {
        let topology = &lab.topology;
        topology.allow_redirects()?;
        // With a queue, a full veth ring slows its sender down, as a NIC does (Linux 6.16 and newer). Otherwise frames
        // are lost there.
        for host in [&topology.client, &topology.server] {
            checked(host, "tc qdisc replace dev eth0 root pfifo limit 1000")?;
        }
        for interface in ["outside", "inside"] {
            checked(&topology.filter, &format!("ethtool -K {interface} gro off"))?;
        }
        let filter = match kind {
            TcpCandidateKind::Knockplane { has_fast_path } => {
                let Knockplane(filter) = Knockplane::start_with_door(lab, &LoadRules::default(), has_fast_path)?;
                if has_fast_path {
                    wait_for_fast_path(&filter)?;
                }
                Some(filter)
            }
            TcpCandidateKind::Bridge { tracks } => {
                start_bridge(&topology.filter, tracks)?;
                None
            }
        };
        Ok(TcpCandidate { kind, topology, server: IperfServer::start(topology)?, filter })
    }

    fn measure(&self, load: TcpLoad) -> Result<Measured> {
        if self.filter.is_some() {
            self.knock()?;
        }
        let (carried_before, frames_before, ticks_before) = (self.carried()?, self.frames()?, ticks()?);
        let transfer = self.server.transfer(load.direction, load.streams, SECONDS)?;
        let cores = core_uses(&ticks_before, &ticks()?);
        let frames = self.frames()?;
        let part = |carried: u64| carried as f64 / (frames.sent - frames_before.sent) as f64;
        let carried = self.carried()?.zip(carried_before).map(|(after, before)| part(after - before));
        self.check(carried)?;
        Ok(Measured {
            bits_per_second: transfer.bits_per_second,
            retransmissions: transfer.retransmissions,
            unsent: (frames.unsent - frames_before.unsent) as f64,
            busy_cores: cores.iter().map(|core| 1.0 - core.idle).sum(),
            carried,
        })
    }

    /// Opens the door for its time, which is longer than a measurement.
    fn knock(&self) -> Result<()> {
        let mut command = self.topology.client.command(binary("knocker")?);
        let output = run(command.args([SERVER, "1234:tcp", "4321:tcp"]))?;
        ensure!(output.ok(), "knocker: {}", output.stderr);
        Ok(())
    }

    /// The sums of the counters of both hosts.
    fn frames(&self) -> Result<InterfaceCounters> {
        let [client, server] = [traffic(&self.topology.client, "eth0")?, traffic(&self.topology.server, "eth0")?];
        Ok(InterfaceCounters {
            received: client.received + server.received,
            sent: client.sent + server.sent,
            unsent: client.unsent + server.unsent,
        })
    }

    /// Frames that the kernel's fast path has carried; `None` without knockplane.
    fn carried(&self) -> Result<Option<u64>> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let fast_path = fast_path(filter)?;
        let of = |side: &str| fast_path["carried"][side].as_u64().with_context(|| fast_path.to_string());
        Ok(Some(of("outside")? + of("inside")?))
    }

    /// Fails if frames did not take the way that is measured.
    fn check(&self, carried: Option<f64>) -> Result<()> {
        match carried {
            None => {
                let rules = self.topology.filter.run("nft list ruleset")?.stdout;
                ensure!(rules.contains("counter packets"), "the rules have no counters: {rules}");
                ensure!(!rules.contains("packets 0 "), "a rule has accepted no packet: {rules}");
            }
            Some(carried) if self.kind == (TcpCandidateKind::Knockplane { has_fast_path: true }) => {
                ensure!(carried > LEAST_CARRIED, "the kernel carried {:.1} % of the frames", 100.0 * carried);
            }
            Some(carried) => ensure!(carried == 0.0, "the kernel carried frames without the fast path"),
        }
        Ok(())
    }
}

/// Starts a bridge with rules that admit the client.
fn start_bridge(filter: &Namespace, tracks: bool) -> Result<()> {
    nftables::bridge(filter)?;
    // With this setting, IP packets of the bridge also pass the hooks of IP, and connections are tracked.
    let remedy = "the kernel has no such setting: modprobe -a br_netfilter nf_conntrack";
    filter.set("net/bridge/bridge-nf-call-iptables", if tracks { "1" } else { "0" }).context(remedy)?;
    let (family, rules) = if tracks { ("ip", RULES_BY_STATE) } else { ("bridge", RULES_BY_ADDRESS) };
    let secured = format!("set secured {{ type ipv4_addr; elements = {{ {CLIENT} }}; }}");
    nftables::load(filter, &format!("table {family} knock {{\n{secured}\n{rules}\n}}\n"))
}

/// Waits until the kernel can carry frames to both sides.
fn wait_for_fast_path(filter: &Filter<'_>) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let fast_path = fast_path(filter)?;
        if fast_path["on"] == true && fast_path["reason"].is_null() {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "the fast path is not ready: {fast_path}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn fast_path(filter: &Filter<'_>) -> Result<Value> {
    Ok(filter.ask(&["show", "status"])?["fast_path"].take())
}
