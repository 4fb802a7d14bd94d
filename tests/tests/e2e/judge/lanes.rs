//! The two judges, each between a client and a server of its own, and what goes in and comes out at both ends.
//!
//! ```text
//!   socket ═ eth0 ══ outside ▓ the filter ▓ inside ══ eth0 ═ socket
//!   socket ═ eth0 ══ outside ─┬ a bridge ┬─ inside ══ eth0 ═ socket
//!                             └ nftables ┘
//! ```
//! The bridge hands IP packets to the kernel's IP firewall (`bridge-nf-call-iptables`), which tracks connections as for
//! packets that it forwards, and leaves the packets as they are.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use knockplane_policy::packet::Side;
use knockplane_tests::Topology;

use super::bytes;
use crate::end::End;

/// Numbers of frames, and the side each came from.
pub(super) type Arrived = HashSet<(Side, u32)>;

/// The far ends of one wire, by the side they are on.
pub(super) struct Lane([End; 2]);

impl Lane {
    pub(super) fn open(topology: &Topology) -> anyhow::Result<Lane> {
        Ok(Lane([End::open(&topology.client)?, End::open(&topology.server)?]))
    }

    /// Sends a frame from this side.
    pub(super) fn send(&self, from: Side, frame: &[u8]) -> anyhow::Result<()> {
        self.0[from.index()].send(frame)
    }

    /// Notes the numbers of all frames that came out opposite of this side, up to this one.
    /// With the side they came from: what a rejection quotes comes back to where it was sent.
    pub(super) fn arrivals(&mut self, from: Side, last: u32, arrived: &mut Arrived) -> anyhow::Result<()> {
        let end = &mut self.0[from.opposite().index()];
        let mut frame = vec![0; 4096];
        while !arrived.contains(&(from, last)) {
            let frame = end.next(&mut frame).with_context(|| format!("the end mark {last} did not arrive"))?;
            arrived.extend(bytes::numbers(frame).map(|number| (from, number)));
        }
        Ok(())
    }
}

/// Makes a bridge of the topology's filter, which nftables' rules then decide about.
pub(super) fn bridge(topology: &Topology) -> anyhow::Result<()> {
    let filter = &topology.filter;
    filter.ip("link add name bridge0 type bridge mcast_snooping 0")?;
    for interface in ["outside", "inside"] {
        filter.ip(&format!("link set {interface} master bridge0"))?;
    }
    filter.ip("link set bridge0 up")?;
    for (setting, value) in [
        ("bridge/bridge-nf-call-iptables", "1"),
        ("bridge/bridge-nf-call-ip6tables", "1"),
        // Sequence numbers are held against windows.
        ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
        ("netfilter/nf_conntrack_tcp_ignore_invalid_rst", "0"),
        ("netfilter/nf_conntrack_tcp_loose", "1"),
        ("netfilter/nf_conntrack_acct", "1"),
    ] {
        let remedy = "the kernel has no such setting: modprobe -a br_netfilter nf_conntrack";
        filter.set(&format!("net/{setting}"), value).context(remedy)?;
    }
    Ok(())
}

/// Loads rules in place of all there were.
pub(super) fn load(topology: &Topology, rules: &str, file: &std::path::Path) -> anyhow::Result<()> {
    std::fs::write(file, format!("flush ruleset\n{rules}"))?;
    let loaded = topology.filter.run(&format!("nft -f {}", file.display()))?;
    ensure!(loaded.ok(), "nft: {}\n{rules}", loaded.stderr);
    Ok(())
}
