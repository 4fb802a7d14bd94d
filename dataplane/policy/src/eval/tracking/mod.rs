//! Connection tracking: which connection a packet is of, and what is known of that.
//!
//! A connection is known once its first packet was forwarded, until it has been quiet for a timeout: what was dropped
//! begins nothing that answers or errors could belong to. Both directions are one connection: TCP and UDP by addresses and
//! ports, ICMP queries by addresses, kind, code and identifier, everything else by addresses and protocol. Each VLAN and
//! PPPoE session has connections of its own, unless the settings say otherwise; sides are no part of it.
//!
//! | state         | packets |
//! |---------------|---------|
//! | `new`         | of a connection that was not seen both ways yet |
//! | `established` | of one that was; the first packet back already is |
//! | `related`     | ICMP errors about a packet of a known connection, to its sender; of TCP, about a number that can be on its way |
//! | `invalid`     | everything else: impossible TCP flags, numbers out of the window, answers to nothing, errors about nothing, fragments without their first |
//! | `untracked`   | exempt by `notrack`; and neighbour discovery and multicast listeners, which have no connections |
//!
//! With `loose-tcp-tracking`, an ACK of an unknown connection begins one that counts as established for its timeout. The
//! packet itself is `new`, as no other side has been seen: else every stranger's ACK would pass a rule that accepts
//! `established`. The connection goes on when the other side speaks.
//!
//! What is invalid changes nothing of a connection, and nothing that may be forged shortens the time for which one is
//! known, see [`tcp`].
//!
//! Not done: `tcp-max-retrans-timeout` and `tcp-unacked-timeout` are not used.
//!
//! Source: RouterOS manual, Connection tracking; Linux's netfilter, whose tracking RouterOS uses, for what it does not say.

mod flow;
mod identity;
mod segment;
mod tcp;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

pub(super) use self::flow::Flow;
pub use self::flow::timeout;
pub use self::identity::{End, FlowKey, Identity, Quoted, identification};
pub use self::segment::{Segment, SegmentKind};
pub use self::tcp::{Step, TcpConnection, TcpState};
use crate::packet::{FragmentPart, Packet, Vlan, protocol};
use crate::reason::Verdict;
use crate::rule::{Action, Condition, ConnectionState, RuleSet, Tracking, TrackingMode};
use crate::time::Time;

/// How long the fragments behind the first are known as its. Source: RFC 8200, 4.5.
pub const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether connections are tracked: if `enabled` says so, or if it is `auto` and a rule that runs needs it.
///
/// `connection-state`, `-bytes`, `-rate`, `-limit`, `-door` and `fasttrack-connection` do; `tls-host` does, because a ClientHello
/// may come in several segments. `connection-nat-state` does not: nothing here translates addresses. `layer7-protocol`
/// does not either: passphrases come in one packet each, and to remember every sender's connection for them would be a
/// table for floods to fill. Without tracking a pattern sees each packet alone.
pub fn is_needed(rules: &RuleSet) -> bool {
    let needs = |condition: &Condition| {
        matches!(
            condition,
            Condition::ConnectionState(_)
                | Condition::ConnectionBytes { .. }
                | Condition::ConnectionRate(_)
                | Condition::ConnectionLimit { .. }
                | Condition::TlsHost(_)
                | Condition::ConnectionDoor(_)
        )
    };
    match rules.tracking.enabled {
        TrackingMode::Yes => true,
        TrackingMode::No => false,
        TrackingMode::Auto => rules.rules.iter().filter(|rule| rule.runs()).any(|rule| {
            rule.action == Action::FasttrackConnection || rule.matchers.iter().any(|matcher| needs(&matcher.condition))
        }),
    }
}

/// All connections that are known.
pub(super) struct Tracker<'r> {
    settings: &'r Tracking,
    flows: HashMap<FlowKey, Flow>,
    /// Connections so far.
    count: u64,
    /// The first fragments of datagrams, and until when each is known.
    fragments: HashMap<Datagram, (FirstFragment, Time)>,
}

/// What is known of a datagram from its first fragment.
#[derive(Clone, Copy, Debug)]
pub struct FirstFragment {
    /// Its connection.
    pub key: FlowKey,
    /// Where it came from.
    pub source: End,
    /// Whether it counts for its connection.
    pub counts: bool,
    /// Of TCP, the sequence number that its first byte would have.
    pub base: Option<u32>,
}

/// What a datagram's fragments have in common: network, source, destination, protocol, identification. They are of one
/// network whatever the settings say: none may share the verdict on a datagram of another one.
pub(super) type Datagram = (Vlan, IpAddr, IpAddr, u8, u32);

/// The datagram of a packet that is a fragment, or could be one.
pub(super) fn datagram(packet: &Packet<'_>) -> Option<Datagram> {
    Some((packet.vlan(), packet.source, packet.destination, packet.protocol, identification(packet)?))
}

/// What tracking makes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) state: ConnectionState,
    /// Its connection, or the one it is related to.
    pub(super) flow: Option<FlowKey>,
    /// Where the packet came from, if it is of the connection itself.
    pub(super) source: Option<End>,
    pub(super) stays: Stays,
}

/// Whether a packet's connection is known beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Until its timeout.
    Yes,
    /// It begins with this packet, so only if that is forwarded.
    IfForwarded,
    /// It ends with this packet.
    No,
}

impl Stays {
    /// Whether it is, after this verdict on the packet.
    pub fn after(self, verdict: Verdict) -> bool {
        match self {
            Stays::Yes => true,
            Stays::IfForwarded => verdict == Verdict::Forward,
            Stays::No => false,
        }
    }
}

impl Seen {
    pub(super) const fn alone(state: ConnectionState) -> Seen {
        Seen { state, flow: None, source: None, stays: Stays::Yes }
    }
}

impl<'r> Tracker<'r> {
    pub(super) fn new(settings: &'r Tracking) -> Tracker<'r> {
        Tracker { settings, flows: HashMap::new(), count: 0, fragments: HashMap::new() }
    }

    /// A connection that is known now.
    pub(super) fn flow(&self, key: &FlowKey, now: Time) -> Option<&Flow> {
        self.flows.get(key).filter(|flow| now < flow.expiry)
    }

    pub(super) fn flow_mut(&mut self, key: &FlowKey, now: Time) -> Option<&mut Flow> {
        self.flows.get_mut(key).filter(|flow| now < flow.expiry)
    }

    /// All connections that are known now, and whether each was seen both ways.
    pub(super) fn known(&self, now: Time) -> Vec<(FlowKey, bool)> {
        let known = self.flows.iter().filter(|(_, flow)| now < flow.expiry);
        known.map(|(key, flow)| (*key, flow.both_ways)).collect()
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&mut self, now: Time) {
        self.flows.retain(|_, flow| now < flow.expiry);
        self.fragments.retain(|_, (.., expiry)| now < *expiry);
    }

    /// Forgets a connection that does not stay.
    pub(super) fn forget(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    /// Learns of a packet of this network, and says what it is.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, vlan: Vlan, now: Time) -> Seen {
        let part = packet.fragment();
        let datagram = datagram(packet);
        let later = part == Some(FragmentPart::Later);
        let first = datagram.filter(|_| later).and_then(|datagram| self.fragments.get(&datagram));
        let identity = match first {
            Some((first, expiry)) if now < *expiry => return self.later_fragment(packet, *first, now),
            _ if later => Identity::Unknown,
            _ => Identity::of(packet, vlan),
        };
        match identity {
            Identity::Untracked => Seen::alone(ConnectionState::Untracked),
            Identity::Unknown => Seen::alone(ConnectionState::Invalid),
            Identity::Error { about } => match about.filter(|quoted| self.may_have_sent(quoted, now)) {
                Some(quoted) => Seen { flow: Some(quoted.key), ..Seen::alone(ConnectionState::Related) },
                None => Seen::alone(ConnectionState::Invalid),
            },
            Identity::Connection { key, source, opens } => {
                let is_fragment = part == Some(FragmentPart::First);
                let segment = Segment::of(packet, is_fragment);
                let advanced = match packet.protocol {
                    protocol::TCP => segment.and_then(|segment| self.advance_tcp(packet, &segment, key, source, now)),
                    _ => self.advance(packet, key, source, opens, now),
                };
                let Some(Advanced { state, stays, counts }) = advanced else {
                    return Seen::alone(ConnectionState::Invalid);
                };
                if let (true, Some(datagram)) = (is_fragment, datagram) {
                    let first = FirstFragment { key, source, counts, base: segment.map(|segment| segment.base()) };
                    self.fragments.insert(datagram, (first, now + FRAGMENT_TIMEOUT));
                }
                Seen { state, flow: Some(key), source: Some(source), stays }
            }
        }
    }

    /// Whether a packet that an ICMP error quotes is of a known connection.
    fn may_have_sent(&self, quoted: &Quoted, now: Time) -> bool {
        self.flow(&quoted.key, now).is_some_and(|flow| match &flow.tcp {
            Some(tcp) => {
                let back = flow.originator != quoted.source;
                quoted.sequence.is_some_and(|sequence| tcp.may_have_sent(back, sequence))
            }
            None => true,
        })
    }

    /// A fragment behind the first is of its connection.
    fn later_fragment(&mut self, packet: &Packet<'_>, first: FirstFragment, now: Time) -> Seen {
        let FirstFragment { key, source, counts, base } = first;
        let settings = self.settings;
        let Some(flow) = self.flow_mut(&key, now) else { return Seen::alone(ConnectionState::Invalid) };
        let back = flow.originator != source;
        if counts {
            flow.both_ways |= back;
            if let (Some(tcp), Some(base), Some(end)) = (&mut flow.tcp, base, packet.fragment_end()) {
                tcp.extend(back, base.wrapping_add(end));
            }
            flow.count(packet, back, now);
            // A fragment shortens nothing, as its checksum cannot be known.
            flow.expiry = flow.expiry.max(now + flow.timeout(settings, packet.protocol));
        }
        Seen { state: flow.state(), flow: Some(key), source: Some(source), stays: Stays::Yes }
    }

    /// Takes a packet that is not TCP into its connection, which it may begin. None if it cannot be of it.
    fn advance(&mut self, packet: &Packet<'_>, key: FlowKey, source: End, opens: bool, now: Time) -> Option<Advanced> {
        let is_known = self.flow(&key, now).is_some();
        if !is_known && !opens {
            return None;
        }
        if !is_known {
            self.insert(key, source, None);
        }
        let settings = self.settings;
        let flow = self.flows.get_mut(&key)?;
        let back = flow.originator != source;
        flow.both_ways |= back;
        flow.count(packet, back, now);
        flow.expiry = now + flow.timeout(settings, packet.protocol);
        let stays = if is_known { Stays::Yes } else { Stays::IfForwarded };
        Some(Advanced { state: flow.state(), stays, counts: true })
    }

    /// The same for a TCP segment.
    fn advance_tcp(
        &mut self,
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        key: FlowKey,
        source: End,
        now: Time,
    ) -> Option<Advanced> {
        let settings = self.settings;
        let known = self.flow_mut(&key, now).and_then(|flow| {
            let (tcp, back) = (flow.tcp?, flow.originator != source);
            Some((tcp.step((packet, segment), (back, flow.both_ways), (now, flow.expiry), settings), flow, back))
        });
        let stays = match known {
            None | Some((Step::Anew, ..)) => {
                let tcp = TcpConnection::begin(segment, settings.loose_tcp)?;
                self.insert(key, source, Some(tcp));
                Stays::IfForwarded
            }
            Some((Step::Impossible, ..)) => return None,
            Some((step @ (Step::Aside | Step::Remember | Step::Challenge), flow, back)) => {
                flow.tcp.as_mut()?.take(segment, back, step);
                // The answer to a SYN passes as one, though it accepts nothing.
                let state = if step == Step::Challenge { ConnectionState::Established } else { flow.state() };
                return Some(Advanced { state, stays: Stays::Yes, counts: false });
            }
            Some((step, flow, back)) => {
                if step == Step::Reopen {
                    flow.restart();
                }
                if flow.tcp.as_mut()?.take(segment, back, step) {
                    flow.originator = if flow.originator == key.ends[0] { key.ends[1] } else { key.ends[0] };
                }
                if step == Step::Cross {
                    flow.both_ways = true;
                    return Some(Advanced { state: flow.state(), stays: Stays::Yes, counts: false });
                }
                if step == Step::Over { Stays::No } else { Stays::Yes }
            }
        };
        let flow = self.flows.get_mut(&key)?;
        let back = flow.originator != source;
        flow.both_ways |= back;
        flow.count(packet, back, now);
        flow.expiry = now + flow.timeout(settings, protocol::TCP);
        Some(Advanced { state: flow.state(), stays, counts: true })
    }

    fn insert(&mut self, key: FlowKey, originator: End, tcp: Option<TcpConnection>) {
        self.count += 1;
        self.flows.insert(key, Flow::new(originator, self.count, tcp));
    }
}

/// What a packet made of its connection.
struct Advanced {
    state: ConnectionState,
    stays: Stays,
    /// Whether its bytes and its time count.
    counts: bool,
}
