//! A bounded queue that several readers read, each with its own position.

use std::collections::VecDeque;

/// The last items, each with an ordinal. A new item replaces the oldest one.
#[derive(Debug)]
pub(super) struct ItemRing<T> {
    items: VecDeque<T>,
    /// The ordinal of the oldest item.
    first: u64,
    room: usize,
}

impl<T: Clone> ItemRing<T> {
    pub(super) fn new(room: usize) -> Self {
        ItemRing { items: VecDeque::new(), first: 0, room }
    }

    /// Appends an item. Returns the item that it replaces.
    pub(super) fn push(&mut self, item: T) -> Option<T> {
        let replaced = if self.items.len() >= self.room { self.items.pop_front() } else { None };
        self.first += u64::from(replaced.is_some());
        self.items.push_back(item);
        replaced
    }

    /// The ordinal of the oldest item.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The ordinal of the next item.
    pub(super) fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// The item with this ordinal, if it is there.
    pub(super) fn get(&self, ordinal: u64) -> Option<&T> {
        self.items.get(usize::try_from(ordinal.checked_sub(self.first)?).ok()?)
    }

    /// The ordinal of the first item for which the condition holds, or that of the next item.
    pub(super) fn first_with(&self, holds: impl FnMut(&T) -> bool) -> u64 {
        self.items.iter().position(holds).map_or(self.end(), |place| self.first + place as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_items_replace_the_oldest_and_ordinals_stay() {
        let mut ring = ItemRing::new(2);
        assert_eq!((ring.push('a'), ring.push('b'), ring.push('c')), (None, None, Some('a')));
        assert_eq!((ring.first(), ring.end()), (1, 3));
        assert_eq!([0, 1, 2, 3].map(|ordinal| ring.get(ordinal).copied()), [None, Some('b'), Some('c'), None]);
        assert_eq!((ring.first_with(|item| *item == 'c'), ring.first_with(|_| false)), (2, 3));
    }
}
