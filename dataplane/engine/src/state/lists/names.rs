//! Names of lists.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;

use super::{ListId, Lists, MAX_LISTS, TooManyListsError};

/// Names and ids, each by the other.
#[derive(Default)]
pub(super) struct ListNames {
    pub(super) ids: HashMap<String, ListId>,
    pub(super) names: Vec<String>,
}

impl Lists {
    /// The id of the list of this name, made known if it is not, with this level for its entries from now on. Whoever
    /// adds for an operator asks [`Lists::id`] first, so as not to change the level that the rules gave it.
    ///
    /// # Errors
    /// If there are [`MAX_LISTS`] other names already.
    pub fn bind(&self, name: &str, level: u8) -> Result<ListId, TooManyListsError> {
        self.bind_all(&[(name, level)]).map(|ids| ids[0])
    }

    /// [`Lists::bind`] for many, all or none.
    ///
    /// # Errors
    /// If there is not room for all of them; then nothing changed.
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

    /// The id of the list of this name, if any table or operator used it since start.
    pub fn id(&self, name: &str) -> Option<ListId> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).ids.get(name).copied()
    }

    /// The name of a list.
    pub fn name(&self, list: ListId) -> Option<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).names.get(list.index()).cloned()
    }

    /// The level of entries that are added to this list now.
    pub fn level(&self, list: ListId) -> u8 {
        self.levels[list.index()].load(Ordering::Relaxed)
    }
}
