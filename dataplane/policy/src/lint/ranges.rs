//! Sets of ports, as ranges.

use std::ops::RangeInclusive;

/// A set of 16-bit numbers: ranges in ascending order, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<RangeInclusive<u16>>);

impl Ranges {
    /// The union of these ranges. They may be in any order, and a range may be empty.
    pub(super) fn of(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Ranges {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Ranges(merged)
    }

    /// The complement.
    pub(super) fn complement(&self) -> Ranges {
        let mut missing = Vec::new();
        let mut next = Some(0);
        for range in &self.0 {
            if let (Some(from), Some(to)) = (next, range.start().checked_sub(1)) {
                missing.push(from..=to);
            }
            next = range.end().checked_add(1);
        }
        missing.extend(next.map(|from| from..=u16::MAX));
        Ranges::of(missing)
    }

    /// The intersection.
    pub(super) fn intersection(&self, other: &Ranges) -> Ranges {
        let pairs = self.0.iter().flat_map(|left| other.0.iter().map(move |right| (left, right)));
        Ranges::of(pairs.map(|(left, right)| *left.start().max(right.start())..=*left.end().min(right.end())))
    }

    /// The number of elements.
    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|range| u32::from(*range.end()) - u32::from(*range.start()) + 1).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_subset(&self, of: &Ranges) -> bool {
        self.intersection(of) == *self
    }

    pub(super) fn intersects(&self, other: &Ranges) -> bool {
        let meet = |left: &RangeInclusive<u16>, right: &RangeInclusive<u16>| {
            left.start() <= right.end() && right.start() <= left.end()
        };
        self.0.iter().any(|left| other.0.iter().any(|right| meet(left, right)))
    }

    /// The smallest and the largest element.
    pub(super) fn ends(&self) -> Option<(u16, u16)> {
        Some((*self.0.first()?.start(), *self.0.last()?.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u16, u16)]) -> Ranges {
        Ranges::of(ranges.iter().map(|(from, to)| *from..=*to))
    }

    #[test]
    fn ranges_are_sorted_and_merged() {
        assert_eq!(set(&[(5, 9), (1, 2), (3, 3), (8, 12), (7, 6)]).0, [1..=3, 5..=12]);
        assert_eq!(set(&[(0, u16::MAX), (u16::MAX, u16::MAX)]), set(&[(0, u16::MAX)]));
    }

    #[test]
    fn sets_are_algebra() {
        let some = set(&[(0, 5), (10, 20), (u16::MAX, u16::MAX)]);
        assert_eq!(some.complement(), set(&[(6, 9), (21, u16::MAX - 1)]));
        assert_eq!(some.complement().complement(), some);
        assert!(
            set(&[(0, u16::MAX)]).complement().is_empty() && Ranges::default().complement() == set(&[(0, u16::MAX)])
        );
        assert_eq!(some.intersection(&set(&[(4, 12)])), set(&[(4, 5), (10, 12)]));
        assert!(set(&[(11, 12)]).is_subset(&some) && !set(&[(9, 12)]).is_subset(&some));
        assert!(some.intersects(&set(&[(9, 10)])) && !some.intersects(&set(&[(6, 9)])));
        assert_eq!(some.ends(), Some((0, u16::MAX)));
        assert_eq!((some.len(), set(&[(0, u16::MAX)]).len()), (18, 1 << 16));
    }
}
