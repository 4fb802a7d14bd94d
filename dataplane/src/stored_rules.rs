//! The last applied rules on disk, which a restart of the dataplane loads.
//!
//! At start the stored rules take precedence over the configured file, because they ran last. A warning reports a
//! configured file with different rules. The stored file contains passphrases, so only its owner can read it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use knockplane_limits::input;
use knockplane_policy::packet::Family;
use knockplane_policy::rsc;
use knockplane_policy::rule::{Action, EntryAddress, ListTimeout, RuleSet};
use knockplane_policy::time::is_timeout;
use serde::{Deserialize, Serialize};

use crate::generation::Generation;
use crate::state_dir::{FileFormat, OLD_RULES, RULES, StateDir, damage};

/// The format of `rules.state`: JSON, a [`SourcedRules`]. A change of the JSON form of rules changes their ids, and
/// therefore needs another version.
const FORMAT: FileFormat = FileFormat { kind: "rules", version: 1 };

/// Rules and their origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourcedRules {
    pub(crate) source: String,
    pub(crate) rules: Arc<RuleSet>,
}

/// The suffix of the source of rules that a start has loaded.
const KEPT: &str = ", kept from the last apply";

/// The suffix of the source of rules that an operator has edited since.
const EDITED: &str = ", edited";

/// The source of rules that are applied, without the suffix of a start.
pub(crate) fn applied(source: &str) -> &str {
    source.strip_suffix(KEPT).unwrap_or(source)
}

/// The source of rules that an operator has edited.
pub(crate) fn edited(source: &str) -> String {
    let source = applied(source);
    if source.ends_with(EDITED) { source.to_owned() } else { format!("{source}{EDITED}") }
}

impl SourcedRules {
    /// The rules of a generation in the form that is stored. The rules of doors are created again from the
    /// configuration.
    pub(crate) fn of(generation: &Generation) -> SourcedRules {
        let mut rules = generation.rules().clone();
        rules.rules.retain(|rule| !rule.dynamic);
        SourcedRules { source: applied(&generation.source).to_owned(), rules: Arc::new(rules) }
    }
}

/// The rules in the state directory: reads, checks and replaces `rules.state`.
pub(crate) struct StoredRules {
    state: Arc<StateDir>,
}

impl StoredRules {
    /// Creates the store of this state directory.
    pub(crate) fn new(state: Arc<StateDir>) -> Self {
        StoredRules { state }
    }

    /// The last applied rules, or the rules of the configured file if none were applied.
    ///
    /// # Errors
    /// If the stored rules exist but are damaged, or if the configured file is needed and is not valid. A start with
    /// rules that the operator does not expect is worse than no start.
    pub(crate) fn load_or_read(&self, file: &Path) -> anyhow::Result<SourcedRules> {
        let Some(mut stored) = self.load()? else { return read_rules(file) };
        self.compare(&stored, file);
        stored.source += KEPT;
        Ok(stored)
    }

    /// The last applied rules. Changes no file.
    ///
    /// # Errors
    /// As [`StoredRules::load_or_read`].
    pub(crate) fn peek(&self) -> anyhow::Result<Option<SourcedRules>> {
        let (stored, old) = self.read()?;
        Ok(stored.or(old))
    }

    /// The rules of `rules.state`, and the rules that an earlier version stored.
    fn read(&self) -> anyhow::Result<(Option<SourcedRules>, Option<SourcedRules>)> {
        let stored = self.state.read(RULES, FORMAT)?.map(|content| self.parse(&content, RULES)).transpose()?;
        let old = self.state.read_old(OLD_RULES)?.map(|content| self.parse(&content, OLD_RULES)).transpose()?;
        Ok((stored, old))
    }

    /// The last applied rules. Replaces a file of an earlier version.
    fn load(&self) -> anyhow::Result<Option<SourcedRules>> {
        let (stored, old) = self.read()?;
        let Some(old) = old else { return Ok(stored) };
        if stored.is_some_and(|stored| stored != old) {
            let [new, old] = [RULES, OLD_RULES].map(|name| self.state.file(name).display().to_string());
            bail!("{new} and {old}, which an earlier version wrote, hold different rules: remove one of them");
        }
        self.state.take_over(OLD_RULES, RULES, FORMAT, &serde_json::to_vec(&old)?);
        Ok(Some(old))
    }

    fn parse(&self, content: &[u8], name: &str) -> anyhow::Result<SourcedRules> {
        let context = || damage(&self.state.file(name).display().to_string());
        let stored: SourcedRules = serde_json::from_slice(content).with_context(context)?;
        check(&stored.rules).map_err(|wrong| anyhow!(wrong)).with_context(context)?;
        Ok(stored)
    }

    /// Logs that the stored rules run, if the configured file has different rules or is not valid.
    fn compare(&self, stored: &SourcedRules, file: &Path) {
        let path = self.path();
        let kept = path.display();
        match read_rules(file) {
            Ok(configured) if configured.rules == stored.rules => {}
            Ok(_) => tracing::warn!(
                "running the rules applied last ({}), kept in {kept}; {} has other rules, which do not run: to run \
                 them, apply the file, or remove {kept} and restart",
                stored.source,
                file.display()
            ),
            Err(error) => {
                tracing::warn!("running the rules applied last ({}), kept in {kept}: {error:#}", stored.source)
            }
        }
    }

    /// Stores these rules for the next start.
    ///
    /// # Errors
    /// If the disk refuses; then the previously stored rules remain.
    pub(crate) fn save(&self, stored: &SourcedRules) -> io::Result<()> {
        self.state.write(RULES, FORMAT, &serde_json::to_vec(stored)?)?;
        self.state.forget_old(OLD_RULES);
        Ok(())
    }

    /// The path of the file, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.file(RULES)
    }
}

/// Checks that stored rules have the ids that follow from their content, and values that the reader of rule files
/// accepts. The compiler finds the other reasons that rules cannot run.
fn check(rules: &RuleSet) -> Result<(), String> {
    let mut again = rules.clone();
    again.assign_ids();
    for (rule, again) in rules.rules.iter().zip(&again.rules) {
        if rule.id != again.id {
            return Err(format!(
                "the id of the rule {} (line {}) is not that of its content, {}",
                rule.id, rule.line, again.id
            ));
        }
        if rule.dynamic {
            return Err(format!("the rule {} is one of a door, which are not stored", rule.id));
        }
        let added = match &rule.action {
            Action::AddSrcToAddressList(added) | Action::AddDstToAddressList(added) => Some(added),
            _ => None,
        };
        if let Some(added) = added
            && let ListTimeout::After(timeout) = added.timeout
            && !is_timeout(timeout)
        {
            return Err(format!("the rule {} has a timeout of {timeout:?}", rule.id));
        }
    }
    for entry in &rules.address_lists {
        let wrong = |what: &str| {
            Err(format!("the entry of line {} in the list {}: {what}", entry.line, entry.list.escape_debug()))
        };
        if entry.list.is_empty() {
            return wrong("the list has no name");
        }
        if entry.timeout.is_some_and(|timeout| !is_timeout(timeout)) {
            return wrong("its timeout is zero or too long");
        }
        if let EntryAddress::Set(set) = &entry.address {
            let (first, last) = set.bounds();
            if Family::of(first) != entry.family || Family::of(last) != entry.family || first > last {
                return wrong("its address is of another family, or a range that ends before it begins");
            }
        }
    }
    Ok(())
}

/// The rules in a file.
///
/// # Errors
/// Every invalid line, or that the file cannot be read, or that other users can change it.
pub(crate) fn read_rules(path: &Path) -> anyhow::Result<SourcedRules> {
    let text = input::read_trusted(path, &input::RULES)
        .map_err(|error| anyhow!("{} (`rules` in the configuration) {error}", path.display()))?;
    let reading = rsc::read(&text);
    if !reading.problems.is_empty() {
        bail!("{}", rsc::report(&reading.problems, &path.display().to_string(), &rsc::utf8(&text), false));
    }
    Ok(SourcedRules { source: path.display().to_string(), rules: Arc::new(reading.rules) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;
    use crate::state_dir::damages;
    use knockplane_limits::predecessor::Deadline;

    const TEXT: &str = "/ip firewall filter
add action=add-src-to-address-list address-list=a address-list-timeout=9s chain=input
add action=drop chain=input
/ip firewall address-list
add list=a address=192.0.2.0/24 timeout=1m
";

    /// A store, the configured file, and their folder.
    fn house() -> (StoredRules, PathBuf, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.rsc");
        fs::write(&file, "/ip firewall filter\nadd action=drop chain=input\n").unwrap();
        let state = StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap();
        (StoredRules::new(Arc::new(state)), file, folder)
    }

    fn stored() -> SourcedRules {
        SourcedRules { source: "applied".to_owned(), rules: Arc::new(rsc::read(TEXT.as_bytes()).rules) }
    }

    #[test]
    fn what_was_applied_last_wins() {
        let (store, file, _folder) = house();
        assert_eq!(store.load_or_read(&file).unwrap().rules.rules.len(), 1, "the configured rules");
        store.save(&stored()).unwrap();
        let loaded = store.load_or_read(&file).unwrap();
        assert_eq!(loaded.rules, stored().rules);
        assert!(loaded.source.contains("kept from the last apply"));
        let mode = fs::metadata(store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "passphrases are nobody else's business");
    }

    /// Flips every bit of a real file, truncates it at every length, and appends bytes.
    #[test]
    fn a_damaged_file_is_refused_with_its_name_the_place_and_what_to_do() {
        let (store, file, _folder) = house();
        store.save(&stored()).unwrap();
        let bytes = fs::read(store.path()).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            fs::write(store.path(), bytes).unwrap();
            let Err(error) = store.load_or_read(&file) else { panic!("{what} is accepted") };
            let error = format!("{error:#}");
            assert!(error.starts_with(&format!("{} is damaged; ", store.path().display())), "{what}: {error}");
            assert!(error.contains("--without-state"), "{what}: {error}");
            assert!(
                error.contains("byte ") || error.contains("bytes ") || error.contains("line 1 "),
                "{what}: {error}"
            );
        };
        damages(&bytes).for_each(|(what, damaged)| refused(&damaged, &what));
        [&b"\n"[..], b"\0", b" ", &bytes].iter().for_each(|more| refused(&[&bytes, *more].concat(), "more"));
        fs::write(store.path(), &bytes).unwrap();
        assert!(store.load_or_read(&file).is_ok(), "undamaged, it is accepted");
    }

    #[test]
    fn rules_that_do_not_say_what_their_ids_say_are_refused() {
        let (store, file, _folder) = house();
        let json = serde_json::to_string(&stored()).unwrap();
        let cases = [
            ("\"chain\":\"input\"", "\"chain\":\"output\"", "is not that of its content"),
            ("\"secs\":9", "\"secs\":0", "is not that of its content"),
            ("\"secs\":60", "\"secs\":0", "the entry of line 5 in the list a: its timeout is zero"),
            ("\"secs\":60", "\"secs\":99999999", "its timeout is zero or too long"),
            ("\"family\":\"ipv4\",\"list\"", "\"family\":\"ipv6\",\"list\"", "another family"),
            ("\"list\":\"a\",\"address\"", "\"list\":\"\",\"address\"", "the list has no name"),
        ];
        for (from, to, told) in cases {
            let changed = json.replacen(from, to, 1);
            assert_ne!(changed, json, "{from}");
            for (name, other) in [(OLD_RULES, RULES), (RULES, OLD_RULES)] {
                store.state.remove(other).unwrap();
                match name {
                    RULES => store.state.write(RULES, FORMAT, changed.as_bytes()).unwrap(),
                    _ => fs::write(store.state.file(OLD_RULES), &changed).unwrap(),
                }
                let error = format!("{:#}", store.load_or_read(&file).expect_err(told));
                assert!(error.contains(told) && error.contains(&format!("{name} is damaged")), "{told}: {error}");
            }
        }
    }

    #[test]
    fn a_source_has_one_suffix_however_often_its_rules_are_edited_and_loaded() {
        assert_eq!(edited("a.rsc"), "a.rsc, edited");
        assert_eq!(edited(&format!("{}{KEPT}", edited("a.rsc"))), "a.rsc, edited");
        assert_eq!(applied(&format!("a.rsc{KEPT}")), "a.rsc");
    }

    #[test]
    fn a_file_of_an_earlier_version_is_taken_over_once() {
        let (store, file, _folder) = house();
        let old = store.state.file(OLD_RULES);
        fs::write(&old, serde_json::to_vec(&stored()).unwrap()).unwrap();
        for _ in 0..2 {
            assert_eq!(store.load_or_read(&file).unwrap().rules, stored().rules);
            assert!(store.path().exists() && !old.exists());
        }
        fs::write(&old, serde_json::to_vec(&stored()).unwrap()).unwrap();
        assert_eq!(store.load_or_read(&file).unwrap().rules, stored().rules, "a start was interrupted");
        assert!(!old.exists());
        let other = SourcedRules { rules: Arc::default(), ..stored() };
        fs::write(&old, serde_json::to_vec(&other).unwrap()).unwrap();
        let error = store.load_or_read(&file).unwrap_err().to_string();
        assert!(error.contains("hold different rules: remove one of them"), "{error}");
        store.save(&stored()).unwrap();
        assert!(!old.exists(), "a save replaces both");
    }
}
