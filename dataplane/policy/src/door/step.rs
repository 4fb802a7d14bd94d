//! A step of a knock: its text form, and the packets that match it.
//!
//! | text                       | matches |
//! |----------------------------|----|
//! | `tcp/7000`                 | any TCP packet to the port |
//! | `tcp/7000 syn,!ack`        | a TCP packet with these flags, and without those marked `!`, as in `tcp-flags` |
//! | `udp/4321`                 | any UDP packet to the port |
//! | `udp/4321 "open sesame"`   | a UDP packet with exactly this payload, apart from one line end; `\"` and `\\` stand for `"` and `\` |
//! | `icmp`                     | an echo request |
//! | `icmp size=128`            | an echo request of this many bytes, with its IP header |
//!
//! A later fragment matches no step.

use std::fmt;
use std::str::FromStr;

use crate::packet::{Family, Packet, TcpFlag, protocol};
use crate::word::{Set, Word};

/// One packet of a knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnockStep {
    /// A TCP packet.
    Tcp {
        /// The destination port.
        port: u16,
        /// Flags that must be set.
        set: Set<TcpFlag>,
        /// Flags that must be clear.
        clear: Set<TcpFlag>,
    },
    /// A UDP packet.
    Udp {
        /// The destination port.
        port: u16,
        /// The payload.
        passphrase: Option<String>,
    },
    /// An echo request of the packet's family.
    Icmp {
        /// Bytes of the IP packet.
        size: Option<u16>,
    },
}

/// Maximum length of a passphrase in bytes: it must fit into one packet that no network fragments.
const LONGEST_PASSPHRASE: usize = 512;

/// The length of an echo request without data over IPv4, whose header is shorter than that of IPv6. A shorter packet is
/// no echo request.
const SHORTEST_ECHO: u16 = 28;

impl KnockStep {
    /// Whether the packet matches the step.
    pub fn is(&self, packet: &Packet<'_>) -> bool {
        let is_to = |number, port| packet.protocol == number && packet.ports.is_some_and(|ports| ports.1 == port);
        match self {
            KnockStep::Tcp { port, set, clear } => {
                let has = |flags: Set<TcpFlag>| set.is_subset(flags) && !clear.intersects(flags);
                is_to(protocol::TCP, *port)
                    && (set.is_empty() && clear.is_empty() || packet.tcp_flags().is_some_and(has))
            }
            KnockStep::Udp { port, passphrase } => {
                is_to(protocol::UDP, *port)
                    && passphrase.as_ref().is_none_or(|text| line(packet.payload) == text.as_bytes())
            }
            KnockStep::Icmp { size } => {
                let echo = match packet.family() {
                    Family::Ipv4 => (protocol::ICMP, 8),
                    Family::Ipv6 => (protocol::ICMPV6, 128),
                };
                packet.icmp.is_some_and(|(kind, _)| (packet.protocol, kind) == echo)
                    && size.is_none_or(|size| packet.ip_length == u32::from(size))
            }
        }
    }

    /// Whether a source must know more than a number to send the step.
    pub const fn is_secret(&self) -> bool {
        matches!(self, KnockStep::Udp { passphrase: Some(_), .. })
    }

    /// Replaces the passphrase, if there is one, by a text with this number.
    pub fn hide_passphrase(&mut self, number: usize) {
        if let KnockStep::Udp { passphrase: Some(text), .. } = self {
            *text = format!("hidden-{number}");
        }
    }

    /// The text form without the passphrase, for output that may be shared.
    pub fn without_passphrase(&self) -> String {
        match self {
            KnockStep::Udp { port, passphrase: Some(_) } => format!("udp/{port} with its passphrase"),
            other => other.to_string(),
        }
    }

    /// The port of the step, if it has one.
    pub const fn port(&self) -> Option<u16> {
        match self {
            KnockStep::Tcp { port, .. } | KnockStep::Udp { port, .. } => Some(*port),
            KnockStep::Icmp { .. } => None,
        }
    }
}

/// Removes one line end, because programs that send a typed line append one.
fn line(payload: &[u8]) -> &[u8] {
    let text = payload.strip_suffix(b"\n").unwrap_or(payload);
    if text.len() == payload.len() { text } else { text.strip_suffix(b"\r").unwrap_or(text) }
}

impl fmt::Display for KnockStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KnockStep::Tcp { port, set, clear } => {
                write!(f, "tcp/{port}")?;
                let set = set.iter().map(|flag| flag.name().to_owned());
                let flags: Vec<_> = set.chain(clear.iter().map(|flag| format!("!{}", flag.name()))).collect();
                if flags.is_empty() { Ok(()) } else { write!(f, " {}", flags.join(",")) }
            }
            KnockStep::Udp { port, passphrase: None } => write!(f, "udp/{port}"),
            KnockStep::Udp { port, passphrase: Some(text) } => {
                write!(f, "udp/{port} \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
            KnockStep::Icmp { size: None } => f.write_str("icmp"),
            KnockStep::Icmp { size: Some(size) } => write!(f, "icmp size={size}"),
        }
    }
}

impl FromStr for KnockStep {
    type Err = String;

    fn from_str(text: &str) -> Result<KnockStep, String> {
        let (what, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        match what.split_once('/') {
            Some(("tcp", port)) => tcp(self::port(port)?, rest),
            Some(("udp", port)) => Ok(KnockStep::Udp { port: self::port(port)?, passphrase: passphrase(rest)? }),
            None if what == "icmp" => Ok(KnockStep::Icmp { size: size(rest)? }),
            _ => Err(format!(
                "`{what}` is not a step; write `tcp/1234`, `tcp/7000 syn`, `udp/4321 \"open sesame\"` or `icmp size=128`"
            )),
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or_else(|| {
        format!("`{text}` is not a port; a step is one packet to one port, from 1 to 65535, such as `tcp/1234`")
    })
}

fn tcp(port: u16, flags: &str) -> Result<KnockStep, String> {
    if flags.starts_with('"') {
        return Err(format!(
            "a passphrase cannot come with TCP: what comes first is a SYN, which carries no payload; write `udp/{port} \
             {flags}`"
        ));
    }
    let (mut set, mut clear) = (Set::EMPTY, Set::EMPTY);
    for word in flags.split([' ', ',']).filter(|word| !word.is_empty()) {
        let (flags, name) = match word.strip_prefix('!') {
            Some(name) => (&mut clear, name),
            None => (&mut set, word),
        };
        let Some(flag) = TcpFlag::from_name(name) else {
            let known: Vec<_> = TcpFlag::ALL.iter().map(|flag| flag.name()).collect();
            return Err(format!(
                "`{name}` is not a TCP flag; write some of {}, each perhaps with `!`",
                known.join(", ")
            ));
        };
        flags.insert(flag);
    }
    if set.intersects(clear) {
        return Err(format!("`{flags}` asks for a flag that is both set and not; write `syn,!ack`, for example"));
    }
    Ok(KnockStep::Tcp { port, set, clear })
}

/// Parses a passphrase in quotes, with the escapes `\"` and `\\`.
fn passphrase(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |why: &str| {
        Err(format!(
            "{why}; write a passphrase in quotes, such as `udp/4321 \"open sesame\"`, with `\\\"` and `\\\\` in it"
        ))
    };
    let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return wrong("the text after the port is not a passphrase");
    };
    let (mut said, mut chars) = (String::new(), quoted.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some(char @ ('"' | '\\')) => said.push(char),
                _ => return wrong("`\\` stands before a character other than `\"` or `\\`"),
            },
            '"' => return wrong("there is a `\"` in the middle of the passphrase"),
            char if char.is_control() => return wrong("there is a control character in the passphrase"),
            char => said.push(char),
        }
    }
    match said.len() {
        0 => wrong("the passphrase is empty"),
        length if length > LONGEST_PASSPHRASE => wrong("the passphrase is longer than 512 bytes"),
        _ => Ok(Some(said)),
    }
}

fn size(text: &str) -> Result<Option<u16>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let size = text.strip_prefix("size=").filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
    let size = size.and_then(|size| size.parse().ok()).filter(|size| *size >= SHORTEST_ECHO);
    size.map(Some).ok_or_else(|| {
        format!("`{text}` is not the size of a ping; write the bytes of the whole IP packet, at least 28, such as `icmp size=128`")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cases::cases;
    use crate::packet::Side;

    fn packet(protocol: u8, port: u16, payload: &'static [u8]) -> Packet<'static> {
        let (source, destination) = ([192, 0, 2, 1].into(), [203, 0, 113, 1].into());
        Packet { ports: Some((40_000, port)), payload, ..Packet::bare(Side::Outside, source, destination, protocol) }
    }

    fn step(text: &str) -> KnockStep {
        text.parse().unwrap()
    }

    #[test]
    fn steps_read_as_they_are_written() {
        for text in ["tcp/1", "tcp/7000 syn,!ack", "udp/65535", r#"udp/4321 "a \"b\" \\ c""#, "icmp", "icmp size=128"] {
            assert_eq!(step(text).to_string(), text);
        }
        assert_eq!(step("  tcp/7000   !ack   syn "), step("tcp/7000 syn,!ack"));
    }

    #[test]
    fn a_text_that_is_not_a_step_is_refused_with_the_remedy() {
        let cases = [
            ("", "`` is not a step; write `tcp/1234`"),
            ("sctp/7", "`sctp/7` is not a step"),
            ("TCP/7", "`TCP/7` is not a step"),
            ("tcp", "`tcp` is not a step"),
            ("icmp/8", "`icmp/8` is not a step"),
            ("tcp/0", "`0` is not a port"),
            ("tcp/65536", "`65536` is not a port"),
            ("tcp/+7", "`+7` is not a port"),
            ("tcp/7000-7010", "`7000-7010` is not a port; a step is one packet to one port"),
            ("tcp/7 sin", "`sin` is not a TCP flag; write some of fin, syn"),
            ("tcp/7 syn,!syn", "both set and not"),
            ("tcp/7 \"a\"", "a SYN, which carries no payload; write `udp/7 \"a\"`"),
            ("udp/7 a", "the text after the port is not a passphrase"),
            ("udp/7 \"a", "the text after the port is not a passphrase"),
            ("udp/7 \"", "the text after the port is not a passphrase"),
            ("udp/7 \"\"", "the passphrase is empty"),
            ("udp/7 \"a\\n\"", "`\\` stands before a character other"),
            ("udp/7 \"a\\\"", "`\\` stands before a character other"),
            ("udp/7 \"a\"b\"", "in the middle"),
            ("udp/7 \"a\nb\"", "a control character"),
            ("icmp size=27", "is not the size of a ping"),
            ("icmp size=+128", "is not the size of a ping"),
            ("icmp 128", "is not the size of a ping"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<KnockStep>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(format!("udp/7 \"{}\"", "a".repeat(513)).parse::<KnockStep>().is_err());
    }

    proptest! {
        #![proptest_config(cases(500))]

        #[test]
        fn any_passphrase_reads_as_it_is_written(port in 1_u16.., text in "[^\\p{Cc}]{1,100}") {
            let step = KnockStep::Udp { port, passphrase: Some(text) };
            prop_assert_eq!(step.to_string().parse(), Ok(step));
        }

        #[test]
        fn any_text_is_a_step_or_refused(text in "(tcp/|udp/|icmp ?)?[0-9]{0,5}( ?[!-~ ]{0,12})?") {
            if let Ok(step) = text.parse::<KnockStep>() {
                prop_assert_eq!(step.to_string().parse(), Ok(step));
            }
        }
    }

    #[test]
    fn a_passphrase_is_the_whole_payload_but_for_one_end_of_line() {
        let step = step(r#"udp/7 "sesame""#);
        for payload in [&b"sesame"[..], b"sesame\n", b"sesame\r\n"] {
            assert!(step.is(&packet(protocol::UDP, 7, payload)), "{payload:?}");
        }
        for payload in [&b""[..], b"sesam", b"sesame ", b"sesame\r", b"sesame\n\n", b"Sesame", b"\nsesame"] {
            assert!(!step.is(&packet(protocol::UDP, 7, payload)), "{payload:?}");
        }
        assert!(!step.is(&packet(protocol::UDP, 8, b"sesame")) && !step.is(&packet(protocol::TCP, 7, b"sesame")));
    }

    #[test]
    fn a_ping_is_an_echo_request_of_its_family_and_size() {
        let ping = |number, kind, ip_length| {
            let bare = packet(number, 0, b"");
            let bare = Packet { ports: None, icmp: Some((kind, 0)), ip_length, ..bare };
            match number {
                protocol::ICMPV6 => Packet { source: "2001:db8::1".parse().unwrap(), ..bare },
                _ => bare,
            }
        };
        let (any, sized) = (step("icmp"), step("icmp size=128"));
        assert!(any.is(&ping(protocol::ICMP, 8, 84)) && any.is(&ping(protocol::ICMPV6, 128, 104)));
        assert!(sized.is(&ping(protocol::ICMP, 8, 128)) && !sized.is(&ping(protocol::ICMP, 8, 129)));
        for (number, kind) in [(protocol::ICMP, 0), (protocol::ICMP, 128), (protocol::ICMPV6, 8), (protocol::TCP, 8)] {
            assert!(!any.is(&ping(number, kind, 84)), "{number} {kind}");
        }
    }
}
