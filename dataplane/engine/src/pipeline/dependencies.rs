//! The facts that a decision depended on.
//!
//! A cache of decisions needs them to know how long it may repeat a decision. The run cache is such a cache for the
//! packets of one batch. A decision for a packet with the same key is the same as long as
//!
//! - the decision [is cacheable](Dependencies::is_cacheable), and
//! - its dependencies [are current](Dependencies::are_current).
//!
//! Repeating such a decision changes nothing but the counters of the rules that matched.
//!
//! The **key** of a packet consists of: side, VLAN tags and PPPoE session, source and destination address, protocol,
//! ports, ICMP type and code, and the length of the IP packet. A cache whose key lacks the length must not use decisions
//! with [`Dependency::Length`]. A fragment has no key, and neither has a frame that [`headers::read`](crate::headers::read)
//! refuses: a cache that does not call it must itself pass on such frames.

use knockplane_policy::time::Time;

use crate::state::State;
use crate::state::lists::ShardVersion;
use crate::table::RuleTable;

/// Something other than the key, lists and rules that a decision read or changed. Each one is at least a reason not to
/// repeat the decision without a closer look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dependency {
    /// Side effect: a rule that adds to an address list matched, also if the address was in the list already.
    Addition,
    /// Side effect: the packet met a door. That counts its port, reads hold-off and attempts, and can change progress and
    /// grants.
    Door,
    /// Side effect: a rule that replies matched, also if a rate limit suppressed the reply.
    Reply,
    /// Side effect: a rule that logs matched.
    Log,
    /// Side effect: connection tracking saw the packet. It can have changed the state and expiry of its connection, and
    /// rules could read both. No version says whether another packet changes the connection: only its expiry is part of
    /// [`Dependencies::until`].
    Connection,
    /// The packet is a fragment. Its verdict depends on the first fragment of its datagram, or is noted for the others.
    Fragment,
    /// The packet belongs in the reorder buffer: it has pending steps.
    PendingSteps,
    /// A `limit` matcher was asked, and took tokens.
    Limit,
    /// A `dst-limit` matcher was asked, and took tokens.
    DstLimit,
    /// An `nth` matcher was asked, and counted the packet.
    Nth,
    /// A `random` matcher was asked.
    Random,
    /// A `psd` matcher was asked, and counted the port.
    Psd,
    /// A `connection-limit` matcher was asked, and counted the connection.
    ConnectionLimit,
    /// A `time` matcher was asked: the decision depends on the time of day, which is not part of [`Dependencies::until`].
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

/// The facts that one decision depended on. See the module documentation for their use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// Point in time, on the clock of the packets, before which no list entry and no connection that the decision read
    /// expires or begins. [`Time::NEVER`] if nothing that was read has an end. It bounds times after the decision only: a
    /// packet that arrived before the decided one may get another decision.
    pub until: Time,
    /// [`RuleTable::number`] of the rules and settings.
    pub table: u32,
    /// Version of the shard that holds the entries of the source, as of the last lookup of the source. `None` if no rule
    /// looked it up. Entries of the rules' own lists are part of the table, those of operators of each shard.
    pub source: Option<ShardVersion>,
    /// The same for the destination.
    pub destination: Option<ShardVersion>,
    /// Side effects, matchers with memory, and fields outside the key.
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

    /// Whether a packet with the same key gets the same decision, with no side effect but counters, as long as the
    /// dependencies are current.
    #[inline]
    pub const fn is_cacheable(&self) -> bool {
        self.set.without(Dependency::Length).is_empty()
    }

    /// Whether nothing that the decision read has changed or expired by `now`, which is not before the decision. A memory
    /// read for each address that was looked up.
    pub fn are_current(&self, table: &RuleTable, state: &State, now: Time) -> bool {
        let versions = [self.source, self.destination];
        now < self.until
            && self.table == table.number()
            && versions.into_iter().flatten().all(|version| state.lists.is_current_version(version))
    }
}
