//! The first pass over a group of frames: it loads the state that their decisions will probably need into the cache.
//!
//! ```text
//! hashes    of the sources, for the lists and for the tables of doors; of the connections
//! lists     buckets of the sources ─► their entries ─► the neighbours of these in their queues
//!           entries that first steps would evict ─► buckets of these
//! doors     sets of the sources in the tables of ports, attempts and hold-off
//! tracking  tags of the connections' sets ─► slots of the connections
//! ```
//! The loads of a pass do not depend on each other, so the processor waits for many of them at once. Without these
//! passes, each packet of a flood would wait for each of its cache misses. A pass does little besides its loads: a
//! processor looks only some 250 to 500 instructions ahead of a load that it waits for. No decision depends on what a
//! pass reads: it takes no lock, so the state may change until the packet is decided.

use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::time::Time;

use crate::headers;
use crate::pipeline::Context;
use crate::pipeline::local::WorkerLocal;
use crate::state::connections::{ConnectionTable, PreparedConnection};
use crate::state::doors::{KnockSource, Visitor};
use crate::state::key::AddressKey;
use crate::state::lists::{AddressHash, Victims};

/// Number of frames of a group: enough misses for all line fill buffers of a core (10 to 16), and few enough that the
/// loaded lines stay in the first-level cache until the packets are decided.
pub(super) const GROUP: usize = 32;

/// A group of frames that arrived on one side.
#[derive(Clone, Copy)]
pub(super) struct FrameGroup<'f> {
    pub(super) side: Side,
    pub(super) frames: &'f [&'f [u8]],
    /// The length of the longest frame that [`headers::read`] accepts.
    pub(super) max_frame: usize,
    /// The arrival of the first frame.
    pub(super) arrived: Time,
}

/// Hashes that the decisions about a group of frames use again.
pub(super) struct PreparedGroup {
    sources: Known<AddressHash>,
    visitors: Known<Visitor>,
    connections: Known<PreparedConnection>,
}

/// Values of some frames of a group.
struct Known<T> {
    values: [T; GROUP],
    /// The frames with a value: one bit each.
    frames: u32,
}

impl<T: Copy> Known<T> {
    /// No value; `none` fills the memory.
    const fn new(none: T) -> Known<T> {
        Known { values: [none; GROUP], frames: 0 }
    }

    #[inline]
    fn set(&mut self, frame: usize, value: T) {
        self.values[frame] = value;
        self.frames |= 1 << frame;
    }

    #[inline]
    fn get(&self, frame: usize) -> Option<&T> {
        (self.frames >> frame & 1 == 1).then(|| &self.values[frame])
    }

    /// Calls `visitor` with each value.
    #[inline]
    fn each(&self, mut visitor: impl FnMut(&T)) {
        let mut left = self.frames;
        while left != 0 {
            visitor(&self.values[left.trailing_zeros() as usize % GROUP]);
            left &= left - 1;
        }
    }
}

/// The prepared values of one packet.
#[derive(Clone, Copy)]
pub(super) struct PreparedPacket<'g> {
    /// The group and the number of the frame; `None` for a packet that was not prepared.
    frame: Option<(&'g PreparedGroup, usize)>,
}

impl<'g> PreparedPacket<'g> {
    /// A packet that was not prepared.
    pub(super) const UNPREPARED: PreparedPacket<'static> = PreparedPacket { frame: None };

    /// The hash of the source address, if it was computed.
    #[inline]
    pub(super) fn source_hash(self) -> Option<AddressHash> {
        let (group, frame) = self.frame?;
        group.sources.get(frame).copied()
    }

    /// The source as the tables of doors store it, if it was hashed.
    #[inline]
    pub(super) fn visitor(self) -> Option<Visitor> {
        let (group, frame) = self.frame?;
        group.visitors.get(frame).copied()
    }

    /// The connection that the headers identify, if it was hashed.
    #[inline]
    pub(super) fn connection(self) -> Option<&'g PreparedConnection> {
        let (group, frame) = self.frame?;
        group.connections.get(frame)
    }
}

impl PreparedGroup {
    pub(super) const fn new() -> PreparedGroup {
        PreparedGroup {
            sources: Known::new(AddressHash::NONE),
            visitors: Known::new(Visitor::NONE),
            connections: Known::new(PreparedConnection::Untracked),
        }
    }

    /// The prepared values of this frame of the group.
    #[inline]
    pub(super) const fn packet(&self, frame: usize) -> PreparedPacket<'_> {
        PreparedPacket { frame: Some((self, frame)) }
    }

    /// Prepares the decisions about at most [`GROUP`] frames.
    #[inline]
    pub(super) fn prepare(&mut self, group: FrameGroup<'_>, context: Context<'_>, local: &WorkerLocal) {
        (self.sources.frames, self.visitors.frames, self.connections.frames) = (0, 0, 0);
        let Context { table, state, .. } = context;
        if table.looks_up_sources() && state.lists.exceed_caches() {
            self.hash_sources(group, context, local);
            if self.sources.frames != 0 {
                self.touch_lists(context, local.adds.before);
            }
            if table.has_doors() {
                self.touch_doors(group, context);
            }
        }
        let connections = state.connections().filter(|connections| table.tracks() && connections.exceed_caches());
        if let Some(connections) = connections {
            self.touch_connections(group, context, connections);
        }
    }

    /// Hashes the sources whose lookups are not cached.
    #[inline]
    fn hash_sources(&mut self, group: FrameGroup<'_>, context: Context<'_>, local: &WorkerLocal) {
        let Context { table, state, .. } = context;
        let vlan = table.settings().vlans.of(Vlan::NONE);
        let mut previous = AddressKey::NONE;
        for (index, frame) in group.frames.iter().enumerate().take(GROUP) {
            let Some(source) = headers::likely_source(frame) else { continue };
            let key = AddressKey::from(source);
            // The packets of a run are decided once.
            if key == previous || (!table.has_doors() && local.lookup_cache.remembers(key.in_vlan(vlan))) {
                continue;
            }
            previous = key;
            self.sources.set(index, state.lists.hash(key));
        }
    }

    /// Loads the buckets and the entries of the sources. If the packets probably add entries, also loads the lines that
    /// an addition changes.
    fn touch_lists(&self, context: Context<'_>, adds: bool) {
        let (lists, sources) = (&context.state.lists, &self.sources);
        sources.each(|hash| lists.touch_buckets(*hash));
        sources.each(|hash| lists.touch_entries(*hash));
        if adds {
            sources.each(|hash| lists.touch_neighbours(*hash));
            let mut victims = Victims::<GROUP>::new();
            sources.each(|hash| victims.touch_next(lists, *hash));
            victims.touch_buckets(lists);
        }
    }

    /// Hashes the sources as the tables of doors store them, and loads their sets.
    fn touch_doors(&mut self, group: FrameGroup<'_>, context: Context<'_>) {
        let Context { table, state, .. } = context;
        let Some(visitors) = state.visitors() else { return };
        let settings = table.settings();
        let vlan = settings.vlans.of(Vlan::NONE);
        for (index, frame) in group.frames.iter().enumerate().take(GROUP) {
            if let (Some(_), Some(address)) = (self.sources.get(index), headers::likely_source(frame)) {
                self.visitors.set(index, visitors.visitor(KnockSource { address, vlan }));
            }
        }
        let (budget, doors) = (&settings.port_budget, table.doors());
        self.visitors.each(|visitor| visitors.touch(*visitor, budget, doors, group.arrived));
    }

    /// Hashes the connections, and loads them.
    fn touch_connections(&mut self, group: FrameGroup<'_>, context: Context<'_>, connections: &ConnectionTable) {
        let vlans = context.table.settings().vlans;
        for (index, frame) in group.frames.iter().enumerate().take(GROUP) {
            if let Ok(packet) = &headers::read(group.side, frame, group.max_frame) {
                self.connections.set(index, connections.prepare(packet, vlans.of(packet.vlan())));
            }
        }
        self.connections.each(|prepared| connections.touch_set(prepared));
        self.connections.each(|prepared| connections.touch_slot(prepared));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use etherparse::PacketBuilder;
    use knockplane_policy::eval::limits::Random;
    use knockplane_policy::rsc;
    use knockplane_policy::settings::Settings;

    use super::*;
    use crate::pipeline::counters::RuleCounters;
    use crate::pipeline::history::HistoryWriter;
    use crate::state::State;
    use crate::state::events::logged::LoggedPackets;
    use crate::table::RuleTable;

    const RULES: &str = "/ip firewall filter
add chain=input connection-state=established action=accept
add chain=input src-address-list=secured action=accept
";

    fn frame(source: u8) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, source], [203, 0, 113, 5], 64);
        let mut frame = Vec::new();
        builder.tcp(4000, 22, 1, 1024).syn().write(&mut frame, &[]).expect("a frame");
        frame
    }

    /// Whether the source and the connection of each frame were hashed, with room for so many entries and connections.
    fn prepared(room: usize, frames: &[Vec<u8>]) -> Vec<(bool, bool)> {
        let state = State::with_secret(room, room, [1, 2]).expect("memory");
        let rules = Arc::new(rsc::read(RULES.as_bytes()).rules);
        let table = RuleTable::compile(rules, &Settings::default(), &state, Time::default()).expect("rules that run");
        let (counters, logged) = (RuleCounters::new(table.rules().rules.len()), LoggedPackets::new(1));
        let context = Context { table: &table, state: &state, counters: &counters, logged: &logged, wall: 0 };
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let group = FrameGroup { side: Side::Outside, frames: &frames, max_frame: 1522, arrived: Time::default() };
        let mut prepared = PreparedGroup::new();
        prepared.prepare(group, context, &WorkerLocal::new(Random(1), HistoryWriter::new(1)));
        let of = |frame: usize| {
            let packet = prepared.packet(frame);
            if let Some(hash) = packet.source_hash() {
                let source = Ipv4Addr::from(*frames[frame][26..].first_chunk::<4>().expect("a source"));
                assert_eq!(hash, state.lists.hash(AddressKey::from(std::net::IpAddr::from(source))));
            }
            (packet.source_hash().is_some(), packet.connection().is_some())
        };
        (0..frames.len()).map(of).collect()
    }

    #[test]
    fn tables_beyond_the_caches_are_loaded_once_for_a_run_of_a_source() {
        let frames = [frame(1), frame(2), frame(2), vec![0; 60]];
        assert_eq!(prepared(20_000, &frames), [(true, true), (true, true), (false, true), (false, false)]);
        assert_eq!(prepared(1_000, &frames), [(false, false); 4], "small tables are in the caches anyway");
    }
}
