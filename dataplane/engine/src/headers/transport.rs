//! What is behind an IP header: which part of a datagram it is, and the TCP, UDP or ICMP header in front of it.
//!
//! Fragments are forwarded one by one, so each must be safe by itself: a first one holds the whole transport header,
//! and no later one can be laid over it. Hosts refuse fragments that overlap (RFC 5722; Linux does so for IPv4 too).

use etherparse::IpNumber;
use knockplane_policy::reason::Reason;

/// Which part of a datagram a packet holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    First,
    Later,
}

/// Where a fragment belongs in its datagram.
pub(super) struct Fragment {
    /// Bytes of the datagram before its data: what counts towards the 65,535 but is not fragmented.
    pub(super) before: usize,
    /// Offset of its data in bytes.
    pub(super) offset: usize,
    /// Whether more follow.
    pub(super) more: bool,
}

impl Fragment {
    /// Which part this is. `protocol` is the header that the datagram's data begins with.
    pub(super) fn part(&self, protocol: IpNumber, data: &[u8]) -> Result<Part, Reason> {
        if self.offset == 0 && !self.more {
            return Ok(Part::Whole);
        }
        let torn = self.more && !data.len().is_multiple_of(8);
        let too_far = self.before + self.offset + data.len() > usize::from(u16::MAX);
        // Laid over the flags of a TCP header. Source: RFC 1858, RFC 3128.
        let overlay = self.offset == 8 && protocol == IpNumber::TCP;
        if data.is_empty() || torn || too_far || overlay {
            return Err(Reason::FragmentMalformed);
        }
        Ok(if self.offset == 0 { Part::First } else { Part::Later })
    }
}

/// What rules ask of a transport header.
#[derive(Default)]
pub(super) struct Transport<'f> {
    pub(super) ports: Option<(u16, u16)>,
    pub(super) icmp: Option<(u8, u8)>,
    pub(super) payload: &'f [u8],
}

/// Reads the header of this protocol at the start of `data`, which is everything behind the IP header.
///
/// All in line: through a call, what is read would go through memory, as would what the caller still needs, which
/// costs some 20 instructions a packet.
#[inline(always)]
pub(super) fn read(protocol: IpNumber, data: &[u8], part: Part) -> Result<Transport<'_>, Reason> {
    match (part, protocol) {
        (Part::Later, _) => Ok(Transport::default()),
        (_, IpNumber::TCP) => tcp(data, part),
        (_, IpNumber::UDP) => udp(data, part),
        (_, IpNumber::ICMP | IpNumber::IPV6_ICMP) => icmp(data, part),
        _ => Ok(Transport { payload: data, ..Transport::default() }),
    }
}

/// Why a header that is not all there is refused.
fn cut_short(part: Part, whole: Reason) -> Reason {
    if part == Part::First { Reason::FragmentMalformed } else { whole }
}

/// RFC 9293: ports, …, data offset in the upper half of byte 12, in 32-bit words.
#[inline(always)]
fn tcp(data: &[u8], part: Part) -> Result<Transport<'_>, Reason> {
    let header = data.first_chunk::<20>().ok_or(cut_short(part, Reason::TransportTruncated))?;
    let length = usize::from(header[12] >> 4) * 4;
    if length < header.len() {
        return Err(Reason::TransportMalformed);
    }
    let payload = data.get(length..).ok_or(cut_short(part, Reason::TransportMalformed))?;
    Ok(Transport { ports: Some(ports(header)), icmp: None, payload })
}

/// RFC 768: ports, length of header and payload, checksum. A length of 0 would be a jumbogram, which is refused with
/// the other lengths below 8.
#[inline(always)]
fn udp(data: &[u8], part: Part) -> Result<Transport<'_>, Reason> {
    let header = data.first_chunk::<8>().ok_or(cut_short(part, Reason::TransportTruncated))?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // The length is the datagram's, of which a first fragment holds only the beginning.
    let end = if part == Part::First { length.min(data.len()) } else { length };
    let payload = data.get(header.len()..end).ok_or(Reason::TransportMalformed)?;
    Ok(Transport { ports: Some(ports(header)), icmp: None, payload })
}

/// RFC 792 and RFC 4443: type, code, checksum, and four bytes whose meaning depends on the type.
fn icmp(data: &[u8], part: Part) -> Result<Transport<'_>, Reason> {
    let (header, payload) = data.split_first_chunk::<8>().ok_or(cut_short(part, Reason::TransportTruncated))?;
    Ok(Transport { ports: None, icmp: Some((header[0], header[1])), payload })
}

/// Source and destination port, where TCP and UDP both have them.
fn ports<const N: usize>(header: &[u8; N]) -> (u16, u16) {
    (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
}
