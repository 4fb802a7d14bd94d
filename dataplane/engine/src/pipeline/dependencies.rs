//! The dependencies of a decision: the facts that it read or changed.
//!
//! They show how long a cache may repeat a decision. The run cache is such a cache for the packets of one batch. A
//! packet with the same key gets the same decision while
//!
//! - the decision [is cacheable](Dependencies::is_cacheable), and
//! - its dependencies [are current](Dependencies::are_current).
//!
//! A repeated decision changes only the counters of the rules that matched.
//!
//! The **key** of a packet consists of: side, VLAN tags and PPPoE session, source and destination address, protocol,
//! ports, ICMP type and code, and the length of the IP packet. A cache whose key does not contain the length must not
//! use decisions with [`Dependency::Length`]. A fragment has no key, and neither has a frame that
//! [`headers::read`](crate::headers::read) refuses: a cache that does not call this function must detect such frames
//! and pass them on.

use knockplane_policy::time::Time;

use crate::state::State;
use crate::state::lists::ShardVersion;
use crate::table::RuleTable;

/// A fact other than the key, lists and rules that a decision read or changed. A cache must not repeat a decision with
/// such a dependency without a further check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dependency {
    /// Side effect: a rule that adds to an address list matched, also if the address was in the list already.
    Addition,
    /// Side effect: the packet was evaluated at a door. The door counts its port, reads hold-off and attempts, and can
    /// change progress and grants.
    Door,
    /// Side effect: a rule that replies matched, also if a rate limit suppressed the reply.
    Reply,
    /// Side effect: a rule that logs matched.
    Log,
    /// Side effect: the packet was tracked. It can have changed the state and expiry of its connection, which rules
    /// could read. No version shows whether another packet changes the connection: only its expiry is part of
    /// [`Dependencies::until`].
    Connection,
    /// A matcher read the bytes or the rate of the connection, which each packet changes.
    ConnectionTraffic,
    /// The packet is a fragment. Its verdict depends on the first fragment of its datagram, or is stored for the later
    /// ones.
    Fragment,
    /// The packet belongs in the reorder buffer: it has pending steps.
    PendingSteps,
    /// The decision evaluated a `limit` matcher, which took tokens.
    Limit,
    /// The decision evaluated a `dst-limit` matcher, which took tokens.
    DstLimit,
    /// The decision evaluated an `nth` matcher, which counted the packet.
    Nth,
    /// The decision evaluated a `random` matcher.
    Random,
    /// The decision evaluated a `psd` matcher, which counted the port.
    Psd,
    /// The decision evaluated a `connection-limit` matcher, which counted the connection.
    ConnectionLimit,
    /// The decision evaluated a `time` matcher: it depends on the time of day, which is not part of
    /// [`Dependencies::until`].
    Time,
    /// A matcher read the stream of a connection: `layer7-protocol` or `tls-host`.
    Stream,
    /// A matcher read the payload of the packet: `content`, or `layer7-protocol` or `tls-host` without a connection.
    Payload,
    /// A matcher read a header field that is not in the key: TTL, TCP flags, an Ethernet address, ….
    HeaderField,
    /// A matcher read the length of the IP packet, which is in the key.
    Length,
}

/// A set of [`Dependency`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DependencySet(u32);

impl DependencySet {
    /// Whether the set has this element.
    pub const fn contains(self, dependency: Dependency) -> bool {
        self.0 >> dependency as u32 & 1 == 1
    }

    #[inline]
    pub(crate) const fn insert(&mut self, dependency: Dependency) {
        self.0 |= 1 << dependency as u32;
    }

    const fn without(self, dependency: Dependency) -> DependencySet {
        DependencySet(self.0 & !(1 << dependency as u32))
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The dependencies of one decision. The module documentation describes their use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// The earliest time at which a list entry or connection that the decision read expires or begins, on the clock of
    /// the packets. [`Time::NEVER`] if there is no such time. It limits only the time after the decision: a packet that
    /// arrived before the decided one may get another decision.
    pub until: Time,
    /// [`RuleTable::number`] of the rules and settings.
    pub table: u32,
    /// Version of the shard that contains the entries of the source, as of the last lookup of the source. `None` if no
    /// rule looked up the source. The version also covers entries of operators. Static entries of the rules are part of
    /// the table.
    pub source: Option<ShardVersion>,
    /// The same for the destination.
    pub destination: Option<ShardVersion>,
    /// Side effects, stateful matchers, and fields outside the key.
    pub set: DependencySet,
}

impl Dependencies {
    pub(crate) const fn on_table(table: u32) -> Dependencies {
        Dependencies { until: Time::NEVER, table, source: None, destination: None, set: DependencySet(0) }
    }

    #[inline]
    pub(crate) const fn insert(&mut self, dependency: Dependency) {
        self.set.insert(dependency);
    }

    /// Whether a packet with the same key gets the same decision, with no side effect except counters, while the
    /// dependencies are current.
    #[inline]
    pub const fn is_cacheable(&self) -> bool {
        self.set.without(Dependency::Length).is_empty()
    }

    /// Whether all packets of the flow, of any length, get the same decision while the dependencies are current. If the
    /// packet was tracked, this holds while the state of its connection is unchanged.
    #[inline]
    pub(crate) const fn hold_for_flow(&self) -> bool {
        self.set.without(Dependency::Connection).is_empty()
    }

    /// Whether the facts that the decision read are unchanged and unexpired at `now`, which must not be before the
    /// decision. The check costs one memory read for each address that was looked up.
    pub fn are_current(&self, table: &RuleTable, state: &State, now: Time) -> bool {
        let versions = [self.source, self.destination];
        now < self.until
            && self.table == table.number()
            && versions.into_iter().flatten().all(|version| state.lists.is_current_version(version))
    }
}
