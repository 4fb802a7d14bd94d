//! Connection tracking: finds a packet's connection and keeps its state.
//!
//! A connection is known from the forwarding of its first packet until no packet arrives for its timeout. A dropped
//! packet begins no connection, so that there can be no answers to it and no errors about it. Both directions are one
//! connection: TCP and UDP by addresses and ports, ICMP queries by addresses, type, code and identifier, all other
//! protocols by addresses and protocol. Each VLAN and PPPoE session has separate connections, unless the settings say
//! otherwise. The side is not part of the key.
//!
//! | state         | packets |
//! |---------------|---------|
//! | `new`         | of a connection that has not been seen in both directions |
//! | `established` | of a connection that has; the first packet of the responder is one of them |
//! | `related`     | ICMP errors about a packet of a known connection, sent to its source; for TCP, about a sequence number that can be in flight |
//! | `invalid`     | all others: impossible TCP flags, numbers outside the window, answers and errors without a connection, later fragments without their first |
//! | `untracked`   | exempt by `notrack`; also neighbour discovery and multicast listener discovery, which have no connections |
//!
//! With `loose-tcp-tracking`, an ACK of an unknown connection begins a connection with the timeout of an established
//! one. The packet itself is `new`, because the other end has sent no packet: otherwise the ACK of any stranger would
//! match a rule that accepts `established`. The connection is established when the other end sends a packet.
//!
//! An invalid packet does not change a connection. A packet that may be forged never shortens the time until a
//! connection expires, see [`tcp`].
//!
//! Not implemented: `tcp-max-retrans-timeout` and `tcp-unacked-timeout` are not used.
//!
//! Source: RouterOS manual, Connection tracking; Linux's netfilter, on which RouterOS's tracking is based, for
//! everything that the manual leaves open.

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
pub use self::tcp::{PackedTcp, RememberedSyn, SeenConnection, TcpConnection, TcpState, TcpStep};
pub use self::window::WindowNumbers;
use crate::packet::{FragmentPart, Packet, Vlan, protocol};
use crate::reason::Verdict;
use crate::rule::{Action, Condition, ConnectionState, RuleSet, Tracking, TrackingMode};
use crate::time::Time;

/// The time for which later fragments belong to their first fragment. Source: RFC 8200, 4.5.
pub const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether connections are tracked: if `enabled` is `yes`, or if it is `auto` and a running rule needs it.
///
/// `connection-state`, `-bytes`, `-rate`, `-limit`, `-door` and `fasttrack-connection` need it. `tls-host` needs it,
/// because a ClientHello may have several segments. `connection-nat-state` does not, because the filter translates no
/// addresses. `layer7-protocol` does not either: a passphrase is in one packet, and a flood could fill a table with a
/// connection for every sender. Without tracking, a pattern inspects each packet alone.
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

/// All known connections.
pub(super) struct Tracker<'r> {
    settings: &'r Tracking,
    flows: HashMap<FlowKey, Flow>,
    /// Number of connections so far.
    count: u64,
    /// The first fragments of datagrams, each with its expiry.
    fragments: HashMap<Datagram, (FirstFragment, Time)>,
}

/// The state of a datagram after its first fragment.
#[derive(Clone, Copy, Debug)]
pub struct FirstFragment {
    /// Its connection.
    pub key: FlowKey,
    /// The end that sent it.
    pub source: End,
    /// Whether the fragment counts for its connection.
    pub counts: bool,
    /// For TCP, the sequence number of the datagram's first byte.
    pub base: Option<u32>,
}

/// The fields that fragments of a datagram have in common. They include the network under all settings: a datagram must
/// not share the verdict on a datagram of another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Datagram {
    vlan: Vlan,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

/// The datagram of a packet that is a fragment or could be fragmented.
pub(super) fn datagram(packet: &Packet<'_>) -> Option<Datagram> {
    Some(Datagram {
        vlan: packet.vlan(),
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol,
        identification: identification(packet)?,
    })
}

/// The result of tracking a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackedPacket {
    pub(super) state: ConnectionState,
    /// Its connection, or the one it is related to.
    pub(super) flow: Option<FlowKey>,
    /// The end that sent the packet, if it belongs to the connection itself.
    pub(super) source: Option<End>,
    pub(super) stays: Stays,
}

/// Whether a connection stays known after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// Until its timeout.
    Yes,
    /// Only if the packet is forwarded, because the connection begins with this packet.
    IfForwarded,
    /// No: the connection ends with the packet.
    No,
}

impl Stays {
    /// Whether the connection stays known after this verdict on the packet.
    pub fn after(self, verdict: Verdict) -> bool {
        match self {
            Stays::Yes => true,
            Stays::IfForwarded => verdict == Verdict::Forward,
            Stays::No => false,
        }
    }
}

impl TrackedPacket {
    pub(super) const fn alone(state: ConnectionState) -> TrackedPacket {
        TrackedPacket { state, flow: None, source: None, stays: Stays::Yes }
    }
}

impl<'r> Tracker<'r> {
    pub(super) fn new(settings: &'r Tracking) -> Tracker<'r> {
        Tracker { settings, flows: HashMap::new(), count: 0, fragments: HashMap::new() }
    }

    /// A known connection.
    pub(super) fn flow(&self, key: &FlowKey, now: Time) -> Option<&Flow> {
        self.flows.get(key).filter(|flow| now < flow.expiry)
    }

    pub(super) fn flow_mut(&mut self, key: &FlowKey, now: Time) -> Option<&mut Flow> {
        self.flows.get_mut(key).filter(|flow| now < flow.expiry)
    }

    /// All known connections, and whether both ends of each have sent packets.
    pub(super) fn known(&self, now: Time) -> Vec<(FlowKey, bool)> {
        let known = self.flows.iter().filter(|(_, flow)| now < flow.expiry);
        known.map(|(key, flow)| (*key, flow.both_ways)).collect()
    }

    /// Removes expired connections and fragments.
    pub(super) fn sweep(&mut self, now: Time) {
        self.flows.retain(|_, flow| now < flow.expiry);
        self.fragments.retain(|_, (.., expiry)| now < *expiry);
    }

    /// Removes a connection.
    pub(super) fn forget(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    /// Tracks a packet of this network and returns its state.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, vlan: Vlan, now: Time) -> TrackedPacket {
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
            Identity::Untracked => TrackedPacket::alone(ConnectionState::Untracked),
            Identity::Unknown => TrackedPacket::alone(ConnectionState::Invalid),
            Identity::Error { about } => match about.filter(|quoted| self.may_have_sent(quoted, now)) {
                Some(quoted) => {
                    TrackedPacket { flow: Some(quoted.key), ..TrackedPacket::alone(ConnectionState::Related) }
                }
                None => TrackedPacket::alone(ConnectionState::Invalid),
            },
            Identity::Connection { key, source, opens } => {
                let is_fragment = part == Some(FragmentPart::First);
                let segment = Segment::of(packet, is_fragment);
                let advanced = match packet.protocol {
                    protocol::TCP => segment.and_then(|segment| self.advance_tcp(packet, &segment, key, source, now)),
                    _ => self.advance(packet, key, source, opens, now),
                };
                let Some(Advanced { state, stays, counts }) = advanced else {
                    return TrackedPacket::alone(ConnectionState::Invalid);
                };
                if let (true, Some(datagram)) = (is_fragment, datagram) {
                    let first = FirstFragment { key, source, counts, base: segment.map(|segment| segment.base()) };
                    self.fragments.insert(datagram, (first, now + FRAGMENT_TIMEOUT));
                }
                TrackedPacket { state, flow: Some(key), source: Some(source), stays }
            }
        }
    }

    /// Whether the packet that an ICMP error quotes belongs to a known connection.
    fn may_have_sent(&self, quoted: &Quoted, now: Time) -> bool {
        self.flow(&quoted.key, now).is_some_and(|flow| match &flow.tcp {
            Some(tcp) => {
                let back = flow.originator != quoted.source;
                quoted.sequence.is_some_and(|sequence| tcp.may_have_sent(back, sequence))
            }
            None => true,
        })
    }

    /// Tracks a later fragment, which belongs to its first fragment's connection.
    fn later_fragment(&mut self, packet: &Packet<'_>, first: FirstFragment, now: Time) -> TrackedPacket {
        let FirstFragment { key, source, counts, base } = first;
        let settings = self.settings;
        let Some(flow) = self.flow_mut(&key, now) else { return TrackedPacket::alone(ConnectionState::Invalid) };
        let back = flow.originator != source;
        if counts {
            flow.both_ways |= back;
            if let (Some(tcp), Some(base), Some(end)) = (&mut flow.tcp, base, packet.fragment_end()) {
                tcp.extend(back, base.wrapping_add(end));
            }
            flow.count(packet, back, now);
            // A fragment shortens no timeout, because its checksum cannot be verified.
            flow.expiry = flow.expiry.max(now + flow.timeout(settings, packet.protocol));
        }
        TrackedPacket { state: flow.state(), flow: Some(key), source: Some(source), stays: Stays::Yes }
    }

    /// Advances the connection of a packet that is not TCP, which the packet may begin. `None` if the packet cannot
    /// belong to the connection.
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

    /// As [`Tracker::advance`], for a TCP segment.
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
            let seen = SeenConnection { is_reply: back, both_ways: flow.both_ways, expiry: flow.expiry };
            Some((tcp.step(packet, segment, seen, now, settings), flow, back))
        });
        let stays = match known {
            None | Some((TcpStep::Anew, ..)) => {
                let tcp = TcpConnection::begin(segment, settings.loose_tcp)?;
                self.insert(key, source, Some(tcp));
                Stays::IfForwarded
            }
            Some((TcpStep::Impossible, ..)) => return None,
            Some((step @ (TcpStep::Aside | TcpStep::Remember | TcpStep::Challenge), flow, back)) => {
                flow.tcp.as_mut()?.take(segment, back, step);
                // An ACK in reply to a SYN has the state `established`, although it does not accept the connection.
                let state = if step == TcpStep::Challenge { ConnectionState::Established } else { flow.state() };
                return Some(Advanced { state, stays: Stays::Yes, counts: false });
            }
            Some((step, flow, back)) => {
                if step == TcpStep::Reopen {
                    flow.restart();
                }
                if flow.tcp.as_mut()?.take(segment, back, step) {
                    flow.originator = if flow.originator == key.ends[0] { key.ends[1] } else { key.ends[0] };
                }
                if step == TcpStep::Cross {
                    flow.both_ways = true;
                    return Some(Advanced { state: flow.state(), stays: Stays::Yes, counts: false });
                }
                if step == TcpStep::Over { Stays::No } else { Stays::Yes }
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

/// The effect of a packet on its connection.
struct Advanced {
    state: ConnectionState,
    stays: Stays,
    /// Whether the bytes and the time of the packet count.
    counts: bool,
}
