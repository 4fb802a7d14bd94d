//! A packet in a line of text, and the frame that it describes.
//!
//! ```text
//! tcp 198.51.100.7:4000 > 203.0.113.5:22 syn
//! udp 198.51.100.7 > 203.0.113.5:1234 payload "open \x53esame" in ether1
//! icmp 8:0 2001:db8::7 > 2001:db8::1 ttl 3
//! tcp 10.0.0.7 > 10.0.0.5:22 vlan 10/20
//! ```
//!
//! A description names the differences from an ordinary packet. This module builds a real frame from it, and the
//! engine's own reader reads that frame: an explained packet is one that can arrive on the wire.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the grammar, word by word |
//! | `words.rs`   | words with their places, and their errors |
//! | `build.rs`   | from fields to a frame |
//! | `summary.rs` | from a packet back to a line |

mod build;
mod summary;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

use knockplane_policy::packet::{Family, MacAddress, TcpFlag, Vlan, protocol};
use knockplane_policy::rule::protocol_number;
use knockplane_policy::word::{Set, Word as _};

use self::build::Fields;
pub(crate) use self::summary::summary;
pub(crate) use self::words::PacketSyntaxError;
use self::words::{PacketWord, Words};

/// Every word that may follow the addresses, for the remedy in error messages. TCP flags are listed separately.
const KEYWORDS: [&str; 13] =
    ["icmp", "length", "payload", "ttl", "tos", "dscp", "mss", "mac", "vlan", "pppoe", "priority", "fragment", "in"];

/// The source port of packets without one: the first ephemeral port (RFC 6335, 6).
const CLIENT_PORT: u16 = 49152;

/// The packet that a line describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The frame, from the Ethernet destination on.
    pub(crate) frame: Vec<u8>,
    /// The interface that the packet arrives on, if the line names one.
    pub(crate) interface: Option<String>,
}

/// Builds the packet that a line describes.
///
/// # Errors
/// The error in the line, and its place.
pub(crate) fn describe(text: &str) -> Result<Described, PacketSyntaxError> {
    let mut reader = PacketReader { words: Words::of(text)?, flags: None, length: None };
    let (fields, interface) = reader.line().map_err(|error| error.about(text))?;
    let length = reader.length;
    let frame = build::frame(&fields, length.as_ref().map(|(length, _)| *length)).map_err(|message| {
        let at = length.map_or(0..text.len(), |(_, at)| at);
        PacketSyntaxError::new(at, message).about(text)
    })?;
    Ok(Described { frame, interface })
}

struct PacketReader<'t> {
    words: Words<'t>,
    /// The TCP flags named so far; `None` if the line has named none.
    flags: Option<Set<TcpFlag>>,
    length: Option<(u16, Range<usize>)>,
}

impl<'t> PacketReader<'t> {
    fn line(&mut self) -> Result<(Fields, Option<String>), PacketSyntaxError> {
        let protocol = self.protocol()?;
        let mut icmp = None;
        if let protocol::ICMP | protocol::ICMPV6 = protocol {
            icmp = self.words.peek().and_then(|word| kind_and_code(word.text));
            icmp.and_then(|_| self.words.next());
        }
        let (source, source_port) = self.endpoint(protocol, "the source")?;
        let arrow = self.words.expect("`>` and the destination, as `> 203.0.113.5:22`")?;
        if arrow.text != ">" {
            return Err(arrow.complain("expected `>` between the source and the destination"));
        }
        let before = self.words.peek();
        let (destination, destination_port) = self.endpoint(protocol, "the destination")?;
        let place = before.map_or(0..0, |word| word.at);
        if Family::of(source) != Family::of(destination) {
            return Err(PacketSyntaxError::new(place, "one address is IPv4, the other IPv6".to_owned()));
        }
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP);
        let ports = match (has_ports, destination_port) {
            (false, _) => None,
            (true, Some(port)) => Some((source_port.unwrap_or(CLIENT_PORT), port)),
            (true, None) => {
                let example = SocketAddr::new(destination, 22);
                return Err(PacketSyntaxError::new(place, format!("the destination has no port: write `{example}`")));
            }
        };
        let mut fields = Fields::new(protocol, source, destination);
        fields.ports = ports;
        fields.icmp = icmp.unwrap_or(fields.icmp);
        let interface = self.rest(&mut fields)?;
        fields.flags = self.flags.unwrap_or(fields.flags);
        Ok((fields, interface))
    }

    fn protocol(&mut self) -> Result<u8, PacketSyntaxError> {
        let word = self.words.expect("a protocol: tcp, udp, icmp, icmpv6, or another name or number")?;
        protocol_number(word.text).ok_or_else(|| {
            word.complain("expected a protocol: tcp, udp, icmp, icmpv6, or another name or number of rules")
        })
    }

    /// An address, with an optional port.
    fn endpoint(&mut self, protocol: u8, whose: &str) -> Result<(IpAddr, Option<u16>), PacketSyntaxError> {
        let word = self.words.expect(&format!("{whose}: an address, perhaps with a port"))?;
        let (address, port) = match (SocketAddr::from_str(word.text), IpAddr::from_str(word.text)) {
            (Ok(socket), _) => (socket.ip(), Some(socket.port())),
            (_, Ok(address)) => (address, None),
            _ => {
                let example = "`198.51.100.7`, `198.51.100.7:4000` or `[2001:db8::7]:4000`";
                return Err(word.complain(&format!("expected {whose}: {example}")));
            }
        };
        if port.is_some() && !matches!(protocol, protocol::TCP | protocol::UDP) {
            return Err(word.complain("only tcp and udp have ports"));
        }
        Ok((address, port))
    }

    /// Reads the words behind the addresses, in any order.
    fn rest(&mut self, fields: &mut Fields) -> Result<Option<String>, PacketSyntaxError> {
        let mut interface = None;
        while let Some(word) = self.words.next() {
            match word.text {
                "icmp" => {
                    let value = self.words.expect("type and code, as `icmp 8:0`")?;
                    fields.icmp = kind_and_code(value.text)
                        .ok_or_else(|| value.complain("expected type and code, each up to 255, as `8:0`"))?;
                }
                "length" => {
                    let (length, at) = self.number::<u16>("bytes of the IP packet, up to 65535")?;
                    self.length = Some((length, at));
                }
                "payload" => {
                    let value = self.words.expect("the payload in quotes, as `payload \"open sesame\"`")?;
                    fields.payload = words::unquote(&value)?;
                }
                "ttl" => fields.ttl = self.number("hops, up to 255")?.0,
                "tos" => fields.tos = self.number("type of service, up to 255")?.0,
                "dscp" => {
                    let (dscp, at) = self.number::<u8>("a code point, up to 63")?;
                    if dscp > 63 {
                        return Err(PacketSyntaxError::new(at, "a DSCP is at most 63".to_owned()));
                    }
                    fields.tos = dscp << 2;
                }
                "mss" => fields.mss = Some(self.number("bytes, up to 65535")?.0),
                "mac" => {
                    let value = self.words.expect("the source's Ethernet address, as `mac 00:11:22:AA:BB:CC`")?;
                    fields.mac = MacAddress::from_str(value.text)
                        .map_err(|_| value.complain("expected an Ethernet address, as `00:11:22:AA:BB:CC`"))?;
                }
                "vlan" => {
                    let value = self.words.expect("a VLAN, as `vlan 10`, or two, as `vlan 10/20`")?;
                    let tags = value.text.parse::<Vlan>().map_err(|problem| value.complain(problem))?;
                    fields.vlan = tags.in_session(fields.vlan.session().unwrap_or_default());
                }
                "pppoe" => {
                    let (session, at) = self.number::<u16>("a PPPoE session, from 1 to 65534")?;
                    if matches!(session, 0 | u16::MAX) {
                        return Err(PacketSyntaxError::new(
                            at,
                            "a PPPoE session is a number from 1 to 65534".to_owned(),
                        ));
                    }
                    fields.vlan = fields.vlan.in_session(session);
                }
                "priority" => {
                    let (priority, at) = self.number::<u8>("a VLAN priority, up to 7")?;
                    if priority > 7 {
                        return Err(PacketSyntaxError::new(at, "a VLAN tag's priority is at most 7".to_owned()));
                    }
                    fields.priority = Some(priority);
                }
                "fragment" => fields.fragment = true,
                "in" => interface = Some(self.words.expect("a side or an interface, as `in outside`")?.text.to_owned()),
                _ => self.flag(&word, fields.protocol)?,
            }
        }
        Ok(interface)
    }

    /// A TCP flag, or the word `none`.
    fn flag(&mut self, word: &PacketWord<'t>, protocol: u8) -> Result<(), PacketSyntaxError> {
        let flag = match word.text {
            "none" => None,
            text => Some(TcpFlag::from_name(text).ok_or_else(|| unknown(word))?),
        };
        if protocol != protocol::TCP {
            return Err(word.complain("only tcp has flags"));
        }
        let flags = self.flags.get_or_insert(Set::EMPTY);
        flag.into_iter().for_each(|flag| flags.insert(flag));
        Ok(())
    }

    fn number<T: FromStr>(&mut self, what: &str) -> Result<(T, Range<usize>), PacketSyntaxError> {
        let word = self.words.expect(what)?;
        match word.text.parse() {
            Ok(number) => Ok((number, word.at)),
            Err(_) => Err(word.complain(&format!("expected {what}"))),
        }
    }
}

/// Parses `8:0` or `8`.
fn kind_and_code(text: &str) -> Option<(u8, u8)> {
    let (kind, code) = text.split_once(':').unwrap_or((text, "0"));
    Some((kind.parse().ok()?, code.parse().ok()?))
}

fn unknown(word: &PacketWord<'_>) -> PacketSyntaxError {
    let flags = TcpFlag::ALL.iter().map(|flag| flag.name());
    let known: Vec<_> = KEYWORDS.into_iter().chain(flags).chain(["none"]).collect();
    let similar = known.iter().map(|known| (strsim::damerau_levenshtein(word.text, known), known)).min();
    match similar {
        Some((distance, known)) if distance <= 2 && distance < known.len() => {
            word.complain(&format!("there is no such word: did you mean `{known}`?"))
        }
        _ => word.complain(&format!("there is no such word; the words are {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests;
