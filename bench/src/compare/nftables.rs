//! nftables with the same rules, on a router or a bridge.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::Namespace;

use super::candidate::{Candidate, CandidateKind, Losses};
use super::lab::{CANDIDATE_CORE, Lab, checked};
use super::rules::{CLIENT, LoadRules};

/// Source and destination of frames, as in the generator's defaults.
const SOURCES: &str = "198.18.0.0/16";
const DESTINATION: &str = "198.19.0.1";

/// The destination link address of the generator, and an address of no host.
pub(super) const GATEWAY_MAC: &str = "02:00:00:00:00:01";
const UNUSED_MAC: &str = "02:00:00:00:00:03";

/// The link address of the inside interface, to which answers go.
pub(super) const INSIDE_MAC: &str = "02:00:00:00:00:04";

pub(super) struct Nftables<'lab> {
    kind: CandidateKind,
    pub(super) lab: &'lab Lab,
}

impl<'lab> Nftables<'lab> {
    pub(super) fn start(kind: CandidateKind, lab: &'lab Lab, rules: &LoadRules) -> Result<Self> {
        let filter = &lab.topology.filter;
        // Live frames enter a veth interface by NAPI, which GRO turns on.
        checked(filter, "ethtool -K outside gro on")?;
        let family = if kind == CandidateKind::NftablesBridge {
            bridge(filter)?;
            // The destination of the generator's frames.
            checked(filter, &format!("bridge fdb add {GATEWAY_MAC} dev inside master static"))?;
            "bridge"
        } else {
            route(filter)?;
            "ip"
        };
        if kind == CandidateKind::NftablesRps {
            let cores = format!("echo {:x} > /sys/class/net/outside/queues/rx-0/rps_cpus", 1 << CANDIDATE_CORE);
            let done = filter.command("sh").args(["-c", &cores]).status()?;
            ensure!(done.success(), "the kernel has no receive packet steering");
        }
        let element = format!("add element {family} knock secured {{ {CLIENT} }}\n");
        load(filter, &(rules.nftables(family) + &element))?;
        Ok(Nftables { kind, lab })
    }
}

/// Loads rules, as text of nftables.
pub(super) fn load(filter: &Namespace, rules: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("{}.nft", filter.name()));
    fs::write(&file, rules)?;
    let loaded = checked(filter, &format!("nft -f {}", file.display()));
    fs::remove_file(&file)?;
    loaded
}

/// A router between the two interfaces. It forwards to a link address of no host, so that the server drops early.
fn route(filter: &Namespace) -> Result<()> {
    for command in [
        &format!("link set outside address {GATEWAY_MAC}"),
        &format!("link set inside address {INSIDE_MAC}"),
        "addr add 192.0.2.1/30 dev outside",
        "addr add 192.0.2.5/30 dev inside",
        &format!("neigh replace 192.0.2.2 lladdr {UNUSED_MAC} dev outside nud permanent"),
        &format!("neigh replace 192.0.2.6 lladdr {UNUSED_MAC} dev inside nud permanent"),
        &format!("route add {SOURCES} via 192.0.2.2"),
        "route add 10.0.0.0/8 via 192.0.2.2",
        &format!("route add {DESTINATION} via 192.0.2.6"),
    ] {
        filter.ip(command)?;
    }
    filter.set("net/ipv4/ip_forward", "1")
}

/// A bridge of the two interfaces.
pub(super) fn bridge(filter: &Namespace) -> Result<()> {
    for command in [
        "link add bridge0 type bridge mcast_snooping 0",
        "link set outside master bridge0",
        "link set inside master bridge0",
        "link set bridge0 up",
    ] {
        filter.ip(command)?;
    }
    Ok(())
}

impl Candidate for Nftables<'_> {
    fn losses(&self) -> Result<Losses> {
        let mut losses = Losses::new();
        // The drivers count lost frames: this counter is for the inside, and the server behind it has another one.
        let lost = self.lab.topology.filter.ip("-j -s link show dev inside")?;
        let lost: serde_json::Value = serde_json::from_str(&lost)?;
        let lost = lost[0]["stats64"]["tx"]["dropped"].as_u64().context("no such counter")?;
        losses.insert("inside-dropped".to_owned(), lost);
        if self.kind == CandidateKind::NftablesRps {
            // The server's side of the inside has such a queue too, so losses there are in both counters.
            losses.insert("backlog-full".to_owned(), backlog_drops()?.saturating_sub(lost));
        }
        Ok(losses)
    }
}

/// Packets that found the queue between two cores full, on the whole machine: the second column of softnet_stat, in
/// hexadecimal (Linux `net/core/net-procfs.c`).
fn backlog_drops() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat")?;
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().map(|line| dropped(line).context("a column of softnet_stat is missing")).sum()
}
