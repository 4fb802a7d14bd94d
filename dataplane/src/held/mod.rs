//! What operators hold in lists: entries without a timeout, and prefixes and ranges with one.
//!
//! They are here, and not in the slots that packets fill, so that no flood reaches them: `Lists::hold` takes them over
//! whole after every change. Those without a timeout are static. They are kept in `lists.state` in the state directory
//! before they count, and are there again after a restart; their comments too.
//!
//! At a start the engine goes by the file ([`StoredEntries`]) before the map that changes need ([`Held`]) is built, which
//! takes longer and can wait until frames are forwarded.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use knockplane_engine::state::lists::{ListId, Lists, OPERATOR_LEVEL, TooManyListsError};
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::{LONGEST_TIMEOUT, Time, format_duration, is_timeout};
use knockplane_policy::wire::NewEntry;

use self::file::{ContentError, Entries, FORMAT, encode};
use crate::names::NameEntry;
use crate::state_dir::{Content, LISTS, OLD_LISTS, StateDir, damage};

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

/// The static entries as they are stored, verified and not yet in a map.
pub(crate) struct StoredEntries {
    state: Arc<StateDir>,
    content: StoredContent,
}

enum StoredContent {
    /// Of `lists.state`.
    File(Content),
    /// Of a file of an earlier version, or nothing.
    Memory(Vec<u8>),
}

impl StoredEntries {
    /// What was kept at the last change. A file of an earlier version is replaced.
    ///
    /// # Errors
    /// If it is there and damaged or cannot be read: who was let in or kept out by hand must not change unnoticed.
    pub(crate) fn load(state: &Arc<StateDir>) -> anyhow::Result<StoredEntries> {
        let stored = state.read(LISTS, FORMAT)?;
        let old = read_old(state)?;
        let content = match (stored, old) {
            (Some(content), None) => StoredContent::File(content),
            (None, None) => StoredContent::Memory(Vec::new()),
            (None, Some(old)) => {
                state.take_over(OLD_LISTS, LISTS, FORMAT, &old);
                StoredContent::Memory(old)
            }
            (Some(content), Some(old)) if *content == *old => {
                state.take_over(OLD_LISTS, LISTS, FORMAT, &old);
                StoredContent::File(content)
            }
            (Some(_), Some(_)) => {
                let [new, old] = [LISTS, OLD_LISTS].map(|name| state.file(name).display().to_string());
                bail!("{new} and {old}, which an earlier version wrote, hold different entries: remove one of them")
            }
        };
        Ok(StoredEntries { state: Arc::clone(state), content })
    }

    /// What was kept, without changing a file.
    ///
    /// # Errors
    /// As [`StoredEntries::load`].
    pub(crate) fn peek(state: &Arc<StateDir>) -> anyhow::Result<StoredEntries> {
        let content = match state.read(LISTS, FORMAT)? {
            Some(content) => StoredContent::File(content),
            None => StoredContent::Memory(read_old(state)?.unwrap_or_default()),
        };
        Ok(StoredEntries { state: Arc::clone(state), content })
    }

    fn bytes(&self) -> &[u8] {
        match &self.content {
            StoredContent::File(content) => content,
            StoredContent::Memory(content) => content,
        }
    }

    /// The path of the file, for people.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.file(LISTS)
    }

    /// Has the engine go by these entries, and by those of host names.
    ///
    /// # Errors
    /// If an entry is not as it would be written here, or there are more entries or names of lists than may be.
    pub(crate) fn install(&self, lists: &Lists, names: &[NameEntry]) -> anyhow::Result<()> {
        let mut failed = None;
        let mut number = 0;
        let mut list = None;
        let entries = Entries::of(self.bytes()).map_while(|entry| {
            let entry = entry.map_err(|error| self.damaged(error)).and_then(|entry| {
                let id = match list {
                    Some((name, id)) if name == entry.list => id,
                    _ => bind(lists, entry.list)?,
                };
                list = Some((entry.list, id));
                number += 1;
                Ok((id, entry.set.bounds(), None))
            });
            entry.map_err(|error| failed = Some(error)).ok()
        });
        lists.set_static_entries(entries.chain(of_names(lists, names)));
        if let Some(error) = failed {
            return Err(error);
        }
        // As for those that are added.
        if number > lists.capacity() {
            let (path, capacity) = (self.path(), lists.capacity());
            bail!(
                "{} holds {number} entries, and there may be as many as there is room for beside them, {capacity}: raise \
                 `list-capacity`",
                path.display()
            );
        }
        Ok(())
    }

    /// The map of the entries.
    ///
    /// # Errors
    /// If an entry is not as it would be written here.
    pub(crate) fn into_held(self, names: Vec<NameEntry>) -> anyhow::Result<Held> {
        let mut lists = BTreeMap::new();
        // A map that is made of entries in order takes half the memory of one that they are added to.
        let mut list: (&str, Vec<(Bounds, Entry)>) = ("", Vec::new());
        for entry in Entries::of(self.bytes()) {
            let entry = entry.map_err(|error| self.damaged(error))?;
            if entry.list != list.0 {
                let (name, entries) = std::mem::replace(&mut list, (entry.list, Vec::new()));
                lists.insert(name.to_owned(), entries.into_iter().collect::<BTreeMap<_, _>>());
            }
            let comment = entry.comment.to_owned();
            list.1.push((entry.set.bounds(), Entry { set: entry.set, comment, until: None }));
        }
        lists.insert(list.0.to_owned(), list.1.into_iter().collect());
        lists.retain(|_, entries| !entries.is_empty());
        Ok(Held { state: self.state, lists, names, next_expiry: Time::NEVER })
    }

    fn damaged(&self, error: ContentError) -> anyhow::Error {
        anyhow::Error::new(error).context(damage(&self.path().display().to_string()))
    }
}

/// Entries of host names as the engine takes them. Their lists are known: rules hold them.
fn of_names<'n>(lists: &'n Lists, names: &'n [NameEntry]) -> impl Iterator<Item = (ListId, Bounds, Option<Time>)> + 'n {
    names.iter().filter_map(|entry| Some((lists.id(&entry.list)?, entry.bounds, entry.until)))
}

/// The id of a list that operators fill, made known if no rule has named it.
fn bind(lists: &Lists, name: &str) -> Result<ListId, TooManyListsError> {
    lists.id(name).map_or_else(|| lists.bind(name, OPERATOR_LEVEL), Ok)
}

/// The content of the file that versions before wrote, in today's form.
fn read_old(state: &StateDir) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(bytes) = state.read_old(OLD_LISTS)? else { return Ok(None) };
    let shown = state.file(OLD_LISTS).display().to_string();
    let entries: Vec<NewEntry> = serde_json::from_slice(&bytes).with_context(|| damage(&shown))?;
    let mut lists = BTreeMap::<String, BTreeMap<Bounds, Entry>>::new();
    for entry in entries {
        let checked = match entry.timeout {
            Some(_) => Err(format!("{} has a timeout, which does not outlive a start", entry.address)),
            None => check(&entry),
        };
        checked.map_err(|wrong| anyhow!("{}: {wrong}", damage(&shown)))?;
        let NewEntry { list, address: set, comment, .. } = entry;
        lists.entry(list).or_default().insert(set.bounds(), Entry { set, comment, until: None });
    }
    Ok(Some(encode(lists.iter().map(|(name, entries)| (name.as_str(), entries.values())))))
}

/// See the module.
pub(crate) struct Held {
    state: Arc<StateDir>,
    lists: BTreeMap<String, BTreeMap<Bounds, Entry>>,
    /// Entries of host names, which the engine takes with those of operators.
    names: Vec<NameEntry>,
    /// No entry expires before it.
    next_expiry: Time,
}

impl Held {
    /// What is stored, in a map.
    ///
    /// # Errors
    /// As [`StoredEntries::load`] and [`StoredEntries::into_held`].
    #[cfg(test)]
    pub(crate) fn load(state: &Arc<StateDir>) -> anyhow::Result<Held> {
        StoredEntries::load(state)?.into_held(Vec::new())
    }

    /// Has the engine go by what is held now.
    ///
    /// # Errors
    /// If it knows too many names of lists already; then nothing changed.
    pub(crate) fn install(&self, lists: &Lists) -> Result<(), TooManyListsError> {
        let unknown = self.lists.keys().filter(|name| lists.id(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| (name.as_str(), OPERATOR_LEVEL)).collect();
        lists.bind_all(&unknown)?;
        let of_operators = self.lists.iter().flat_map(|(name, entries)| {
            let list = lists.id(name);
            entries.values().filter_map(move |entry| Some((list?, entry.set.bounds(), entry.until)))
        });
        lists.set_static_entries(of_operators.chain(of_names(lists, &self.names)));
        Ok(())
    }

    /// Replaces the entries of host names. The engine goes by them after the next [`Held::install`].
    pub(crate) fn set_names(&mut self, names: Vec<NameEntry>) {
        self.names = names;
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

    /// The path of the file, for people.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.file(LISTS)
    }

    /// Stores what is static.
    fn save(&self) -> io::Result<()> {
        let lists = self.lists.iter().map(|(name, entries)| (name.as_str(), entries.values()));
        self.state.write(LISTS, FORMAT, &encode(lists))?;
        self.state.forget_old(OLD_LISTS);
        Ok(())
    }
}

/// Whether an entry can be kept and shown.
///
/// # Errors
/// What is wrong with it, and what to write.
pub(crate) fn check(entry: &NewEntry) -> Result<(), String> {
    let NewEntry { list, address, timeout, comment } = entry;
    check_list_name(list)?;
    if matches!(address, AddressSet::Range(first, _) if first.is_ipv6()) {
        return Err(format!("{address} is a range, and ranges exist for IPv4 only: write prefixes"));
    }
    check_comment(address, comment)?;
    if timeout.is_some_and(|timeout| !is_timeout(timeout)) {
        let longest = format_duration(LONGEST_TIMEOUT);
        return Err(format!("the timeout of {address} is zero or too long: write at most {longest}, or leave it out"));
    }
    Ok(())
}

fn check_list_name(list: &str) -> Result<(), String> {
    if list.is_empty() || list.starts_with('!') || list.contains(|char: char| char.is_control() || char == ',') {
        return Err(format!("`{}` is no name of a list: write printable characters without `,`", list.escape_debug()));
    }
    Ok(())
}

fn check_comment(address: &AddressSet, comment: &str) -> Result<(), String> {
    if comment.len() > MAX_COMMENT {
        return Err(format!("the comment of {address} has {} bytes: write at most {MAX_COMMENT}", comment.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use knockplane_engine::state::lists::Lists;

    use std::fs;

    use super::*;
    use knockplane_limits::predecessor::Deadline;

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

    fn open(folder: &tempfile::TempDir) -> Arc<StateDir> {
        Arc::new(StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap())
    }

    #[test]
    fn what_is_static_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let mut held = Held::load(&state).unwrap();
        let entries = [
            ("b", "192.0.2.0/24", None),
            ("a", "2001:db8::7", None),
            ("a", "192.0.2.1-192.0.2.9", None),
            ("a", "::/0", Some(5)),
        ];
        held.change(entries.map(|(list, set, until)| change(list, set, until)).into()).unwrap();
        assert_eq!(all(&held), ["a 192.0.2.1-192.0.2.9", "a ::/0", "a 2001:db8::7", "b 192.0.2.0/24"]);
        let again = Held::load(&state).unwrap();
        assert_eq!(all(&again), ["a 192.0.2.1-192.0.2.9", "a 2001:db8::7", "b 192.0.2.0/24"]);
        assert_eq!(again.list("b").unwrap(), held.list("b").unwrap(), "comments too");

        let told = StoredEntries::load(&state).unwrap().install(&Lists::new(2).unwrap(), &[]).unwrap_err().to_string();
        assert!(told.contains("holds 3 entries") && told.contains("raise `list-capacity`"), "{told}");
        let lists = Lists::new(3).unwrap();
        StoredEntries::load(&state).unwrap().install(&lists, &[]).unwrap();
        let is_in = |list, address: [u8; 4]| {
            lists.membership(address.into(), 0, Time::default()).contains(lists.id(list).unwrap())
        };
        assert!(is_in("b", [192, 0, 2, 77]) && is_in("a", [192, 0, 2, 9]) && !is_in("a", [192, 0, 2, 10]));

        held.change(vec![Change { entry: None, ..change("b", "192.0.2.0/24", None) }]).unwrap();
        assert!(held.list("b").is_none() && Held::load(&state).unwrap().list("b").is_none());
    }

    #[test]
    fn a_change_that_cannot_be_kept_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let mut held = Held::load(&state).unwrap();
        held.change(vec![change("a", "192.0.2.1", None)]).unwrap();
        fs::remove_dir_all(folder.path().join("state")).unwrap();
        let twice = vec![change("a", "192.0.2.2", None), change("a", "192.0.2.2", Some(1)), change("b", "::", None)];
        assert!(held.change(twice).is_err());
        assert_eq!(all(&held), ["a 192.0.2.1"]);
    }

    /// Every bit of a real file, every length, and bytes behind it.
    #[test]
    fn a_damaged_file_is_refused_with_its_name_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let mut held = Held::load(&state).unwrap();
        let entries = [("a", "192.0.2.1"), ("a", "192.0.2.3-192.0.2.9"), ("b", "2001:db8::/32")];
        held.change(entries.map(|(list, set)| change(list, set, None)).into()).unwrap();
        let (path, bytes) = (held.path(), fs::read(held.path()).unwrap());
        let refused = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let Err(error) = StoredEntries::load(&state) else { panic!("{what} is accepted") };
            let error = format!("{error:#}");
            assert!(error.starts_with(&format!("{} is damaged; ", path.display())), "{what}: {error}");
            assert!(error.contains("--without-state"), "{what}: {error}");
        };
        let mut damaged = bytes.clone();
        for bit in 0..8 * bytes.len() {
            damaged[bit / 8] ^= 1 << (bit % 8);
            refused(&damaged, &format!("bit {bit}"));
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        (0..bytes.len()).for_each(|length| refused(&bytes[..length], &format!("{length} bytes")));
        [&b"\n"[..], b"\0", &bytes].iter().for_each(|more| refused(&[&bytes, *more].concat(), "more"));
        fs::write(&path, &bytes).unwrap();
        assert_eq!(all(&Held::load(&state).unwrap()), all(&held));
    }

    #[test]
    fn entries_that_would_not_be_written_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let two = [b"\0\0\0\x01a\0\0\0\x02", &[32, 192, 0, 2, 1, 0, 0, 32, 192, 0, 2, 1, 0, 0][..]].concat();
        state.write(LISTS, FORMAT, &two).unwrap();
        let stored = StoredEntries::load(&state).unwrap();
        let error = format!("{:#}", stored.install(&Lists::new(1).unwrap(), &[]).unwrap_err());
        assert!(error.contains("lists.state is damaged") && error.contains("192.0.2.1 is not in order"), "{error}");
        assert!(stored.into_held(Vec::new()).is_err());
    }

    fn old(rest: &str) -> String {
        format!("[{{\"list\":\"a\",\"address\":\"::1\"{rest}}}]")
    }

    #[test]
    fn a_file_of_an_earlier_version_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let [new, old_file] = [LISTS, OLD_LISTS].map(|name| state.file(name));
        fs::write(&old_file, old(",\"comment\":\"home\"")).unwrap();
        let held = Held::load(&state).unwrap();
        assert_eq!(held.list("a").unwrap().values().next().unwrap().comment, "home");
        assert!(new.exists() && !old_file.exists());
        assert_eq!(all(&Held::load(&state).unwrap()), ["a ::1"]);

        fs::write(&old_file, old(",\"comment\":\"home\"")).unwrap();
        assert_eq!(all(&Held::load(&state).unwrap()), ["a ::1"], "as after a start that was interrupted");
        assert!(!old_file.exists());
        fs::write(&old_file, "[]").unwrap();
        let error = Held::load(&state).err().unwrap().to_string();
        assert!(error.contains("hold different entries: remove one of them"), "{error}");
        fs::write(&new, "[").unwrap();
        let error = format!("{:#}", Held::load(&state).err().unwrap());
        assert!(error.contains("lists.state is damaged"), "a damaged file does not count as an old one: {error}");
    }

    #[test]
    fn damage_of_an_earlier_version_is_said_and_not_started_with() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let cases = [
            (String::new(), "EOF"),
            ("[{\"list\":\"a\"}]".to_owned(), "missing field"),
            (old("").replace("::1", "host"), "line 1 column"),
            (old("").replace("\"a\"", "\"a,b\""), "`a,b` is no name of a list"),
            (old(",\"timeout\":{\"secs\":60,\"nanos\":0}"), "::1 has a timeout"),
        ];
        for (kept, told) in cases {
            fs::write(state.file(OLD_LISTS), &kept).unwrap();
            let Err(error) = Held::load(&state) else { panic!("{told}") };
            let error = format!("{error:#}");
            assert!(error.contains("lists.json is damaged; ") && error.contains("--without-state"), "{error}");
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_time_ends_and_the_engine_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let lists = Lists::new(1).unwrap();
        let mut held = Held::load(&open(&folder)).unwrap();
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
