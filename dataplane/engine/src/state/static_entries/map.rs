//! A map from addresses to values: overlapping ranges under one search tree.
//!
//! ```text
//! starts   [ 0 | 7 | … | 400 | 512 | … ]   addresses where the value changes, in order
//! values   [ 2 | 0 | … | 1   | 0   | … ]   the value from there on, as an index of distinct values
//! ```

use std::hash::Hash;

use hashbrown::HashMap;

use crate::state::range_tree::{Number, Tree};

/// The first address, the last address, and the item of a range.
pub(super) type Range<T, I> = (T, T, I);

/// The value of an address, computed from the ranges that cover the address.
pub(super) trait Covering: Default {
    /// The item of a range.
    type Item: Copy + Ord;
    /// The value of a set of ranges. The default is the value of no range.
    type Value: Copy + Default + Eq + Hash;

    /// Applies the begin of a range, or the end of a range that began before.
    fn change(&mut self, item: Self::Item, begins: bool);

    fn value(&self) -> Self::Value;
}

/// A map from addresses to values.
pub(super) struct Map<T, V> {
    starts: Tree<T>,
    values: Box<[u32]>,
    different: Vec<V>,
}

impl<T, V> Default for Map<T, V> {
    fn default() -> Self {
        Map { starts: Tree::default(), values: Box::default(), different: Vec::new() }
    }
}

impl<T: Number, V: Copy + Default + Eq + Hash> Map<T, V> {
    /// Builds the map. A range that ends before it begins covers nothing.
    pub(super) fn build<C: Covering<Value = V>>(ranges: Vec<Range<T, C::Item>>) -> Self {
        let mut answers = Answers::<T, C>::with_room_for(2 * ranges.len());
        // Stored entries of one list have this form. They need no list of changes, which would delay a start.
        if ranges.iter().all(|(first, last, _)| first <= last) && ranges.is_sorted_by(|one, next| one.1 < next.0) {
            let mut ranges = ranges.into_iter().peekable();
            while let Some((first, last, item)) = ranges.next() {
                answers.covering.change(item, true);
                answers.begin(first);
                answers.covering.change(item, false);
                if let Some(end) = last.next().filter(|end| ranges.peek().is_none_or(|(next, ..)| next != end)) {
                    answers.begin(end);
                }
            }
            return answers.map();
        }
        let mut changes: Vec<(T, C::Item, bool)> = Vec::with_capacity(2 * ranges.len());
        for (first, last, item) in ranges.into_iter().filter(|(first, last, _)| first <= last) {
            changes.push((first, item, true));
            changes.extend(last.next().map(|end| (end, item, false)));
        }
        // A stable sort, because the unstable sort does not profit from the order of stored entries, which is one run
        // for each list.
        changes.sort();
        for at_once in changes.chunk_by(|one, other| one.0 == other.0) {
            // One range may end where the next range begins. The value between both events belongs to no address.
            at_once.iter().for_each(|(_, item, begins)| answers.covering.change(*item, *begins));
            answers.begin(at_once[0].0);
        }
        answers.map()
    }

    /// Whether all addresses have the default value.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The ranges of addresses without the default value; each with the address behind it, if there is one.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (T, Option<T>)> {
        let starts = self.starts.starts();
        let has_value = |place: &usize| self.different[self.values[*place] as usize] != V::default();
        (0..starts.len()).filter(has_value).map(|place| (starts[place], starts.get(place + 1).copied()))
    }

    /// The value of the address.
    pub(super) fn find(&self, address: T) -> V {
        let value = || self.different.get(*self.values.get(self.starts.find(address)?)? as usize).copied();
        value().unwrap_or_default()
    }
}

/// A map during its construction, in the order of addresses.
struct Answers<T, C: Covering> {
    covering: C,
    starts: Vec<T>,
    values: Vec<u32>,
    known: HashMap<C::Value, u32>,
    different: Vec<C::Value>,
    /// The last two values that were looked up. Separate ranges alternate with the gaps between them.
    recent: [(C::Value, u32); 2],
}

impl<T: Number, C: Covering> Answers<T, C> {
    fn with_room_for(starts: usize) -> Self {
        let none = C::Value::default();
        Answers {
            covering: C::default(),
            starts: Vec::with_capacity(starts),
            values: Vec::with_capacity(starts),
            known: HashMap::from([(none, 0)]),
            different: vec![none],
            recent: [(none, 0); 2],
        }
    }

    /// Begins a range at this address, with the current value of the covering.
    fn begin(&mut self, start: T) {
        let covered = self.covering.value();
        let value = match self.recent.iter().find(|(value, _)| *value == covered) {
            Some((_, place)) => *place,
            None => {
                let place = *self.known.entry(covered).or_insert_with_key(|value| {
                    self.different.push(*value);
                    self.different.len() as u32 - 1
                });
                self.recent = [(covered, place), self.recent[0]];
                place
            }
        };
        if self.values.last().copied().unwrap_or_default() != value {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    fn map(self) -> Map<T, C::Value> {
        Map { starts: Tree::over(self.starts), values: self.values.into(), different: self.different }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum of the items of the ranges.
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

    fn map(ranges: &[Range<u32, u64>]) -> Map<u32, u64> {
        Map::build::<Sum>(ranges.to_vec())
    }

    #[test]
    fn the_ends_of_what_there_is_can_be_covered() {
        let map = map(&[(0, 0, 1), (u32::MAX, u32::MAX, 2), (9, 8, 4)]);
        let seen = [0, 1, 8, 9, u32::MAX - 1, u32::MAX].map(|address| map.find(address));
        assert_eq!(seen, [1, 0, 0, 0, 0, 2]);
        assert_eq!(Map::<u32, u64>::default().find(7), 0);
    }

    proptest! {
        /// Uses separate ranges in order, some of them adjacent, up to the last address.
        #[test]
        fn ranges_that_are_apart_are_what_they_say(
            gaps in prop::collection::vec((0..3_u32, 0..3_u32, 0..4_u64), 0..100),
            to_the_end in any::<bool>(),
        ) {
            let (mut ranges, mut next) = (Vec::new(), 0);
            for (gap, more, item) in gaps {
                ranges.push((next + gap, next + gap + more, item));
                next += gap + more + 1;
            }
            if to_the_end {
                ranges.push((u32::MAX - 1, u32::MAX, 9));
            }
            let (apart, mut reversed) = (map(&ranges), ranges.clone());
            reversed.reverse();
            let changed = map(&reversed);
            for address in (0..next + 2).chain([u32::MAX - 2, u32::MAX - 1, u32::MAX]) {
                let sum: u64 = ranges.iter().filter(|(first, last, _)| (*first..=*last).contains(&address)).map(|range| range.2).sum();
                prop_assert_eq!((apart.find(address), changed.find(address)), (sum, sum));
            }
        }

        /// Uses trees of several levels, of both families.
        #[test]
        fn it_says_what_the_ranges_say(
            ranges in prop::collection::vec((0..60_000_u32, 0..400_u32, 0..5_u64), 0..600),
            addresses in prop::collection::vec(0..61_000_u32, 0..100),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(first, more, item)| (*first, *first + *more, *item)).collect();
            let v4 = map(&ranges);
            let wide = |(first, last, item): &Range<u32, u64>| (u128::from(*first) << 64, u128::from(*last) << 64, *item);
            let v6 = Map::build::<Sum>(ranges.iter().map(wide).collect());
            let edges = ranges.iter().flat_map(|(first, last, _)| [*first, *last, *last + 1]);
            for address in addresses.into_iter().chain(edges) {
                let covering = ranges.iter().filter(|(first, last, _)| (*first..=*last).contains(&address));
                let sum = covering.map(|(_, _, item)| item).sum::<u64>();
                prop_assert_eq!((v4.find(address), v6.find(u128::from(address) << 64)), (sum, sum));
            }
        }
    }
}
