//! An AF_XDP socket that only sends, for load tests from userspace.
//!
//! ```text
//!   free ──► written ──► tx ──► completion ──► free
//! ```
//! A frame is in exactly one of these places. The last one that was free is written first: it is in the cache. What
//! the kernel receives into is filled once, because some drivers do not send without it, and never connected.

use std::num::NonZeroU32;

use xsk_rs::config::{BindFlags, QueueSize, UmemConfig};
use xsk_rs::{FrameDesc, Umem};

use crate::device::Device;
use crate::error::Error;
use crate::socket::{self, Bound};

/// Descriptors in each ring. So few that all frames stay in the cache: writing to one that is not costs more than the
/// rest of it. Less would make more system calls of a second's frames.
const RING_SIZE: u32 = 256;

/// Of the frames, those that are the kernel's to receive into.
const FILLED: usize = 64;

/// The longest frame: the default chunk of a UMEM, less the headroom of the frames that are received.
const LONGEST: usize = 2048 - 256;

/// See the module.
pub struct Transmitter {
    /// Declared before the UMEM, so that the socket goes first.
    bound: Bound,
    umem: Umem,
    umem_bytes: usize,
    chunk_bytes: usize,
    /// Where in its chunk a frame begins.
    headroom: usize,
    frame_bytes: usize,
    free: Vec<FrameDesc>,
    outgoing: Vec<FrameDesc>,
    completed: Vec<FrameDesc>,
    in_flight: usize,
}

impl Transmitter {
    /// Binds a socket to a queue, to send frames of so many bytes; zero-copy if the driver can.
    ///
    /// # Errors
    /// If frames are too long for a UMEM, memory does not suffice, or the kernel refuses to bind.
    pub fn bind(device: &Device, queue: u32, frame_bytes: usize) -> Result<Self, Error> {
        if frame_bytes > LONGEST {
            return Err(Error::unfit(format!("a frame of {frame_bytes} bytes"), format!("{LONGEST} is the most")));
        }
        let ring = QueueSize::new(RING_SIZE).expect("a power of two");
        let config = UmemConfig::builder().fill_queue_size(ring).comp_queue_size(ring).build().expect("defaults");
        let count = NonZeroU32::new(RING_SIZE + FILLED as u32).expect("not zero");
        let (umem, mut free) = Umem::new(config, count, false).map_err(|error| {
            Error::system(
                format!("cannot make a UMEM of {count} frames"),
                std::io::Error::other(error.to_string()),
                "raise RLIMIT_MEMLOCK",
            )
        })?;
        let chunk_bytes = config.frame_size().get() as usize;
        let (umem_bytes, headroom) = (count.get() as usize * chunk_bytes, free[0].addr() % chunk_bytes);
        let mut bound = socket::bind(&umem, device, queue, ring, BindFlags::XDP_USE_NEED_WAKEUP)?;
        let filled = free.split_off(RING_SIZE as usize);
        // SAFETY: the frames are of this UMEM and nobody's; they are the kernel's from here on.
        let count = unsafe { bound.fill.produce(&filled) };
        assert_eq!(count, FILLED, "a new ring has room");
        Ok(Transmitter {
            bound,
            umem,
            umem_bytes,
            chunk_bytes,
            headroom,
            frame_bytes,
            free,
            outgoing: Vec::with_capacity(RING_SIZE as usize),
            completed: vec![FrameDesc::default(); RING_SIZE as usize],
            in_flight: 0,
        })
    }

    /// Whether driver and UMEM share memory.
    pub fn zero_copy(&self) -> bool {
        self.bound.zero_copy
    }

    /// How many frames [`Transmitter::send`] can take.
    pub fn room(&mut self) -> usize {
        self.reap();
        self.free.len().min(self.bound.tx.nb_free(RING_SIZE) as usize)
    }

    /// Frames handed over and not yet sent.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Lets `write` fill in so many frames, of which there is at most [`Transmitter::room`]. What a frame held before
    /// may still be in it, or zeros. They leave with [`Transmitter::kick`].
    ///
    /// # Panics
    /// If there is no room.
    pub fn send(&mut self, count: usize, mut write: impl FnMut(&mut [u8])) {
        assert!(count <= self.room(), "{count} frames, and room for {}", self.room());
        for mut frame in self.free.drain(self.free.len() - count..) {
            // SAFETY: a free frame is of this UMEM, checked when it came off the ring, and nobody else's until it is
            // produced below.
            let mut data = unsafe { self.umem.data_mut(&mut frame) };
            data.cursor().set_pos(self.frame_bytes);
            write(data.contents_mut());
            self.outgoing.push(frame);
        }
        // SAFETY: as above; from here on the frames are the kernel's, and no list of ours names them any more.
        let sent = unsafe { self.bound.tx.produce(&self.outgoing) };
        assert_eq!(sent, count, "the transmit ring has the room that it said it has");
        self.outgoing.clear();
        self.in_flight += sent;
    }

    /// Makes the kernel send. What it leaves in the ring goes with the next kick.
    pub fn kick(&mut self) {
        if self.in_flight > 0 && self.bound.tx.needs_wakeup() {
            // What it may answer (EAGAIN, EBUSY, ENOBUFS, ENETDOWN) means "not all, not now", and shows in the ring.
            let _ = self.bound.tx.wakeup();
        }
        self.reap();
    }

    /// Takes back what the kernel has sent.
    fn reap(&mut self) {
        // SAFETY: the descriptors are only written to; what they say is checked below.
        let count = unsafe { self.bound.completion.consume(&mut self.completed) };
        for frame in &self.completed[..count] {
            let known = frame.addr() < self.umem_bytes && frame.addr() % self.chunk_bytes == self.headroom;
            assert!(known, "corrupt ring: a frame at {} in a UMEM of {}", frame.addr(), self.umem_bytes);
        }
        self.in_flight = self.in_flight.checked_sub(count).expect("corrupt ring: more completed than was sent");
        self.free.extend_from_slice(&self.completed[..count]);
    }
}
