//! AF_XDP sockets: registers a UMEM, maps a socket's rings, binds the socket to a queue, and wakes the kernel.
//!
//! The order of calls: [`register`] creates a socket and registers the UMEM with it. [`bind`] creates the socket's
//! rings and binds it. A second socket on another interface shares the UMEM of the first one, and has its own rings.
//! Source: Linux `Documentation/networking/af_xdp.rst`, `net/xdp/xsk.c`.

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::thread;
use std::time::Instant;

use crate::descriptors::{Release, place};
use crate::device::Device;
use crate::error::{RELEASE_PATIENCE, RELEASE_RETRY, RingError};
use crate::queue::{Consumer, Descriptor, Producer, RingOffsets};
use crate::region::Region;
use crate::umem::Umem;

/// A socket option of Linux `include/uapi/linux/if_xdp.h`.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Maximum number of frames that one kick sends in copy mode. The kernel's default of 32 would need two kicks for a
/// batch.
const TX_BUDGET: u32 = 256;

/// Losses that the kernel counts at one socket since it was bound.
/// Source: `struct xdp_statistics`, Linux `Documentation/networking/af_xdp.rst`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketStatistics {
    /// Received frames that were dropped for other reasons than the two below.
    pub rx_dropped: u64,
    /// Invalid descriptors in the fill ring.
    pub rx_invalid_descriptors: u64,
    /// The receive ring had no room: the worker is too slow.
    pub rx_ring_full: u64,
    /// The fill ring was empty: the worker is too slow, or frames are stranded elsewhere.
    pub fill_ring_empty: u64,
    /// Invalid descriptors in the transmit ring.
    pub tx_invalid_descriptors: u64,
}

/// The four rings of a bound socket.
#[derive(Debug)]
pub(crate) struct SocketRings {
    pub(crate) rx: Consumer<Descriptor>,
    pub(crate) tx: Producer<Descriptor>,
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
}

/// The mode in which a socket is bound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BindMode<'s> {
    /// The first socket of its UMEM. The kernel uses zero-copy if the driver has it.
    ZeroCopyIfPossible,
    /// The first socket of its UMEM, in zero-copy mode. The bind fails if the driver does not support it.
    ZeroCopy,
    /// The first socket of its UMEM, in copy mode.
    Copy,
    /// Another socket of the UMEM that was registered with this one, in the same mode.
    Shared(BorrowedFd<'s>),
}

impl BindMode<'_> {
    /// Flags and descriptor of `struct sockaddr_xdp`. A socket that shares a UMEM takes no other flag.
    fn flags(self) -> (u16, u32) {
        match self {
            BindMode::ZeroCopyIfPossible => (libc::XDP_USE_NEED_WAKEUP, 0),
            BindMode::ZeroCopy => (libc::XDP_USE_NEED_WAKEUP | libc::XDP_ZEROCOPY, 0),
            BindMode::Copy => (libc::XDP_USE_NEED_WAKEUP | libc::XDP_COPY, 0),
            BindMode::Shared(first) => (libc::XDP_SHARED_UMEM, first.as_raw_fd().cast_unsigned()),
        }
    }
}

/// Creates an AF_XDP socket without a bind.
///
/// # Errors
/// `EAFNOSUPPORT` if the kernel was built without AF_XDP, `EPERM` without CAP_NET_RAW.
pub(crate) fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before use.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and valid, and has no other owner.
    Ok(place(unsafe { OwnedFd::from_raw_fd(fd) }, Release::RingSocket))
}

/// Creates a socket and registers the UMEM with it. The kernel keeps the UMEM's pages while a socket uses them.
///
/// # Errors
/// If the limit on locked memory does not suffice, or as [`open`].
pub(crate) fn register(umem: &Umem) -> io::Result<OwnedFd> {
    let socket = open()?;
    let registration = libc::xdp_umem_reg {
        addr: umem.region().start().addr().get() as u64,
        len: umem.region().bytes() as u64,
        chunk_size: umem.chunk_bytes() as u32,
        headroom: 0,
        flags: 0,
        // This field is padding before Linux 6.8, so the size of the structure is the same there.
        tx_metadata_len: 0,
    };
    set_option(socket.as_fd(), libc::XDP_UMEM_REG, &registration)?;
    Ok(socket)
}

/// Creates rings of `ring_size` entries for the socket, and binds it to one queue of the interface. Waits until an
/// exiting process releases the queue.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn bind(
    socket: BorrowedFd<'_>,
    device: &Device,
    queue: u32,
    ring_size: u32,
    mode: BindMode<'_>,
) -> Result<SocketRings, RingError> {
    let failed = |error| bind_error(device, queue, error);
    let rings = make_rings(socket, ring_size).map_err(failed)?;
    let (flags, shared_umem_fd) = mode.flags();
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: device.index(),
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared_umem_fd,
    };
    let patience = Instant::now() + RELEASE_PATIENCE;
    loop {
        let length = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address lives across the call, which gets its length.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > patience {
            return Err(failed(error));
        }
        thread::sleep(RELEASE_RETRY);
    }
    // An older kernel does not have the option, and then needs more kicks.
    let _ = set_option(socket, XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET);
    Ok(rings)
}

fn make_rings(socket: BorrowedFd<'_>, size: u32) -> io::Result<SocketRings> {
    for option in [libc::XDP_RX_RING, libc::XDP_TX_RING, libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING] {
        set_option(socket, option, &size)?;
    }
    let zero = || libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let offsets = option(
        socket,
        libc::XDP_MMAP_OFFSETS,
        libc::xdp_mmap_offsets { rx: zero(), tx: zero(), fr: zero(), cr: zero() },
    )?;
    let map = |page, offsets, entry_bytes| map(socket, page, offsets, size, entry_bytes);
    let (descriptor, address) = (size_of::<Descriptor>(), size_of::<u64>());
    let rx = map(libc::XDP_PGOFF_RX_RING, &offsets.rx, descriptor)?;
    let tx = map(libc::XDP_PGOFF_TX_RING, &offsets.tx, descriptor)?;
    let fill = map(libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t, &offsets.fr, address)?;
    let completion = map(libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t, &offsets.cr, address)?;
    Ok(SocketRings {
        rx: Consumer::new(rx.0, &rx.1, size),
        tx: Producer::new(tx.0, &tx.1, size),
        fill: Producer::new(fill.0, &fill.1, size),
        completion: Consumer::new(completion.0, &completion.1, size),
    })
}

/// Maps one ring, and returns the places of its parts.
fn map(
    socket: BorrowedFd<'_>,
    page: libc::off_t,
    offsets: &libc::xdp_ring_offset,
    size: u32,
    entry_bytes: usize,
) -> io::Result<(Region, RingOffsets)> {
    let offsets = RingOffsets {
        producer: offsets.producer as usize,
        consumer: offsets.consumer as usize,
        entries: offsets.desc as usize,
        flags: offsets.flags as usize,
    };
    let bytes = offsets.entries + size as usize * entry_bytes;
    Ok((Region::of_socket(socket, bytes, page)?, offsets))
}

/// Whether driver and UMEM share memory.
///
/// # Errors
/// If the kernel does not report it.
pub(crate) fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let options = option(socket, libc::XDP_OPTIONS, libc::xdp_options { flags: 0 })?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

fn bind_error(device: &Device, queue: u32, error: io::Error) -> RingError {
    let remedy = match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "another process has an AF_XDP socket on it (`ss --xdp --all --processes` names it); stop that one first"
        }
        Some(libc::EPERM) => "run as root or with CAP_NET_RAW and CAP_NET_ADMIN",
        Some(libc::EOPNOTSUPP) => "its driver has no zero-copy; set zero-copy = \"auto\"",
        Some(libc::EINVAL) => "the interface has no such receive queue",
        Some(libc::ENOMEM | libc::ENOBUFS) => "raise RLIMIT_MEMLOCK, or lower ring-size",
        _ => "",
    };
    RingError::system(format!("cannot bind an AF_XDP socket to queue {queue} of {}", device.name()), error, remedy)
}

/// The losses that the kernel has counted at this socket.
pub(crate) fn statistics(socket: BorrowedFd<'_>) -> SocketStatistics {
    let zeros = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    // The call does not fail on a bound socket. If it does, no loss is known: all zeros.
    let kernel = option(socket, libc::XDP_STATISTICS, zeros).unwrap_or(zeros);
    SocketStatistics {
        rx_dropped: kernel.rx_dropped,
        rx_invalid_descriptors: kernel.rx_invalid_descs,
        rx_ring_full: kernel.rx_ring_full,
        fill_ring_empty: kernel.rx_fill_ring_empty_descs,
        tx_invalid_descriptors: kernel.tx_invalid_descs,
    }
}

/// Makes the kernel send the frames in the transmit ring.
pub(crate) fn wake_sender(socket: RawFd) {
    // SAFETY: no buffer is passed. EAGAIN, EBUSY, ENOBUFS and ENETDOWN mean that the kernel has not sent all frames
    // now, which the ring shows.
    unsafe { libc::sendto(socket, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
}

/// Notifies a driver that ran out of fill descriptors that there are new ones.
pub(crate) fn wake_receiver(socket: RawFd) {
    // SAFETY: no buffer is passed. The result is not needed: the next turn tries again.
    unsafe {
        libc::recvfrom(socket, std::ptr::null_mut(), 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut())
    };
}

/// A structure that the kernel fills in or reads as one option of `SOL_XDP`.
///
/// # Safety
/// The type has the layout of the option's structure, and any bytes are a valid value.
unsafe trait SocketOption: Copy {}

// SAFETY: an integer, such as the ring sizes and the budget.
unsafe impl SocketOption for u32 {}
// SAFETY: a structure of integers, declared as in Linux `include/uapi/linux/if_xdp.h`.
unsafe impl SocketOption for libc::xdp_umem_reg {}
// SAFETY: as above.
unsafe impl SocketOption for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl SocketOption for libc::xdp_options {}
// SAFETY: as above.
unsafe impl SocketOption for libc::xdp_statistics {}

fn set_option<T: SocketOption>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = mem::size_of_val(value) as libc::socklen_t;
    // SAFETY: the value lives across the call, which gets its length.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, (&raw const *value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads an option. Fields that the kernel does not write keep their value in `value`.
fn option<T: SocketOption>(socket: BorrowedFd<'_>, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut length = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value and its length live across the call, which writes no more than `length` bytes. Any bytes are a valid
    // value.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, (&raw mut value).cast(), &raw mut length) }
    {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the limit of locked memory as far as the process may. Newer kernels and processes with CAP_IPC_LOCK do not
/// need this, so a failure is no error: if the limit is too low, the bind fails and reports it.
pub fn raise_memlock_limit() {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure lives across the calls.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) != 0
            && libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) == 0
        {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
        }
    }
}
