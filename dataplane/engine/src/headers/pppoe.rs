//! PPP over Ethernet (RFC 2516).
//!
//! ```text
//! 0              1      2          4        6          8
//! +--------------+------+----------+--------+----------+--------------+--------
//! | version 1,   | code | session  | length | protocol | what PPP     | padding
//! | type 1: 0x11 |      |          |        | of PPP   | carries      |
//! +--------------+------+----------+--------+----------+--------------+--------
//!                                           <---- length bytes ------>
//! ```
//! In a session (ethertype 0x8864, code 0), IPv4 and IPv6 are packets in the same way as outside a session. PPP's
//! control protocols, which a session needs, and discovery (ethertype 0x8863) are a class of frames. The reader refuses
//! all other PPP protocols: compressed or encrypted payloads could contain IP packets that rules have not evaluated.

use etherparse::EtherType;
use knockplane_policy::reason::Reason;

use super::PPPOE_LENGTH;

/// The number of header bytes that `length` does not count.
const HEADER: usize = 6;

const VERSION_AND_TYPE: u8 = 0x11;

/// The codes of discovery: PADO, PADI, PADR, PADS, PADT. Source: RFC 2516, 5.
const DISCOVERY_CODES: [u8; 5] = [0x07, 0x09, 0x19, 0x65, 0xa7];

/// PPP protocol numbers. Source: IANA, PPP DLL Protocol Numbers.
mod protocol {
    pub(super) const IPV4: u16 = 0x0021;
    pub(super) const IPV6: u16 = 0x0057;
    /// The first number of network control protocols. Link control and authentication begin at 0xc000 (RFC 1661, 2).
    pub(super) const CONTROL: u16 = 0x8000;
}

/// The ethertype that corresponds to the packet in a session, and the bytes of the packet.
///
/// # Errors
/// [`Reason::Pppoe`] for PPP's control protocols; otherwise the reason for a malformed or unreadable frame.
pub(super) fn session(payload: &[u8]) -> Result<(EtherType, &[u8]), Reason> {
    let header = payload.first_chunk::<PPPOE_LENGTH>().ok_or(Reason::PppoeMalformed)?;
    let [version_and_type, code, s0, s1, ..] = *header;
    // Discovery uses session 0, and 0xffff is reserved (RFC 2516, 4).
    let is_session = code == 0 && !matches!([s0, s1], [0, 0] | [0xff, 0xff]);
    if version_and_type != VERSION_AND_TYPE || !is_session {
        return Err(Reason::PppoeMalformed);
    }
    let data = payload.get(PPPOE_LENGTH..HEADER + length(header)).ok_or(Reason::PppoeMalformed)?;
    match u16::from_be_bytes([header[6], header[7]]) {
        protocol::IPV4 => Ok((EtherType::IPV4, data)),
        protocol::IPV6 => Ok((EtherType::IPV6, data)),
        // The first byte of a number is even, the second odd. An odd first byte is a complete compressed number, which
        // PPPoE advises against (RFC 1661, 2 and 6.5; RFC 2516, 7).
        number if number & 0x0100 != 0 => Err(Reason::PppUnreadable),
        number if number & 1 == 0 => Err(Reason::PppoeMalformed),
        protocol::CONTROL.. => Err(Reason::Pppoe),
        _ => Err(Reason::PppUnreadable),
    }
}

/// The reason of a discovery frame's class, or the reason for a malformed frame. The reader does not check the content
/// of tags.
#[cold]
pub(super) fn discovery(payload: &[u8]) -> Reason {
    let Some(header) = payload.first_chunk::<HEADER>() else { return Reason::PppoeMalformed };
    let is_discovery = header[0] == VERSION_AND_TYPE && DISCOVERY_CODES.contains(&header[1]);
    let fits = HEADER + length(header) <= payload.len();
    if is_discovery && fits { Reason::Pppoe } else { Reason::PppoeMalformed }
}

/// The number of bytes behind the six bytes of the header.
fn length(header: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([header[4], header[5]]))
}
