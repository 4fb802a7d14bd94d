//! Names of lists.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;

use super::{ListId, ListSet, Lists, MAX_LISTS, TooManyListsError};

/// The begin of the names of doors' lists.
const DOOR_LIST: &str = "door-";

/// Names and ids, each by the other.
#[derive(Default)]
pub(super) struct ListNames {
    pub(super) ids: HashMap<String, ListId>,
    pub(super) names: Vec<String>,
}

impl Lists {
    /// The id of the list with this name, which is created if necessary. `level` becomes the level of its new entries.
    /// A caller that adds entries for an operator calls [`Lists::id`] first, so that the level from the rules does not
    /// change.
    ///
    /// # Errors
    /// If [`MAX_LISTS`] other names exist already.
    pub fn bind(&self, name: &str, level: u8) -> Result<ListId, TooManyListsError> {
        self.bind_all(&[(name, level)]).map(|ids| ids[0])
    }

    /// As [`Lists::bind`], for all of these lists or for none.
    ///
    /// # Errors
    /// If there is not enough room for all of them; then nothing changed.
    pub fn bind_all(&self, lists: &[(&str, u8)]) -> Result<Vec<ListId>, TooManyListsError> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut unknown: Vec<&str> =
            lists.iter().map(|(name, _)| *name).filter(|name| !names.ids.contains_key(*name)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if let Some(name) = unknown.get(MAX_LISTS - names.names.len()) {
            return Err(TooManyListsError { name: (*name).to_owned() });
        }
        for name in unknown {
            let id = ListId(names.names.len() as u8);
            let level = lists.iter().find(|(bound, _)| *bound == name).map_or(0, |(_, level)| *level);
            self.noted[id.index()].store(level > 0 || name.starts_with(DOOR_LIST), Ordering::Relaxed);
            names.ids.insert(name.to_owned(), id);
            names.names.push(name.to_owned());
        }
        let bind = |(name, level): &(&str, u8)| {
            let id = names.ids[*name];
            self.levels[id.index()].store(*level, Ordering::Relaxed);
            id
        };
        Ok(lists.iter().map(bind).collect())
    }

    /// The id of the list with this name, if a table or an operator has used it since start.
    pub fn id(&self, name: &str) -> Option<ListId> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).ids.get(name).copied()
    }

    /// The name of a list.
    pub fn name(&self, list: ListId) -> Option<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).names.get(list.index()).cloned()
    }

    /// The lists whose entries make sources known: those that packets of strangers do not fill, and those of doors. A flood of
    /// first steps must not pay for it. Whether a list is one of them is decided when it is first bound.
    pub(crate) fn noted(&self) -> ListSet {
        let mut noted = ListSet::EMPTY;
        let lists = (0..MAX_LISTS).filter(|list| self.noted[*list].load(Ordering::Relaxed));
        lists.for_each(|list| noted.insert(ListId(list as u8)));
        noted
    }

    /// The present level of new entries of this list.
    pub fn level(&self, list: ListId) -> u8 {
        self.levels[list.index()].load(Ordering::Relaxed)
    }
}
