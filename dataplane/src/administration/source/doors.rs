//! The state of the address at each door: the progress of its knock, its grants, and the reason that its knocks are
//! ignored.

use std::time::Duration;

use knockplane_engine::state::doors::KnockSource;
use knockplane_policy::door::step::KnockStep;
use knockplane_policy::door::{Door, Failure};
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListEntry;
use knockplane_policy::wire::source::{
    IgnoredFor, SourceAttempts, SourceDoor, SourceGrant, SourceList, SourceProgress,
};

use crate::administration::Administration;
use crate::generation::Generation;

impl Administration {
    /// The state at all doors, from the entries of the address in this network.
    pub(super) fn doors_of(
        &self,
        source: KnockSource,
        lists: &[SourceList],
        generation: &Generation,
        now: Time,
    ) -> Vec<SourceDoor> {
        let KnockSource { address, vlan } = source;
        let ports = self.ports_of(source, generation, now).filter(|ports| ports.ignored);
        let settings = generation.table.settings();
        let mut failures = self.failures_of(address, now);
        failures.retain(|failure| settings.vlans.of(failure.failure.packet.vlan) == vlan);
        let doors = settings.doors.iter();
        doors
            .map(|door| {
                let counts = |entry: &ListEntry| entry.vlan == vlan || entry.vlan.is_none() && entry.to.is_none();
                let entries = |list: String| {
                    lists.iter().map(|list| &list.entry).filter(move |entry| entry.list == list && counts(entry))
                };
                let held_off = self.held_off(door, source, now);
                let attempts = self.attempts(door, source, now);
                let admitted = door.admits(address);
                let refused = attempts.filter(|attempts| attempts.used >= attempts.limit.into());
                let ignored = [
                    (!admitted).then_some((Failure::Source, None)),
                    ports.map(|ports| (Failure::Ports, Some(ports.time_left))),
                    held_off.map(|time| (Failure::HeldOff, Some(time))),
                    refused.map(|attempts| (Failure::Attempts, Some(attempts.time_left))),
                ];
                let mut ignored: Vec<IgnoredFor> =
                    ignored.into_iter().flatten().map(|(reason, time_left)| IgnoredFor { reason, time_left }).collect();
                ignored.sort_by_key(|ignored| std::cmp::Reverse(ignored.time_left.unwrap_or(Duration::MAX)));
                let grant = |entry: &ListEntry| SourceGrant { to: entry.to, time_left: entry.time_left };
                SourceDoor {
                    strict: door.strict,
                    steps: door.shape().steps,
                    has_passphrase: door.knock.iter().any(KnockStep::is_secret),
                    admitted,
                    progress: entries(door.knocking_list()).find_map(|entry| progress(entry, &door.knock)),
                    closing: entries(door.closing_list()).find_map(|entry| progress(entry, &door.close)),
                    grants: entries(door.open_list()).map(grant).collect(),
                    held_off,
                    attempts,
                    ignored,
                    failures: failures
                        .iter()
                        .filter(|failure| failure.door == door.name)
                        .map(|failure| failure.failure)
                        .collect(),
                    door: door.name.clone(),
                    vlan,
                }
            })
            .collect()
    }

    /// The remaining hold-off of the source at this door.
    fn held_off(&self, door: &Door, source: KnockSource, now: Time) -> Option<Duration> {
        let state = &self.shared.state;
        let open = state.lists.id(&door.open_list()).filter(|_| !door.hold_off.is_zero())?;
        state.visitors()?.held_until(open, source, now).map(|until| until.since(now))
    }

    /// The number of first steps of the source at this door, if the door limits them.
    fn attempts(&self, door: &Door, source: KnockSource, now: Time) -> Option<SourceAttempts> {
        let most = door.max_attempts?;
        let state = &self.shared.state;
        let begun = state.lists.id(&door.open_list()).zip(state.visitors());
        let begun = begun.and_then(|(open, visitors)| visitors.attempts_of(open, source, now));
        let (used, until) = begun.unwrap_or((0, now));
        Some(SourceAttempts { used, limit: most.count, per: most.per, time_left: until.since(now) })
    }
}

/// The progress of the entry in these steps. An entry of an operator has no steps.
fn progress(entry: &ListEntry, steps: &[KnockStep]) -> Option<SourceProgress> {
    let next = steps.get(usize::from(entry.steps)).filter(|_| entry.steps > 0)?;
    Some(SourceProgress {
        steps: entry.steps,
        of: u8::try_from(steps.len()).unwrap_or(u8::MAX),
        next: next.without_passphrase(),
        to: entry.to,
        time_left: entry.time_left.unwrap_or_default(),
    })
}
