//! Echo requests: the socket they leave from, and their bytes.
//!
//! ```text
//!  0        1        2                 4                 6                 8
//! ┌────────┬────────┬─────────────────┬─────────────────┬─────────────────┬──────────
//! │ type   │ code 0 │ checksum        │ identifier      │ sequence        │ payload, zeros
//! └────────┴────────┴─────────────────┴─────────────────┴─────────────────┴──────────
//! ```
//! Source: RFC 792 (type 8), RFC 4443 section 4.1 (type 128).
//!
//! Each request has an identifier of its own. Connection tracking takes the identifier for what ports are to UDP: requests
//! that share one are one connection, whose second request is `established` and meets other rules than a knock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const HEADER_LEN: usize = 8;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;

/// A socket that sends one echo request to one address.
///
/// A ping socket's identifier is the kernel's choice, one for each socket; sockets that are open side by side have different
/// ones. So there is a socket for each request, and it stays open until the last one has left.
#[derive(Debug)]
pub(crate) struct EchoSocket {
    socket: Socket,
    door: SocketAddr,
    /// What a raw socket sends. A ping socket puts its own in its place.
    identifier: u16,
}

/// Neither kind of socket may be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot send `icmp`: no ping socket ({ping}) and no raw socket ({raw}) for this user{}", remedy())]
pub(crate) struct OpenError {
    ping: io::Error,
    raw: io::Error,
}

impl EchoSocket {
    /// Opens a ping socket, which on Linux a sysctl gives to whole groups; or else a raw one, which needs a privilege.
    pub(crate) fn open(door: SocketAddr, identifier: u16) -> Result<Self, OpenError> {
        let protocol = if door.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let open = |kind| Socket::new(Domain::for_address(door), kind, Some(protocol));
        let socket = match open(Type::DGRAM) {
            Ok(socket) => socket,
            Err(ping) => open(Type::RAW).map_err(|raw| OpenError { ping, raw })?,
        };
        Ok(Self { socket, door, identifier })
    }

    /// Sends the echo request, with `payload_len` bytes behind its header.
    pub(crate) fn send(&self, payload_len: usize) -> io::Result<()> {
        let request = echo_request(self.door.is_ipv4(), self.identifier, 1, payload_len);
        // The port stays 0: for a raw IPv6 socket it would be a protocol number.
        self.socket.send_to(&request, &SockAddr::from(self.door))?;
        Ok(())
    }
}

/// Identifiers for the requests of one run: consecutive, from a random one. Two runs soon after one another would share
/// some if they began at the process id.
pub(crate) fn identifiers() -> impl Iterator<Item = u16> {
    let first = RandomState::new().build_hasher().finish() as u16;
    std::iter::successors(Some(first), |identifier| Some(identifier.wrapping_add(1)))
}

/// The bytes of an echo request. The checksum is that of ICMP; for ICMPv6 it covers addresses that only the kernel knows,
/// which therefore always fills it in (RFC 3542 section 3.1).
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
    // 65535 bytes are 32768 words at most: their sum fits 32 bits.
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

fn remedy() -> String {
    if !cfg!(target_os = "linux") {
        return "\n  run it as an administrator, or use a door without `icmp`".to_owned();
    }
    let program = std::env::current_exe().map_or_else(|_| "knocker".to_owned(), |path| path.display().to_string());
    format!(
        "\n  let everybody ping:     sudo sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"\
         \n  or this program alone:  sudo setcap cap_net_raw+ep {program}"
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
    fn an_odd_byte_counts_as_the_high_half() {
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
