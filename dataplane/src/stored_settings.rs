//! The doors and `[policy]` that a start runs in place of those of the configuration file.
//!
//! The configuration file is read by a reload, so it already has the new doors and `[policy]` when a reload waits for its
//! confirmation. `settings.state` has those before. It is written before the reload takes effect, and removed by the
//! confirmation and by a reload without one. So after a restart, and after a rollback, the settings run that an operator
//! has confirmed. Passphrases are in the file, so only its owner can read it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use knockplane_policy::settings::Settings;

use crate::config::Config;
use crate::state_dir::{FileFormat, SETTINGS, StateDir, damage};

/// The format of `settings.state`: JSON, [`Settings`] with their doors.
const FORMAT: FileFormat = FileFormat { kind: "settings", version: 1 };

/// The settings in the state directory: reads, checks and replaces `settings.state`.
pub(crate) struct StoredSettings {
    state: Arc<StateDir>,
}

impl StoredSettings {
    /// Creates the store of this state directory.
    pub(crate) fn new(state: Arc<StateDir>) -> Self {
        StoredSettings { state }
    }

    /// Replaces the settings of a configuration by the stored ones, if there are any. Returns whether they differ, with a
    /// warning in the log.
    ///
    /// # Errors
    /// As [`StoredSettings::peek`].
    pub(crate) fn replace_in(&self, config: &mut Config) -> anyhow::Result<bool> {
        let Some(stored) = self.peek()?.filter(|stored| *stored != config.settings) else { return Ok(false) };
        let (file, kept) = (config.file.display(), self.path());
        tracing::warn!(
            "running the doors and [policy] from before a reload that was not confirmed, kept in {}; {file} has others, which \
             do not run: to run them, use `knockctl reload`",
            kept.display()
        );
        config.settings = stored;
        Ok(true)
    }

    /// The stored settings. Changes no file.
    ///
    /// # Errors
    /// If they exist but are damaged: a start with settings that the operator does not expect is worse than no start.
    pub(crate) fn peek(&self) -> anyhow::Result<Option<Settings>> {
        let Some(content) = self.state.read(SETTINGS, FORMAT)? else { return Ok(None) };
        let settings = serde_json::from_slice(&content);
        settings.with_context(|| damage(&self.path().display().to_string())).map(Some)
    }

    /// Stores these settings for the next start.
    ///
    /// # Errors
    /// If the disk refuses; then the next start is as before.
    pub(crate) fn save(&self, settings: &Settings) -> io::Result<()> {
        self.state.write(SETTINGS, FORMAT, &serde_json::to_vec(settings)?)
    }

    /// Removes the stored settings: the next start runs those of the configuration file.
    ///
    /// # Errors
    /// If the disk refuses; then the next start may be as before.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.state.remove_for_good(SETTINGS)
    }

    /// The path of the file, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.file(SETTINGS)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use knockplane_limits::predecessor::Deadline;
    use tempfile::TempDir;

    use super::*;
    use crate::state_dir::damages;

    const HEAD: &str = "[dataplane]\noutside = \"eth1\"\ninside = \"eth2\"\nrules = \"a.rsc\"\n";
    const DOOR: &str =
        "[policy]\nprotect = [\"192.0.2.0/24\"]\n[[door]]\nname = \"a\"\nknock = [\"tcp/7\", 'udp/8 \"secret\"']\n";

    fn house() -> (StoredSettings, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap();
        (StoredSettings::new(Arc::new(state)), folder)
    }

    fn config(sections: &str) -> Config {
        Config::parse(Path::new("k.toml"), &format!("{HEAD}{sections}")).expect("valid")
    }

    #[test]
    fn stored_settings_run_in_place_of_those_of_the_file_until_they_are_removed() {
        let (store, _folder) = house();
        let mut started = config("");
        assert!(!store.replace_in(&mut started).unwrap());
        store.remove().expect("there is nothing to remove");
        store.save(&config(DOOR).settings).unwrap();
        assert!(store.replace_in(&mut started).unwrap());
        assert_eq!(started, Config { settings: config(DOOR).settings, ..config("") });
        assert!(!store.replace_in(&mut config(DOOR)).unwrap(), "the file has the same settings");
        let mode = fs::metadata(store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the file has passphrases");
        store.remove().unwrap();
        assert!(!store.path().exists() && !store.replace_in(&mut started).unwrap());
    }

    /// Flips every bit of a real file, and truncates it at every length.
    #[test]
    fn a_damaged_file_is_refused_with_its_name_and_what_to_do() {
        let (store, _folder) = house();
        store.save(&config(DOOR).settings).unwrap();
        let bytes = fs::read(store.path()).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            fs::write(store.path(), bytes).unwrap();
            let Err(error) = store.peek() else { panic!("{what} is accepted") };
            let error = format!("{error:#}");
            assert!(error.contains("settings.state is damaged; ") && error.contains("--without-state"), "{error}");
        };
        damages(&bytes).for_each(|(what, damaged)| refused(&damaged, &what));
        store.state.write(SETTINGS, FORMAT, b"{\"protekt\":[]}").unwrap();
        assert!(format!("{:#}", store.peek().unwrap_err()).contains("unknown field `protekt`"));
    }
}
