//! The last good rules, kept on disk: what was applied survives a restart of the dataplane.
//!
//! At start the stored rules win over the configured file, because they are what ran last; if the file says something
//! else by now, that is said. The stored file holds passphrases, so it is its owner's alone. It is replaced whole (written beside, synced, renamed), so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use knockplane_limits::input;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Rules and where they came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) source: String,
    pub(crate) rules: Arc<RuleSet>,
}

/// `applied.json` in the state directory, which is ours alone as long as this lives.
pub(crate) struct Store {
    path: PathBuf,
    /// Locked; the kernel unlocks it when the process ends, however it ends.
    _lock: File,
}

impl Store {
    /// Makes the state directory ours: two dataplanes would replace each other's files, and neither would notice.
    ///
    /// # Errors
    /// If another dataplane keeps its state there, or the file system refuses.
    pub(crate) fn open(state_dir: &Path) -> anyhow::Result<Self> {
        let shown = state_dir.display();
        let lock = fs::create_dir_all(state_dir).and_then(|()| {
            File::options().write(true).create(true).truncate(false).mode(0o600).open(state_dir.join("lock"))
        });
        let lock =
            lock.with_context(|| format!("cannot keep state in {shown}; `state-dir` in [dataplane] names it"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Store { path: state_dir.join("applied.json"), _lock: lock }),
            Err(Errno::WOULDBLOCK) => {
                bail!("another dataplane keeps its state in {shown}: stop it first, or set another `state-dir`")
            }
            Err(error) => Err(error).with_context(|| format!("cannot lock {shown}/lock")),
        }
    }

    /// What was applied last, or else the rules of the configured file.
    ///
    /// # Errors
    /// If either is there but cannot be read or is not valid: starting with other rules than meant is worse than not
    /// starting.
    pub(crate) fn load_or_read(&self, file: &Path) -> anyhow::Result<Stored> {
        match fs::read(&self.path) {
            Ok(bytes) => {
                let mut stored: Stored = serde_json::from_slice(&bytes).with_context(|| {
                    format!("{} is damaged; remove it to start with the configured rules", self.path.display())
                })?;
                self.compare(&stored, file);
                stored.source = format!("{}, kept from the last apply", stored.source);
                Ok(stored)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => read_rules(file),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    /// Says that the stored rules run, and whether the configured file says something else.
    fn compare(&self, stored: &Stored, file: &Path) {
        let kept = self.path.display();
        match read_rules(file) {
            Ok(configured) if configured.rules == stored.rules => {}
            Ok(_) => tracing::warn!(
                "running the rules applied last ({}), kept in {kept}; {} says something else, and is not run: to run \
                 it, apply it, or remove {kept} and restart",
                stored.source,
                file.display()
            ),
            Err(error) => {
                tracing::warn!("running the rules applied last ({}), kept in {kept}: {error:#}", stored.source)
            }
        }
    }

    /// Keeps these rules for the next start.
    ///
    /// # Errors
    /// If the disk refuses; what was kept before is still there.
    pub(crate) fn save(&self, stored: &Stored) -> io::Result<()> {
        write(&self.path, |file| Ok(serde_json::to_writer(file, stored)?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file of the state directory anew, whole or not at all: readable for us alone, and on the disk when this
/// returns.
///
/// # Errors
/// If the disk refuses; what was there before is still there.
pub(crate) fn write(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("json.new");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut file = BufWriter::new(file);
    content(&mut file)?;
    file.into_inner()?.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// The rules in a file.
///
/// # Errors
/// Every line that is wrong, or that the file cannot be read or be changed by others.
pub(crate) fn read_rules(path: &Path) -> anyhow::Result<Stored> {
    let text = input::read_trusted(path, &input::RULES)
        .map_err(|error| anyhow!("{} (`rules` in the configuration) {error}", path.display()))?;
    let reading = rsc::read(&text);
    if !reading.problems.is_empty() {
        bail!("{}", rsc::report(&reading.problems, &path.display().to_string(), &text, false));
    }
    Ok(Stored { source: path.display().to_string(), rules: Arc::new(reading.rules) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_applied_last_wins_and_damage_is_said() {
        let folder = std::env::temp_dir().join(format!("knockplane-store-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let file = folder.join("rules.rsc");
        fs::write(&file, "/ip firewall filter\nadd action=drop chain=input\n").expect("written");
        let store = Store::open(&folder.join("state")).expect("a folder of our own");

        let configured = store.load_or_read(&file).expect("the configured rules");
        assert_eq!(configured.rules.rules.len(), 1);

        let applied = Stored { source: "applied".to_owned(), rules: Arc::default() };
        store.save(&applied).expect("saved");
        let loaded = store.load_or_read(&file).expect("the applied rules");
        assert_eq!(loaded.rules, applied.rules);
        assert!(loaded.source.contains("kept from the last apply"));
        let mode = fs::metadata(store.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "passphrases are nobody else's business");

        fs::write(store.path(), "{").expect("damaged");
        let error = store.load_or_read(&file).expect_err("damage is an error").to_string();
        assert!(error.contains("is damaged; remove it"), "{error}");
        fs::remove_dir_all(&folder).expect("cleaned up");
    }

    #[test]
    fn two_dataplanes_do_not_share_a_state_directory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = folder.path().join("state");
        let first = Store::open(&state).expect("the first");
        let Err(error) = Store::open(&state) else { panic!("the second") };
        assert!(error.to_string().starts_with("another dataplane keeps its state in "), "{error}");
        drop(first);
        assert!(Store::open(&state).is_ok(), "nothing is left that would have to be removed");
        let Err(error) = Store::open(&state.join("lock")) else { panic!("a file is no folder") };
        assert!(error.to_string().contains("`state-dir` in [dataplane]"), "{error}");
    }
}
