//! Memory of cache lines.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use zerocopy::FromZeros as _;

/// A cache line.
pub(super) type Line = [AtomicU64; 8];

/// Lines of zeros, each in one cache line of the processor.
pub(super) struct Lines {
    words: Box<[AtomicU64]>,
    /// The first word at the begin of a cache line.
    first: usize,
    count: usize,
}

impl Lines {
    /// Reserves memory; `None` if there is not enough. The kernel allocates its pages at the first write. It would
    /// allocate them at once for a type with the alignment of a cache line, because the allocator writes such memory.
    pub(super) fn new(count: usize) -> Option<Lines> {
        let words = count.checked_mul(size_of::<Line>() / 8)?.checked_add(size_of::<Line>() / 8)?;
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(words).ok()?;
        let misaligned = words.as_ptr().addr() % size_of::<Line>();
        Some(Lines { words, first: (size_of::<Line>() - misaligned) / 8 % 8, count })
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The line of this number, which is below the count.
    #[inline]
    pub(super) fn line(&self, number: usize) -> &Line {
        self.words[self.first + 8 * number..].first_chunk().expect("a line of the memory")
    }

    /// The lines of these numbers.
    #[inline]
    pub(super) fn lines(&self, numbers: Range<usize>) -> &[Line] {
        self.words[self.first..][8 * numbers.start..8 * numbers.end].as_chunks().0
    }

    /// The addresses of the memory.
    pub(super) fn region(&self) -> Range<usize> {
        let Range { start, end } = self.words.as_ptr_range();
        start.addr()..end.addr()
    }
}
