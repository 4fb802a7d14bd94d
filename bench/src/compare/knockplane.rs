//! This project's two processes, as installed, with one worker.

use anyhow::{Result, ensure};
use knockplane_tests::{Filter, FilterOptions};

use super::candidate::{Candidate, Losses};
use super::lab::{CANDIDATE_CORE, Lab};
use super::rules::{CLIENT, LoadRules};

pub(super) struct Knockplane<'lab>(pub(super) Filter<'lab>);

impl<'lab> Knockplane<'lab> {
    pub(super) fn start(lab: &'lab Lab, rules: &LoadRules, has_fast_path: bool) -> Result<Self> {
        let filter = start(lab, rules, &rules.routeros(), String::new(), has_fast_path)?;
        let listed = filter.knockctl(&["list", "add", "secured", &CLIENT.to_string()])?;
        ensure!(listed.ok(), "knockctl: {}", listed.stderr);
        Ok(Knockplane(filter))
    }

    /// With a door alone. No source may pass without a knock.
    pub(super) fn start_with_door(lab: &'lab Lab, rules: &LoadRules, has_fast_path: bool) -> Result<Self> {
        Ok(Knockplane(start(lab, rules, "", rules.door(), has_fast_path)?))
    }
}

/// The largest number of flows for which the fast path has room: 192 MiB for each million.
const MAX_FLOWS: usize = 1 << 21;

fn start<'lab>(
    lab: &'lab Lab,
    rules: &LoadRules,
    text: &str,
    sections: String,
    has_fast_path: bool,
) -> Result<Filter<'lab>> {
    let fast_path = if has_fast_path {
        // As for the XDP programs of the comparison: frames redirected into a veth interface leave its other end by NAPI.
        lab.topology.allow_redirects()?;
        format!("fast-path-flows = {}\n", (2 * rules.capacity).clamp(1 << 17, MAX_FLOWS))
    } else {
        "fast-path = \"off\"\n".to_owned()
    };
    let options = FilterOptions {
        // One pool holds the entries of both lists.
        list_capacity: 2 * rules.capacity,
        dataplane: format!("cores = [{CANDIDATE_CORE}]\n{fast_path}"),
        sections,
        ..FilterOptions::from_rules(text)
    };
    Filter::start(&lab.topology, &options)
}

/// Frames that the kernel forwarded and the interface of the other side did not take.
const FAST_PATH_LOST: &str = "knockplane_fast_path_lost_frames_total{";

impl Candidate for Knockplane<'_> {
    fn losses(&self) -> Result<Losses> {
        let text = self.0.http("/metrics")?;
        let mut losses = Losses::new();
        for line in text.lines() {
            let is_lost = line.starts_with("knockplane_ring_drops_total{")
                || line.starts_with("knockplane_unbound_queue_drops_total{")
                || line.starts_with(FAST_PATH_LOST)
                || line.starts_with("knockplane_packets_total{") && line.contains("reason=\"tx-full\"");
            let Some((labels, value)) = line.rsplit_once(' ').filter(|_| is_lost) else { continue };
            let name = labels.split_once("reason=\"").and_then(|(_, rest)| rest.split_once('"'));
            let other = if line.starts_with(FAST_PATH_LOST) { "redirect-full" } else { "unbound-queue" };
            let name = name.map_or(other, |(name, _)| name).to_owned();
            *losses.entry(name).or_default() += value.parse::<f64>()? as u64;
        }
        ensure!(losses.len() >= 5, "the counters of losses are missing from /metrics");
        Ok(losses)
    }
}
