//! Changes of entries as the content of a record.
//!
//! A record is a [`Batch`] in the format of Borsh (<https://borsh.io>), and a last byte that is not 0. Times are those of
//! CLOCK_MONOTONIC, which cannot be set. Each batch names the boot that this clock belongs to, and the wall clock.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use borsh::{BorshDeserialize, BorshSerialize};
use knockplane_engine::state::events::EventEntry;
use knockplane_engine::state::lists::{ListId, Lists, OPERATOR_LEVEL};
use knockplane_policy::event::Origin;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::Time;

use crate::state_dir::Record;
use crate::static_entries::{OperatorChange, OperatorEntry};

/// The last byte of a content.
const END: u8 = b'E';

/// A point in time by all clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Mark {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub(super) at: u64,
    /// The wall time at which this clock was 0, in nanoseconds since 1970, UTC.
    pub(super) wall: i64,
    /// The id of the machine's boot: this clock begins with it.
    pub(super) boot: [u8; 16],
}

/// Changes of entries, in order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Batch {
    /// A time after the changes.
    pub(super) mark: Mark,
    /// The names of the lists in the changes.
    pub(super) lists: Vec<String>,
    pub(super) changes: Vec<Change>,
    pub(super) by_operators: Vec<ChangeByOperator>,
}

/// A change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Change {
    /// The place of the list's name in the batch.
    pub(super) list: u16,
    pub(super) scope: Scope,
    /// The terms of the entry after the change; `None` if it ended.
    pub(super) terms: Option<Terms>,
}

/// A change of a prefix or range with a timeout, or of the comment of an address with one.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct ChangeByOperator {
    /// The place of the list's name in the batch.
    pub(super) list: u16,
    /// An [`AddressSet`], as text.
    pub(super) set: String,
    /// The terms after the change; `None` if the entry ended or has no comment any more.
    pub(super) terms: Option<OperatorTerms>,
}

/// How long a prefix or range counts, and the comment.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct OperatorTerms {
    /// CLOCK_MONOTONIC, in nanoseconds; the largest number for an address, whose entry has its own expiry.
    pub(super) expiry: u64,
    pub(super) comment: String,
}

/// What identifies an entry in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub(super) struct Scope {
    pub(super) address: IpAddr,
    /// [`Vlan::bits`] of the only network that the entry counts in; 0 if it counts in all.
    pub(super) network: u64,
    /// The only destination that the entry counts for.
    pub(super) destination: Option<IpAddr>,
}

/// How long an entry counts, and who added it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Terms {
    /// CLOCK_MONOTONIC, in nanoseconds; the largest number if the entry does not expire.
    pub(super) expiry: u64,
    pub(super) is_operators: bool,
}

impl Scope {
    pub(super) const fn network(&self) -> Vlan {
        Vlan::from_bits(self.network)
    }
}

impl Batch {
    /// A batch without changes.
    pub(super) fn new(mark: Mark) -> Batch {
        Batch { mark, lists: Vec::new(), changes: Vec::new(), by_operators: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.by_operators.is_empty()
    }

    pub(super) fn into_record(self) -> Record {
        let only_adds = self.changes.iter().all(|change| change.terms.is_some())
            && self.by_operators.iter().all(|change| change.terms.is_some());
        let mut content = borsh::to_vec(&self).expect("memory does not fail");
        content.push(END);
        Record { content, only_adds }
    }

    /// # Errors
    /// If no version of this program writes this content.
    pub(super) fn from_content(content: &[u8]) -> io::Result<Batch> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let content = content.strip_suffix(&[END]).ok_or_else(|| invalid("the content has no end"))?;
        let batch = borsh::from_slice::<Batch>(content)?;
        let mut places = batch.changes.iter().map(|change| change.list);
        let mut by_operators = batch.by_operators.iter().map(|change| change.list);
        let is_named = |place: u16| usize::from(place) < batch.lists.len();
        match places.all(is_named) && by_operators.all(is_named) {
            true => Ok(batch),
            false => Err(invalid("a change names no list")),
        }
    }
}

/// A batch during its construction from events.
pub(super) struct BatchBuilder<'l> {
    lists: &'l Lists,
    places: HashMap<ListId, Option<u16>>,
    batch: Batch,
}

impl<'l> BatchBuilder<'l> {
    pub(super) fn new(lists: &'l Lists, mark: Mark) -> BatchBuilder<'l> {
        BatchBuilder { lists, places: HashMap::new(), batch: Batch::new(mark) }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.changes.len()
    }

    /// Adds the present state of an entry, or its end.
    pub(super) fn push(&mut self, entry: &EventEntry, has_ended: bool) {
        if !is_kept(entry) {
            return;
        }
        let Some(list) = self.place(entry.list) else { return };
        let scope = Scope { address: entry.address, network: entry.vlan.bits(), destination: entry.peer };
        let terms = Terms { expiry: entry.expiry.as_nanos(), is_operators: entry.level == OPERATOR_LEVEL };
        self.batch.changes.push(Change { list, scope, terms: (!has_ended).then_some(terms) });
    }

    /// Adds the present state of an operator's entry or comment, or its end.
    pub(super) fn push_by_operator(&mut self, change: OperatorChange) {
        let OperatorChange { list, bounds, entry } = change;
        let Some(list) = self.lists.id(&list).and_then(|list| self.place(list)) else { return };
        let set = AddressSet::of_bounds(bounds);
        let (set, terms) = match entry {
            Some(OperatorEntry { set, comment, until }) => {
                (set, Some(OperatorTerms { expiry: until.unwrap_or(Time::NEVER).as_nanos(), comment }))
            }
            None => (set, None),
        };
        self.batch.by_operators.push(ChangeByOperator { list, set: set.to_string(), terms });
    }

    /// The place of a list's name.
    fn place(&mut self, list: ListId) -> Option<u16> {
        let names = &mut self.batch.lists;
        *self.places.entry(list).or_insert_with(|| {
            let place = u16::try_from(names.len()).ok()?;
            names.push(self.lists.name(list)?);
            Some(place)
        })
    }

    pub(super) fn into_batch(self) -> Batch {
        self.batch
    }
}

/// Whether an entry is kept over a restart. Others have a file of their own, belong to the rules, or are no grant.
fn is_kept(entry: &EventEntry) -> bool {
    let has_destination = entry.peer_tag == 0 || entry.peer.is_some();
    !entry.is_static && entry.step == 0 && entry.origin != Origin::Rules && has_destination
}

impl Mark {
    /// The time of the wall clock, in nanoseconds since 1970, UTC.
    pub(super) fn wall_time(&self) -> i128 {
        i128::from(self.wall) + i128::from(self.at)
    }
}
