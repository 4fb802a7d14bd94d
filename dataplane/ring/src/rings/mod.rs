//! One worker's frames: a UMEM, and the rings of its two sockets.
//!
//! ```text
//!            outside                 one UMEM                 inside
//!   fill ──────► rx ──► batch ──┬── forward ──────────────► tx ──► completion ─┐
//!    ▲                          ├── reply ──► (outside) tx ──► completion ──┐  │
//!    │                          └── drop ──► free                           │  │
//!    └──────────────────────────────────────  free ◄────────────────────────┴──┘
//! ```
//! and the same from inside to outside. [`Rings`] owns every chunk of the UMEM and lends it to the kernel: a chunk is
//! free, in the batch, with the kernel for reception, or with the kernel for transmission. It is in exactly one of
//! these places.
//!
//! The order of calls: [`Rings::receive`] takes a batch, [`Rings::frames`] returns its frames, [`Rings::settle`]
//! forwards, answers or drops every frame of it, and [`Rings::kick`] makes the kernel send. No frame can be kept, and
//! none can be returned twice.
//!
//! The kernel's side is checked, in release builds too. A descriptor outside the UMEM, a completion of a chunk that is
//! not being sent, and a ring position that is out of range mean that a ring is corrupt, and stop the process. A frame
//! in a chunk that the kernel has delivered already is dropped and counted: one driver is known to deliver chunks twice
//! (docs/hardware.md).
//!
//! All of this uses memory alone. The operations that need a system call are behind [`Kernel`]; [`Sockets`] is the real
//! one. The tests run this code on plain memory against a model of the kernel.

use std::ops::Deref;

use knockplane_policy::packet::Side;

use crate::buffers::HEADROOM;
use crate::queue::Descriptor;
use crate::socket::SocketRings;
use crate::umem::{ChunkSet, Umem};

#[cfg(test)]
mod model;
mod multi_buffer;
mod sockets;
#[cfg(test)]
mod tests;

use multi_buffer::MultiBuffer;
pub use sockets::{Memory, RingSettings, Sockets};

/// Maximum number of frames in a batch. It is large enough to share the cost of a kick, and small enough for the
/// first-level cache. A `u64` has a bit for each frame of a batch.
pub const BATCH: usize = 64;

/// The data that the XDP program writes right before a frame, see `bpf/filter.c`.
const STAMP_BYTES: usize = size_of::<u64>();

/// Number of consecutive kicks with at most one sent frame after which a turn stops kicking. The frames stay in the
/// transmit ring for the next turn.
const FRUITLESS_KICKS: u32 = 4;

/// The operations of the kernel that [`Rings`] need besides shared memory.
pub trait Kernel {
    /// Makes the kernel send the frames in the side's transmit ring, or a part of them.
    fn wake_sender(&mut self, side: Side);

    /// Notifies the kernel that the side's fill ring has new chunks.
    fn wake_receiver(&mut self, side: Side);

    /// Whether the side's driver and the UMEM share memory. Such a driver needs one wake to send all frames.
    fn is_zero_copy(&self, side: Side) -> bool;
}

/// The planned action for the frames of a batch. Bit `i` is frame `i`. A frame with neither bit is dropped; no frame
/// has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispositions {
    /// Frames that leave on the other side.
    pub forward: u64,
    /// Frames that a reply overwrites. The reply leaves on the side on which the frame arrived.
    pub reply: u64,
}

/// The results for the frames of a batch. Frames in neither set are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Frames in the other side's transmit ring. The others of [`Dispositions::forward`] found no room in it.
    pub forwarded: u64,
    /// Bytes of the forwarded frames.
    pub forwarded_bytes: usize,
    /// Frames whose reply is in the transmit ring. The others of [`Dispositions::reply`] found no room, or had no reply.
    pub replied: u64,
    /// Bytes of the replies.
    pub replied_bytes: usize,
}

/// Frames that [`Rings::receive`] dropped before they were in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Number of frames. A frame of several descriptors is counted when its last descriptor arrives.
    pub frames: usize,
    /// Bytes of their descriptors.
    pub bytes: usize,
}

/// The reason why [`Rings::receive`] dropped frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveDrops {
    /// The kernel delivered the frame in several descriptors.
    pub multi_buffer: Dropped,
    /// The kernel delivered a chunk a second time, before the chunk was given to it again.
    pub duplicate: Dropped,
}

/// The frames of a batch.
pub struct Frames<'a> {
    slices: [&'a [u8]; BATCH],
    count: usize,
}

impl<'a> Deref for Frames<'a> {
    type Target = [&'a [u8]];

    fn deref(&self) -> &Self::Target {
        &self.slices[..self.count]
    }
}

/// The UMEM and the two sockets of one worker. It owns every chunk of the UMEM.
#[derive(Debug)]
pub struct Rings<K = Sockets> {
    /// Outside and inside.
    ports: [Port; 2],
    kernel: K,
    umem: Umem,
    /// The addresses of unused chunks, as a stack: the chunk that was used last is in the cache.
    free: Vec<u64>,
    batch: [Descriptor; BATCH],
    batch_count: usize,
    batch_side: Side,
    drops: ReceiveDrops,
    has_emptied: bool,
}

/// The rings of one side, and the chunks that the kernel has for this side: in each direction at most the number of
/// places of a ring, so that the UMEM suffices for one side in any state of the other side.
#[derive(Debug)]
struct Port {
    rings: SocketRings,
    /// Chunks in the fill ring, not yet received.
    receiving: ChunkSet,
    /// Chunks in the transmit ring, not yet completed.
    sending: ChunkSet,
    /// The state of a frame of several descriptors in the receive ring.
    multi_buffer: MultiBuffer,
}

impl Port {
    /// Number of frames that can be put into the transmit ring, up to `wanted`.
    fn room(&mut self, wanted: usize) -> usize {
        let tx = &mut self.rings.tx;
        let in_flight = tx.size() - self.sending.len();
        tx.room(wanted.min(in_flight))
    }
}

/// The number of chunks of one worker: enough for all four rings and a batch, so that no ring can starve another.
pub(crate) const fn frames(ring_size: u32) -> u32 {
    4 * ring_size + BATCH as u32
}

impl<K: Kernel> Rings<K> {
    /// Takes ownership of a UMEM without used chunks, and of the empty rings of outside and inside. Fills the fill
    /// rings.
    fn new(umem: Umem, rings: [SocketRings; 2], kernel: K) -> Self {
        let chunks = umem.chunks();
        let ports = rings.map(|rings| Port {
            rings,
            receiving: ChunkSet::new(chunks),
            sending: ChunkSet::new(chunks),
            multi_buffer: MultiBuffer::default(),
        });
        let mut rings = Rings {
            ports,
            kernel,
            free: umem.addresses().collect(),
            umem,
            batch: [Descriptor::default(); BATCH],
            batch_count: 0,
            batch_side: Side::Outside,
            drops: ReceiveDrops::default(),
            has_emptied: true,
        };
        for side in Side::ALL {
            rings.refill(side);
        }
        rings
    }

    /// Number of frames that the kernel has for transmission and has not completed.
    pub fn in_flight(&self) -> usize {
        self.ports.iter().map(|port| port.sending.len()).sum()
    }

    /// Number of chunks that are in none of the possible places. Always 0.
    pub fn lost(&self) -> usize {
        let with_kernel: usize = self.ports.iter().map(|port| port.receiving.len() + port.sending.len()).sum();
        self.umem.chunks() - self.free.len() - with_kernel - self.batch_count
    }

    /// Receives a batch from this side, and returns the number of its frames. The previous batch must be settled. Some
    /// frames are dropped before they are in the batch, see [`Rings::drops`].
    pub fn receive(&mut self, side: Side) -> usize {
        assert_eq!(self.batch_count, 0, "the batch before was not settled");
        let port = &mut self.ports[side.index()];
        let mut count = port.rings.rx.take(&mut self.batch);
        self.has_emptied = count < BATCH && port.rings.rx.is_empty();
        let (mut continued, mut duplicate) = (0_u64, 0_u64);
        for (index, frame) in self.batch[..count].iter().enumerate() {
            self.umem.check(frame, STAMP_BYTES);
            continued |= u64::from(frame.is_continued()) << index;
            let is_ours = !port.receiving.remove(self.umem.chunk(frame.address));
            duplicate |= u64::from(is_ours) << index;
        }
        self.drops = ReceiveDrops::default();
        if duplicate != 0 {
            (count, continued, self.drops.duplicate) = drop_duplicates(&mut self.batch[..count], continued, duplicate);
        }
        if !port.multi_buffer.is_idle(continued) {
            let free = |frame: Descriptor| self.free.push(self.umem.chunk_start(frame.address));
            (count, self.drops.multi_buffer) = port.multi_buffer.drop_parts(&mut self.batch[..count], continued, free);
        }
        self.batch_side = side;
        self.batch_count = count;
        count
    }

    /// Whether the last [`Rings::receive`] took all frames that were in the ring.
    pub const fn has_emptied(&self) -> bool {
        self.has_emptied
    }

    /// The frames that the last [`Rings::receive`] dropped. No part of them is in the batch.
    pub const fn drops(&self) -> ReceiveDrops {
        self.drops
    }

    /// The frames of the batch, in order of arrival. Their first bytes are prefetched: the caller reads headers next,
    /// and 64 cache misses in parallel take hardly longer than one.
    pub fn frames(&self) -> Frames<'_> {
        let mut slices: [&[u8]; BATCH] = [&[]; BATCH];
        for (slice, frame) in slices.iter_mut().zip(&self.batch[..self.batch_count]) {
            // SAFETY: `receive` has checked the frame, and that its chunk was the kernel's and no longer is. It belongs to the
            // batch until `settle`, which takes `&mut self` and so ends this borrow; no other code writes to it.
            *slice = unsafe { self.umem.bytes(frame) };
            prefetch(slice);
        }
        Frames { slices, count: self.batch_count }
    }

    /// The arrival times of the batch's frames, in nanoseconds of CLOCK_MONOTONIC, from the stamps of the XDP program.
    /// They are valid only if the interfaces have several queues.
    pub fn arrivals(&self) -> [u64; BATCH] {
        let mut arrivals = [0; BATCH];
        for (arrival, frame) in arrivals.iter_mut().zip(&self.batch[..self.batch_count]) {
            // SAFETY: as in `frames`; `receive` has checked that the headroom of the frame has `STAMP_BYTES` bytes.
            *arrival = unsafe { self.umem.word_before(frame) };
        }
        arrivals
    }

    /// Ends the batch: moves every frame to a transmit ring, or to the free frames. Drops a frame without room. No
    /// frame is sent before [`Rings::kick`]. `reply` returns the reply to a frame.
    ///
    /// # Panics
    /// If `wanted` both forwards and answers a frame, or contains a frame outside the batch.
    pub fn settle<'r>(&mut self, wanted: Dispositions, reply: impl Fn(usize) -> Option<&'r [u8]>) -> Settled {
        let batch = lowest_bits(self.batch_count);
        assert_eq!(wanted.forward & wanted.reply, 0, "a frame to forward and to answer");
        assert_eq!((wanted.forward | wanted.reply) & !batch, 0, "a frame that is not of the batch");
        let mut settled = Settled::default();
        if wanted.forward != 0 {
            (settled.forwarded, settled.forwarded_bytes) = self.forward(wanted.forward);
        }
        if wanted.reply != 0 {
            (settled.replied, settled.replied_bytes) = self.reply(wanted.reply, reply);
        }
        for index in bits(batch & !settled.forwarded & !settled.replied) {
            self.free.push(self.umem.chunk_start(self.batch[index].address));
        }
        self.batch_count = 0;
        settled
    }

    /// Puts frames of the batch into the other side's transmit ring, the first ones if there is not enough room.
    fn forward(&mut self, wanted: u64) -> (u64, usize) {
        let port = &mut self.ports[self.batch_side.opposite().index()];
        let mut room = port.room(wanted.count_ones() as usize);
        let (mut forwarded, mut bytes) = (0, 0);
        for index in bits(wanted) {
            if room == 0 {
                break;
            }
            room -= 1;
            let frame = self.batch[index];
            port.sending.insert(self.umem.chunk(frame.address));
            // SAFETY: `receive` has checked the frame. It leaves the batch: `settle` frees only frames that are not returned
            // here, and then empties the batch.
            unsafe { put_to_send(port, frame) };
            forwarded |= 1 << index;
            bytes += frame.length as usize;
        }
        port.rings.tx.publish();
        (forwarded, bytes)
    }

    /// Overwrites frames of the batch with their replies, and puts them into the transmit ring of the side that they
    /// arrived on.
    fn reply<'r>(&mut self, wanted: u64, reply: impl Fn(usize) -> Option<&'r [u8]>) -> (u64, usize) {
        let port = &mut self.ports[self.batch_side.index()];
        let mut room = port.room(wanted.count_ones() as usize);
        let (mut replied, mut bytes) = (0, 0);
        for index in bits(wanted) {
            if room == 0 {
                break;
            }
            let address = self.batch[index].address;
            let Some(reply) = reply(index).filter(|reply| reply.len() <= self.umem.rest(address)) else { continue };
            let frame = Descriptor { address, length: reply.len() as u32, options: 0 };
            // SAFETY: the frame lies within a chunk of the batch, and `&mut self` guarantees that no frame is borrowed.
            unsafe { self.umem.bytes_mut(&frame) }.copy_from_slice(reply);
            room -= 1;
            port.sending.insert(self.umem.chunk(address));
            // SAFETY: as in `forward`.
            unsafe { put_to_send(port, frame) };
            replied |= 1 << index;
            bytes += reply.len();
        }
        port.rings.tx.publish();
        (replied, bytes)
    }

    /// Puts a frame of these bytes into the side's transmit ring. [`Rings::kick`] sends it. Returns false if there is
    /// no room.
    pub fn send(&mut self, side: Side, bytes: &[u8]) -> bool {
        let port = &mut self.ports[side.index()];
        if port.room(1) == 0 || bytes.len() > self.umem.chunk_bytes() - HEADROOM as usize {
            return false;
        }
        let Some(chunk) = self.free.pop() else { return false };
        let frame = Descriptor { address: chunk + u64::from(HEADROOM), length: bytes.len() as u32, options: 0 };
        // SAFETY: the frame lies within a free chunk, which no ring and no batch names, and no frame is borrowed.
        unsafe { self.umem.bytes_mut(&frame) }.copy_from_slice(bytes);
        port.sending.insert(self.umem.chunk(chunk));
        // SAFETY: the chunk is no longer among the free ones.
        unsafe { put_to_send(port, frame) };
        port.rings.tx.publish();
        true
    }

    /// Makes the kernel send the frames in this side's transmit ring, takes back the chunks of sent frames, and refills
    /// the side's fill ring. Called once for each batch.
    pub fn kick(&mut self, side: Side) {
        self.reap(side);
        let is_zero_copy = self.kernel.is_zero_copy(side);
        let mut fruitless = 0;
        loop {
            let port = &mut self.ports[side.index()];
            if port.sending.len() == 0 || !port.rings.tx.needs_wakeup() {
                break;
            }
            let before = port.rings.tx.pending();
            if before == 0 {
                break;
            }
            self.kernel.wake_sender(side);
            let after = port.rings.tx.pending();
            // If the link of an interface is down, the kernel takes one frame from the ring in each kick, and drops it:
            // further kicks are useless.
            fruitless = if after + 1 >= before { fruitless + 1 } else { 0 };
            self.reap(side);
            // A driver with zero-copy needs one wake to send all frames.
            if is_zero_copy || fruitless == FRUITLESS_KICKS {
                break;
            }
        }
        self.refill(side);
    }

    /// Takes back the chunks that the kernel has sent.
    fn reap(&mut self, side: Side) {
        let port = &mut self.ports[side.index()];
        while port.sending.len() > 0 {
            let count = port.rings.completion.take_each(|address| {
                self.umem.check(&Descriptor { address, length: 0, options: 0 }, 0);
                let was_sending = port.sending.remove(self.umem.chunk(address));
                assert!(was_sending, "corrupt ring: the frame at {address} was completed and not being sent");
                self.free.push(self.umem.chunk_start(address));
            });
            if count == 0 {
                break;
            }
        }
    }

    /// Gives free chunks to the kernel for reception.
    fn refill(&mut self, side: Side) {
        let port = &mut self.ports[side.index()];
        let fill = &mut port.rings.fill;
        let wanted = (fill.size() - port.receiving.len()).min(self.free.len());
        if wanted > 0 {
            let count = fill.room(wanted);
            for chunk in self.free.drain(self.free.len() - count..) {
                port.receiving.insert(self.umem.chunk(chunk));
                // SAFETY: a free chunk belongs to this UMEM and has no other user. It is removed from the free chunks
                // here.
                unsafe { fill.put(chunk) };
            }
            fill.publish();
        }
        if fill.needs_wakeup() {
            self.kernel.wake_receiver(side);
        }
    }
}

/// Puts a frame into the port's transmit ring. Clears the flags of its reception, which have another meaning there.
///
/// # Safety
/// As for [`crate::queue::Producer::put`].
#[inline]
unsafe fn put_to_send(port: &mut Port, frame: Descriptor) {
    // SAFETY: the caller guarantees it.
    unsafe { port.rings.tx.put(Descriptor { options: 0, ..frame }) };
}

/// Moves the frames that are not duplicates to the front, in order, with their bits of `continued`. The chunks of
/// duplicates have another place already, and stay there.
#[cold]
fn drop_duplicates(batch: &mut [Descriptor], continued: u64, duplicate: u64) -> (usize, u64, Dropped) {
    let (mut kept, mut kept_continued, mut dropped) = (0, 0, Dropped::default());
    for index in 0..batch.len() {
        let bit = |mask: u64| mask >> index & 1;
        if bit(duplicate) != 0 {
            dropped.frames += 1;
            dropped.bytes += batch[index].length as usize;
        } else {
            batch[kept] = batch[index];
            kept_continued |= bit(continued) << kept;
            kept += 1;
        }
    }
    (kept, kept_continued, dropped)
}

/// The positions of the bits that are set, from the lowest.
#[inline]
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = (mask != 0).then_some(mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(index)
    })
}

/// A mask with the lowest `count` bits set.
const fn lowest_bits(count: usize) -> u64 {
    if count < 64 { (1 << count) - 1 } else { u64::MAX }
}

/// Prefetches the cache line in which the frame begins, if the processor has such an instruction.
#[inline]
fn prefetch(frame: &[u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint. It has no effect on the program's state, at any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(frame.as_ptr().cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = frame;
}
