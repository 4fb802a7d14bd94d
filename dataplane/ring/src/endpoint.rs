//! An AF_XDP socket for one end of a wire, for load tests from userspace. It sends frames and passes received frames to
//! the caller.
//!
//! ```text
//!   free ──► written ──► tx ──► completion ──► free
//!   fill ──► rx ──► looked at ──► fill
//! ```
//! A frame is in exactly one of these places, and never moves from one circle to the other. The next frame to send is
//! the free frame that was used last, because it is in the cache. One call passes a received frame to the caller and
//! returns it to the kernel. No frame is received before [`Endpoint::connect`]. The fill ring has its frames earlier,
//! because some drivers do not send without them.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use crate::buffers::HEADROOM;
use crate::device::Device;
use crate::error::Error;
use crate::program::Program;
use crate::queue::Descriptor;
use crate::region::Region;
use crate::rings::BATCH;
use crate::socket::{self, BindMode, SocketRings};
use crate::umem::{ChunkSet, Umem};

/// Descriptors in each ring. The number is small, so that all frames stay in the cache: a write to a frame outside the
/// cache costs more than all other work on it. A smaller number would need more system calls for the same number of
/// frames.
const RING_SIZE: u32 = 256;

/// Number of frames that the kernel has for reception. The kernel delivers received frames before it frees their places
/// in the fill ring. With half a ring, there is always a place for each frame that returns.
const FILLED: u32 = RING_SIZE / 2;

/// The smallest chunk that a UMEM can have.
const CHUNK: usize = 2048;

/// The longest frame: a chunk, less the bytes that the kernel keeps free in front of frames that it receives.
const LONGEST: usize = CHUNK - HEADROOM as usize;

/// One AF_XDP socket and its UMEM.
#[derive(Debug)]
pub struct Endpoint {
    rings: SocketRings,
    socket: OwnedFd,
    is_zero_copy: bool,
    umem: Umem,
    frame_bytes: usize,
    /// The addresses of unused chunks to send from.
    free: Vec<u64>,
    /// Frames in the transmit ring, not yet completed.
    sending: ChunkSet,
    /// Frames in the fill ring, not yet received.
    receiving: ChunkSet,
}

impl Endpoint {
    /// Binds a socket to a queue, in zero-copy mode if the driver supports it. The socket sends frames of `frame_bytes`
    /// bytes, and receives frames of any length.
    ///
    /// # Errors
    /// If frames are too long for a UMEM, there is not enough memory, or the kernel refuses to bind.
    pub fn bind(device: &Device, queue: u32, frame_bytes: usize) -> Result<Self, Error> {
        if frame_bytes > LONGEST {
            return Err(Error::unfit(format!("a frame of {frame_bytes} bytes"), format!("{LONGEST} is the most")));
        }
        let count = (RING_SIZE + FILLED) as usize;
        let take = || {
            let umem = Umem::new(Region::anonymous(count * CHUNK)?, CHUNK);
            Ok((socket::register(&umem)?, umem))
        };
        let (socket, umem) = take().map_err(|error| {
            Error::system(format!("cannot make a UMEM of {count} frames"), error, "raise RLIMIT_MEMLOCK")
        })?;
        let rings = socket::bind(socket.as_fd(), device, queue, RING_SIZE, BindMode::ZeroCopyIfPossible)?;
        let is_zero_copy = socket::is_zero_copy(socket.as_fd()).map_err(|error| {
            Error::system(format!("cannot read the options of queue {queue} of {}", device.name()), error, "")
        })?;
        let mut free: Vec<u64> = umem.addresses().collect();
        let filled = free.split_off(RING_SIZE as usize);
        let (sending, receiving) = (ChunkSet::new(count), ChunkSet::new(count));
        let mut endpoint = Endpoint { rings, socket, is_zero_copy, umem, frame_bytes, free, sending, receiving };
        endpoint.fill(filled.into_iter());
        Ok(endpoint)
    }

    /// Makes the program of its interface send this queue's frames to this socket.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connect(&self, program: &mut Program, queue: u32) -> Result<(), Error> {
        program.set_socket(queue, self.socket.as_raw_fd())
    }

    /// Whether driver and UMEM share memory.
    pub const fn zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// The number of frames that [`Endpoint::send`] can take.
    pub fn room(&mut self) -> usize {
        self.reap();
        self.rings.tx.room(self.free.len())
    }

    /// Number of frames that the kernel has for transmission and has not completed.
    pub const fn in_flight(&self) -> usize {
        self.sending.len()
    }

    /// Calls `write` for `count` frames, at most [`Endpoint::room`], and puts them into the transmit ring. A frame
    /// initially contains the bytes of an earlier frame, or zeros. [`Endpoint::kick`] sends the frames.
    ///
    /// # Panics
    /// If there is no room.
    pub fn send(&mut self, count: usize, mut write: impl FnMut(&mut [u8])) {
        let room = self.room();
        assert!(count <= room, "{count} frames, and room for {room}");
        for chunk in self.free.drain(self.free.len() - count..) {
            let address = chunk + u64::from(HEADROOM);
            let frame = Descriptor { address, length: self.frame_bytes as u32, options: 0 };
            // SAFETY: the frame lies within a free chunk, which no ring names: `frame_bytes` was checked.
            write(unsafe { self.umem.bytes_mut(&frame) });
            self.sending.insert(self.umem.chunk(chunk));
            // SAFETY: the chunk belongs to this UMEM, and is removed from the free chunks here.
            unsafe { self.rings.tx.put(frame) };
        }
        self.rings.tx.publish();
    }

    /// Makes the kernel send the frames in the transmit ring. The next kick sends the remaining ones.
    pub fn kick(&mut self) {
        if self.sending.len() > 0 && self.rings.tx.needs_wakeup() {
            socket::wake_sender(self.socket.as_raw_fd());
        }
        self.reap();
    }

    /// Passes the frames that have arrived to `look`, in order, at most one batch, and returns their number.
    pub fn receive(&mut self, mut look: impl FnMut(&[u8])) -> usize {
        let mut received = [Descriptor::default(); BATCH];
        let count = self.rings.rx.take(&mut received);
        for frame in &received[..count] {
            self.umem.check(frame, 0);
            let was_receiving = self.receiving.remove(self.umem.chunk(frame.address));
            assert!(was_receiving, "corrupt ring: the frame at {} was received twice", frame.address);
            // SAFETY: the frame was checked above. The kernel does not own its chunk until the fill below.
            look(unsafe { self.umem.bytes(frame) });
        }
        if count > 0 {
            let starts = received.map(|frame| self.umem.chunk_start(frame.address));
            self.fill(starts.into_iter().take(count));
        }
        count
    }

    /// Takes back the chunks that the kernel has sent.
    fn reap(&mut self) {
        while self.sending.len() > 0 {
            let count = self.rings.completion.take_each(|address| {
                self.umem.check(&Descriptor { address, length: 0, options: 0 }, 0);
                let was_sending = self.sending.remove(self.umem.chunk(address));
                assert!(was_sending, "corrupt ring: the frame at {address} was completed and not being sent");
                self.free.push(self.umem.chunk_start(address));
            });
            if count == 0 {
                break;
            }
        }
    }

    /// Gives chunks to the kernel for reception. The caller guarantees that they have no other user. The ring has twice
    /// as many places as there are chunks for it.
    fn fill(&mut self, chunks: impl ExactSizeIterator<Item = u64>) {
        let fill = &mut self.rings.fill;
        assert_eq!(fill.room(chunks.len()), chunks.len(), "room in the fill ring");
        for chunk in chunks {
            self.receiving.insert(self.umem.chunk(chunk));
            // SAFETY: the chunk belongs to this UMEM: it was created there, or was checked when it left the ring. The
            // caller guarantees that it has no other user.
            unsafe { fill.put(chunk) };
        }
        fill.publish();
        if fill.needs_wakeup() {
            socket::wake_receiver(self.socket.as_raw_fd());
        }
    }
}
