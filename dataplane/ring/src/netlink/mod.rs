//! Queries to the kernel over netlink, and its notifications.
//!
//! [`Reader`] queries interfaces, addresses and default routes (rtnetlink). [`Changes`] reports that a change has
//! occurred. [`Features`] queries the XDP features of a driver (generic netlink). This file has requests, answers, and
//! the parsing of messages and attributes, which never reads beyond the end of the bytes.
//!
//! A notification only triggers a query. Its content is not read, so a notification that is lost, or that this code
//! does not recognise, cannot mislead. The listener also queries at intervals in any case. Sources: rtnetlink(7),
//! netlink(7), Linux `include/uapi/linux/if_link.h`, `Documentation/networking/ethtool-netlink.rst`.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::Socket;

mod changes;
mod features;
mod link;
mod routes;

pub use changes::Changes;
pub use features::{Features, XdpFeatures};
pub use link::{Link, LinkCounters, Reader};

/// Message types: `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The place of the interface's index in `struct ifinfomsg` and `struct ifaddrmsg`, in bytes.
const INDEX: usize = 4;

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Requests the description of a family of generic netlink, and returns its attributes.
fn ask_for_family(socket: &Socket, name: &str, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    const CONTROL: u16 = 0x10;
    const GET_FAMILY: u8 = 3;
    const FAMILY_NAME: u16 = 2;
    let name = [name.as_bytes(), b"\0"].concat();
    let request = [&[GET_FAMILY, 1, 0, 0][..], &attribute(FAMILY_NAME, &name)].concat();
    ask(socket, (CONTROL, 0, 1), &request, |_, message| take(message.get(4..).unwrap_or_default()))
}

/// An attribute, padded to its alignment.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&(4 + value.len() as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a request of a kind, with flags and a sequence number, and takes every message of its answer. The kernel
/// answers within the system call of the request, so there is no wait.
fn ask(
    socket: &Socket,
    (kind, flags, sequence): (u16, u16, u32),
    payload: &[u8],
    mut take: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let mut request = vec![0; 16 + payload.len()];
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(16 + payload.len() as u32);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | flags);
    header.set_sequence_number(sequence);
    request[16..].copy_from_slice(payload);
    socket.send(&request, 0)?;
    loop {
        let bytes = receive(socket)?;
        let mut answered = false;
        for (kind, message) in messages_to(&bytes, sequence) {
            answered = true;
            match kind {
                DONE => return Ok(()),
                ERROR => match word(message, 0).cast_signed() {
                    0 => return Ok(()),
                    error => return Err(io::Error::from_raw_os_error(-error)),
                },
                _ => take(kind, message),
            }
        }
        // The rest of an abandoned answer is skipped.
        if answered && flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// The next datagram. No answer of the kernel to the queries of this module is longer.
fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    const LONGEST: usize = 1 << 17;
    let mut bytes = Vec::with_capacity(LONGEST);
    let length = socket.recv(&mut bytes, libc::MSG_TRUNC)?;
    if length > bytes.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a netlink message of {length} bytes")));
    }
    Ok(bytes)
}

/// The messages of a datagram: kind and payload.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    numbered(bytes).map(|(_, kind, message)| (kind, message))
}

/// The messages of the datagram that answer the request with this sequence number.
fn messages_to(bytes: &[u8], sequence: u32) -> impl Iterator<Item = (u16, &[u8])> {
    numbered(bytes).filter(move |(number, ..)| *number == sequence).map(|(_, kind, message)| (kind, message))
}

/// Sequence number, kind and payload. Ends at the first malformed message.
fn numbered(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u16, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let found = (message.sequence_number(), message.message_type(), message.payload());
        let next = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
        Some(found)
    })
}

/// The attributes in these bytes: kind and value. Ends at the first malformed attribute.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, &attribute.into_inner()[4..length])
    })
}

/// The 32 bits at this place; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes).unwrap_or_default()
}

/// The 64 bits at this place; 0 beyond the end.
fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_any_bytes_are_read_to_their_end() {
        // Lengths that are too short, too long, or end within an attribute cause no read beyond the end.
        for length in 0..64_u8 {
            let bytes: Vec<u8> = (0..64).map(|at| if at % 8 == 0 { length } else { at }).collect();
            for end in 0..bytes.len() {
                let bytes = &bytes[..end];
                link::parse_link(bytes);
                link::parse_address(bytes);
                assert!(messages(bytes).count() <= bytes.len() && attributes(bytes).count() <= bytes.len());
            }
        }
    }
}
