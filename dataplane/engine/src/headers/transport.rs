//! The data behind an IP header: its part of a datagram, and the TCP, UDP or ICMP header at its start.
//!
//! The dataplane forwards each fragment separately, so each fragment must be safe alone: a first fragment contains the
//! whole transport header, and no later fragment can overlap this header. Hosts refuse fragments that overlap (RFC
//! 5722; Linux does so for IPv4 too).

use etherparse::IpNumber;
use knockplane_policy::reason::Reason;

/// The part of a datagram that a packet contains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DatagramPart {
    Whole,
    First,
    Later,
}

/// The position of a fragment in its datagram.
pub(super) struct Fragment {
    /// The bytes of the datagram before its data. They count towards the limit of 65,535 but are not fragmented.
    pub(super) before: usize,
    /// The offset of its data in bytes.
    pub(super) offset: usize,
    /// Whether more fragments follow.
    pub(super) more: bool,
}

impl Fragment {
    /// The part of the datagram. `protocol` is the first header in the datagram's data.
    pub(super) fn part(&self, protocol: IpNumber, data: &[u8]) -> Result<DatagramPart, Reason> {
        if self.offset == 0 && !self.more {
            return Ok(DatagramPart::Whole);
        }
        let torn = self.more && !data.len().is_multiple_of(8);
        let too_far = self.before + self.offset + data.len() > usize::from(u16::MAX);
        // The fragment overlaps the flags of a TCP header. Source: RFC 1858, RFC 3128.
        let overlay = self.offset == 8 && protocol == IpNumber::TCP;
        if data.is_empty() || torn || too_far || overlay {
            return Err(Reason::FragmentMalformed);
        }
        Ok(if self.offset == 0 { DatagramPart::First } else { DatagramPart::Later })
    }
}

/// The fields of a transport header that rules use.
#[derive(Default)]
pub(super) struct TransportHeader<'f> {
    pub(super) ports: Option<(u16, u16)>,
    pub(super) icmp: Option<(u8, u8)>,
    pub(super) payload: &'f [u8],
}

/// Reads the header of this protocol at the start of `data`, which contains all bytes behind the IP header.
///
/// Always inlined: with a call, the result and the values that the caller still needs would go through memory. That
/// costs some 20 instructions for each packet.
#[inline(always)]
pub(super) fn read(protocol: IpNumber, data: &[u8], part: DatagramPart) -> Result<TransportHeader<'_>, Reason> {
    match (part, protocol) {
        (DatagramPart::Later, _) => Ok(TransportHeader::default()),
        (_, IpNumber::TCP) => tcp(data, part),
        (_, IpNumber::UDP) => udp(data, part),
        (_, IpNumber::ICMP | IpNumber::IPV6_ICMP) => icmp(data, part),
        _ => Ok(TransportHeader { payload: data, ..TransportHeader::default() }),
    }
}

/// The reason for a header that is not complete.
fn cut_short(part: DatagramPart, whole: Reason) -> Reason {
    if part == DatagramPart::First { Reason::FragmentMalformed } else { whole }
}

/// RFC 9293: ports, …, data offset in the upper half of byte 12, in 32-bit words.
#[inline(always)]
fn tcp(data: &[u8], part: DatagramPart) -> Result<TransportHeader<'_>, Reason> {
    let header = data.first_chunk::<20>().ok_or(cut_short(part, Reason::TransportTruncated))?;
    let length = usize::from(header[12] >> 4) * 4;
    if length < header.len() {
        return Err(Reason::TransportMalformed);
    }
    let payload = data.get(length..).ok_or(cut_short(part, Reason::TransportMalformed))?;
    Ok(TransportHeader { ports: Some(ports(header)), icmp: None, payload })
}

/// RFC 768: ports, length of header and payload, checksum. A length of 0 would be a jumbogram. The reader refuses it
/// like the other lengths below 8.
#[inline(always)]
fn udp(data: &[u8], part: DatagramPart) -> Result<TransportHeader<'_>, Reason> {
    let header = data.first_chunk::<8>().ok_or(cut_short(part, Reason::TransportTruncated))?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // The length is that of the datagram. A first fragment contains only its beginning.
    let end = if part == DatagramPart::First { length.min(data.len()) } else { length };
    let payload = data.get(header.len()..end).ok_or(Reason::TransportMalformed)?;
    Ok(TransportHeader { ports: Some(ports(header)), icmp: None, payload })
}

/// RFC 792 and RFC 4443: type, code, checksum, and four bytes whose meaning depends on the type.
fn icmp(data: &[u8], part: DatagramPart) -> Result<TransportHeader<'_>, Reason> {
    let (header, payload) = data.split_first_chunk::<8>().ok_or(cut_short(part, Reason::TransportTruncated))?;
    Ok(TransportHeader { ports: None, icmp: Some((header[0], header[1])), payload })
}

/// The source port and the destination port, at the offsets that TCP and UDP share.
fn ports<const N: usize>(header: &[u8; N]) -> (u16, u16) {
    (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
}
