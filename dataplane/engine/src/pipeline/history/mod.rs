//! What one worker has kept out recently, by source: packets that were dropped, and steps at doors that failed.
//!
//! Operators ask for it; no decision depends on it. The worker writes, without a lock, an allocation or a wait for
//! anybody; the manager reads at the same time, and reads a record again that changes meanwhile.
//!
//! ```text
//! set      [ 7 tags, horizon ] [ record ] [ record ] … 7 of them      512 bytes, a cache line each
//! record   [ version | source, 2 words | subject | table, count | packet | first | last ]
//! ```
//! The address of a source chooses its set, by a keyed hash. A record is of one source, one VLAN and one subject: the
//! reason and the rule of a drop, or the door and the reason of a failed step. A new record takes the place of the one that was
//! made first in its set; the set's *horizon* is the latest event that went with such a record. So the set says since
//! when it is complete, also under a flood of forged sources.
//!
//! A worker writes at most [`RECORDS_A_BATCH`] records in a batch, and notes when it left events out. While it is not
//! loaded, batches are small and nothing is left out. Events of the *watched* source are always written, into sets of
//! their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use knockplane_policy::door::Failure;
use knockplane_policy::packet::{Packet, Side, Vlan};
use knockplane_policy::reason::Reason;
use knockplane_policy::time::Time;
use knockplane_policy::word::Word as _;

use crate::state::lists::ListId;

/// Sets of a worker: 256 KiB, which stays in the second-level cache beside the batch.
const SETS: usize = 512;

/// Sets for the watched source.
const WATCH_SETS: usize = 4;

/// Records of a set.
const WAYS: usize = 7;

/// Records that a batch of 64 frames writes at most. A record takes about 120 instructions and two cache lines, a drop
/// 1,350 instructions. A packet of a flood takes 39 instructions more than without a history with 4 records, 53 with 8.
const RECORDS_A_BATCH: u32 = 4;

/// How often a record is read again that the worker changes meanwhile. It changes within some nanoseconds.
const ATTEMPTS: usize = 64;

/// A cache line of words that one worker writes.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

/// Tags and horizon in the first line, then the records.
type RecordSet = [Line; 1 + WAYS];

/// Words of a record.
const VERSION: usize = 0;
const SOURCE_HIGH: usize = 1;
const SOURCE_LOW: usize = 2;
const SUBJECT: usize = 3;
/// The table's number in the upper half, how often in the lower one.
const TABLE_AND_COUNT: usize = 4;
const PACKET: usize = 5;
const FIRST: usize = 6;
const LAST: usize = 7;

/// The last word of a set's first line: the horizon, whose lowest three bits are the next record to give way.
const HORIZON: usize = WAYS;
const CURSOR: u64 = 7;

/// Bits of a subject, below the rule or list in its upper half. The lowest 16 bits of the VLAN are above them.
const IS_FAILURE: u64 = 1 << 7;
const IS_INSIDE: u64 = 1 << 8;
const IS_V6: u64 = 1 << 9;

/// Where the VLAN is in a subject, and the rest of it in the word that tells of a packet.
const VLAN_LOW: u32 = 16;
const VLAN_HIGH: u32 = 32;

/// Bits of the word that tells of a packet, above its protocol and below its destination port.
const HAS_PROTOCOL: u64 = 1 << 8;
const HAS_PORT: u64 = 1 << 9;

/// What kept a source out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A packet was dropped.
    Dropped {
        /// Why.
        reason: Reason,
        /// The rule that decided, by the number of its table and its position among the declared rules.
        rule: Option<(u32, u32)>,
    },
    /// A step of a knock came to nothing, or a knock started over.
    Failed {
        /// The open list of the door.
        open: ListId,
        /// Why.
        failure: Failure,
    },
}

/// What is told of the last packet of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPacket {
    /// The side that it came from.
    pub side: Side,
    /// Its VLAN, whatever the settings say of VLANs. All packets of a record are of one.
    pub vlan: Vlan,
    /// Its IP protocol; none if the frame could not be read so far.
    pub protocol: Option<u8>,
    /// Its destination port, if it has one.
    pub port: Option<u16>,
}

impl LastPacket {
    /// What is told of this packet.
    pub(crate) fn of(packet: &Packet<'_>) -> LastPacket {
        let Packet { side, protocol, ports, .. } = *packet;
        LastPacket { side, vlan: packet.vlan(), protocol: Some(protocol), port: ports.map(|(_, port)| port) }
    }
}

/// Events of one source with one subject in one VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRecord {
    /// What happened.
    pub refusal: Refusal,
    /// The last packet that it happened to.
    pub packet: LastPacket,
    /// How often, since the record was made.
    pub count: u32,
    /// When the first of these packets arrived.
    pub first: Time,
    /// When the last one did.
    pub last: Time,
}

/// What is recorded of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHistory {
    /// In no order.
    pub records: Vec<HistoryRecord>,
    /// No event after it is missing; none was ever if it is zero.
    pub complete_since: Time,
}

/// See the module.
pub struct History {
    secret: u64,
    sets: Box<[RecordSet]>,
    /// When events were last left out because a batch had too many.
    left_out: AtomicU64,
    watch: Watch,
}

/// The source whose events are always written.
#[derive(Default)]
struct Watch {
    /// Changes with every new watch, after the words below. 0 for none.
    id: AtomicU64,
    source: [AtomicU64; 2],
    is_v6: AtomicU64,
    until: AtomicU64,
    /// The watch that the worker has seen, and that its sets are of.
    seen: AtomicU64,
    sets: [RecordSet; WATCH_SETS],
}

impl History {
    /// Nothing, and all memory taken. Whoever knows the secret could choose sources that displace another's records.
    pub(crate) fn new(secret: u64) -> History {
        History {
            secret,
            sets: (0..SETS).map(|_| RecordSet::default()).collect(),
            left_out: AtomicU64::new(0),
            watch: Watch::default(),
        }
    }

    /// Records that a worker has room for.
    pub const fn capacity() -> usize {
        SETS * WAYS
    }

    /// What is recorded of the source, what happened while it was watched aside.
    pub fn of(&self, source: IpAddr) -> SourceHistory {
        let set = &self.sets[self.set_of(words(source))];
        let mut records = Vec::new();
        read_set(set, source, &mut records);
        let horizon = Time::from_nanos(set[0].0[HORIZON].load(Acquire) & !CURSOR);
        SourceHistory { records, complete_since: horizon.max(Time::from_nanos(self.left_out.load(Acquire))) }
    }

    /// Has everything written of this source until then, in place of the source that was watched before. Each watch has
    /// another id, which is not 0.
    pub fn watch(&self, id: u64, source: IpAddr, until: Time) {
        let (high, low) = words(source);
        self.watch.source[0].store(high, Relaxed);
        self.watch.source[1].store(low, Relaxed);
        self.watch.is_v6.store(source.is_ipv6().into(), Relaxed);
        self.watch.until.store(until.as_nanos(), Relaxed);
        self.watch.id.store(id, Release);
    }

    /// What happened while the source was watched: complete since then, unless there were too many subjects.
    pub fn watched(&self, id: u64, source: IpAddr) -> SourceHistory {
        let mut watched = SourceHistory::default();
        // A worker that has seen no packet since has nothing to tell.
        if self.watch.seen.load(Acquire) == id {
            for set in &self.watch.sets {
                read_set(set, source, &mut watched.records);
                let horizon = Time::from_nanos(set[0].0[HORIZON].load(Acquire) & !CURSOR);
                watched.complete_since = watched.complete_since.max(horizon);
            }
        }
        watched
    }

    fn set_of(&self, (high, low): (u64, u64)) -> usize {
        folded(low ^ self.secret, high ^ self.secret.rotate_left(32)) as usize % SETS
    }
}

/// An address as two words. Which family it is of is a bit of the subject.
fn words(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(address) => (0, address.to_bits().into()),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
    }
}

/// Both halves of a product, mixed. Source: Wang Yi, wyhash, <https://github.com/wangyi-fudan/wyhash>.
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one ^ 0xa076_1d64_78bd_642f) * u128::from(other ^ 0xe703_7ed1_a0b4_28db);
    product as u64 ^ (product >> 64) as u64
}

/// Adds the set's records of this source.
fn read_set(set: &RecordSet, source: IpAddr, records: &mut Vec<HistoryRecord>) {
    let (tags, lines) = set.split_first().expect("a set has a first line");
    for (tag, line) in tags.0.iter().zip(lines) {
        if tag.load(Acquire) != 0 {
            records.extend(line.read().filter(|(of, _)| *of == source).map(|(_, record)| record));
        }
    }
}

impl Line {
    /// The record and its source; none if it does not keep still, or makes no sense.
    fn read(&self) -> Option<(IpAddr, HistoryRecord)> {
        let words = (0..ATTEMPTS).find_map(|_| {
            let version = self.0[VERSION].load(Acquire);
            let words: [u64; 8] = std::array::from_fn(|word| self.0[word].load(Relaxed));
            fence(Acquire);
            (version.is_multiple_of(2) && self.0[VERSION].load(Relaxed) == version).then_some(words)
        })?;
        let subject = words[SUBJECT];
        let source = match subject & IS_V6 {
            0 => Ipv4Addr::from_bits(words[SOURCE_LOW] as u32).into(),
            _ => Ipv6Addr::from_bits(u128::from(words[SOURCE_HIGH]) << 64 | u128::from(words[SOURCE_LOW])).into(),
        };
        let (place, upper) = ((subject & (IS_FAILURE - 1)) as usize, (subject >> 32) as u32);
        let refusal = if subject & IS_FAILURE != 0 {
            Refusal::Failed { open: ListId(upper as u8), failure: *Failure::ALL.get(place)? }
        } else {
            let table = (words[TABLE_AND_COUNT] >> 32) as u32;
            let rule = upper.checked_sub(1).map(|rule| (table, rule));
            Refusal::Dropped { reason: *Reason::ALL.get(place)?, rule }
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

impl Refusal {
    /// The subject's bits but for side and family, and the number of the table that they are of.
    fn words(self) -> (u64, u32) {
        match self {
            Refusal::Dropped { reason, rule: None } => (reason.index() as u64, 0),
            Refusal::Dropped { reason, rule: Some((table, rule)) } => {
                (reason.index() as u64 | (u64::from(rule) + 1) << 32, table)
            }
            Refusal::Failed { open, failure } => (failure as u64 | IS_FAILURE | u64::from(open.0) << 32, 0),
        }
    }
}

/// The worker's end of its history.
pub(crate) struct HistoryWriter {
    history: Arc<History>,
    /// Records that this batch may still write.
    left: u32,
    /// Whether there are any, or a source is watched.
    open: bool,
    /// Whether this batch had more.
    left_out: bool,
    /// The source to watch, and until when; seen at the beginning of a batch.
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

    /// For whoever reads.
    pub(crate) fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// A batch begins, whose first frame arrived then.
    pub(crate) fn begin(&mut self, now: Time) {
        (self.left, self.open) = (RECORDS_A_BATCH, true);
        if self.history.watch.id.load(Acquire) != self.watch {
            self.begin_watch();
        }
        self.watches = now < self.until;
    }

    /// A batch is over.
    pub(crate) fn end(&mut self, now: Time) {
        if self.left_out {
            self.left_out = false;
            self.history.left_out.store(now.as_nanos(), Release);
        }
    }

    /// Whether something can be recorded now. If not, it is noted that something was left out.
    #[inline]
    pub(crate) fn takes(&mut self) -> bool {
        self.left_out |= !self.open;
        self.open
    }

    /// Something kept so many packets of the source out, the last of which is this one. Asked for only if it
    /// [`takes`](HistoryWriter::takes) it.
    pub(crate) fn record(&mut self, source: IpAddr, refusal: Refusal, packet: LastPacket, count: u32, now: Time) {
        let (subject, table) = refusal.words();
        let mut subject = subject;
        if packet.side == Side::Inside {
            subject |= IS_INSIDE;
        }
        if source.is_ipv6() {
            subject |= IS_V6;
        }
        // All of it 0 without VLANs.
        let vlan = packet.vlan.bits();
        subject |= (vlan & 0xffff) << VLAN_LOW;
        let told = (vlan >> 16) << VLAN_HIGH
            | u64::from(packet.protocol.unwrap_or_default())
            | if packet.protocol.is_some() { HAS_PROTOCOL } else { 0 }
            | if packet.port.is_some() { HAS_PORT } else { 0 }
            | u64::from(packet.port.unwrap_or_default()) << 16;
        let words = words(source);
        let tag = folded(words.1 ^ subject ^ vlan >> 16, words.0 ^ self.history.secret ^ u64::from(table)) | 1;
        let set = if self.watches && source == self.watched {
            &self.history.watch.sets[(tag >> 8) as usize % WATCH_SETS]
        } else if self.left > 0 {
            self.left -= 1;
            self.open = self.left > 0 || self.watches;
            &self.history.sets[self.history.set_of(words)]
        } else {
            self.left_out = true;
            return;
        };
        write(set, tag, (words, subject, table), told, count, now);
    }

    /// Another source is to be watched: what was written of the last one is forgotten.
    #[cold]
    fn begin_watch(&mut self) {
        let watch = &self.history.watch;
        self.watch = watch.id.load(Acquire);
        let [high, low] = [0, 1].map(|word: usize| watch.source[word].load(Relaxed));
        self.watched = match watch.is_v6.load(Relaxed) {
            0 => Ipv4Addr::from_bits(low as u32).into(),
            _ => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
        };
        self.until = Time::from_nanos(watch.until.load(Relaxed));
        watch.seen.store(0, Release);
        watch.sets.iter().flat_map(|set| &set[0].0).for_each(|word| word.store(0, Release));
        watch.seen.store(self.watch, Release);
    }
}

/// Adds to the record, or makes it. Only the worker does so.
fn write(
    set: &RecordSet,
    tag: u64,
    ((high, low), subject, table): ((u64, u64), u64, u32),
    told: u64,
    count: u32,
    now: Time,
) {
    let (tags, lines) = set.split_first().expect("a set has a first line");
    let known = (0..WAYS).find(|way| tags.0[*way].load(Relaxed) == tag);
    let horizon = tags.0[HORIZON].load(Relaxed);
    let way = known.unwrap_or((horizon & CURSOR) as usize % WAYS);
    let record = &lines[way].0;
    let version = record[VERSION].load(Relaxed);
    // Readers see an odd version while the rest changes.
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
            record[FIRST].store(now.as_nanos(), Relaxed);
            0
        }
    };
    record[TABLE_AND_COUNT].store(u64::from(table) << 32 | u64::from(counted.saturating_add(count)), Relaxed);
    record[PACKET].store(told, Relaxed);
    record[LAST].store(now.as_nanos(), Relaxed);
    record[VERSION].store(version.wrapping_add(2), Release);
}

#[cfg(test)]
mod tests;
