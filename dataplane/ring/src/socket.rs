//! One AF_XDP socket: bound to a queue, and what xsk-rs does not offer on its descriptor.

use std::error::Error as _;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Instant;

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

use crate::device::Device;
use crate::error::{Error, RELEASE_PATIENCE, RELEASE_RETRY};

/// `SOL_XDP` and its options, of Linux `include/uapi/linux/if_xdp.h`.
const SOL_XDP: i32 = 283;
const XDP_OPTIONS: i32 = 8;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// Frames that one kick may send in copy mode. The kernel's own default of 32 would cost two kicks a batch.
const TX_BUDGET: u32 = 256;

/// Losses that the kernel counts at one socket since it was bound.
/// Source: `struct xdp_statistics`, Linux `Documentation/networking/af_xdp.rst`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketStatistics {
    /// Dropped for other reasons than the two below.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that are none.
    pub rx_invalid_descriptors: u64,
    /// The receive ring had no room: the worker is too slow.
    pub rx_ring_full: u64,
    /// The fill ring was empty: the worker is too slow, or frames are stranded elsewhere.
    pub fill_ring_empty: u64,
    /// Descriptors in the transmit ring that are none.
    pub tx_invalid_descriptors: u64,
}

/// The four rings of a bound socket.
pub(crate) struct Bound {
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
    pub(crate) fill: FillQueue,
    pub(crate) completion: CompQueue,
    pub(crate) zero_copy: bool,
}

/// Binds a socket to one queue of the interface. The XDP program is not touched: it is ours, and attached already.
pub(crate) fn bind(
    umem: &Umem,
    device: &Device,
    queue: u32,
    ring: QueueSize,
    flags: BindFlags,
) -> Result<Bound, Error> {
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags)
        .build();
    let interface: Interface = device.name().parse().expect("an interface that was found has no NUL in its name");
    let patience = Instant::now() + RELEASE_PATIENCE;
    let (tx, rx, fill_and_completion) = loop {
        // SAFETY: every queue of an interface is bound once, in one UMEM, by the one `Rings` that serves it, so no
        // other handle on the fill and completion ring of this queue exists.
        let error = match unsafe { Socket::new(config, umem, &interface, queue) } {
            Ok(queues) => break queues,
            // The error itself does not show what the kernel said.
            Err(error) => error.source().and_then(|e| e.downcast_ref::<io::Error>()?.raw_os_error()),
        };
        if error != Some(libc::EBUSY) || Instant::now() > patience {
            return Err(bind_error(device, queue, error));
        }
        thread::sleep(RELEASE_RETRY);
    };
    let (fill, completion) = fill_and_completion.ok_or_else(|| {
        Error::unfit(format!("queue {queue} of {} is bound twice", device.name()), "outside and inside must differ")
    })?;
    let zero_copy = is_zero_copy(rx.fd().as_raw_fd()).map_err(|error| {
        Error::system(format!("cannot read the options of queue {queue} of {}", device.name()), error, "")
    })?;
    raise_tx_budget(tx.fd().as_raw_fd());
    Ok(Bound { rx, tx, fill, completion, zero_copy })
}

fn bind_error(device: &Device, queue: u32, errno: Option<i32>) -> Error {
    let remedy = match errno {
        Some(libc::EBUSY) => {
            "another process has an AF_XDP socket on it (`ss --xdp --all --processes` names it); stop that one first"
        }
        Some(libc::EPERM) => "run as root or with CAP_NET_RAW and CAP_NET_ADMIN",
        Some(libc::EOPNOTSUPP) => "its driver has no zero-copy; set zero-copy = \"auto\"",
        Some(libc::EINVAL) => "the interface has no such receive queue",
        Some(libc::ENOMEM | libc::ENOBUFS) => "raise RLIMIT_MEMLOCK, or lower ring-size",
        _ => "",
    };
    let source = errno.map_or_else(|| io::Error::other("unknown error"), io::Error::from_raw_os_error);
    Error::system(format!("cannot bind an AF_XDP socket to queue {queue} of {}", device.name()), source, remedy)
}

pub(crate) fn statistics(socket: &RxQueue) -> SocketStatistics {
    // It cannot fail on a bound socket; if it does, nothing is known, which zeros say.
    let kernel = socket.fd().xdp_statistics().unwrap_or_default();
    SocketStatistics {
        rx_dropped: kernel.rx_dropped(),
        rx_invalid_descriptors: kernel.rx_invalid_descs(),
        rx_ring_full: kernel.rx_ring_full(),
        fill_ring_empty: kernel.rx_fill_ring_empty_descs(),
        tx_invalid_descriptors: kernel.tx_invalid_descs(),
    }
}

/// Tells a driver that ran out of fill descriptors that there are new ones.
pub(crate) fn wake_receiver(socket: RawFd) {
    // SAFETY: no buffer is passed. The result is of no interest: the next turn tries again.
    unsafe {
        libc::recvfrom(socket, std::ptr::null_mut(), 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut())
    };
}

fn is_zero_copy(socket: RawFd) -> io::Result<bool> {
    let mut flags = 0_u32;
    let mut length = mem::size_of_val(&flags) as libc::socklen_t;
    // SAFETY: the option fills a `struct xdp_options`, which is one u32, and `length` says so.
    let result = unsafe { libc::getsockopt(socket, SOL_XDP, XDP_OPTIONS, (&raw mut flags).cast(), &raw mut length) };
    if result == 0 { Ok(flags & XDP_OPTIONS_ZEROCOPY != 0) } else { Err(io::Error::last_os_error()) }
}

/// An older kernel does not know the option, and then takes more kicks.
fn raise_tx_budget(socket: RawFd) {
    let budget = TX_BUDGET;
    // SAFETY: the option takes a u32, which lives across the call.
    unsafe {
        libc::setsockopt(
            socket,
            SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const budget).cast(),
            mem::size_of_val(&budget) as libc::socklen_t,
        )
    };
}

/// Raises the limit on locked memory as far as the process may. Newer kernels and processes with CAP_IPC_LOCK do not
/// need it, so failing is no error: binding will say if it was needed.
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
