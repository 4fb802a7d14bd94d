//! What is not well, and what to do: for `show status`, the most severe first.
//!
//! `ready` decides whether the dataplane decides packets. This module tells all reasons, not only the first one, and adds the
//! conditions that do not prevent it.

use knockplane_policy::packet::Side;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::connections::FULL_FOR;
use knockplane_policy::wire::offload::OffloadWarning;
use knockplane_policy::wire::{DataplaneStatus, Drift, PendingConfirmation, UnconfirmedChange};
use knockplane_policy::word::Word as _;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::messages::Control;
use crate::ready::HEARTBEAT_WITHIN;

/// How severe a problem is. The most severe is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// Frames do not pass as they should.
    Outage,
    /// Something changes soon unless an operator acts.
    Pending,
    /// Something is lost, or will be after a restart.
    Warning,
}

/// A problem and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// What is not well.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) remedy: String,
}

/// All problems, the most severe first.
pub(crate) fn problems(status: &DataplaneStatus, control: &Control) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |severity, problem: String, remedy: String| {
        let problem = Problem { severity, problem, remedy };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    let restart = || "`systemctl restart knockplane-dataplane`, and see its log".to_owned();
    for side in Side::ALL {
        let Some(interface) = status.interfaces.iter().find(|interface| interface.side == side) else {
            add(Severity::Outage, format!("no {side} interface is attached"), restart());
            continue;
        };
        for Drift { kind, problem } in &interface.drift {
            add(Severity::Outage, problem.clone(), format!("docs/drift.md has the case `{}`", kind.name()));
        }
        if !interface.up {
            let name = &interface.name;
            let problem = format!("the link of the {side} interface {name} is down");
            add(Severity::Outage, problem, format!("check the cable and the far end; `ip link show {name}`"));
        }
    }
    if status.workers.is_empty() {
        add(Severity::Outage, "no worker runs".to_owned(), restart());
    }
    for worker in &status.workers {
        let number = worker.worker;
        match worker.heartbeat_age {
            None => add(Severity::Outage, format!("worker {number} has not started yet"), "wait a moment".to_owned()),
            Some(age) if age >= HEARTBEAT_WITHIN => {
                let age = age.as_secs_f64();
                let problem =
                    format!("worker {number} has sent no heartbeat for {age:.1} s: its queue drops all frames");
                add(Severity::Outage, problem, restart());
            }
            Some(_) => {}
        }
        if worker.lost > 0 {
            let frames_are = if worker.lost == 1 { "frame is" } else { "frames are" };
            let problem = format!("{} {frames_are} in no known place at worker {number}", worker.lost);
            add(Severity::Outage, problem, "this is a defect: report it with the log".to_owned());
        }
    }
    if let Some(pending) = &status.confirmation {
        add(Severity::Pending, pending_problem(pending), "`knockctl confirm` keeps it".to_owned());
    }
    let full = status.connections.as_ref().filter(|table| table.last_refused.is_some_and(|age| age < FULL_FOR));
    if let Some(table) = full {
        let packets = if table.refused == 1 { "packet" } else { "packets" };
        let problem =
            format!("the table of connections is full: {} {packets} of new connections found no room", table.refused);
        let capacity = table.capacity;
        let remedy = format!(
            "raise `connection-capacity` ({capacity}); `knockctl show connections --count` shows what fills it"
        );
        add(Severity::Warning, problem, remedy);
    }
    for OffloadWarning { problem, remedy } in status.offload.warnings() {
        add(Severity::Warning, problem, remedy.to_owned());
    }
    let disk = || "check the disk of `state-dir`".to_owned();
    if let Some(problem) = status.journal.warning() {
        add(Severity::Warning, problem, disk());
    }
    if let Some(problem) = status.stored_counters.warning() {
        add(Severity::Warning, problem, disk());
    }
    let damages = [
        (
            &status.static_entries_damage,
            "compare `knockctl list show --static` with your records, and add what is missing",
        ),
        (&status.journal.restore.damage, "sources whose grants are lost must knock again"),
        (&status.stored_counters.damage, "counters of rules began anew; nothing else is lost"),
    ];
    for (damage, remedy) in damages {
        if let Some(damage) = damage {
            add(Severity::Warning, damage.clone(), remedy.to_owned());
        }
    }
    if status.settings_differ_from_file {
        let problem = "the doors and [policy] are those from before a reload that was not confirmed";
        add(Severity::Warning, problem.to_owned(), "`knockctl reload` takes those of the file".to_owned());
    }
    for (process, log) in [("dataplane", &status.log), ("control process", &control.log)] {
        if let Some(problem) = &log.problem {
            let problem = format!("log lines of the {process} are not written: {problem}");
            add(Severity::Warning, problem, "check the reader of its standard error, such as journald".to_owned());
        }
    }
    if let Some(problem) = control.audit.as_ref().and_then(|audit| audit.problem.as_ref()) {
        let problem = format!("the audit file is not written: {problem}");
        add(Severity::Warning, problem, "check the disk of `audit` in [control]; its lines wait meanwhile".to_owned());
    }
    problems.sort_by_key(|problem| problem.severity);
    problems
}

/// The change that is rolled back soon.
fn pending_problem(pending: &PendingConfirmation) -> String {
    let PendingConfirmation { change, generation, time_left, back_to, .. } = pending;
    let what = match change {
        UnconfirmedChange::Apply => "the rules",
        UnconfirmedChange::Reload => "the doors and [policy]",
    };
    let left = format_duration(*time_left);
    format!("generation {generation} is rolled back in {left} to {what} of generation {back_to}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use knockplane_policy::wire::DriftKind;
    use knockplane_policy::wire::connections::ConnectionTableStatus;
    use knockplane_policy::wire::offload::Offload;

    use super::*;
    use crate::ready;
    use crate::sample;

    fn of(status: &DataplaneStatus) -> Vec<(Severity, String)> {
        let problems = problems(status, &Control::default());
        assert!(problems.iter().all(|problem| !problem.remedy.is_empty()), "{problems:?}");
        problems.into_iter().map(|problem| (problem.severity, problem.problem)).collect()
    }

    #[test]
    fn a_working_dataplane_has_no_problem() {
        assert_eq!(of(&sample::status()), []);
    }

    #[test]
    fn whatever_is_not_ready_or_warned_of_is_a_problem() {
        let drift = |status: &mut DataplaneStatus| {
            let drift = Drift { kind: DriftKind::Mtu, problem: "kp-in has an MTU of 9000".into() };
            status.interfaces.iter_mut().for_each(|interface| interface.drift.push(drift.clone()));
        };
        type Change<'c> = (&'static str, &'c dyn Fn(&mut DataplaneStatus));
        let changes: [Change<'_>; 15] = [
            ("MTU of 9000", &drift),
            ("is down", &|status| status.interfaces[1].up = false),
            ("no inside interface", &|status| _ = status.interfaces.pop()),
            ("no worker runs", &|status| status.workers.clear()),
            ("has not started", &|status| status.workers[0].heartbeat_age = None),
            ("no heartbeat for 2.0 s", &|status| status.workers[1].heartbeat_age = Some(Duration::from_secs(2))),
            ("rolled back in", &|status| status.confirmation = sample::metrics().status.confirmation),
            ("is full: 1 packet of", &|status| {
                let last_refused = Some(Duration::from_secs(59));
                status.connections = Some(ConnectionTableStatus { known: 9, capacity: 8, refused: 1, last_refused });
            }),
            ("no checksum", &|status| {
                status.offload = Offload { checksums: [0, 4], too_long: 0, last: Some(Duration::from_secs(5)) };
            }),
            ("not on the disk", &|status| status.journal.problem = Some("No space left".into())),
            ("counters of rules are not", &|status| status.stored_counters.problem = Some("No space left".into())),
            ("lists.state is damaged", &|status| status.static_entries_damage = Some("lists.state is damaged".into())),
            ("grants.state is damaged", &|status| {
                status.journal.restore.damage = Some("grants.state is damaged".into())
            }),
            ("not confirmed", &|status| status.settings_differ_from_file = true),
            ("log lines of the dataplane", &|status| status.log.problem = Some("Broken pipe".into())),
        ];
        for (told, change) in changes {
            let mut status = sample::status();
            change(&mut status);
            let problems = of(&status);
            assert!(problems.len() == 1 && problems[0].1.contains(told), "{told}: {problems:?}");
            let is_outage = problems[0].0 == Severity::Outage;
            assert_eq!(is_outage, ready::check(&status).is_err(), "{told}");
        }
        let mut status = sample::status();
        changes.iter().filter(|(told, _)| !told.contains("no ")).for_each(|(_, change)| change(&mut status));
        let problems = of(&status);
        assert!(problems.is_sorted_by_key(|(severity, _)| *severity) && problems.len() > 8, "{problems:?}");
    }
}
