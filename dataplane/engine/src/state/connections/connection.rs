//! One connection.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use knockplane_policy::eval::tracking::{End, FlowKey, TcpConnection, timeout};
use knockplane_policy::packet::{Packet, Side, Vlan};
use knockplane_policy::rule::{ConnectionState, Tracking};
use knockplane_policy::time::Time;

use super::link::LinkHeader;
use crate::state::layer7::PayloadMatchers;
use crate::state::layer7::{PatternProgress, PatternSet};
use crate::state::lists::ListId;
use crate::state::server_name::{ServerName, ServerNameStream};

/// The state of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackedConnection {
    pub(super) key: FlowKey,
    /// The end of the key that sent the first packet.
    originator: u8,
    /// The side that the first packet came from.
    pub(super) side: Side,
    pub(super) both_ways: bool,
    pub(super) fasttracked: bool,
    /// The open list of the door whose rule accepted the first packet.
    pub(super) door: Option<ListId>,
    pub(super) tcp: Option<TcpConnection>,
    /// The link header of the packet that a door's rule accepted.
    pub(super) link: LinkHeader,
    /// The time when the door cut the connection or when the last resets were sent.
    pub(super) cut: Option<Time>,
    /// The arrival time of the last packet.
    pub(super) last: Time,
    pub(super) expiry: Time,
    /// A unique serial number.
    pub(super) serial: u64,
    /// IP bytes so far, in both directions.
    pub(super) bytes: u64,
    /// A second of the clock, its bytes so far, and the bytes of the second before.
    second: (u64, u64, u64),
    /// The number of a table, and one bit for each of its `connection-limit` matchers that the connection has reached.
    pub(super) marks: (u32, u32),
}

/// Minimum time between two resets to the same end.
const RESET_INTERVAL: Duration = Duration::from_secs(1);

const NO_END: End = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl TrackedConnection {
    /// A free slot.
    pub(super) const NONE: TrackedConnection = TrackedConnection {
        key: FlowKey { vlan: Vlan::NONE, protocol: 0, query: (0, 0), ends: [NO_END; 2] },
        originator: 0,
        side: Side::Outside,
        both_ways: false,
        fasttracked: false,
        door: None,
        tcp: None,
        link: LinkHeader::NONE,
        cut: None,
        last: Time::from_nanos(0),
        expiry: Time::from_nanos(0),
        serial: 0,
        bytes: 0,
        second: (0, 0, 0),
        marks: (0, 0),
    };

    pub(super) fn new(
        key: FlowKey,
        originator: End,
        side: Side,
        serial: u64,
        tcp: Option<TcpConnection>,
    ) -> TrackedConnection {
        TrackedConnection {
            key,
            originator: u8::from(key.ends[0] != originator),
            side,
            serial,
            tcp,
            ..TrackedConnection::NONE
        }
    }

    /// Whether a packet from this end is a reply to the originator.
    #[inline]
    pub(super) fn is_reply(&self, source: &End) -> bool {
        self.key.ends[usize::from(self.originator & 1)] != *source
    }

    /// The originator and the responder.
    pub(super) fn originator_and_responder(&self) -> (End, End) {
        let first = usize::from(self.originator & 1);
        (self.key.ends[first], self.key.ends[1 - first])
    }

    /// Swaps the originator and the responder.
    pub(super) fn swap_direction(&mut self) {
        self.originator ^= 1;
        self.side = self.side.opposite();
    }

    /// The lifetime of the connection after its last packet.
    #[inline]
    pub(super) fn timeout(&self, tracking: &Tracking) -> Duration {
        timeout(tracking, self.key.protocol, self.tcp.as_ref().map(TcpConnection::state), self.both_ways)
    }

    pub(super) fn is_known(&self, now: Time) -> bool {
        now < self.expiry
    }

    /// Whether both sides have closed the connection, or one side has aborted it.
    pub(super) fn is_closed(&self) -> bool {
        self.tcp.as_ref().is_some_and(TcpConnection::is_closed)
    }

    /// Whether the ends of the connection need a reset.
    pub(super) fn wants_reset(&self, now: Time) -> bool {
        self.tcp.is_some()
            && match self.cut {
                None => !self.is_closed(),
                Some(at) => self.last > at && now.since(at) >= RESET_INTERVAL,
            }
    }

    pub(super) const fn state(&self) -> ConnectionState {
        match (self.cut, self.both_ways) {
            (Some(_), _) => ConnectionState::Invalid,
            (None, true) => ConnectionState::Established,
            (None, false) => ConnectionState::New,
        }
    }

    /// Whether the connection cannot be evicted.
    pub(super) fn stays(&self, now: Time) -> bool {
        self.rank(now).0 == 3
    }

    /// The rank of the connection for eviction. The lowest rank is evicted first.
    pub(super) fn rank(&self, now: Time) -> (u8, Time) {
        let rank = match self {
            flow if !flow.is_known(now) => 0,
            flow if flow.is_closed() || !flow.both_ways => 1,
            flow if flow.tcp.as_ref().is_some_and(TcpConnection::is_opening) => 2,
            _ => 3,
        };
        (rank, self.last)
    }

    pub(super) fn count(&mut self, ip_length: u32, now: Time) {
        self.last = now;
        self.bytes += u64::from(ip_length);
        let (last, before) = (self.last_second(now), &mut self.second);
        let second = now.as_nanos() / 1_000_000_000;
        if before.0 != second {
            *before = (second, 0, last);
        }
        before.1 += u64::from(ip_length);
    }

    /// IP bytes in both directions during the whole second of the clock before this one.
    pub(super) fn last_second(&self, now: Time) -> u64 {
        let (second, bytes, before) = self.second;
        match (now.as_nanos() / 1_000_000_000).checked_sub(second) {
            Some(0) => before,
            Some(1) => bytes,
            _ => 0,
        }
    }
}

/// The state of payload inspection of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InspectedPayload {
    /// The id of the patterns; the state of other patterns is void.
    payload_matchers: u64,
    patterns: PatternProgress,
    /// The layer 7 streams of the originator and of the responder.
    streams: [ServerNameStream; 2],
}

impl InspectedPayload {
    pub(super) fn new(payload_matchers: &PayloadMatchers) -> InspectedPayload {
        InspectedPayload {
            payload_matchers: payload_matchers.id,
            patterns: payload_matchers.patterns.begin(),
            streams: Default::default(),
        }
    }

    /// A connection that began under other patterns matches none of the new ones, because its first bytes were not
    /// kept.
    pub(super) fn inspect(&mut self, packet: &Packet<'_>, back: bool, payload_matchers: &PayloadMatchers) {
        if self.payload_matchers != payload_matchers.id {
            *self = InspectedPayload {
                payload_matchers: payload_matchers.id,
                patterns: PatternProgress::over(),
                streams: [ServerNameStream::over(); 2],
            };
        }
        payload_matchers.patterns.go_on(&mut self.patterns, packet.payload);
        self.streams[usize::from(back)].push(packet, &payload_matchers.names);
    }

    pub(super) const fn patterns(&self) -> PatternSet {
        self.patterns.found
    }

    pub(super) fn name(&self, back: bool) -> ServerName {
        self.streams[usize::from(back)].server_name()
    }
}
