//! The part of a connection that each of its packets reads or writes: two cache lines.
//!
//! ```text
//! line of the key       key | flags | largest windows            read by every packet, seldom written
//! line of the counters  expiry | last | bytes | rate | sequences  written by every packet
//! ```
//! A slot consists of atomics, so that [`Slot::touch`] can load its lines without a lock. All other reads and all
//! writes happen under the lock of the slot's set; therefore relaxed order suffices.

use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use knockplane_policy::eval::tracking::{PackedTcp, TcpState, WindowNumbers, timeout};
use knockplane_policy::packet::{Side, protocol};
use knockplane_policy::rule::{ConnectionState, Tracking};
use knockplane_policy::time::Time;

use super::key::{EndIndex, PackedKey};
use crate::state::list_set::ListId;

/// A slot of the table. It is aligned to two cache lines, because processors fetch such pairs together.
#[repr(C, align(128))]
pub(super) struct Slot {
    key: [AtomicU64; PackedKey::WORDS],
    flags: AtomicU64,
    windows: [AtomicU32; 2],
    expiry: AtomicU64,
    /// The arrival time of the last packet.
    last: AtomicU64,
    /// IP bytes so far, in both directions.
    bytes: AtomicU64,
    /// The low halves of [`ByteRate`].
    rate: [AtomicU32; 2],
    sequences: [AtomicU32; 8],
}

/// Properties of a connection in bits, as a slot stores them.
///
/// | bits | content |
/// |---|---|
/// | 0–23 | [`PackedTcp::flags`] |
/// | 24–31 | one bit each: [`Flags::SIDE`] and the following constants |
/// | 32–39 | the open list of the door through which the connection began |
/// | 40 | [`Flags::HAS_RECORD`] |
/// | 48–63 | the high parts of [`ByteRate`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u64);

/// The bytes of a connection during the second of its last packet, and during the second before. A larger number than
/// [`ByteRate::MOST`] does not occur.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteRate {
    bytes: u64,
    before: u64,
}

impl Flags {
    const TCP: u64 = (1 << PackedTcp::FLAG_BITS) - 1;
    /// The side that the first packet came from.
    const SIDE: u64 = 1 << 24;
    /// The position of the originator in the key.
    const ORIGINATOR: u64 = 1 << 25;
    const EQUAL_ENDS: u64 = 1 << 26;
    const IS_TCP: u64 = 1 << 27;
    const BOTH_WAYS: u64 = 1 << 28;
    const FASTTRACKED: u64 = 1 << 29;
    const CUT: u64 = 1 << 30;
    const HAS_DOOR: u64 = 1 << 31;
    const DOOR: u32 = 32;
    /// The fast path has a record of the connection.
    const HAS_RECORD: u64 = 1 << 40;
    /// Positions of the high parts of [`ByteRate`].
    const RATE: [u32; 2] = [48, 56];
    const BOTH_RATES: u64 = 0xffff << Flags::RATE[0];

    /// The flags of a connection that this end begins, from this side.
    pub(super) fn begin(key: &PackedKey, EndIndex(originator): EndIndex, side: Side) -> Flags {
        let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
        Flags(
            flag(side == Side::Inside, Flags::SIDE)
                | flag(originator != 0, Flags::ORIGINATOR)
                | flag(key.has_equal_ends(), Flags::EQUAL_ENDS)
                | flag(key.protocol() == protocol::TCP, Flags::IS_TCP),
        )
    }

    const fn contains(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    const fn with(self, flag: u64) -> Flags {
        Flags(self.0 | flag)
    }

    pub(super) const fn side(self) -> Side {
        if self.contains(Flags::SIDE) { Side::Inside } else { Side::Outside }
    }

    /// The position of the originator in the key.
    pub(super) const fn originator(self) -> usize {
        self.contains(Flags::ORIGINATOR) as usize
    }

    /// Whether a packet from this end is a reply to the originator.
    #[inline]
    pub(super) const fn is_reply(self, EndIndex(source): EndIndex) -> bool {
        self.originator() != source as usize && !self.contains(Flags::EQUAL_ENDS)
    }

    /// Whether both ends have sent packets.
    pub(super) const fn both_ways(self) -> bool {
        self.contains(Flags::BOTH_WAYS)
    }

    #[inline]
    pub(super) const fn with_both_ways(self, both_ways: bool) -> Flags {
        if both_ways { self.with(Flags::BOTH_WAYS) } else { self }
    }

    /// Whether packets of the connection bypass the rules.
    pub(super) const fn fasttracked(self) -> bool {
        self.contains(Flags::FASTTRACKED)
    }

    pub(super) const fn with_fasttrack(self) -> Flags {
        self.with(Flags::FASTTRACKED)
    }

    /// Whether the kernel may carry the connection, or has carried it.
    #[inline]
    pub(super) const fn was_carried(self) -> bool {
        self.contains(Flags::HAS_RECORD)
    }

    pub(super) const fn with_record(self) -> Flags {
        self.with(Flags::HAS_RECORD)
    }

    pub(super) const fn without_record(self) -> Flags {
        Flags(self.0 & !Flags::HAS_RECORD)
    }

    /// Whether a door has cut the connection.
    pub(super) const fn is_cut(self) -> bool {
        self.contains(Flags::CUT)
    }

    /// Packets of a connection that is cut do not bypass the rules.
    pub(super) const fn with_cut(self) -> Flags {
        Flags(self.0 & !Flags::FASTTRACKED).with(Flags::CUT)
    }

    /// The open list of the door whose rule accepted the first packet.
    pub(super) const fn door(self) -> Option<ListId> {
        if self.contains(Flags::HAS_DOOR) { Some(ListId((self.0 >> Flags::DOOR) as u8)) } else { None }
    }

    pub(super) const fn with_door(self, ListId(door): ListId) -> Flags {
        Flags(self.0 & !(0xff << Flags::DOOR) | (door as u64) << Flags::DOOR | Flags::HAS_DOOR)
    }

    /// Swaps the originator and the responder.
    pub(super) const fn with_directions_swapped(self) -> Flags {
        Flags(self.0 ^ Flags::ORIGINATOR ^ Flags::SIDE)
    }

    /// The flags of [`PackedTcp`].
    #[inline]
    pub(super) const fn tcp_flags(self) -> u32 {
        (self.0 & Flags::TCP) as u32
    }

    #[inline]
    pub(super) const fn with_tcp_flags(self, tcp: u32) -> Flags {
        Flags(self.0 & !Flags::TCP | tcp as u64)
    }

    /// The TCP state; `None` for other protocols.
    #[inline]
    pub(super) fn tcp(self) -> Option<TcpState> {
        self.contains(Flags::IS_TCP).then(|| PackedTcp::state(self.tcp_flags()))
    }

    #[inline]
    pub(super) const fn state(self) -> ConnectionState {
        match (self.is_cut(), self.both_ways()) {
            (true, _) => ConnectionState::Invalid,
            (false, true) => ConnectionState::Established,
            (false, false) => ConnectionState::New,
        }
    }

    /// Whether both sides have closed the connection, or one side has aborted it.
    pub(super) fn is_closed(self) -> bool {
        self.tcp().is_some_and(TcpState::is_closed)
    }

    /// The lifetime of the connection after its last packet.
    #[inline]
    pub(super) fn timeout(self, tracking: &Tracking, protocol: u8) -> Duration {
        timeout(tracking, protocol, self.tcp(), self.both_ways())
    }

    /// The rank of a known connection for eviction. The lowest rank is evicted first.
    pub(super) fn rank(self) -> EvictionRank {
        match self.tcp() {
            _ if !self.both_ways() => EvictionRank::ClosedOrOneWay,
            Some(state) if state.is_closed() => EvictionRank::ClosedOrOneWay,
            Some(state) if state.is_opening() => EvictionRank::Opening,
            _ => EvictionRank::Established,
        }
    }
}

/// The order in which new connections replace known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionRank {
    ClosedOrOneWay,
    Opening,
    /// The connection cannot be evicted.
    Established,
}

impl ByteRate {
    /// A connection with more bytes in a second would need 8 Tbit/s.
    const MOST: u64 = (1 << 40) - 1;

    /// The rate after a packet; `last` is the arrival of the packet before.
    #[inline]
    fn count(self, last: Time, ip_length: u32, now: Time) -> ByteRate {
        let before = self.last_second(last, now);
        let bytes = if second(last) == second(now) { self.bytes } else { 0 };
        ByteRate { bytes: (bytes + u64::from(ip_length)).min(ByteRate::MOST), before }
    }

    /// IP bytes in both directions during the whole second of the clock before this one; `last` is the arrival of the
    /// last packet.
    #[inline]
    fn last_second(self, last: Time, now: Time) -> u64 {
        match second(now).checked_sub(second(last)) {
            Some(0) => self.before,
            Some(1) => self.bytes,
            _ => 0,
        }
    }
}

/// The second of the clock.
#[inline]
const fn second(time: Time) -> u64 {
    time.as_nanos() / 1_000_000_000
}

#[inline]
fn load64(field: &AtomicU64) -> u64 {
    field.load(Relaxed)
}

#[inline]
fn load32(field: &AtomicU32) -> u32 {
    field.load(Relaxed)
}

/// Stores a number that seldom changes: without a change, the cache line stays clean and shared.
#[inline]
fn update64(field: &AtomicU64, value: u64) {
    if load64(field) != value {
        field.store(value, Relaxed);
    }
}

#[inline]
fn update32(field: &AtomicU32, value: u32) {
    if load32(field) != value {
        field.store(value, Relaxed);
    }
}

impl Slot {
    /// A free slot.
    pub(super) const fn new() -> Slot {
        Slot {
            key: [const { AtomicU64::new(0) }; PackedKey::WORDS],
            flags: AtomicU64::new(0),
            windows: [const { AtomicU32::new(0) }; 2],
            expiry: AtomicU64::new(0),
            last: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rate: [const { AtomicU32::new(0) }; 2],
            sequences: [const { AtomicU32::new(0) }; 8],
        }
    }

    /// Loads both lines into the cache. Needs no lock.
    #[inline]
    pub(super) fn touch(&self) {
        black_box(load64(&self.flags) ^ load64(&self.expiry));
    }

    /// Begins a connection without packets.
    pub(super) fn begin(&self, key: &PackedKey, flags: Flags, now: Time) {
        self.key.iter().zip(key.words()).for_each(|(field, word)| field.store(word, Relaxed));
        self.flags.store(flags.0, Relaxed);
        self.last.store(now.as_nanos(), Relaxed);
        self.bytes.store(0, Relaxed);
        self.rate.iter().for_each(|half| half.store(0, Relaxed));
    }

    #[inline]
    pub(super) fn has_key(&self, key: &PackedKey) -> bool {
        let differs =
            self.key.iter().zip(key.words()).fold(0, |differs, (field, word)| differs | (load64(field) ^ word));
        differs == 0
    }

    pub(super) fn key(&self) -> PackedKey {
        PackedKey::from_words(self.key.each_ref().map(load64))
    }

    #[inline]
    pub(super) fn flags(&self) -> Flags {
        Flags(load64(&self.flags))
    }

    #[inline]
    pub(super) fn set_flags(&self, flags: Flags) {
        update64(&self.flags, flags.0);
    }

    #[inline]
    pub(super) fn expiry(&self) -> Time {
        Time::from_nanos(load64(&self.expiry))
    }

    #[inline]
    pub(super) fn set_expiry(&self, expiry: Time) {
        self.expiry.store(expiry.as_nanos(), Relaxed);
    }

    /// Ends the connection, whatever the kernel records later.
    pub(super) fn end(&self) {
        self.set_expiry(Time::default());
    }

    /// Whether [`Slot::end`] has ended the connection.
    pub(super) fn has_ended(&self) -> bool {
        self.expiry() == Time::default()
    }

    #[inline]
    pub(super) fn is_known(&self, now: Time) -> bool {
        now < self.expiry()
    }

    /// The arrival time of the last packet.
    pub(super) fn last(&self) -> Time {
        Time::from_nanos(load64(&self.last))
    }

    /// IP bytes so far, in both directions.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        load64(&self.bytes)
    }

    /// IP bytes in both directions during the whole second of the clock before this one.
    #[inline]
    pub(super) fn last_second(&self, now: Time) -> u64 {
        self.rate(self.flags()).last_second(self.last(), now)
    }

    #[inline]
    fn rate(&self, Flags(flags): Flags) -> ByteRate {
        let part = |index: usize| {
            let high = flags >> Flags::RATE[index] & 0xff;
            high << 32 | u64::from(load32(&self.rate[index]))
        };
        ByteRate { bytes: part(0), before: part(1) }
    }

    /// Counts a packet of the connection with these flags, and stores the flags.
    #[inline]
    pub(super) fn count(&self, flags: Flags, ip_length: u32, now: Time) {
        let ByteRate { bytes, before } = self.rate(flags).count(self.last(), ip_length, now);
        for (half, value) in self.rate.iter().zip([bytes, before]) {
            half.store(value as u32, Relaxed);
        }
        let high = (bytes >> 32) << Flags::RATE[0] | (before >> 32) << Flags::RATE[1];
        self.set_flags(Flags(flags.0 & !Flags::BOTH_RATES | high));
        self.last.store(now.as_nanos(), Relaxed);
        self.bytes.store(self.bytes() + u64::from(ip_length), Relaxed);
    }

    /// Adds packets that the kernel has forwarded: the time of the last one, their IP bytes, and the numbers after them.
    /// The connection lives as long after its last packet as before. The bytes do not count for the rate.
    pub(super) fn add_carried(&self, last: Time, bytes: u64, WindowNumbers { windows, sequences }: &WindowNumbers) {
        let before = self.last();
        if last > before {
            let lifetime = self.expiry().since(before);
            self.last.store(last.as_nanos(), Relaxed);
            self.set_expiry(last + lifetime);
        }
        if bytes > 0 {
            self.bytes.store(self.bytes() + bytes, Relaxed);
        }
        if self.flags().tcp().is_some() {
            for (field, number) in self.sequences.iter().zip(sequences) {
                if (load32(field).wrapping_sub(*number) as i32) < 0 {
                    field.store(*number, Relaxed);
                }
            }
            for (field, number) in self.windows.iter().zip(windows) {
                update32(field, load32(field).max(*number));
            }
        }
    }

    /// The TCP connection with these flags.
    #[inline]
    pub(super) fn tcp(&self, flags: Flags) -> PackedTcp {
        let numbers = WindowNumbers {
            windows: self.windows.each_ref().map(load32),
            sequences: self.sequences.each_ref().map(load32),
        };
        PackedTcp { flags: flags.tcp_flags(), numbers }
    }

    /// Stores the numbers of a TCP connection. The caller stores its flags.
    #[inline]
    pub(super) fn set_numbers(&self, WindowNumbers { windows, sequences }: &WindowNumbers) {
        self.windows.iter().zip(windows).for_each(|(field, number)| update32(field, *number));
        // The line of these numbers changes with every packet.
        self.sequences.iter().zip(sequences).for_each(|(field, number)| field.store(*number, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_two_cache_lines() {
        assert_eq!((size_of::<Slot>(), std::mem::offset_of!(Slot, expiry)), (128, 64));
    }

    #[test]
    fn rates_beyond_32_bits_are_exact() {
        let slot = Slot::new();
        let at = |second: u64| Time::from_nanos(second * 1_000_000_000 + 5);
        let flags = Flags(0).with_door(ListId(255)).with_tcp_flags((1 << PackedTcp::FLAG_BITS) - 1);
        slot.begin(&PackedKey::from_words([0; PackedKey::WORDS]), flags, at(7));
        (0..300).for_each(|_| slot.count(slot.flags(), u32::MAX, at(7)));
        assert_eq!((slot.last_second(at(7)), slot.last_second(at(8))), (0, ByteRate::MOST));
        slot.count(slot.flags(), 40, at(8));
        (0..2).for_each(|_| slot.count(slot.flags(), u32::MAX, at(8)));
        let bytes = 40 + 2 * u64::from(u32::MAX);
        let seconds = [7, 8, 9, 10].map(|second| slot.last_second(at(second)));
        assert_eq!(seconds, [0, ByteRate::MOST, bytes, 0]);
        slot.count(slot.flags(), 1, at(10));
        assert_eq!((slot.last_second(at(10)), slot.last_second(at(11))), (0, 1));
        assert_eq!((slot.bytes(), slot.flags()), (bytes + 300 * u64::from(u32::MAX) + 1, flags));
    }
}
