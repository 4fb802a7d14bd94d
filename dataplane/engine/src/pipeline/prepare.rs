//! The first pass over a group of frames: it loads the state that their decisions will probably need into the cache.
//!
//! ```text
//! pass 1   source addresses ─► hashes
//! pass 2   buckets of the sources in the lists
//! pass 3   entries of the sources
//! pass 4   neighbours of these entries in their queues, and entries that first steps would evict
//! pass 5   buckets of the entries that would be evicted
//! ```
//! The loads of a pass do not depend on each other, so the processor waits for many of them at once. Without these
//! passes, each packet of a flood would wait for each of its cache misses. A pass does little besides its loads: a
//! processor looks only some 250 to 500 instructions ahead of a load that it waits for. No decision depends on what a pass reads: it takes
//! no lock, so the state may change until the packet is decided.

use knockplane_policy::packet::Vlan;

use crate::headers;
use crate::pipeline::Context;
use crate::pipeline::local::WorkerLocal;
use crate::state::key::AddressKey;
use crate::state::lists::{AddressHash, Victims};

/// Number of frames of a group: enough misses for all line fill buffers of a core (10 to 16), and few enough that the
/// loaded lines stay in the first-level cache until the packets are decided.
pub(super) const GROUP: usize = 32;

/// The hashes of the sources of a group.
pub(super) struct SourceHashes {
    hashes: [AddressHash; GROUP],
    /// The frames whose hash was computed: one bit each.
    known: u32,
}

impl SourceHashes {
    /// The hash of the source address of this frame, if it was computed.
    #[inline]
    pub(super) fn of(&self, frame: usize) -> Option<AddressHash> {
        (self.known >> frame & 1 == 1).then(|| self.hashes[frame])
    }
}

/// Prepares the decisions about at most [`GROUP`] frames.
#[inline]
pub(super) fn prepare(frames: &[&[u8]], context: Context<'_>, local: &WorkerLocal) -> SourceHashes {
    let mut sources = SourceHashes { hashes: [AddressHash::default(); GROUP], known: 0 };
    if context.table.looks_up_sources() && context.state.lists.exceed_caches() {
        sources.hash(frames, context, local);
        if sources.known != 0 {
            sources.touch_lists(context, local.adds.before);
        }
    }
    sources
}

impl SourceHashes {
    /// Hashes the sources whose lookups are not cached.
    #[inline]
    fn hash(&mut self, frames: &[&[u8]], context: Context<'_>, local: &WorkerLocal) {
        let Context { table, state, .. } = context;
        let vlan = table.settings().vlans.of(Vlan::NONE);
        let mut previous = AddressKey::NONE;
        for (index, frame) in frames.iter().enumerate().take(GROUP) {
            let Some(source) = headers::likely_source(frame) else { continue };
            let key = AddressKey::from(source);
            // The packets of a run are decided once.
            if key == previous || (!table.has_doors() && local.lookup_cache.remembers(key.in_vlan(vlan))) {
                continue;
            }
            previous = key;
            let hash = state.lists.hash(key);
            self.hashes[index] = hash;
            self.known |= 1 << index;
        }
    }

    /// Loads the buckets and the entries of the sources. If the packets probably add entries, also loads the lines that
    /// an addition changes.
    fn touch_lists(&self, context: Context<'_>, adds: bool) {
        let lists = &context.state.lists;
        self.each(|hash| lists.touch_buckets(hash));
        self.each(|hash| lists.touch_entries(hash));
        if adds {
            self.each(|hash| lists.touch_neighbours(hash));
            let mut victims = Victims::<GROUP>::new();
            self.each(|hash| victims.touch_next(lists, hash));
            victims.touch_buckets(lists);
        }
    }

    /// Calls `visitor` with each hash.
    #[inline]
    fn each(&self, mut visitor: impl FnMut(AddressHash)) {
        let mut left = self.known;
        while left != 0 {
            visitor(self.hashes[left.trailing_zeros() as usize]);
            left &= left - 1;
        }
    }
}
