//! What operators hold in lists: entries without a timeout, and prefixes and ranges with one.
//!
//! They are here, and not in the slots that packets fill, so that no flood reaches them: `Lists::hold` takes them over
//! whole after every change. Those without a timeout are static. They are kept in `lists.json` in the state directory
//! before they count, and are there again after a restart; their comments too.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use knockplane_engine::lists::{Lists, OPERATOR_LEVEL, TooManyLists};
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::{LONGEST_TIMEOUT, Time, format_duration, is_timeout};
use knockplane_policy::wire::NewEntry;

use crate::store;

/// First and last address of an entry: no list holds two of the same.
pub(crate) type Bounds = (IpAddr, IpAddr);

/// Bytes of a comment at most, so that an answer of many entries fits a line.
const MAX_COMMENT: usize = 1_000;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) set: AddressSet,
    pub(crate) comment: String,
    /// Until when; for good if none.
    pub(crate) until: Option<Time>,
}

/// What an entry of a list is to become; nothing if none.
pub(crate) struct Change {
    pub(crate) list: String,
    pub(crate) bounds: Bounds,
    pub(crate) entry: Option<Entry>,
}

/// See the module.
pub(crate) struct Held {
    path: PathBuf,
    lists: BTreeMap<String, BTreeMap<Bounds, Entry>>,
    /// No entry expires before it.
    next_expiry: Time,
}

impl Held {
    /// What was kept at the last change.
    ///
    /// # Errors
    /// If it is there and cannot be read: who was let in or kept out by hand must not change unnoticed.
    pub(crate) fn load(state_dir: &Path) -> anyhow::Result<Held> {
        let path = state_dir.join("lists.json");
        let shown = path.display();
        let kept: Vec<NewEntry> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{shown} is damaged; remove it to start without the entries that operators made")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        for entry in &kept {
            let checked = match entry.timeout {
                Some(_) => Err(format!("{} has a timeout, which does not outlive a start", entry.address)),
                None => check(entry),
            };
            checked.map_err(|bad| {
                anyhow!("{shown} is damaged: {bad}; correct it there, or remove the file to start without it")
            })?;
        }
        let mut held = Held { path, lists: BTreeMap::new(), next_expiry: Time::NEVER };
        for NewEntry { list, address, comment, .. } in kept {
            let entry = Entry { comment, until: None, set: address };
            held.put(Change { list, bounds: entry.set.bounds(), entry: Some(entry) });
        }
        Ok(held)
    }

    /// Has the engine go by what is held now.
    ///
    /// # Errors
    /// If it knows too many names of lists already; then nothing changed.
    pub(crate) fn install(&self, lists: &Lists) -> Result<(), TooManyLists> {
        let unknown = self.lists.keys().filter(|name| lists.id(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| (name.as_str(), OPERATOR_LEVEL)).collect();
        lists.bind_all(&unknown)?;
        lists.hold(self.lists.iter().flat_map(|(name, entries)| {
            let list = lists.id(name);
            entries.values().filter_map(move |entry| Some((list?, &entry.set, entry.until)))
        }));
        Ok(())
    }

    /// Changes entries, all or none. The engine goes by them after the next [`Held::install`].
    ///
    /// # Errors
    /// If what is static cannot be kept for the next start; then nothing changed.
    pub(crate) fn change(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let before: Vec<Change> = changes.into_iter().map(|change| self.put(change)).collect();
        self.save().inspect_err(|_| before.into_iter().rev().for_each(|change| _ = self.put(change)))
    }

    /// Makes a change and returns the one that undoes it.
    fn put(&mut self, Change { list, bounds, entry }: Change) -> Change {
        if let Some(until) = entry.as_ref().and_then(|entry| entry.until) {
            self.next_expiry = self.next_expiry.min(until);
        }
        let before = match entry {
            Some(entry) => match self.lists.get_mut(&list) {
                Some(entries) => entries.insert(bounds, entry),
                None => self.lists.entry(list.clone()).or_default().insert(bounds, entry),
            },
            None => self.lists.get_mut(&list).and_then(|entries| entries.remove(&bounds)),
        };
        if self.lists.get(&list).is_some_and(BTreeMap::is_empty) {
            self.lists.remove(&list);
        }
        Change { list, bounds, entry: before }
    }

    /// Forgets what has expired; whether there was anything. It counts no more from its expiry on: only the room is given
    /// back here.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        if now < self.next_expiry {
            return false;
        }
        let is_live = |entry: &Entry| entry.until.is_none_or(|until| now < until);
        self.lists.values_mut().for_each(|entries| entries.retain(|_, entry| is_live(entry)));
        self.lists.retain(|_, entries| !entries.is_empty());
        let left = self.lists.values().flat_map(BTreeMap::values).filter_map(|entry| entry.until);
        self.next_expiry = left.min().unwrap_or(Time::NEVER);
        true
    }

    /// The lists that something is held in.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&str, &BTreeMap<Bounds, Entry>)> {
        self.lists.iter().map(|(name, entries)| (name.as_str(), entries))
    }

    /// How many entries are held.
    pub(crate) fn number(&self) -> usize {
        self.lists.values().map(BTreeMap::len).sum()
    }

    /// What is held in a list.
    pub(crate) fn list(&self, name: &str) -> Option<&BTreeMap<Bounds, Entry>> {
        self.lists.get(name)
    }

    /// Where it is kept.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what is static, a line each.
    fn save(&self) -> io::Result<()> {
        store::write(&self.path, |file| {
            let mut before = "[\n";
            for (list, entries) in self.lists() {
                for entry in entries.values().filter(|entry| entry.until.is_none()) {
                    file.write_all(before.as_bytes())?;
                    let (address, comment) = (entry.set.clone(), entry.comment.clone());
                    serde_json::to_writer(
                        &mut *file,
                        &NewEntry { list: list.to_owned(), address, timeout: None, comment },
                    )?;
                    before = ",\n";
                }
            }
            file.write_all(if before == "[\n" { b"[]\n" } else { b"\n]\n" })
        })
    }
}

/// Whether an entry can be kept and shown.
///
/// # Errors
/// What is wrong with it, and what to write.
pub(crate) fn check(entry: &NewEntry) -> Result<(), String> {
    let NewEntry { list, address, timeout, comment } = entry;
    if list.is_empty() || list.starts_with('!') || list.contains(|char: char| char.is_control() || char == ',') {
        return Err(format!("`{}` is no name of a list: write printable characters without `,`", list.escape_debug()));
    }
    if matches!(address, AddressSet::Range(first, _) if first.is_ipv6()) {
        return Err(format!("{address} is a range, and ranges exist for IPv4 only: write prefixes"));
    }
    if comment.len() > MAX_COMMENT {
        return Err(format!("the comment of {address} has {} bytes: write at most {MAX_COMMENT}", comment.len()));
    }
    if timeout.is_some_and(|timeout| !is_timeout(timeout)) {
        let longest = format_duration(LONGEST_TIMEOUT);
        return Err(format!("the timeout of {address} is zero or too long: write at most {longest}, or leave it out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use knockplane_engine::lists::Lists;

    use super::*;

    fn change(list: &str, set: &str, until: Option<u64>) -> Change {
        let (set, until) = (set.parse::<AddressSet>().unwrap(), until.map(Time::from_nanos));
        let entry = Entry { comment: format!("{set}, by hand"), set, until };
        Change { list: list.to_owned(), bounds: entry.set.bounds(), entry: Some(entry) }
    }

    fn all(held: &Held) -> Vec<String> {
        held.lists()
            .flat_map(|(list, entries)| entries.values().map(move |entry| format!("{list} {}", entry.set)))
            .collect()
    }

    #[test]
    fn what_is_static_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = Held::load(folder.path()).unwrap();
        let entries = [
            ("b", "192.0.2.0/24", None),
            ("a", "2001:db8::7", None),
            ("a", "192.0.2.1-192.0.2.9", None),
            ("a", "::/0", Some(5)),
        ];
        held.change(entries.map(|(list, set, until)| change(list, set, until)).into()).unwrap();
        assert_eq!(all(&held), ["a 192.0.2.1-192.0.2.9", "a ::/0", "a 2001:db8::7", "b 192.0.2.0/24"]);
        let again = Held::load(folder.path()).unwrap();
        assert_eq!(all(&again), ["a 192.0.2.1-192.0.2.9", "a 2001:db8::7", "b 192.0.2.0/24"]);
        assert_eq!(again.list("b").unwrap(), held.list("b").unwrap(), "comments too");
        held.change(vec![Change { entry: None, ..change("b", "192.0.2.0/24", None) }]).unwrap();
        assert!(held.list("b").is_none() && Held::load(folder.path()).unwrap().list("b").is_none());
    }

    #[test]
    fn a_change_that_cannot_be_kept_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut held = Held::load(&state).unwrap();
        held.change(vec![change("a", "192.0.2.1", None)]).unwrap();
        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "in the way").unwrap();
        let twice = vec![change("a", "192.0.2.2", None), change("a", "192.0.2.2", Some(1)), change("b", "::", None)];
        assert!(held.change(twice).is_err());
        assert_eq!(all(&held), ["a 192.0.2.1"]);
    }

    #[test]
    fn damage_is_said_and_not_started_with() {
        let folder = tempfile::tempdir().unwrap();
        for damage in ["", "[{\"list\":\"a\"}]", "[{\"list\":\"a\",\"address\":\"host\"}]"] {
            fs::write(folder.path().join("lists.json"), damage).unwrap();
            let Err(error) = Held::load(folder.path()) else { panic!("{damage}") };
            assert!(error.to_string().contains("lists.json is damaged; remove it"), "{error:#}");
        }
        let entry =
            |list: &str, rest: &str| format!("[{{\"list\":\"{list}\",\"address\":\"::1\"{rest},\"comment\":\"\"}}]");
        let timed = ",\"timeout\":{\"secs\":60,\"nanos\":0}";
        for (kept, told) in [(entry("a,b", ""), "`a,b` is no name of a list"), (entry("a", timed), "::1 has a timeout")]
        {
            fs::write(folder.path().join("lists.json"), kept).unwrap();
            let Err(error) = Held::load(folder.path()) else { panic!("{told}") };
            assert!(error.to_string().contains(told), "{error:#}");
        }
    }

    #[test]
    fn a_time_ends_and_the_engine_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let lists = Lists::new(1).unwrap();
        let mut held = Held::load(folder.path()).unwrap();
        held.change(vec![change("a", "192.0.2.0/24", Some(5)), change("a", "::/0", Some(9))]).unwrap();
        held.install(&lists).unwrap();
        let list = lists.id("a").unwrap();
        let is_in = |address: [u8; 4]| lists.membership(address.into(), 0, Time::default()).contains(list);
        assert!(is_in([192, 0, 2, 9]) && !held.expire(Time::from_nanos(4)));
        let after = lists.membership([192, 0, 2, 9].into(), 0, Time::from_nanos(5));
        assert!(!after.contains(list), "to the nanosecond, whenever somebody looks after it");
        assert!(held.expire(Time::from_nanos(5)) && !held.expire(Time::from_nanos(6)));
        held.install(&lists).unwrap();
        assert!(!is_in([192, 0, 2, 9]));
        assert_eq!(all(&held), ["a ::/0"]);
    }
}
