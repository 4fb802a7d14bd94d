//! This project's two processes, as installed, with one worker.

use anyhow::{Result, ensure};
use knockplane_tests::{Filter, FilterOptions};

use super::candidate::{Candidate, Losses};
use super::lab::{CANDIDATE_CORE, Lab};
use super::rules::{CLIENT, LoadRules};

pub(super) struct Knockplane<'lab>(pub(super) Filter<'lab>);

impl<'lab> Knockplane<'lab> {
    pub(super) fn start(lab: &'lab Lab, rules: &LoadRules) -> Result<Self> {
        let filter = start(lab, rules, &rules.routeros(), String::new())?;
        let listed = filter.knockctl(&["list", "add", "secured", &CLIENT.to_string()])?;
        ensure!(listed.ok(), "knockctl: {}", listed.stderr);
        Ok(Knockplane(filter))
    }

    /// With a door alone. No source may pass without a knock.
    pub(super) fn start_with_door(lab: &'lab Lab, rules: &LoadRules) -> Result<Self> {
        Ok(Knockplane(start(lab, rules, "", rules.door())?))
    }
}

fn start<'lab>(lab: &'lab Lab, rules: &LoadRules, text: &str, sections: String) -> Result<Filter<'lab>> {
    let options = FilterOptions {
        // One pool holds the entries of both lists.
        list_capacity: 2 * rules.capacity,
        dataplane: format!("cores = [{CANDIDATE_CORE}]\n"),
        sections,
        ..FilterOptions::from_rules(text)
    };
    Filter::start(&lab.topology, &options)
}

impl Candidate for Knockplane<'_> {
    fn losses(&self) -> Result<Losses> {
        let text = self.0.http("/metrics")?;
        let mut losses = Losses::new();
        for line in text.lines() {
            let is_lost = line.starts_with("knockplane_ring_drops_total{")
                || line.starts_with("knockplane_unbound_queue_drops_total{")
                || line.starts_with("knockplane_packets_total{") && line.contains("reason=\"tx-full\"");
            let Some((labels, value)) = line.rsplit_once(' ').filter(|_| is_lost) else { continue };
            let name = labels.split_once("reason=\"").and_then(|(_, rest)| rest.split_once('"'));
            let name = name.map_or("unbound-queue", |(name, _)| name).to_owned();
            *losses.entry(name).or_default() += value.parse::<f64>()? as u64;
        }
        ensure!(losses.len() >= 5, "the counters of losses are missing from /metrics");
        Ok(losses)
    }
}
