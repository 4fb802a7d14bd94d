//! Additions of entries by operators: all entries or none.
//!
//! First, this module finds the entries that are permanent already, and checks the room for the rest. Then it changes
//! the static entries, on disk and for the workers; no later step can fail. Then it adds addresses with a timeout.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use knockplane_engine::state::lists::{AddOutcome, ListId, Lists, OPERATOR_LEVEL};
use knockplane_policy::event::EventKind;
use knockplane_policy::rule::{AddressSet, EntryAddress, RuleSet};
use knockplane_policy::time::Time;
use knockplane_policy::wire::NewEntry;

use super::{Notes, RequestError, change, notes};
use crate::journal::Journal;
use crate::static_entries::{self, Bounds, OperatorChange, OperatorEntry, StaticEntryStore};

/// Maximum number of bytes of the name of a new list: every entry in an answer contains the name, and the name exists
/// until a restart. Names in rules have no limit.
const MAX_NAME: usize = 64;

/// The state that additions change, and the rules that they must not change.
pub(super) struct Adding<'m> {
    pub(super) lists: &'m Lists,
    pub(super) entries: &'m mut StaticEntryStore,
    pub(super) notes: &'m mut Notes,
    pub(super) journal: &'m Journal,
    pub(super) rules: &'m RuleSet,
    /// The origin of the rules, for messages.
    pub(super) source: &'m str,
}

/// The key of an entry. A list contains each key once.
type EntryKey = (ListId, Bounds);

/// The origin of a permanent entry.
enum Permanent {
    /// This line of the rules.
    Rules(u32),
    Operator,
    /// A rule that adds without a timeout.
    Packets,
}

/// The changes for entries that are not permanent already.
#[derive(Default)]
struct Plan {
    entries: Vec<OperatorChange>,
    added: Vec<(ListId, IpAddr, Time, String)>,
    /// Single addresses that become static. Their dynamic entries are removed.
    replaced: Vec<(ListId, IpAddr)>,
    left: u64,
}

impl Adding<'_> {
    /// Adds the entries. Returns the number of entries that were permanent already and did not change. A single
    /// permanent entry that would get a timeout is refused, because the operator expects the entry to expire.
    pub(super) fn add(self, entries: Vec<NewEntry>, now: Time) -> Result<u64, RequestError> {
        for entry in &entries {
            static_entries::check(entry).map_err(RequestError::Theirs)?;
        }
        let ids = self.bind(&entries)?;
        let Plan { entries, added, replaced, left } = self.plan(entries, &ids, now)?;
        self.check_room(&added, now)?;
        self.check_number(&entries)?;
        change(self.entries, self.lists, self.journal, entries, EventKind::Removed, now)?;
        for (list, address) in replaced {
            self.lists.remove(list, address, now);
        }
        self.journal.change(self.comment_changes(&added));
        let mut refused = 0;
        for (list, address, until, comment) in added {
            refused += u64::from(self.lists.add_by_operator(list, address, until, now) == AddOutcome::Refused);
            self.notes.set(list, address, comment);
        }
        if refused > 0 {
            return Err(RequestError::Ours(format!(
                "{refused} entries were refused room that they had: this is a defect"
            )));
        }
        Ok(left)
    }

    /// The changes of comments by these additions.
    fn comment_changes(&self, added: &[(ListId, IpAddr, Time, String)]) -> Vec<OperatorChange> {
        let change = |(list, address, _, comment): &(ListId, IpAddr, Time, String)| {
            Some(notes::change(self.lists.name(*list)?, *address, comment))
        };
        added.iter().filter_map(change).collect()
    }

    /// The ids of the lists. Registers new names.
    fn bind(&self, entries: &[NewEntry]) -> Result<HashMap<String, ListId>, RequestError> {
        let names: HashSet<&str> = entries.iter().map(|entry| entry.list.as_str()).collect();
        let unknown = names.iter().filter(|name| self.lists.id(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| (*name, OPERATOR_LEVEL)).collect();
        if let Some((name, _)) = unknown.iter().find(|(name, _)| name.len() > MAX_NAME) {
            let begin = name.chars().take(20).collect::<String>();
            let told = format!("the name of the list `{begin}…` has {} bytes: write at most {MAX_NAME}", name.len());
            return Err(RequestError::Theirs(told));
        }
        self.lists.bind_all(&unknown).map_err(|error| RequestError::Theirs(error.to_string()))?;
        Ok(names.into_iter().filter_map(|name| Some((name.to_owned(), self.lists.id(name)?))).collect())
    }

    fn plan(&self, entries: Vec<NewEntry>, ids: &HashMap<String, ListId>, now: Time) -> Result<Plan, RequestError> {
        let key = |list: &str, set: &AddressSet| ids.get(list).map(|id| (*id, set.bounds()));
        let keys = entries.iter().map(|entry| (key(&entry.list, &entry.address), entry.timeout.is_none()));
        let asked: HashMap<EntryKey, bool> = keys.fold(HashMap::new(), |mut asked, (key, lasts)| {
            key.into_iter().for_each(|key| *asked.entry(key).or_default() |= lasts);
            asked
        });
        let of_rules = self.rules.address_lists.iter().filter_map(|entry| match &entry.address {
            EntryAddress::Set(set) if !entry.disabled && entry.timeout.is_none() => {
                Some((key(&entry.list, set).filter(|key| asked.contains_key(key))?, entry.line))
            }
            _ => None,
        });
        let of_rules: HashMap<EntryKey, u32> = of_rules.collect();

        let alone = entries.len() == 1;
        let mut plan = Plan::default();
        for NewEntry { list, address, timeout, comment } in entries {
            let bounds = address.bounds();
            let Some(&id) = ids.get(&list) else { continue };
            let is_permanent = || {
                let known = self.entries.list(&list).and_then(|entries| entries.get(&bounds));
                known.is_some_and(|known| known.until.is_none()) || asked.get(&(id, bounds)) == Some(&true)
            };
            let permanent = match (of_rules.get(&(id, bounds)), address.single()) {
                (Some(line), _) => Some(Permanent::Rules(*line)),
                (None, _) if timeout.is_none() => None,
                (None, _) if is_permanent() => Some(Permanent::Operator),
                (None, Some(single)) if self.lists.has_permanent_entry(id, single, now) => Some(Permanent::Packets),
                (None, _) => None,
            };
            if let Some(permanent) = permanent {
                if alone && timeout.is_some() {
                    return Err(RequestError::Theirs(self.refusal(&permanent, &list, &address)));
                }
                plan.left += 1;
                continue;
            }
            let until = timeout.map(|timeout| now + timeout);
            match (until, address.single()) {
                (Some(until), Some(single)) => plan.added.push((id, single, until, comment)),
                (until, single) => {
                    plan.replaced.extend(single.map(|single| (id, single)));
                    plan.entries.push(OperatorChange {
                        list,
                        bounds,
                        entry: Some(OperatorEntry { comment, until, set: address }),
                    });
                }
            }
        }
        Ok(plan)
    }

    /// The reason that an entry cannot get a timeout, and the remedy.
    fn refusal(&self, permanent: &Permanent, list: &str, address: &AddressSet) -> String {
        let source = self.source;
        match permanent {
            Permanent::Rules(line) => format!(
                "{address} is a static entry of {list}, by line {line} of the rules ({source}): change it there, and apply them"
            ),
            Permanent::Operator => {
                format!("{address} is a static entry of {list}: remove it first, to add it with a timeout")
            }
            Permanent::Packets => format!(
                "{address} is in {list} without a timeout, because a rule adds it so: remove it first, to add it with one"
            ),
        }
    }

    fn check_room(&self, added: &[(ListId, IpAddr, Time, String)], now: Time) -> Result<(), RequestError> {
        let each_once: HashSet<(ListId, IpAddr)> = added.iter().map(|(list, address, ..)| (*list, *address)).collect();
        let number = each_once.len();
        if self.lists.has_room_for(each_once.into_iter(), now) {
            return Ok(());
        }
        Err(RequestError::Theirs(format!(
            "there is no room for {number} more with a timeout: of the {} entries of `list-capacity` a tenth is left to \
             packets, in each part of it; raise it, or leave the timeout out, which takes no room of it; nothing was added",
            self.lists.capacity()
        )))
    }

    /// Checks the number of entries. Static entries take no slots of the lists, but memory and disk space.
    fn check_number(&self, changes: &[OperatorChange]) -> Result<(), RequestError> {
        let is_new = |change: &&OperatorChange| {
            !self.entries.list(&change.list).is_some_and(|list| list.contains_key(&change.bounds))
        };
        let new: HashSet<_> = changes.iter().filter(is_new).map(|change| (&change.list, change.bounds)).collect();
        let (number, capacity) = (self.entries.number() + new.len(), self.lists.capacity());
        if new.is_empty() || number <= capacity {
            return Ok(());
        }
        Err(RequestError::Theirs(format!(
            "that would make {number} entries without a timeout, or of more than one address: there may be as many beside \
             what packets add as there is room for that, {capacity}; raise `list-capacity`, or write prefixes; nothing was \
             added"
        )))
    }
}

#[cfg(test)]
mod tests;
