//! The comments of entries that operators add with a timeout.
//!
//! The entries themselves are dynamic entries, which have no room for text. A comment is removed within a minute after
//! its entry. The journal has the comments too, for the next start.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use knockplane_engine::state::lists::{ListId, Lists};
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::Time;

use crate::static_entries::{OperatorChange, OperatorEntry};

/// The interval between searches for comments without an entry.
const EVERY: Duration = Duration::from_secs(60);

/// Comments by list and address.
#[derive(Default)]
pub(crate) struct Notes {
    comments: HashMap<(ListId, IpAddr), String>,
    next_look: Time,
}

impl Notes {
    /// Sets or replaces an entry's comment.
    pub(super) fn set(&mut self, list: ListId, address: IpAddr, comment: String) {
        if comment.is_empty() {
            self.comments.remove(&(list, address));
        } else {
            self.comments.insert((list, address), comment);
        }
    }

    /// The entry's comment; empty if it has none.
    pub(in crate::administration) fn comment(&self, list: ListId, address: IpAddr) -> &str {
        self.comments.get(&(list, address)).map_or("", String::as_str)
    }

    /// Removes comments without an entry, once a minute. Returns the entries that had them.
    pub(super) fn forget(&mut self, lists: &Lists, now: Time) -> Vec<(ListId, IpAddr)> {
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + EVERY;
        let is_over = |(list, address): &(ListId, IpAddr)| !lists.membership(*address, 0, now).contains(*list);
        self.comments.extract_if(|key, _| is_over(key)).map(|(key, _)| key).collect()
    }
}

/// The change of an address's comment, for the journal. Without text, it removes the comment.
pub(super) fn change(list: String, address: IpAddr, comment: &str) -> OperatorChange {
    let set = AddressSet::from(address);
    let bounds = set.bounds();
    let entry = OperatorEntry { set, comment: comment.to_owned(), until: None };
    OperatorChange { list, bounds, entry: (!comment.is_empty()).then_some(entry) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_goes_with_its_entry() {
        let lists = Lists::new(8).unwrap();
        let list = lists.bind("a", 0).unwrap();
        let (address, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let at = |seconds| Time::default() + Duration::from_secs(seconds);
        let mut notes = Notes::default();
        for address in [address, other] {
            lists.add_by_operator(list, address, at(90), at(0));
            notes.set(list, address, "the office".to_owned());
        }
        notes.set(list, other, String::new());
        notes.forget(&lists, at(60));
        assert_eq!((notes.comment(list, address), notes.comment(list, other)), ("the office", ""));
        notes.forget(&lists, at(119));
        assert_eq!(notes.comments.len(), 1, "not yet");
        notes.forget(&lists, at(120));
        assert_eq!(notes.comments.len(), 0);
    }
}
