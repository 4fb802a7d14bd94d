//! The busiest sources between two looks: at the connections, and at the histories of the workers.
//!
//! A look reads memory that the workers write, and messages no worker. It remembers the bytes of each connection and the
//! count of each record, so that the next look finds their difference. The memory is bounded: [`REMEMBERED`] of each kind,
//! some 10 MB. A connection or a record beyond that has no difference. Looks are for all operators together: the interval
//! of an answer began with the look before, of whichever operator.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use knockplane_engine::pipeline::history::{HistoryCause, HistoryRecord};
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::time::Time;
use knockplane_policy::wire::source_rates::{MAX_RATED_SOURCES, SourceRate, SourceRates};

use super::Administration;

/// Maximum number of connections, and of records, that a look remembers.
const REMEMBERED: usize = 1 << 18;

/// Maximum number of sets of connections that a look reads: half a million connections, which takes a tenth of a second.
const SETS: usize = 1 << 16;

/// The minimum interval. A look that follows earlier returns the answer of the look before.
const SHORTEST: Duration = Duration::from_millis(90);

/// The maximum interval. A look that follows later begins anew.
const LONGEST: Duration = Duration::from_secs(60);

/// A record of a worker, and the arrival of its first packet, which tells it from an earlier record with the same words.
type RecordKey = (usize, IpAddr, HistoryCause, Side, Vlan, Time);

/// The last look.
#[derive(Default)]
pub(super) struct SourceLook {
    /// Zero before the first look.
    at: Time,
    /// Bytes of connections, by their serial numbers.
    connections: HashMap<u64, u64>,
    /// The serial number from which on connections are younger than the look.
    next_serial: u64,
    records: HashMap<RecordKey, u32>,
    answer: SourceRates,
}

impl Administration {
    /// The busiest sources since the last look.
    pub(super) fn source_rates(&mut self, limit: usize) -> SourceRates {
        let now = self.shared.clock.now();
        let before = std::mem::take(&mut self.look);
        let interval = now.since(before.at);
        if before.at > Time::default() && interval < SHORTEST {
            self.look = before;
            return self.look.answer.clone();
        }
        let is_known = before.at > Time::default() && interval <= LONGEST;
        let mut look = SourceLook { at: now, next_serial: before.next_serial, ..SourceLook::default() };
        let mut sources = HashMap::<IpAddr, (SourceRate, Time)>::new();
        let source = |address| {
            let none = SourceRate {
                address,
                connections: 0,
                total_bytes: 0,
                bytes: 0,
                total_dropped: 0,
                dropped: 0,
                reason: None,
            };
            (none, Time::default())
        };
        let generation = self.shared.generation.load_full();
        let mut is_partial = false;
        if let Some(flows) = self.shared.state.connections().filter(|_| generation.table.tracks()) {
            let next = flows.walk(0, SETS, now, |flow| {
                let serial = flow.serial();
                let known = match before.connections.get(&serial) {
                    Some(bytes) => Some(*bytes),
                    None if serial >= before.next_serial => Some(0),
                    None => None,
                };
                if look.connections.len() < REMEMBERED {
                    look.connections.insert(serial, flow.bytes);
                }
                look.next_serial = look.next_serial.max(serial + 1);
                let (rate, _) = sources.entry(flow.originator.0).or_insert_with(|| source(flow.originator.0));
                rate.connections += 1;
                rate.total_bytes = rate.total_bytes.saturating_add(flow.bytes);
                if is_known {
                    rate.bytes += known.map_or(0, |known| flow.bytes.saturating_sub(known));
                }
                ControlFlow::Continue(())
            });
            is_partial = next.is_some();
        }
        for (worker, view) in self.workers.iter().enumerate() {
            view.history.visit(|address, record: HistoryRecord| {
                let HistoryCause::Dropped { reason, .. } = record.refusal else { return };
                let key = (worker, address, record.refusal, record.packet.side, record.packet.vlan, record.first);
                let known = match before.records.get(&key) {
                    Some(count) => Some(*count),
                    None if record.first >= before.at => Some(0),
                    None => None,
                };
                if look.records.len() < REMEMBERED {
                    look.records.insert(key, record.count);
                }
                let (rate, last) = sources.entry(address).or_insert_with(|| source(address));
                rate.total_dropped += u64::from(record.count);
                if is_known {
                    rate.dropped += u64::from(known.map_or(0, |known| record.count.saturating_sub(known)));
                }
                if rate.reason.is_none() || *last < record.last {
                    (rate.reason, *last) = (Some(reason), record.last);
                }
            });
        }
        let found = sources.len() as u64;
        let sources = sources.into_values().map(|(source, _)| source).collect();
        look.answer = SourceRates {
            interval: is_known.then_some(interval),
            sources: busiest(sources, limit.min(MAX_RATED_SOURCES)),
            found,
            is_partial,
        };
        self.look = look;
        self.look.answer.clone()
    }
}

/// The sources with the most bytes, and those with the most dropped packets.
fn busiest(mut sources: Vec<SourceRate>, limit: usize) -> Vec<SourceRate> {
    sources.sort_unstable_by_key(|source| Reverse((source.bytes, source.total_bytes)));
    let mut others = sources.split_off(limit.min(sources.len()));
    others.sort_unstable_by_key(|source| Reverse((source.dropped, source.total_dropped)));
    // Those with the most bytes may be among those with the most drops as well.
    others.truncate(limit);
    sources.extend(others);
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_by_bytes_and_by_drops_are_kept() {
        let source = |last: u8, bytes, dropped| SourceRate {
            address: [192, 0, 2, last].into(),
            connections: 1,
            total_bytes: bytes,
            bytes,
            total_dropped: dropped,
            dropped,
            reason: None,
        };
        let all = vec![source(1, 10, 0), source(2, 30, 5), source(3, 20, 9), source(4, 0, 7), source(5, 0, 8)];
        let kept: Vec<_> = busiest(all, 2).into_iter().map(|source| source.address.to_string()).collect();
        assert_eq!(kept, ["192.0.2.2", "192.0.2.3", "192.0.2.5", "192.0.2.4"]);
        assert_eq!(busiest(Vec::new(), 2), []);
    }
}
