//! The sent packets: interleaved conversations, some in order and some malformed.
//!
//! Each set of rules has its own addresses, `10.K.0.x` outside and `10.K.1.x` inside (`fd00:K::x`, `fd00:K:1::x`), so
//! that no state is shared between sets.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Side;

use super::bytes::{self, Envelope, Inner};
use super::tcp::{self, ACK, FIN, PSH, RST, SYN, Tcp, URG};
use crate::random::Random;

/// Hosts on each side.
const HOSTS: usize = 4;
/// Conversations of one set; no two are between the same hosts.
const CONVERSATIONS: usize = HOSTS * HOSTS;
/// The ports: those of the rules, and others.
pub(super) const PORTS: &[u16] = &[22, 53, 80, 443, 1234, 4321, 8080, 40_000];

/// A frame to send.
pub(super) struct Shot {
    pub(super) number: u32,
    pub(super) from: Side,
    /// Its conversation.
    pub(super) conversation: usize,
    pub(super) frame: Vec<u8>,
    /// The description.
    pub(super) says: String,
}

/// Two ends and the state of their conversation.
struct Conversation {
    /// The originator, then the responder.
    ends: [(Side, usize); 2],
    is_ipv4: bool,
    dialog: Dialog,
}

enum Dialog {
    Tcp(Tcp),
    Udp { ports: (u16, u16) },
    Echo { id: u16 },
    Other(u8),
}

/// The purpose of a set's frames.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// The set's number.
    pub(super) set: u8,
    /// The first frame's number.
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) tcp: tcp::Variations,
}

/// A set's frames, in an order that alternates between the sides.
pub(super) fn shots(random: &mut Random, plan: Plan) -> Vec<Shot> {
    let Plan { first, count, .. } = plan;
    let mut conversations: Vec<Conversation> = (0..CONVERSATIONS).map(|pair| Conversation::any(random, pair)).collect();
    let mut shots = Vec::new();
    while shots.len() < count as usize {
        let conversation = random.below(CONVERSATIONS);
        let talking = &mut conversations[conversation];
        // A burst of a flow, or one packet.
        let burst = if random.percent(10) { 1 + random.below(4) } else { 1 };
        for _ in 0..burst {
            let number = first + shots.len() as u32;
            shots.push(talking.next(random, plan, number, conversation));
        }
    }
    shots.truncate(count as usize);
    shots
}

/// The datagrams of a set in fragments: two or three each, in order. All from outside.
pub(super) fn fragments(random: &mut Random, Plan { set, first, count, .. }: Plan) -> Vec<Shot> {
    let mut shots = Vec::new();
    let mut id = 0;
    while shots.len() < count as usize {
        id += 1;
        let ends = ((Side::Outside, random.below(HOSTS)), (Side::Inside, random.below(HOSTS)));
        let mut envelope = envelope(random, set, true, ends.0, ends.1);
        (envelope.options, envelope.tos) = (vec![], 0);
        let ports = (random.of(PORTS), random.of(PORTS));
        let parts = 2 + random.below(2);
        // Frame numbers are at the end of each part: 8 bytes of UDP header, then parts of 24 bytes.
        let number = |part: usize| first + (shots.len() + part) as u32;
        let payload: Vec<u8> = (0..parts)
            .flat_map(|part| {
                let filling = vec![b'.'; if part == 0 { 8 } else { 16 }];
                [filling, bytes::marked(number(part))].concat()
            })
            .collect();
        let whole = bytes::transport(&envelope, &Inner::Udp { ports }, &payload);
        for (part, data) in whole.chunks(24).enumerate() {
            let more = u16::from(part + 1 < parts) << 13;
            envelope.fragment = (id, more | (part * 3) as u16);
            let packet = bytes::packet(&envelope, 17, data);
            let says = format!("{}.{ports:?} > {}: part {part} of {parts}", envelope.source, envelope.destination);
            let frame = bytes::ethernet(&envelope, &packet);
            let number = first + shots.len() as u32;
            shots.push(Shot { number, from: Side::Outside, conversation: id.into(), frame, says });
        }
    }
    shots
}

impl Conversation {
    fn any(random: &mut Random, pair: usize) -> Conversation {
        let (outside, inside) = ((Side::Outside, pair % HOSTS), (Side::Inside, pair / HOSTS));
        let ends = if random.percent(65) { [outside, inside] } else { [inside, outside] };
        let ports = (random.of(PORTS), random.of(PORTS));
        let dialog = match random.below(10) {
            0..5 => Dialog::Tcp(Tcp::new(ports)),
            5..7 => Dialog::Udp { ports },
            7..9 => Dialog::Echo { id: random.below(2) as u16 },
            _ => Dialog::Other(random.of(&[50, 89, 253])),
        };
        Conversation { ends, is_ipv4: random.percent(65), dialog }
    }

    fn next(&mut self, random: &mut Random, plan: Plan, number: u32, conversation: usize) -> Shot {
        let can_err = plan.tcp.is_known || !matches!(self.dialog, Dialog::Tcp(_));
        let mut filling = random.of(&[0, 0, 1, 10, 50, 92, 200, 1000]);
        let (speaker, inner) = match can_err && random.percent(8) {
            true => self.error(random, plan.set),
            false => self.step(random, plan.tcp, &mut filling),
        };
        let (from, to) = (self.ends[speaker], self.ends[1 - speaker]);
        let envelope = envelope(random, plan.set, self.is_ipv4, from, to);
        let frame = bytes::frame(&envelope, &inner, filling, number);
        let says = says(&envelope, &inner, from.0, frame.len() - 14);
        Shot { number, from: from.0, conversation, frame, says }
    }

    /// The next sender and its packet, with this much padding.
    fn step(&mut self, random: &mut Random, variations: tcp::Variations, filling: &mut usize) -> (usize, Inner) {
        match &mut self.dialog {
            Dialog::Tcp(tcp) => tcp.step(random, variations, filling),
            Dialog::Udp { ports } => {
                let speaker = usize::from(random.percent(40));
                (speaker, Inner::Udp { ports: turned(*ports, speaker) })
            }
            Dialog::Echo { id } => {
                let (request, answer) = if self.is_ipv4 { (8, 0) } else { (128, 129) };
                let speaker = usize::from(random.percent(40));
                let kind = if random.percent(85) { [request, answer][speaker] } else { random.of(&[request, answer]) };
                let (kind, code) = match random.below(20) {
                    0 if self.is_ipv4 => (random.of(&[13, 14, 17, 18, 9, 10, 42]), 0),
                    0 => (random.of(&[130, 131, 132, 143, 200]), 0),
                    1 => (kind, random.of(&[1, 2, 5])),
                    _ => (kind, 0),
                };
                let rest = [0, *id as u8, 0, 1];
                (speaker, Inner::Icmp { kind, code, rest, quoted: vec![] })
            }
            Dialog::Other(protocol) => (random.below(2), Inner::Other(*protocol)),
        }
    }

    /// An ICMP error about a packet of this conversation, from one of its ends to the other.
    fn error(&mut self, random: &mut Random, set: u8) -> (usize, Inner) {
        let (sender, inner) = match &self.dialog {
            Dialog::Tcp(tcp) => tcp.in_flight(random),
            _ => self.step(random, tcp::Variations::default(), &mut 0),
        };
        // One in ten is about a packet of the other direction, which for TCP would have other numbers.
        let is_tcp = matches!(self.dialog, Dialog::Tcp(_));
        let about = if random.percent(10) && !is_tcp { 1 - sender } else { sender };
        let (from, to) = (self.ends[about], self.ends[1 - about]);
        let quoted = Envelope { options: vec![], extensions: vec![], ..envelope(random, set, self.is_ipv4, from, to) };
        let transport = bytes::transport(&quoted, &inner, b"no number");
        let quoted = bytes::packet(&quoted, inner.protocol(self.is_ipv4), &transport[..8.min(transport.len())]);
        let (kind, code) = match self.is_ipv4 {
            true => random.of(&[(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (4, 0)]),
            false => random.of(&[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)]),
        };
        (1 - sender, Inner::Icmp { kind, code, rest: [0; 4], quoted })
    }
}

pub(super) fn turned(ports: (u16, u16), speaker: usize) -> (u16, u16) {
    if speaker == 0 { ports } else { (ports.1, ports.0) }
}

fn envelope(random: &mut Random, set: u8, is_ipv4: bool, from: (Side, usize), to: (Side, usize)) -> Envelope {
    let options: &[&[u8]] = &[&[7, 7, 4, 0, 0, 0, 0, 0], &[148, 4, 0, 0], &[131, 7, 4, 0, 0, 0, 0, 0], &[1, 1, 1, 1]];
    let extensions: &[&[u8]] = &[&[0], &[60], &[43], &[0, 60], &[43, 60]];
    let odd = random.percent(6);
    Envelope {
        source: address(set, is_ipv4, from),
        destination: address(set, is_ipv4, to),
        source_mac: mac(from),
        destination_mac: mac(to),
        ttl: random.of(&[1, 5, 63, 64, 64, 128, 255]),
        tos: random.of(&[0, 0, 0, 0x28, 0xb8, 0x13]),
        options: if odd { random.of(options).to_vec() } else { vec![] },
        extensions: match odd {
            // The headers have padding, and the routing header has no segments left.
            true => random.of(extensions).iter().map(|number| (*number, extension(*number))).collect(),
            false => vec![],
        },
        fragment: (0, 0),
    }
}

fn extension(number: u8) -> Vec<u8> {
    if number == 43 { vec![0; 6] } else { vec![1, 4, 0, 0, 0, 0] }
}

/// The address of a host of a side.
fn address(set: u8, is_ipv4: bool, (side, host): (Side, usize)) -> IpAddr {
    let (side, host) = (side.index() as u8, host as u8 + 1);
    match is_ipv4 {
        true => Ipv4Addr::new(10, set, side, host).into(),
        // The hexadecimal digits of the number are its decimal digits, as in the rules.
        false => {
            let set = u16::from_str_radix(&set.to_string(), 16).expect("decimal digits");
            Ipv6Addr::new(0xfd00, set, side.into(), 0, 0, 0, 0, host.into()).into()
        }
    }
}

pub(super) fn mac((side, host): (Side, usize)) -> [u8; 6] {
    [2, 0, 0, 0, side.index() as u8 + 1, host as u8 + 1]
}

fn says(envelope: &Envelope, inner: &Inner, from: Side, length: usize) -> String {
    let mut text = format!("{from}: {} > {} ", envelope.source, envelope.destination);
    let _ = match inner {
        Inner::Tcp { ports, flags, sequence, acknowledgement, window, mss, scale } => {
            let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, 'A'), (URG, 'U')];
            let flags: String = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
            let numbers = format!("seq {sequence} ack {acknowledgement} win {window} scale {scale:?}");
            write!(text, "tcp {} > {} [{flags}] {numbers} mss {mss:?}", ports.0, ports.1)
        }
        Inner::Udp { ports } => write!(text, "udp {} > {}", ports.0, ports.1),
        Inner::Icmp { kind, code, rest, quoted } => {
            write!(text, "icmp {kind}:{code} id {} quoting {} bytes {quoted:?}", rest[1], quoted.len())
        }
        Inner::Other(protocol) => write!(text, "protocol {protocol}"),
    };
    let _ = write!(text, " ttl {} tos {} length {length}", envelope.ttl, envelope.tos);
    if !envelope.options.is_empty() && envelope.source.is_ipv4() {
        let _ = write!(text, " options {:?}", envelope.options);
    }
    if !envelope.extensions.is_empty() && envelope.source.is_ipv6() {
        let _ = write!(text, " extensions {:?}", envelope.extensions);
    }
    text
}
