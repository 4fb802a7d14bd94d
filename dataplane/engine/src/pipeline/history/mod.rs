//! The history of one worker, by source: dropped packets, and failed steps at doors.
//!
//! Operators read it; no decision depends on it. The worker writes without a lock, an allocation or a wait. The manager
//! reads at the same time, and reads a record again if the record changes meanwhile.
//!
//! ```text
//! set      [ 7 tags, horizon ] [ record ] [ record ] … 7 of them      512 bytes, a cache line each
//! record   [ version | source, 2 words | subject | table, count | packet | first | last ]
//! ```
//! A keyed hash of the source address selects the set. A record belongs to one source, one VLAN and one subject: the
//! reason and the rule of a drop, or the door and the reason of a failed step. A new record replaces the oldest record
//! of its set. The *horizon* of the set is the time of the latest event of a replaced record. The set is complete since
//! its horizon, also during a flood of forged sources.
//!
//! A worker writes at most [`RECORDS_A_BATCH`] records in a batch, and records the time at which it omitted events.
//! Without load, batches are small and no event is omitted. Events of the *watched* source are always written, to
//! separate sets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use knockplane_policy::door::Failure;
use knockplane_policy::packet::{Packet, Side, Vlan};
use knockplane_policy::reason::Reason;
use knockplane_policy::time::Time;
use knockplane_policy::word::Word as _;

use crate::state::key::{address_of_halves, halves};
use crate::state::lists::ListId;

/// Number of sets of a worker: 256 KiB, which stays in the second-level cache beside the batch.
const SETS: usize = 512;

/// Number of sets for the watched source.
const WATCH_SETS: usize = 4;

/// Number of records in a set.
const WAYS: usize = 7;

/// Maximum number of records that a batch of 64 frames writes. A record takes about 120 instructions and two cache
/// lines, a drop 1,350 instructions. Compared with no history, a packet of a flood takes 39 more instructions with 4
/// records for each batch, and 53 more with 8.
const RECORDS_A_BATCH: u32 = 4;

/// Maximum number of attempts to read a record that the worker is changing. A change takes some nanoseconds.
const ATTEMPTS: usize = 64;

/// A cache line of words. One worker writes it.
#[derive(Default)]
#[repr(align(64))]
struct CacheLine([AtomicU64; 8]);

/// A set: tags and horizon in the first line, then the records.
type RecordSet = [CacheLine; 1 + WAYS];

/// Words of a record.
const VERSION: usize = 0;
const SOURCE_HIGH: usize = 1;
const SOURCE_LOW: usize = 2;
const SUBJECT: usize = 3;
/// The number of the table in the upper half, the number of packets in the lower half.
const TABLE_AND_COUNT: usize = 4;
const PACKET: usize = 5;
const FIRST: usize = 6;
const LAST: usize = 7;

/// The last word of the first line of a set: the horizon. Its lowest three bits are the position of the next record to
/// be replaced.
const HORIZON: usize = WAYS;
const CURSOR: u64 = 7;

/// Bits of a subject, below the rule or list in its upper half. The lowest 16 bits of the VLAN are above them.
const IS_FAILURE: u64 = 1 << 7;
const IS_INSIDE: u64 = 1 << 8;
const IS_V6: u64 = 1 << 9;

/// The position of the lowest 16 bits of the VLAN in a subject, and of the other bits in the word about the last packet.
const VLAN_LOW: u32 = 16;
const VLAN_HIGH: u32 = 32;

/// Bits of the word about the last packet, above its protocol and below its destination port.
const HAS_PROTOCOL: u64 = 1 << 8;
const HAS_PORT: u64 = 1 << 9;

/// The cause of the refusal of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistoryCause {
    /// A packet was dropped.
    Dropped {
        /// Why.
        reason: Reason,
        /// The deciding rule: the number of its table and its position among the declared rules.
        rule: Option<(u32, u32)>,
    },
    /// A step of a knock failed, or a knock was reset.
    Failed {
        /// The open list of the door.
        open: ListId,
        /// Why.
        failure: Failure,
    },
}

/// The last packet of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPacket {
    /// The side of its arrival.
    pub side: Side,
    /// The VLAN, independent of the settings for VLANs. All packets of a record have the same VLAN.
    pub vlan: Vlan,
    /// The IP protocol. `None` if the frame was refused before the protocol was read.
    pub protocol: Option<u8>,
    /// The destination port. `None` if it has no ports.
    pub port: Option<u16>,
}

impl LastPacket {
    /// The fields of this packet.
    pub(crate) fn of(packet: &Packet<'_>) -> LastPacket {
        let Packet { side, protocol, ports, .. } = *packet;
        LastPacket { side, vlan: packet.vlan(), protocol: Some(protocol), port: ports.map(|(_, port)| port) }
    }
}

/// Events of one source with one cause in one VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRecord {
    /// The cause.
    pub refusal: HistoryCause,
    /// The last packet.
    pub packet: LastPacket,
    /// Number of packets since the record was created.
    pub count: u32,
    /// The arrival of the first of these packets.
    pub first: Time,
    /// The arrival of the last packet.
    pub last: Time,
}

/// The records of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHistory {
    /// The records, in no order.
    pub records: Vec<HistoryRecord>,
    /// All events after this time are present. Zero if no event is missing.
    pub complete_since: Time,
}

/// The history of one worker, for readers.
pub struct History {
    secret: u64,
    sets: Box<[RecordSet]>,
    /// The last time at which events were omitted because a batch had too many.
    left_out: AtomicU64,
    watch: WatchedRecords,
}

/// The source whose events are always written.
#[derive(Default)]
struct WatchedRecords {
    /// The number of the watch; 0 if there is none. It is written after the words below.
    id: AtomicU64,
    source: [AtomicU64; 2],
    is_v6: AtomicU64,
    until: AtomicU64,
    /// The number of the watch that the worker has noticed. `sets` contains the events of this watch.
    seen: AtomicU64,
    sets: [RecordSet; WATCH_SETS],
}

impl History {
    /// Creates an empty history with all its memory. A sender that knows the secret could choose sources that replace
    /// the records of another source.
    pub(crate) fn new(secret: u64) -> History {
        History {
            secret,
            sets: (0..SETS).map(|_| RecordSet::default()).collect(),
            left_out: AtomicU64::new(0),
            watch: WatchedRecords::default(),
        }
    }

    /// Maximum number of records of a worker.
    pub const fn capacity() -> usize {
        SETS * WAYS
    }

    /// The records of the source, without those that were written during a watch.
    pub fn of(&self, source: IpAddr) -> SourceHistory {
        let set = &self.sets[self.set_of(halves(source))];
        let mut records = Vec::new();
        read_set(set, source, &mut records);
        let horizon = Time::from_nanos(set[0].0[HORIZON].load(Acquire) & !CURSOR);
        SourceHistory { records, complete_since: horizon.max(Time::from_nanos(self.left_out.load(Acquire))) }
    }

    /// Visits all records with their sources, without those that were written during a watch.
    pub fn visit(&self, mut visit: impl FnMut(IpAddr, HistoryRecord)) {
        for set in &self.sets {
            let (tags, lines) = set.split_first().expect("a set has a first line");
            let used = tags.0.iter().zip(lines).filter(|(tag, _)| tag.load(Acquire) != 0);
            used.filter_map(|(_, line)| line.read()).for_each(|(source, record)| visit(source, record));
        }
    }

    /// Makes the worker write all events of this source until `until`. Replaces the previous watch. The caller passes a
    /// unique id that is not 0.
    pub fn watch(&self, id: u64, source: IpAddr, until: Time) {
        let [high, low] = halves(source);
        self.watch.source[0].store(high, Relaxed);
        self.watch.source[1].store(low, Relaxed);
        self.watch.is_v6.store(source.is_ipv6().into(), Relaxed);
        self.watch.until.store(until.as_nanos(), Relaxed);
        self.watch.id.store(id, Release);
    }

    /// The records of a watch. They are complete, unless there were too many subjects.
    pub fn watched(&self, id: u64, source: IpAddr) -> SourceHistory {
        let mut watched = SourceHistory::default();
        // A worker without a packet since the start of the watch has no record of it.
        if self.watch.seen.load(Acquire) == id {
            for set in &self.watch.sets {
                read_set(set, source, &mut watched.records);
                let horizon = Time::from_nanos(set[0].0[HORIZON].load(Acquire) & !CURSOR);
                watched.complete_since = watched.complete_since.max(horizon);
            }
        }
        watched
    }

    fn set_of(&self, [high, low]: [u64; 2]) -> usize {
        folded(low ^ self.secret, high ^ self.secret.rotate_left(32)) as usize % SETS
    }
}

/// The XOR of both halves of a product. Source: Wang Yi, wyhash, <https://github.com/wangyi-fudan/wyhash>.
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one ^ 0xa076_1d64_78bd_642f) * u128::from(other ^ 0xe703_7ed1_a0b4_28db);
    product as u64 ^ (product >> 64) as u64
}

/// Adds the records of this source in the set.
fn read_set(set: &RecordSet, source: IpAddr, records: &mut Vec<HistoryRecord>) {
    let (tags, lines) = set.split_first().expect("a set has a first line");
    for (tag, line) in tags.0.iter().zip(lines) {
        if tag.load(Acquire) != 0 {
            records.extend(line.read().filter(|(of, _)| *of == source).map(|(_, record)| record));
        }
    }
}

impl CacheLine {
    /// The record and its source. `None` if the worker changes it at each attempt, or if its words are invalid.
    fn read(&self) -> Option<(IpAddr, HistoryRecord)> {
        let words = (0..ATTEMPTS).find_map(|_| {
            let version = self.0[VERSION].load(Acquire);
            let words: [u64; 8] = std::array::from_fn(|word| self.0[word].load(Relaxed));
            fence(Acquire);
            (version.is_multiple_of(2) && self.0[VERSION].load(Relaxed) == version).then_some(words)
        })?;
        let subject = words[SUBJECT];
        let source = address_of_halves([words[SOURCE_HIGH], words[SOURCE_LOW]], subject & IS_V6 != 0);
        let (place, upper) = ((subject & (IS_FAILURE - 1)) as usize, (subject >> 32) as u32);
        let refusal = if subject & IS_FAILURE != 0 {
            HistoryCause::Failed { open: ListId(upper as u8), failure: *Failure::ALL.get(place)? }
        } else {
            let table = (words[TABLE_AND_COUNT] >> 32) as u32;
            let rule = upper.checked_sub(1).map(|rule| (table, rule));
            HistoryCause::Dropped { reason: *Reason::ALL.get(place)?, rule }
        };
        let told = words[PACKET];
        let vlan = Vlan::from_bits((told >> VLAN_HIGH) << 16 | subject >> VLAN_LOW & 0xffff);
        let packet = LastPacket {
            vlan,
            side: if subject & IS_INSIDE != 0 { Side::Inside } else { Side::Outside },
            protocol: (told & HAS_PROTOCOL != 0).then_some(told as u8),
            port: (told & HAS_PORT != 0).then_some((told >> 16) as u16),
        };
        let [first, last] = [FIRST, LAST].map(|word| Time::from_nanos(words[word]));
        Some((source, HistoryRecord { refusal, packet, count: words[TABLE_AND_COUNT] as u32, first, last }))
    }
}

impl HistoryCause {
    /// The bits of the subject without side and family, and the table number of the rule.
    fn words(self) -> (u64, u32) {
        match self {
            HistoryCause::Dropped { reason, rule: None } => (reason.index() as u64, 0),
            HistoryCause::Dropped { reason, rule: Some((table, rule)) } => {
                (reason.index() as u64 | (u64::from(rule) + 1) << 32, table)
            }
            HistoryCause::Failed { open, failure } => (failure as u64 | IS_FAILURE | u64::from(open.0) << 32, 0),
        }
    }
}

/// Packets of one source that were refused for one cause.
#[derive(Clone, Copy)]
pub(crate) struct RefusedPackets {
    pub(crate) source: IpAddr,
    pub(crate) refusal: HistoryCause,
    pub(crate) last: LastPacket,
    /// Number of packets.
    pub(crate) count: u32,
    pub(crate) arrived: Time,
}

/// The words that identify a record.
struct RecordSubject {
    /// The address of the source. Its family is a bit of the subject.
    source: [u64; 2],
    subject: u64,
    /// The number of the table that the rule in `subject` belongs to.
    table: u32,
}

/// The worker's end of its history: the only writer.
pub(crate) struct HistoryWriter {
    history: Arc<History>,
    /// Number of records that this batch may still write.
    left: u32,
    /// Whether `left` is not zero, or a source is watched.
    open: bool,
    /// Whether this batch omitted events.
    left_out: bool,
    /// The number of the watch at the start of the batch.
    watch: u64,
    watched: IpAddr,
    until: Time,
    watches: bool,
}

impl HistoryWriter {
    pub(crate) fn new(secret: u64) -> HistoryWriter {
        HistoryWriter {
            history: Arc::new(History::new(secret)),
            left: 0,
            open: false,
            left_out: false,
            watch: 0,
            watched: Ipv4Addr::UNSPECIFIED.into(),
            until: Time::default(),
            watches: false,
        }
    }

    /// The history, for readers.
    pub(crate) fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// Begins a batch whose first frame arrived at `now`.
    pub(crate) fn begin_batch(&mut self, now: Time) {
        (self.left, self.open) = (RECORDS_A_BATCH, true);
        if self.history.watch.id.load(Acquire) != self.watch {
            self.begin_watch();
        }
        self.watches = now < self.until;
    }

    /// Ends a batch.
    pub(crate) fn end_batch(&mut self, now: Time) {
        if self.left_out {
            self.left_out = false;
            self.history.left_out.store(now.as_nanos(), Release);
        }
    }

    /// Whether the batch may write another record. If not, this call records that the batch omits an event.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        self.left_out |= !self.open;
        self.open
    }

    /// Records refused packets. Called only if there is [room](HistoryWriter::has_room).
    pub(crate) fn record(&mut self, refused: RefusedPackets) {
        let RefusedPackets { source, refusal, last: packet, count, arrived } = refused;
        let (subject, table) = refusal.words();
        let mut subject = subject;
        if packet.side == Side::Inside {
            subject |= IS_INSIDE;
        }
        if source.is_ipv6() {
            subject |= IS_V6;
        }
        // Zero without VLANs.
        let vlan = packet.vlan.bits();
        subject |= (vlan & 0xffff) << VLAN_LOW;
        let told = (vlan >> 16) << VLAN_HIGH
            | u64::from(packet.protocol.unwrap_or_default())
            | if packet.protocol.is_some() { HAS_PROTOCOL } else { 0 }
            | if packet.port.is_some() { HAS_PORT } else { 0 }
            | u64::from(packet.port.unwrap_or_default()) << 16;
        let halves = halves(source);
        let tag = folded(halves[1] ^ subject ^ vlan >> 16, halves[0] ^ self.history.secret ^ u64::from(table)) | 1;
        let set = if self.watches && source == self.watched {
            &self.history.watch.sets[(tag >> 8) as usize % WATCH_SETS]
        } else if self.left > 0 {
            self.left -= 1;
            self.open = self.left > 0 || self.watches;
            &self.history.sets[self.history.set_of(halves)]
        } else {
            self.left_out = true;
            return;
        };
        write(set, tag, &RecordSubject { source: halves, subject, table }, told, count, arrived);
    }

    /// Begins a watch of another source, and clears the records of the previous watch.
    #[cold]
    fn begin_watch(&mut self) {
        let watch = &self.history.watch;
        self.watch = watch.id.load(Acquire);
        let halves = [0, 1].map(|word: usize| watch.source[word].load(Relaxed));
        self.watched = address_of_halves(halves, watch.is_v6.load(Relaxed) != 0);
        self.until = Time::from_nanos(watch.until.load(Relaxed));
        watch.seen.store(0, Release);
        watch.sets.iter().flat_map(|set| &set[0].0).for_each(|word| word.store(0, Release));
        watch.seen.store(self.watch, Release);
    }
}

/// Adds packets to a record, which it creates if necessary. Only the worker writes.
fn write(set: &RecordSet, tag: u64, subject: &RecordSubject, told: u64, count: u32, arrived: Time) {
    let RecordSubject { source: [high, low], subject, table } = *subject;
    let (tags, lines) = set.split_first().expect("a set has a first line");
    let known = (0..WAYS).find(|way| tags.0[*way].load(Relaxed) == tag);
    let horizon = tags.0[HORIZON].load(Relaxed);
    let way = known.unwrap_or((horizon & CURSOR) as usize % WAYS);
    let record = &lines[way].0;
    let version = record[VERSION].load(Relaxed);
    // The version is odd while the other words change.
    record[VERSION].store(version.wrapping_add(1), Relaxed);
    fence(Release);
    let counted = match known {
        Some(_) => record[TABLE_AND_COUNT].load(Relaxed) as u32,
        None => {
            let lost = if tags.0[way].load(Relaxed) == 0 { 0 } else { record[LAST].load(Relaxed) };
            let (lost, next) = (lost.saturating_add(CURSOR) & !CURSOR, (way as u64 + 1) % WAYS as u64);
            tags.0[HORIZON].store((horizon & !CURSOR).max(lost) | next, Release);
            tags.0[way].store(tag, Release);
            record[SOURCE_HIGH].store(high, Relaxed);
            record[SOURCE_LOW].store(low, Relaxed);
            record[SUBJECT].store(subject, Relaxed);
            record[FIRST].store(arrived.as_nanos(), Relaxed);
            0
        }
    };
    record[TABLE_AND_COUNT].store(u64::from(table) << 32 | u64::from(counted.saturating_add(count)), Relaxed);
    record[PACKET].store(told, Relaxed);
    record[LAST].store(arrived.as_nanos(), Relaxed);
    record[VERSION].store(version.wrapping_add(2), Release);
}

#[cfg(test)]
mod tests;
