//! Taking over the configuration file while frames are on their way: its doors, its `[policy]` and its `[metrics]`, under the
//! rules that run.
//!
//! What runs afterwards is a new generation, compiled beside the workers and swapped whole, as with new rules. Whatever is
//! wrong is found before that, and changes nothing.

use knockplane_engine::state::events::Cause;
use knockplane_log::target;
use knockplane_policy::door::Door;
use knockplane_policy::event::Origin;
use knockplane_policy::wire::Reloaded;

use super::Manager;
use super::answer::Problem;
use crate::config::Config;

impl Manager {
    /// Reads the file again. Its keys that wait for a restart are said, here and in the log.
    pub(super) fn reload(&mut self) -> Result<Reloaded, Problem> {
        let file = self.config.file.clone();
        let config = Config::load(&file).map_err(|error| Problem::Theirs(format!("{error}; nothing changed")))?;
        let running = self.shared.generation.load_full();
        self.check_memory(running.rules(), &config.settings)?;
        let table = running.table.with_settings(&config.settings, &self.shared.state).map_err(|error| {
            let (file, source) = (file.display(), &running.source);
            Problem::Theirs(format!("{file}: nothing changed: its doors and [policy] do not suit {source}:\n{error}"))
        })?;
        let before = std::mem::take(&mut self.config.settings.doors);
        let waiting: Vec<String> = self.config.waiting(&config).into_iter().map(str::to_owned).collect();
        self.config.settings = config.settings;
        self.config.metrics = config.metrics;
        let generation = self.swap(table, running.source.clone());
        for door in before.iter().filter(|door| !self.config.settings.doors.iter().any(|new| is_same_knock(door, new)))
        {
            self.forget(&door.knocking_list());
            self.forget(&door.closing_list());
        }
        // Were a door of this name to come back, with another knock, those who knew this one would be in.
        for door in before.iter().filter(|door| !self.config.settings.doors.iter().any(|new| new.name == door.name)) {
            self.forget(&door.open_list());
        }
        let generation = generation?;
        let doors = self.config.settings.doors.len();
        tracing::info!(target: target!("operator"), generation, doors, file = %file.display(), "reload");
        if !waiting.is_empty() {
            tracing::warn!(target: target!("operator"), keys = waiting.join(", "), "what the file says of these takes a restart");
        }
        Ok(Reloaded { generation, doors, waiting })
    }

    /// Forgets who knocked themselves into a door's list: steps of a knock are none of another one. Who has begun with that
    /// one meanwhile may have to begin again.
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
            lists.in_vlan(vlan).by(Cause::of(Origin::Rules)).remove_for(id, source, to, now);
        }
    }
}

fn is_same_knock(one: &Door, other: &Door) -> bool {
    (&one.name, &one.knock, &one.close) == (&other.name, &other.knock, &other.close)
}
