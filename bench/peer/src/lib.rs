//! AF_XDP sockets of the crate `xsk-rs` (libxdp): an independent peer of this project's rings, for tests and comparisons.
//!
//! ```text
//!   fill ──► rx ──► batch ──┬── forward ──► the other port's tx ──► completion ──┐
//!    ▲                      └── receive ──► free ◄───────────────────────────────┘
//!    └─────────────────────────────────────  free  ──► send ──► tx
//! ```
//! [`PeerSockets`] has one UMEM, and a port for each of one or two interfaces. It does only the work that this library
//! requires of a program, and does not check the kernel's descriptors. It is not part of the dataplane.

use std::io::{self, Write as _};
use std::mem;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd as _, RawFd};
use std::ptr;
use std::time::Duration;

use knockplane_ring::{Device, RingError, SocketStatistics};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Maximum number of frames in a batch, as in the dataplane.
pub const BATCH: usize = 64;

/// Bytes of a chunk: a frame of 1500 bytes of payload and the kernel's headroom.
const CHUNK: u32 = 2048;

/// `SOL_XDP`'s `XDP_MAX_TX_SKB_BUDGET` and the dataplane's value for it, so that both need the same number of kicks.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const TX_BUDGET: u32 = 256;

/// Maximum number of kicks in a turn. A kick in copy mode sends up to the budget. Only older kernels, which send 32
/// frames, need more than one.
const KICKS: u32 = 4;

/// The frames that [`PeerSockets::forward`] received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Frames received.
    pub received: usize,
    /// Frames of these that found no room in the other port's transmit ring, and were dropped.
    pub tx_full: usize,
}

/// Sockets of one or two interfaces that share a UMEM.
#[derive(Debug)]
pub struct PeerSockets {
    /// Declared before the UMEM, so that the sockets are closed first.
    ports: Vec<Port>,
    umem: Umem,
    /// Chunks that no ring has.
    free: Vec<FrameDesc>,
    batch: [FrameDesc; BATCH],
}

#[derive(Debug)]
struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    ring_size: u32,
    /// Number of chunks in the fill ring that the kernel has not returned.
    receiving: u32,
    /// Number of chunks in the transmit ring that the kernel has not completed.
    sending: u32,
}

impl PeerSockets {
    /// Binds a socket to queue 0 of each interface, in copy mode, with rings of `ring_size` entries. Frames arrive
    /// after the interface's program has the socket of [`PeerSockets::fd`].
    ///
    /// # Errors
    /// If the ring size is no power of two, there is not enough memory, or the kernel refuses to bind.
    pub fn bind(devices: &[&Device], ring_size: u32) -> Result<Self, RingError> {
        let ring = QueueSize::new(ring_size).map_err(|error| failed("cannot make rings", &error))?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(CHUNK).expect("a power of two"))
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .expect("a chunk is larger than its headroom");
        // Enough for the fill and transmit rings of each port, and a batch.
        let chunks = 2 * ring_size * devices.len() as u32 + BATCH as u32;
        let chunks = NonZeroU32::new(chunks).expect("a batch at least");
        let (umem, free) = Umem::new(config, chunks, false).map_err(|error| failed("cannot make a UMEM", &error))?;
        let ports = devices.iter().map(|device| Port::bind(&umem, device, ring)).collect::<Result<_, RingError>>()?;
        let mut peer = PeerSockets { ports, umem, free, batch: [FrameDesc::default(); BATCH] };
        for port in 0..peer.ports.len() {
            peer.kick(port);
        }
        Ok(peer)
    }

    /// The port's socket.
    pub fn fd(&self, port: usize) -> RawFd {
        self.ports[port].rx.fd().as_raw_fd()
    }

    /// Receives up to a batch of frames, and passes them to `look` in order.
    pub fn receive(&mut self, port: usize, mut look: impl FnMut(&[u8])) -> usize {
        let count = self.ports[port].take(&mut self.batch);
        for frame in &self.batch[..count] {
            // SAFETY: the kernel has delivered the frame, so its chunk belongs to this UMEM and not to the kernel.
            look(unsafe { self.umem.data(frame) }.contents());
        }
        self.free.extend_from_slice(&self.batch[..count]);
        count
    }

    /// Receives up to a batch of frames on one port and puts them into the transmit ring of another one. Nothing leaves before
    /// [`PeerSockets::kick`].
    pub fn forward(&mut self, from: usize, to: usize) -> Forwarded {
        let received = self.ports[from].take(&mut self.batch);
        let batch = &mut self.batch[..received];
        // The flags of the receive ring have other meanings in the transmit ring.
        batch.iter_mut().for_each(|frame| frame.set_options(0));
        let port = &mut self.ports[to];
        let (sent, rest) = batch.split_at(port.room(received));
        // SAFETY: the kernel has delivered the frames. They are in no other ring, and `free` gets only the others.
        unsafe { port.put_to_send(sent) };
        self.free.extend_from_slice(rest);
        Forwarded { received, tx_full: rest.len() }
    }

    /// Receives up to a batch of frames and drops them. Returns their number.
    pub fn drop_batch(&mut self, port: usize) -> usize {
        let count = self.ports[port].take(&mut self.batch);
        self.free.extend_from_slice(&self.batch[..count]);
        count
    }

    /// Puts a frame of these bytes into the port's transmit ring. [`PeerSockets::kick`] sends it. Returns false if
    /// there is no room.
    pub fn send(&mut self, port: usize, bytes: &[u8]) -> bool {
        let port = &mut self.ports[port];
        if port.room(1) == 0 {
            return false;
        }
        let Some(mut frame) = self.free.pop() else { return false };
        frame.set_options(0);
        // SAFETY: the chunk is free: no ring has it, and no other reference to its bytes exists.
        let mut data = unsafe { self.umem.data_mut(&mut frame) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        if cursor.write_all(bytes).is_err() {
            self.free.push(frame);
            return false;
        }
        // SAFETY: as above, and the chunk is no longer among the free ones.
        unsafe { port.put_to_send(&[frame]) };
        true
    }

    /// Makes the kernel send the frames in the port's transmit ring, takes back the chunks of sent frames, and refills
    /// the port's fill ring. Called once for each batch.
    pub fn kick(&mut self, port: usize) {
        let port = &mut self.ports[port];
        port.reap(&mut self.free);
        for _ in 0..KICKS {
            if port.sending == 0 || !port.tx.needs_wakeup() || port.tx.nb_free_exact() == port.ring_size {
                break;
            }
            // An error means that the kernel has not sent all frames. These frames stay in the ring.
            let _ = port.tx.wakeup();
            port.reap(&mut self.free);
        }
        port.refill(&mut self.free);
    }

    /// Number of frames that the kernel has for transmission and has not completed.
    pub fn in_flight(&self, port: usize) -> usize {
        self.ports[port].sending as usize
    }

    /// The losses that the kernel has counted at the port's socket.
    pub fn statistics(&self, port: usize) -> SocketStatistics {
        // The call does not fail on a bound socket. If it does, no loss is known: all zeros.
        let kernel = self.ports[port].rx.fd().xdp_statistics().unwrap_or_default();
        SocketStatistics {
            rx_dropped: kernel.rx_dropped(),
            rx_invalid_descriptors: kernel.rx_invalid_descs(),
            rx_ring_full: kernel.rx_ring_full(),
            fill_ring_empty: kernel.rx_fill_ring_empty_descs(),
            tx_invalid_descriptors: kernel.tx_invalid_descs(),
        }
    }

    /// Sleeps until a frame has arrived on any port, at most for `at_most`.
    pub fn wait(&self, at_most: Duration) {
        let mut sockets: Vec<_> = (0..self.ports.len())
            .map(|port| libc::pollfd { fd: self.fd(port), events: libc::POLLIN, revents: 0 })
            .collect();
        let at_most = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the memory lives across the call, which gets its length. The result is not needed: the caller checks
        // again.
        unsafe { libc::poll(sockets.as_mut_ptr(), sockets.len() as libc::nfds_t, at_most) };
    }
}

impl Port {
    fn bind(umem: &Umem, device: &Device, ring: QueueSize) -> Result<Self, RingError> {
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_COPY)
            .build();
        let name: Interface = device.name().parse().expect("the name of an interface has no NUL");
        // SAFETY: each port of a UMEM is on a different interface, so that no two sockets share a fill and a completion
        // ring.
        let queues = unsafe { Socket::new(config, umem, &name, 0) };
        let (tx, rx, rings) = queues.map_err(|error| failed("cannot bind an AF_XDP socket", &error))?;
        let (fill, completion) = rings.ok_or_else(|| RingError::System {
            action: format!("cannot bind an AF_XDP socket to {} twice", device.name()),
            cause: io::Error::from_raw_os_error(libc::EBUSY),
            remedy: "name two interfaces".to_owned(),
        })?;
        // SAFETY: the option takes a u32, which lives across the call. An older kernel does not have the option, and
        // needs more kicks.
        unsafe {
            libc::setsockopt(
                tx.fd().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                ptr::from_ref(&TX_BUDGET).cast(),
                mem::size_of_val(&TX_BUDGET) as libc::socklen_t,
            )
        };
        Ok(Port { rx, tx, fill, completion, ring_size: ring.get(), receiving: 0, sending: 0 })
    }

    fn take(&mut self, batch: &mut [FrameDesc]) -> usize {
        // SAFETY: the call only writes descriptors to the array.
        let count = unsafe { self.rx.consume(batch) };
        self.receiving -= count as u32;
        count
    }

    /// Number of frames that can be put into the transmit ring, up to `wanted`.
    fn room(&mut self, wanted: usize) -> usize {
        let in_flight = self.ring_size - self.sending;
        (self.tx.nb_free(wanted as u32).min(in_flight) as usize).min(wanted)
    }

    /// # Safety
    /// The frames belong to the port's UMEM and are in no other ring, and the caller does not use them any more. There
    /// is room for them.
    unsafe fn put_to_send(&mut self, frames: &[FrameDesc]) {
        // SAFETY: the caller guarantees it.
        let sent = unsafe { self.tx.produce(frames) };
        assert_eq!(sent, frames.len(), "room in the transmit ring");
        self.sending += sent as u32;
    }

    fn reap(&mut self, free: &mut Vec<FrameDesc>) {
        let mut completed = [FrameDesc::default(); BATCH];
        while self.sending > 0 {
            // SAFETY: the call only writes descriptors to the array.
            let count = unsafe { self.completion.consume(&mut completed) };
            if count == 0 {
                break;
            }
            self.sending -= count as u32;
            free.extend_from_slice(&completed[..count]);
        }
    }

    fn refill(&mut self, free: &mut Vec<FrameDesc>) {
        let wanted = ((self.ring_size - self.receiving) as usize).min(free.len());
        let count = wanted.min(self.fill.nb_free(wanted as u32) as usize);
        let rest = free.len() - count;
        // SAFETY: the chunks belong to this UMEM and are free. They are removed from `free` here.
        let filled = unsafe { self.fill.produce(&free[rest..]) };
        assert_eq!(filled, count, "room in the fill ring");
        free.truncate(rest);
        self.receiving += filled as u32;
    }
}

/// Only the source of the library's error contains the error of the kernel.
fn failed(action: &str, error: &dyn std::error::Error) -> RingError {
    let kernel = error.source().and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
    RingError::System {
        action: action.to_owned(),
        cause: kernel.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error),
        remedy: "run as root, and see that no other socket is bound to the queue".to_owned(),
    }
}
