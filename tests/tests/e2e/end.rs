//! A host's interface at one end of the wire, accessed below its network stack.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::thread;

use anyhow::{Context as _, ensure};
use knockplane_tests::Namespace;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::scenario::PATIENCE;

/// An ethertype that no host answers. Source: IEEE 802, 9.2.4: local experimental ethertype 1.
pub(crate) const LOCAL_EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// Settings that forward frames of [`LOCAL_EXPERIMENT`], at any rate.
pub(crate) const EXPERIMENTS_PASS: &str = "[policy.frames]\nunknown = \"accept\"\nrate = \"off\"\n";

/// A host's interface, for raw frames.
pub(crate) struct End {
    socket: Socket,
    /// The interface's address for packet sockets.
    interface: SockAddr,
}

impl End {
    pub(crate) fn open(host: &Namespace) -> anyhow::Result<End> {
        host.within(|| {
            let all = i32::from((libc::ETH_P_ALL as u16).to_be());
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_recv_buffer_size(8 << 20)?;
            // A received frame has the address of its interface, which can be used to send.
            let anyone = UdpSocket::bind("0.0.0.0:0")?;
            anyone.set_broadcast(true)?;
            anyone.send_to(b"which interface is this?", "10.77.0.255:9")?;
            let (_, interface) = socket.recv_from(&mut [MaybeUninit::uninit(); 2048])?;
            socket.attach_filter(&what_arrives())?;
            Ok(End { socket, interface })
        })
    }

    /// Sends a frame, as soon as the interface has room for it.
    pub(crate) fn send(&self, frame: &[u8]) -> anyhow::Result<()> {
        let sent = loop {
            match self.socket.send_to(frame, &self.interface) {
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => thread::yield_now(),
                sent => break sent.context("cannot send a frame")?,
            }
        };
        ensure!(sent == frame.len(), "half a frame was sent");
        Ok(())
    }

    /// The next frame that arrived at this end. Waits up to a time limit.
    pub(crate) fn next<'b>(&mut self, room: &'b mut [u8]) -> anyhow::Result<&'b [u8]> {
        let length = self.socket.read(room)?;
        Ok(&room[..length])
    }
}

/// The hardware address of a host's interface.
pub(crate) fn mac_of(host: &Namespace) -> [u8; 6] {
    let text = host.ip("-j link show dev eth0").expect("an interface");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let octets = json[0]["address"].as_str().expect("an address").split(':').map(|octet| u8::from_str_radix(octet, 16));
    octets.collect::<Result<Vec<_>, _>>().expect("octets").try_into().expect("six of them")
}

/// A packet socket's filter: no frames sent by its own host. Source: Linux `Documentation/networking/filter.rst`.
fn what_arrives() -> [SockFilter; 4] {
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    [
        SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, packet_type),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, libc::PACKET_OUTGOING.into()),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ]
}
