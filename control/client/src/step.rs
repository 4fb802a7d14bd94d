//! One step of a knock: the meaning of a STEP argument.
//!
//! ```text
//! STEP       = PORT [":" PROTOCOL] ["=" PASSPHRASE]  |  "icmp" ["=" SIZE]
//! PORT       = 1 to 65535, or a service name
//! PROTOCOL   = "tcp" | "udp"
//! PASSPHRASE = one byte or more, any; only with UDP
//! SIZE       = bytes of the whole IP packet
//! ```
//! The first `=` ends the port and protocol, so that a passphrase may contain `:` and `=`. A step is parsed as bytes, because
//! a passphrase need not be UTF-8.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use crate::services::{self, Services};
use crate::transport::Transport;

/// Payload of a UDP step without a passphrase: one zero byte. Source: the packets of `knock` 0.8.
pub(crate) const KNOCK_PAYLOAD: [u8; 1] = [0];

/// Payload bytes of an echo request without a size: the default of `ping`.
const ECHO_PAYLOAD_LEN: usize = 56;
/// Bytes of an ICMP or ICMPv6 echo header. Source: RFC 792, RFC 4443 section 4.1.
const ECHO_HEADER_LEN: usize = 8;
/// Bytes of an IPv4 header without options, and of an IPv6 header. Source: RFC 791, RFC 8200.
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
/// Bytes that fit in one UDP datagram over IPv4: 65535 minus the IP and UDP headers.
pub(crate) const MAX_PASSPHRASE_LEN: usize = 65535 - 20 - 8;

/// A step of a knock: everything needed to send it except the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KnockStep {
    /// One SYN.
    Tcp { port: u16 },
    /// One datagram of `payload`.
    Udp { port: u16, payload: Vec<u8> },
    /// One echo request whose IP packet has `packet_len` bytes.
    Echo { packet_len: Option<u16> },
}

/// An argument is not a valid step. Shows the argument with a mark under the invalid part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepError {
    /// The argument without its passphrase, which must not appear in a log.
    shown: String,
    /// The invalid part, in characters of `shown`.
    at: Range<usize>,
    pub(crate) problem: StepSyntaxError,
}

/// The error in a step. `expected` and `example` return the correct form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StepSyntaxError {
    #[error("the step is empty")]
    Empty,
    #[error("the port is missing")]
    NoPort,
    #[error("`{0}` is not a port")]
    BadPort(String),
    #[error("unknown service name `{name}`")]
    UnknownService { name: String, instead: Option<String> },
    #[error("the protocol is missing after `:`")]
    NoProtocol,
    #[error("unknown protocol `{word}`")]
    UnknownProtocol { word: String, instead: Option<&'static str> },
    #[error("a TCP step cannot carry a passphrase: it is one SYN, and data needs a connection first")]
    TcpPassphrase { port: String },
    #[error("the passphrase is empty")]
    EmptyPassphrase { port: String },
    #[error("the passphrase has {0} bytes, more than fit in a datagram")]
    LongPassphrase(usize),
    #[error("`icmp` takes neither a port nor a protocol")]
    EchoWithProtocol,
    #[error("`{0}` is not a packet size")]
    BadSize(String),
    #[error("an echo request cannot have {0} bytes")]
    SmallSize(u16),
}

impl KnockStep {
    /// Parses one argument. `unnamed` is the transport of a step that names none.
    pub(crate) fn parse(argument: &[u8], unnamed: Transport, services: &Services) -> Result<KnockStep, StepError> {
        let (head, value) = split_once(argument, b'=');
        let text = printable(head);
        let fault = |at: Range<usize>, problem| Err(StepError::new(&text, value, at, problem));
        let head_len = text.chars().count();

        if head.is_empty() {
            let problem = if value.is_none() { StepSyntaxError::Empty } else { StepSyntaxError::NoPort };
            return fault(0..1, problem);
        }
        if text == "icmp" {
            return match value.map(parse_size).transpose() {
                Ok(packet_len) => Ok(KnockStep::Echo { packet_len }),
                Err(problem) => fault(head_len + 1..usize::MAX, problem),
            };
        }

        let (name, word) = match text.split_once(':') {
            Some((name, word)) => (name, Some(word)),
            None => (text.as_str(), None),
        };
        let name_len = name.chars().count();
        if name == "icmp" {
            return fault(name_len..head_len, StepSyntaxError::EchoWithProtocol);
        }
        let transport = match word.map(parse_transport).transpose() {
            Ok(transport) => transport.unwrap_or(unnamed),
            Err(problem) => return fault(name_len + 1..head_len.max(name_len + 2), problem),
        };
        let port = match parse_port(name, transport, services) {
            Ok(port) => port,
            Err(problem) => return fault(0..name_len.max(1), problem),
        };

        match (transport, value) {
            (Transport::Tcp, None) => Ok(KnockStep::Tcp { port }),
            (Transport::Tcp, Some(_)) => {
                fault(head_len..head_len + 2, StepSyntaxError::TcpPassphrase { port: name.to_owned() })
            }
            (Transport::Udp, None) => Ok(KnockStep::Udp { port, payload: KNOCK_PAYLOAD.to_vec() }),
            (Transport::Udp, Some([])) => {
                fault(head_len..head_len + 1, StepSyntaxError::EmptyPassphrase { port: name.to_owned() })
            }
            (Transport::Udp, Some(passphrase)) if passphrase.len() > MAX_PASSPHRASE_LEN => {
                fault(head_len + 1..head_len + 2, StepSyntaxError::LongPassphrase(passphrase.len()))
            }
            (Transport::Udp, Some(passphrase)) => Ok(KnockStep::Udp { port, payload: passphrase.to_vec() }),
        }
    }

    /// A short description of the packet of the step to `door`, without the passphrase.
    pub(crate) fn describe(&self, door: SocketAddr) -> String {
        match self {
            KnockStep::Tcp { port } => format!("tcp {port}, a SYN"),
            KnockStep::Udp { port, payload } if *payload == KNOCK_PAYLOAD => {
                format!("udp {port}, a datagram of one zero byte")
            }
            KnockStep::Udp { port, payload } => format!("udp {port}, a passphrase of {} bytes", payload.len()),
            KnockStep::Echo { packet_len } => {
                let packet_len = packet_len.map_or(echo_overhead_len(door) + ECHO_PAYLOAD_LEN, usize::from);
                format!("icmp, an echo request in an IP packet of {packet_len} bytes")
            }
        }
    }
}

/// Payload bytes of an echo request to `door` whose IP packet has `packet_len` bytes; `None` if that is less than its headers.
pub(crate) fn echo_payload_len(packet_len: Option<u16>, door: SocketAddr) -> Option<usize> {
    match packet_len {
        None => Some(ECHO_PAYLOAD_LEN),
        Some(packet_len) => usize::from(packet_len).checked_sub(echo_overhead_len(door)),
    }
}

/// Header bytes of an echo request to `door`: the size of the smallest one.
pub(crate) fn echo_overhead_len(door: SocketAddr) -> usize {
    ECHO_HEADER_LEN + if door.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
}

/// Parses a port: a number, or the name of a service of `transport`.
pub(crate) fn parse_port(text: &str, transport: Transport, services: &Services) -> Result<u16, StepSyntaxError> {
    if text.is_empty() {
        return Err(StepSyntaxError::NoPort);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|&port| port != 0).ok_or_else(|| StepSyntaxError::BadPort(text.to_owned()));
    }
    services
        .port(text, transport)
        .ok_or_else(|| StepSyntaxError::UnknownService { name: text.to_owned(), instead: instead_of_service(text) })
}

fn parse_transport(word: &str) -> Result<Transport, StepSyntaxError> {
    if word.is_empty() {
        return Err(StepSyntaxError::NoProtocol);
    }
    Transport::from_word(word).ok_or_else(|| StepSyntaxError::UnknownProtocol {
        word: word.to_owned(),
        instead: Transport::ALL.into_iter().map(Transport::word).find(|known| is_slip(word, known)),
    })
}

fn parse_size(text: &[u8]) -> Result<u16, StepSyntaxError> {
    let text = printable(text);
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let size: u16 =
        digits.then(|| text.parse().ok()).flatten().ok_or_else(|| StepSyntaxError::BadSize(text.clone()))?;
    // The larger minimum of IPv6 is checked once the address is known.
    if usize::from(size) < IPV4_HEADER_LEN + ECHO_HEADER_LEN { Err(StepSyntaxError::SmallSize(size)) } else { Ok(size) }
}

/// A suggestion for `text` in the place of a port.
fn instead_of_service(text: &str) -> Option<String> {
    if is_slip(text, "icmp") {
        return Some("icmp".to_owned());
    }
    // The syntax of a door's steps in the configuration file, and the separator of knockd.
    if let Some((word, port)) = text.split_once('/') {
        return Transport::from_word(word).map(|transport| format!("{port}:{}", transport.word()));
    }
    text.contains(',').then(|| text.replace(',', " "))
}

/// Whether `typed` is `known` except for case and one typing error.
fn is_slip(typed: &str, known: &str) -> bool {
    strsim::osa_distance(&typed.to_lowercase(), known) <= 1
}

/// The part before the first `separator`, and the part behind it if there is one.
fn split_once(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == separator) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// `bytes` as text without control characters, so that a mark under it stays in its column.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character })
        .collect()
}

impl StepSyntaxError {
    /// The valid form in this place.
    pub(crate) fn expected(&self) -> String {
        match self {
            StepSyntaxError::Empty | StepSyntaxError::NoPort | StepSyntaxError::BadPort(_) => {
                "expected a port from 1 to 65535, a service name, or `icmp`".to_owned()
            }
            StepSyntaxError::UnknownService { instead: Some(instead), .. } => format!("did you mean `{instead}`?"),
            StepSyntaxError::UnknownService { .. } => {
                format!("not in {}: write the port as a number", services::path().display())
            }
            StepSyntaxError::NoProtocol | StepSyntaxError::UnknownProtocol { instead: None, .. } => {
                "expected `tcp` or `udp`".to_owned()
            }
            StepSyntaxError::UnknownProtocol { instead: Some(instead), .. } => {
                format!("expected `tcp` or `udp`; did you mean `{instead}`?")
            }
            StepSyntaxError::TcpPassphrase { .. } => "send a passphrase over UDP, or leave it out".to_owned(),
            StepSyntaxError::EmptyPassphrase { .. } => {
                "expected at least one byte, or --passphrase-stdin; without the `=`, one zero byte is sent".to_owned()
            }
            StepSyntaxError::LongPassphrase(_) => format!("expected at most {MAX_PASSPHRASE_LEN} bytes"),
            StepSyntaxError::EchoWithProtocol => "expected nothing, or `=` and the packet's size".to_owned(),
            StepSyntaxError::BadSize(_) => {
                "expected the bytes of the whole IP packet: 28 to 65535 over IPv4, 48 to 65535 over IPv6".to_owned()
            }
            StepSyntaxError::SmallSize(_) => {
                "the minimum is 28 over IPv4 (headers of 20 + 8 bytes), 48 over IPv6 (40 + 8)".to_owned()
            }
        }
    }

    /// A valid step, as similar as possible to the argument.
    pub(crate) fn example(&self) -> String {
        match self {
            StepSyntaxError::TcpPassphrase { port } | StepSyntaxError::EmptyPassphrase { port } => {
                format!("{port}:udp=passphrase")
            }
            StepSyntaxError::LongPassphrase(_) => "4321:udp=passphrase".to_owned(),
            StepSyntaxError::NoProtocol | StepSyntaxError::UnknownProtocol { .. } => "4321:udp".to_owned(),
            StepSyntaxError::EchoWithProtocol | StepSyntaxError::BadSize(_) | StepSyntaxError::SmallSize(_) => {
                "icmp=128".to_owned()
            }
            StepSyntaxError::UnknownService { instead: Some(instead), .. } => instead.clone(),
            _ => "1234:tcp".to_owned(),
        }
    }
}

impl StepError {
    /// `at` may extend beyond the end of the argument; it is cut there, to at least one column.
    fn new(head: &str, value: Option<&[u8]>, at: Range<usize>, problem: StepSyntaxError) -> Self {
        let shown = match value {
            None => head.to_owned(),
            Some(size) if head == "icmp" => format!("{head}={}", printable(size)),
            Some([]) => format!("{head}="),
            Some(_) => format!("{head}=…"),
        };
        let end = at.end.min(shown.chars().count()).max(at.start + 1);
        Self { shown, at: at.start..end, problem }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.at.start;
        writeln!(f, "{}", self.problem)?;
        writeln!(f, "    {}", self.shown)?;
        writeln!(f, "    {:column$}{} {}", "", "^".repeat(self.at.len()), self.problem.expected())?;
        write!(f, "    example: {}", self.problem.example())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(argument: &[u8]) -> Result<KnockStep, StepError> {
        let services = Services::from_text("ssh 22/tcp\ndomain 53/tcp\ndomain 53/udp\n");
        KnockStep::parse(argument, Transport::Tcp, &services)
    }

    fn udp(port: u16, payload: &[u8]) -> KnockStep {
        KnockStep::Udp { port, payload: payload.to_vec() }
    }

    #[test]
    fn each_form() {
        let steps: [(&[u8], KnockStep); 11] = [
            (b"1234", KnockStep::Tcp { port: 1234 }),
            (b"1234:tcp", KnockStep::Tcp { port: 1234 }),
            (b"65535", KnockStep::Tcp { port: 65535 }),
            (b"ssh", KnockStep::Tcp { port: 22 }),
            (b"domain:udp", udp(53, &[0])),
            (b"4321:udp", udp(4321, &[0])),
            (b"4321:udp=open sesame", udp(4321, b"open sesame")),
            (b"4321:udp=a=b:c", udp(4321, b"a=b:c")),
            (b"4321:udp=\xff\n", udp(4321, b"\xff\n")),
            (b"icmp", KnockStep::Echo { packet_len: None }),
            (b"icmp=28", KnockStep::Echo { packet_len: Some(28) }),
        ];
        for (argument, step) in steps {
            assert_eq!(parse(argument), Ok(step), "{}", printable(argument));
        }
    }

    #[test]
    fn a_step_without_protocol_takes_the_default() {
        let parse = |argument: &[u8]| KnockStep::parse(argument, Transport::Udp, &Services::from_text("")).unwrap();
        assert_eq!(parse(b"1234"), udp(1234, &[0]));
        assert_eq!(parse(b"1234=word"), udp(1234, b"word"));
        assert_eq!(parse(b"1234:tcp"), KnockStep::Tcp { port: 1234 });
        assert_eq!(parse(b"icmp"), KnockStep::Echo { packet_len: None });
    }

    /// Argument, marked columns, and part of the message.
    #[test]
    fn each_error_marks_the_invalid_part() {
        let faults: [(&[u8], Range<usize>, &str); 20] = [
            (b"", 0..1, "is empty"),
            (b"=x", 0..1, "port is missing"),
            (b":udp", 0..1, "port is missing"),
            (b"0", 0..1, "1 to 65535"),
            (b"70000:udp", 0..5, "1 to 65535"),
            (b"nosuch", 0..6, "unknown service name `nosuch`"),
            (b"+22", 0..3, "unknown service name"),
            (b"icpm", 0..4, "did you mean `icmp`?"),
            (b"tcp/1234", 0..8, "did you mean `1234:tcp`?"),
            (b"7000,8000", 0..9, "did you mean `7000 8000`?"),
            (b"1234:", 5..6, "protocol is missing"),
            (b"1234:upd", 5..8, "did you mean `udp`?"),
            (b"1234:TCP", 5..8, "did you mean `tcp`?"),
            (b"1234:udp:tcp", 5..12, "unknown protocol `udp:tcp`"),
            (b"4321:tcp=text", 8..10, "example: 4321:udp=passphrase"),
            (b"4321=text", 4..6, "example: 4321:udp=passphrase"),
            (b"4321:udp=", 8..9, "passphrase is empty"),
            (b"icmp:8", 4..6, "neither a port nor a protocol"),
            (b"icmp=70000", 5..10, "`70000` is not a packet size"),
            (b"icmp=27", 5..7, "minimum is 28 over IPv4"),
        ];
        for (argument, at, text) in faults {
            let error = parse(argument).unwrap_err();
            assert_eq!(error.at, at, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn the_mark_is_under_the_invalid_part() {
        let text = parse("12é4:upd".as_bytes()).unwrap_err().to_string();
        assert!(text.contains("\n    12é4:upd\n         ^^^ expected"), "{text}");
    }

    #[test]
    fn a_passphrase_is_never_shown() {
        for argument in [&b"4321:tcp=secret"[..], b"4321:upd=secret", b"nosuch:udp=secret", b"=secret"] {
            let text = parse(argument).unwrap_err().to_string();
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_passphrase_fits_a_datagram() {
        let longest = [b"1:udp=".to_vec(), vec![b'x'; MAX_PASSPHRASE_LEN]].concat();
        assert!(parse(&longest).is_ok());
        let longer = [longest, vec![b'x']].concat();
        assert_eq!(parse(&longer).unwrap_err().problem, StepSyntaxError::LongPassphrase(MAX_PASSPHRASE_LEN + 1));
    }

    #[test]
    fn echo_sizes_count_the_ip_packet() {
        let v4 = "192.0.2.1:0".parse().unwrap();
        let v6 = "[2001:db8::1]:0".parse().unwrap();
        assert_eq!(echo_payload_len(None, v4), Some(56));
        assert_eq!(echo_payload_len(Some(28), v4), Some(0));
        assert_eq!(echo_payload_len(Some(128), v4), Some(100));
        assert_eq!(echo_payload_len(Some(128), v6), Some(80));
        assert_eq!(echo_payload_len(Some(47), v6), None);
        assert!(KnockStep::Echo { packet_len: None }.describe(v4).contains("84 bytes"));
        assert!(KnockStep::Echo { packet_len: None }.describe(v6).contains("104 bytes"));
    }

    fn written(step: &KnockStep) -> Vec<u8> {
        match step {
            KnockStep::Tcp { port } => format!("{port}:tcp").into_bytes(),
            KnockStep::Udp { port, payload } => [format!("{port}:udp=").as_bytes(), payload].concat(),
            KnockStep::Echo { packet_len: None } => b"icmp".to_vec(),
            KnockStep::Echo { packet_len: Some(len) } => format!("icmp={len}").into_bytes(),
        }
    }

    fn any_step() -> impl Strategy<Value = KnockStep> {
        prop_oneof![
            (1..=u16::MAX).prop_map(|port| KnockStep::Tcp { port }),
            (1..=u16::MAX, prop::collection::vec(any::<u8>(), 1..64))
                .prop_map(|(port, payload)| KnockStep::Udp { port, payload }),
            prop::option::of(28..=u16::MAX).prop_map(|packet_len| KnockStep::Echo { packet_len }),
        ]
    }

    /// Bytes that are similar to steps: random bytes would rarely get past the port.
    fn near_step() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec!["icmp", "tcp", "udp", ":", "=", "1", "65536", "ssh", "é", ",", "/"])
                .prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_written_step_parses_as_it_was(step in any_step()) {
            prop_assert_eq!(parse(&written(&step)), Ok(step));
        }

        #[test]
        fn any_argument_is_a_step_or_an_error_with_a_mark(argument in near_step()) {
            match parse(&argument) {
                Ok(KnockStep::Tcp { port }) => prop_assert!(port > 0 && !argument.contains(&b'=')),
                Ok(KnockStep::Udp { port, payload }) => {
                    prop_assert!(port > 0 && !payload.is_empty());
                    prop_assert!(payload == KNOCK_PAYLOAD || argument.ends_with(&payload));
                }
                Ok(KnockStep::Echo { packet_len }) => prop_assert!(packet_len.is_none_or(|len| len >= 28)),
                Err(error) => {
                    let columns = error.shown.chars().count();
                    prop_assert!(!error.at.is_empty() && error.at.start <= columns && error.at.end <= columns + 1);
                    prop_assert_eq!(error.to_string().lines().count(), 4);
                }
            }
        }
    }
}
