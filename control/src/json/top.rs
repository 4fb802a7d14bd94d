//! `top`: rates between two readings of the dataplane's counters.
//!
//! A reading has the dataplane's own time, so a delay on the way changes no rate. A counter that decreased has no rate, and
//! is marked as reset; neither has any counter after a restart of the dataplane.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use knockplane_engine::state::lists::OPERATOR_LEVEL;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::wire::source_rates::{SourceRate, SourceRates};
use knockplane_policy::wire::{
    Counter, DoorSummary, FrameCount, ListSummary, MetricsReport, RuleMetrics, WorkerMetrics, WorkerStatus,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::seconds;

/// Live rates. Totals are those since the dataplane started; those of rules continue over restarts, and `rule
/// reset-counters` does not reset them.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TopJson {
    /// Time since the dataplane started.
    pub(crate) uptime_seconds: f64,
    /// Rule sets applied since the start, counted from 1.
    pub(crate) generation: u64,
    /// Time between the two readings, by the clock of the dataplane; `null` for the first reading, and for the first one after
    /// a restart of the dataplane. Then all rates are `null`.
    pub(crate) interval_seconds: Option<f64>,
    /// Whether the dataplane has restarted since the reading before.
    pub(crate) restarted: bool,
    pub(crate) paths: PathsJson,
    /// The rules with counters of their own, in order.
    pub(crate) rules: Vec<RuleRateJson>,
    /// The rules without counters of their own, together; their number is in `rules_without_counters`.
    pub(crate) other_rules: TrafficJson,
    pub(crate) rules_without_counters: u64,
    /// Packets that no rule decided.
    pub(crate) chain_defaults: Vec<ChainRateJson>,
    pub(crate) lists: Vec<ListRateJson>,
    pub(crate) doors: Vec<DoorRateJson>,
    /// The workers in order, and then `kernel`, if the fast path is on.
    pub(crate) workers: Vec<WorkerRateJson>,
    /// The reasons for which frames were dropped or lost.
    pub(crate) drops: Vec<DropRateJson>,
    /// The busiest sources; `null` if they were not requested.
    pub(crate) sources: Option<SourcesJson>,
}

/// A counter and its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct MeterJson {
    pub(crate) total: u64,
    /// `null` if the reading before does not have the counter, or if the counter was reset.
    pub(crate) per_second: Option<f64>,
    /// Whether the counter decreased since the reading before.
    pub(crate) reset: bool,
}

/// Traffic in frames or packets, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TrafficJson {
    pub(crate) packets: MeterJson,
    pub(crate) bytes: MeterJson,
}

/// The ways of frames: those that the kernel decides alone, and those that workers decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PathsJson {
    /// Frames that the kernel's fast path forwarded, with Ethernet headers.
    pub(crate) carried_by_kernel: TrafficJson,
    /// Frames of strangers that the kernel's fast path dropped.
    pub(crate) dropped_by_kernel: TrafficJson,
    /// Frames that workers received.
    pub(crate) decided_by_workers: TrafficJson,
    /// The frames among them that were dropped.
    pub(crate) dropped_by_workers: MeterJson,
}

/// A rule. Bytes are those of IP packets.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RuleRateJson {
    pub(crate) id: String,
    /// The menu and the number in it, as in `show rules`: `ip filter 4`.
    pub(crate) number: String,
    pub(crate) chain: String,
    pub(crate) action: String,
    /// The comment, as in the metrics: at most 80 characters, and none if `[metrics]` excludes comments.
    pub(crate) comment: String,
    #[serde(flatten)]
    pub(crate) traffic: TrafficJson,
}

/// The default of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ChainRateJson {
    pub(crate) chain: String,
    #[serde(flatten)]
    pub(crate) traffic: TrafficJson,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ListRateJson {
    pub(crate) list: String,
    /// The level; `null` if only operators fill the list.
    pub(crate) level: Option<u8>,
    /// Dynamic entries now.
    pub(crate) entries: u64,
    /// The change of their number; negative if it falls. `null` if the reading before does not have the list.
    pub(crate) entries_per_second: Option<f64>,
    pub(crate) expired: MeterJson,
    pub(crate) evicted: MeterJson,
    pub(crate) refused: MeterJson,
}

/// A door.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct DoorRateJson {
    pub(crate) door: String,
    /// Steps that were taken.
    pub(crate) steps: MeterJson,
    /// Knocks that opened it.
    pub(crate) opened: MeterJson,
    /// Steps and knocks that failed.
    pub(crate) failed: MeterJson,
    /// Sources whose knock is in progress.
    pub(crate) knocking: u64,
    /// Grants now.
    pub(crate) open: u64,
}

/// A worker, or the kernel's fast path.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct WorkerRateJson {
    /// Its number, or `kernel`.
    pub(crate) worker: String,
    /// Part of the interval in which it worked, from 0 to 1; `null` for the kernel and without an interval.
    pub(crate) busy: Option<f64>,
    /// Received frames.
    #[serde(flatten)]
    pub(crate) received: TrafficJson,
    /// Sent frames.
    pub(crate) sent: MeterJson,
    /// Dropped frames.
    pub(crate) dropped: MeterJson,
}

/// Frames dropped for one reason at one place.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct DropRateJson {
    pub(crate) reason: String,
    /// `workers`, `kernel` for the fast path, or `rings` for frames that found no room.
    pub(crate) at: String,
    pub(crate) frames: MeterJson,
}

/// The busiest sources since the last request of any operator for them.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SourcesJson {
    /// Time since that request; `null` if there was none in the last minute. Then the rates are `null`.
    pub(crate) interval_seconds: Option<f64>,
    /// The sources with the most bytes, and those with the most drops.
    pub(crate) sources: Vec<SourceRateJson>,
    /// Number of sources that were found.
    pub(crate) found: u64,
    /// Whether only a part of the table of connections was read.
    pub(crate) is_partial: bool,
}

/// A source. Its rates are lower bounds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SourceRateJson {
    pub(crate) address: IpAddr,
    /// Its tracked connections.
    pub(crate) connections: u64,
    /// IP bytes of its tracked connections, in both directions. Packets without a connection are not included.
    pub(crate) bytes: MeterJson,
    /// Packets that workers dropped and recorded. Drops by the kernel are not included.
    pub(crate) dropped: MeterJson,
    /// The reason for the last of these drops; `null` if there is none.
    pub(crate) last_drop_reason: Option<Reason>,
}

/// What the dataplane tells at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) counters: MetricsReport,
    /// `None` if they were not requested.
    pub(crate) sources: Option<SourceRates>,
}

/// The time between two readings.
#[derive(Clone, Copy)]
struct Interval(Option<Duration>);

impl Interval {
    fn rate(self, difference: f64) -> Option<f64> {
        self.0.map(|time| difference / time.as_secs_f64())
    }

    /// A counter that was `before`, if the reading before has it.
    fn meter(self, before: Option<u64>, total: u64) -> MeterJson {
        let Some(before) = before.filter(|_| self.0.is_some()) else {
            return MeterJson { total, ..MeterJson::default() };
        };
        match total.checked_sub(before) {
            Some(difference) => MeterJson { total, per_second: self.rate(difference as f64), reset: false },
            None => MeterJson { total, per_second: None, reset: true },
        }
    }

    fn traffic(self, before: Option<(u64, u64)>, (packets, bytes): (u64, u64)) -> TrafficJson {
        let (packets_before, bytes_before) = before.unzip();
        TrafficJson { packets: self.meter(packets_before, packets), bytes: self.meter(bytes_before, bytes) }
    }
}

impl TopJson {
    /// The rates between two readings; without rates if there is no reading before.
    pub(crate) fn between(before: Option<&Reading>, now: &Reading) -> TopJson {
        let Reading { counters, sources } = now;
        let status = &counters.status;
        let before = before.map(|before| &before.counters);
        let restarted =
            before.is_some_and(|before| before.started != counters.started || before.status.uptime > status.uptime);
        let before = before.filter(|_| !restarted);
        let elapsed = before.map(|before| status.uptime - before.status.uptime);
        let time = Interval(elapsed.filter(|elapsed| !elapsed.is_zero()));
        let meter = |value: fn(&MetricsReport) -> u64| time.meter(before.map(value), value(counters));
        let traffic = |value: fn(&MetricsReport) -> (u64, u64)| time.traffic(before.map(value), value(counters));
        TopJson {
            uptime_seconds: seconds(status.uptime),
            generation: status.generation,
            interval_seconds: time.0.map(seconds),
            restarted,
            paths: PathsJson {
                carried_by_kernel: traffic(carried),
                dropped_by_kernel: traffic(|report| {
                    (report.status.fast_path.dropped, report.status.fast_path.dropped_bytes)
                }),
                decided_by_workers: traffic(received),
                dropped_by_workers: meter(|report| report.status.workers.iter().map(|worker| worker.dropped).sum()),
            },
            rules: rules(before, counters, time),
            other_rules: traffic(|report| (report.rule_overflow.packets, report.rule_overflow.bytes)),
            rules_without_counters: counters.rules_without_series,
            chain_defaults: chain_defaults(before, counters, time),
            lists: lists(before, counters, time),
            doors: doors(before, counters, time),
            workers: workers(before, counters, time),
            drops: drops(before, counters, time),
            sources: sources.as_ref().map(SourcesJson::from),
        }
    }
}

/// Values by their keys.
fn by_key<'v, T, K: Eq + Hash>(values: Option<&'v [T]>, key: impl Fn(&'v T) -> K) -> HashMap<K, &'v T> {
    values.unwrap_or_default().iter().map(|value| (key(value), value)).collect()
}

fn carried(report: &MetricsReport) -> (u64, u64) {
    let path = &report.status.fast_path;
    (path.carried.iter().sum(), path.carried_bytes.iter().sum())
}

fn received(report: &MetricsReport) -> (u64, u64) {
    let frames = report.status.workers.iter().flat_map(|worker| worker.received).sum();
    (frames, report.workers.iter().flat_map(|worker| worker.received_bytes).sum())
}

fn rules(before: Option<&MetricsReport>, now: &MetricsReport, time: Interval) -> Vec<RuleRateJson> {
    let before = by_key(before.map(|before| &before.rules[..]), |rule| &rule.id);
    let rate = |rule: &RuleMetrics| {
        let counter = |rule: &RuleMetrics| (rule.counter.packets, rule.counter.bytes);
        RuleRateJson {
            id: rule.id.to_string(),
            number: rule.number.to_string(),
            chain: rule.chain.clone(),
            action: rule.action.clone(),
            comment: rule.comment.clone(),
            traffic: time.traffic(before.get(&rule.id).map(|rule| counter(rule)), counter(rule)),
        }
    };
    now.rules.iter().map(rate).collect()
}

fn chain_defaults(before: Option<&MetricsReport>, now: &MetricsReport, time: Interval) -> Vec<ChainRateJson> {
    let chains = ["input", "forward", "output"].into_iter().zip(now.chain_defaults).enumerate();
    let rate = |(place, (chain, counter)): (usize, (&str, Counter))| {
        let before = before.map(|before| before.chain_defaults[place]).map(|counter| (counter.packets, counter.bytes));
        ChainRateJson { chain: chain.to_owned(), traffic: time.traffic(before, (counter.packets, counter.bytes)) }
    };
    chains.map(rate).collect()
}

fn lists(before: Option<&MetricsReport>, now: &MetricsReport, time: Interval) -> Vec<ListRateJson> {
    let before = by_key(before.map(|before| &before.lists[..]), |list| &list.list);
    let rate = |list: &ListSummary| {
        let before = before.get(&list.list);
        let meter = |value: fn(&ListSummary) -> u64| time.meter(before.map(|list| value(list)), value(list));
        let change = before.map(|before| list.entries as f64 - before.entries as f64);
        ListRateJson {
            list: list.list.clone(),
            level: (list.level != OPERATOR_LEVEL).then_some(list.level),
            entries: list.entries,
            entries_per_second: change.and_then(|change| time.rate(change)),
            expired: meter(|list| list.expired),
            evicted: meter(|list| list.evicted),
            refused: meter(|list| list.refused),
        }
    };
    now.lists.iter().map(rate).collect()
}

fn doors(before: Option<&MetricsReport>, now: &MetricsReport, time: Interval) -> Vec<DoorRateJson> {
    let before = by_key(before.map(|before| &before.doors[..]), |door| &door.door);
    let rate = |door: &DoorSummary| {
        let before = before.get(&door.door);
        let meter = |value: fn(&DoorSummary) -> u64| time.meter(before.map(|door| value(door)), value(door));
        DoorRateJson {
            door: door.door.clone(),
            steps: meter(|door| door.steps.iter().sum()),
            opened: meter(|door| door.opened),
            failed: meter(|door| door.failed.iter().map(|failed| failed.times).sum()),
            knocking: door.knocking,
            open: door.open,
        }
    };
    now.doors.iter().map(rate).collect()
}

/// The counters of a worker, from both parts of a report.
fn worker_parts(report: &MetricsReport) -> Vec<(&WorkerStatus, &WorkerMetrics)> {
    report.status.workers.iter().zip(&report.workers).collect()
}

fn workers(before: Option<&MetricsReport>, now: &MetricsReport, time: Interval) -> Vec<WorkerRateJson> {
    let parts = before.map(worker_parts);
    let before_of = by_key(parts.as_deref(), |(status, _)| status.worker);
    let rate = |(status, metrics): &(&WorkerStatus, &WorkerMetrics)| {
        let before = before_of.get(&status.worker);
        let meter =
            |value: fn(&WorkerStatus) -> u64| time.meter(before.map(|(status, _)| value(status)), value(status));
        let bytes = |metrics: &WorkerMetrics| metrics.received_bytes.iter().sum::<u64>();
        let busy = before.map(|(before, _)| status.busy.saturating_sub(before.busy).as_secs_f64());
        WorkerRateJson {
            worker: status.worker.to_string(),
            busy: busy.and_then(|busy| time.rate(busy)).map(|part| part.min(1.0)),
            received: TrafficJson {
                packets: meter(|status| status.received.iter().sum()),
                bytes: time.meter(before.map(|(_, metrics)| bytes(metrics)), bytes(metrics)),
            },
            sent: meter(|status| status.sent.iter().sum()),
            dropped: meter(|status| status.dropped),
        }
    };
    let mut rates: Vec<_> = worker_parts(now).iter().map(rate).collect();
    if now.status.fast_path.on {
        let both = |report: &MetricsReport| {
            let ((frames, bytes), path) = (carried(report), &report.status.fast_path);
            (frames + path.dropped, bytes + path.dropped_bytes)
        };
        rates.push(WorkerRateJson {
            worker: "kernel".to_owned(),
            busy: None,
            received: time.traffic(before.map(both), both(now)),
            sent: time.meter(before.map(|before| carried(before).0), carried(now).0),
            dropped: time.meter(before.map(|before| before.status.fast_path.dropped), now.status.fast_path.dropped),
        });
    }
    rates
}

/// Dropped frames by reason and place.
fn dropped(report: &MetricsReport) -> HashMap<(String, &'static str), u64> {
    let mut drops = HashMap::new();
    let mut add = |counts: &[FrameCount], at| {
        for FrameCount { reason, frames, .. } in counts.iter().filter(|count| count.verdict == Verdict::Drop) {
            *drops.entry((reason.name().to_owned(), at)).or_default() += frames;
        }
    };
    report.workers.iter().for_each(|worker| add(&worker.frames, "workers"));
    add(&report.status.fast_path.frames, "kernel");
    for lost in report.workers.iter().flat_map(|worker| &worker.ring_drops) {
        *drops.entry((lost.reason.clone(), "rings")).or_default() += lost.frames;
    }
    drops
}

fn drops(before: Option<&MetricsReport>, now: &MetricsReport, time: Interval) -> Vec<DropRateJson> {
    let before = before.map(dropped).unwrap_or_default();
    let mut rates: Vec<_> = (dropped(now).into_iter())
        .map(|(key, frames)| {
            let frames = time.meter(before.get(&key).copied(), frames);
            DropRateJson { reason: key.0, at: key.1.to_owned(), frames }
        })
        .filter(|drop| drop.frames.total > 0 || drop.frames.reset)
        .collect();
    rates.sort_by(|one, other| (&one.reason, &one.at).cmp(&(&other.reason, &other.at)));
    rates
}

impl From<&SourceRates> for SourcesJson {
    fn from(SourceRates { interval, sources, found, is_partial }: &SourceRates) -> Self {
        let time = Interval(*interval);
        let rate = |source: &SourceRate| SourceRateJson {
            address: source.address,
            connections: source.connections,
            bytes: MeterJson { total: source.total_bytes, per_second: time.rate(source.bytes as f64), reset: false },
            dropped: MeterJson {
                total: source.total_dropped,
                per_second: time.rate(source.dropped as f64),
                reset: false,
            },
            last_drop_reason: source.reason,
        };
        SourcesJson {
            interval_seconds: interval.map(seconds),
            sources: sources.iter().map(rate).collect(),
            found: *found,
            is_partial: *is_partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn reading(uptime: u64) -> Reading {
        let mut counters = sample::metrics();
        counters.status.uptime = Duration::from_secs(uptime);
        Reading { counters, sources: None }
    }

    #[test]
    fn a_rate_is_the_difference_by_the_dataplanes_time() {
        let (before, mut now) = (reading(90), reading(92));
        now.counters.rules[0].counter.packets += 100;
        now.counters.rules[0].counter.bytes += 6_000;
        now.counters.status.workers[1].received[0] += 50;
        now.counters.workers[1].received_bytes[0] += 3_000;
        now.counters.status.workers[1].busy += Duration::from_millis(500);
        now.counters.status.fast_path.carried[1] += 7;
        now.counters.workers[0].frames[1].frames += 4;
        now.counters.workers[1].frames[1].frames += 6;
        now.counters.lists[0].entries -= 1;
        now.counters.lists[0].expired += 3;
        let top = TopJson::between(Some(&before), &now);
        assert_eq!((top.interval_seconds, top.restarted), (Some(2.0), false));
        let rule = top.rules[0].traffic;
        assert_eq!((rule.packets.per_second, rule.bytes.per_second), (Some(50.0), Some(3_000.0)));
        assert_eq!(top.rules[1].traffic.packets.per_second, Some(0.0));
        let paths = top.paths;
        assert_eq!(paths.decided_by_workers.packets.per_second, Some(25.0));
        assert_eq!(paths.decided_by_workers.bytes.per_second, Some(1_500.0));
        assert_eq!(paths.carried_by_kernel.packets.per_second, Some(3.5));
        assert_eq!((top.workers[0].busy, top.workers[1].busy), (Some(0.0), Some(0.25)));
        assert_eq!(top.workers[2].worker, "kernel");
        let default = top.drops.iter().find(|drop| drop.reason == "chain-default" && drop.at == "workers").unwrap();
        assert_eq!(default.frames.per_second, Some(5.0));
        assert_eq!((top.lists[0].entries_per_second, top.lists[0].expired.per_second), (Some(-0.5), Some(1.5)));
    }

    #[test]
    fn a_reset_a_restart_and_a_new_counter_have_no_rate() {
        let (before, mut now) = (reading(90), reading(92));
        now.counters.rules[0].counter.packets = 1;
        let top = TopJson::between(Some(&before), &now);
        assert_eq!(top.rules[0].traffic.packets, MeterJson { total: 1, per_second: None, reset: true });
        assert!(!top.restarted);

        let mut short = reading(90);
        short.counters.rules.remove(0);
        let top = TopJson::between(Some(&short), &reading(92));
        assert_eq!(top.rules[0].traffic.packets, MeterJson { total: 3, per_second: None, reset: false });

        // Another process, which may have run for longer than the last one had.
        for (uptime, started) in [(1, 1_000), (200, 1_000), (1, 910)] {
            let mut now = reading(uptime);
            now.counters.started = Duration::from_secs(started);
            now.counters.status.workers[0].received = [0, 0];
            let top = TopJson::between(Some(&before), &now);
            assert!(top.restarted && top.interval_seconds.is_none(), "{uptime} {started}");
            let text = serde_json::to_string(&top).unwrap();
            assert!(!text.contains("\"per_second\":-") && !text.contains("\"reset\":true"), "{text}");
            assert_eq!(top.paths.decided_by_workers.packets.per_second, None);
        }
        let top = TopJson::between(None, &before);
        assert_eq!((top.interval_seconds, top.restarted, top.workers[0].busy), (None, false, None));
        // The same reading twice: no time has passed.
        assert_eq!(TopJson::between(Some(&before), &before).interval_seconds, None);
    }
}
