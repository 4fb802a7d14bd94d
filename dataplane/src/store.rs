//! The last good rules, kept on disk: what was applied survives a restart of the dataplane.
//!
//! At start the stored rules win over the configured file, because they are what ran last. The stored file is
//! replaced whole (written beside, synced, renamed), so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use serde::{Deserialize, Serialize};

/// Rules and where they came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) source: String,
    pub(crate) rules: Arc<RuleSet>,
}

/// `applied.json` in the state directory.
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Store { path: state_dir.join("applied.json") }
    }

    /// What was applied last, or else the rules of the configured file.
    ///
    /// # Errors
    /// If either is there but cannot be read or is not valid: starting with other rules than meant is worse than not
    /// starting.
    pub(crate) fn load_or_read(&self, file: &Path) -> anyhow::Result<Stored> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged; remove it to start with the configured rules", self.path.display())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => read_rules(file),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    /// Keeps these rules for the next start.
    ///
    /// # Errors
    /// If the disk refuses; what was kept before is still there.
    pub(crate) fn save(&self, stored: &Stored) -> io::Result<()> {
        let folder = self.path.parent().expect("a file in a folder");
        fs::create_dir_all(folder)?;
        let beside = self.path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(stored)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(folder)?.sync_all()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn read_rules(path: &Path) -> anyhow::Result<Stored> {
    let text = fs::read(path).with_context(|| {
        format!("cannot read the rules in {}; `rules` in the configuration names them", path.display())
    })?;
    let reading = rsc::read(&text);
    if !reading.problems.is_empty() {
        bail!("{}", rsc::report(&reading.problems, &path.display().to_string(), &text, false));
    }
    Ok(Stored { source: path.display().to_string(), rules: Arc::new(reading.rules) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_last_wins_and_damage_is_said() {
        let folder = std::env::temp_dir().join(format!("knockplane-store-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let file = folder.join("rules.rsc");
        fs::write(&file, "/ip firewall filter\nadd action=drop chain=input\n").expect("written");
        let store = Store::new(&folder.join("state"));

        let configured = store.load_or_read(&file).expect("the configured rules");
        assert_eq!(configured.rules.rules.len(), 1);

        let applied = Stored { source: "applied".to_owned(), rules: Arc::default() };
        store.save(&applied).expect("saved");
        assert_eq!(store.load_or_read(&file).expect("the applied rules"), applied);

        fs::write(store.path(), "{").expect("damaged");
        let error = store.load_or_read(&file).expect_err("damage is an error").to_string();
        assert!(error.contains("is damaged; remove it"), "{error}");
        fs::remove_dir_all(&folder).expect("cleaned up");
    }
}
