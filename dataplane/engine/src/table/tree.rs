//! Where ranges of numbers begin, in order, and in which of them a number is.

/// A number that addresses or ports are.
pub(super) trait Number: Copy + Ord + Default {
    /// The next one, if there is one.
    fn next(self) -> Option<Self>;

    /// Its upper 16 bits.
    fn page(self) -> u16;
}

impl Number for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }

    fn page(self) -> u16 {
        (self >> 16) as u16
    }
}

impl Number for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }

    fn page(self) -> u16 {
        (self >> 112) as u16
    }
}

/// Fewer are searched as they are: that takes no longer than to look at a page.
const MANY: usize = 64;

/// See the module.
#[derive(Default)]
pub(super) struct Starts<T> {
    starts: Box<[T]>,
    /// By a number's upper 16 bits, how many starts are below all numbers that have them; and one more, how many there
    /// are. Empty if there are few.
    pages: Box<[u32]>,
}

impl<T: Number> Starts<T> {
    /// `starts` in ascending order.
    pub(super) fn new(starts: Box<[T]>) -> Starts<T> {
        let pages = if starts.len() < MANY {
            Box::default()
        } else {
            let below = |page: u32| starts.partition_point(|start| u32::from(start.page()) < page) as u32;
            (0..=u32::from(u16::MAX) + 1).map(below).collect()
        };
        Starts { starts, pages }
    }

    /// How many begin at the number or before it.
    #[inline]
    pub(super) fn up_to(&self, number: T) -> usize {
        let page = usize::from(number.page());
        let (first, last) = match (self.pages.get(page), self.pages.get(page + 1)) {
            (Some(first), Some(last)) => (*first as usize, *last as usize),
            _ => (0, self.starts.len()),
        };
        let within = self.starts.get(first..last).unwrap_or_default();
        first + within.partition_point(|start| *start <= number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers next to each start, and the ends.
    fn probes(starts: &[u32]) -> impl Iterator<Item = u32> {
        let near = starts.iter().flat_map(|start| [start.saturating_sub(1), *start, start.saturating_add(1)]);
        near.chain([0, u32::MAX, 0x0001_0000, 0xffff_0000])
    }

    #[test]
    fn few_and_many_are_found_as_one_by_one() {
        for count in [0, 1, 3, MANY - 1, MANY, 5_000] {
            let mut starts: Vec<u32> = (0..count as u32).map(|place| place.wrapping_mul(0x9e37_79b9)).collect();
            starts.sort_unstable();
            let wide = starts.iter().map(|start| u128::from(*start) << 96 | 5).collect();
            let (found, wide) = (Starts::new(starts.clone().into()), Starts::new(wide));
            for number in probes(&starts) {
                let expected = starts.iter().filter(|start| **start <= number).count();
                assert_eq!(found.up_to(number), expected, "{number:#x} among {count}");
                assert_eq!(wide.up_to(u128::from(number) << 96 | 5), expected, "{number:#x} among {count}");
            }
        }
    }
}
