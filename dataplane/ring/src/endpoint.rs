//! An AF_XDP socket for one end of a wire, for load tests from userspace: it makes frames and looks at those that come.
//!
//! ```text
//!   free ──► written ──► tx ──► completion ──► free
//!   fill ──► rx ──► looked at ──► fill
//! ```
//! A frame is in exactly one of these places, and never changes from one circle to the other. Of those to send, the
//! last one that was free is written first: it is in the cache. What is received is looked at and given back in one
//! call. Nothing is received before [`Endpoint::connect`]; the fill ring is full all the same, because some drivers do
//! not send without it.

use std::num::NonZeroU32;
use std::os::fd::AsRawFd as _;

use xsk_rs::config::{BindFlags, FrameSize, QueueSize, UmemConfig, XDP_UMEM_MIN_CHUNK_SIZE};
use xsk_rs::{FrameDesc, Umem};

use crate::device::Device;
use crate::error::Error;
use crate::program::Program;
use crate::rings::BATCH;
use crate::socket::{self, Bound};

/// Descriptors in each ring. So few that all frames stay in the cache: writing to one that is not costs more than the
/// rest of it. Less would make more system calls of a second's frames.
const RING_SIZE: u32 = 256;

/// Of the frames, those that are the kernel's to receive into. It hands over what it has received before it gives the
/// places in the fill ring back: with half a ring, there is a place for each frame that returns even so.
const FILLED: u32 = RING_SIZE / 2;

/// The longest frame: the smallest chunk that a UMEM can have, less what the kernel keeps free in front of frames that
/// it receives (`XDP_PACKET_HEADROOM`).
const LONGEST: usize = CHUNK - 256;
const CHUNK: usize = XDP_UMEM_MIN_CHUNK_SIZE as usize;

/// See the module.
pub struct Endpoint {
    /// Declared before the UMEM, so that the socket goes first.
    bound: Bound,
    umem: Umem,
    umem_bytes: usize,
    /// Where in its chunk a frame begins.
    headroom: usize,
    frame_bytes: usize,
    free: Vec<FrameDesc>,
    outgoing: Vec<FrameDesc>,
    completed: Vec<FrameDesc>,
    in_flight: usize,
    received: [FrameDesc; BATCH],
}

impl Endpoint {
    /// Binds a socket to a queue, to send frames of so many bytes, and to receive frames of any; zero-copy if the driver
    /// can.
    ///
    /// # Errors
    /// If frames are too long for a UMEM, memory does not suffice, or the kernel refuses to bind.
    pub fn bind(device: &Device, queue: u32, frame_bytes: usize) -> Result<Self, Error> {
        if frame_bytes > LONGEST {
            return Err(Error::unfit(format!("a frame of {frame_bytes} bytes"), format!("{LONGEST} is the most")));
        }
        let ring = QueueSize::new(RING_SIZE).expect("a power of two");
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(CHUNK as u32).expect("the smallest chunk"))
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .expect("a power of two that is larger than its headroom");
        let count = NonZeroU32::new(RING_SIZE + FILLED).expect("not zero");
        let (umem, mut free) = Umem::new(config, count, false).map_err(|error| {
            Error::system(
                format!("cannot make a UMEM of {count} frames"),
                std::io::Error::other(error.to_string()),
                "raise RLIMIT_MEMLOCK",
            )
        })?;
        let (umem_bytes, headroom) = (count.get() as usize * CHUNK, free[0].addr() % CHUNK);
        let mut bound = socket::bind(&umem, device, queue, ring, BindFlags::XDP_USE_NEED_WAKEUP)?;
        let filled = free.split_off(RING_SIZE as usize);
        fill(&mut bound, &filled);
        Ok(Endpoint {
            bound,
            umem,
            umem_bytes,
            headroom,
            frame_bytes,
            free,
            outgoing: Vec::with_capacity(RING_SIZE as usize),
            completed: vec![FrameDesc::default(); RING_SIZE as usize],
            in_flight: 0,
            received: [FrameDesc::default(); BATCH],
        })
    }

    /// Lets the program of its interface send this queue's frames here.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connect(&self, program: &mut Program, queue: u32) -> Result<(), Error> {
        program.set_socket(queue, self.bound.rx.fd().as_raw_fd())
    }

    /// Whether driver and UMEM share memory.
    pub fn zero_copy(&self) -> bool {
        self.bound.zero_copy
    }

    /// How many frames [`Endpoint::send`] can take.
    pub fn room(&mut self) -> usize {
        self.reap();
        self.free.len().min(self.bound.tx.nb_free(RING_SIZE) as usize)
    }

    /// Frames handed over and not yet sent.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Lets `write` fill in so many frames, of which there is at most [`Endpoint::room`]. What a frame held before
    /// may still be in it, or zeros. They leave with [`Endpoint::kick`].
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

    /// Shows `look` the frames that have arrived, in order, a batch at most, and returns how many there were.
    pub fn receive(&mut self, mut look: impl FnMut(&[u8])) -> usize {
        // SAFETY: the descriptors are only written to; what they say is checked below, before anyone believes it.
        let count = unsafe { self.bound.rx.consume(&mut self.received) };
        for frame in &self.received[..count] {
            check(frame, self.umem_bytes, self.headroom);
            // SAFETY: the frame lies within its chunk of this UMEM, as was just checked, and is nobody else's until it
            // is filled in below.
            look(unsafe { self.umem.data(frame) }.contents());
        }
        if count > 0 {
            fill(&mut self.bound, &self.received[..count]);
        }
        count
    }

    /// Takes back what the kernel has sent.
    fn reap(&mut self) {
        // SAFETY: the descriptors are only written to; what they say is checked below.
        let count = unsafe { self.bound.completion.consume(&mut self.completed) };
        for frame in &self.completed[..count] {
            check(frame, self.umem_bytes, self.headroom);
        }
        self.in_flight = self.in_flight.checked_sub(count).expect("corrupt ring: more completed than was sent");
        self.free.extend_from_slice(&self.completed[..count]);
    }
}

/// Gives frames that nobody else uses, and the caller forgets, to the kernel to receive into.
fn fill(bound: &mut Bound, frames: &[FrameDesc]) {
    // SAFETY: the frames are of this UMEM: they were when it was made, or were checked when they came off the ring. They
    // are the kernel's from here on.
    let count = unsafe { bound.fill.produce(frames) };
    assert_eq!(count, frames.len(), "the fill ring has room for twice the frames that can be in it");
    if bound.fill.needs_wakeup() {
        socket::wake_receiver(bound.rx.fd().as_raw_fd());
    }
}

/// Stops the process if the descriptor does not describe a frame where frames begin in a chunk of the UMEM.
#[inline]
fn check(frame: &FrameDesc, umem_bytes: usize, headroom: usize) {
    let (start, length) = (frame.addr(), frame.lengths().data());
    let known = start < umem_bytes && start % CHUNK == headroom && length <= LONGEST;
    assert!(known, "corrupt ring: a frame of {length} bytes at {start} in a UMEM of {umem_bytes}");
}
