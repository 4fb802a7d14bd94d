//! The environment of a test: a network namespace with a loopback interface, and a tap on it.
//!
//! The tap receives each packet during the system call of the sender, so that the order of packets is the order of calls. A
//! packet sent after the program has ended marks the end of its packets.

use std::io::{self, Read};
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The program under test.
pub(crate) const KNOCKER: &str = env!("CARGO_BIN_EXE_knocker");

/// Destination port of the packet that ends a recording. No test knocks at this port.
const END_PORT: u16 = 65000;
/// Time limit for an expected packet, so that a test fails and does not hang.
const HANG: Duration = Duration::from_secs(30);

/// The network namespace of the calling thread.
pub(crate) struct Lab(());

/// A packet of a knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Knock {
    pub(crate) to: IpAddr,
    /// Length of the whole IP packet in bytes.
    pub(crate) packet_len: usize,
    /// Identifier of an echo request.
    pub(crate) identifier: Option<u16>,
    pub(crate) payload: Payload,
}

/// The fields of a packet of a knock, by its transport protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Syn(u16),
    Datagram(u16, Vec<u8>),
    /// An echo request, and whether its checksum is right.
    Echo {
        checksum_is_right: bool,
    },
}

/// The identifier of an echo request, in an IP packet behind an Ethernet header. `None` of anything else.
fn echo_identifier(packet: &SlicedPacket<'_>) -> Option<u16> {
    match packet.transport.as_ref()? {
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(IcmpEchoHeader { id, .. }) => Some(id),
            _ => None,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoRequest(IcmpEchoHeader { id, .. }) => Some(id),
            _ => None,
        },
        _ => None,
    }
}

/// Runs `test` in its own network namespace, in a thread: the namespace belongs to the thread and to the programs that it
/// starts, and ends with them.
pub(crate) fn inside(test: impl FnOnce(&Lab) + Send) {
    thread::scope(|scope| {
        let lab = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, for which the tests run as root");
            let lab = Lab(());
            lab.ip("link set lo up");
            test(&lab);
        });
        if let Err(panic) = lab.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a program that is expected to exist.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// The output of a program as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Lab {
    /// Runs `ip` with these arguments.
    pub(crate) fn ip(&self, line: &str) {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = run("ip", &arguments);
        assert!(output.status.success(), "ip {line}: {}", text(&output.stderr));
    }

    /// Runs `knocker`.
    pub(crate) fn knocker(&self, arguments: &[&str]) -> Output {
        run(KNOCKER, arguments)
    }

    /// Starts to record the packets that leave through loopback.
    pub(crate) fn tap(&self) -> Tap {
        Tap::open().expect("a packet socket, for which the tests run as root")
    }

    /// Runs a program, which must succeed, and returns the knocks that it sent.
    pub(crate) fn knocks_of(&self, program: &str, arguments: &[&str]) -> Vec<Knock> {
        let mut tap = self.tap();
        let output = run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
        tap.finish()
    }
}

/// A packet socket that receives each outgoing packet once. Its buffer has room for a few hundred packets, including
/// answers: if a program sends more, some of them or the end marker are lost, and the test fails.
pub(crate) struct Tap(Socket);

impl Tap {
    fn open() -> io::Result<Self> {
        let all = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all)))?;
        socket.set_read_timeout(Some(HANG))?;
        // Accept only outgoing packets: loopback delivers each packet a second time as an incoming one.
        let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
        let outgoing = u32::from(libc::PACKET_OUTGOING);
        socket.attach_filter(&[
            SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, packet_type),
            SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, outgoing),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        ])?;
        Ok(Self(socket))
    }

    /// The next knock. Other packets, such as answers, are skipped.
    pub(crate) fn next(&mut self) -> Knock {
        let mut frame = vec![0; 1 << 17];
        loop {
            let len = self.0.read(&mut frame).expect("a packet within the time limit");
            if let Some(knock) = read_knock(&frame[..len]) {
                return knock;
            }
        }
    }

    /// All knocks up to now.
    pub(crate) fn finish(&mut self) -> Vec<Knock> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.send_to(b"end", ("127.0.0.1", END_PORT)).expect("a packet to end with");
        let mut knocks = Vec::new();
        loop {
            match self.next() {
                Knock { payload: Payload::Datagram(END_PORT, _), .. } => return knocks,
                knock => knocks.push(knock),
            }
        }
    }
}

fn read_knock(frame: &[u8]) -> Option<Knock> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, to, packet_len) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), usize::from(header.total_len()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let packet_len = 40 + usize::from(header.payload_length());
            (IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr()), packet_len)
        }
        NetSlice::Arp(_) => return None,
    };
    let identifier = echo_identifier(&packet);
    let payload = match packet.transport? {
        TransportSlice::Tcp(tcp) if tcp.syn() && !tcp.ack() => Payload::Syn(tcp.destination_port()),
        TransportSlice::Udp(udp) => Payload::Datagram(udp.destination_port(), udp.payload().to_vec()),
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            kind @ Icmpv4Type::EchoRequest(IcmpEchoHeader { .. }) => {
                Payload::Echo { checksum_is_right: icmp.checksum() == kind.calc_checksum(icmp.payload()) }
            }
            _ => return None,
        },
        TransportSlice::Icmpv6(icmp) => match (icmp.icmp_type(), source, to) {
            (kind @ Icmpv6Type::EchoRequest(_), IpAddr::V6(source), IpAddr::V6(to)) => {
                let right = kind.calc_checksum(source.octets(), to.octets(), icmp.payload()).ok();
                Payload::Echo { checksum_is_right: Some(icmp.checksum()) == right }
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(Knock { to, packet_len, identifier, payload })
}
