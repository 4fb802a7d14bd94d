//! Small numbers in the lanes of a word: tags and digests of slots, and fields of entries.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The lowest bit of each lane of 8 bits.
pub(crate) const LANES_OF_8: u64 = 0x0101_0101_0101_0101;

/// The lowest bit of each lane of 16 bits.
pub(crate) const LANES_OF_16: u64 = 0x0001_0001_0001_0001;

/// The highest bit of each lane that has this value. `lowest` has the lowest bit of each lane: [`LANES_OF_8`] or
/// [`LANES_OF_16`]. Source: Warren, Hacker's Delight, 6-1.
#[inline]
pub(crate) const fn equal_lanes(word: u64, value: u64, lowest: u64) -> u64 {
    let highest = lowest.rotate_right(1);
    let differences = word ^ (value * lowest);
    // The sum does not carry into the next lane.
    !(((differences & !highest) + !highest) | differences) & highest
}

/// Stores a value in the bits of a word from `bit` on; `mask` has as many bits as the value may have. The caller
/// excludes other writers.
#[inline]
pub(crate) fn store_bits(word: &AtomicU64, bit: u32, mask: u64, value: u64) {
    word.store(word.load(Relaxed) & !(mask << bit) | value << bit, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_equal_lanes_are_found() {
        let values = [0, 1, 2, 0x7f, 0x80, 0x81, 0xff];
        for (lowest, width) in [(LANES_OF_8, 8), (LANES_OF_16, 16)] {
            let top = (1_u64 << width) - 1;
            let values = values.into_iter().chain([top - 1, top]);
            for (one, other) in values.clone().flat_map(|one| values.clone().map(move |other| (one, other))) {
                // The lowest lane and the third one have the first value, all others the second one.
                let word = AtomicU64::new(other * lowest);
                [0, 2 * width].into_iter().for_each(|bit| store_bits(&word, bit, top, one));
                let found = equal_lanes(word.load(Relaxed), one, lowest);
                let highest = lowest << (width - 1);
                let two = 1 << (width - 1) | 1 << (3 * width - 1);
                assert_eq!(found, if one == other { highest } else { two }, "{one} among {other}");
            }
        }
    }
}
