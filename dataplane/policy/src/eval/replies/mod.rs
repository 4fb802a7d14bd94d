//! The replies of `reject` and `tarpit`: IP packets that leave on the side on which the packet arrived.
//!
//! The source of a reply is the packet's destination: the filter has no address, so replies do not reveal it.

mod bytes;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use super::keyed;
use super::rule_evaluation::RuleEvaluation;
use crate::packet::{Family, FragmentPart, Packet, TcpFlag, protocol};
use crate::rule::{Rate, RateUnit, RejectWith};
use crate::word::Set;

/// The rate limit of ICMP errors to all senders together. Hosts and routers must limit them (RFC 1812, 4.3.2.8; RFC
/// 4443, 2.4 (f)), so that an attacker cannot direct a flood to a forged source. One error each 10 ms is RouterOS's
/// `icmp-rate-limit`. The burst is the number of one second, for sources that try many ports.
pub const ICMP_ERRORS: Rate = Rate { count: 100, per: Duration::from_secs(1), burst: 100, unit: RateUnit::Packet };

/// Minimum time between a tarpit's answers to ACKs of one peer. Source: RouterOS's kernel modules.
pub const TARPIT_ACK_INTERVAL: Duration = Duration::from_secs(1);

/// The window of a tarpit's SYN-ACK: small, and enough to establish the connection. All later windows are 0. Source:
/// RouterOS's kernel modules.
const TARPIT_WINDOW: u16 = 5;

/// An answer to a packet's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An ICMP error that quotes the packet.
    IcmpError {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// A TCP segment without data.
    Tcp(Segment),
}

/// The fields of the TCP header of a reply that do not follow from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flags.
    pub flags: Set<TcpFlag>,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window.
    pub window: u16,
}

impl Segment {
    fn new(flags: &[TcpFlag], sequence: u32, acknowledgement: u32, window: u16) -> Segment {
        Segment { flags: flags.iter().copied().collect(), sequence, acknowledgement, window }
    }
}

impl RuleEvaluation<'_, '_> {
    /// Whether the limit admits this reply. Resets have no limit, because they are not larger than the packet that they
    /// answer.
    pub(super) fn may_reject(&mut self, with: RejectWith) -> bool {
        with == RejectWith::TcpReset || self.evaluator.icmp_errors.take(&ICMP_ERRORS, 0, self.now)
    }

    /// The reply of a tarpit.
    pub(super) fn tarpit(&mut self) -> Option<Vec<u8>> {
        let secret = self.evaluator.secret;
        let answer = tarpit(self.packet, secret, || self.may_acknowledge())?;
        bytes::of(self.packet, &answer)
    }

    fn may_acknowledge(&mut self) -> bool {
        let until = self.evaluator.acknowledged.entry(self.packet.source).or_default();
        let may = *until <= self.now;
        if may {
            *until = self.now + TARPIT_ACK_INTERVAL;
        }
        may
    }
}

/// The answer of a tarpit. It answers a SYN with a SYN-ACK, a SYN-ACK with a reset, and FIN and RST with nothing. It
/// answers an ACK with an ACK with window 0, at most once a second for each peer address, so that the peer continues to
/// probe. It never acknowledges data. Source: RouterOS's kernel modules.
pub fn tarpit(packet: &Packet<'_>, secret: [u64; 2], may_acknowledge: impl FnOnce() -> bool) -> Option<Answer> {
    let flags = packet.tcp_flags()?;
    let (sequence, acknowledgement) = (packet.tcp_sequence()?, packet.tcp_acknowledgement()?);
    let has = |flag| flags.contains(flag);
    if has(TcpFlag::Fin) || has(TcpFlag::Rst) || !may_answer(packet) {
        return None;
    }
    let segment = match (has(TcpFlag::Syn), has(TcpFlag::Ack)) {
        (true, false) => {
            let begin = keyed::initial_sequence(secret, packet);
            Segment::new(&[TcpFlag::Syn, TcpFlag::Ack], begin, sequence.wrapping_add(1), TARPIT_WINDOW)
        }
        (true, true) => Segment::new(&[TcpFlag::Rst], acknowledgement, 0, 0),
        (false, true) if may_acknowledge() => Segment::new(&[TcpFlag::Ack], acknowledgement, sequence, 0),
        (false, _) => return None,
    };
    Some(Answer::Tcp(segment))
}

/// The bytes of the answer to a rejected packet.
pub(super) fn reject(packet: &Packet<'_>, with: RejectWith) -> Option<Vec<u8>> {
    bytes::of(packet, &rejection(packet, with)?)
}

/// The answer to a rejected packet. `None` for a reset to another protocol than TCP, for an error of the other family,
/// and for packets that must not be answered.
pub fn rejection(packet: &Packet<'_>, with: RejectWith) -> Option<Answer> {
    if !may_answer(packet) {
        return None;
    }
    match with.icmp(packet.family()) {
        Some((kind, code)) if !is_icmp_error(packet) => Some(Answer::IcmpError { kind, code }),
        None if with == RejectWith::TcpReset => reset(packet).map(Answer::Tcp),
        _ => None,
    }
}

/// Source: RFC 9293, 3.10.7.1, for a connection that does not exist. A reset is not answered.
fn reset(packet: &Packet<'_>) -> Option<Segment> {
    let flags = packet.tcp_flags()?;
    if flags.contains(TcpFlag::Rst) {
        return None;
    }
    if flags.contains(TcpFlag::Ack) {
        return Some(Segment::new(&[TcpFlag::Rst], packet.tcp_acknowledgement()?, 0, 0));
    }
    let numbers = flags.iter().filter(|flag| matches!(flag, TcpFlag::Syn | TcpFlag::Fin)).count();
    let length = (packet.payload.len() + numbers) as u32;
    let acknowledgement = packet.tcp_sequence()?.wrapping_add(length);
    Some(Segment::new(&[TcpFlag::Rst, TcpFlag::Ack], 0, acknowledgement, 0))
}

/// Only packets between two hosts may be answered, and only the first fragment of a datagram. Source: RFC 1122, 3.2.2;
/// RFC 4443, 2.4 (e).
fn may_answer(packet: &Packet<'_>) -> bool {
    let to_one = match packet.destination {
        IpAddr::V4(address) => !address.is_broadcast() && !address.is_multicast() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    };
    let from_one = match packet.source {
        // 240.0.0.0/4 is reserved.
        IpAddr::V4(address) => !address.is_loopback() && address.octets()[0] < 224 && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_multicast() && !address.is_unspecified(),
    };
    // A frame to an Ethernet group address has several receivers, independent of the IP address.
    let to_group = packet.frame.first().is_some_and(|first| first & 1 == 1);
    to_one && from_one && !to_group && packet.fragment().is_some_and(|part| part != FragmentPart::Later)
}

/// Errors about errors could continue without end, and so could errors about messages that ICMP does not define.
/// Source: RFC 1122, 3.2.2; RFC 4443, 2.4 (e.1), (e.2) with redirects.
fn is_icmp_error(packet: &Packet<'_>) -> bool {
    match (packet.family(), packet.protocol, packet.icmp) {
        (Family::Ipv4, protocol::ICMP, Some((kind, _))) => !matches!(kind, 0 | 8 | 13..=18),
        (Family::Ipv6, protocol::ICMPV6, Some((kind, _))) => kind < 128 || kind == 137,
        _ => false,
    }
}
