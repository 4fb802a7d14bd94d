//! Sets of ports.

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PortSet(Box<[u64; PortSet::WORDS]>);

impl PortSet {
    const WORDS: usize = (1 << 16) / u64::BITS as usize;

    pub(super) fn all() -> PortSet {
        PortSet(Box::new([u64::MAX; PortSet::WORDS]))
    }

    pub(super) fn none() -> PortSet {
        PortSet(Box::new([0; PortSet::WORDS]))
    }

    /// The ports of these ranges, which include both ends.
    pub(super) fn of(ranges: &[(u16, u16)]) -> PortSet {
        let mut set = PortSet::none();
        for (first, last) in ranges {
            let (first, last) = (usize::from(*first), usize::from(*last));
            for word in first / 64..=last / 64 {
                let from = u64::MAX << (first.max(word * 64) % 64);
                let to = u64::MAX >> (63 - last.min(word * 64 + 63) % 64);
                set.0[word] |= from & to;
            }
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn insert_all(&mut self, other: &PortSet) {
        self.0.iter_mut().zip(&*other.0).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn remove_all(&mut self, other: &PortSet) {
        self.0.iter_mut().zip(&*other.0).for_each(|(word, other)| *word &= !other);
    }

    pub(super) fn retain(&mut self, other: &PortSet) {
        self.0.iter_mut().zip(&*other.0).for_each(|(word, other)| *word &= other);
    }

    /// Writes a value for each of the ports, at its place. There is a place for every port.
    pub(super) fn fill<T: Copy>(&self, places: &mut [T], value: T) {
        for (word, places) in self.0.iter().zip(places.chunks_mut(u64::BITS as usize)) {
            if *word == u64::MAX {
                places.fill(value);
                continue;
            }
            let mut left = *word;
            while left != 0 {
                places[left.trailing_zeros() as usize] = value;
                left &= left - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_contain_the_ports_of_their_ranges() {
        let set = PortSet::of(&[(0, 1), (63, 64), (65_535, 65_535)]);
        let ports = |set: &PortSet| -> Vec<_> {
            let mut places = vec![false; 1 << 16];
            set.fill(&mut places, true);
            (0..1 << 16).filter(|port| places[*port]).collect()
        };
        assert_eq!(ports(&set), [0, 1, 63, 64, 65_535]);
        let mut rest = PortSet::all();
        rest.remove_all(&set);
        assert_eq!(ports(&rest).len(), 65_531);
        rest.retain(&set);
        assert!(rest.is_empty() && rest == PortSet::none());
        rest.insert_all(&set);
        assert!(rest == set && PortSet::of(&[(0, 65_535)]) == PortSet::all());
    }
}
