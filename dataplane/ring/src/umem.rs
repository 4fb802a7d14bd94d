//! The memory of frames, which is divided into chunks, and sets of chunks.
//!
//! ```text
//!   chunk    | headroom                    | frame, up to the end of the chunk         |
//!            |        time stamp (8 bytes) | address                                   |
//!   address    bytes from the start of the UMEM; chunk number = address / size of a chunk
//! ```
//! [`Umem`] does not record the owner of a chunk: a caller that reads its bytes guarantees to own it. A [`ChunkSet`]
//! contains the chunks that the owner has given to the kernel, which are the chunks that the kernel can return.

use std::slice;

use crate::queue::Descriptor;
use crate::region::Region;

/// Chunks of equal size, a power of two.
#[derive(Debug)]
pub(crate) struct Umem {
    region: Region,
    chunk_bytes: usize,
    /// The base-2 logarithm of `chunk_bytes`. The hot path shifts by it for each frame.
    chunk_shift: u32,
}

impl Umem {
    /// Divides a region into chunks.
    ///
    /// # Panics
    /// If the size is no power of two, or the region is no multiple of it.
    pub(crate) fn new(region: Region, chunk_bytes: usize) -> Self {
        assert!(chunk_bytes.is_power_of_two() && region.bytes().is_multiple_of(chunk_bytes), "chunks of {chunk_bytes}");
        Umem { region, chunk_bytes, chunk_shift: chunk_bytes.trailing_zeros() }
    }

    pub(crate) const fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) const fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    pub(crate) const fn chunks(&self) -> usize {
        self.region.bytes() / self.chunk_bytes
    }

    /// The addresses of all chunks.
    pub(crate) fn addresses(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        let chunk_bytes = self.chunk_bytes;
        (0..self.chunks()).map(move |chunk| (chunk * chunk_bytes) as u64)
    }

    /// The number of the chunk that contains an address.
    #[inline]
    pub(crate) const fn chunk(&self, address: u64) -> usize {
        (address >> self.chunk_shift) as usize
    }

    /// The start of the chunk that contains an address.
    #[inline]
    pub(crate) const fn chunk_start(&self, address: u64) -> u64 {
        address & !(self.chunk_bytes as u64 - 1)
    }

    /// Bytes from an address to the end of its chunk.
    #[inline]
    pub(crate) const fn rest(&self, address: u64) -> usize {
        self.chunk_bytes - (address as usize & (self.chunk_bytes - 1))
    }

    /// Stops the process if the descriptor does not describe a frame within one chunk, behind `headroom` bytes.
    #[inline]
    pub(crate) fn check(&self, frame: &Descriptor, headroom: usize) {
        let Descriptor { address, length, .. } = *frame;
        let rest = self.rest(address);
        let is_within =
            address < self.region.bytes() as u64 && length as usize <= rest && self.chunk_bytes - rest >= headroom;
        if !is_within {
            corrupt(*frame, self.region.bytes());
        }
    }

    /// The bytes of a frame.
    ///
    /// # Safety
    /// The frame has passed [`Umem::check`], and its chunk belongs to the caller, which does not write to it while the bytes
    /// are borrowed.
    #[inline]
    pub(crate) unsafe fn bytes(&self, frame: &Descriptor) -> &[u8] {
        // SAFETY: the frame lies within the region, as the caller guarantees, and was initialised when the region was
        // made.
        unsafe {
            slice::from_raw_parts(self.region.start().add(frame.address as usize).as_ptr(), frame.length as usize)
        }
    }

    /// The bytes of a frame, to write to.
    ///
    /// # Safety
    /// The frame has passed [`Umem::check`], and its chunk belongs to the caller.
    #[inline]
    pub(crate) unsafe fn bytes_mut(&mut self, frame: &Descriptor) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` guarantees that no other bytes are borrowed.
        unsafe {
            slice::from_raw_parts_mut(self.region.start().add(frame.address as usize).as_ptr(), frame.length as usize)
        }
    }

    /// The 8 bytes in front of a frame, in the order of the processor.
    ///
    /// # Safety
    /// As for [`Umem::bytes`], and the frame was checked to have at least 8 bytes of headroom.
    #[inline]
    pub(crate) unsafe fn word_before(&self, frame: &Descriptor) -> u64 {
        // SAFETY: the bytes lie within the region, as the caller guarantees.
        unsafe { self.region.start().add(frame.address as usize - 8).cast::<u64>().read_unaligned() }
    }
}

/// Stops the process. The arguments are passed by value: a message in the loop over frames would write its arguments to
/// memory for each frame.
#[cold]
#[inline(never)]
fn corrupt(frame: Descriptor, umem_bytes: usize) -> ! {
    panic!("corrupt ring: a frame of {} bytes at {} in a UMEM of {umem_bytes}", frame.length, frame.address);
}

/// The chunks that are in one place: a bit for each chunk of the UMEM. 16,000 chunks take 2 KiB, which stay in the
/// first-level cache.
#[derive(Debug)]
pub(crate) struct ChunkSet {
    bits: Box<[u64]>,
    count: usize,
}

impl ChunkSet {
    /// Creates an empty set for a UMEM of `chunks` chunks.
    pub(crate) fn new(chunks: usize) -> Self {
        ChunkSet { bits: vec![0; chunks.div_ceil(64)].into(), count: 0 }
    }

    /// Number of chunks in the set.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Adds a chunk that is not in the set.
    #[inline]
    pub(crate) fn insert(&mut self, chunk: usize) {
        debug_assert!(!self.contains(chunk), "chunk {chunk} is there already");
        self.bits[chunk / 64] |= 1 << (chunk % 64);
        self.count += 1;
    }

    /// Removes a chunk. Returns false if it was not in the set.
    #[inline]
    pub(crate) fn remove(&mut self, chunk: usize) -> bool {
        let word = &mut self.bits[chunk / 64];
        let was_there = *word >> (chunk % 64) & 1;
        *word &= !(1 << (chunk % 64));
        self.count -= was_there as usize;
        was_there != 0
    }

    /// Whether the set contains a chunk.
    pub(crate) fn contains(&self, chunk: usize) -> bool {
        self.bits[chunk / 64] >> (chunk % 64) & 1 != 0
    }
}
