//! What is so of each address: ranges laid over each other, as one search tree.
//!
//! ```text
//! top      [ 0        400 ]              every 16th key of the level below
//! …          |          \
//! starts   [ 0 | 7 | … ][ 400 | 512 | … ]   where the answer changes, in order
//! values   [ 2 | 0 | … ][ 1   | 0   | … ]   what it is from there on, by its place among all that differ
//! ```
//! A million ranges are six levels, of which all but the last two stay in the processor's caches; a binary search over
//! the starts would wait for memory some fifteen times. Nothing about the ranges can make it slower.

use std::hash::Hash;

use hashbrown::HashMap;

/// From, to and including, and what that says.
pub(super) type Range<T, I> = (T, T, I);

/// Keys that are looked at together: as many IPv4 addresses as fill a cache line, all compared at once. Of IPv6 that is
/// four lines beside each other, which processors fetch together.
const WIDTH: usize = 16;

/// What the ranges over a point come to.
pub(super) trait Covering: Default {
    /// What a range says.
    type Item: Copy + Ord;
    /// What all of them do. The default is what none does.
    type Value: Copy + Default + Eq + Hash;

    /// A range begins, or one ends that had begun.
    fn change(&mut self, item: Self::Item, begins: bool);

    fn value(&self) -> Self::Value;
}

/// See the module.
pub(super) struct Map<T, V> {
    /// The top first, the starts last.
    levels: Vec<Box<[T]>>,
    values: Box<[u32]>,
    different: Vec<V>,
}

impl<T, V> Default for Map<T, V> {
    fn default() -> Self {
        Map { levels: Vec::new(), values: Box::default(), different: Vec::new() }
    }
}

impl<T: Copy + Ord, V: Copy + Default + Eq + Hash> Map<T, V> {
    /// `next` is the address behind one. A range that ends before it begins covers nothing.
    pub(super) fn build<C: Covering<Value = V>>(ranges: Vec<Range<T, C::Item>>, next: impl Fn(T) -> Option<T>) -> Self {
        let mut changes: Vec<(T, C::Item, bool)> = Vec::with_capacity(2 * ranges.len());
        for (first, last, item) in ranges.into_iter().filter(|(first, last, _)| first <= last) {
            changes.push((first, item, true));
            changes.extend(next(last).map(|end| (end, item, false)));
        }
        changes.sort_unstable();
        let (mut starts, mut values) = (Vec::new(), Vec::new());
        let mut known: HashMap<V, u32> = HashMap::from([(V::default(), 0)]);
        let mut different = vec![V::default()];
        let mut covering = C::default();
        for at_once in changes.chunk_by(|one, other| one.0 == other.0) {
            // An end of one range and the beginning of the next: what it comes to in between is nowhere.
            at_once.iter().for_each(|(_, item, begins)| covering.change(*item, *begins));
            let value = *known.entry(covering.value()).or_insert_with_key(|value| {
                different.push(*value);
                different.len() as u32 - 1
            });
            if values.last().copied().unwrap_or_default() != value {
                starts.push(at_once[0].0);
                values.push(value);
            }
        }
        Map { levels: levels(starts), values: values.into(), different }
    }

    /// What is so of the address.
    pub(super) fn find(&self, address: T) -> V {
        let mut place = 0;
        for level in &self.levels {
            let first = place * WIDTH;
            let keys = &level[first..];
            // Of a length that is known, they are compared without a branch.
            let behind = match keys.first_chunk::<WIDTH>() {
                Some(keys) => keys.iter().filter(|key| **key <= address).count(),
                None => keys.iter().filter(|key| **key <= address).count(),
            };
            match behind.checked_sub(1) {
                Some(last) => place = first + last,
                None => return V::default(),
            }
        }
        let value = self.values.get(place).and_then(|value| self.different.get(*value as usize));
        value.copied().unwrap_or_default()
    }
}

/// The tree over these keys.
fn levels<T: Copy>(starts: Vec<T>) -> Vec<Box<[T]>> {
    let mut levels = vec![starts.into_boxed_slice()];
    while let Some(below) = levels.last().filter(|level| level.len() > WIDTH) {
        levels.push(below.iter().step_by(WIDTH).copied().collect());
    }
    levels.reverse();
    levels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum of what the ranges say.
    #[derive(Default)]
    struct Sum(u64);

    impl Covering for Sum {
        type Item = u64;
        type Value = u64;

        fn change(&mut self, item: u64, begins: bool) {
            self.0 = if begins { self.0 + item } else { self.0 - item };
        }

        fn value(&self) -> u64 {
            self.0
        }
    }

    fn map(ranges: &[Range<u16, u64>]) -> Map<u16, u64> {
        Map::build::<Sum>(ranges.to_vec(), |last| last.checked_add(1))
    }

    #[test]
    fn the_ends_of_what_there_is_can_be_covered() {
        let map = map(&[(0, 0, 1), (u16::MAX, u16::MAX, 2), (9, 8, 4)]);
        let seen = [0, 1, 8, 9, u16::MAX - 1, u16::MAX].map(|address| map.find(address));
        assert_eq!(seen, [1, 0, 0, 0, 0, 2]);
        assert_eq!(Map::<u16, u64>::default().find(7), 0);
    }

    proptest! {
        /// Few ranges and trees of several levels.
        #[test]
        fn it_says_what_the_ranges_say(
            ranges in prop::collection::vec((any::<u16>(), 0..400_u16, 0..5_u64), 0..600),
            addresses in prop::collection::vec(any::<u16>(), 0..100),
        ) {
            let ranges: Vec<_> =
                ranges.iter().map(|(first, more, item)| (*first, first.saturating_add(*more), *item)).collect();
            let map = map(&ranges);
            let edges = ranges.iter().flat_map(|(first, last, _)| [*first, *last, last.wrapping_add(1)]);
            for address in addresses.into_iter().chain(edges) {
                let covering = ranges.iter().filter(|(first, last, _)| (*first..=*last).contains(&address));
                prop_assert_eq!(map.find(address), covering.map(|(_, _, item)| item).sum::<u64>());
            }
        }
    }
}
