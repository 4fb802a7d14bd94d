//! The flows of which a worker has seen a packet.

/// Flows of a set.
const WAYS: usize = 8;

/// Flows that share a hash, by parts of their hashes; 0 in unused places. The processor compares all of them at once.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Set([u16; WAYS]);

/// Remembers flows by parts of their hashes: some 1 in 4,000 unknown flows is taken for a known one when all sets are full.
/// In a full set, a new flow takes the next place in turn, so that flows of one set keep each other out for a short time only.
#[derive(Debug)]
pub(super) struct FlowMemory {
    /// A power of two.
    sets: Box<[Set]>,
    next: usize,
}

impl FlowMemory {
    /// A memory for this number of flows: two bytes each, rounded up to a power of two.
    pub(super) fn new(flows: usize) -> FlowMemory {
        let sets = flows.div_ceil(WAYS).next_power_of_two();
        FlowMemory { sets: vec![Set::default(); sets].into(), next: 0 }
    }

    /// Whether the flow with this hash is remembered. It is from now on.
    #[inline]
    pub(super) fn remember(&mut self, hash: u64) -> bool {
        let place = hash as usize & (self.sets.len() - 1);
        // Never 0.
        let tag = (hash >> 48) as u16 | 1;
        let Some(Set(tags)) = self.sets.get_mut(place) else { return false };
        if places(tags, tag) != 0 {
            return true;
        }
        let unused = places(tags, 0);
        let way = if unused != 0 { unused.trailing_zeros() as usize } else { self.next };
        self.next = self.next.wrapping_add(1);
        tags[way % WAYS] = tag;
        false
    }
}

/// The places of a tag in a set: one bit each.
fn places(tags: &[u16; WAYS], tag: u16) -> u32 {
    tags.iter().enumerate().fold(0, |places, (way, in_set)| places | u32::from(*in_set == tag) << way)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes without a pattern: SplitMix64 of a counter.
    fn hash(number: u64) -> u64 {
        let mut hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ hash >> 31
    }

    #[test]
    fn a_flow_is_known_at_its_second_packet() {
        for flows in [0, 1, 7, 100, 1 << 17] {
            let mut memory = FlowMemory::new(flows);
            assert!(!memory.remember(hash(1)) && memory.remember(hash(1)), "{flows}");
        }
    }

    #[test]
    fn as_many_flows_as_it_is_made_for_are_known_soon_when_they_come_in_turn() {
        let flows = 1 << 16;
        let mut memory = FlowMemory::new(flows);
        // Known flows do not come again: the kernel carries them.
        let mut unknown: Vec<u64> = (0..flows as u64).collect();
        let mut left = Vec::new();
        for _ in 0..8 {
            unknown.retain(|flow| !memory.remember(hash(*flow)));
            left.push(unknown.len());
        }
        assert!(left[1] < flows / 2 && left[7] < flows / 100, "{left:?}");
    }

    #[test]
    fn few_unknown_flows_are_taken_for_known_ones() {
        let mut memory = FlowMemory::new(1 << 12);
        let wrong = (0..1 << 18).filter(|flow| memory.remember(hash(*flow))).count();
        // 8 tags of 32,768 each.
        assert!((1..200).contains(&wrong), "{wrong}");
    }
}
