//! One connection of the reference evaluator, and its timeout.

use std::time::Duration;

use super::super::tls::StreamPrefix;
use super::identity::End;
use super::tcp::{TcpConnection, TcpState};
use crate::layer7;
use crate::packet::{Packet, protocol};
use crate::rule::{ConnectionState, Tracking};
use crate::time::Time;

/// A known connection.
#[derive(Debug)]
pub(in crate::eval) struct Flow {
    /// Unique among connections.
    pub(in crate::eval) number: u64,
    /// The end that sent the first packet.
    pub(super) originator: End,
    pub(super) both_ways: bool,
    pub(super) tcp: Option<TcpConnection>,
    pub(super) expiry: Time,
    /// Packets and IP bytes so far, in both directions.
    pub(super) packets: u64,
    pub(in crate::eval) bytes: u64,
    /// A second of the clock, its bytes so far, and the bytes of the second before it.
    second: (u64, u64, u64),
    /// Payloads of the first packets in both directions, without NULs.
    buffer: Vec<u8>,
    /// Length of the buffer after each of them.
    lengths: Vec<usize>,
    /// The beginning of the originator's TCP stream, and of the responder's.
    streams: [StreamPrefix; 2],
    pub(in crate::eval) fasttracked: bool,
    /// The door whose rule accepted its first packet.
    pub(in crate::eval) door: Option<String>,
}

impl Flow {
    pub(super) fn new(originator: End, number: u64, tcp: Option<TcpConnection>) -> Flow {
        Flow {
            number,
            originator,
            both_ways: false,
            tcp,
            expiry: Time::NEVER,
            packets: 0,
            bytes: 0,
            second: (0, 0, 0),
            buffer: Vec::new(),
            lengths: Vec::new(),
            streams: Default::default(),
            fasttracked: false,
            door: None,
        }
    }

    pub(super) fn count(&mut self, packet: &Packet<'_>, back: bool, now: Time) {
        self.packets += 1;
        self.bytes += u64::from(packet.ip_length);
        let (last, before) = (self.last_second(now), &mut self.second);
        let second = now.as_nanos() / 1_000_000_000;
        if before.0 != second {
            *before = (second, 0, last);
        }
        before.1 += u64::from(packet.ip_length);
        if self.packets <= layer7::PACKET_LIMIT {
            let room = layer7::BUFFER_LIMIT - self.buffer.len();
            self.buffer.extend(packet.payload.iter().filter(|byte| **byte != 0).take(room));
            self.lengths.push(self.buffer.len());
        }
        self.streams[usize::from(back)].push(packet);
    }

    /// IP bytes, both directions, of the last whole second of the clock.
    pub(in crate::eval) fn last_second(&self, now: Time) -> u64 {
        let (second, bytes, before) = self.second;
        match (now.as_nanos() / 1_000_000_000).checked_sub(second) {
            Some(0) => before,
            Some(1) => bytes,
            _ => 0,
        }
    }

    /// Resets payload inspection, because the two ends begin a new connection.
    pub(super) fn restart(&mut self) {
        (self.packets, self.buffer, self.lengths, self.streams) = Default::default();
    }

    pub(super) fn state(&self) -> ConnectionState {
        if self.both_ways { ConnectionState::Established } else { ConnectionState::New }
    }

    pub(super) fn timeout(&self, settings: &Tracking, number: u8) -> Duration {
        timeout(settings, number, self.tcp.map(|tcp| tcp.state()), self.both_ways)
    }

    /// Whether both ends have closed the connection, or one end has aborted it.
    pub(in crate::eval) fn is_closed(&self) -> bool {
        self.tcp.is_some_and(|tcp| tcp.is_closed())
    }

    /// Whether the pattern matches the payloads up to one of the first packets. After these packets, the result does
    /// not change any more. Source: RouterOS manual, Layer7.
    pub(in crate::eval) fn matches_pattern(&self, regexp: &str) -> bool {
        self.lengths.iter().any(|length| layer7::matches(regexp, &self.buffer[..*length]))
    }

    /// This end's TCP stream, from its beginning.
    pub(in crate::eval) fn stream_of(&self, source: End) -> &[u8] {
        self.streams[usize::from(source != self.originator)].bytes()
    }
}

/// Time from its last packet until a connection expires.
#[inline]
pub fn timeout(settings: &Tracking, number: u8, tcp: Option<TcpState>, both_ways: bool) -> Duration {
    match (number, tcp) {
        (_, Some(TcpState::SynSent | TcpState::BothSyn)) => settings.tcp_syn_sent,
        (_, Some(TcpState::SynReceived)) => settings.tcp_syn_received,
        (_, Some(TcpState::Established)) => settings.tcp_established,
        (_, Some(TcpState::FinWait)) => settings.tcp_fin_wait,
        (_, Some(TcpState::CloseWait)) => settings.tcp_close_wait,
        (_, Some(TcpState::LastAck)) => settings.tcp_last_ack,
        (_, Some(TcpState::TimeWait)) => settings.tcp_time_wait,
        (_, Some(TcpState::Close)) => settings.tcp_close,
        (protocol::UDP, None) if both_ways => settings.udp_stream,
        (protocol::UDP, None) => settings.udp,
        (protocol::ICMP | protocol::ICMPV6, None) => settings.icmp,
        (_, None) => settings.generic,
    }
}
