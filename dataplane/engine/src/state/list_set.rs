//! List numbers and sets of lists.

/// The maximum number of lists. The membership of an address is a mask with this many bits.
pub const MAX_LISTS: usize = 256;

/// A list, by its position in masks and counters.
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

    /// The lists in the set.
    pub fn lists(&self) -> impl Iterator<Item = ListId> {
        (0..=u8::MAX).map(ListId).filter(|list| self.contains(*list))
    }

    /// Removes the list from the set.
    pub(crate) const fn remove(&mut self, list: ListId) {
        self.0[list.index() / 64] &= !(1 << (list.index() % 64));
    }

    /// Adds all lists of another set.
    pub(crate) fn insert_all(&mut self, others: ListSet) {
        for (mine, other) in self.0.iter_mut().zip(others.0) {
            *mine |= other;
        }
    }

    /// Removes all lists of another set.
    pub(crate) fn remove_all(&mut self, others: ListSet) {
        for (mine, other) in self.0.iter_mut().zip(others.0) {
            *mine &= !other;
        }
    }

    /// Adds the list to the set.
    pub const fn insert(&mut self, list: ListId) {
        self.0[list.index() / 64] |= 1 << (list.index() % 64);
    }
}

/// A set of lists in one word, which can contain more lists than were inserted: lists whose numbers differ by a multiple of 64
/// are in it together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoarseListSet(u64);

impl CoarseListSet {
    /// All lists.
    pub(crate) const ALL: CoarseListSet = CoarseListSet(u64::MAX);

    /// The bits of the set.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The bit of a list.
    pub(crate) const fn bit(list: ListId) -> u64 {
        1 << (list.index() % 64)
    }

    /// Adds the list to the set.
    pub(crate) const fn insert(&mut self, list: ListId) {
        self.0 |= CoarseListSet::bit(list);
    }
}
