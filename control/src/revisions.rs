//! Steps through revisions, and changes that are based on an earlier one.
//!
//! Undo and redo follow from the origins of the revisions alone, so they need no further state and survive restarts.

use knockplane_policy::wire::history::{History, Revision, RevisionOrigin};

/// The revision to which an undo or a redo returns.
///
/// # Errors
/// There is none.
pub(crate) fn target(history: &History, origin: RevisionOrigin) -> Result<u64, String> {
    let steps = Steps::of(&history.revisions);
    let (target, missing) = match origin {
        RevisionOrigin::Redo => {
            (steps.redo(), "there is no undo to reverse: none was made, or other changes followed; nothing changed")
        }
        _ => (steps.undo(), "there is no change to undo: the history has no revision before it; nothing changed"),
    };
    target.ok_or_else(|| missing.to_owned())
}

/// The refusal of a change that is based on a revision that does not run.
pub(crate) fn stale(history: &History, base: u64) -> String {
    let changed = || {
        format!("another change ended meanwhile; nothing changed: repeat the command, because revision {base} runs now")
    };
    history.check_base(base).err().unwrap_or_else(changed)
}

/// The changes that are in force, and those that were undone: numbers of revisions.
#[derive(Clone, Debug, Default)]
struct Steps {
    /// The changes in force, in order. The rules of the last one run.
    done: Vec<u64>,
    /// The changes that were undone since the last other change, in the order of the undos.
    undone: Vec<u64>,
}

impl Steps {
    /// The steps that these revisions are. A reload changes only rules of doors, which no undo restores. After a change that
    /// was not confirmed, the steps are those before it.
    fn of(revisions: &[Revision]) -> Steps {
        let (mut steps, mut before) = (Steps::default(), Steps::default());
        for Revision { number, origin, .. } in
            revisions.iter().filter(|revision| revision.origin != RevisionOrigin::Reload)
        {
            let last = steps.clone();
            match origin {
                RevisionOrigin::Unconfirmed => steps = before,
                RevisionOrigin::Undo => steps.undone.extend(steps.done.pop()),
                RevisionOrigin::Redo => steps.done.push(steps.undone.pop().unwrap_or(*number)),
                _ => {
                    steps.done.push(*number);
                    steps.undone.clear();
                }
            }
            // The revision before the oldest one that is kept is missing, but its rules run as this revision.
            if steps.done.is_empty() {
                steps.done.push(*number);
            }
            before = last;
        }
        steps
    }

    /// The revision to which an undo returns.
    fn undo(&self) -> Option<u64> {
        self.done.len().checked_sub(2).map(|before| self.done[before])
    }

    /// The revision to which a redo returns.
    fn redo(&self) -> Option<u64> {
        self.undone.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use RevisionOrigin::{Apply, Edit, Redo, Reload, Rollback, Start, Unconfirmed, Undo};
    use proptest::prelude::*;

    use super::*;

    /// The targets after revisions with these origins, numbered from `first`.
    fn targets(first: u64, origins: &[RevisionOrigin]) -> (Option<u64>, Option<u64>) {
        let sample = crate::sample::history().revisions.remove(0);
        let revision =
            |(number, origin): (u64, &RevisionOrigin)| Revision { number, origin: *origin, ..sample.clone() };
        let steps = Steps::of(&(first..).zip(origins).map(revision).collect::<Vec<_>>());
        (steps.undo(), steps.redo())
    }

    #[test]
    fn undos_go_back_and_redos_go_forward_until_another_change() {
        for (origins, undo, redo) in [
            (&[][..], None, None),
            (&[Start], None, None),
            (&[Start, Apply], Some(1), None),
            (&[Start, Apply, Edit], Some(2), None),
            (&[Start, Apply, Edit, Undo], Some(1), Some(3)),
            (&[Start, Apply, Edit, Undo, Undo], None, Some(2)),
            (&[Start, Apply, Edit, Undo, Undo, Redo], Some(1), Some(3)),
            (&[Start, Apply, Edit, Undo, Undo, Redo, Redo], Some(2), None),
            (&[Start, Apply, Edit, Undo, Edit], Some(2), None),
            (&[Start, Apply, Edit, Rollback], Some(3), None),
            (&[Start, Apply, Reload, Edit, Reload], Some(2), None),
            (&[Start, Apply, Edit, Undo, Reload], Some(1), Some(3)),
            (&[Start, Apply, Edit, Unconfirmed], Some(1), None),
            (&[Start, Apply, Edit, Undo, Unconfirmed], Some(2), None),
            (&[Start, Apply, Edit, Undo, Redo, Reload, Unconfirmed], Some(1), Some(3)),
        ] {
            assert_eq!(targets(1, origins), (undo, redo), "{origins:?}");
        }
    }

    /// The rules before the oldest revision are not known.
    #[test]
    fn no_undo_goes_beyond_the_oldest_revision() {
        assert_eq!(targets(7, &[Undo]), (None, None));
        assert_eq!(targets(7, &[Redo]), (None, None));
        assert_eq!(targets(7, &[Unconfirmed]), (None, None));
        assert_eq!(targets(7, &[Edit, Undo]), (None, Some(7)));
        assert_eq!(targets(7, &[Undo, Edit]), (Some(7), None));
    }

    proptest! {
        /// A model with rules: each change makes new ones, an undo and a redo are steps in a list of them.
        #[test]
        fn steps_return_to_the_rules_of_a_model(choices in prop::collection::vec(0..3_u8, 0..60)) {
            // The rules of each revision, and the editor's view of them.
            let (mut rules, mut origins) = (vec![0], vec![Start]);
            let (mut states, mut at) = (vec![0], 0_usize);
            for choice in choices {
                let (undo, redo) = targets(1, &origins);
                let of = |revision: Option<u64>| revision.map(|number| rules[number as usize - 1]);
                prop_assert_eq!(of(undo), at.checked_sub(1).map(|before| states[before]));
                prop_assert_eq!(of(redo), states.get(at + 1).copied());
                let (origin, target) = match choice {
                    1 => (Undo, of(undo)),
                    2 => (Redo, of(redo)),
                    _ => (Edit, Some(rules.len())),
                };
                let Some(target) = target else { continue };
                match origin {
                    Undo => at -= 1,
                    Redo => at += 1,
                    _ => {
                        states.truncate(at + 1);
                        states.push(target);
                        at += 1;
                    }
                }
                rules.push(target);
                origins.push(origin);
            }
        }
    }
}
