//! The four rings of an AF_XDP socket, each with one producer and one consumer.
//!
//! ```text
//!              consumer's position         producer's position
//!                      ▼                           ▼
//!   entries  |         | a | b | c | d | e | f | g |          |      positions count up and wrap at 2^32;
//!                                                                    an entry is at its position modulo the size
//!   fill, tx            the kernel consumes         [`Producer`] produces
//!   rx, completion      [`Consumer`] consumes       the kernel produces
//! ```
//! Each end writes its own position and only reads that of the other end. An entry is written before the producer's
//! position passes it (release, acquire), and is not written again before the consumer's position has passed it. Each
//! end keeps a copy of the other end's position. It reads the position itself, which costs a cache miss, only when the
//! copy does not suffice.
//!
//! The kernel's position is checked whenever it is read. If its distance from this end's position is larger than the
//! ring, the ring is corrupt, and the process stops. Source: Linux `Documentation/networking/af_xdp.rst`,
//! `net/xdp/xsk_queue.h`.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::region::Region;

/// An entry of the receive and transmit rings: `struct xdp_desc` of Linux `include/uapi/linux/if_xdp.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    /// The start of the frame, in bytes from the start of the UMEM.
    pub(crate) address: u64,
    /// Length of the frame in bytes.
    pub(crate) length: u32,
    /// `XDP_PKT_CONTD` or 0.
    pub(crate) options: u32,
}

impl Descriptor {
    /// Whether the frame continues in the next descriptor.
    pub(crate) const fn is_continued(&self) -> bool {
        self.options & libc::XDP_PKT_CONTD != 0
    }
}

/// An entry of a ring.
///
/// # Safety
/// Any bytes are a valid value.
pub(crate) unsafe trait RingEntry: Copy {}

// SAFETY: an integer, for which any bytes are valid.
unsafe impl RingEntry for u64 {}
// SAFETY: integers without padding between them.
unsafe impl RingEntry for Descriptor {}

/// The places of the parts of a ring in its region, in bytes: `struct xdp_ring_offset`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingOffsets {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
    pub(crate) entries: usize,
    pub(crate) flags: usize,
}

/// The common state of both ends.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    /// The number of entries; a power of two.
    size: u32,
    /// The memory that the pointers point to.
    _region: Region,
}

// SAFETY: the pointers point into the region, which may move between threads. Entries are integers.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: RingEntry> Ring<T> {
    fn new(region: Region, offsets: &RingOffsets, size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring of {size}");
        Ring {
            producer: region.at(offsets.producer, 1),
            consumer: region.at(offsets.consumer, 1),
            flags: region.at(offsets.flags, 1),
            entries: region.at(offsets.entries, size as usize),
            size,
            _region: region,
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: the pointer points into the region and is aligned, and both ends use this word as an atomic.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }

    /// The place of the entry at this position.
    #[inline]
    fn entry(&self, position: u32) -> NonNull<T> {
        // SAFETY: the masked position is less than the size, and `size` entries lie within the region.
        unsafe { self.entries.add((position & (self.size - 1)) as usize) }
    }

    /// The number of entries between two positions. The kernel writes at least one of them.
    #[inline]
    fn between(&self, consumer: u32, producer: u32) -> u32 {
        let entries = producer.wrapping_sub(consumer);
        assert!(entries <= self.size, "corrupt ring: {entries} entries in a ring of {}", self.size);
        entries
    }
}

/// This process's end of a fill or transmit ring.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// The position of the next entry. The kernel sees the entries before the last [`Producer::publish`].
    next: u32,
    /// The consumer's position when it was last read.
    consumed: u32,
}

impl<T: RingEntry> Producer<T> {
    pub(crate) fn new(region: Region, offsets: &RingOffsets, size: u32) -> Self {
        let ring = Ring::new(region, offsets, size);
        let (next, consumed) = (ring.producer().load(Relaxed), ring.consumer().load(Acquire));
        ring.between(consumed, next);
        Producer { ring, next, consumed }
    }

    /// Free places, up to `wanted`.
    #[inline]
    pub(crate) fn room(&mut self, wanted: usize) -> usize {
        if self.known_room() < wanted {
            self.refresh();
        }
        self.known_room().min(wanted)
    }

    #[inline]
    fn known_room(&self) -> usize {
        (self.ring.size - self.next.wrapping_sub(self.consumed)) as usize
    }

    fn refresh(&mut self) {
        let consumed = self.ring.consumer().load(Acquire);
        self.ring.between(consumed, self.next);
        self.consumed = consumed;
    }

    /// Entries that the kernel has not taken yet.
    pub(crate) fn pending(&mut self) -> usize {
        self.refresh();
        self.next.wrapping_sub(self.consumed) as usize
    }

    /// Writes an entry. The caller ensures that there is [`Producer::room`]. The kernel sees the entry after
    /// [`Producer::publish`].
    ///
    /// # Safety
    /// The chunk of the entry belongs to the socket's UMEM and has no other user. The call gives it to the kernel: no
    /// reference to it may exist until the kernel has returned it.
    ///
    /// # Panics
    /// If there is no room.
    #[inline]
    pub(crate) unsafe fn put(&mut self, entry: T) {
        assert!(self.known_room() > 0, "no room in the ring");
        // SAFETY: the place is within the ring, and the kernel does not read it before the next `publish`.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Makes the written entries visible to the kernel.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.ring.producer().store(self.next, Release);
    }

    /// Whether the kernel requests a wake-up (`XDP_RING_NEED_WAKEUP`).
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// The size of the ring, in entries.
    pub(crate) const fn size(&self) -> usize {
        self.ring.size as usize
    }
}

/// This process's end of a receive or completion ring.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read.
    next: u32,
    /// The producer's position when it was last read.
    produced: u32,
}

impl<T: RingEntry> Consumer<T> {
    pub(crate) fn new(region: Region, offsets: &RingOffsets, size: u32) -> Self {
        let ring = Ring::new(region, offsets, size);
        let (next, produced) = (ring.consumer().load(Relaxed), ring.producer().load(Acquire));
        ring.between(next, produced);
        Consumer { ring, next, produced }
    }

    /// Entries that are known to be available. Reads the producer's position if there are none.
    #[inline]
    fn available(&mut self) -> usize {
        if self.produced == self.next {
            let produced = self.ring.producer().load(Acquire);
            self.ring.between(self.next, produced);
            self.produced = produced;
        }
        self.produced.wrapping_sub(self.next) as usize
    }

    /// Whether the ring has no entries now.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.producer().load(Acquire) == self.next
    }

    /// Reads as many available entries as fit into `entries`, and returns their number. Gives their places back to the
    /// kernel.
    #[inline]
    pub(crate) fn take(&mut self, entries: &mut [T]) -> usize {
        let count = self.available().min(entries.len());
        for (entry, position) in entries[..count].iter_mut().zip(0..) {
            // SAFETY: so many entries are available.
            *entry = unsafe { self.peek(position) };
        }
        self.release(count);
        count
    }

    /// Passes the entries that are known to be available to `each`, in order, and returns their number. Then gives
    /// their places back to the kernel.
    #[inline]
    pub(crate) fn take_each(&mut self, mut each: impl FnMut(T)) -> usize {
        let count = self.available();
        for position in 0..count as u32 {
            // SAFETY: so many entries are available.
            each(unsafe { self.peek(position) });
        }
        self.release(count);
        count
    }

    /// Reads the entry `position` places after the next one.
    ///
    /// # Safety
    /// The position is less than [`Consumer::available`].
    #[inline]
    unsafe fn peek(&self, position: u32) -> T {
        // SAFETY: the place is within the ring. The kernel has written the entry before its position passed it, as the
        // caller guarantees, and does not write there before this end's position has passed it.
        unsafe { self.ring.entry(self.next.wrapping_add(position)).read() }
    }

    /// Returns the places of the next `count` entries to the kernel.
    #[inline]
    fn release(&mut self, count: usize) {
        if count > 0 {
            self.next = self.next.wrapping_add(count as u32);
            self.ring.consumer().store(self.next, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;
    use std::thread;

    use super::*;

    const OFFSETS: RingOffsets = RingOffsets { producer: 0, consumer: 64, flags: 128, entries: 192 };
    const SIZE: u32 = 4;

    /// Both ends of one ring, shortly before its positions wrap, and its memory.
    fn both_ends() -> (Region, Producer<u64>, Consumer<u64>) {
        let memory = Region::plain(256);
        let position = u32::MAX - 5;
        for offset in [OFFSETS.producer, OFFSETS.consumer] {
            // SAFETY: the memory is new, and has no other user yet.
            unsafe { memory.at::<u32>(offset, 1).write(position) };
        }
        // SAFETY: the tests keep `memory` until both ends are dropped.
        let [one, other] = [(); 2].map(|()| unsafe { memory.borrowed() });
        let (producer, consumer) = (Producer::new(one, &OFFSETS, SIZE), Consumer::new(other, &OFFSETS, SIZE));
        (memory, producer, consumer)
    }

    #[test]
    fn an_entry_is_seen_once_it_is_published_and_its_place_is_free_once_it_is_taken() {
        let (_memory, mut producer, mut consumer) = both_ends();
        let mut entry = 0;
        assert_eq!((producer.room(9), producer.pending()), (4, 0));
        for number in 1..=4 {
            // SAFETY: the entries name no chunks.
            unsafe { producer.put(number) };
        }
        assert_eq!((producer.room(1), consumer.take(slice::from_mut(&mut entry))), (0, 0));
        producer.publish();
        for number in 1..=4 {
            assert_eq!((consumer.take(slice::from_mut(&mut entry)), entry), (1, number));
        }
        assert_eq!((consumer.take(slice::from_mut(&mut entry)), producer.room(9)), (0, 4));
    }

    #[test]
    #[should_panic(expected = "no room in the ring")]
    fn a_full_ring_takes_no_entry() {
        let (_memory, mut producer, _consumer) = both_ends();
        for number in 0..5 {
            // SAFETY: the entries name no chunks.
            unsafe { producer.put(number) };
        }
    }

    #[test]
    fn two_threads_pass_every_entry_in_order() {
        const COUNT: u64 = if cfg!(miri) { 50 } else { 1_000 };
        let (_memory, mut producer, mut consumer) = both_ends();
        let sender = thread::spawn(move || {
            let mut next = 0;
            while next < COUNT {
                let room = producer.room((COUNT - next) as usize);
                for _ in 0..room {
                    // SAFETY: the entries name no chunks.
                    unsafe { producer.put(next) };
                    next += 1;
                }
                producer.publish();
                if room == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < COUNT {
            let mut entries = [0; 3];
            let count = consumer.take(&mut entries);
            for entry in &entries[..count] {
                assert_eq!(*entry, next);
                next += 1;
            }
            if count == 0 {
                thread::yield_now();
            }
        }
        sender.join().expect("the sender ends");
    }
}
