//! Sources whose knocks are ignored, with the reason and the expiry, for operators.

use std::net::IpAddr;

use knockplane_policy::door::ports::Ports;
use knockplane_policy::door::{self, Failure};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{KnockSource, StoredSource, Visitors, Whom};
use crate::state::lists::ListId;

/// A source whose knocks are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The source; over IPv6 the first address of its /64.
    pub source: IpAddr,
    /// The network.
    pub vlan: Vlan,
    /// The open list of the door; `None` if all doors ignore the source.
    pub open: Option<ListId>,
    /// [`Failure::Ports`], [`Failure::HeldOff`] or [`Failure::Attempts`].
    pub why: Failure,
    /// Expiry.
    pub until: Time,
}

impl Visitors {
    /// The networks that have state of a source, in order.
    pub fn vlans_of(&self, source: IpAddr, now: Time) -> Vec<Vlan> {
        let source = door::visitor(source);
        let mut vlans = Vec::new();
        let mut add = |of: StoredSource| vlans.extend(of.get().filter(|of| of.address == source).map(|of| of.vlan));
        self.ports.visit(now, |(of, _), _| add(of));
        self.held.visit(now, |whom, _| whom.into_iter().for_each(|(of, _)| add(of)));
        self.attempts.visit(now, |(whom, ..), _| whom.into_iter().for_each(|(of, _)| add(of)));
        vlans.sort_unstable();
        vlans.dedup();
        vlans
    }

    /// The ports that the source has tried, if the state contains them.
    pub fn ports_of(&self, source: KnockSource, now: Time) -> Option<Ports> {
        self.ports.get(self.visitor(source).tag, now).map(|(_, ports)| ports)
    }

    /// Expiry of the hold-off of the source at the door with this open list.
    pub fn held_until(&self, open: ListId, source: KnockSource, now: Time) -> Option<Time> {
        self.held.get_until(self.visitor(source).at(open), now).map(|(_, until)| until)
    }

    /// The number of first steps that the source took or tried at the door with this open list, and the expiry of this
    /// count.
    pub fn attempts_of(&self, open: ListId, source: KnockSource, now: Time) -> Option<(u64, Time)> {
        let (_, begun, until) = self.attempts.get(self.visitor(source).at(open), now)?;
        (now < until).then_some((begun, until))
    }

    /// Calls the visitor with every source whose knocks are ignored, in no order. `most_attempts` returns the number of
    /// first steps that a door allows; `None` is no limit.
    pub fn visit_ignored(
        &self,
        now: Time,
        most_attempts: impl Fn(ListId) -> Option<u8>,
        mut visitor: impl FnMut(Ignored),
    ) {
        let at = |whom: Whom| whom.and_then(|(source, open)| Some((source.get()?, open)));
        self.ports.visit(now, |(source, ports), until| {
            if let Some(KnockSource { address, vlan }) = source.get().filter(|_| ports.are_too_many(now)) {
                visitor(Ignored { source: address, vlan, open: None, why: Failure::Ports, until });
            }
        });
        self.held.visit(now, |whom, until| {
            if let Some((KnockSource { address, vlan }, open)) = at(whom) {
                visitor(Ignored { source: address, vlan, open: Some(open), why: Failure::HeldOff, until });
            }
        });
        self.attempts.visit(now, |(whom, begun, until), _| {
            if let Some((KnockSource { address, vlan }, open)) = at(whom)
                && now < until
                && most_attempts(open).is_some_and(|most| begun >= most.into())
            {
                visitor(Ignored { source: address, vlan, open: Some(open), why: Failure::Attempts, until });
            }
        });
    }

    /// The maximum number of sources that each table of this state can contain.
    pub fn capacity(&self) -> usize {
        self.ports.capacity()
    }
}
