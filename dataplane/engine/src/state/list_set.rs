//! Lists by number, and sets of them.

/// How many lists there can be. An address's membership is a mask of so many bits.
pub const MAX_LISTS: usize = 256;

/// A list, by its place in masks and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub(crate) u8);

impl ListId {
    /// Position among all lists, below [`MAX_LISTS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListSet([u64; MAX_LISTS / 64]);

impl ListSet {
    /// No list.
    pub const EMPTY: ListSet = ListSet([0; MAX_LISTS / 64]);

    /// Whether the list is in the set.
    pub const fn contains(&self, list: ListId) -> bool {
        self.0[list.index() / 64] >> (list.index() % 64) & 1 == 1
    }

    /// Takes the list out of the set.
    pub(crate) const fn remove(&mut self, list: ListId) {
        self.0[list.index() / 64] &= !(1 << (list.index() % 64));
    }

    /// Puts in all lists of another set.
    pub(crate) fn insert_all(&mut self, others: ListSet) {
        for (mine, other) in self.0.iter_mut().zip(others.0) {
            *mine |= other;
        }
    }

    /// Puts the list in the set.
    pub const fn insert(&mut self, list: ListId) {
        self.0[list.index() / 64] |= 1 << (list.index() % 64);
    }
}
