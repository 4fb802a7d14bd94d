//! Taking over the configuration file while frames are on their way: its doors and its `[policy]`, under the rules that
//! run.
//!
//! What runs afterwards is a new generation, compiled beside the workers and swapped whole, as with new rules. Whatever is
//! wrong is found before that, and changes nothing.

use knockplane_policy::door::Door;
use knockplane_policy::wire::Reloaded;

use super::Manager;
use super::answer::{MAX_ENTRIES, Problem};
use crate::config::Config;

impl Manager {
    /// Reads the file again. Its keys that wait for a restart are said, here and in the log.
    pub(super) fn reload(&mut self) -> Result<Reloaded, Problem> {
        let file = self.config.file.clone();
        let config = Config::load(&file).map_err(|error| Problem::Rules(format!("{error}; nothing changed")))?;
        let running = self.shared.generation.load_full();
        let table = running.table.with_settings(&config.settings, &self.shared.state).map_err(|error| {
            let (file, source) = (file.display(), &running.source);
            Problem::Rules(format!("{file}: nothing changed: its doors and [policy] do not suit {source}:\n{error}"))
        })?;
        let before = std::mem::take(&mut self.config.settings.doors);
        let waiting: Vec<String> = self.config.waiting(&config).into_iter().map(str::to_owned).collect();
        self.config.settings = config.settings;
        let generation = self.swap(table, running.source.clone());
        for door in before.iter().filter(|door| !self.config.settings.doors.iter().any(|new| is_same_knock(door, new)))
        {
            self.forget_progress(&door.knocking_list());
            self.forget_progress(&door.closing_list());
        }
        let generation = generation?;
        let doors = self.config.settings.doors.len();
        tracing::info!(generation, doors, file = %file.display(), "reload");
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "what the file says of these takes a restart");
        }
        Ok(Reloaded { generation, doors, waiting })
    }

    /// Steps of a knock are none of another one. What is added meanwhile is, and may have to begin again.
    fn forget_progress(&self, list: &str) {
        let lists = &self.shared.state.lists;
        let Some(id) = lists.id(list) else { return };
        for _ in 0..=lists.capacity() / MAX_ENTRIES {
            let now = self.shared.clock.now();
            let (entries, truncated) = lists.entries(Some(list), MAX_ENTRIES, now);
            for entry in entries {
                lists.remove(id, entry.address, now);
            }
            if !truncated {
                return;
            }
        }
    }
}

fn is_same_knock(one: &Door, other: &Door) -> bool {
    (&one.name, &one.knock, &one.close) == (&other.name, &other.knock, &other.close)
}
