//! What is sent: a few conversations, their packets mixed, some in order and some nonsense.
//!
//! Each set of rules has addresses of its own, `10.K.0.x` outside and `10.K.1.x` inside (`fd00:K::x`, `fd00:K:1::x`), so
//! that nothing is remembered from one set to the next.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Side;

use super::bytes::{self, Envelope, Inner};
use super::tcp::{self, ACK, FIN, PSH, RST, SYN, Tcp, URG};
use crate::dice::Dice;

/// Hosts on each side.
const HOSTS: usize = 4;
/// Conversations of one set: no two between the same hosts.
const CONVERSATIONS: usize = HOSTS * HOSTS;
/// Ports that rules ask for, and others.
pub(super) const PORTS: &[u16] = &[22, 53, 80, 443, 1234, 4321, 8080, 40_000];

/// A frame on its way.
pub(super) struct Shot {
    pub(super) number: u32,
    pub(super) from: Side,
    /// Which conversation it is of.
    pub(super) conversation: usize,
    pub(super) frame: Vec<u8>,
    /// For people.
    pub(super) says: String,
}

/// Two ends that talk, and how far they are.
struct Conversation {
    /// The first is who begins.
    ends: [(Side, usize); 2],
    is_ipv4: bool,
    talk: Talk,
}

enum Talk {
    Tcp(Tcp),
    Udp { ports: (u16, u16) },
    Echo { id: u16 },
    Other(u8),
}

/// What frames are for.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// The set's number.
    pub(super) set: u8,
    /// The first frame's number.
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) tcp: tcp::Manners,
}

/// A set's frames, in an order in which frames of both sides take turns.
pub(super) fn shots(dice: &mut Dice, plan: Plan) -> Vec<Shot> {
    let Plan { first, count, .. } = plan;
    let mut conversations: Vec<Conversation> = (0..CONVERSATIONS).map(|pair| Conversation::any(dice, pair)).collect();
    let mut shots = Vec::new();
    while shots.len() < count as usize {
        let conversation = dice.below(CONVERSATIONS);
        let talking = &mut conversations[conversation];
        // A burst of a flow, or one packet.
        let burst = if dice.percent(10) { 1 + dice.below(4) } else { 1 };
        for _ in 0..burst {
            let number = first + shots.len() as u32;
            shots.push(talking.next(dice, plan, number, conversation));
        }
    }
    shots.truncate(count as usize);
    shots
}

/// The datagrams of a set in fragments: two or three each, in order. All from outside.
pub(super) fn fragments(dice: &mut Dice, Plan { set, first, count, .. }: Plan) -> Vec<Shot> {
    let mut shots = Vec::new();
    let mut id = 0;
    while shots.len() < count as usize {
        id += 1;
        let ends = ((Side::Outside, dice.below(HOSTS)), (Side::Inside, dice.below(HOSTS)));
        let mut envelope = envelope(dice, set, true, ends.0, ends.1);
        (envelope.options, envelope.tos) = (vec![], 0);
        let ports = (dice.of(PORTS), dice.of(PORTS));
        let parts = 2 + dice.below(2);
        // Frame numbers stand where each part ends: 8 bytes of UDP header, then parts of 24 bytes.
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
    fn any(dice: &mut Dice, pair: usize) -> Conversation {
        let (outside, inside) = ((Side::Outside, pair % HOSTS), (Side::Inside, pair / HOSTS));
        let ends = if dice.percent(65) { [outside, inside] } else { [inside, outside] };
        let ports = (dice.of(PORTS), dice.of(PORTS));
        let talk = match dice.below(10) {
            0..5 => Talk::Tcp(Tcp::new(ports)),
            5..7 => Talk::Udp { ports },
            7..9 => Talk::Echo { id: dice.below(2) as u16 },
            _ => Talk::Other(dice.of(&[50, 89, 253])),
        };
        Conversation { ends, is_ipv4: dice.percent(65), talk }
    }

    fn next(&mut self, dice: &mut Dice, plan: Plan, number: u32, conversation: usize) -> Shot {
        let can_err = plan.tcp.is_known || !matches!(self.talk, Talk::Tcp(_));
        let mut filling = dice.of(&[0, 0, 1, 10, 50, 92, 200, 1000]);
        let (speaker, inner) = match can_err && dice.percent(8) {
            true => self.error(dice, plan.set),
            false => self.word(dice, plan.tcp, &mut filling),
        };
        let (from, to) = (self.ends[speaker], self.ends[1 - speaker]);
        let envelope = envelope(dice, plan.set, self.is_ipv4, from, to);
        let frame = bytes::frame(&envelope, &inner, filling, number);
        let says = says(&envelope, &inner, from.0, frame.len() - 14);
        Shot { number, from: from.0, conversation, frame, says }
    }

    /// Who speaks, and what, with so much filling.
    fn word(&mut self, dice: &mut Dice, manners: tcp::Manners, filling: &mut usize) -> (usize, Inner) {
        match &mut self.talk {
            Talk::Tcp(tcp) => tcp.word(dice, manners, filling),
            Talk::Udp { ports } => {
                let speaker = usize::from(dice.percent(40));
                (speaker, Inner::Udp { ports: turned(*ports, speaker) })
            }
            Talk::Echo { id } => {
                let (request, answer) = if self.is_ipv4 { (8, 0) } else { (128, 129) };
                let speaker = usize::from(dice.percent(40));
                let kind = if dice.percent(85) { [request, answer][speaker] } else { dice.of(&[request, answer]) };
                let (kind, code) = match dice.below(20) {
                    0 if self.is_ipv4 => (dice.of(&[13, 14, 17, 18, 9, 10, 42]), 0),
                    0 => (dice.of(&[130, 131, 132, 143, 200]), 0),
                    1 => (kind, dice.of(&[1, 2, 5])),
                    _ => (kind, 0),
                };
                let rest = [0, *id as u8, 0, 1];
                (speaker, Inner::Icmp { kind, code, rest, quoted: vec![] })
            }
            Talk::Other(protocol) => (dice.below(2), Inner::Other(*protocol)),
        }
    }

    /// An ICMP error about a packet of this conversation, from one of its ends to the other.
    fn error(&mut self, dice: &mut Dice, set: u8) -> (usize, Inner) {
        let (sender, inner) = match &self.talk {
            Talk::Tcp(tcp) => tcp.on_its_way(dice),
            _ => self.word(dice, tcp::Manners::default(), &mut 0),
        };
        // One in ten is about a packet that went the other way; of TCP, that would have other numbers.
        let is_tcp = matches!(self.talk, Talk::Tcp(_));
        let about = if dice.percent(10) && !is_tcp { 1 - sender } else { sender };
        let (from, to) = (self.ends[about], self.ends[1 - about]);
        let quoted = Envelope { options: vec![], extensions: vec![], ..envelope(dice, set, self.is_ipv4, from, to) };
        let transport = bytes::transport(&quoted, &inner, b"no number");
        let quoted = bytes::packet(&quoted, inner.protocol(self.is_ipv4), &transport[..8.min(transport.len())]);
        let (kind, code) = match self.is_ipv4 {
            true => dice.of(&[(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (4, 0)]),
            false => dice.of(&[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)]),
        };
        (1 - sender, Inner::Icmp { kind, code, rest: [0; 4], quoted })
    }
}

pub(super) fn turned(ports: (u16, u16), speaker: usize) -> (u16, u16) {
    if speaker == 0 { ports } else { (ports.1, ports.0) }
}

fn envelope(dice: &mut Dice, set: u8, is_ipv4: bool, from: (Side, usize), to: (Side, usize)) -> Envelope {
    let options: &[&[u8]] = &[&[7, 7, 4, 0, 0, 0, 0, 0], &[148, 4, 0, 0], &[131, 7, 4, 0, 0, 0, 0, 0], &[1, 1, 1, 1]];
    let extensions: &[&[u8]] = &[&[0], &[60], &[43], &[0, 60], &[43, 60]];
    let odd = dice.percent(6);
    Envelope {
        source: address(set, is_ipv4, from),
        destination: address(set, is_ipv4, to),
        source_mac: mac(from),
        destination_mac: mac(to),
        ttl: dice.of(&[1, 5, 63, 64, 64, 128, 255]),
        tos: dice.of(&[0, 0, 0, 0x28, 0xb8, 0x13]),
        options: if odd { dice.of(options).to_vec() } else { vec![] },
        extensions: match odd {
            // Padding; the routing header has been used up.
            true => dice.of(extensions).iter().map(|number| (*number, extension(*number))).collect(),
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
        // The number reads as decimal, as it does in the rules.
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
