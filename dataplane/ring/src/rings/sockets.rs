//! The kernel side of the rings on real interfaces: allocates memory, binds two sockets, and lets a worker sleep on
//! them.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use knockplane_policy::packet::Side;

use super::{Kernel, Rings, frames};
use crate::buffers::{Buffers, Request};
use crate::device::Device;
use crate::error::Error;
use crate::program::Program;
use crate::region::Region;
use crate::socket::{self, BindMode, SocketStatistics};
use crate::umem::Umem;

/// The settings of the rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// Descriptors in each ring; a power of two.
    pub ring_size: u32,
    /// The chunks for received frames, and the use of zero-copy.
    pub buffers: Buffers,
}

/// The memory of one worker's frames, before its sockets are bound.
#[derive(Debug)]
pub struct Memory {
    /// The socket that the UMEM is registered with. Closed before the memory is unmapped.
    socket: OwnedFd,
    umem: Umem,
}

impl Memory {
    /// Allocates the memory. This takes milliseconds, and changes no interface.
    ///
    /// # Errors
    /// If the ring size is no power of two, or there is not enough memory.
    pub fn take(settings: &RingSettings) -> Result<Self, Error> {
        Self::of(settings.ring_size, settings.buffers.chunk())
    }

    fn of(ring_size: u32, chunk_bytes: u32) -> Result<Self, Error> {
        if !ring_size.is_power_of_two() {
            return Err(Error::unfit(format!("ring size {ring_size} is not a power of two"), ""));
        }
        let count = frames(ring_size);
        let take = || -> io::Result<Self> {
            let region = Region::anonymous(count as usize * chunk_bytes as usize)?;
            let umem = Umem::new(region, chunk_bytes as usize);
            Ok(Memory { socket: socket::register(&umem)?, umem })
        };
        take().map_err(|error| {
            Error::system(
                format!("cannot make a UMEM of {count} frames of {chunk_bytes} bytes"),
                error,
                "lower ring-size, or raise RLIMIT_MEMLOCK",
            )
        })
    }
}

/// The two sockets of a worker. They are closed when this value is dropped.
#[derive(Debug)]
pub struct Sockets {
    /// Outside and inside.
    sockets: [OwnedFd; 2],
    is_zero_copy: [bool; 2],
}

impl Kernel for Sockets {
    fn wake_sender(&mut self, side: Side) {
        socket::wake_sender(self.sockets[side.index()].as_raw_fd());
    }

    fn wake_receiver(&mut self, side: Side) {
        socket::wake_receiver(self.sockets[side.index()].as_raw_fd());
    }

    fn is_zero_copy(&self, side: Side) -> bool {
        self.is_zero_copy[side.index()]
    }
}

impl Rings {
    /// Creates the UMEM and binds its two sockets to this queue of both interfaces, in zero-copy mode if the settings
    /// request it and both drivers support it. Frames arrive after [`Rings::connect`].
    ///
    /// # Errors
    /// If there is not enough memory, the kernel refuses to bind, or a driver refuses the zero-copy mode that the
    /// settings require.
    pub fn bind(devices: [&Device; 2], queue: u32, settings: &RingSettings) -> Result<Self, Error> {
        Self::bind_in(Memory::take(settings)?, devices, queue, settings)
    }

    /// As [`Rings::bind`], with memory that is already allocated. Waits until an exiting process releases the queue.
    ///
    /// # Errors
    /// As [`Rings::bind`].
    pub fn bind_in(memory: Memory, devices: [&Device; 2], queue: u32, settings: &RingSettings) -> Result<Self, Error> {
        let RingSettings { ring_size, ref buffers } = *settings;
        // The drivers, which are known now, may need other chunks than the allocated ones.
        let is_as_wanted = memory.umem.chunk_bytes() == buffers.chunk() as usize;
        let memory = if is_as_wanted { memory } else { Memory::take(settings)? };
        let bind = |memory, mode| Self::bind_with(memory, devices, queue, ring_size, mode);
        let copy = || bind(Memory::of(ring_size, buffers.copy_chunk)?, BindMode::Copy);
        match buffers.request {
            Request::Copy => bind(memory, BindMode::Copy),
            Request::Required(_) => bind(memory, BindMode::ZeroCopy),
            // The second socket must work in the mode of the first one. If it cannot, both copy.
            Request::IfPossible(chunk) => match bind(memory, BindMode::ZeroCopyIfPossible) {
                // Copy mode does not need the larger chunks, which would only occupy memory.
                Ok(rings) if chunk > buffers.copy_chunk && !rings.zero_copy(Side::Outside) => {
                    drop(rings);
                    copy()
                }
                Err(error) if !error.is_busy() => {
                    tracing::info!(queue, %error, "binding again, with copying");
                    // A UMEM cannot be used again after its first sockets were bound.
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
        mode: BindMode<'_>,
    ) -> Result<Self, Error> {
        let Memory { umem, socket: outside } = memory;
        let cannot_open =
            |error| Error::system("cannot make an AF_XDP socket", error, "run as root or with CAP_NET_RAW");
        let inside = socket::open().map_err(cannot_open)?;
        let rings = [
            socket::bind(outside.as_fd(), devices[0], queue, ring_size, mode)?,
            socket::bind(inside.as_fd(), devices[1], queue, ring_size, BindMode::Shared(outside.as_fd()))?,
        ];
        let sockets = [outside, inside];
        let mut is_zero_copy = [false; 2];
        for (side, socket) in sockets.iter().enumerate() {
            is_zero_copy[side] = socket::is_zero_copy(socket.as_fd()).map_err(|error| {
                let name = devices[side].name();
                Error::system(format!("cannot read the options of queue {queue} of {name}"), error, "")
            })?;
        }
        Ok(Rings::new(umem, rings, Sockets { sockets, is_zero_copy }))
    }

    /// Makes the programs of both sides, outside first, send this queue's frames to these sockets.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connect(&self, programs: &mut [Program; 2], queue: u32) -> Result<(), Error> {
        for side in Side::ALL {
            programs[side.index()].set_socket(queue, self.fd(side))?;
        }
        Ok(())
    }

    /// The side's socket, for a sleep: it is readable when frames have arrived.
    pub fn fd(&self, side: Side) -> RawFd {
        self.kernel.sockets[side.index()].as_raw_fd()
    }

    /// Whether the side's driver and the UMEM share memory.
    pub fn zero_copy(&self, side: Side) -> bool {
        self.kernel.is_zero_copy(side)
    }

    /// The losses that the kernel has counted at the side's socket. This is a system call, which is too expensive for
    /// every turn.
    pub fn statistics(&self, side: Side) -> SocketStatistics {
        socket::statistics(self.kernel.sockets[side.index()].as_fd())
    }

    /// Sleeps until a frame has arrived on either side, `waker` is readable, or `at_most` has passed, rounded down to
    /// milliseconds. Returns whether `waker` is readable.
    ///
    /// It uses poll(), not epoll: for a socket that is registered with epoll, the kernel searches for sleeping threads
    /// at every sent frame, also if no thread sleeps. This search takes a tenth of the forwarding time.
    pub fn wait(&self, waker: Option<BorrowedFd<'_>>, at_most: Duration) -> bool {
        let waker = waker.map_or(-1, |waker| waker.as_raw_fd());
        let mut descriptors = [self.fd(Side::Outside), self.fd(Side::Inside), waker].map(|fd| libc::pollfd {
            // A negative descriptor is ignored.
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        let at_most = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the array lives across the call, which gets its length. After any result, the caller checks again.
        unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, at_most) };
        descriptors[2].revents != 0
    }
}
