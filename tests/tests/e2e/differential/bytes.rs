//! Frames built byte by byte, with headers that no library builds.
//!
//! ```text
//! Ethernet | IPv4, options or IPv6, extension headers | TCP, UDP, ICMP or nothing | filling | mark, number
//! ```
//! The last eight bytes are the frame's number, wherever they are found: the kernel may reassemble fragments.

use std::net::IpAddr;

use crate::end::LOCAL_EXPERIMENT;

const MARK: [u8; 4] = *b"KPJ!";

/// Fields of the IP header and the Ethernet header.
#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) source_mac: [u8; 6],
    pub(super) destination_mac: [u8; 6],
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// For IPv4: a multiple of four bytes.
    pub(super) options: Vec<u8>,
    /// For IPv6: the number of each, and the contents after its first two bytes.
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    /// For IPv4: identification, and offset with flags.
    pub(super) fragment: (u16, u16),
}

/// The bytes after the IP header.
#[derive(Clone)]
pub(super) enum Inner {
    Tcp {
        ports: (u16, u16),
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        window: u16,
        mss: Option<u16>,
        /// The window scale.
        scale: Option<u8>,
    },
    Udp {
        ports: (u16, u16),
    },
    /// Type, code and the four bytes after the checksum.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        quoted: Vec<u8>,
    },
    /// Only bytes.
    Other(u8),
}

impl Inner {
    pub(super) fn protocol(&self, is_ipv4: bool) -> u8 {
        match self {
            Inner::Tcp { .. } => 6,
            Inner::Udp { .. } => 17,
            Inner::Icmp { .. } => [58, 1][usize::from(is_ipv4)],
            Inner::Other(number) => *number,
        }
    }

    /// The header with a checksum of zero, and the position of that.
    fn header(&self) -> (Vec<u8>, Option<usize>) {
        match self {
            Inner::Tcp { ports, flags, sequence, acknowledgement, window, mss, scale } => {
                let length = 20 + 4 * (u8::from(mss.is_some()) + u8::from(scale.is_some()));
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend([sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat());
                bytes.extend([(length / 4) << 4, *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(mss.iter().flat_map(|mss| [2, 4, (mss >> 8) as u8, *mss as u8]));
                bytes.extend(scale.iter().flat_map(|scale| [1, 3, 3, *scale]));
                (bytes, Some(16))
            }
            Inner::Udp { ports } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend([0; 4]);
                (bytes, Some(6))
            }
            Inner::Icmp { kind, code, rest, quoted } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(rest);
                bytes.extend(quoted);
                (bytes, Some(2))
            }
            Inner::Other(_) => (vec![], None),
        }
    }
}

/// The whole frame, with this much padding before its number.
pub(super) fn frame(envelope: &Envelope, inner: &Inner, filling: usize, number: u32) -> Vec<u8> {
    let payload = [vec![b'.'; filling], marked(number)].concat();
    let protocol = inner.protocol(envelope.source.is_ipv4());
    ethernet(envelope, &packet(envelope, protocol, &transport(envelope, inner, &payload)))
}

/// The bytes of a frame's number.
pub(super) fn marked(number: u32) -> Vec<u8> {
    [MARK, number.to_be_bytes()].concat()
}

/// The frame around an IP packet.
pub(super) fn ethernet(envelope: &Envelope, packet: &[u8]) -> Vec<u8> {
    let ethertype = if envelope.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&envelope.destination_mac[..], &envelope.source_mac, &ethertype, packet].concat()
}

/// The IP packet with its payload unchanged.
pub(super) fn packet(envelope: &Envelope, protocol: u8, transport: &[u8]) -> Vec<u8> {
    match (envelope.source, envelope.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = 20 + envelope.options.len();
            let total = ((length + transport.len()) as u16).to_be_bytes();
            let (id, part) = (envelope.fragment.0.to_be_bytes(), envelope.fragment.1.to_be_bytes());
            let mut header = vec![0x40 | (length / 4) as u8, envelope.tos, total[0], total[1]];
            header.extend([id[0], id[1], part[0], part[1], envelope.ttl, protocol, 0, 0]);
            header.extend([source.octets(), destination.octets()].concat());
            header.extend(&envelope.options);
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            [header, transport.to_vec()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (mut next, mut rest) = (protocol, transport.to_vec());
            for (number, data) in envelope.extensions.iter().rev() {
                let length = ((data.len() + 2) / 8 - 1) as u8;
                rest = [&[next, length], &data[..], &rest].concat();
                next = *number;
            }
            let length = (rest.len() as u16).to_be_bytes();
            let tos = envelope.tos;
            let header = [0x60 | tos >> 4, tos << 4, 0, 0, length[0], length[1], next, envelope.ttl];
            [&header[..], &source.octets(), &destination.octets(), &rest].concat()
        }
        _ => panic!("addresses of two families"),
    }
}

/// The bytes after the IP header, with their checksum.
pub(super) fn transport(envelope: &Envelope, inner: &Inner, payload: &[u8]) -> Vec<u8> {
    let (mut bytes, checked) = inner.header();
    bytes.extend(payload);
    let length = bytes.len() as u32;
    if let Inner::Udp { .. } = inner {
        bytes[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    }
    let pseudo = match (envelope.source, envelope.destination, inner) {
        // ICMP for IPv4 covers no addresses.
        (IpAddr::V4(_), _, Inner::Icmp { .. }) => vec![],
        (IpAddr::V4(source), IpAddr::V4(destination), _) => {
            let length = length.to_be_bytes();
            [&source.octets()[..], &destination.octets(), &[0, inner.protocol(true)], &length[2..]].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination), _) => {
            let last = [0, 0, 0, inner.protocol(false)];
            [&source.octets()[..], &destination.octets(), &length.to_be_bytes(), &last].concat()
        }
        _ => panic!("addresses of two families"),
    };
    if let Some(at) = checked {
        let sum = checksum(&[&pseudo, &bytes]);
        bytes[at..at + 2].copy_from_slice(&sum);
    }
    bytes
}

/// A frame that is not answered and that both filters forward: when it arrives, all earlier ones are decided.
pub(super) fn end_mark(source_mac: [u8; 6], destination_mac: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = [&destination_mac[..], &source_mac, &LOCAL_EXPERIMENT].concat();
    frame.extend(marked(number));
    frame.resize(60, 0);
    frame
}

/// The numbers of the frames that these bytes contain.
pub(super) fn numbers(frame: &[u8]) -> impl Iterator<Item = u32> {
    let marked = frame.windows(8).filter(|bytes| bytes[..4] == MARK);
    marked.map(|bytes| u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
}

/// Source: RFC 1071. All but the last part must have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u64::from(*byte))).sum::<u64>();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}
