//! A live trace: the packets that it shows, and the facts of the decisions about them.
//!
//! ```text
//! src 198.51.100.7 dst-port 22
//! protocol tcp,udp and not dst 203.0.113.0/24 and verdict drop
//! ```
//! All terms must hold. A term is a word and its values; one of several values suffices. `not` reverses a term: a packet
//! without ports has no source port, and fits `not src-port 53`. Workers evaluate the filter before they copy anything.
//!
//! | file     | owns |
//! |----------|------|
//! | this     | the filter, and its evaluation |
//! | `facts.rs` | the facts of a decision in a trace |
//! | `parse.rs` | its text, and the errors of a text |

mod facts;
mod parse;

use std::net::IpAddr;

pub use self::facts::{TracedFacts, TracedKnock, TracedOutcome};
pub use self::parse::{MAX_FILTER, TraceFilterError};
use crate::packet::{Packet, Side, Vlan};
use crate::reason::{Reason, Verdict};
use crate::rule::{AddressSet, PortSet};

/// A filter of packets. Its evaluation allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    terms: Vec<TraceTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TraceTerm {
    negated: bool,
    condition: TraceCondition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TraceCondition {
    Source(Vec<AddressSet>),
    Destination(Vec<AddressSet>),
    SourcePort(PortSet),
    DestinationPort(PortSet),
    Protocol(Vec<u8>),
    Side(Vec<Side>),
    Vlan(Vec<Vlan>),
    Verdict(Vec<Verdict>),
    Reason(Vec<Reason>),
}

impl TraceFilter {
    /// Whether the headers of a packet fit. All packets of a flow have the same result.
    pub fn fits_packet(&self, packet: &Packet<'_>) -> bool {
        let (source_port, destination_port) = packet.ports.unzip();
        let has = |ports: &PortSet, port: Option<u16>| port.is_some_and(|port| ports.contains(port));
        self.fits(|condition| {
            Some(match condition {
                TraceCondition::Source(sets) => contain(sets, packet.source),
                TraceCondition::Destination(sets) => contain(sets, packet.destination),
                TraceCondition::SourcePort(ports) => has(ports, source_port),
                TraceCondition::DestinationPort(ports) => has(ports, destination_port),
                TraceCondition::Protocol(numbers) => numbers.contains(&packet.protocol),
                TraceCondition::Side(sides) => sides.contains(&packet.side),
                TraceCondition::Vlan(vlans) => vlans.contains(&packet.vlan().in_session(0)),
                TraceCondition::Verdict(_) | TraceCondition::Reason(_) => return None,
            })
        })
    }

    /// Whether a frame fits that rules do not see: it has a side, and perhaps a source that was not verified.
    pub fn fits_frame(&self, side: Side, source: Option<IpAddr>) -> bool {
        self.fits(|condition| {
            Some(match condition {
                TraceCondition::Source(sets) => source.is_some_and(|source| contain(sets, source)),
                TraceCondition::Side(sides) => sides.contains(&side),
                TraceCondition::Verdict(_) | TraceCondition::Reason(_) => return None,
                _ => false,
            })
        })
    }

    /// Whether a verdict fits.
    pub fn fits_verdict(&self, verdict: Verdict, reason: Reason) -> bool {
        self.fits(|condition| match condition {
            TraceCondition::Verdict(verdicts) => Some(verdicts.contains(&verdict)),
            TraceCondition::Reason(reasons) => Some(reasons.contains(&reason)),
            _ => None,
        })
    }

    /// Whether packets that arrive on a side can fit.
    pub fn fits_side(&self, side: Side) -> bool {
        self.fits(|condition| match condition {
            TraceCondition::Side(sides) => Some(sides.contains(&side)),
            _ => None,
        })
    }

    /// The sources of packets that can fit, as first and last addresses; `None` if the filter names none.
    pub fn sources(&self) -> Option<impl Iterator<Item = (IpAddr, IpAddr)>> {
        let sets = self.terms.iter().find_map(|term| match &term.condition {
            TraceCondition::Source(sets) if !term.negated => Some(sets),
            _ => None,
        })?;
        Some(sets.iter().map(AddressSet::bounds))
    }

    /// Whether all terms hold, without those for which `answer` is `None`.
    #[inline]
    fn fits(&self, answer: impl Fn(&TraceCondition) -> Option<bool>) -> bool {
        self.terms.iter().all(|term| answer(&term.condition).is_none_or(|answer| answer != term.negated))
    }
}

fn contain(sets: &[AddressSet], address: IpAddr) -> bool {
    sets.iter().any(|set| set.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::protocol;

    fn packet() -> Packet<'static> {
        let [source, destination] = ["198.51.100.7", "203.0.113.5"].map(|address| address.parse().expect("an address"));
        Packet { ports: Some((40_000, 22)), ..Packet::bare(Side::Outside, source, destination, protocol::TCP) }
    }

    fn filter(text: &str) -> TraceFilter {
        TraceFilter::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn all_terms_must_hold_and_one_value_of_each() {
        for fits in [
            "",
            "src 198.51.100.7",
            "src 198.51.100.0/24 dst-port 22",
            "src-address=198.51.100.1-198.51.100.9 and dst-port=1-21,22",
            "protocol udp,tcp side outside vlan untagged",
            "not src 192.0.2.0/24 not protocol icmp",
            "verdict drop reason rule",
        ] {
            assert!(filter(fits).fits_packet(&packet()), "{fits}");
        }
        for misses in [
            "src 198.51.100.8",
            "src 198.51.100.7 dst-port 23",
            "dst 198.51.100.7",
            "not dst-port 22",
            "src-port 22",
            "protocol udp",
            "side inside",
            "vlan 10",
        ] {
            assert!(!filter(misses).fits_packet(&packet()), "{misses}");
        }
    }

    #[test]
    fn what_a_packet_does_not_have_fits_only_the_contrary() {
        let icmp = Packet { ports: None, ..packet() };
        assert!(!filter("dst-port 22").fits_packet(&icmp) && filter("not dst-port 22").fits_packet(&icmp));
        let source = Some(packet().source);
        assert!(filter("src 198.51.100.7 not dst-port 22").fits_frame(Side::Outside, source));
        assert!(!filter("src 198.51.100.7").fits_frame(Side::Outside, None));
        assert!(!filter("protocol tcp").fits_frame(Side::Outside, source));
    }

    #[test]
    fn verdicts_are_separate_from_headers() {
        let drops = filter("dst-port 22 verdict drop not reason rule");
        assert!(drops.fits_verdict(Verdict::Drop, Reason::ChainDefault));
        assert!(!drops.fits_verdict(Verdict::Drop, Reason::Rule));
        assert!(!drops.fits_verdict(Verdict::Forward, Reason::ChainDefault));
        assert!(filter("dst-port 22").fits_verdict(Verdict::Forward, Reason::Rule));
    }

    #[test]
    fn a_term_about_the_side_excludes_the_other_side() {
        let fitting = |text: &str| [Side::Outside, Side::Inside].map(|side| filter(text).fits_side(side));
        assert_eq!(fitting("side inside src 192.0.2.1"), [false, true]);
        assert_eq!(fitting("not side inside"), [true, false]);
        assert_eq!(fitting("verdict drop"), [true, true]);
    }

    #[test]
    fn sources_are_those_of_a_term_that_is_not_reversed() {
        let sources = |text: &str| filter(text).sources().map(|sources| sources.count());
        assert_eq!(sources("dst-port 22 src 192.0.2.1,198.51.100.0/24"), Some(2));
        assert_eq!((sources("not src 192.0.2.1"), sources("dst 192.0.2.1")), (None, None));
    }
}
