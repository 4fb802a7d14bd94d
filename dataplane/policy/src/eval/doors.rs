//! Doors in the reference evaluator: knocks in progress and grants.
//!
//! [`progress::next`] defines the effect of a packet on a knock. Before it, these checks apply in this order: port
//! budget, closing knock, permitted sources, exemptions, hold-off, attempts.
//!
//! A timeout causes no event: a late packet begins a new knock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Evaluator;
use super::rule_evaluation::RuleEvaluation;
use super::tracking::Stays;
use crate::door::exempt::Exempt;
use crate::door::ports::{self, Ports};
use crate::door::progress::{self, KnockOutcome, KnockProgress, StepSet};
use crate::door::{Door, DoorEvent, Failure, What, visitor};
use crate::packet::{Packet, Vlan};
use crate::time::{Time, format_duration};
use crate::word::Word as _;

/// A source: its network and its address.
type Source = (Vlan, IpAddr);

/// The state of all doors. Keys are a door's list and a source, or a door and a source.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// The exemptions, by the name of the door.
    exempt: HashMap<String, Exempt>,
    /// Opening and closing knocks in progress.
    knocks: HashMap<(String, Source), KnockProgress>,
    /// The expiry of each grant, by list, source and destination.
    grants: HashMap<(String, Source, IpAddr), Time>,
    /// Time until which a source's knocks at a door are ignored (hold-off).
    held: HashMap<(String, Source), Time>,
    /// First steps of a source at a door, and the time until which they count.
    attempts: HashMap<(String, Source), (u64, Time)>,
    /// The ports that a source has tried.
    ports: HashMap<Source, Ports>,
}

/// The source of hold-off, attempts and ports, see [`visitor`].
fn visitor_of((vlan, source): Source) -> Source {
    (vlan, visitor(source))
}

impl Doors {
    /// Creates the state without knocks and grants.
    pub(super) fn new(doors: &[Door]) -> Doors {
        let exempt = doors.iter().map(|door| (door.name.clone(), Exempt::at(door, doors))).collect();
        Doors { exempt, ..Doors::default() }
    }

    /// Whether the address is in a door's list for packets to or from the address `other`, whose tag is `to`.
    pub(super) fn hold(&self, list: &str, address: Source, other: IpAddr, to: u32, now: Time) -> bool {
        let granted = self.grants.get(&(list.to_owned(), address, other)).is_some_and(|until| now < *until);
        let knocks = self.knocks.get(&(list.to_owned(), address));
        granted || knocks.is_some_and(|at| at.to == to && now < at.deadline)
    }

    /// The sources in the doors' lists for any destination, with the time left.
    pub(super) fn live(&self, now: Time) -> HashMap<(String, Source), Duration> {
        let mut live = HashMap::<_, Duration>::new();
        let grants = self.grants.iter().map(|((list, source, _), until)| ((list.clone(), *source), *until));
        let knocks = self.knocks.iter().map(|(key, at)| (key.clone(), at.deadline));
        for (key, until) in grants.chain(knocks).filter(|(_, until)| now < *until) {
            let left = live.entry(key).or_default();
            *left = until.since(now).max(*left);
        }
        live
    }

    /// Removes expired state.
    pub(super) fn sweep(&mut self, now: Time) {
        self.knocks.retain(|_, at| now < at.deadline);
        self.grants.retain(|_, until| now < *until);
        self.held.retain(|_, until| now < *until);
        self.attempts.retain(|_, (_, until)| now < *until);
        self.ports.retain(|_, ports| now < ports.until());
    }

    /// Whether the source has tried too many ports, including the port of this packet.
    fn ignore(
        &mut self,
        budget: &ports::PortBudget,
        secret: [u64; 2],
        (vlan, packet): (Vlan, &Packet<'_>),
        now: Time,
    ) -> bool {
        let known = self.ports.entry(visitor_of((vlan, packet.source))).or_default();
        match ports::bit(secret, packet) {
            Some(bit) => known.ignores(bit, budget, now),
            None => known.are_too_many(now),
        }
    }

    /// Whether the source opened the door recently.
    fn is_held(&self, door: &Door, source: Source, now: Time) -> bool {
        self.held.get(&(door.name.clone(), visitor_of(source))).is_some_and(|until| now < *until)
    }

    /// Whether the source may begin another knock.
    fn attempt(&mut self, door: &Door, source: Source, now: Time) -> bool {
        let Some(most) = door.max_attempts else { return true };
        let known = self.attempts.entry((door.name.clone(), visitor_of(source))).or_insert((0, now + most.per));
        if now >= known.1 {
            *known = (0, now + most.per);
        }
        known.0 += 1;
        known.0 <= u64::from(most.count)
    }

    /// Stores the progress of the source, or removes it.
    fn remember(&mut self, list: String, source: Source, progress: Option<KnockProgress>) {
        match progress {
            Some(progress) => self.knocks.insert((list, source), progress),
            None => self.knocks.remove(&(list, source)),
        };
    }
}

impl Evaluator<'_> {
    /// Adds an entry of a door's list that counts for one peer: a knock with this number of steps, or a grant if it is
    /// 0. Entries for an IPv6 peer are ignored, because a dataplane stores only its tag.
    pub fn put_for(
        &mut self,
        list: &str,
        (vlan, address): (Vlan, IpAddr),
        other: IpAddr,
        steps: u8,
        time_left: Option<Duration>,
        now: Time,
    ) {
        let deadline = time_left.map_or(Time::NEVER, |left| now + left);
        let address = (self.settings.vlans.of(vlan), address);
        match steps {
            _ if other.is_ipv6() => {}
            0 => _ = self.doors.grants.insert((list.to_owned(), address, other), deadline),
            _ => {
                let progress = KnockProgress { steps, to: progress::tag(self.secret, other), begun: now, deadline };
                self.doors.remember(list.to_owned(), address, Some(progress));
            }
        }
    }
}

impl RuleEvaluation<'_, '_> {
    /// Whether the list contains the address, by an entry of a rule or the file, or by an entry of a door that counts
    /// for the address `other`.
    pub(super) fn is_listed(&self, list: &str, address: IpAddr, other: IpAddr) -> bool {
        if self.record.as_ref().is_some_and(|record| record.lists(address == self.packet.source).contains(list)) {
            return true;
        }
        let evaluator = &self.evaluator;
        let to = progress::tag(evaluator.secret, other);
        let vlan = evaluator.settings.vlans.of_lists(self.vlan);
        evaluator.lists.contains_within(vlan, list, address, self.now)
            || evaluator.doors.hold(list, (self.vlan, address), other, to, self.now)
    }

    /// `knock`: tests the packet against the door's knocks. Returns the effect for explanations.
    pub(super) fn knock(&mut self, name: &str) -> Option<String> {
        let settings = self.evaluator.settings;
        let door = settings.doors.iter().find(|door| door.name == name)?;
        if let Some(record) = &mut self.record {
            return record.knock(door);
        }
        let (secret, now) = (self.evaluator.secret, self.now);
        let fits = StepSet::of(&door.knock, self.packet);
        if self.evaluator.doors.ignore(&settings.port_budget, secret, (self.vlan, self.packet), now) {
            let is_step = fits != StepSet(0) || StepSet::of(&door.close, self.packet) != StepSet(0);
            return is_step.then(|| self.failed(door, Failure::Ports));
        }
        self.closing(door).or_else(|| self.opening(door, fits))
    }

    /// The closing knock, for a source with a grant.
    fn closing(&mut self, door: &Door) -> Option<String> {
        let (shape, now) = (door.closing_shape()?, self.now);
        let (source, destination) = ((self.vlan, self.packet.source), self.packet.destination);
        let doors = &mut self.evaluator.doors;
        let grant = (door.open_list(), source, destination);
        doors.grants.get(&grant).filter(|until| now < **until)?;
        if doors.is_held(door, source, now) {
            // No step of the knock that opened the door closes it.
            return None;
        }
        let list = door.closing_list();
        let at = doors.knocks.get(&(list.clone(), source)).copied();
        let fits = StepSet::of(&door.close, self.packet);
        match progress::next(shape, at, fits, progress::tag(self.evaluator.secret, destination), now) {
            KnockOutcome::Stepped(progress) => {
                doors.remember(list, source, Some(progress));
                None
            }
            KnockOutcome::Opened => {
                doors.grants.remove(&grant);
                doors.remember(list, source, None);
                doors.remember(door.knocking_list(), source, None);
                self.tell_of(door, What::Closed);
                Some(format!("door {} closed", door.name))
            }
            KnockOutcome::Nothing | KnockOutcome::Repeated | KnockOutcome::StartedOver(_) => None,
        }
    }

    fn opening(&mut self, door: &Door, fits: StepSet) -> Option<String> {
        let (source, destination, now) = ((self.vlan, self.packet.source), self.packet.destination, self.now);
        if !door.admits(source.1) {
            return fits.contains(0).then(|| self.failed(door, Failure::Source));
        }
        if fits == StepSet(0) && self.is_exempt(door) {
            let progress = self.evaluator.doors.knocks.get(&(door.knocking_list(), source));
            return progress.map(|_| format!("no effect at door {}: the packet is to an open port", door.name));
        }
        let doors = &mut self.evaluator.doors;
        if doors.is_held(door, source, now) {
            return (fits != StepSet(0)).then(|| self.failed(door, Failure::HeldOff));
        }
        let (list, shape) = (door.knocking_list(), door.shape());
        let at = doors.knocks.get(&(list.clone(), source)).copied();
        let mut outcome = progress::next(shape, at, fits, progress::tag(self.evaluator.secret, destination), now);
        let refused = outcome.begins(shape) && !doors.attempt(door, source, now);
        if refused {
            outcome = outcome.without_beginning();
        }
        match outcome {
            KnockOutcome::Nothing | KnockOutcome::Repeated => {}
            KnockOutcome::Stepped(progress) => doors.remember(list, source, Some(progress)),
            KnockOutcome::StartedOver(progress) => doors.remember(list, source, progress),
            KnockOutcome::Opened => {
                doors.remember(list, source, None);
                doors.grants.insert((door.open_list(), source, destination), now + door.open_for);
                doors.held.insert((door.name.clone(), visitor_of(source)), now + door.hold_off);
            }
        }
        let said = self.said(door, outcome);
        if refused {
            let failed = self.failed(door, Failure::Attempts);
            return Some(said.into_iter().chain([failed]).collect::<Vec<_>>().join("; "));
        }
        said
    }

    /// Whether the packet, which matches no step, is exempt at the door.
    fn is_exempt(&self, door: &Door) -> bool {
        let Packet { source, destination, .. } = *self.packet;
        let exempt = self.evaluator.doors.exempt.get(&door.name);
        exempt.is_some_and(|it| it.covers(self.packet, |list| self.is_listed(list, source, destination)))
    }

    /// Records the result as an event, and returns its text for explanations.
    fn said(&mut self, door: &Door, outcome: KnockOutcome) -> Option<String> {
        let name = &door.name;
        let step = |progress: KnockProgress| format!("step {} of door {name}", progress.steps);
        match outcome {
            KnockOutcome::Nothing => None,
            KnockOutcome::Repeated => Some(format!("a repeated step of door {name}")),
            KnockOutcome::Stepped(progress) => {
                self.tell_of(door, What::Stepped(progress.steps));
                Some(step(progress))
            }
            KnockOutcome::Opened => {
                self.tell_of(door, What::Opened);
                Some(format!("door {name} opened for {}", format_duration(door.open_for)))
            }
            KnockOutcome::StartedOver(progress) => {
                self.tell_of(door, What::Failed(Failure::StartedOver));
                let over = format!("restarts the knock at door {name}");
                Some(progress.map_or(over.clone(), |progress| format!("{over}: {}", step(progress))))
            }
        }
    }

    fn failed(&mut self, door: &Door, why: Failure) -> String {
        self.tell_of(door, What::Failed(why));
        format!("a failed step of door {}: {}", door.name, why.name())
    }

    fn tell_of(&mut self, door: &Door, what: What) {
        let (source, destination) = (self.packet.source, self.packet.destination);
        self.doors.push(DoorEvent { door: door.name.clone(), source, destination, what });
    }

    /// `accept` with a `door`: assigns the connection that begins with this packet, if any, to the door.
    pub(super) fn accept_door(&mut self, name: &str) -> Option<String> {
        let seen = self.seen.filter(|seen| seen.source.is_some() && seen.stays == Stays::IfForwarded)?;
        let flow = self.evaluator.tracker.flow_mut(&seen.flow?, self.now)?;
        flow.door = Some(name.to_owned());
        Some(format!("the connection belongs to door {name}"))
    }
}
