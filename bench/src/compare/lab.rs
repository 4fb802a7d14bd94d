//! Client, filter and server for one candidate, and the assignment of cores.

use std::fs;

use anyhow::{Context as _, ensure};
use knockplane_tests::{Namespace, Topology};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::results::Arrangement;

/// The generator's core.
pub const GENERATOR_CORE: usize = 0;
/// The candidate's core; in [`Arrangement::S`] the kernel's receive side is on the generator's.
pub const CANDIDATE_CORE: usize = 1;

/// A topology in an arrangement of cores.
#[derive(Debug)]
pub struct Lab {
    /// The path of the frames: from the client through the filter to the server.
    pub topology: Topology,
    /// The assignment of cores.
    pub arrangement: Arrangement,
}

impl Lab {
    /// Creates namespaces and interfaces.
    ///
    /// # Errors
    /// Without root or two cores, or if a tool is missing.
    pub fn new(arrangement: Arrangement) -> anyhow::Result<Self> {
        let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
        ensure!(cores > CANDIDATE_CORE, "the comparison needs two cores; this process may use {cores}");
        let topology = Topology::new(1)?;
        if arrangement == Arrangement::T {
            for interface in ["outside", "inside"] {
                // GRO makes a veth interface receive by NAPI, which can be threaded.
                checked(&topology.filter, &format!("ethtool -K {interface} gro on"))?;
                let thread = format!("echo 1 > /sys/class/net/{interface}/threaded");
                let threaded = topology.filter.command("sh").args(["-c", &thread]).status()?;
                ensure!(threaded.success(), "the kernel has no threaded NAPI (Linux 5.12 and newer have)");
            }
        }
        Ok(Lab { topology, arrangement })
    }

    /// Connects client and server directly by a pair of interfaces `eth1`, beside the path through the filter.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_wire(&self) -> anyhow::Result<()> {
        let Topology { client, server, .. } = &self.topology;
        client.ip(&format!("link add eth1 type veth peer eth1 netns {}", server.name()))?;
        client.ip("link set eth1 up")?;
        server.ip("link set eth1 up")?;
        Ok(())
    }

    /// Pins the threads of the filter's NAPI to the candidate's core. They start and end with programs on its interfaces,
    /// so this is repeated before each window.
    ///
    /// # Errors
    /// In [`Arrangement::T`], if there is no such thread.
    pub fn pin(&self) -> anyhow::Result<()> {
        if self.arrangement == Arrangement::S {
            return Ok(());
        }
        let mut core = CpuSet::new();
        core.set(CANDIDATE_CORE);
        let mut pinned = 0;
        for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            if name.starts_with("napi/outside-") || name.starts_with("napi/inside-") {
                // A thread of another lab may have ended meanwhile.
                pinned += usize::from(sched_setaffinity(Some(pid), &core).is_ok());
            }
        }
        ensure!(pinned > 0, "there is no NAPI thread of the filter's interfaces");
        Ok(())
    }
}

/// Runs a command line in the namespace, which must succeed.
pub(super) fn checked(namespace: &Namespace, line: &str) -> anyhow::Result<()> {
    let output = namespace.run(line)?;
    ensure!(output.ok(), "{line}: {}", output.stderr);
    Ok(())
}

/// Received, sent and unsent frames of an interface of the namespace, by the counters of its driver.
pub(super) fn traffic(namespace: &Namespace, interface: &str) -> anyhow::Result<InterfaceCounters> {
    // /sys would show the namespace in which it was mounted.
    let text = namespace.within(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let counters = text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == interface);
    let (_, counters) = counters.with_context(|| format!("{} has no interface {interface}", namespace.name()))?;
    // Eight counters of received data, then sent bytes, packets, errors and drops: proc_net(5).
    let counters: Vec<u64> = counters.split_whitespace().filter_map(|counter| counter.parse().ok()).collect();
    let at = |index: usize| counters.get(index).copied().context("a counter of /proc/net/dev is missing");
    Ok(InterfaceCounters { received: at(1)?, sent: at(9)?, unsent: at(11)? })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterfaceCounters {
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Frames that the far end did not take.
    pub(super) unsent: u64,
}
