//! Checks whether one matcher follows from another one. The result is true only if this is certain for every packet.
//!
//! Both matchers belong to one evaluation of the same packet. A stateful matcher may have another result the second
//! time, so no matcher implies it. Address lists only grow during an evaluation: the caller checks whether a rule in
//! between adds an address to a list that both matchers name.

use super::ranges::Ranges;
use super::truth::{allowed_ports, ends, family_of, overlap};
use super::view::View;
use crate::packet::protocol;
use crate::rule::{AddressSet, Condition, Matcher};
use crate::word::{Set, Word};

impl View<'_> {
    /// Whether `then` is true for every packet for which `given` is true.
    pub(super) fn implies(&self, given: &Matcher, then: &Matcher) -> bool {
        use Condition as C;
        let negations = (given.negated, then.negated);
        match (&given.condition, &then.condition) {
            (_, condition) if has_memory(condition) => false,
            (C::SrcAddress(given), C::SrcAddress(then)) | (C::DstAddress(given), C::DstAddress(then)) => {
                sets(negations, is_within(given, then), !overlap(given, then), is_within(then, given))
            }
            (C::SrcPort(a), C::SrcPort(b)) | (C::DstPort(a), C::DstPort(b)) => {
                allowed_ports(a, given.negated).is_subset(&allowed_ports(b, then.negated))
            }
            // Either port may match. The matcher is true if the known port is in the set.
            (C::SrcPort(a) | C::DstPort(a), C::AnyPort(b)) if !then.negated => {
                allowed_ports(a, given.negated).is_subset(&allowed_ports(b, false))
            }
            (C::AnyPort(a), C::AnyPort(b)) if given.negated == then.negated => {
                allowed_ports(a, given.negated).is_subset(&allowed_ports(b, then.negated))
            }
            (C::AnyPort(a), C::SrcPort(b) | C::DstPort(b)) if given.negated => {
                allowed_ports(a, true).is_subset(&allowed_ports(b, then.negated))
            }
            (C::Protocol(a), C::Protocol(b)) => values(negations, a, b),
            (C::Dscp(a), C::Dscp(b)) => values(negations, a, b),
            (C::SrcMacAddress(a), C::SrcMacAddress(b)) => values(negations, a, b),
            (C::Priority(a) | C::IngressPriority(a), C::Priority(b) | C::IngressPriority(b)) => values(negations, a, b),
            (C::PacketSize(a), C::PacketSize(b)) | (C::TcpMss(a), C::TcpMss(b)) => {
                let [a, b] = [a, b].map(|range| Ranges::of([range.clone()]));
                sets(negations, a.is_subset(&b), !a.intersects(&b), b.is_subset(&a))
            }
            (C::IcmpOptions { kind: a, codes: x }, C::IcmpOptions { kind: b, codes: y }) => {
                let within = |inner: &std::ops::RangeInclusive<u8>, outer: &std::ops::RangeInclusive<u8>| {
                    a == b && outer.start() <= inner.start() && inner.end() <= outer.end()
                };
                let disjoint = a != b || x.end() < y.start() || y.end() < x.start();
                sets(negations, within(x, y), disjoint, within(y, x))
            }
            (C::TcpFlags { set: a, clear: x }, C::TcpFlags { set: b, clear: y }) => match negations {
                (false, false) => b.is_subset(*a) && y.is_subset(*x),
                (false, true) => b.intersects(*x) || y.intersects(*a),
                _ => given == then,
            },
            (C::Ttl(a), C::Ttl(b)) | (C::HopLimit(a), C::HopLimit(b)) => {
                let is_true = |number| a.holds(number) != given.negated;
                (0..=u8::MAX).filter(|number| is_true(*number)).all(|number| b.holds(number) != then.negated)
            }
            (C::ConnectionState(a), C::ConnectionState(b)) => words(negations, *a, *b),
            (C::SrcAddressType(a), C::SrcAddressType(b)) | (C::DstAddressType(a), C::DstAddressType(b)) => {
                words(negations, *a, *b)
            }
            (C::Fragment(a), C::Fragment(b)) => (*a != given.negated) == (*b != then.negated),
            (C::Interface { .. }, C::Interface { .. }) => match (self.sides(given), self.sides(then)) {
                (Some(given), Some(then)) => given.is_subset(then),
                _ => false,
            },
            // The same condition has the same result. The cases above handle conditions with opposite results.
            (a, b) => a == b && given.negated == then.negated,
        }
    }

    /// Whether no packet can match both.
    pub(super) fn excludes(&self, one: &Matcher, other: &Matcher) -> bool {
        let opposite = Matcher { negated: !other.negated, condition: other.condition.clone() };
        let same = one.condition == other.condition && one.negated != other.negated;
        // Each matcher has its own state, so even opposite conditions may both be true.
        !has_memory(&other.condition) && (same || self.implies(one, &opposite))
    }
}

/// Whether the result depends on earlier packets at this rule, or on chance.
pub(super) const fn has_memory(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::Psd { .. }
            | Condition::ConnectionLimit { .. }
            | Condition::Random(_)
            | Condition::Nth { .. }
            | Condition::Limit(_)
            | Condition::DstLimit { .. }
            | Condition::Other { .. }
    )
}

/// The protocols that a packet must have for the matcher to be true, negated or not; `None` if any protocol is
/// possible.
pub(super) const fn protocols(condition: &Condition) -> Option<&'static [u8]> {
    match condition {
        Condition::TcpFlags { .. } | Condition::TcpMss(_) | Condition::TlsHost(_) => Some(&[protocol::TCP]),
        Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) | Condition::Psd { .. } => {
            Some(&[protocol::TCP, protocol::UDP])
        }
        Condition::IcmpOptions { .. } => Some(&[protocol::ICMP, protocol::ICMPV6]),
        _ => None,
    }
}

/// Whether one of two sets, each possibly negated, contains the other, from the relation of the sets. The complement of
/// a set never counts as inside the other one.
const fn sets(negations: (bool, bool), within: bool, disjoint: bool, around: bool) -> bool {
    match negations {
        (false, false) => within,
        (false, true) => disjoint,
        (true, true) => around,
        (true, false) => false,
    }
}

fn values<T: PartialEq>(negations: (bool, bool), given: &T, then: &T) -> bool {
    let same = given == then;
    sets(negations, same, !same, same)
}

/// Sets of words that may be negated. An empty set is always true, so it implies nothing.
fn words<T: Word>((given_negated, then_negated): (bool, bool), given: Set<T>, then: Set<T>) -> bool {
    let is_asked = |set: Set<T>, negated: bool, word: &T| set.contains(*word) != negated;
    !given.is_empty()
        && !then.is_empty()
        && T::ALL
            .iter()
            .filter(|word| is_asked(given, given_negated, word))
            .all(|word| is_asked(then, then_negated, word))
}

fn is_within(inner: &AddressSet, outer: &AddressSet) -> bool {
    let ((first, last), (outer_first, outer_last)) = (ends(inner), ends(outer));
    family_of(inner) == family_of(outer) && outer_first <= first && last <= outer_last
}
