//! A packet and the results of its lookups. A lookup happens when a rule first needs its result.

use std::net::IpAddr;

use knockplane_policy::eval::tracking::Stays;
use knockplane_policy::packet::{FragmentPart, Packet, Vlan, protocol};
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use crate::pipeline::Context;
use crate::pipeline::dependencies::{Dependencies, Dependency};
use crate::pipeline::local::WorkerLocal;
use crate::pipeline::lookup_cache::{AddressQuery, TableEntries};
use crate::pipeline::prepare::PreparedPacket;
use crate::state::connections::{
    ConnectionTable, ConnectionView, DecidedConnection, Observation, PreparedConnection, Storage, TrackingResult,
};
use crate::state::doors::Visitor;
use crate::state::key::AddressKey;
use crate::state::layer7::PatternSet;
use crate::state::list_set::{CoarseListSet, ListId, ListSet};
use crate::state::lists::{AddressHash, Lookup, Membership};
use crate::state::server_name::{self, ServerName};
use crate::table::HeaderView;

/// The packet under evaluation, and the facts that rules and effects have needed so far.
pub(super) struct PacketFacts<'a> {
    pub(super) packet: &'a Packet<'a>,
    /// The network of the packet for connections, doors and lists, according to the settings.
    pub(super) vlan: Vlan,
    pub(super) view: HeaderView<'a>,
    /// The time of the packet's arrival.
    pub(super) now: Time,
    /// The values that were prepared for the packet, such as the hash of its source.
    pub(super) prepared: PreparedPacket<'a>,
    pub(super) context: Context<'a>,
    pub(super) local: &'a mut WorkerLocal,
    pub(super) dependencies: Dependencies,
    /// The result of connection tracking; `None` before it.
    pub(super) seen: Option<TrackingResult>,
    /// Whether a `notrack` rule has matched.
    pub(super) untracked: bool,
    pub(super) is_later_fragment: bool,
    /// The lists of the source. `None` before the first rule that needs them, and after a change of them.
    pub(super) source_lists: Option<Membership>,
    /// The same for the destination.
    pub(super) destination_lists: Option<Membership>,
    /// The lists that the decision depends on: of the source, of the destination.
    asked_lists: [CoarseListSet; 2],
    /// The source as the state of doors stores it. `None` before the first door that needs it.
    pub(super) visitor: Option<Visitor>,
    /// Whether the source has tried too many ports. `None` before the first door.
    pub(super) scans: Option<bool>,
    /// The patterns that the payload of this packet alone matches. `None` before the first rule that needs them.
    payload_patterns: Option<PatternSet>,
}

/// A lookup that a decision made: of an address, for a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedAddress {
    pub(super) key: AddressKey,
    pub(super) peer_tag: u32,
    /// The result.
    pub(super) membership: Membership,
    /// The lists that the decision depends on.
    pub(super) lists: CoarseListSet,
}

/// Whether a packet is a first or later fragment. Cheaper than [`Packet::fragment`].
#[inline]
pub(super) fn is_fragment(packet: &Packet<'_>) -> bool {
    let network = usize::from(packet.network);
    if packet.source.is_ipv4() {
        // The more-fragments flag or an offset marks a fragment.
        packet.frame.get(network + 6..network + 8).is_some_and(|field| field[0] & 0x3f != 0 || field[1] != 0)
    } else {
        // The fragment header is an extension header, so most packets need only the first comparison.
        usize::from(packet.transport) > network + 40 && packet.fragment() != Some(FragmentPart::Whole)
    }
}

impl<'a> PacketFacts<'a> {
    #[inline]
    pub(super) fn new(
        packet: &'a Packet<'a>,
        now: Time,
        prepared: PreparedPacket<'a>,
        context: Context<'a>,
        local: &'a mut WorkerLocal,
    ) -> PacketFacts<'a> {
        debug_assert!(prepared.source_hash().is_none_or(|hash| hash == context.state.lists.hash(packet.source.into())));
        PacketFacts {
            packet,
            vlan: context.table.settings().vlans.of(packet.vlan()),
            view: packet.into(),
            now,
            prepared,
            context,
            local,
            dependencies: Dependencies::on_table(context.table.number()),
            seen: None,
            untracked: false,
            is_later_fragment: false,
            source_lists: None,
            destination_lists: None,
            asked_lists: [CoarseListSet::default(); 2],
            visitor: prepared.visitor(),
            scans: None,
            payload_patterns: None,
        }
    }

    /// Whether the source is in this list, for the destination as the peer.
    #[inline]
    pub(super) fn is_source_listed(&mut self, list: ListId) -> bool {
        self.asked_lists[0].insert(list);
        self.membership_of_source().lists.contains(list)
    }

    /// Whether the destination is in this list, for the source as the peer.
    #[inline]
    pub(super) fn is_destination_listed(&mut self, list: ListId) -> bool {
        self.asked_lists[1].insert(list);
        self.membership_of_destination().lists.contains(list)
    }

    /// The lists of the source, for the destination as the peer. The decision then depends on all of them.
    #[inline]
    pub(super) fn lists_of_source(&mut self) -> &Membership {
        self.asked_lists[0] = CoarseListSet::ALL;
        self.membership_of_source()
    }

    #[inline]
    fn membership_of_source(&mut self) -> &Membership {
        if self.source_lists.is_none() {
            let Lookup { membership, until, version, .. } =
                *self.look_up(self.view.source, self.prepared.source_hash(), self.packet.destination);
            self.dependencies.until = self.dependencies.until.min(until);
            self.dependencies.source = Some(version);
            self.source_lists = Some(membership);
        }
        self.source_lists.get_or_insert_default()
    }

    #[inline]
    fn membership_of_destination(&mut self) -> &Membership {
        if self.destination_lists.is_none() {
            let Lookup { membership, until, version, .. } =
                *self.look_up(self.view.destination, None, self.packet.source);
            self.dependencies.until = self.dependencies.until.min(until);
            self.dependencies.destination = Some(version);
            self.destination_lists = Some(membership);
        }
        self.destination_lists.get_or_insert_default()
    }

    /// The tag of a peer; 0 for tables without doors, whose lists have no entries for a single peer.
    #[inline]
    fn peer_tag(&self, peer: IpAddr) -> u32 {
        let Context { table, state, .. } = self.context;
        if table.has_doors() { state.lists.peer_tag(peer) } else { 0 }
    }

    #[inline]
    fn look_up(&mut self, key: AddressKey, hash: Option<AddressHash>, peer: IpAddr) -> &Lookup {
        let Context { table, state, .. } = self.context;
        let peer_tag = self.peer_tag(peer);
        let query = AddressQuery { key: key.in_vlan(self.vlan), peer_tag, now: self.now, hash };
        let entries = TableEntries { table: table.number(), entries: table.entries() };
        self.local.lookup_cache.look_up(&state.lists, entries, query)
    }

    /// The lists of the source and of the destination now.
    pub(super) fn lists_of_both(&mut self) -> [ListSet; 2] {
        [self.membership_of_source().lists, self.membership_of_destination().lists]
    }

    /// The lookups of source and destination that the rules needed.
    pub(super) fn asked(&self) -> [Option<AskedAddress>; 2] {
        let (source, destination) = (self.packet.source, self.packet.destination);
        let asked = |address: IpAddr, peer: IpAddr, membership: Option<Membership>, lists: CoarseListSet| {
            let key = AddressKey::from(address).in_vlan(self.vlan);
            membership.map(|membership| AskedAddress { key, peer_tag: self.peer_tag(peer), membership, lists })
        };
        let [of_source, of_destination] = self.asked_lists;
        [
            asked(source, destination, self.source_lists, of_source),
            asked(destination, source, self.destination_lists, of_destination),
        ]
    }

    /// The established connection of the packet. `None` if there is none, or if each of its packets is inspected.
    pub(super) fn decided_connection(&self) -> Option<DecidedConnection> {
        let seen = self.seen.as_ref()?;
        let is_settled = seen.state == ConnectionState::Established && seen.stays == Stays::Yes && !seen.is_deferred;
        let is_inspected = self.context.table.payload_matchers().is_some();
        seen.flow.as_ref()?.decided().filter(|_| is_settled && !is_inspected)
    }

    /// The connection of the packet, or the one it is related to.
    #[inline]
    pub(super) fn flow(&self) -> Option<&ConnectionView> {
        self.seen.as_ref()?.flow.as_ref()
    }

    /// The connection that the packet is part of.
    #[inline]
    pub(super) fn own_flow(&self) -> Option<&ConnectionView> {
        self.flow().filter(|flow| flow.back.is_some())
    }

    /// The connection that the headers identify.
    #[inline]
    pub(super) fn connection_key(&self, flows: &ConnectionTable) -> PreparedConnection {
        self.prepared.connection().copied().unwrap_or_else(|| flows.prepare(self.packet, self.vlan))
    }

    /// Stores the connection that begins with this packet, if that was deferred.
    pub(super) fn store_connection(&mut self) {
        let Context { table, state, .. } = self.context;
        let deferred = self.seen.as_mut().filter(|seen| seen.is_deferred);
        if let (Some(seen), Some(flows)) = (deferred, state.connections()) {
            seen.is_deferred = false;
            let how = Observation { tracking: &table.rules().tracking, payload_matchers: None, storage: Storage::Now };
            let (part, now) = (Some(FragmentPart::Whole), self.now);
            let prepared = self.connection_key(flows);
            // If another worker began the same connection meanwhile, the packet is added to it.
            flows.observe(self.packet, &prepared, part, now, &how);
        }
    }

    /// Whether a connection begins with this packet.
    #[inline]
    pub(super) fn begins_connection(&self) -> bool {
        self.seen.is_some_and(|seen| seen.stays == Stays::IfForwarded)
    }

    /// The name of the server in the bytes of the packet's sender so far. `None` if the packet is not TCP.
    pub(super) fn server_name(&mut self) -> Option<ServerName> {
        if self.packet.protocol != protocol::TCP || self.packet.ports.is_none() {
            return None;
        }
        let name_of_connection = self.own_flow().map(|flow| flow.name);
        self.note_payload(name_of_connection.is_some());
        Some(
            name_of_connection
                .unwrap_or_else(|| server_name::server_name(self.packet.payload, self.context.table.server_names())),
        )
    }

    /// The patterns that match the stream of the connection, or without a connection the payload of this packet alone.
    pub(super) fn patterns(&mut self) -> PatternSet {
        let patterns_of_connection = self.own_flow().map(|flow| flow.patterns);
        self.note_payload(patterns_of_connection.is_some());
        patterns_of_connection.unwrap_or_else(|| {
            let (patterns, payload) = (self.context.table.patterns(), self.packet.payload);
            *self.payload_patterns.get_or_insert_with(|| patterns.alone(payload))
        })
    }

    fn note_payload(&mut self, of_connection: bool) {
        self.dependencies.insert(if of_connection { Dependency::Stream } else { Dependency::Payload });
    }
}
