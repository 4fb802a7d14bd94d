//! The explanation of a traced packet, with the rules of its generation.

use std::collections::{HashMap, HashSet};

use knockplane_policy::eval::recorded::Record;
use knockplane_policy::rule::{ConnectionState, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::trace::TracedFacts;
use knockplane_policy::wire::trace::TracedPacket;
use knockplane_policy::wire::{DataplaneStatus, RunningRules};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::http::Client;
use super::super::table::count;
use super::super::{Failed, decode, pretty};
use crate::bench::{Bench, Explained};
use crate::json::{Document, rfc_3339};
use crate::running::for_bench;

/// Maximum number of shown rules that did not match.
const MISSES: usize = 50;

/// The rules of the generations that packets were decided by. `None` for one that was replaced before it was read.
#[derive(Default)]
pub(super) struct RuleSets {
    known: HashMap<u64, Option<(RuleSet, Settings)>>,
}

/// Benches with the rules of some packets, by generation.
pub(super) struct Benches<'r>(HashMap<u64, Bench<'r>>);

/// A packet, its verdict and its way through the rules.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TracedJson {
    /// Counted from 1.
    number: u64,
    /// The time of its arrival.
    time: String,
    /// The length of its frame in bytes.
    length: usize,
    /// The generation of the rules that decided.
    generation: u64,
    /// The state of its connection; `null` before connection tracking.
    connection_state: Option<ConnectionState>,
    /// The lists of the source, before the packet.
    source_lists: Vec<String>,
    /// The lists of the destination, before the packet.
    destination_lists: Vec<String>,
    /// Number of rules that the packet met, that did not match, and that are not in `rules`.
    rules_omitted: usize,
    /// Number of rules whose outcome in the dataplane is another one than the facts beside it explain, because state changed
    /// meanwhile.
    rules_contradicted: usize,
    /// Why `rules` is empty, although rules decided; `null` otherwise.
    not_explained: Option<String>,
    /// Number of packets before this answer that fitted, but were over the rate.
    not_shown: u64,
    #[serde(flatten)]
    explained: Explained,
}

impl RuleSets {
    /// Requests the running rules, if those of this generation are not known.
    pub(super) async fn need(&mut self, client: &Client, generation: u64) -> Result<(), Failed> {
        if self.known.contains_key(&generation) {
            return Ok(());
        }
        let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
        let running: RunningRules = decode(&client.get("/api/v1/rules").await?)?;
        if status.generation == running.generation {
            let rules = for_bench(&running.rules);
            self.known.insert(running.generation, Some((rules, status.settings)));
        }
        self.known.entry(generation).or_insert(None);
        Ok(())
    }

    /// Examines the rules of these packets, once for each generation. Packets of unknown generations have no bench.
    pub(super) fn benches(&self, packets: &[TracedPacket]) -> Benches<'_> {
        let generations: HashSet<u64> = packets.iter().map(|packet| packet.generation).collect();
        let bench = |generation: u64| {
            let (rules, settings) = self.known.get(&generation)?.as_ref()?;
            Some((generation, Bench::new(rules, settings, Time::default())))
        };
        Benches(generations.into_iter().filter_map(bench).collect())
    }
}

impl Benches<'_> {
    /// Explains a packet.
    pub(super) fn explain(&self, packet: &TracedPacket, number: u64, not_shown: u64, all: bool) -> TracedJson {
        let (at, frame) = (Time::from_nanos(packet.at), packet.frame());
        let bench = self.0.get(&packet.generation);
        let explained = bench.zip(packet.facts.as_ref()).and_then(|(bench, facts)| {
            let record = Record {
                verdict: packet.verdict,
                reason: packet.reason,
                facts: facts.clone(),
                is_whole: packet.is_whole(),
            };
            bench.anew_at(at).explain_recorded(&frame, packet.side, &record)
        });
        let not_explained = match (&explained, &packet.facts) {
            (None, Some(_)) if bench.is_none() => {
                Some(format!("the rules of generation {} were replaced meanwhile", packet.generation))
            }
            (None, Some(_)) => Some("its headers are longer than the part of it that a trace has".to_owned()),
            _ => None,
        };
        let (mut explained, rules_contradicted) =
            explained.unwrap_or_else(|| (Explained::unseen(packet.side, packet.verdict, packet.reason), 0));
        let rules_omitted = if all { 0 } else { omit(&mut explained) };
        let TracedFacts { state, lists: [source_lists, destination_lists], .. } =
            packet.facts.clone().unwrap_or_default();
        TracedJson {
            number,
            time: rfc_3339(at),
            length: packet.length,
            generation: packet.generation,
            connection_state: state,
            source_lists,
            destination_lists,
            rules_omitted,
            rules_contradicted,
            not_explained,
            not_shown,
            explained,
        }
    }
}

/// Removes rules that did not match, except the last ones. Returns their number.
fn omit(explained: &mut Explained) -> usize {
    let misses = explained.rules.iter().filter(|trial| trial.outcome != "matched").count();
    let mut left = misses.saturating_sub(MISSES);
    if left == 0 {
        return 0;
    }
    let (omitted, decided_by) = (left, explained.decided_by);
    let mut kept = Vec::new();
    for (index, trial) in std::mem::take(&mut explained.rules).into_iter().enumerate() {
        if left > 0 && trial.outcome != "matched" {
            left -= 1;
            continue;
        }
        if decided_by == Some(index) {
            explained.decided_by = Some(kept.len());
        }
        kept.push(trial);
    }
    explained.rules = kept;
    omitted
}

impl TracedJson {
    /// The verdict, its reason and the rule that decided, in words.
    pub(super) fn conclusion(&self) -> String {
        self.explained.conclusion()
    }

    /// The packet as a block of text.
    pub(super) fn text(&self) -> String {
        let mut text = format!("packet {}, {}, {} bytes\n", self.number, self.time, self.length);
        if let Some(why) = &self.not_explained {
            text += &format!("no rules are shown: {why}\n");
        }
        if let Some(state) = self.connection_state.filter(|state| *state != ConnectionState::Untracked) {
            text += &format!("connection: {}\n", knockplane_policy::word::Word::name(state));
        }
        if self.rules_contradicted > 0 {
            let (rules, whose) =
                (count(self.rules_contradicted, "rule"), "the worker decided by other state than is shown");
            text += &format!("{rules} cannot be explained: {whose}\n");
        }
        if self.rules_omitted > 0 {
            text += &format!("{} rules before these did not match; --all-rules shows them\n", self.rules_omitted);
        }
        text + &self.explained.text() + "\n"
    }

    /// The packet as a JSON document in one line.
    pub(super) fn line(&self) -> Result<String, Failed> {
        // The line breaks of a document are between its tokens: within a string, they are escaped.
        let text = pretty(&Document::new(self))?;
        Ok(text.lines().map(str::trim_start).collect::<String>() + "\n")
    }
}
