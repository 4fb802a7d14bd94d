//! The fast path: verdicts about flows that the XDP program applies, so that their frames do not come up.
//!
//! ```text
//! worker ─ write ──► verdicts ─┐
//! changes ─ bump ──► epochs ───┼──► XDP program: redirects, or passes the frame up
//! manager ─ switch ► control ──┘         └─► cells ──► counters
//! ```
//! The maps are arrays in memory that this process and the program share: a write is no system call. The layouts are
//! those of `bpf/fast_path.h`.
//!
//! A verdict counts while all of its conditions hold: the generation is the present one, its time has not come, and the
//! sum of its epochs is unchanged. So nothing is searched for when something changes: whoever changes an address bumps
//! its epoch, and whoever changes everything begins another generation. A changer that must know that no frame passes by
//! an old verdict waits for the programs that run ([`FastPath::wait_for_programs`]).
//!
//! **Order.** A writer reads the generation first, then everything that the decision depends on with its epochs, and
//! then writes the verdict. A changer changes first and bumps then. A verdict that overlaps a change therefore never
//! counts.
//!
//! A place of the table is reused when its verdict does not count any more, or when its flow has had no packets for
//! [`IDLE`]. A flow that finds no place stays in userspace. No flow displaces another.

mod flow;
mod grace;
mod losses;
mod shared;
mod strangers;
mod sync;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use knockplane_policy::carried::{CarriedConnection, ConnectionRecord, Epoch};
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use libbpf_rs::{MapCore as _, MapFlags};

pub use self::flow::Flow;
use self::flow::WORDS;
use self::grace::GracePeriod;
pub use self::losses::{LostFrames, RedirectLosses};
use self::shared::SharedWords;
pub use self::strangers::Strangers;
use crate::device::Device;
use crate::error::RingError;
use crate::program::{LOAD_REMEDY, load_tables, map};

/// Constants of `bpf/fast_path.h`.
const REGIONS: usize = 16;
const PROBES: u64 = 8;
const HOST_BITS: u32 = 18;
const EPOCHS_OF_A_LINE: usize = 16;
const TRAIL_BITS: u32 = 8;
const RECORD_SHIFT: u32 = 9;
/// The number of trails, by which carried packets are counted.
pub const TRAILS: usize = 1 << TRAIL_BITS;

/// The highest number of records that a verdict can name.
const MAX_RECORDS: usize = (1 << (u32::BITS - RECORD_SHIFT)) - 1;

/// Places of the fields of `struct fast_control`, in words of 32 bits.
mod control {
    pub(super) const GENERATION: usize = 0;
    pub(super) const MAX_FRAME: usize = 1;
    pub(super) const MAY_SEND: usize = 2;
    pub(super) const MASK: usize = 4;
    pub(super) const IS_USED: usize = 14;
    /// Bytes of the whole.
    pub(super) const BYTES: usize = 64;
}

/// The same for its fields of 64 bits, in words of this size.
mod wide_control {
    pub(super) const SECRET: usize = 3;
    pub(super) const NOW: usize = 4;
    pub(super) const TIMEOUTS: usize = 5;
}

/// Bytes of a place of each family, and of a cell.
const PLACE_BYTES: [usize; 2] = [64, 128];
const CELL_BYTES: usize = 32;

/// The time without packets after which the place of a flow may be reused.
const IDLE: Duration = Duration::from_secs(60);

/// The fewest places of a region.
const MIN_REGION: usize = 64;

/// The sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathSizes {
    /// Flows of each family: IPv4, IPv6. Rounded up to a power of two for each queue.
    pub flows: [usize; 2],
    /// Epochs: a power of two, at least 16.
    pub epochs: usize,
    /// Records of connections: one for each slot of their table.
    pub records: usize,
    /// Places of sources: a power of two, at least 64.
    pub sources: usize,
}

impl FastPathSizes {
    /// The places of a region for each family, with this number of queues.
    fn regions(&self, queues: u32) -> [usize; 2] {
        self.flows.map(|flows| flows.div_ceil(queues as usize * REGIONS).next_power_of_two().max(MIN_REGION))
    }

    /// The places of each family.
    fn places(&self, queues: u32) -> [usize; 2] {
        self.regions(queues).map(|region| region * REGIONS * queues as usize)
    }

    /// The number of records in memory: connections in further slots are not carried.
    fn record_count(&self) -> usize {
        self.records.clamp(1, MAX_RECORDS)
    }

    /// The memory of the maps of these sizes, in bytes. The maps of fixed size take some 4 MiB more.
    pub fn bytes(&self, queues: u32) -> u64 {
        let [v4, v6] = self.places(queues);
        let verdicts = v4 * PLACE_BYTES[0] + v6 * PLACE_BYTES[1];
        let records = self.record_count() * size_of::<CarriedConnection>();
        let cells = TRAILS * cores() * CELL_BYTES;
        (verdicts + self.epochs * size_of::<u32>() + records + cells + self.sources / 8) as u64
    }

    /// The number of entries of each map that the loader must size.
    pub(crate) fn map_entries(&self, queues: u32) -> [(&'static str, u32); 7] {
        let [v4, v6] = self.places(queues);
        let cells = (TRAILS * cores()) as u32;
        [
            ("verdicts4", v4 as u32),
            ("verdicts6", v6 as u32),
            ("epochs", (self.epochs / EPOCHS_OF_A_LINE) as u32),
            ("records", self.record_count() as u32),
            ("cells", cells),
            ("known", (self.sources / u64::BITS as usize) as u32),
            ("samples", queues),
        ]
    }
}

/// The maps of fixed size that only the fast path uses: without it, the loader gives them one entry.
pub(crate) const FIXED_MAPS: [&str; 7] = ["hosts", "classes", "passed", "tried", "named4", "named6", "named_hosts"];

/// Number of cores on which the program may run.
fn cores() -> usize {
    libbpf_rs::num_possible_cpus().unwrap_or(1)
}

/// The tables of the fast path, shared with the XDP program.
pub struct FastPath {
    /// Owns the maps, and no program.
    maps: libbpf_rs::Object,
    control: SharedWords,
    verdicts: [SharedWords; 2],
    epochs: Arc<Epochs>,
    records: Arc<Records>,
    hosts: SharedWords,
    cells: SharedWords,
    strangers: Strangers,
    /// Places of a region of each family, less one.
    masks: [u64; 2],
    queues: u32,
    secret: u64,
    cores: usize,
    /// The last generation.
    last_generation: AtomicU32,
    grace: GracePeriod,
}

/// The values of all epochs, by their places.
pub struct Epochs {
    words: SharedWords,
}

impl AsRef<[AtomicU32]> for Epochs {
    fn as_ref(&self) -> &[AtomicU32] {
        self.words.of_32_bits()
    }
}

/// The records of connections.
pub struct Records {
    words: SharedWords,
}

impl AsRef<[CarriedConnection]> for Records {
    fn as_ref(&self) -> &[CarriedConnection] {
        self.words.of_records()
    }
}

/// A verdict: that the packets of a flow leave on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowVerdict {
    /// The generation at the time of the decision.
    pub generation: u32,
    /// The time at which the verdict ends.
    pub until: Time,
    /// The epochs of the source, the destination and static entries; the default for those that the decision does not
    /// depend on.
    pub epochs: [Epoch; 3],
    /// The number under which packets are counted: below [`TRAILS`].
    pub trail: u16,
    /// The connection, if packets are tracked.
    pub connection: Option<ConnectionRecord>,
}

/// The outcome of [`FastPath::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The flow is in the table.
    Stored,
    /// All places of the flow have other flows.
    Full,
}

/// Counted packets of a trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarriedCounts {
    /// Packets.
    pub packets: u64,
    /// Bytes of these packets, from the IP header on.
    pub ip_bytes: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
}

/// The words of a place behind its key.
const STATE: usize = 0;
const UNTIL: usize = 1;
const EPOCHS: usize = 2;
const MORE_EPOCHS: usize = 3;
const SUM_AND_TRAIL: usize = 4;
const LAST: usize = 5;

/// A place of the table.
struct Place<'t> {
    key: &'t [AtomicU64],
    verdict: &'t [AtomicU64],
}

impl Place<'_> {
    fn generation(&self) -> u32 {
        (self.verdict[STATE].load(Relaxed) >> 32) as u32
    }

    fn has(&self, flow: &Flow) -> bool {
        self.key.iter().zip(flow.words()).all(|(word, of_flow)| word.load(Relaxed) == *of_flow)
    }

    /// Writes a verdict. The program ignores the place meanwhile.
    fn write(&self, flow: &Flow, verdict: &FlowVerdict, now: Time) {
        let sequence = self.verdict[STATE].load(Relaxed) as u32 | 1;
        let state = |sequence: u32| u64::from(sequence) | u64::from(verdict.generation) << 32;
        self.verdict[STATE].store(state(sequence), Relaxed);
        // The program reads the sequence before and after the other words.
        fence(Release);
        for (word, of_flow) in self.key.iter().zip(flow.words()) {
            word.store(*of_flow, Relaxed);
        }
        let [source, destination, static_entries] = verdict.epochs.map(|epoch| u64::from(epoch.place));
        let (connection, tracked) =
            verdict.connection.map_or((0, 0), |ConnectionRecord { record, epoch, is_reply }| {
                (u64::from(epoch), u64::from(record + 1) << RECORD_SHIFT | u64::from(is_reply) << TRAIL_BITS)
            });
        let sum = verdict.epochs.iter().fold(0_u32, |sum, epoch| sum.wrapping_add(epoch.value));
        for (word, value) in [
            (UNTIL, verdict.until.as_nanos()),
            (EPOCHS, source | destination << 32),
            (MORE_EPOCHS, static_entries | connection << 32),
            (SUM_AND_TRAIL, u64::from(sum) | (u64::from(verdict.trail) | tracked) << 32),
            (LAST, now.as_nanos()),
        ] {
            self.verdict[word].store(value, Relaxed);
        }
        self.verdict[STATE].store(state(sequence.wrapping_add(1)), Release);
    }
}

impl FastPath {
    /// Creates the tables for programs with `queues` receive queues on these interfaces. They are off: no verdict counts before
    /// [`FastPath::resume`]. `secret` determines the places of flows; `max_frame` is as for
    /// [`LoadedProgram::load`](crate::LoadedProgram::load). The kernel writes the whole memory of the tables: some 10 ms.
    ///
    /// # Errors
    /// If the kernel does not create or map them.
    pub fn create(
        devices: [&Device; 2],
        sizes: &FastPathSizes,
        queues: u32,
        secret: u64,
        max_frame: u32,
    ) -> Result<FastPath, RingError> {
        let maps = load_tables(sizes, queues).map_err(|error| {
            RingError::system("cannot create the tables of the fast path", io::Error::other(error), LOAD_REMEDY)
        })?;
        for (side, device) in (0..).zip(devices) {
            set_peer(&maps, side, device)?;
        }
        let open = |maps: libbpf_rs::Object| -> io::Result<FastPath> {
            let object = &maps;
            let words = |name: &str, bytes: usize| SharedWords::of_map(map(object, name).as_fd(), bytes);
            let ([v4, v6], regions) = (sizes.places(queues), sizes.regions(queues));
            Ok(FastPath {
                control: words("fast_control", control::BYTES)?,
                verdicts: [words("verdicts4", v4 * PLACE_BYTES[0])?, words("verdicts6", v6 * PLACE_BYTES[1])?],
                epochs: Arc::new(Epochs { words: words("epochs", sizes.epochs * size_of::<u32>())? }),
                records: Arc::new(Records {
                    words: words("records", sizes.record_count() * size_of::<CarriedConnection>())?,
                }),
                hosts: words("hosts", (1 << HOST_BITS) / 8)?,
                cells: words("cells", TRAILS * cores() * CELL_BYTES)?,
                strangers: Strangers::open(object, sizes.sources, secret)?,
                masks: regions.map(|region| region as u64 - 1),
                queues,
                secret,
                cores: cores(),
                last_generation: AtomicU32::new(0),
                grace: GracePeriod::new()?,
                maps,
            })
        };
        let fast_path =
            open(maps).map_err(|error| RingError::system("cannot map the tables of the fast path", error, ""))?;
        for (word, mask) in fast_path.control()[control::MASK..].iter().zip(fast_path.masks) {
            word.store(mask as u32, Relaxed);
        }
        fast_path.control.of_64_bits()[wide_control::SECRET].store(secret, Relaxed);
        fast_path.set_max_frame(max_frame);
        Ok(fast_path)
    }

    /// The maps of the tables.
    pub(crate) const fn maps(&self) -> &libbpf_rs::Object {
        &self.maps
    }

    fn control(&self) -> &[AtomicU32] {
        self.control.of_32_bits()
    }

    /// The epochs, for whoever changes addresses.
    pub fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(&self.epochs)
    }

    /// The records of connections, for their table.
    pub fn records(&self) -> Arc<Records> {
        Arc::clone(&self.records)
    }

    /// The tables by which the program drops frames of strangers.
    pub const fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// Sets the times after which connections expire without packets: established ones of TCP, and those of UDP with packets
    /// in both directions.
    pub fn set_timeouts(&self, timeouts: [Duration; 2]) {
        for (word, timeout) in self.control.of_64_bits()[wide_control::TIMEOUTS..].iter().zip(timeouts) {
            word.store(timeout.as_nanos().try_into().unwrap_or(i64::MAX as u64), Release);
        }
    }

    /// The present generation; `None` while no verdict counts. A writer reads it before everything else that a decision
    /// depends on.
    #[inline]
    pub fn generation(&self) -> Option<u32> {
        Some(self.control()[control::GENERATION].load(Acquire)).filter(|generation| *generation != 0)
    }

    /// Ends all verdicts. None counts before [`FastPath::resume`]. A program that runs may still apply one, see
    /// [`FastPath::wait_for_programs`].
    pub fn suspend(&self) {
        self.control()[control::GENERATION].store(0, Ordering::SeqCst);
    }

    /// Begins another generation. Verdicts of all earlier ones do not count.
    pub fn resume(&self) {
        let next = self.last_generation.load(Relaxed).checked_add(1).unwrap_or(1);
        self.last_generation.store(next, Relaxed);
        for bits in self.hosts.of_64_bits() {
            bits.store(0, Relaxed);
        }
        // Until a verdict is written, frames come up unread.
        self.control()[control::IS_USED].store(0, Relaxed);
        self.strangers.wait_for_decisions();
        self.control()[control::GENERATION].store(next, Release);
    }

    /// Sets the longest frame that is carried, in bytes, with Ethernet header and VLAN tags.
    pub fn set_max_frame(&self, bytes: u32) {
        self.control()[control::MAX_FRAME].store(bytes, Release);
    }

    /// Sets the time of the program, for tests.
    pub fn set_clock(&self, now: Time) {
        self.control.of_64_bits()[wide_control::NOW].store(now.as_nanos(), Relaxed);
    }

    /// Permits or forbids frames to leave on this side.
    pub fn set_may_send(&self, side: Side, may_send: bool) {
        self.control()[control::MAY_SEND + side.index()].store(may_send.into(), Release);
    }

    /// Waits until no program applies a verdict that it read before, and all frames that were redirected by one have
    /// been handed to the interface: some 5 to 20 ms.
    ///
    /// # Errors
    /// If the kernel refuses. Then it is unknown whether such a program runs.
    pub fn wait_for_programs(&self) -> io::Result<()> {
        self.grace.wait()
    }

    /// Writes the verdict of a flow that arrives on this queue. Only the worker of the queue calls this.
    pub fn write(&self, queue: u32, flow: &Flow, verdict: &FlowVerdict, now: Time) -> Written {
        debug_assert!(queue < self.queues && usize::from(verdict.trail) < TRAILS);
        let outer = flow.outer_hash(self.secret);
        let mut found = None;
        for place in self.places(queue, flow, outer) {
            let is_unused = place.generation() != verdict.generation;
            if !is_unused && place.has(flow) {
                found = Some(place);
                break;
            }
            if found.is_none() && self.is_free(&place, verdict.generation, now) {
                found = Some(place);
            }
            if is_unused {
                // The program's search ends here, too: the flow has no place behind it.
                break;
            }
        }
        let Some(place) = found else { return Written::Full };
        place.write(flow, verdict, now);
        let is_used = &self.control()[control::IS_USED];
        if is_used.load(Relaxed) == 0 {
            is_used.store(1, Release);
        }
        let bit = outer as u32 & ((1 << HOST_BITS) - 1);
        self.hosts.of_64_bits()[bit as usize / 64].fetch_or(1 << (bit % 64), Release);
        Written::Stored
    }

    /// The places at which the verdict of a flow can be, in the order of the program's search.
    fn places(&self, queue: u32, flow: &Flow, outer: u64) -> impl Iterator<Item = Place<'_>> {
        let family = flow.family();
        let (mask, hash) = (self.masks[family], flow.hash(self.secret));
        let region = u64::from(queue) * REGIONS as u64 + (outer >> (u64::BITS - REGIONS.ilog2()));
        (0..PROBES).filter_map(move |probe| {
            let index = region * (mask + 1) + (u64::from((hash.wrapping_add(probe)) as u32) & mask);
            self.place(family, index as usize)
        })
    }

    /// A place of a family's table.
    fn place(&self, family: usize, index: usize) -> Option<Place<'_>> {
        let words = PLACE_BYTES[family] / size_of::<u64>();
        let place = self.verdicts[family].of_64_bits().get(index * words..(index + 1) * words)?;
        let (key, verdict) = place.split_at(WORDS[family]);
        Some(Place { key, verdict })
    }

    /// Whether the verdict at a place does not count any more, or its flow has had no packets for long.
    fn is_free(&self, place: &Place<'_>, generation: u32, now: Time) -> bool {
        if place.generation() != generation {
            return true;
        }
        let word = |word: usize| place.verdict[word].load(Relaxed);
        let [until, last] = [UNTIL, LAST].map(|at| Time::from_nanos(word(at)));
        let [first, second] = [EPOCHS, MORE_EPOCHS].map(word);
        let (sum, record) = (word(SUM_AND_TRAIL) as u32, (word(SUM_AND_TRAIL) >> (32 + RECORD_SHIFT)) as usize);
        let records: &[CarriedConnection] = (*self.records).as_ref();
        let record = record.checked_sub(1).and_then(|record| records.get(record));
        let has_ended = record.is_some_and(|record| record.epoch() != (second >> 32) as u32);
        let epochs: &[AtomicU32] = (*self.epochs).as_ref();
        let epoch = |place: u32| epochs.get(place as usize).map_or(0, |epoch| epoch.load(Acquire));
        let places = [first as u32, (first >> 32) as u32, second as u32];
        let present = places.into_iter().map(epoch).fold(0, u32::wrapping_add);
        has_ended || now >= until || sum != present || now.since(last) >= IDLE
    }

    /// The number of flows whose verdicts count now, of each family. Reads the whole table.
    pub fn flows(&self, now: Time) -> [u64; 2] {
        self.flows_in_sample(now, usize::MAX)
    }

    /// As [`FastPath::flows`], from at most this number of places of each family. Flows are in random places, so a part of a
    /// table stands for all of it.
    pub fn flows_in_sample(&self, now: Time, most: usize) -> [u64; 2] {
        let Some(generation) = self.generation() else { return [0, 0] };
        let capacity = self.capacity();
        [0, 1].map(|family: usize| {
            let capacity = capacity[family] as usize;
            // An odd step reads the first and the last places of sets equally often.
            let step = match capacity.div_ceil(most) {
                0 | 1 => 1,
                step => step | 1,
            };
            let places = (0..capacity).step_by(step).filter_map(|index| self.place(family, index));
            places.filter(|place| !self.is_free(place, generation, now)).count() as u64 * step as u64
        })
    }

    /// The time until which the program carries a flow if nothing changes, on any queue; `None` if it does not carry it.
    pub fn carried_until(&self, flow: &Flow, now: Time) -> Option<Time> {
        let (generation, outer) = (self.generation()?, flow.outer_hash(self.secret));
        let places = (0..self.queues).flat_map(|queue| self.places(queue, flow, outer));
        let mut found = places.filter(|place| place.has(flow) && !self.is_free(place, generation, now));
        found.next().map(|place| Time::from_nanos(place.verdict[UNTIL].load(Relaxed)))
    }

    /// The number of places of each family.
    pub fn capacity(&self) -> [u64; 2] {
        self.masks.map(|mask| (mask + 1) * REGIONS as u64 * u64::from(self.queues))
    }

    /// The number of places for IPv4 flows that arrive on one queue.
    pub fn flows_of_queue(&self) -> usize {
        (self.masks[0] as usize + 1) * REGIONS
    }

    /// The packets of this trail that the program has carried or dropped since start, on all cores.
    pub fn carried(&self, trail: u16) -> CarriedCounts {
        let cells = self.cells.of_64_bits();
        let mut sum = CarriedCounts::default();
        for core in 0..self.cores {
            let first = (core * TRAILS + usize::from(trail)) * CELL_BYTES / size_of::<u64>();
            let word = |word: usize| cells.get(first + word).map_or(0, |word| word.load(Acquire));
            sum.packets += word(0);
            sum.ip_bytes += word(1);
            sum.frame_bytes += word(2);
        }
        sum
    }
}

/// Sets the interface to which frames that leave on this side are redirected.
fn set_peer(object: &libbpf_rs::Object, side: u32, device: &Device) -> Result<(), RingError> {
    map(object, "peers")
        .update(&side.to_ne_bytes(), &device.index().to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| RingError::system("cannot write the program's targets", io::Error::other(error), ""))
}
