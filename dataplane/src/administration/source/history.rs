//! The records of workers about an address: dropped packets and failed steps, and all packets during a watch.

use std::cmp::Reverse;
use std::net::IpAddr;

use knockplane_engine::pipeline::history::{History, HistoryCause, HistoryRecord, LastPacket, SourceHistory};
use knockplane_log::target;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::time::Time;
use knockplane_policy::wire::source::{DoorFailure, SourceDrop, SourceDrops, SourceFailure, SourcePacket, SourceWatch};

use super::rule_ref;
use crate::administration::{Administration, WorkerView, door_name};
use crate::fast_path::FastPathSwitch;
use crate::generation::Generation;

/// The source that workers watch.
#[derive(Default)]
pub(crate) struct WatchedSource {
    /// 0 before the first watch.
    id: u64,
    source: Option<IpAddr>,
    since: Time,
    until: Time,
}

impl WatchedSource {
    /// Begins a watch of this source, which replaces the watch of the previous source.
    pub(super) fn begin(
        &mut self,
        source: IpAddr,
        now: Time,
        until: Time,
        workers: &[WorkerView],
        fast_path: &FastPathSwitch,
    ) {
        *self = WatchedSource { id: self.id + 1, source: Some(source), since: now, until };
        for worker in workers {
            worker.history.watch(self.id, source, until);
        }
        fast_path.watch(source);
        let seconds = until.since(now).as_secs();
        tracing::info!(target: target!("operator"), %source, seconds, "watched by request");
    }
}

impl Administration {
    /// The failed steps of a source at doors, the last one first.
    pub(super) fn failures_of(&self, address: IpAddr, now: Time) -> Vec<DoorFailure> {
        self.failures(&self.recorded(address).records, now)
    }

    /// The dropped packets of the source, with at most `limit` reasons, and the records of the watch.
    pub(super) fn drops_of(&self, address: IpAddr, generation: &Generation, limit: usize, now: Time) -> SourceDrops {
        let SourceHistory { records, complete_since } = self.recorded(address);
        // Frames of strangers that the kernel drops are in no record.
        let by_kernel = self.published.ledger().book.kernel_frames(generation);
        let dropped = by_kernel.frames(Verdict::Drop, Side::Outside);
        let complete_since = complete_since.max(self.shared.fast_path.last_drop(dropped, now));
        let mut recent = drops(&records, generation, now);
        let truncated = recent.len() > limit;
        recent.truncate(limit);
        SourceDrops {
            recent,
            truncated,
            complete_for: (complete_since > Time::default()).then(|| now.since(complete_since)),
            capacity: (History::capacity() * self.workers.len()) as u64,
            watch: self.watched(address, generation, now),
        }
    }

    fn watched(&self, address: IpAddr, generation: &Generation, now: Time) -> Option<SourceWatch> {
        let WatchedSource { id, source, since, until } = self.watch;
        source.filter(|source| *source == address)?;
        let watched = merged(self.workers.iter().map(|worker| worker.history.watched(id, address)));
        Some(SourceWatch {
            since: now.since(since),
            time_left: until.since(now),
            drops: drops(&watched.records, generation, now),
            failures: self.failures(&watched.records, now),
            truncated: watched.complete_since > Time::default(),
        })
    }

    fn recorded(&self, address: IpAddr) -> SourceHistory {
        merged(self.workers.iter().map(|worker| worker.history.of(address)))
    }

    fn failures(&self, records: &[HistoryRecord], now: Time) -> Vec<DoorFailure> {
        let failure = |record: &HistoryRecord| {
            let HistoryCause::Failed { open, failure: reason } = record.refusal else { return None };
            let failure = SourceFailure {
                reason,
                times: record.count.into(),
                last_ago: now.since(record.last),
                packet: packet(record.packet),
            };
            Some(DoorFailure { door: door_name(&self.shared, open)?, failure })
        };
        records.iter().filter_map(failure).collect()
    }
}

/// The records of all workers, the last one first: the packets of one source arrive on several queues.
fn merged(workers: impl Iterator<Item = SourceHistory>) -> SourceHistory {
    let mut all = SourceHistory::default();
    for SourceHistory { records, complete_since } in workers {
        all.complete_since = all.complete_since.max(complete_since);
        for record in records {
            let subject = |record: &HistoryRecord| (record.refusal, record.packet.side, record.packet.vlan);
            let is_same = |known: &&mut HistoryRecord| subject(known) == subject(&record);
            match all.records.iter_mut().find(is_same) {
                Some(known) => {
                    known.count = known.count.saturating_add(record.count);
                    known.first = known.first.min(record.first);
                    if known.last < record.last {
                        (known.last, known.packet) = (record.last, record.packet);
                    }
                }
                None => all.records.push(record),
            }
        }
    }
    all.records.sort_by_key(|record| Reverse(record.last));
    all
}

fn drops(records: &[HistoryRecord], generation: &Generation, now: Time) -> Vec<SourceDrop> {
    let drop = |record: &HistoryRecord| {
        let HistoryCause::Dropped { reason, rule } = record.refusal else { return None };
        let running = rule.filter(|(table, _)| *table == generation.table.number());
        Some(SourceDrop {
            reason,
            rule: running.and_then(|(_, position)| rule_ref(generation, position as usize)),
            rule_is_gone: rule.is_some() && running.is_none(),
            packets: record.count.into(),
            first_ago: now.since(record.first),
            last_ago: now.since(record.last),
            packet: packet(record.packet),
        })
    };
    records.iter().filter_map(drop).collect()
}

fn packet(LastPacket { side, vlan, protocol, port }: LastPacket) -> SourcePacket {
    SourcePacket { side, vlan, protocol, port }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::{Side, Vlan};
    use knockplane_policy::reason::Reason;

    use super::*;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn records_of_several_workers_are_one() {
        let record = |reason, port, count, first, last| HistoryRecord {
            refusal: HistoryCause::Dropped { reason, rule: None },
            packet: LastPacket { side: Side::Outside, vlan: Vlan::NONE, protocol: Some(6), port: Some(port) },
            count,
            first: at(first),
            last: at(last),
        };
        let one = SourceHistory { records: vec![record(Reason::ChainDefault, 22, 3, 5, 9)], complete_since: at(4) };
        let other = [record(Reason::Ipv4Malformed, 1, 1, 20, 20), record(Reason::ChainDefault, 80, 2, 1, 7)];
        let all = merged([one, SourceHistory { records: other.to_vec(), complete_since: at(2) }].into_iter());
        let expected = [record(Reason::Ipv4Malformed, 1, 1, 20, 20), record(Reason::ChainDefault, 22, 5, 1, 9)];
        assert_eq!((&all.records[..], all.complete_since), (&expected[..], at(4)));
    }
}
