//! `tls-host`: the parser of the server name in a TLS ClientHello, byte by byte.
//!
//! ```text
//! record     22, version, length │ handshake bytes …                                   RFC 8446, 5.1
//! handshake  1, length, version, random │ session │ cipher suites │ compression │ …    RFC 8446, 4.1.2
//! extension  … │ 0, length │ length of the list │ 0, length │ the name │ …             RFC 6066, 3
//! ```
//! Between segments, a connection keeps only the state of this parser and the state of the patterns that rules match
//! server names against. [`knockplane_policy::eval::tls`] defines which bytes are a server name.

use knockplane_policy::eval::tls::HELLO_LIMIT;
use knockplane_policy::packet::{Packet, TcpFlag};

use crate::state::layer7::{PatternError, PatternProgress, PatternSet, Patterns};

/// The state of knowledge about the server name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// The name is not known yet, or there is no name.
    #[default]
    Unknown,
    /// The name matches these patterns.
    Fits(PatternSet),
}

/// Compiles the server names that rules match, with `*` and `?`.
///
/// # Errors
/// As [`Patterns::compile`].
pub(crate) fn compile(globs: &[&str]) -> Result<Patterns, Vec<(usize, PatternError)>> {
    let regexps: Vec<String> = globs.iter().map(|glob| regexp(glob)).collect();
    Patterns::compile(&regexps.iter().map(String::as_str).collect::<Vec<_>>())
}

fn regexp(glob: &str) -> String {
    let part = |byte: u8| match byte {
        b'*' => ".*".to_owned(),
        b'?' => ".".to_owned(),
        byte => format!(r"\x{byte:02x}"),
    };
    format!("^{}$", glob.bytes().map(part).collect::<String>())
}

/// One direction of a TCP connection, as far as the parser of the server name reads it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerNameStream {
    /// The sequence number of the next byte; `None` before the first segment.
    next: Option<u32>,
    /// Bytes seen.
    seen: u16,
    hello: Hello,
}

impl ServerNameStream {
    /// A stream that ignores all further bytes.
    pub(crate) fn over() -> ServerNameStream {
        ServerNameStream {
            hello: Hello { record: RecordPosition::Foreign, ..Hello::default() },
            ..ServerNameStream::default()
        }
    }

    /// Adds a segment. Only bytes that are new and that continue the previous segment count.
    pub(crate) fn push(&mut self, packet: &Packet<'_>, names: &Patterns) {
        let (Some(flags), Some(sequence)) = (packet.tcp_flags(), packet.tcp_sequence()) else { return };
        // A SYN occupies one sequence number.
        let sequence = sequence.wrapping_add(u32::from(flags.contains(TcpFlag::Syn)));
        let next = *self.next.get_or_insert(sequence);
        let known = next.wrapping_sub(sequence) as usize;
        if let Some(new) = packet.payload.get(known..) {
            let room = HELLO_LIMIT - usize::from(self.seen);
            let looked_at = &new[..new.len().min(room)];
            self.hello.read(looked_at, names);
            self.seen += looked_at.len() as u16;
            self.next = Some(next.wrapping_add(new.len() as u32));
        }
    }

    pub(crate) fn server_name(&self) -> ServerName {
        self.hello.name
    }
}

/// The server name in the payload of a single packet.
pub(crate) fn server_name(payload: &[u8], names: &Patterns) -> ServerName {
    let mut hello = Hello::default();
    hello.read(payload, names);
    hello.name
}

/// The parser of a ClientHello, with the bytes so far.
#[derive(Clone, Copy, Debug, Default)]
struct Hello {
    record: RecordPosition,
    part: HandshakePart,
    /// Bytes of this part that are still missing. The part is a number or a part to skip.
    left: u32,
    /// The number that the parser is reading.
    number: u32,
    /// Missing bytes of the extension with the name, and of the list in it.
    extension: u16,
    list: u16,
    /// The state of the patterns after the bytes of the name so far.
    progress: PatternProgress,
    is_ascii: bool,
    found: Option<PatternSet>,
    name: ServerName,
}

/// The position in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordPosition {
    /// The number of header bytes that were read, and the length so far.
    Header(u8, u16),
    /// The number of content bytes that are still missing.
    Content(u16),
    /// The stream is not TLS.
    Foreign,
}

impl Default for RecordPosition {
    fn default() -> Self {
        RecordPosition::Header(0, 0)
    }
}

/// The next part of the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HandshakePart {
    #[default]
    Type,
    /// Length, version, random.
    Fixed,
    SessionLength,
    Session,
    CipherSuitesLength,
    CipherSuites,
    CompressionLength,
    Compression,
    ExtensionsLength,
    ExtensionType,
    ExtensionLength,
    /// The content of another extension.
    Extension,
    NameExtensionLength,
    ListLength,
    NameType,
    OtherNameLength,
    OtherName,
    NameLength,
    Name,
    /// The rest of the extension, after the name.
    BehindName,
    /// The name is known, or there is no name.
    End,
}

impl Hello {
    fn read(&mut self, bytes: &[u8], names: &Patterns) {
        let mut rest = bytes.iter();
        while self.part != HandshakePart::End && self.record != RecordPosition::Foreign {
            let Some(byte) = rest.next() else { return };
            self.frame(*byte, names);
        }
    }

    /// Parses a byte of a record.
    fn frame(&mut self, byte: u8, names: &Patterns) {
        const HANDSHAKE: u8 = 22;
        self.record = match self.record {
            RecordPosition::Header(0, _) if byte == HANDSHAKE => RecordPosition::Header(1, 0),
            RecordPosition::Header(1, _) if byte == 3 => RecordPosition::Header(2, 0),
            RecordPosition::Header(2, _) => RecordPosition::Header(3, 0),
            RecordPosition::Header(3, _) => RecordPosition::Header(4, u16::from(byte) << 8),
            RecordPosition::Header(4, length) => match length | u16::from(byte) {
                0 => RecordPosition::default(),
                length => RecordPosition::Content(length),
            },
            RecordPosition::Content(left) => {
                self.handshake(byte, names);
                if left > 1 { RecordPosition::Content(left - 1) } else { RecordPosition::default() }
            }
            RecordPosition::Header(..) | RecordPosition::Foreign => RecordPosition::Foreign,
        };
    }

    /// Parses a byte of the handshake.
    fn handshake(&mut self, byte: u8, names: &Patterns) {
        if self.part == HandshakePart::Type {
            const CLIENT_HELLO: u8 = 1;
            if byte == CLIENT_HELLO {
                self.expect(HandshakePart::Fixed, 3 + 2 + 32)
            } else {
                self.part = HandshakePart::End
            }
            return;
        }
        if self.part as u8 > HandshakePart::NameExtensionLength as u8 {
            self.extension -= 1;
        }
        if self.part as u8 > HandshakePart::ListLength as u8 && self.part != HandshakePart::BehindName {
            self.list -= 1;
        }
        self.number = self.number << 8 | u32::from(byte);
        if self.part == HandshakePart::Name {
            self.is_ascii &= byte.is_ascii();
            names.spell(&mut self.progress, byte);
        }
        self.left -= 1;
        if self.left == 0 {
            self.go_on(names);
        }
    }

    /// Continues after a complete part.
    fn go_on(&mut self, names: &Patterns) {
        let number = self.number;
        match self.part {
            HandshakePart::Type | HandshakePart::End => {}
            HandshakePart::Fixed => self.expect(HandshakePart::SessionLength, 1),
            HandshakePart::SessionLength => self.pass_over(HandshakePart::Session, number, names),
            HandshakePart::Session => self.expect(HandshakePart::CipherSuitesLength, 2),
            HandshakePart::CipherSuitesLength => self.pass_over(HandshakePart::CipherSuites, number, names),
            HandshakePart::CipherSuites => self.expect(HandshakePart::CompressionLength, 1),
            HandshakePart::CompressionLength => self.pass_over(HandshakePart::Compression, number, names),
            HandshakePart::Compression => self.expect(HandshakePart::ExtensionsLength, 2),
            HandshakePart::ExtensionsLength | HandshakePart::Extension => self.expect(HandshakePart::ExtensionType, 2),
            HandshakePart::ExtensionType if number == 0 => self.expect(HandshakePart::NameExtensionLength, 2),
            HandshakePart::ExtensionType => self.expect(HandshakePart::ExtensionLength, 2),
            HandshakePart::ExtensionLength => self.pass_over(HandshakePart::Extension, number, names),
            HandshakePart::NameExtensionLength => {
                self.extension = number as u16;
                self.within(self.extension, HandshakePart::ListLength, 2);
            }
            HandshakePart::ListLength => {
                self.list = number as u16;
                if self.list > self.extension {
                    self.part = HandshakePart::End
                } else {
                    self.within(self.list, HandshakePart::NameType, 1)
                }
            }
            HandshakePart::NameType if number == 0 => self.within(self.list, HandshakePart::NameLength, 2),
            HandshakePart::NameType => self.within(self.list, HandshakePart::OtherNameLength, 2),
            HandshakePart::OtherNameLength if number > u32::from(self.list) => self.part = HandshakePart::End,
            HandshakePart::OtherNameLength => self.pass_over(HandshakePart::OtherName, number, names),
            HandshakePart::OtherName => self.within(self.list, HandshakePart::NameType, 1),
            HandshakePart::NameLength if number > u32::from(self.list) => self.part = HandshakePart::End,
            HandshakePart::NameLength => {
                (self.progress, self.is_ascii) = (names.begin(), true);
                self.pass_over(HandshakePart::Name, number, names);
            }
            HandshakePart::Name => {
                self.found = self.is_ascii.then(|| names.spelt(&self.progress));
                // The whole extension must be present.
                self.pass_over(HandshakePart::BehindName, self.extension.into(), names);
            }
            HandshakePart::BehindName => {
                self.name = self.found.map_or(ServerName::Unknown, ServerName::Fits);
                self.part = HandshakePart::End;
            }
        }
    }

    /// Expects a part of this many bytes next.
    fn expect(&mut self, part: HandshakePart, bytes: u32) {
        (self.part, self.left, self.number) = (part, bytes, 0);
    }

    /// As `expect`, inside a part of `room` bytes. The handshake ends if `room` is too small.
    fn within(&mut self, room: u16, part: HandshakePart, bytes: u32) {
        if bytes > u32::from(room) { self.part = HandshakePart::End } else { self.expect(part, bytes) }
    }

    /// As `expect`, for a part that may be empty.
    fn pass_over(&mut self, part: HandshakePart, bytes: u32, names: &Patterns) {
        self.expect(part, bytes);
        if bytes == 0 {
            self.go_on(names);
        }
    }
}

#[cfg(test)]
mod tests;
