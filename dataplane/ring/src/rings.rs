//! One worker's UMEM and its two sockets.
//!
//! ```text
//!            outside                 one UMEM                 inside
//!   fill ──────► rx ──► batch ──┬── forward ──────────────► tx ──► completion ─┐
//!    ▲                          └── drop ──► free                              │
//!    └──────────────────────────────────────  free ◄───────────────────────────┘
//! ```
//! and the same from inside to outside. A frame is in exactly one of these places. It is received into the batch, looked
//! at there, and the whole batch is settled in one call: there is no way to keep a frame, or to give it back twice.
//! What comes off a ring is checked against the UMEM, in release builds too; a descriptor that points elsewhere means
//! that the ring is corrupt, and stops the process.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use knockplane_policy::packet::Side;
use xsk_rs::config::{BindFlags, FrameSize, QueueSize, UmemConfig};
use xsk_rs::{FrameDesc, Umem};

use crate::buffers::{Buffers, Request};
use crate::device::Device;
use crate::error::Error;
use crate::multi_buffer::{MultiBuffer, MultiBufferDrops};
use crate::program::Program;
use crate::socket::{self, Bound, SocketStatistics};

/// Frames in a batch at most. Large enough to share the cost of a kick, small enough to stay in the first-level cache.
pub const BATCH: usize = 64;

/// What the XDP program writes right before a frame, see `bpf/filter.c`.
const STAMP_BYTES: usize = size_of::<u64>();

/// Kicks with a frame leaving at most before a turn gives up; the frames stay in the transmit ring for the next one.
const FRUITLESS_KICKS: u32 = 4;

/// How rings are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// Descriptors in each ring; a power of two.
    pub ring_size: u32,
    /// The chunks that frames are received into, and whether drivers are asked for zero-copy.
    pub buffers: Buffers,
}

/// What happens to a frame of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It goes out of the other side.
    Forward,
    /// Its memory is free again.
    Drop,
    /// It is overwritten with a reply, which goes out of the side that it came in on.
    Reply,
    /// Set by [`Rings::settle`] where the other side had no room: the frame was dropped.
    TxFull,
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

/// The memory of one worker's frames, before its sockets are bound.
pub struct Memory {
    umem: Umem,
    free: Vec<FrameDesc>,
    chunk_bytes: u32,
    frame_count: u32,
}

impl Memory {
    /// Takes the memory. It takes milliseconds, and touches no interface.
    ///
    /// # Errors
    /// If the ring size is no power of two, or memory does not suffice.
    pub fn take(settings: &RingSettings) -> Result<Self, Error> {
        Self::of(settings.ring_size, settings.buffers.chunk())
    }

    fn of(ring_size: u32, chunk_bytes: u32) -> Result<Self, Error> {
        let ring = queue_size(ring_size)?;
        let umem_config = UmemConfig::builder()
            .frame_size(FrameSize::new(chunk_bytes).expect("at least the smallest chunk"))
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .expect("a power of two that is larger than its headroom");
        let frame_count = frames(ring_size);
        let count = NonZeroU32::new(frame_count).expect("not zero");
        let (umem, free) = Umem::new(umem_config, count, false).map_err(|error| {
            let source = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::system(
                format!("cannot make a UMEM of {frame_count} frames of {chunk_bytes} bytes"),
                std::io::Error::other(source),
                "lower ring-size, or raise RLIMIT_MEMLOCK",
            )
        })?;
        Ok(Memory { umem, free, chunk_bytes, frame_count })
    }
}

/// The frames of one worker: a ring's worth each way on both sides, and a batch in hand. Then no ring ever starves another.
pub(crate) const fn frames(ring_size: u32) -> u32 {
    4 * ring_size + BATCH as u32
}

fn queue_size(ring_size: u32) -> Result<QueueSize, Error> {
    QueueSize::new(ring_size).map_err(|_| Error::unfit(format!("ring size {ring_size} is not a power of two"), ""))
}

/// See the module.
pub struct Rings {
    /// Outside and inside. Declared before the UMEM, so that the sockets go first.
    ports: [Port; 2],
    umem: Umem,
    umem_bytes: usize,
    chunk_bytes: usize,
    /// Frames that nobody uses, as a stack: the one that was used last is in the cache.
    free: Vec<FrameDesc>,
    frame_count: usize,
    batch: [FrameDesc; BATCH],
    batch_count: usize,
    batch_side: Side,
    /// What was dropped in front of the batch.
    multi_buffer_drops: MultiBufferDrops,
    outgoing: [FrameDesc; BATCH],
    /// What is read from completion rings, on its way to `free`.
    completed: [FrameDesc; BATCH],
}

/// One side's socket and how many frames the kernel holds of it: at most a ring's worth each way, so that the pool is
/// enough for both sides whatever one of them does.
struct Port {
    bound: Bound,
    ring_size: u32,
    /// Filled and not yet received.
    receiving: usize,
    /// Handed over for sending and not yet completed.
    in_flight: usize,
    /// How far the receive ring is in a frame of several descriptors.
    multi_buffer: MultiBuffer,
}

impl Port {
    fn room_in_flight(&self) -> usize {
        self.ring_size as usize - self.in_flight
    }
}

impl Rings {
    /// Makes the UMEM and binds its two sockets to this queue of both interfaces, zero-copy if the settings ask for it and
    /// both drivers can. Frames arrive once the programs know the sockets, which [`Rings::connect`] sees to.
    ///
    /// # Errors
    /// If memory does not suffice, the kernel refuses to bind, or a driver refuses the zero-copy that is demanded.
    pub fn bind(devices: [&Device; 2], queue: u32, settings: &RingSettings) -> Result<Self, Error> {
        Self::bind_in(Memory::take(settings)?, devices, queue, settings)
    }

    /// As [`Rings::bind`], with memory that was taken before. Waits for a process that is exiting to leave the queue.
    ///
    /// # Errors
    /// As [`Rings::bind`].
    pub fn bind_in(memory: Memory, devices: [&Device; 2], queue: u32, settings: &RingSettings) -> Result<Self, Error> {
        let RingSettings { ring_size, ref buffers } = *settings;
        let need_wakeup = BindFlags::XDP_USE_NEED_WAKEUP;
        // What is known of the drivers since may ask for other chunks.
        let memory = if memory.chunk_bytes == buffers.chunk() { memory } else { Memory::take(settings)? };
        let bind = |memory, flags| Self::bind_with(memory, devices, queue, ring_size, need_wakeup | flags);
        let copy = || bind(Memory::of(ring_size, buffers.copy_chunk)?, BindFlags::XDP_COPY);
        match buffers.request {
            Request::Copy => bind(memory, BindFlags::XDP_COPY),
            Request::Required(_) => bind(memory, BindFlags::XDP_ZEROCOPY),
            // Without a flag the kernel takes zero-copy where the driver has it. But then the second socket must be able
            // to do what the first one got, so if that fails, both copy.
            Request::IfPossible(chunk) => match bind(memory, BindFlags::empty()) {
                // Larger chunks than copying needs would only take memory.
                Ok(rings) if chunk > buffers.copy_chunk && !rings.zero_copy(Side::Outside) => {
                    drop(rings);
                    copy()
                }
                Err(error) if !error.is_busy() => {
                    tracing::info!(queue, %error, "binding again, with copying");
                    // A UMEM serves the first sockets that it is bound with.
                    copy()
                }
                bound => bound,
            },
        }
    }

    fn bind_with(
        memory: Memory,
        devices: [&Device; 2],
        queue: u32,
        ring_size: u32,
        flags: BindFlags,
    ) -> Result<Self, Error> {
        let Memory { umem, free, chunk_bytes, frame_count } = memory;
        let ring = queue_size(ring_size)?;
        let port = |device| -> Result<Port, Error> {
            let bound = socket::bind(&umem, device, queue, ring, flags)?;
            Ok(Port { bound, ring_size, receiving: 0, in_flight: 0, multi_buffer: MultiBuffer::default() })
        };
        let ports = [port(devices[0])?, port(devices[1])?];
        let mut rings = Rings {
            ports,
            umem,
            umem_bytes: frame_count as usize * chunk_bytes as usize,
            chunk_bytes: chunk_bytes as usize,
            free,
            frame_count: frame_count as usize,
            batch: [FrameDesc::default(); BATCH],
            batch_count: 0,
            batch_side: Side::Outside,
            multi_buffer_drops: MultiBufferDrops::default(),
            outgoing: [FrameDesc::default(); BATCH],
            completed: [FrameDesc::default(); BATCH],
        };
        for side in Side::ALL {
            rings.refill(side);
        }
        Ok(rings)
    }

    /// Lets the programs of both sides, outside first, send this queue's frames here.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connect(&self, programs: &mut [Program; 2], queue: u32) -> Result<(), Error> {
        for side in Side::ALL {
            programs[side.index()].set_socket(queue, self.fd(side))?;
        }
        Ok(())
    }

    /// The side's socket, to sleep on: it is readable when frames have arrived.
    pub fn fd(&self, side: Side) -> RawFd {
        self.ports[side.index()].bound.rx.fd().as_raw_fd()
    }

    /// Whether the side's driver and the UMEM share memory.
    pub fn zero_copy(&self, side: Side) -> bool {
        self.ports[side.index()].bound.zero_copy
    }

    /// The kernel's own count of losses at the side's socket. A system call: not for every turn.
    pub fn statistics(&self, side: Side) -> SocketStatistics {
        socket::statistics(&self.ports[side.index()].bound.rx)
    }

    /// Frames handed over for sending and not yet completed.
    pub fn in_flight(&self) -> usize {
        self.ports.iter().map(|port| port.in_flight).sum()
    }

    /// Frames that are in none of the places they can be in. Always 0.
    pub fn lost(&self) -> usize {
        let with_kernel: usize = self.ports.iter().map(|port| port.receiving + port.in_flight).sum();
        self.frame_count - self.free.len() - with_kernel - self.batch_count
    }

    /// Receives a batch from this side, and says how many frames there are. The batch before must be settled. Frames of
    /// several descriptors are dropped, see [`Rings::multi_buffer_drops`].
    pub fn receive(&mut self, side: Side) -> usize {
        assert_eq!(self.batch_count, 0, "the batch before was not settled");
        let port = &mut self.ports[side.index()];
        // SAFETY: the descriptors are only written to. What they say is checked below before anyone believes it.
        let count = unsafe { port.bound.rx.consume(&mut self.batch) };
        let mut continued = 0_u64;
        for (index, frame) in self.batch[..count].iter().enumerate() {
            check(frame, self.umem_bytes, self.chunk_bytes, STAMP_BYTES);
            continued |= u64::from(frame.has_more_frames()) << index;
        }
        port.receiving = port.receiving.checked_sub(count).expect("corrupt ring: more received than was filled");
        self.batch_count = count;
        self.multi_buffer_drops = MultiBufferDrops::default();
        if !port.multi_buffer.is_idle(continued) {
            let length = |frame: &FrameDesc| frame.lengths().data();
            let free = |frame| self.free.push(frame);
            (self.batch_count, self.multi_buffer_drops) =
                port.multi_buffer.drop_parts(&mut self.batch[..count], continued, length, free);
        }
        self.batch_side = side;
        self.batch_count
    }

    /// The frames of several descriptors that the last [`Rings::receive`] dropped. No part of them is in the batch.
    pub const fn multi_buffer_drops(&self) -> MultiBufferDrops {
        self.multi_buffer_drops
    }

    /// The frames of the batch, in order of arrival. Their first bytes are on their way to the cache: whoever asks for
    /// frames reads headers, and to wait for 64 of them at once takes hardly longer than for one.
    pub fn frames(&self) -> Frames<'_> {
        let mut slices: [&[u8]; BATCH] = [&[]; BATCH];
        for (slice, frame) in slices.iter_mut().zip(&self.batch[..self.batch_count]) {
            // SAFETY: `receive` checked that the frame lies within its chunk of this UMEM. The chunk is ours from when
            // it was received until `settle`, which takes `&mut self` and so ends this borrow; nobody writes to it.
            *slice = unsafe { self.umem.data(frame) }.contents();
            prefetch(slice);
        }
        Frames { slices, count: self.batch_count }
    }

    /// When the frames of the batch arrived, in nanoseconds of CLOCK_MONOTONIC, as the XDP program stamped them. Means
    /// nothing unless the interfaces have several queues.
    pub fn arrivals(&self) -> [u64; BATCH] {
        let mut arrivals = [0; BATCH];
        for (arrival, frame) in arrivals.iter_mut().zip(&self.batch[..self.batch_count]) {
            // SAFETY: as in `frames`.
            let data = unsafe { self.umem.data(frame) }.contents().as_ptr().expose_provenance();
            // SAFETY: `check` made sure that at least these 8 bytes of headroom lie in front of the frame, in its chunk,
            // which is ours and which nobody writes to. The UMEM was mapped by the kernel for all of its length.
            *arrival = unsafe { ptr::with_exposed_provenance::<u64>(data - STAMP_BYTES).read_unaligned() };
        }
        arrivals
    }

    /// Ends the batch: every frame goes to the other side's transmit ring or is free again. Frames for which there is
    /// no room are dropped, and their disposition becomes [`Disposition::TxFull`]. Nothing leaves before
    /// [`Rings::kick`]. Returns the bytes that will be sent.
    ///
    /// `dispositions` has one item for each frame of the batch. A reply for which there is no room is left out: its frame
    /// is dropped as if there was none.
    pub fn settle<'r>(&mut self, dispositions: &mut [Disposition], reply: impl Fn(usize) -> Option<&'r [u8]>) -> usize {
        assert_eq!(dispositions.len(), self.batch_count, "one disposition for each frame");
        let wanted = dispositions.iter().filter(|disposition| **disposition == Disposition::Forward).count();
        if dispositions.contains(&Disposition::Reply) {
            self.reply(dispositions, reply);
        }
        let port = &mut self.ports[self.batch_side.opposite().index()];
        let mut room = (port.bound.tx.nb_free(wanted as u32) as usize).min(port.room_in_flight());
        let (mut outgoing, mut bytes) = (0, 0);
        let batch = &self.batch[..self.batch_count];
        if wanted == 0 && !dispositions.contains(&Disposition::Reply) {
            self.free.extend_from_slice(batch);
            self.batch_count = 0;
            return 0;
        }
        for (frame, disposition) in batch.iter().zip(dispositions) {
            if *disposition == Disposition::Forward && room > 0 {
                room -= 1;
                self.outgoing[outgoing] = *frame;
                // The receive ring's flags mean other things in the transmit ring.
                self.outgoing[outgoing].set_options(0);
                outgoing += 1;
                bytes += frame.lengths().data();
                continue;
            }
            match disposition {
                Disposition::Forward => *disposition = Disposition::TxFull,
                // On its way back already.
                Disposition::Reply => continue,
                Disposition::Drop | Disposition::TxFull => {}
            }
            self.free.push(*frame);
        }
        // SAFETY: these frames are of this UMEM, were checked when received, and are from here on the kernel's: the
        // batch, the only other place that names them, is emptied below.
        let sent = unsafe { port.bound.tx.produce(&self.outgoing[..outgoing]) };
        assert_eq!(sent, outgoing, "the transmit ring has the room that it said it has");
        port.in_flight += sent;
        self.batch_count = 0;
        bytes
    }

    /// Sends replies out of the side that the batch came in on. Those that cannot be sent become drops.
    fn reply<'r>(&mut self, dispositions: &mut [Disposition], reply: impl Fn(usize) -> Option<&'r [u8]>) {
        let port = &mut self.ports[self.batch_side.index()];
        let wanted = dispositions.iter().filter(|disposition| **disposition == Disposition::Reply).count();
        let room = (port.bound.tx.nb_free(wanted as u32) as usize).min(port.room_in_flight());
        let mut outgoing = 0;
        for (index, (frame, disposition)) in self.batch[..self.batch_count].iter_mut().zip(dispositions).enumerate() {
            if *disposition != Disposition::Reply {
                continue;
            }
            // SAFETY: `receive` checked that the frame lies within its chunk of this UMEM, which is ours until it is
            // handed over below; `&mut self` says that nobody looks at it.
            let mut data = unsafe { self.umem.data_mut(frame) };
            let mut cursor = data.cursor();
            cursor.set_pos(0);
            let written = reply(index).is_some_and(|bytes| cursor.write_all(bytes).is_ok());
            if outgoing == room || !written {
                *disposition = Disposition::Drop;
                continue;
            }
            self.outgoing[outgoing] = *frame;
            // The receive ring's flags mean other things in the transmit ring.
            self.outgoing[outgoing].set_options(0);
            outgoing += 1;
        }
        // SAFETY: these frames are of this UMEM, were checked when received, and are from here on the kernel's: what
        // settles the batch passes them over.
        let sent = unsafe { port.bound.tx.produce(&self.outgoing[..outgoing]) };
        assert_eq!(sent, outgoing, "the transmit ring has the room that it said it has");
        port.in_flight += sent;
    }

    /// Puts a frame of our own into the side's transmit ring: it leaves with [`Rings::kick`]. False if there is no room.
    pub fn send(&mut self, side: Side, bytes: &[u8]) -> bool {
        let port = &mut self.ports[side.index()];
        if port.bound.tx.nb_free(1) == 0 || port.room_in_flight() == 0 {
            return false;
        }
        let Some(mut frame) = self.free.pop() else { return false };
        // SAFETY: a frame of `free` is of this UMEM, and in no ring and no batch; `&mut self` says that nobody looks at it.
        let mut data = unsafe { self.umem.data_mut(&mut frame) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        if cursor.write_all(bytes).is_err() {
            self.free.push(frame);
            return false;
        }
        // The receive ring's flags mean other things in the transmit ring.
        frame.set_options(0);
        // SAFETY: the frame is of this UMEM, and from here on the kernel's: nothing else names it.
        let sent = unsafe { port.bound.tx.produce(&[frame]) };
        assert_eq!(sent, 1, "the transmit ring has the room that it said it has");
        port.in_flight += sent;
        true
    }

    /// Makes the kernel send what stands in this side's transmit ring, takes back what it has sent, and refills the
    /// side's fill ring. Once a batch.
    pub fn kick(&mut self, side: Side) {
        self.reap(side);
        let copy = !self.zero_copy(side);
        let mut fruitless = 0;
        loop {
            let port = &mut self.ports[side.index()];
            if port.in_flight == 0 || !port.bound.tx.needs_wakeup() {
                break;
            }
            let before = port.bound.tx.nb_free_exact();
            if before == port.ring_size {
                break;
            }
            // What it may answer (EAGAIN, EBUSY, ENOBUFS, ENETDOWN) means "not all, not now", and shows in the ring.
            let _ = port.bound.tx.wakeup();
            let after = port.bound.tx.nb_free_exact();
            // A link that is down takes one frame a kick and drops it: that is no way to go on.
            fruitless = if after <= before + 1 { fruitless + 1 } else { 0 };
            self.reap(side);
            // A driver with zero-copy sends by itself once it is awake.
            if !copy || fruitless == FRUITLESS_KICKS {
                break;
            }
        }
        self.refill(side);
    }

    /// Sleeps until a frame has arrived on either side, `waker` is readable, or the time, of which only whole
    /// milliseconds count, is over. Returns whether `waker` is readable.
    ///
    /// This is poll(), not epoll: a socket that is registered there makes the kernel look for whom to wake at every
    /// frame it has sent, also while nobody sleeps, which takes a tenth of the time that forwarding takes.
    pub fn wait(&self, waker: Option<BorrowedFd<'_>>, at_most: Duration) -> bool {
        let waker = waker.map_or(-1, |waker| waker.as_raw_fd());
        let mut descriptors = [self.fd(Side::Outside), self.fd(Side::Inside), waker].map(|fd| libc::pollfd {
            // One that is negative is passed over.
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        let at_most = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the array lives across the call, which is told its length. However it ends, the caller looks again.
        unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, at_most) };
        descriptors[2].revents != 0
    }

    /// Takes back what the kernel has sent.
    fn reap(&mut self, side: Side) {
        let port = &mut self.ports[side.index()];
        while port.in_flight > 0 {
            // SAFETY: the descriptors are only written to; what they say is checked below.
            let count = unsafe { port.bound.completion.consume(&mut self.completed) };
            if count == 0 {
                break;
            }
            for frame in &self.completed[..count] {
                check(frame, self.umem_bytes, self.chunk_bytes, 0);
            }
            port.in_flight = port.in_flight.checked_sub(count).expect("corrupt ring: more completed than was sent");
            self.free.extend_from_slice(&self.completed[..count]);
        }
    }

    /// Gives free frames to the kernel to receive into.
    fn refill(&mut self, side: Side) {
        let port = &mut self.ports[side.index()];
        let wanted = (port.ring_size as usize - port.receiving).min(self.free.len());
        if wanted > 0 {
            let count = wanted.min(port.bound.fill.nb_free(wanted as u32) as usize);
            let rest = self.free.len() - count;
            // SAFETY: free frames are of this UMEM and nobody's; they are removed from `free` below.
            let filled = unsafe { port.bound.fill.produce(&self.free[rest..]) };
            assert_eq!(filled, count, "the fill ring has the room that it said it has");
            self.free.truncate(rest);
            port.receiving += filled;
        }
        if port.bound.fill.needs_wakeup() {
            socket::wake_receiver(port.bound.rx.fd().as_raw_fd());
        }
    }
}

/// Has the cache line in which the frame begins fetched, if the processor can be told so.
#[inline]
fn prefetch(frame: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing as far as the program can see, at any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(frame.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
}

/// Stops the process if the descriptor does not describe a frame within one chunk of the UMEM, with so much headroom.
#[inline]
fn check(frame: &FrameDesc, umem_bytes: usize, chunk_bytes: usize, headroom: usize) {
    let (start, length) = (frame.addr(), frame.lengths().data());
    // Chunks are a power of two.
    let within =
        start < umem_bytes && (headroom..=chunk_bytes - length.min(chunk_bytes)).contains(&(start & (chunk_bytes - 1)));
    assert!(within, "corrupt ring: a frame of {length} bytes at {start} in a UMEM of {umem_bytes}");
}
