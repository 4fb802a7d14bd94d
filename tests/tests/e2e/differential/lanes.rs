//! The filter and nftables, each between its own client and server, with the frames at both ends.
//!
//! ```text
//!   socket ═ eth0 ══ outside ▓ the filter ▓ inside ══ eth0 ═ socket
//!   socket ═ eth0 ══ outside ─┬ a bridge ┬─ inside ══ eth0 ═ socket
//!                             └ nftables ┘
//! ```
//! The bridge passes IP packets to the kernel's IP firewall (`bridge-nf-call-iptables`), which tracks connections as
//! for forwarded packets, and leaves the packets unchanged.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use knockplane_policy::packet::Side;
use knockplane_tests::Topology;

use super::bytes;
use crate::end::End;

/// Numbers of frames, and the side on which each was sent.
pub(super) type Arrived = HashSet<(Side, u32)>;

/// The two ends of a wire, by side.
pub(super) struct Lane([End; 2]);

impl Lane {
    pub(super) fn open(topology: &Topology) -> anyhow::Result<Lane> {
        Ok(Lane([End::open(&topology.client)?, End::open(&topology.server)?]))
    }

    /// Sends a frame from this side.
    pub(super) fn send(&self, from: Side, frame: &[u8]) -> anyhow::Result<()> {
        self.0[from.index()].send(frame)
    }

    /// Collects the numbers of all frames that arrived opposite of this side, up to this one, with the side on which
    /// they were sent: an answer that quotes a frame returns to its sender's side.
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

/// Creates a bridge in the topology's filter namespace, whose frames nftables' rules decide.
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
        // Sequence numbers are checked against windows.
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

/// Loads rules in place of all earlier ones.
pub(super) fn load(topology: &Topology, rules: &str, file: &std::path::Path) -> anyhow::Result<()> {
    std::fs::write(file, format!("flush ruleset\n{rules}"))?;
    let loaded = topology.filter.run(&format!("nft -f {}", file.display()))?;
    ensure!(loaded.ok(), "nft: {}\n{rules}", loaded.stderr);
    Ok(())
}
