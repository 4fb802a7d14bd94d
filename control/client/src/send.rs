//! Sends steps in order: one packet each, from its own socket.
//!
//! ```text
//! TCP   socket ── connect (non-blocking) ── close     one SYN, without retransmission
//! UDP   socket ── sendto ── close                     one datagram
//! ICMP  an echo socket ── sendto                      opened before the first step, see `echo`
//! ```
//! Each system call hands the packet to the network before it returns, so that the order of calls is the order of packets.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::echo::{self, EchoSocket, EchoSocketError};
use crate::step::{self, KnockStep};

/// Sends steps to one address.
#[derive(Debug)]
pub(crate) struct Sender {
    door: SocketAddr,
    /// One for each step; `None` for steps that are no echo request.
    echoes: Vec<Option<EchoSocket>>,
}

/// A step could not be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("{0}\n  nothing was sent to {1}")]
    Echo(EchoSocketError, std::net::IpAddr),
    #[error("step {number}, {step}: cannot send to {door}: {source}{remedy}", remedy = remedy(source))]
    Step { number: usize, step: String, door: std::net::IpAddr, source: io::Error },
}

impl Sender {
    /// Prepares to send `steps` to `door`. Fails if a step needs a permission that the user lacks, so that the door never
    /// receives the first part of a sequence that cannot be completed.
    pub(crate) fn open(door: SocketAddr, steps: &[KnockStep]) -> Result<Self, SendError> {
        let echo_socket = |(step, identifier): (&KnockStep, u16)| {
            matches!(step, KnockStep::Echo { .. }).then(|| EchoSocket::open(door, identifier)).transpose()
        };
        let echoes = steps.iter().zip(echo::identifiers()).map(echo_socket).collect::<Result<_, _>>();
        Ok(Self { door, echoes: echoes.map_err(|error| SendError::Echo(error, door.ip()))? })
    }

    pub(crate) fn door(&self) -> SocketAddr {
        self.door
    }

    /// Sends the step at `index` of the sequence.
    pub(crate) fn send(&self, index: usize, step: &KnockStep) -> Result<(), SendError> {
        let sent = match step {
            KnockStep::Tcp { port } => send_syn(self.at_port(*port)),
            KnockStep::Udp { port, payload } => send_datagram(self.at_port(*port), payload),
            KnockStep::Echo { packet_len } => self.send_echo(index, *packet_len),
        };
        sent.map_err(|source| SendError::Step {
            number: index + 1,
            step: step.describe(self.door),
            door: self.door.ip(),
            source,
        })
    }

    fn at_port(&self, port: u16) -> SocketAddr {
        let mut address = self.door;
        address.set_port(port);
        address
    }

    fn send_echo(&self, index: usize, packet_len: Option<u16>) -> io::Result<()> {
        let too_small = || io::Error::new(io::ErrorKind::InvalidInput, "the packet size is too small");
        let payload_len = step::echo_payload_len(packet_len, self.door).ok_or_else(too_small)?;
        let unopened = || io::Error::other("no socket was opened for echo requests");
        self.echoes.get(index).and_then(Option::as_ref).ok_or_else(unopened)?.send(payload_len)
    }
}

/// Sends one SYN. Closing the socket before the answer ends the connection attempt without another packet, so that the SYN is
/// not retransmitted: a door may count a repeated step as a wrong knock.
fn send_syn(to: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if !syn_has_left(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether connect() returned this error after it sent the SYN: there is no answer yet, or this machine has refused the
/// connection.
fn syn_has_left(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, WouldBlock};
    matches!(error.kind(), WouldBlock | ConnectionRefused | ConnectionReset) || is_in_progress(error)
}

/// The standard library has no stable kind for EINPROGRESS.
#[cfg(unix)]
fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Windows returns WouldBlock.
#[cfg(not(unix))]
fn is_in_progress(_: &io::Error) -> bool {
    false
}

fn send_datagram(to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.send_to(payload, &SockAddr::from(to))?;
    Ok(())
}

/// The remedy for `error` on its own line; empty if there is none.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        // EPERM and EACCES. For TCP, Linux hides EPERM: a SYN that the local packet filter drops looks like one that was sent.
        io::ErrorKind::PermissionDenied => {
            "\n  this machine refuses to send the packet: look for a rule that drops or rejects outgoing packets \
             (`nft list ruleset`), and for a `prohibit` route; a broadcast address cannot be used"
        }
        io::ErrorKind::NetworkUnreachable => {
            "\n  this machine has no route to it: check the network connection, or try the other family with -4 or -6"
        }
        io::ErrorKind::HostUnreachable => {
            "\n  no host answers at that address on the local network, or its route is `unreachable`: \
             check the address and `ip route get`"
        }
        io::ErrorKind::AddrNotAvailable => "\n  this machine has no address of that family to send from: try -4 or -6",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_not_a_failure() {
        assert!(syn_has_left(&io::ErrorKind::ConnectionRefused.into()));
        assert!(syn_has_left(&io::ErrorKind::WouldBlock.into()));
        assert!(!syn_has_left(&io::ErrorKind::NetworkUnreachable.into()));
        assert!(!syn_has_left(&io::ErrorKind::PermissionDenied.into()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn errors_of_the_network_have_a_remedy() {
        for (code, word) in [
            (libc::EPERM, "nft list ruleset"),
            (libc::EACCES, "prohibit"),
            (libc::ENETUNREACH, "no route"),
            (libc::EHOSTUNREACH, "no host answers"),
            (libc::EADDRNOTAVAIL, "-4 or -6"),
        ] {
            let text = remedy(&io::Error::from_raw_os_error(code));
            assert!(text.contains(word), "{code}: {text}");
        }
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::EMSGSIZE)), "");
        assert!(syn_has_left(&io::Error::from_raw_os_error(libc::EINPROGRESS)));
    }
}
