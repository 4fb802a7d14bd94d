//! Echo requests: their socket and their bytes.
//!
//! ```text
//!  0        1        2                 4                 6                 8
//! ┌────────┬────────┬─────────────────┬─────────────────┬─────────────────┬──────────
//! │ type   │ code 0 │ checksum        │ identifier      │ sequence        │ payload, zeros
//! └────────┴────────┴─────────────────┴─────────────────┴─────────────────┴──────────
//! ```
//! Source: RFC 792 (type 8), RFC 4443 section 4.1 (type 128).
//!
//! Each request has its own identifier. Connection tracking uses the identifier as it uses the ports of UDP: requests with
//! the same identifier are one connection, whose second packet is `established` and matches other rules than a knock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const HEADER_LEN: usize = 8;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;

/// A socket that sends one echo request to one address.
///
/// The kernel chooses the identifier of a ping socket; sockets that are open at the same time have different ones. So each
/// request has its own socket, which stays open until the last request was sent.
#[derive(Debug)]
pub(crate) struct EchoSocket {
    socket: Socket,
    door: SocketAddr,
    /// The identifier that a raw socket sends. A ping socket replaces it.
    identifier: u16,
}

/// The user may open neither a ping socket nor a raw socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot send `icmp`: no ping socket ({ping}) and no raw socket ({raw}) for this user{}", remedy())]
pub(crate) struct EchoSocketError {
    ping: io::Error,
    raw: io::Error,
}

impl EchoSocket {
    /// Opens a ping socket, which a sysctl of Linux permits for groups of users; if that fails, a raw socket, which requires a
    /// privilege.
    pub(crate) fn open(door: SocketAddr, identifier: u16) -> Result<Self, EchoSocketError> {
        let protocol = if door.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let open = |kind| Socket::new(Domain::for_address(door), kind, Some(protocol));
        let socket = match open(Type::DGRAM) {
            Ok(socket) => socket,
            Err(ping) => open(Type::RAW).map_err(|raw| EchoSocketError { ping, raw })?,
        };
        Ok(Self { socket, door, identifier })
    }

    /// Sends the echo request with `payload_len` bytes of payload.
    pub(crate) fn send(&self, payload_len: usize) -> io::Result<()> {
        let request = echo_request(self.door.is_ipv4(), self.identifier, 1, payload_len);
        // The port stays 0: for a raw IPv6 socket it would be a protocol number.
        self.socket.send_to(&request, &SockAddr::from(self.door))?;
        Ok(())
    }
}

/// Identifiers for the requests of one run: consecutive numbers from a random one. If they began at the process id, two
/// runs in quick succession would share some.
pub(crate) fn identifiers() -> impl Iterator<Item = u16> {
    let first = RandomState::new().build_hasher().finish() as u16;
    std::iter::successors(Some(first), |identifier| Some(identifier.wrapping_add(1)))
}

/// The bytes of an echo request. For ICMPv6 the checksum is 0 here: it covers the addresses, and the kernel always fills it in
/// (RFC 3542 section 3.1).
fn echo_request(ipv4: bool, identifier: u16, sequence: u16, payload_len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN + payload_len];
    bytes[0] = if ipv4 { ICMP_ECHO } else { ICMPV6_ECHO };
    bytes[4..6].copy_from_slice(&identifier.to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    if ipv4 {
        let checksum = internet_checksum(&bytes);
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// The ones' complement of the ones' complement sum of 16-bit words. Source: RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    // 65535 bytes are at most 32768 words: the sum fits in 32 bits.
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

fn remedy() -> String {
    if !cfg!(target_os = "linux") {
        return "\n  run it as an administrator, or use a knock without `icmp`".to_owned();
    }
    let program = std::env::current_exe().map_or_else(|_| "knocker".to_owned(), |path| path.display().to_string());
    format!(
        "\n  permit ping sockets for all users: sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"\
         \n  or raw sockets for this program:    sudo setcap cap_net_raw+ep {program}"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checksum_of_the_example_in_rfc_1071() {
        // Section 3: these words sum up to ddf2.
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn the_last_byte_of_an_odd_length_is_the_high_half_of_a_word() {
        assert_eq!(internet_checksum(&[0x12]), !0x1200);
    }

    #[test]
    fn types_of_both_families() {
        assert_eq!(echo_request(true, 1, 2, 0), [8, 0, 0xf7, 0xfc, 0, 1, 0, 2]);
        assert_eq!(echo_request(false, 1, 2, 1), [128, 0, 0, 0, 0, 1, 0, 2, 0]);
    }

    proptest! {
        #[test]
        fn a_request_sums_up_to_zero(identifier: u16, sequence: u16, payload_len in 0_usize..1500) {
            let request = echo_request(true, identifier, sequence, payload_len);
            prop_assert_eq!(request.len(), payload_len + 8);
            prop_assert_eq!(internet_checksum(&request), 0);
        }
    }
}
