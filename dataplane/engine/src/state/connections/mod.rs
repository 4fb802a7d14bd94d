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

mod connection;
mod cut;
mod info;
mod link;
#[cfg(test)]
mod tests;
mod walk;

use std::hash::Hasher as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use knockplane_policy::eval::tracking::{
    End, FRAGMENT_TIMEOUT, FirstFragment, FlowKey, Identity, Quoted, SeenConnection, Segment, Stays, TcpConnection,
    TcpStep,
};
use knockplane_policy::packet::{FragmentPart, Packet, Vlan, protocol};
use knockplane_policy::rule::{ConnectionState, Tracking};
use knockplane_policy::time::Time;

use self::connection::{InspectedPayload, TrackedConnection};
pub use self::cut::CutConnection;
pub use self::info::{AddressConnections, ConnectionInfo};
pub(crate) use self::link::LinkHeader;
use crate::state::keyed::{Keyed, Tag, datagram, tag, write_address, write_vlan};
use crate::state::layer7::PatternSet;
use crate::state::layer7::PayloadMatchers;
use crate::state::lists::ListId;
use crate::state::server_name::ServerName;

/// Slots of a set. With twice as many slots as the configured number of connections, about one set in some hundred is
/// full at the limit.
const WAYS: usize = 16;
const SLOTS_PER_CONNECTION: usize = 2;

/// The maximum number of datagrams whose fragments are associated with a connection.
const DATAGRAMS: usize = 16_384;

/// The table of connections.
pub struct ConnectionTable {
    sets: Box<[Mutex<ConnectionSet>]>,
    secret: [u64; 2],
    fragments: Keyed<Option<FirstFragment>>,
    /// The number of connections that the table had no room for.
    refused: AtomicU64,
    serials: AtomicU64,
}

struct ConnectionSet {
    /// Parts of the keys' hashes, to find connections in one cache line; 0 for a slot that was never used.
    tags: [u32; WAYS],
    slots: Box<[TrackedConnection; WAYS]>,
    /// The state of payload inspection, if rules inspect payloads.
    payloads: Option<Box<[InspectedPayload; WAYS]>>,
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
}

/// The view that rules have of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionView {
    pub(crate) key: FlowKey,
    /// Whether the packet is a reply to the originator. `None` if the packet is only related to the connection.
    pub(crate) back: Option<bool>,
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
        TrackingResult { state, flow: None, stays: Stays::Yes }
    }
}

impl ConnectionTable {
    /// Bytes for about `capacity` connections, with payload inspection if `inspects`.
    pub(crate) fn bytes_for(capacity: usize, inspects: bool) -> u64 {
        let set = size_of::<Mutex<ConnectionSet>>() + WAYS * size_of::<TrackedConnection>();
        let payloads = if inspects { WAYS * size_of::<InspectedPayload>() } else { 0 };
        (sets(capacity) as u64).saturating_mul((set + payloads) as u64)
    }

    /// The number of allocated bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let inspects = self.sets.first().is_some_and(|set| lock(set).payloads.is_some());
        ConnectionTable::bytes_for(self.sets.len() * WAYS / SLOTS_PER_CONNECTION, inspects)
    }

    /// The addresses of the table's memory. They stay the same.
    pub fn regions(&self) -> Vec<Range<usize>> {
        let Range { start, end } = self.sets.as_ptr_range();
        vec![start.addr()..end.addr()]
    }

    /// Creates a table for about `capacity` connections.
    pub fn new(capacity: usize, secret: [u64; 2]) -> ConnectionTable {
        let sets = sets(capacity);
        let set =
            || ConnectionSet { tags: [0; WAYS], slots: Box::new([TrackedConnection::NONE; WAYS]), payloads: None };
        ConnectionTable {
            sets: (0..sets).map(|_| Mutex::new(set())).collect(),
            secret,
            fragments: Keyed::new(DATAGRAMS),
            refused: AtomicU64::new(0),
            serials: AtomicU64::new(0),
        }
    }

    /// Allocates the state of payload inspection, once. Existing connections are not inspected.
    pub(crate) fn inspect_payloads(&self) {
        for set in &self.sets {
            lock(set).payloads.get_or_insert_with(|| Box::new([InspectedPayload::default(); WAYS]));
        }
    }

    /// The number of packets that were invalid because the table had no room for their connection.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The number of connections now.
    pub fn count(&self, now: Time) -> u64 {
        let known =
            |set: &Mutex<ConnectionSet>| lock(set).slots.iter().filter(|flow| flow.is_known(now)).count() as u64;
        self.sets.iter().map(known).sum()
    }

    /// All connections now: their keys, and whether both ends have sent packets.
    pub fn known(&self, now: Time) -> Vec<(FlowKey, bool)> {
        let known = |set: &Mutex<ConnectionSet>| {
            let set = lock(set);
            let live = set.slots.iter().filter(|flow| flow.is_known(now));
            live.map(|flow| (flow.key, flow.both_ways)).collect::<Vec<_>>()
        };
        self.sets.iter().flat_map(known).collect()
    }

    /// Tracks a packet of this network. Returns the connection state of the packet.
    pub(crate) fn observe(
        &self,
        packet: &Packet<'_>,
        vlan: Vlan,
        part: Option<FragmentPart>,
        now: Time,
        tracking: &Tracking,
        payload_matchers: Option<&PayloadMatchers>,
    ) -> TrackingResult {
        if part == Some(FragmentPart::Later) {
            let seen = self.later_fragment(packet, now, tracking, payload_matchers);
            return seen.unwrap_or(TrackingResult::without_connection(ConnectionState::Invalid));
        }
        match Identity::of(packet, vlan) {
            Identity::Untracked => TrackingResult::without_connection(ConnectionState::Untracked),
            Identity::Unknown => TrackingResult::without_connection(ConnectionState::Invalid),
            Identity::Error { about } => match about.and_then(|quoted| self.related(&quoted, now)) {
                Some(flow) => {
                    TrackingResult { flow: Some(flow), ..TrackingResult::without_connection(ConnectionState::Related) }
                }
                None => TrackingResult::without_connection(ConnectionState::Invalid),
            },
            Identity::Connection { key, source, opens } => {
                let is_fragment = part == Some(FragmentPart::First);
                let arrival = Arrival { packet, key, source, now };
                let advanced = match packet.protocol {
                    protocol::TCP => Segment::of(packet, is_fragment)
                        .and_then(|segment| self.advance_tcp(&arrival, &segment, tracking, payload_matchers)),
                    _ => self.advance(&arrival, opens, tracking, payload_matchers),
                };
                let Some((seen, counts)) = advanced else {
                    return TrackingResult::without_connection(ConnectionState::Invalid);
                };
                if is_fragment {
                    let base = Segment::of(packet, is_fragment).map(|segment| segment.base());
                    self.remember_fragments(packet, FirstFragment { key, source, counts, base }, now);
                }
                seen
            }
        }
    }

    /// Removes a connection: sets its expiry to now.
    pub(crate) fn forget(&self, key: &FlowKey, now: Time) {
        let (hash, set) = self.set_of(key);
        let mut set = lock(set);
        if let Some(place) = set.find(hash, key, now) {
            set.slots[place].expiry = now;
        }
    }

    /// Lets the packets of the connection bypass the rules, from the next packet on.
    pub(crate) fn fasttrack(&self, key: &FlowKey, now: Time) {
        let (hash, set) = self.set_of(key);
        let mut set = lock(set);
        if let Some(place) = set.find(hash, key, now) {
            set.slots[place].fasttracked = true;
        }
    }

    /// Assigns the connection, which this packet begins, to the door with this open list.
    pub(crate) fn set_door(&self, packet: &Packet<'_>, key: &FlowKey, door: ListId, now: Time) {
        let (hash, set) = self.set_of(key);
        let mut set = lock(set);
        if let Some(place) = set.find(hash, key, now) {
            let flow = &mut set.slots[place];
            (flow.door, flow.link) = (Some(door), LinkHeader::of(packet));
        }
    }

    /// Sets one of the bits of a table in a connection. Returns the connection's serial number, and whether the bit was
    /// not set before.
    pub(crate) fn mark(&self, key: &FlowKey, table: u32, bit: u32, now: Time) -> Option<(u64, bool)> {
        let (hash, set) = self.set_of(key);
        let mut set = lock(set);
        let place = set.find(hash, key, now)?;
        let flow = &mut set.slots[place];
        if flow.marks.0 != table {
            flow.marks = (table, 0);
        }
        let is_news = flow.marks.1 & bit == 0;
        flow.marks.1 |= bit;
        Some((flow.serial, is_news))
    }

    /// Whether the table contains the connection with this serial number and the connection is not closed.
    pub(crate) fn is_open(&self, key: &FlowKey, serial: u64, now: Time) -> bool {
        let (hash, set) = self.set_of(key);
        let set = lock(set);
        set.find(hash, key, now).is_some_and(|place| {
            let flow = &set.slots[place];
            flow.serial == serial && !flow.is_closed()
        })
    }

    /// The connection of a packet that an ICMP error quotes, if the quoted packet can belong to that connection.
    fn related(&self, quoted: &Quoted, now: Time) -> Option<ConnectionView> {
        let (hash, set) = self.set_of(&quoted.key);
        let set = lock(set);
        let place = set.find(hash, &quoted.key, now)?;
        let flow = &set.slots[place];
        let fits = flow.tcp.as_ref().is_none_or(|tcp| {
            quoted.sequence.is_some_and(|sequence| tcp.may_have_sent(flow.is_reply(&quoted.source), sequence))
        });
        fits.then(|| set.seen(place, None, now))
    }

    /// Adds a packet that is not TCP to its connection, which the packet may begin. Returns whether the packet
    /// refreshes the connection. `None` if the packet cannot belong to the connection, or if there is no room.
    fn advance(
        &self,
        arrival: &Arrival<'_>,
        opens: bool,
        tracking: &Tracking,
        payload_matchers: Option<&PayloadMatchers>,
    ) -> Option<(TrackingResult, bool)> {
        let (hash, set) = self.set_of(&arrival.key);
        let mut set = lock(set);
        let (place, stays) = match set.find(hash, &arrival.key, arrival.now) {
            Some(place) => (place, Stays::Yes),
            None if opens => (self.begin(&mut set, hash, arrival, None, payload_matchers)?, Stays::IfForwarded),
            None => return None,
        };
        Some((set.count(place, arrival, tracking, payload_matchers, stays), true))
    }

    /// As `advance`, for a TCP segment.
    fn advance_tcp(
        &self,
        arrival: &Arrival<'_>,
        segment: &Segment<'_>,
        tracking: &Tracking,
        payload_matchers: Option<&PayloadMatchers>,
    ) -> Option<(TrackingResult, bool)> {
        let Arrival { packet, key, source, now } = arrival;
        let (hash, set) = self.set_of(key);
        let mut set = lock(set);
        let known = set.find(hash, key, *now);
        let step = known.map_or(TcpStep::Anew, |place| {
            let flow = &set.slots[place];
            let seen =
                SeenConnection { is_reply: flow.is_reply(source), both_ways: flow.both_ways, expiry: flow.expiry };
            let step = |tcp: &TcpConnection| tcp.step(packet, segment, seen, *now, tracking);
            flow.tcp.as_ref().map_or(TcpStep::Impossible, step)
        });
        let (place, stays) = match (step, known) {
            (TcpStep::Anew, _) | (_, None) => {
                let tcp = TcpConnection::begin(segment, tracking.loose_tcp)?;
                // Replaces the closed connection with this key, if there is one.
                let place = self.begin(&mut set, hash, arrival, Some(tcp), payload_matchers)?;
                (place, Stays::IfForwarded)
            }
            (TcpStep::Impossible, _) => return None,
            (_, Some(place)) => {
                let flow = &mut set.slots[place];
                let back = flow.is_reply(source);
                if flow.tcp.as_mut().is_some_and(|tcp| tcp.take(segment, back, step)) {
                    flow.swap_direction();
                }
                flow.both_ways |= step == TcpStep::Cross;
                match step {
                    TcpStep::Aside | TcpStep::Remember | TcpStep::Challenge | TcpStep::Cross => {
                        // An ACK in reply to a SYN is forwarded, although it does not accept the connection.
                        let challenged = step == TcpStep::Challenge && flow.cut.is_none();
                        let state = if challenged { ConnectionState::Established } else { flow.state() };
                        let flow = Some(set.seen(place, Some(source), *now));
                        return Some((TrackingResult { state, flow, stays: Stays::Yes }, false));
                    }
                    TcpStep::Reopen => set.restart(place, payload_matchers),
                    _ => {}
                }
                (place, if step == TcpStep::Over { Stays::No } else { Stays::Yes })
            }
        };
        Some((set.count(place, arrival, tracking, payload_matchers, stays), true))
    }

    /// Begins a connection. The connection replaces one with the same key. `None` if there is no room.
    fn begin(
        &self,
        set: &mut ConnectionSet,
        hash: u32,
        arrival: &Arrival<'_>,
        tcp: Option<TcpConnection>,
        payload_matchers: Option<&PayloadMatchers>,
    ) -> Option<usize> {
        let Some(place) = set.find(hash, &arrival.key, arrival.now).or_else(|| set.room(arrival.now)) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        set.tags[place] = hash;
        set.slots[place] = TrackedConnection::new(arrival.key, arrival.source, arrival.packet.side, serial, tcp);
        set.restart(place, payload_matchers);
        Some(place)
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
        let FirstFragment { key, source, counts, base } = first;
        let (hash, set) = self.set_of(&key);
        let mut set = lock(set);
        let place = set.find(hash, &key, now)?;
        if !counts {
            let (state, flow) = (set.slots[place].state(), Some(set.seen(place, Some(&source), now)));
            return Some(TrackingResult { state, flow, stays: Stays::Yes });
        }
        let flow = &mut set.slots[place];
        let (back, expiry) = (flow.is_reply(&source), flow.expiry);
        if let (Some(tcp), Some(base), Some(end)) = (&mut flow.tcp, base, packet.fragment_end()) {
            tcp.extend(back, base.wrapping_add(end));
        }
        let seen = set.count(place, &Arrival { packet, key, source, now }, tracking, payload_matchers, Stays::Yes);
        // A fragment does not shorten the lifetime, because its checksum cannot be verified.
        let flow = &mut set.slots[place];
        flow.expiry = flow.expiry.max(expiry);
        Some(seen)
    }

    fn remember_fragments(&self, packet: &Packet<'_>, first: FirstFragment, now: Time) {
        if let Some(datagram) = self.datagram(packet) {
            self.fragments.with(datagram, now, |known| {
                *known = Some(first);
                ((), now + FRAGMENT_TIMEOUT)
            });
        }
    }

    fn datagram(&self, packet: &Packet<'_>) -> Option<Tag> {
        datagram(self.secret, packet, 0)
    }

    /// The set of the connection, and its tag in the set.
    fn set_of(&self, key: &FlowKey) -> (u32, &Mutex<ConnectionSet>) {
        let hash = tag(self.secret, |hasher| {
            for (address, port) in &key.ends {
                write_address(hasher, *address);
                hasher.write_u16(*port);
            }
            hasher.write(&[key.protocol, key.query.0, key.query.1]);
            write_vlan(hasher, key.vlan);
        });
        // 0 marks a free slot.
        ((hash >> 64) as u32 | 1, &self.sets[hash as usize & (self.sets.len() - 1)])
    }
}

/// A packet with the key of its connection.
struct Arrival<'a> {
    packet: &'a Packet<'a>,
    key: FlowKey,
    source: End,
    now: Time,
}

impl ConnectionSet {
    fn find(&self, tag: u32, key: &FlowKey, now: Time) -> Option<usize> {
        (0..WAYS).find(|place| {
            let flow = &self.slots[*place];
            self.tags[*place] == tag && flow.is_known(now) && flow.key == *key
        })
    }

    /// A slot for a new connection. `None` if all connections are established.
    fn room(&self, now: Time) -> Option<usize> {
        let rank = |place: &usize| self.slots[*place].rank(now);
        (0..WAYS).min_by_key(rank).filter(|place| !self.slots[*place].stays(now))
    }

    /// Resets the slot's state of payload inspection for a new connection.
    fn restart(&mut self, place: usize, payload_matchers: Option<&PayloadMatchers>) {
        // The inspection state of the slot's last connection is void, even if rules inspect nothing now.
        if let Some(payloads) = &mut self.payloads {
            payloads[place] = payload_matchers.map_or_else(InspectedPayload::default, InspectedPayload::new);
        }
    }

    /// Adds the packet to its connection. Returns the state of the packet.
    #[inline]
    fn count(
        &mut self,
        place: usize,
        arrival: &Arrival<'_>,
        tracking: &Tracking,
        payload_matchers: Option<&PayloadMatchers>,
        stays: Stays,
    ) -> TrackingResult {
        let Arrival { packet, source, now, .. } = arrival;
        let flow = &mut self.slots[place];
        let back = flow.is_reply(source);
        flow.both_ways |= back;
        flow.count(packet.ip_length, *now);
        flow.expiry = *now + flow.timeout(tracking);
        let state = flow.state();
        if let (Some(payloads), Some(payload_matchers)) = (&mut self.payloads, payload_matchers) {
            payloads[place].inspect(packet, back, payload_matchers);
        }
        TrackingResult { state, flow: Some(self.seen(place, Some(source), *now)), stays }
    }

    /// The view that rules have of a connection; `source` is the source of the packet, if the packet belongs to the
    /// connection itself.
    fn seen(&self, place: usize, source: Option<&End>, now: Time) -> ConnectionView {
        let flow = &self.slots[place];
        let payload = self.payloads.as_ref().map(|payloads| &payloads[place]);
        let back = source.map(|source| flow.is_reply(source));
        ConnectionView {
            key: flow.key,
            back,
            bytes: flow.bytes,
            last_second: flow.last_second(now),
            expiry: flow.expiry,
            fasttracked: flow.fasttracked,
            door: flow.door,
            patterns: payload.map_or_else(PatternSet::default, InspectedPayload::patterns),
            name: payload.zip(back).map_or(ServerName::Unknown, |(payload, back)| payload.name(back)),
        }
    }
}

fn lock(set: &Mutex<ConnectionSet>) -> MutexGuard<'_, ConnectionSet> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
