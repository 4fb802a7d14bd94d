//! `tls-host`: the server name that a TLS client requests.

use super::rule_evaluation::RuleEvaluation;
use super::tracking::{End, FlowKey};
use crate::packet::{Packet, TcpFlag, protocol};

/// Maximum number of bytes of a TCP stream that are stored to find a ClientHello. ClientHellos of present browsers have
/// about 2,000 bytes, including post-quantum keys. A smaller limit would miss names at their end. A larger one would
/// cost memory for each connection.
pub const HELLO_LIMIT: usize = 4096;

/// The beginning of one direction of a TCP connection. Retransmitted or overlapping segments add only new bytes.
/// Segments after a gap are ignored, so a ClientHello in reordered segments is found when they are retransmitted.
#[derive(Debug, Default)]
pub(super) struct Stream {
    bytes: Vec<u8>,
    /// The sequence number of the next byte; `None` before the first segment.
    next: Option<u32>,
}

impl Stream {
    pub(super) fn push(&mut self, packet: &Packet<'_>) {
        let (Some(flags), Some(sequence)) = (packet.tcp_flags(), packet.tcp_sequence()) else { return };
        // A SYN occupies one sequence number.
        let sequence = sequence.wrapping_add(u32::from(flags.contains(TcpFlag::Syn)));
        let next = *self.next.get_or_insert(sequence);
        let known = next.wrapping_sub(sequence) as usize;
        if let Some(new) = packet.payload.get(known..) {
            let room = HELLO_LIMIT - self.bytes.len();
            self.bytes.extend(&new[..new.len().min(room)]);
            self.next = Some(next.wrapping_add(new.len() as u32));
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl RuleEvaluation<'_, '_> {
    /// The server name that is known when this packet arrives: from the sender's stream on this connection, or
    /// otherwise from this packet alone. So the packet that completes a ClientHello and later packets of its sender
    /// have the name. Earlier packets and packets of the server do not.
    pub(super) fn server_name(&self) -> Option<String> {
        if self.packet.protocol != protocol::TCP {
            return None;
        }
        let own: Option<(FlowKey, End)> = self.seen.and_then(|seen| Some((seen.flow?, seen.source?)));
        match own.and_then(|(key, source)| Some((self.evaluator.tracker.flow(&key, self.now)?, source))) {
            Some((flow, source)) => server_name(flow.stream_of(source)),
            None => server_name(self.packet.payload),
        }
    }
}

/// The server name in a TLS ClientHello, in lower case, if these are the first bytes of the client's stream and contain
/// it.
///
/// Source: RFC 8446, 4.1.2 and 5.1, for the ClientHello and its records; RFC 6066, 3, for the name.
pub fn server_name(bytes: &[u8]) -> Option<String> {
    let said = handshake(bytes);
    let mut hello = Reader(&said);
    if hello.number(1)? != 1 {
        return None;
    }
    let _length = hello.number(3)?;
    let _version_and_random = hello.take(2 + 32)?;
    let _session = hello.vector(1)?;
    let _cipher_suites = hello.vector(2)?;
    let _compression = hello.vector(1)?;
    let _extensions_length = hello.number(2)?;
    // The loop ignores the ClientHello's length, because the name may arrive before the end of the ClientHello.
    loop {
        let (kind, content) = (hello.number(2)?, hello.vector(2)?);
        if kind == 0 {
            let mut names = Reader(Reader(content).vector(2)?);
            while names.number(1)? != 0 {
                names.vector(2)?;
            }
            let name = names.vector(2)?;
            return name.is_ascii().then(|| String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
}

/// The contents of the handshake records at the beginning.
fn handshake(bytes: &[u8]) -> Vec<u8> {
    const HANDSHAKE: u8 = 22;
    let mut said = Vec::new();
    let mut rest = bytes;
    while let [HANDSHAKE, 3, _, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (record, next) = behind.split_at(length);
        said.extend(record);
        rest = next;
    }
    said
}

/// A reader of bytes, from the first to the last.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    /// A number of this many bytes.
    fn number(&mut self, length: usize) -> Option<usize> {
        Some(self.take(length)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes preceded by their length, which has this many bytes.
    fn vector(&mut self, length: usize) -> Option<&'b [u8]> {
        let length = self.number(length)?;
        self.take(length)
    }
}

/// Whether a name matches a pattern: `*` matches any text, which may be empty, and `?` matches one character. Case is
/// ignored. Source: RouterOS manual, Filter, `tls-host`.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // The beginnings of the name that match the pattern so far.
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for part in pattern {
        let mut longer = vec![false; name.len() + 1];
        for length in 0..=name.len() {
            longer[length] = match part {
                b'*' => fits[length] || length > 0 && longer[length - 1],
                b'?' => length > 0 && fits[length - 1],
                byte => length > 0 && fits[length - 1] && name[length - 1] == *byte,
            };
        }
        fits = longer;
    }
    fits[name.len()]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ClientHello in one record, with an extension before the name.
    pub(in crate::eval) fn client_hello(name: &str) -> Vec<u8> {
        let sized = |size: usize, bytes: &[u8]| {
            let length = (bytes.len() as u32).to_be_bytes();
            [&length[4 - size..], bytes].concat()
        };
        let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
        let extensions =
            [&[0, 43][..], &sized(2, &[2, 3, 4]), &[0, 0], &sized(2, &sized(2, &entry)), &[0, 21, 0, 0]].concat();
        let hello =
            [&[3, 3][..], &[7; 32], &sized(1, &[9; 32]), &sized(2, &[0x13, 1]), &[1, 0], &sized(2, &extensions)];
        let handshake = [&[1][..], &sized(3, &hello.concat())].concat();
        [&[22, 3, 1][..], &sized(2, &handshake)].concat()
    }

    #[test]
    fn the_name_is_found_in_one_record_or_several_and_before_the_end() {
        let hello = client_hello("WWW.Example.com");
        assert_eq!(server_name(&hello).as_deref(), Some("www.example.com"));
        assert_eq!(server_name(&hello[..hello.len() - 4]).as_deref(), Some("www.example.com"));
        assert_eq!(server_name(&hello[..hello.len() - 5]), None);
        let (one, other) = hello[5..].split_at(20);
        let record = |bytes: &[u8]| [&[22, 3, 1, 0, bytes.len() as u8][..], bytes].concat();
        assert_eq!(server_name(&[record(one), record(other)].concat()).as_deref(), Some("www.example.com"));
    }

    #[test]
    fn bytes_that_are_not_a_hello_have_no_name() {
        let hello = client_hello("example.com");
        for place in [0, 1, 5] {
            let mut other = hello.clone();
            other[place] ^= 0x40;
            assert_eq!(server_name(&other), None, "byte {place}");
        }
        assert_eq!(server_name(b""), None);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), None);
        for length in 0..hello.len() {
            let _ = server_name(&hello[..length]);
        }
    }

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for pattern in ["*.example.com", "WWW.*", "*", "w?w.ex*e.com", "www.example.com", "**m", "*e*e*"] {
            assert!(fits(pattern, "www.Example.com"), "{pattern}");
        }
        for pattern in ["example.com", "*.example.com?", "", "www.example.com.*", "?.example.com", "www[.]example.com"]
        {
            assert!(!fits(pattern, "www.example.com"), "{pattern}");
        }
        assert!(fits("", "") && fits("*", "") && !fits("?", ""));
    }
}
