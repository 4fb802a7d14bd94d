//! A model of the kernel's side of two AF_XDP sockets with one UMEM, over heap memory.
//!
//! The model has the kernel's end of each ring, and records the chunks that it has. It shares no code with the
//! production side: its ends of the rings follow Linux `Documentation/networking/af_xdp.rst`. It makes no system call.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use knockplane_policy::packet::Side;

use super::Kernel;
use crate::queue::{Consumer, Descriptor, Producer, RingOffsets};
use crate::region::Region;
use crate::socket::SocketRings;
use crate::umem::Umem;

/// Each position has its own cache line, as in the kernel.
const OFFSETS: RingOffsets = RingOffsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

/// The offset of a frame in its chunk.
pub(super) const HEADROOM: u64 = 256;

/// The kernel's end of one ring.
pub(super) struct End<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

impl<T: Copy> End<T> {
    /// A ring whose positions both begin at `position`.
    fn new(size: u32, position: u32) -> (Region, Self) {
        let region = Region::plain(OFFSETS.entries + size as usize * size_of::<T>());
        let end = End {
            producer: region.at(OFFSETS.producer, 1),
            consumer: region.at(OFFSETS.consumer, 1),
            flags: region.at(OFFSETS.flags, 1),
            entries: region.at(OFFSETS.entries, size as usize),
            size,
        };
        // The flag requests wake-ups from the process.
        for (word, value) in [(end.producer, position), (end.consumer, position), (end.flags, 1)] {
            word_of(word).store(value, Release);
        }
        (region, end)
    }

    /// Both positions: the consumer's, the producer's.
    fn positions(&self) -> (u32, u32) {
        (word_of(self.consumer).load(Acquire), word_of(self.producer).load(Acquire))
    }

    /// The entries in the ring, first to last.
    pub(super) fn entries(&self) -> Vec<T> {
        let (mut at, end) = self.positions();
        let mut entries = Vec::new();
        while at != end {
            // SAFETY: the place is within the ring, whose memory lives as long as the rings under test, which own the model.
            entries.push(unsafe { self.entries.add((at % self.size) as usize).read() });
            at = at.wrapping_add(1);
        }
        entries
    }

    pub(super) fn room(&self) -> usize {
        let (consumer, producer) = self.positions();
        (self.size - producer.wrapping_sub(consumer)) as usize
    }

    /// Produces an entry, if there is room.
    pub(super) fn push(&self, entry: T) {
        assert!(self.room() > 0, "the model never overfills a ring");
        let producer = self.positions().1;
        // SAFETY: as in `entries`; the other end does not read this place before the position has passed it.
        unsafe { self.entries.add((producer % self.size) as usize).write(entry) };
        word_of(self.producer).store(producer.wrapping_add(1), Release);
    }

    /// Consumes an entry, if there is one.
    pub(super) fn pop(&self) -> Option<T> {
        let entry = *self.entries().first()?;
        word_of(self.consumer).store(self.positions().0.wrapping_add(1), Release);
        Some(entry)
    }

    /// Writes an invalid position of a producer.
    pub(super) fn corrupt_producer(&self, by: u32) {
        let (consumer, _) = self.positions();
        word_of(self.producer).store(consumer.wrapping_add(self.size).wrapping_add(by), Release);
    }

    /// Writes an invalid position of a consumer: beyond the producer's.
    pub(super) fn corrupt_consumer(&self, by: u32) {
        let (_, producer) = self.positions();
        word_of(self.consumer).store(producer.wrapping_add(by), Release);
    }
}

fn word_of<'m>(pointer: NonNull<AtomicU32>) -> &'m AtomicU32 {
    // SAFETY: the word is in the memory of a ring, which outlives the model, and both ends use it as an atomic.
    unsafe { pointer.as_ref() }
}

/// The kernel's side of one socket.
pub(super) struct ModelSocket {
    pub(super) fill: End<u64>,
    pub(super) rx: End<Descriptor>,
    pub(super) tx: End<Descriptor>,
    pub(super) completion: End<u64>,
    /// Chunks that were taken out of the fill ring and hold no frame yet.
    pub(super) filled: VecDeque<u64>,
    /// Frames that were taken out of the transmit ring and are not completed.
    pub(super) sending: VecDeque<Descriptor>,
}

/// The kernel's side of both sockets.
pub(super) struct Model {
    pub(super) sockets: [ModelSocket; 2],
    memory: NonNull<u8>,
    chunk_bytes: u64,
    /// Frames that a kick takes out of the transmit ring.
    pub(super) budget: usize,
    /// The bytes of the frames that have left on each side, in order.
    pub(super) left: [Vec<Vec<u8>>; 2],
    pub(super) is_zero_copy: bool,
    /// Number of wakes of the sender and of the receiver.
    pub(super) wakes: (usize, usize),
}

impl Model {
    /// Makes a UMEM and its rings. All positions begin at `position`.
    pub(super) fn new(ring_size: u32, chunk_bytes: usize, position: u32) -> (Umem, [SocketRings; 2], Self) {
        let umem = Umem::new(Region::plain(super::frames(ring_size) as usize * chunk_bytes), chunk_bytes);
        let socket = |_| {
            let (rx_memory, rx) = End::new(ring_size, position);
            let (tx_memory, tx) = End::new(ring_size, position);
            let (fill_memory, fill) = End::new(ring_size, position);
            let (completion_memory, completion) = End::new(ring_size, position);
            let rings = SocketRings {
                rx: Consumer::new(rx_memory, &OFFSETS, ring_size),
                tx: Producer::new(tx_memory, &OFFSETS, ring_size),
                fill: Producer::new(fill_memory, &OFFSETS, ring_size),
                completion: Consumer::new(completion_memory, &OFFSETS, ring_size),
            };
            let (filled, sending) = (VecDeque::new(), VecDeque::new());
            (rings, ModelSocket { fill, rx, tx, completion, filled, sending })
        };
        let [(outside, outside_socket), (inside, inside_socket)] = [(); 2].map(socket);
        let model = Model {
            sockets: [outside_socket, inside_socket],
            memory: umem.region().start(),
            chunk_bytes: chunk_bytes as u64,
            budget: usize::MAX,
            left: [Vec::new(), Vec::new()],
            is_zero_copy: false,
            wakes: (0, 0),
        };
        (umem, [outside, inside], model)
    }

    /// Delivers a frame on this side, with one descriptor for each of its parts. Returns whether there were chunks for
    /// all parts, and room in the receive ring.
    pub(super) fn arrive(&mut self, side: Side, parts: &[Vec<u8>], stamp: u64) -> bool {
        let socket = &mut self.sockets[side.index()];
        while let Some(chunk) = socket.fill.pop() {
            socket.filled.push_back(chunk);
        }
        if socket.filled.len() < parts.len() || socket.rx.room() < parts.len() {
            return false;
        }
        for (index, part) in parts.iter().enumerate() {
            let chunk = self.sockets[side.index()].filled.pop_front().expect("counted above");
            let address = chunk / self.chunk_bytes * self.chunk_bytes + HEADROOM;
            self.write(address - 8, &stamp.to_ne_bytes());
            self.write(address, part);
            let options = if index + 1 < parts.len() { libc::XDP_PKT_CONTD } else { 0 };
            let frame = Descriptor { address, length: part.len() as u32, options };
            self.sockets[side.index()].rx.push(frame);
        }
        true
    }

    /// Completes at most `count` frames that were sent on this side, if there is room.
    pub(super) fn complete(&mut self, side: Side, count: usize) {
        let socket = &mut self.sockets[side.index()];
        for _ in 0..count.min(socket.completion.room()) {
            let Some(frame) = socket.sending.pop_front() else { break };
            socket.completion.push(frame.address);
        }
    }

    /// The chunks that the kernel has, including those in the rings. A chunk that the kernel has several times occurs
    /// as often in the list.
    pub(super) fn chunks(&self) -> Vec<u64> {
        let mut addresses = Vec::new();
        for socket in &self.sockets {
            addresses.extend(socket.fill.entries());
            addresses.extend(&socket.filled);
            addresses.extend(socket.rx.entries().iter().map(|frame| frame.address));
            addresses.extend(socket.tx.entries().iter().map(|frame| frame.address));
            addresses.extend(socket.sending.iter().map(|frame| frame.address));
            addresses.extend(socket.completion.entries());
        }
        addresses.iter().map(|address| address / self.chunk_bytes).collect()
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        assert!(address % self.chunk_bytes + bytes.len() as u64 <= self.chunk_bytes, "the model stays in its chunk");
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: the byte is within a chunk that the kernel has, so the rings under test hold no reference to it.
            unsafe { self.memory.add(address as usize + offset).write(*byte) };
        }
    }

    fn read(&self, frame: &Descriptor) -> Vec<u8> {
        // SAFETY: as in `write`, for a frame that was put into the transmit ring.
        (0..frame.length).map(|at| unsafe { self.memory.add(frame.address as usize + at as usize).read() }).collect()
    }
}

impl Kernel for Model {
    fn wake_sender(&mut self, side: Side) {
        self.wakes.0 += 1;
        for _ in 0..self.budget {
            let Some(frame) = self.sockets[side.index()].tx.pop() else { break };
            assert_eq!(frame.options, 0, "a flag that means something else in the transmit ring");
            let bytes = self.read(&frame);
            self.left[side.index()].push(bytes);
            self.sockets[side.index()].sending.push_back(frame);
        }
    }

    fn wake_receiver(&mut self, _side: Side) {
        self.wakes.1 += 1;
    }

    fn is_zero_copy(&self, _side: Side) -> bool {
        self.is_zero_copy
    }
}
