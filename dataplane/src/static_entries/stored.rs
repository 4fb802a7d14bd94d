//! The stored static entries, and the replacement of files of earlier versions.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use knockplane_engine::state::lists::{ListId, Lists, OPERATOR_LEVEL, TooManyListsError};
use knockplane_policy::wire::NewEntry;

use super::record::{Changes, ContentError, StoredChange};
use super::version1::{self, Version1Entries};
use super::{Bounds, NameEntry, OperatorEntry, StaticEntryStore, check, of_names, snapshot};
use crate::state_dir::{
    ChangeLog, Damage, FileFormat, LISTS, LogEnd, LogRecords, OLD_LISTS, Record, StateDir, StoredFile, damage,
};

/// The format of `lists.state`.
pub(super) const FORMAT: FileFormat = FileFormat { kind: "lists", version: 2 };

/// The entries in order, from the first record on, and the changes by later records.
struct Merged<'c> {
    /// The number of changes in the part that is in order.
    in_order: usize,
    changed: BTreeMap<(&'c str, Bounds), StoredChange<'c>>,
}

/// The stored static entries, verified and not yet in a map.
pub(crate) struct StoredEntries {
    path: PathBuf,
    contents: Contents,
    log: ChangeLog,
    /// Damage that lost entries.
    damage: Option<String>,
}

enum Contents {
    /// The records of `lists.state`.
    File(LogRecords),
    /// The content of a file of an earlier version, or nothing.
    Memory(Vec<Record>),
}

impl StoredEntries {
    /// The entries after the last change. The function replaces a file of an earlier version and a damaged file, and
    /// keeps the damaged file under another name. It truncates an incomplete last record.
    ///
    /// # Errors
    /// If the file cannot be read, its first line is damaged, or a newer version wrote it: entries of operators must
    /// not change unnoticed.
    pub(crate) fn load(state: &Arc<StateDir>) -> anyhow::Result<StoredEntries> {
        let mut stored = StoredEntries::read(state, true)?;
        stored.repair(state);
        Ok(stored)
    }

    /// The entries, without changes to files.
    ///
    /// # Errors
    /// As [`StoredEntries::load`].
    pub(crate) fn peek(state: &Arc<StateDir>) -> anyhow::Result<StoredEntries> {
        StoredEntries::read(state, false)
    }

    fn read(state: &Arc<StateDir>, compares: bool) -> anyhow::Result<StoredEntries> {
        let path = state.file(LISTS);
        let log = ChangeLog::new(Arc::clone(state), LISTS, FORMAT);
        let old = read_json(state)?;
        let mut found = None;
        let contents = match state.read_log(LISTS, FORMAT, Some(version1::FORMAT))? {
            Some(StoredFile::Records(records)) => {
                if let LogEnd::Damaged(damage) = &records.end {
                    found = Some(describe(&path, damage));
                }
                Contents::File(records)
            }
            Some(StoredFile::Whole(content)) => {
                Contents::Memory(from_version1(&content).map_err(|error| damaged(&path, error))?)
            }
            None => Contents::Memory(old.clone().unwrap_or_default()),
        };
        let stored = StoredEntries { path, contents, log, damage: found };
        if let Some(old) = old.filter(|_| compares)
            && !stored.contents().eq(old.iter().map(|record| &record.content[..]))
        {
            let [new, old] = [LISTS, OLD_LISTS].map(|name| state.file(name).display().to_string());
            bail!("{new} and {old}, which an earlier version wrote, hold different entries: remove one of them")
        }
        Ok(stored)
    }

    /// Repairs the file, so that records can be appended.
    fn repair(&mut self, state: &StateDir) {
        let shown = self.path.display();
        let done = match &self.contents {
            Contents::File(records) => match records.end {
                LogEnd::Whole => self.log.resume(records),
                LogEnd::Torn(bytes) => {
                    tracing::warn!("{shown} ends in a change that was interrupted: its {bytes} bytes are cut off");
                    self.log.resume(records)
                }
                LogEnd::Damaged(_) => {
                    let told = self.damage.as_deref().unwrap_or_default();
                    let kept = state.keep_damaged(LISTS);
                    tracing::error!("{told}; {kept}");
                    let to_write =
                        |Record { content, only_adds }: Record<&[u8]>| Record { content: content.to_vec(), only_adds };
                    self.log.replace(records.valid().map(to_write))
                }
            },
            Contents::Memory(contents) if contents.is_empty() => Ok(()),
            Contents::Memory(contents) => {
                tracing::warn!("the static entries are of an earlier version: stored in {shown} from now on");
                self.log.replace(contents.iter().cloned())
            }
        };
        match done {
            Ok(()) => state.forget_old(OLD_LISTS),
            // The next change replaces the file.
            Err(error) => tracing::warn!("{shown} cannot be written yet: {error}"),
        }
    }

    /// The contents of all valid records, in order.
    fn contents(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let (records, memory) = match &self.contents {
            Contents::File(records) => (Some(records), &[][..]),
            Contents::Memory(records) => (None, &records[..]),
        };
        let of_file = records.into_iter().flat_map(LogRecords::valid).map(|record| record.content);
        of_file.chain(memory.iter().map(|record| &record.content[..]))
    }

    fn changes(&self) -> impl Iterator<Item = Result<StoredChange<'_>, ContentError>> + Clone {
        self.contents().flat_map(Changes::of)
    }

    /// Separates the part of the changes that is in order, which is most of them, from the rest.
    fn merged(&self) -> Result<Merged<'_>, ContentError> {
        let mut merged = Merged { in_order: 0, changed: BTreeMap::new() };
        let mut last: Option<(&str, Bounds)> = None;
        for change in self.changes() {
            let change = change?;
            let key = (change.list, change.set.bounds());
            if merged.changed.is_empty() && change.comment.is_some() && last.is_none_or(|last| last < key) {
                merged.in_order += 1;
                last = Some(key);
            } else {
                merged.changed.insert(key, change);
            }
        }
        Ok(merged)
    }

    /// Installs these entries, and those of host names, in the engine.
    ///
    /// # Errors
    /// If an entry differs from the form that this program writes, or if there are too many entries or list names.
    pub(crate) fn install(
        &self,
        lists: &Lists,
        names: &[NameEntry],
        timed: &[(String, OperatorEntry)],
    ) -> anyhow::Result<()> {
        let merged = self.merged().map_err(|error| damaged(&self.path, error))?;
        let mut ids = HashMap::new();
        let mut failed = None;
        let mut number = 0;
        let in_order = self.changes().take(merged.in_order).filter_map(Result::ok);
        let in_order = in_order.filter(|change| {
            merged.changed.is_empty() || !merged.changed.contains_key(&(change.list, change.set.bounds()))
        });
        let changed = merged.changed.values().filter(|change| change.comment.is_some()).cloned();
        let entries = in_order.chain(changed).map_while(|change| {
            let id = match ids.get(change.list) {
                Some(id) => Ok(*id),
                None => bind(lists, change.list).inspect(|id| _ = ids.insert(change.list.to_owned(), *id)),
            };
            number += 1;
            id.map(|id| (id, change.set.bounds(), None)).map_err(|error| failed = Some(error)).ok()
        });
        let timed = timed.iter().filter_map(|(list, entry)| {
            let until = entry.until?;
            Some((bind(lists, list).ok()?, entry.set.bounds(), Some(until)))
        });
        lists.set_static_entries(entries.chain(of_names(lists, names)).chain(timed));
        if let Some(error) = failed {
            return Err(error.into());
        }
        // The same limit as for additions.
        if number > lists.capacity() {
            let (path, capacity) = (self.path.display(), lists.capacity());
            bail!(
                "{path} holds {number} entries, and there may be as many as there is room for beside them, {capacity}: raise \
                 `list-capacity`"
            );
        }
        Ok(())
    }

    /// The map of the entries.
    ///
    /// # Errors
    /// If an entry differs from the form that this program writes.
    pub(crate) fn into_map(
        self,
        names: Vec<NameEntry>,
        timed: &[(String, OperatorEntry)],
    ) -> anyhow::Result<StaticEntryStore> {
        let merged = self.merged().map_err(|error| damaged(&self.path, error))?;
        let mut lists = BTreeMap::<String, BTreeMap<Bounds, OperatorEntry>>::new();
        // A map that is built from entries in order takes half the memory of one that grows by additions.
        let mut list: (Cow<'_, str>, Vec<(Bounds, OperatorEntry)>) = Default::default();
        for change in self.changes().take(merged.in_order).filter_map(Result::ok) {
            if change.list != list.0 {
                let (name, entries) = std::mem::replace(&mut list, (change.list.into(), Vec::new()));
                lists.insert(name.into_owned(), entries.into_iter().collect());
            }
            list.1.push((change.set.bounds(), entry(change)));
        }
        lists.insert(list.0.into_owned(), list.1.into_iter().collect());
        for ((name, bounds), change) in merged.changed {
            let entries = lists.entry(name.to_owned()).or_default();
            match change.comment {
                Some(_) => _ = entries.insert(bounds, entry(change)),
                None => _ = entries.remove(&bounds),
            }
        }
        for (name, entry) in timed.iter().filter(|(_, entry)| entry.until.is_some()) {
            // A static entry replaced the one with a timeout just before the end.
            lists.entry(name.clone()).or_default().entry(entry.set.bounds()).or_insert_with(|| entry.clone());
        }
        lists.retain(|_, entries| !entries.is_empty());
        Ok(StaticEntryStore::new(lists, names, self.log, self.damage))
    }
}

fn entry(change: StoredChange<'_>) -> OperatorEntry {
    OperatorEntry { set: change.set, comment: change.comment.unwrap_or_default().to_owned(), until: None }
}

fn damaged(path: &Path, error: ContentError) -> anyhow::Error {
    anyhow::Error::new(error).context(damage(&path.display().to_string()))
}

/// The damage of a file, and the entries that are lost.
fn describe(path: &Path, Damage { place, bytes, only_adds }: &Damage) -> String {
    let lost = match only_adds {
        true => "the entries in {bytes} bytes from there on are lost, and all others are in force",
        false => {
            "{bytes} bytes are lost, which may have removed entries: of the entries, those that were added behind these \
             bytes are in force"
        }
    };
    format!("{} is damaged at byte {place}: {}", path.display(), lost.replace("{bytes}", &bytes.to_string()))
}

/// The id of a list that operators fill. Registers the list if no rule has named it.
fn bind(lists: &Lists, name: &str) -> Result<ListId, TooManyListsError> {
    lists.id(name).map_or_else(|| lists.bind(name, OPERATOR_LEVEL), Ok)
}

/// The entries of a file with one checksum for each block, as records.
fn from_version1(content: &[u8]) -> Result<Vec<Record>, ContentError> {
    let entries: Vec<_> = Version1Entries::of(content).collect::<Result<_, _>>()?;
    let changes = entries.iter().map(|entry| (entry.list, &entry.set, entry.comment));
    Ok(snapshot(changes).collect())
}

/// The entries of a file without checksums, as records.
fn read_json(state: &StateDir) -> anyhow::Result<Option<Vec<Record>>> {
    let Some(bytes) = state.read_old(OLD_LISTS)? else { return Ok(None) };
    let shown = state.file(OLD_LISTS).display().to_string();
    let entries: Vec<NewEntry> = serde_json::from_slice(&bytes).with_context(|| damage(&shown))?;
    let mut lists = BTreeMap::<(&str, Bounds), &NewEntry>::new();
    for entry in &entries {
        let checked = match entry.timeout {
            Some(_) => Err(format!("{} has a timeout, which does not outlive a start", entry.address)),
            None => check(entry),
        };
        checked.map_err(|wrong| anyhow!("{}: {wrong}", damage(&shown)))?;
        lists.insert((&entry.list, entry.address.bounds()), entry);
    }
    let entries = lists.iter().map(|((list, _), entry)| (*list, &entry.address, entry.comment.as_str()));
    Ok(Some(snapshot(entries).collect()))
}
