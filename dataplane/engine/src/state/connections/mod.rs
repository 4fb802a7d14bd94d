//! Connections, shared by all workers: a packet and its reply usually arrive on different queues.
//!
//! The table consists of sets. Each set has a few slots and its own lock. The hash of a connection's key is keyed, so
//! that an attacker cannot choose connections that collide. The table allocates all memory when rules first need it.
//! When a set is full, a new connection replaces an expired one. If none has expired, the new connection replaces the
//! connection with the longest time since its last packet: first among closed connections and those with packets in one
//! direction only, then among those with an incomplete TCP handshake. **A new connection never replaces an established
//! one**: if all are established, the new connection is not tracked, and its packets are invalid.
//!
//! [`knockplane_policy::eval::tracking`] defines the states of a connection and their timeouts.

mod carried;
mod cut;
mod info;
mod key;
mod link;
mod payload;
mod records;
mod set;
mod slot;
#[cfg(test)]
mod tests;
mod walk;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use knockplane_policy::eval::tracking::{
    FRAGMENT_TIMEOUT, FirstFragment, FlowKey, Identity, SeenConnection, Segment, Stays, TcpConnection, TcpStep,
};
use knockplane_policy::packet::{FragmentPart, Packet, Vlan, protocol};
use knockplane_policy::rule::{ConnectionState, Tracking};
use knockplane_policy::time::Time;

pub(crate) use self::carried::DecidedConnection;
pub use self::cut::{CutConnection, EndedConnection};
pub use self::info::{AddressConnections, ConnectionInfo};
use self::key::EndIndex;
pub(crate) use self::key::{HashedKey, PackedKey, PreparedConnection};
pub(crate) use self::link::LinkHeader;
use self::payload::InspectedPayload;
use self::set::{ConnectionSet, LockedSet, WAYS};
use self::slot::Flags;
use crate::state::keyed::{Keyed, Tag, datagram};
use crate::state::layer7::PatternSet;
use crate::state::layer7::PayloadMatchers;
use crate::state::lists::ListId;
use crate::state::server_name::ServerName;

const SLOTS_PER_CONNECTION: usize = 2;

/// A table with fewer sets fits into the caches of a core: 850 kB.
const CACHED_SETS: usize = 256;

/// The maximum number of datagrams whose fragments are associated with a connection.
const DATAGRAMS: usize = 16_384;

/// The table of connections.
pub struct ConnectionTable {
    sets: Box<[ConnectionSet]>,
    secret: [u64; 2],
    fragments: Keyed<Option<FirstFragment>>,
    /// The number of connections that the table had no room for.
    refused: AtomicU64,
    serials: AtomicU64,
}

/// The number of sets for this number of connections. A power of two, because bits of the hash select the set.
fn sets(capacity: usize) -> usize {
    capacity.saturating_mul(SLOTS_PER_CONNECTION).div_ceil(WAYS).next_power_of_two()
}

/// The result of tracking a packet, before rules evaluate it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrackingResult {
    pub(crate) state: ConnectionState,
    /// The connection of the packet, or the connection that the packet is related to.
    pub(crate) flow: Option<ConnectionView>,
    pub(crate) stays: Stays,
    /// Whether the connection is not stored yet: [`ConnectionTable::observe`] without [`Storage::Deferred`] stores it.
    pub(crate) is_deferred: bool,
}

/// The rules' part of an observation.
pub(crate) struct Observation<'r> {
    pub(crate) tracking: &'r Tracking,
    /// The patterns of payload inspection, if rules inspect payloads.
    pub(crate) payload_matchers: Option<&'r PayloadMatchers>,
    pub(crate) storage: Storage,
}

/// When [`ConnectionTable::observe`] stores a connection that begins with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// At once.
    Now,
    /// When the packet is accepted, by another call. Most packets that would begin a connection are dropped, and a
    /// stored connection is some three cache lines. Not for payload inspection and connection limits, which need the
    /// stored connection.
    Deferred,
}

/// The view that rules have of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionView {
    pub(crate) key: HashedKey,
    /// Whether the packet is a reply to the originator. `None` if the packet is only related to the connection.
    pub(crate) back: Option<bool>,
    /// The end that sent the packet. `None` if the packet is only related to the connection.
    source: Option<EndIndex>,
    pub(crate) bytes: u64,
    /// IP bytes during the whole second before.
    pub(crate) last_second: u64,
    /// Expiry, if no packet follows.
    pub(crate) expiry: Time,
    pub(crate) fasttracked: bool,
    /// The open list of the door through which the connection began.
    pub(crate) door: Option<ListId>,
    /// Layer 7 patterns that have matched.
    pub(crate) patterns: PatternSet,
    /// The server name in the bytes of the packet's sender.
    pub(crate) name: ServerName,
}

impl TrackingResult {
    pub(crate) const fn without_connection(state: ConnectionState) -> TrackingResult {
        TrackingResult { state, flow: None, stays: Stays::Yes, is_deferred: false }
    }
}

impl ConnectionTable {
    /// Bytes for about `capacity` connections, with payload inspection if `inspects`.
    pub(crate) fn bytes_for(capacity: usize, inspects: bool) -> u64 {
        let payloads = if inspects { WAYS * size_of::<InspectedPayload>() } else { 0 };
        (sets(capacity) as u64).saturating_mul((size_of::<ConnectionSet>() + payloads) as u64)
    }

    /// The number of allocated bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let inspects = self.sets.first().is_some_and(|set| set.lock().inspects_payloads());
        ConnectionTable::bytes_for(self.sets.len() * WAYS / SLOTS_PER_CONNECTION, inspects)
    }

    /// The addresses of the table's memory. They stay the same.
    pub fn regions(&self) -> Vec<Range<usize>> {
        let Range { start, end } = self.sets.as_ptr_range();
        std::iter::once(start.addr()..end.addr()).collect()
    }

    /// Creates a table for about `capacity` connections.
    pub fn new(capacity: usize, secret: [u64; 2]) -> ConnectionTable {
        ConnectionTable {
            sets: (0..sets(capacity)).map(|_| ConnectionSet::new()).collect(),
            secret,
            fragments: Keyed::new(DATAGRAMS),
            refused: AtomicU64::new(0),
            serials: AtomicU64::new(0),
        }
    }

    /// Allocates the state of payload inspection, once. Existing connections are not inspected.
    pub(crate) fn inspect_payloads(&self) {
        self.sets.iter().for_each(|set| set.lock().inspect_payloads());
    }

    /// The number of packets that were invalid because the table had no room for their connection.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The number of connections now.
    pub fn count(&self, now: Time) -> u64 {
        self.sets.iter().map(|set| set.lock().known(now).count() as u64).sum()
    }

    /// All connections now: their keys, and whether both ends have sent packets.
    pub fn known(&self, now: Time) -> Vec<(FlowKey, bool)> {
        let mut connections = Vec::new();
        for set in &self.sets {
            let set = set.lock();
            let slots = set.known(now).map(|place| set.slot(place));
            connections.extend(slots.map(|slot| (slot.key().flow_key(), slot.flags().both_ways())));
        }
        connections
    }

    /// The connection of a packet of this network, according to the packet's headers. Reads no connection.
    #[inline]
    pub(crate) fn prepare(&self, packet: &Packet<'_>, vlan: Vlan) -> PreparedConnection {
        PreparedConnection::new(&Identity::of(packet, vlan), self.secret)
    }

    /// Loads the line of the connection's set that [`ConnectionTable::observe`] needs first into the cache. Takes no
    /// lock: a lock between two packets would wait for the memory of the first one.
    #[inline]
    pub(crate) fn touch_set(&self, prepared: &PreparedConnection) {
        if let Some(key) = prepared.key() {
            self.set_of(key).touch();
        }
    }

    /// Loads the connection into the cache, after [`ConnectionTable::touch_set`]. Takes no lock.
    #[inline]
    pub(crate) fn touch_slot(&self, prepared: &PreparedConnection) {
        if let Some(key) = prepared.key() {
            self.set_of(key).touch_slot(key);
        }
    }

    /// Whether loads in advance save time.
    #[inline]
    pub(crate) fn exceed_caches(&self) -> bool {
        self.sets.len() > CACHED_SETS
    }

    /// Tracks a packet. Returns the connection state of the packet. `prepared` is not used for later fragments.
    pub(crate) fn observe(
        &self,
        packet: &Packet<'_>,
        prepared: &PreparedConnection,
        part: Option<FragmentPart>,
        now: Time,
        how: &Observation<'_>,
    ) -> TrackingResult {
        let Observation { tracking, payload_matchers, storage } = *how;
        if part == Some(FragmentPart::Later) {
            let seen = self.later_fragment(packet, now, tracking, payload_matchers);
            return seen.unwrap_or(TrackingResult::without_connection(ConnectionState::Invalid));
        }
        match prepared {
            PreparedConnection::Untracked => TrackingResult::without_connection(ConnectionState::Untracked),
            PreparedConnection::Invalid => TrackingResult::without_connection(ConnectionState::Invalid),
            PreparedConnection::Quoted { key, source, sequence } => match self.related(key, *source, *sequence, now) {
                Some(flow) => {
                    TrackingResult { flow: Some(flow), ..TrackingResult::without_connection(ConnectionState::Related) }
                }
                None => TrackingResult::without_connection(ConnectionState::Invalid),
            },
            PreparedConnection::Connection { key, source, opens } => {
                let is_fragment = part == Some(FragmentPart::First);
                let storage = if is_fragment { Storage::Now } else { storage };
                let arrival = Arrival { packet, key, source: *source, now, tracking, payload_matchers, storage };
                let mut set = self.set_of(key).lock();
                let advanced = match packet.protocol {
                    protocol::TCP => Segment::of(packet, is_fragment)
                        .and_then(|segment| self.advance_tcp(&mut set, &arrival, &segment)),
                    _ => self.advance(&mut set, &arrival, *opens),
                };
                let Some(advanced) = advanced else {
                    return TrackingResult::without_connection(ConnectionState::Invalid);
                };
                let advanced = match advanced {
                    Advance::Stored(advanced) => advanced,
                    Advance::Deferred(flags) => return deferred(flags, &arrival),
                };
                if is_fragment {
                    self.remember_fragments(&arrival, advanced.counts);
                }
                set.result(&advanced, &arrival)
            }
        }
    }

    /// Removes a connection.
    pub(crate) fn forget(&self, key: &HashedKey, now: Time) {
        let set = self.set_of(key).lock();
        if let Some(place) = set.find(key, now) {
            set.remove(place);
        }
    }

    /// Lets the packets of the connection bypass the rules, from the next packet on.
    pub(crate) fn fasttrack(&self, key: &HashedKey, now: Time) {
        let set = self.set_of(key).lock();
        if let Some(place) = set.find(key, now) {
            let slot = set.slot(place);
            set.end_verdicts(place);
            slot.set_flags(slot.flags().with_fasttrack());
        }
    }

    /// Assigns the connection, which this packet begins, to the door with this open list.
    pub(crate) fn set_door(&self, packet: &Packet<'_>, key: &HashedKey, door: ListId, now: Time) {
        let mut set = self.set_of(key).lock();
        if let Some(place) = set.find(key, now) {
            let slot = set.slot(place);
            // An answer may have arrived already.
            set.end_verdicts(place);
            slot.set_flags(slot.flags().with_door(door));
            set.rare_mut(place).link = LinkHeader::of(packet);
        }
    }

    /// Sets bits of a table in a connection. Returns the connection's serial number, and whether none of the bits was set
    /// before.
    pub(crate) fn mark(&self, key: &HashedKey, table: u32, bits: u32, now: Time) -> Option<(u64, bool)> {
        let mut set = self.set_of(key).lock();
        let place = set.find(key, now)?;
        let begun = set.begun_mut(place);
        if begun.marks.0 != table {
            begun.marks = (table, 0);
        }
        let is_news = begun.marks.1 & bits == 0;
        begun.marks.1 |= bits;
        Some((begun.serial, is_news))
    }

    /// Whether the table contains the connection with this serial number and the connection is not closed.
    pub(crate) fn is_open(&self, key: PackedKey, serial: u64, now: Time) -> bool {
        let key = self.hashed(key);
        let set = self.set_of(&key).lock();
        let place = set.find(&key, now);
        place.is_some_and(|place| set.begun(place).serial == serial && !set.slot(place).flags().is_closed())
    }

    /// The connection of a packet that an ICMP error quotes, if the quoted packet can belong to that connection.
    fn related(&self, key: &HashedKey, source: EndIndex, sequence: Option<u32>, now: Time) -> Option<ConnectionView> {
        let set = self.set_of(key).lock();
        let place = set.find(key, now)?;
        let flags = set.slot(place).flags();
        let may_have_sent = |sequence| set.tcp(place, flags).may_have_sent(flags.is_reply(source), sequence);
        let fits = flags.tcp().is_none() || sequence.is_some_and(may_have_sent);
        fits.then(|| set.view(place, key, None, now))
    }

    /// Adds a packet that is not TCP to its connection, which the packet may begin. `None` if the packet cannot belong
    /// to the connection, or if there is no room.
    fn advance(&self, set: &mut LockedSet<'_>, arrival: &Arrival<'_>, opens: bool) -> Option<Advance> {
        match set.find(arrival.key, arrival.now) {
            Some(place) => {
                let flags = set.slot(place).flags();
                Some(Advance::Stored(set.count(place, flags, arrival, Stays::Yes)))
            }
            None if opens => self.begin(set, arrival, None, None),
            None => None,
        }
    }

    /// As `advance`, for a TCP segment.
    #[inline]
    fn advance_tcp(&self, set: &mut LockedSet<'_>, arrival: &Arrival<'_>, segment: &Segment<'_>) -> Option<Advance> {
        let Arrival { packet, key, source, now, tracking, payload_matchers, .. } = *arrival;
        let Some(place) = set.find(key, now) else { return self.begin_tcp(set, arrival, segment, None) };
        let slot = set.slot(place);
        let (flags, expiry) = (slot.flags(), slot.expiry());
        let mut tcp = set.tcp(place, flags);
        let is_reply = flags.is_reply(source);
        let seen = SeenConnection { is_reply, both_ways: flags.both_ways(), expiry };
        let step = tcp.step(packet, segment, seen, now, tracking);
        if step == TcpStep::Impossible {
            return None;
        }
        if step == TcpStep::Anew {
            return self.begin_tcp(set, arrival, segment, Some(place));
        }
        let swaps = tcp.take(segment, is_reply, step);
        let flags = set.set_tcp(place, flags, &tcp).with_both_ways(step == TcpStep::Cross);
        set.record_numbers(place, &tcp);
        let mut flags = if swaps { flags.with_directions_swapped() } else { flags };
        match step {
            TcpStep::Aside | TcpStep::Remember | TcpStep::Challenge | TcpStep::Cross => {
                slot.set_flags(flags);
                // An ACK in reply to a SYN is forwarded, although it does not accept the connection.
                let challenged = step == TcpStep::Challenge && !flags.is_cut();
                let state = if challenged { ConnectionState::Established } else { flags.state() };
                return Some(Advance::Stored(Advanced { place, state, stays: Stays::Yes, counts: false }));
            }
            TcpStep::Reopen => {
                // The record has the numbers of the connection before.
                set.leave_record(place, now);
                flags = flags.without_record();
                set.restart(place, payload_matchers);
            }
            _ => {}
        }
        let stays = if step == TcpStep::Over { Stays::No } else { Stays::Yes };
        Some(Advance::Stored(set.count(place, flags, arrival, stays)))
    }

    /// Begins a TCP connection with this segment, in place of the closed one in a slot if there is one.
    fn begin_tcp(
        &self,
        set: &mut LockedSet<'_>,
        arrival: &Arrival<'_>,
        segment: &Segment<'_>,
        closed: Option<usize>,
    ) -> Option<Advance> {
        let tcp = TcpConnection::begin(segment, arrival.tracking.loose_tcp)?;
        self.begin(set, arrival, Some(&tcp), closed)
    }

    /// Begins a connection, in place of the closed one with the same key if there is one: then it is never deferred,
    /// because the closed one ends also if the packet is dropped. `None` if there is no room.
    fn begin(
        &self,
        set: &mut LockedSet<'_>,
        arrival: &Arrival<'_>,
        tcp: Option<&TcpConnection>,
        closed: Option<usize>,
    ) -> Option<Advance> {
        let Arrival { packet, key, source, now, payload_matchers, storage, .. } = *arrival;
        let Some(place) = closed.or_else(|| set.room(now)) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let flags = Flags::begin(&key.key, source, packet.side);
        if closed.is_none() && storage == Storage::Deferred {
            return Some(Advance::Deferred(tcp.map_or(flags, |tcp| flags.with_tcp_flags(tcp.pack().0.flags))));
        }
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        set.begin(place, key, flags, serial, now);
        set.restart(place, payload_matchers);
        let flags = tcp.map_or(flags, |tcp| set.set_tcp(place, flags, tcp));
        Some(Advance::Stored(set.count(place, flags, arrival, Stays::IfForwarded)))
    }

    /// The connection of a later fragment. `None` if the datagram or its connection is not known.
    fn later_fragment(
        &self,
        packet: &Packet<'_>,
        now: Time,
        tracking: &Tracking,
        payload_matchers: Option<&PayloadMatchers>,
    ) -> Option<TrackingResult> {
        let first = self.datagram(packet).and_then(|datagram| self.fragments.get(datagram, now).flatten())?;
        let FirstFragment { key: flow_key, source, counts, base } = first;
        let (key, source) = (&self.hashed(PackedKey::from(&flow_key)), EndIndex::of(&flow_key, &source));
        let mut set = self.set_of(key).lock();
        let place = set.find(key, now)?;
        let slot = set.slot(place);
        let (mut flags, expiry) = (slot.flags(), slot.expiry());
        let storage = Storage::Now;
        let arrival = Arrival { packet, key, source, now, tracking, payload_matchers, storage };
        if !counts {
            let advanced = Advanced { place, state: flags.state(), stays: Stays::Yes, counts };
            return Some(set.result(&advanced, &arrival));
        }
        if let (Some(_), Some(base), Some(end)) = (flags.tcp(), base, packet.fragment_end()) {
            let mut tcp = set.tcp(place, flags);
            tcp.extend(flags.is_reply(source), base.wrapping_add(end));
            flags = set.set_tcp(place, flags, &tcp);
            set.record_numbers(place, &tcp);
        }
        let advanced = set.count(place, flags, &arrival, Stays::Yes);
        let seen = set.result(&advanced, &arrival);
        // A fragment does not shorten the lifetime, because its checksum cannot be verified.
        slot.set_expiry(slot.expiry().max(expiry));
        Some(seen)
    }

    fn remember_fragments(&self, arrival: &Arrival<'_>, counts: bool) {
        let Arrival { packet, key, source, now, .. } = *arrival;
        if let Some(datagram) = self.datagram(packet) {
            let key = key.key.flow_key();
            let source = key.ends[source.index()];
            let base = Segment::of(packet, true).map(|segment| segment.base());
            self.fragments.with(datagram, now, |known| {
                *known = Some(FirstFragment { key, source, counts, base });
                ((), now + FRAGMENT_TIMEOUT)
            });
        }
    }

    fn datagram(&self, packet: &Packet<'_>) -> Option<Tag> {
        datagram(self.secret, packet, 0)
    }

    fn hashed(&self, key: PackedKey) -> HashedKey {
        key.hashed(self.secret)
    }

    #[inline]
    fn index_of(&self, key: &HashedKey) -> usize {
        key.hash as usize & (self.sets.len() - 1)
    }

    #[inline]
    fn set_of(&self, key: &HashedKey) -> &ConnectionSet {
        &self.sets[self.index_of(key)]
    }
}

/// A packet with the key of its connection, and the end of the key that sent it.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    packet: &'a Packet<'a>,
    key: &'a HashedKey,
    source: EndIndex,
    now: Time,
    tracking: &'a Tracking,
    payload_matchers: Option<&'a PayloadMatchers>,
    storage: Storage,
}

/// A packet of a connection.
enum Advance {
    /// It was added to the connection in a slot.
    Stored(Advanced),
    /// It begins a connection with these flags, which is not stored.
    Deferred(Flags),
}

/// The result for a packet that begins a connection with these flags, which is not stored.
fn deferred(flags: Flags, arrival: &Arrival<'_>) -> TrackingResult {
    let flow = ConnectionView {
        key: *arrival.key,
        back: Some(false),
        source: Some(arrival.source),
        bytes: arrival.packet.ip_length.into(),
        last_second: 0,
        expiry: arrival.now + flags.timeout(arrival.tracking, arrival.key.key.protocol()),
        fasttracked: false,
        door: None,
        patterns: PatternSet::default(),
        name: ServerName::Unknown,
    };
    TrackingResult { state: flags.state(), flow: Some(flow), stays: Stays::IfForwarded, is_deferred: true }
}

/// A packet that was added to the connection in a slot.
struct Advanced {
    place: usize,
    state: ConnectionState,
    stays: Stays,
    /// Whether the packet refreshed the connection.
    counts: bool,
}

impl LockedSet<'_> {
    /// Resets the slot's state of payload inspection for a new connection.
    fn restart(&mut self, place: usize, payload_matchers: Option<&PayloadMatchers>) {
        // The inspection state of the slot's last connection is void, even if rules inspect nothing now.
        if let Some(payload) = self.payload_mut(place) {
            *payload = payload_matchers.map_or_else(InspectedPayload::default, InspectedPayload::new);
        }
    }

    /// Adds the packet to the connection in this slot, and stores the connection's flags.
    #[inline]
    fn count(&mut self, place: usize, flags: Flags, arrival: &Arrival<'_>, stays: Stays) -> Advanced {
        let Arrival { packet, key, source, now, tracking, payload_matchers, .. } = *arrival;
        let is_reply = flags.is_reply(source);
        let flags = flags.with_both_ways(is_reply);
        let slot = self.slot(place);
        slot.count(flags, packet.ip_length, now);
        slot.set_expiry(now + flags.timeout(tracking, key.key.protocol()));
        if let (Some(payload), Some(payload_matchers)) = (self.payload_mut(place), payload_matchers) {
            payload.inspect(packet, is_reply, payload_matchers);
        }
        Advanced { place, state: flags.state(), stays, counts: true }
    }

    /// The result for a packet that was added to its connection.
    #[inline]
    fn result(&self, advanced: &Advanced, arrival: &Arrival<'_>) -> TrackingResult {
        let Advanced { place, state, stays, .. } = *advanced;
        let flow = Some(self.view(place, arrival.key, Some(arrival.source), arrival.now));
        TrackingResult { state, flow, stays, is_deferred: false }
    }

    /// The view that rules have of a connection; `source` is the source of the packet, if the packet belongs to the
    /// connection itself.
    #[inline]
    fn view(&self, place: usize, key: &HashedKey, source: Option<EndIndex>, now: Time) -> ConnectionView {
        let (slot, payload) = (self.slot(place), self.payload(place));
        let flags = slot.flags();
        let back = source.map(|source| flags.is_reply(source));
        ConnectionView {
            key: *key,
            back,
            source,
            bytes: slot.bytes(),
            last_second: slot.last_second(now),
            expiry: slot.expiry(),
            fasttracked: flags.fasttracked(),
            door: flags.door(),
            patterns: payload.map_or_else(PatternSet::default, InspectedPayload::patterns),
            name: payload.zip(back).map_or(ServerName::Unknown, |(payload, back)| payload.name(back)),
        }
    }
}
