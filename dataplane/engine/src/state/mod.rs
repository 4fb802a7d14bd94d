//! The state that packets change and that outlives rule sets: address lists, connections, doors, and a few limits.

pub mod connections;
pub mod doors;
pub mod events;
pub(crate) mod key;
mod keyed;
pub(crate) mod lanes;
pub mod layer7;
pub mod list_set;
pub mod lists;
pub(crate) mod matchers;
pub(crate) mod range_tree;
pub(crate) mod server_name;
pub(crate) mod static_entries;
mod sync;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam::utils::CachePadded;
use knockplane_policy::carried::CarriedConnections;
use knockplane_policy::door;
use knockplane_policy::eval::limits::Bucket;
use knockplane_policy::eval::replies::{ICMP_ERRORS, TARPIT_ACK_INTERVAL};
use knockplane_policy::eval::tracking::{self, FRAGMENT_TIMEOUT};
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::rule::{Condition, RuleSet};
use knockplane_policy::settings::{FrameRate, Settings};
use knockplane_policy::strangers::{KnownSources, NamedNetworks};
use knockplane_policy::time::Time;

use crate::state::connections::ConnectionTable;
use crate::state::doors::Visitors;
use crate::state::keyed::{Keyed, Tag, datagram, tag, write_address};
use crate::state::lists::{CapacityError, EpochWords, Lists};

/// The state of one dataplane, shared by all workers.
pub struct State {
    /// The address lists.
    pub lists: Lists,
    secret: [u64; 2],
    connection_capacity: usize,
    /// Allocated when rules first track connections.
    connections: OnceLock<ConnectionTable>,
    /// The records of carried connections, if there is a fast path.
    carried: Option<CarriedConnections>,
    /// Counts the entries and connections of each source, if there is a fast path.
    sources: Option<KnownSources>,
    /// Allocated when there are doors.
    visitors: OnceLock<Visitors>,
    /// Datagrams whose first fragment was forwarded.
    datagrams: Keyed<bool>,
    icmp_errors: Mutex<Bucket>,
    /// For each class and side: the time until which previous frames have used the rate, in nanoseconds of the clock.
    frame_rates: [[CachePadded<AtomicU64>; 2]; FrameClass::COUNT],
    /// The time until which a tarpit does not acknowledge, by peer.
    acknowledged: Keyed<Time>,
    /// Packets without a checksum, by side.
    without_checksum: [CachePadded<AtomicU64>; 2],
}

impl State {
    /// An empty state with room for `list_entries` entries and about `connections` connections. It draws new secrets.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub fn new(list_entries: usize, connections: usize) -> Result<State, CapacityError> {
        Ok(State::with_lists(Lists::new(list_entries)?, connections, Lists::draw_secret()))
    }

    /// As [`State::new`], but memory of the lists' entries is only reserved until [`Lists::populate`].
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub fn reserve(list_entries: usize, connections: usize) -> Result<State, CapacityError> {
        let lists = Lists::reserve(list_entries, Lists::draw_secret())?;
        Ok(State::with_lists(lists, connections, Lists::draw_secret()))
    }

    /// As [`State::new`], with a secret that the caller knows: for tests that must repeat.
    ///
    /// # Errors
    /// As [`Lists::new`].
    pub fn with_secret(list_entries: usize, connections: usize, secret: [u64; 2]) -> Result<State, CapacityError> {
        Ok(State::with_lists(Lists::with_secret(list_entries, secret)?, connections, secret))
    }

    fn with_lists(lists: Lists, connection_capacity: usize, secret: [u64; 2]) -> State {
        State {
            lists,
            secret,
            connection_capacity,
            connections: OnceLock::new(),
            carried: None,
            sources: None,
            visitors: OnceLock::new(),
            datagrams: Keyed::new(fewer(connection_capacity)),
            icmp_errors: Mutex::new(Bucket::full(&ICMP_ERRORS, Time::default())),
            frame_rates: Default::default(),
            acknowledged: Keyed::new(fewer(connection_capacity)),
            without_checksum: Default::default(),
        }
    }

    /// The capacity of each table of matcher state, in addresses or pairs.
    pub(crate) fn keys(&self) -> usize {
        fewer(self.connection_capacity)
    }

    pub(crate) const fn secret(&self) -> [u64; 2] {
        self.secret
    }

    /// Tracks connections from now on, and inspects their payloads if rules need that. Allocates the memory once.
    pub(crate) fn track(&self, inspects_payloads: bool) {
        let connections = self.connections.get_or_init(|| {
            let connections = ConnectionTable::new(self.connection_capacity, self.secret);
            self.carried.iter().for_each(|records| connections.set_carried(records));
            self.sources.iter().for_each(|sources| connections.set_sources(sources));
            connections
        });
        if inspects_payloads {
            connections.inspect_payloads();
        }
    }

    /// Lets the kernel carry flows: changes of addresses bump these epochs, and connections have these records, one for each
    /// slot of their table ([`ConnectionTable::slots`]). Called once, before workers decide.
    pub fn set_fast_path(&mut self, epochs: EpochWords, records: CarriedConnections) {
        self.lists.set_epochs(epochs);
        if let Some(connections) = self.connections.get() {
            connections.set_carried(&records);
        }
        self.carried = Some(records);
    }

    /// Lets the kernel drop frames of strangers: notes sources with entries and connections in this memory, and the networks of
    /// static entries. Called once, before workers decide.
    pub fn set_known_sources(&mut self, sources: KnownSources, networks: Arc<dyn NamedNetworks>) {
        self.lists.set_sources(&sources, networks);
        if let Some(connections) = self.connections.get() {
            connections.set_sources(&sources);
        }
        self.sources = Some(sources);
    }

    /// The connections, if rules have tracked them since start.
    pub fn connections(&self) -> Option<&ConnectionTable> {
        self.connections.get()
    }

    /// Bytes that connections will allocate when these rules run.
    pub fn connections_to_come(&self, rules: &RuleSet, settings: &Settings) -> u64 {
        connection_bytes(self.connection_capacity, rules, settings)
            .saturating_sub(self.connections().map_or(0, ConnectionTable::bytes))
    }

    /// Allocates the state of doors, once.
    pub(crate) fn open_doors(&self) -> &Visitors {
        self.visitors.get_or_init(|| Visitors::new(self.keys(), self.secret))
    }

    /// The state of sources that knock at doors, if there have been doors since start.
    pub fn visitors(&self) -> Option<&Visitors> {
        self.visitors.get()
    }

    /// Whether the rate admits another frame of this class from this side. If so, counts the frame. Workers share the
    /// number without a lock. Above the rate no worker writes it, so that a flood makes no worker wait for another.
    pub(crate) fn admits_frame(&self, class: FrameClass, side: Side, rate: FrameRate, now: Time) -> bool {
        let paid_until = &self.frame_rates[class.index()][side.index()];
        let admit = |paid_until| rate.admit(Time::from_nanos(paid_until), now).map(Time::as_nanos);
        rate.is_off() || paid_until.fetch_update(Relaxed, Relaxed, admit).is_ok()
    }

    /// Counts the packet if its sender left the checksum to an interface. Only for packets that begin a connection or a
    /// knock.
    pub(crate) fn look_at_checksum(&self, packet: &Packet<'_>) {
        if packet.lacks_checksum() {
            self.without_checksum[packet.side.index()].fetch_add(1, Relaxed);
        }
    }

    /// Packets from this side without a checksum since start, of those that [`State::look_at_checksum`] saw.
    pub fn without_checksum(&self, side: Side) -> u64 {
        self.without_checksum[side.index()].load(Relaxed)
    }

    /// Whether the rate limit of ICMP errors admits another one.
    pub(crate) fn may_tell(&self, now: Time) -> bool {
        self.icmp_errors.lock().unwrap_or_else(PoisonError::into_inner).take(&ICMP_ERRORS, 0, now)
    }

    /// Whether a tarpit may acknowledge to this peer again.
    pub(crate) fn may_acknowledge(&self, peer: IpAddr, now: Time) -> bool {
        let tag = tag(self.secret, |hasher| write_address(hasher, peer));
        self.acknowledged.with(tag, now, |until| {
            let may = *until <= now;
            if may {
                *until = now + TARPIT_ACK_INTERVAL;
            }
            (may, *until)
        })
    }

    /// Stores whether a datagram's first fragment was forwarded.
    pub(crate) fn note_first_fragment(&self, packet: &Packet<'_>, forwarded: bool, now: Time) {
        if let Some(datagram) = self.datagram(packet)
            && (forwarded || self.datagrams.get(datagram, now).is_some())
        {
            self.datagrams.with(datagram, now, |known| {
                *known = forwarded;
                ((), if forwarded { now + FRAGMENT_TIMEOUT } else { now })
            });
        }
    }

    /// Whether the first fragment of this packet's datagram was forwarded.
    pub(crate) fn first_was_forwarded(&self, packet: &Packet<'_>, now: Time) -> bool {
        self.datagram(packet).and_then(|datagram| self.datagrams.get(datagram, now)).unwrap_or_default()
    }

    /// The key of a datagram. A datagram has another key on each side.
    fn datagram(&self, packet: &Packet<'_>) -> Option<Tag> {
        datagram(self.secret, packet, packet.side.index() as u8)
    }
}

/// Bytes for about `connections` connections under these rules; 0 if the rules track none.
pub fn connection_bytes(connections: usize, rules: &RuleSet, settings: &Settings) -> u64 {
    // Only the doors' rules: a copy of all rules behind them would be expensive.
    let of_doors = door::rules(settings, RuleSet { tracking: rules.tracking.clone(), ..RuleSet::default() });
    if ![rules, &of_doors].into_iter().any(tracking::is_needed) {
        return 0;
    }
    let running = rules.rules.iter().chain(&of_doors.rules).filter(|rule| rule.runs());
    let inspects = |condition: &Condition| matches!(condition, Condition::Layer7(_) | Condition::TlsHost(_));
    let inspects = running.flat_map(|rule| &rule.matchers).any(|matcher| inspects(&matcher.condition));
    ConnectionTable::bytes_for(connections, inspects)
}

/// The capacity of tables that need fewer slots than connections: fragmented datagrams, peers of a tarpit, scanning
/// sources.
fn fewer(connections: usize) -> usize {
    (connections / 4).clamp(1024, 65_536)
}
