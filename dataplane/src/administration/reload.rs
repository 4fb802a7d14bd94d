//! Reloads: the doors, `[policy]` and `[metrics]` of the configuration file, for the rules that run.
//!
//! A reload compiles while the workers run, decides which settings the next start runs ([`StoredSettings`]), and then
//! swaps: a failure changes nothing. It may have to wait for a confirmation; `[metrics]` does not take part in that.
//!
//! [`StoredSettings`]: crate::stored_settings::StoredSettings

use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_engine::state::events::Cause;
use knockplane_log::target;
use knockplane_policy::door::Door;
use knockplane_policy::event::Origin;
use knockplane_policy::wire::history::{ApplyNote, RevisionOrigin};
use knockplane_policy::wire::{Reloaded, UnconfirmedChange, check_confirm_within};

use super::{Administration, RequestError};
use crate::config::Config;
use crate::history::RevisionCause;

impl Administration {
    /// Reads the file again. `note` has the operator. Its settings are rolled back unless they are confirmed within a time. The answer and the
    /// log contain the keys that need a restart.
    pub(super) fn reload(
        &mut self,
        note: ApplyNote,
        confirm_within: Option<Duration>,
    ) -> Result<Reloaded, RequestError> {
        self.require_confirmed("reload")?;
        if let Some(time) = confirm_within {
            check_confirm_within(time).map_err(RequestError::Theirs)?;
        }
        let file = self.rules.config.file.clone();
        let config = Config::load(&file).map_err(|error| RequestError::Theirs(format!("{error}; nothing changed")))?;
        let running = self.shared.generation.load_full();
        self.check_memory(running.rules(), &config.settings)?;
        let table = running.table.with_settings(&config.settings, &self.shared.state).map_err(|error| {
            let (file, source) = (file.display(), &running.source);
            RequestError::Theirs(format!(
                "{file}: nothing changed: its doors and [policy] do not suit {source}:\n{error}"
            ))
        })?;
        // A start runs the settings of the file only if they need no confirmation.
        let stored = match confirm_within {
            Some(_) => self.rules.stored_settings.save(&self.rules.config.settings),
            None => self.rules.stored_settings.remove(),
        };
        if let Err(error) = stored {
            self.restore_levels();
            let kept = self.rules.stored_settings.path();
            return Err(RequestError::Ours(format!("cannot change {}: {error}; nothing changed", kept.display())));
        }
        let own = &mut self.rules.config;
        let waiting: Vec<String> = own.waiting(&config).into_iter().map(str::to_owned).collect();
        own.metrics = config.metrics;
        let before = mem::replace(&mut own.settings, config.settings);
        // Before the swap, so that settings that only some workers take are rolled back as well.
        if let Some(time) = confirm_within {
            self.await_confirmation(UnconfirmedChange::Reload, time, &running);
        }
        let generation = self.swap(table, running.source.clone());
        self.published.differs_from_file.store(false, Relaxed);
        let token = note.token.clone();
        self.add_revision(RevisionCause { origin: RevisionOrigin::Reload, note, confirm_within });
        self.forget_steps(&before.doors);
        if confirm_within.is_none() {
            self.forget_grants(&before.doors);
        }
        let (generation, doors) = (generation?, self.rules.config.settings.doors.len());
        tracing::info!(target: target!("operator"), generation, doors, token, file = %file.display(), "reload");
        if !waiting.is_empty() {
            tracing::warn!(target: target!("operator"), keys = waiting.join(", "), "changes of these keys take effect at a restart");
        }
        Ok(Reloaded { generation, doors, waiting })
    }

    /// Removes the sources that knocked at doors whose knock does not run any more: the steps of a knock do not count for
    /// another knock. A source that has begun the new knock meanwhile may have to begin again.
    pub(super) fn forget_steps(&self, before: &[Door]) {
        let doors = &self.rules.config.settings.doors;
        for door in before.iter().filter(|door| !doors.iter().any(|new| is_same_knock(door, new))) {
            self.forget(&door.knocking_list());
            self.forget(&door.closing_list());
        }
    }

    /// Removes the grants of doors that do not run any more. A later door may have the same name, and sources with a
    /// grant of this door must have none there.
    pub(super) fn forget_grants(&self, before: &[Door]) {
        let doors = &self.rules.config.settings.doors;
        for door in before.iter().filter(|door| !doors.iter().any(|new| new.name == door.name)) {
            self.forget(&door.open_list());
        }
    }

    /// Removes from a list of a door the sources that knocked.
    fn forget(&self, list: &str) {
        let (lists, now) = (&self.shared.state.lists, self.shared.clock.now());
        let Some(id) = lists.id(list) else { return };
        let mut sources = Vec::new();
        lists.visit(now, |seen| {
            if seen.list == id && seen.peer_tag != 0 {
                sources.push((seen.vlan, seen.address, seen.peer_tag));
            }
        });
        for (vlan, source, to) in sources {
            lists.in_vlan(vlan).by(&Cause::of(Origin::Rules)).remove_for(id, source, to, now);
        }
    }
}

fn is_same_knock(one: &Door, other: &Door) -> bool {
    (&one.name, &one.knock, &one.close) == (&other.name, &other.knock, &other.close)
}
