//! Sources whose knocks are ignored, with the reason and the expiry, for operators.

use std::net::IpAddr;

use knockplane_policy::door::ports::Ports;
use knockplane_policy::door::{self, Failure};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{Source, Visitors};
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
        let mut add = |of: Option<Source>| vlans.extend(of.filter(|of| of.0 == source).map(|of| of.1));
        self.ports.visit(now, |(of, _), _| add(of));
        self.held.visit(now, |whom, _| add(whom.map(|(of, _)| of)));
        self.attempts.visit(now, |(whom, ..), _| add(whom.map(|(of, _)| of)));
        vlans.sort_unstable();
        vlans.dedup();
        vlans
    }

    /// The ports that the source has tried, if the state contains them.
    pub fn ports_of(&self, source: Source, now: Time) -> Option<Ports> {
        self.ports.get(self.source(source), now).map(|(_, ports)| ports)
    }

    /// Expiry of the hold-off of the source at the door with this open list.
    pub fn held_until(&self, open: ListId, source: Source, now: Time) -> Option<Time> {
        self.held.get_until(self.visitor(open, source), now).map(|(_, until)| until)
    }

    /// The number of first steps that the source took or tried at the door with this open list, and the expiry of this
    /// count.
    pub fn attempts_of(&self, open: ListId, source: Source, now: Time) -> Option<(u64, Time)> {
        let (_, begun, until) = self.attempts.get(self.visitor(open, source), now)?;
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
        self.ports.visit(now, |(source, ports), until| {
            if let Some((source, vlan)) = source.filter(|_| ports.are_too_many(now)) {
                visitor(Ignored { source, vlan, open: None, why: Failure::Ports, until });
            }
        });
        self.held.visit(now, |whom, until| {
            if let Some(((source, vlan), open)) = whom {
                visitor(Ignored { source, vlan, open: Some(open), why: Failure::HeldOff, until });
            }
        });
        self.attempts.visit(now, |(whom, begun, until), _| {
            if let Some(((source, vlan), open)) = whom
                && now < until
                && most_attempts(open).is_some_and(|most| begun >= most.into())
            {
                visitor(Ignored { source, vlan, open: Some(open), why: Failure::Attempts, until });
            }
        });
    }

    /// The maximum number of sources that each table of this state can contain.
    pub fn capacity(&self) -> usize {
        self.ports.capacity()
    }
}
