//! Putting entries in lists for operators: all of them or none.
//!
//! First it is found out what is in for good already, and whether there is room for the rest. Then what is held is
//! changed, on disk and for the workers, which is all that can fail. Then addresses with a timeout are added.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use knockplane_engine::state::lists::{AddOutcome, ListId, Lists, OPERATOR_LEVEL};
use knockplane_policy::rule::{AddressSet, EntryAddress, RuleSet};
use knockplane_policy::time::Time;
use knockplane_policy::wire::NewEntry;

use super::Notes;
use super::answer::Problem;
use super::lists::change_held;
use crate::held::{self, Bounds, Change, Entry, Held};

/// Bytes at most of the name of a list that nobody has named yet: every entry that is shown has it, and it is remembered
/// until a restart. Names of the rules are as long as they are.
const MAX_NAME: usize = 64;

/// What entries are put in, and what they may not change.
pub(super) struct Adding<'m> {
    pub(super) lists: &'m Lists,
    pub(super) held: &'m mut Held,
    pub(super) notes: &'m mut Notes,
    pub(super) rules: &'m RuleSet,
    /// Where the rules came from, for people.
    pub(super) source: &'m str,
}

/// An entry, by what no list holds twice.
type Key = (ListId, Bounds);

/// By what an entry is in its list for good.
enum ForGood {
    /// This line of them.
    Rules(u32),
    Operator,
    /// A rule that adds without a timeout.
    Packets,
}

/// What the entries that are not in for good come to.
#[derive(Default)]
struct Plan {
    held: Vec<Change>,
    added: Vec<(ListId, IpAddr, Time, String)>,
    /// Single addresses that are held now, and so are no packet's any more.
    replaced: Vec<(ListId, IpAddr)>,
    left: u64,
}

impl Adding<'_> {
    /// Puts them in; says how many are in for good already, and were left as they were. A single one that was to get a
    /// timeout is refused if it is: whoever asks believes that it would end.
    pub(super) fn add(self, entries: Vec<NewEntry>, now: Time) -> Result<u64, Problem> {
        for entry in &entries {
            held::check(entry).map_err(Problem::Theirs)?;
        }
        let ids = self.bind(&entries)?;
        let Plan { held, added, replaced, left } = self.plan(entries, &ids, now)?;
        self.check_room(&added, now)?;
        self.check_number(&held)?;
        change_held(self.held, self.lists, held)?;
        for (list, address) in replaced {
            self.lists.remove(list, address, now);
        }
        let mut refused = 0;
        for (list, address, until, comment) in added {
            refused += u64::from(self.lists.add_by_operator(list, address, until, now) == AddOutcome::Refused);
            self.notes.set(list, address, comment);
        }
        if refused > 0 {
            return Err(Problem::Ours(format!("{refused} entries were refused room that they had: this is a defect")));
        }
        Ok(left)
    }

    /// The lists' ids. A name that is new becomes known.
    fn bind(&self, entries: &[NewEntry]) -> Result<HashMap<String, ListId>, Problem> {
        let names: HashSet<&str> = entries.iter().map(|entry| entry.list.as_str()).collect();
        let unknown = names.iter().filter(|name| self.lists.id(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| (*name, OPERATOR_LEVEL)).collect();
        if let Some((name, _)) = unknown.iter().find(|(name, _)| name.len() > MAX_NAME) {
            let begin = name.chars().take(20).collect::<String>();
            let told = format!("the name of the list `{begin}…` has {} bytes: write at most {MAX_NAME}", name.len());
            return Err(Problem::Theirs(told));
        }
        self.lists.bind_all(&unknown).map_err(|error| Problem::Theirs(error.to_string()))?;
        Ok(names.into_iter().filter_map(|name| Some((name.to_owned(), self.lists.id(name)?))).collect())
    }

    fn plan(&self, entries: Vec<NewEntry>, ids: &HashMap<String, ListId>, now: Time) -> Result<Plan, Problem> {
        let key = |list: &str, set: &AddressSet| ids.get(list).map(|id| (*id, set.bounds()));
        let keys = entries.iter().map(|entry| (key(&entry.list, &entry.address), entry.timeout.is_none()));
        let asked: HashMap<Key, bool> = keys.fold(HashMap::new(), |mut asked, (key, lasts)| {
            key.into_iter().for_each(|key| *asked.entry(key).or_default() |= lasts);
            asked
        });
        let of_rules = self.rules.address_lists.iter().filter_map(|entry| match &entry.address {
            EntryAddress::Set(set) if !entry.disabled && entry.timeout.is_none() => {
                Some((key(&entry.list, set).filter(|key| asked.contains_key(key))?, entry.line))
            }
            _ => None,
        });
        let of_rules: HashMap<Key, u32> = of_rules.collect();

        let alone = entries.len() == 1;
        let mut plan = Plan::default();
        for NewEntry { list, address, timeout, comment } in entries {
            let bounds = address.bounds();
            let Some(&id) = ids.get(&list) else { continue };
            let is_held = || {
                let known = self.held.list(&list).and_then(|entries| entries.get(&bounds));
                known.is_some_and(|known| known.until.is_none()) || asked.get(&(id, bounds)) == Some(&true)
            };
            let for_good = match (of_rules.get(&(id, bounds)), address.single()) {
                (Some(line), _) => Some(ForGood::Rules(*line)),
                (None, _) if timeout.is_none() => None,
                (None, _) if is_held() => Some(ForGood::Operator),
                (None, Some(single)) if self.lists.has_permanent_entry(id, single, now) => Some(ForGood::Packets),
                (None, _) => None,
            };
            if let Some(for_good) = for_good {
                if alone && timeout.is_some() {
                    return Err(Problem::Theirs(self.refusal(&for_good, &list, &address)));
                }
                plan.left += 1;
                continue;
            }
            let until = timeout.map(|timeout| now + timeout);
            match (until, address.single()) {
                (Some(until), Some(single)) => plan.added.push((id, single, until, comment)),
                (until, single) => {
                    plan.replaced.extend(single.map(|single| (id, single)));
                    plan.held.push(Change { list, bounds, entry: Some(Entry { comment, until, set: address }) });
                }
            }
        }
        Ok(plan)
    }

    /// Why an entry gets no timeout, and what to do.
    fn refusal(&self, for_good: &ForGood, list: &str, address: &AddressSet) -> String {
        let source = self.source;
        match for_good {
            ForGood::Rules(line) => format!(
                "{address} is in {list} for good, by line {line} of the rules ({source}): change it there, and apply them"
            ),
            ForGood::Operator => format!("{address} is in {list} for good: remove it first, to add it with a timeout"),
            ForGood::Packets => format!(
                "{address} is in {list} for good, by a rule that adds without a timeout: remove it first, to add it with one"
            ),
        }
    }

    fn check_room(&self, added: &[(ListId, IpAddr, Time, String)], now: Time) -> Result<(), Problem> {
        let each_once: HashSet<(ListId, IpAddr)> = added.iter().map(|(list, address, ..)| (*list, *address)).collect();
        let number = each_once.len();
        if self.lists.has_room_for(each_once.into_iter(), now) {
            return Ok(());
        }
        Err(Problem::Theirs(format!(
            "there is no room for {number} more with a timeout: of the {} entries of `list-capacity` a tenth is left to \
             packets, in each part of it; raise it, or leave the timeout out, which takes no room of it; nothing was added",
            self.lists.capacity()
        )))
    }

    /// What is held takes no room of the lists, but memory and disk.
    fn check_number(&self, held: &[Change]) -> Result<(), Problem> {
        let is_new =
            |change: &&Change| !self.held.list(&change.list).is_some_and(|list| list.contains_key(&change.bounds));
        let new: HashSet<_> = held.iter().filter(is_new).map(|change| (&change.list, change.bounds)).collect();
        let (number, capacity) = (self.held.number() + new.len(), self.lists.capacity());
        if new.is_empty() || number <= capacity {
            return Ok(());
        }
        Err(Problem::Theirs(format!(
            "that would make {number} entries without a timeout, or of more than one address: there may be as many beside \
             what packets add as there is room for that, {capacity}; raise `list-capacity`, or write prefixes; nothing was \
             added"
        )))
    }
}

#[cfg(test)]
mod tests;
