//! Reads the journal at a start, and adds to the lists what still counts.
//!
//! The remaining time of an entry is known without the wall clock if the machine has not booted since: both times are of
//! CLOCK_MONOTONIC. Otherwise the last batch tells the remaining time at that moment, and the wall clock tells how long
//! ago that was. If the wall clock is earlier than the last batch, it was set back: no entry with a timeout counts.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;

use knockplane_engine::state::events::{Cause, KnockPacket};
use knockplane_engine::state::lists::{AddOutcome, ListId, Lists, OPERATOR_LEVEL};
use knockplane_policy::event::Origin;
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::Time;
use knockplane_policy::wire::RestoreReport;

use super::FORMAT;
use super::record::{Batch, ChangeByOperator, Mark, OperatorTerms, Scope, Terms};
use crate::state_dir::{DamageError, GRANTS, LogEnd, LogRecords, StateDir, StoredFile};
use crate::static_entries::{Bounds, OperatorEntry};

/// The entries of the journal that still count.
#[derive(Debug, Default)]
pub(crate) struct StoredGrants {
    /// The names of the lists.
    names: Vec<String>,
    entries: Vec<StoredGrant>,
    /// Prefixes and ranges with a timeout, by list; and addresses with a comment, whose timeout is in `entries`.
    by_operators: Vec<(String, OperatorEntry)>,
    pub(super) report: RestoreReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StoredGrant {
    /// The place of the list's name.
    list: u32,
    scope: Scope,
    expiry: Time,
    is_operators: bool,
}

impl StoredGrants {
    /// Reads the journal and keeps a damaged one under another name.
    ///
    /// # Errors
    /// If the file cannot be read, or a newer version wrote it.
    pub(crate) fn load(state: &StateDir) -> anyhow::Result<StoredGrants> {
        let stored = StoredGrants::peek(state)?;
        if let Some(damage) = &stored.report.damage {
            let kept = state.keep_damaged(GRANTS);
            tracing::error!("{damage}; {kept}");
        }
        Ok(stored)
    }

    /// Reads the journal, without changes to files.
    ///
    /// # Errors
    /// As [`StoredGrants::load`].
    pub(crate) fn peek(state: &StateDir) -> anyhow::Result<StoredGrants> {
        StoredGrants::read(state, super::now())
    }

    pub(super) fn read(state: &StateDir, now: Mark) -> anyhow::Result<StoredGrants> {
        let path = state.file(GRANTS);
        let shown = path.display();
        let records = match state.read_log(GRANTS, FORMAT, None) {
            Ok(Some(StoredFile::Records(records))) => records,
            Ok(_) => return Ok(StoredGrants::default()),
            Err(error) => {
                return match error.downcast_ref() {
                    Some(DamageError::Header { .. }) => {
                        Ok(StoredGrants::lost(format!("{shown} is damaged: {error:#}")))
                    }
                    _ => Err(error),
                };
            }
        };
        let mut stored = match fold(&records) {
            Ok(folded) => folded.at(now),
            // The checksums are right, so no disk did this.
            Err(error) => {
                return Ok(StoredGrants::lost(format!("{shown} has a content that no version writes: {error}")));
            }
        };
        if let LogEnd::Damaged(damage) = &records.end {
            let (place, bytes) = (damage.place, damage.bytes);
            stored.report.damage = Some(format!(
                "{shown} is damaged at byte {place} ({bytes} bytes): entries that were added from there on are lost"
            ));
        }
        Ok(stored)
    }

    /// The number of entries to install.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The prefixes and ranges with a timeout, by list; and addresses with a comment and no expiry of their own. A comment
    /// counts if the address is in its list.
    pub(crate) fn by_operators(&self) -> &[(String, OperatorEntry)] {
        &self.by_operators
    }

    fn lost(damage: String) -> StoredGrants {
        let report = RestoreReport { damage: Some(damage), ..RestoreReport::default() };
        StoredGrants { report, ..StoredGrants::default() }
    }

    /// Adds the entries of addresses to the lists that rules, doors or operators name. Called before the first packet.
    pub(crate) fn install(mut self, lists: &Lists, now: Time) -> RestoreReport {
        // A door or a rule that is gone opens nothing.
        let ids: Vec<Option<ListId>> = self.names.iter().map(|name| lists.id(name)).collect();
        for StoredGrant { list, scope, expiry, is_operators } in self.entries {
            let place = list as usize;
            let id = match ids[place] {
                // A list that an operator named exists by his entry alone.
                None if is_operators => lists.bind(&self.names[place], OPERATOR_LEVEL).ok(),
                id => id,
            };
            let Some(id) = id else {
                self.report.without_list += 1;
                continue;
            };
            let knock = scope.destination.map(|destination| KnockPacket { destination, vlan: scope.network() });
            let cause = Cause { knock, ..Cause::of(Origin::Restore) };
            let tag = scope.destination.map_or(0, |destination: IpAddr| lists.peer_tag(destination));
            let added = match is_operators {
                true => lists.add_by_operator(id, scope.address, expiry, now),
                false => lists.in_vlan(scope.network()).by(&cause).add_for(id, scope.address, tag, expiry, now),
            };
            match added {
                AddOutcome::Refused => self.report.without_room += 1,
                _ => self.report.restored += 1,
            }
        }
        self.report
    }
}

/// The entries after all records, with times of the boot of `mark`.
#[derive(Debug, Default)]
struct Folded {
    entries: HashMap<(u32, Scope), Terms>,
    by_operators: BTreeMap<(u32, Bounds), (AddressSet, OperatorTerms)>,
    names: Vec<String>,
    mark: Option<Mark>,
}

/// Applies the intact records up to the first damage. Of those behind it, only the ends of entries count: an entry whose
/// addition came before the damage must not return if its removal is known.
fn fold(records: &LogRecords) -> io::Result<Folded> {
    let mut folded = Folded::default();
    let mut numbers = HashMap::new();
    let before = records.before_damage().map(|record| (record, true));
    for (record, counts) in before.chain(records.behind_damage().map(|record| (record, false))) {
        let Batch { mark, lists, changes, by_operators } = Batch::from_content(record.content)?;
        if folded.mark.is_some_and(|before| before.boot != mark.boot) {
            return Err(io::Error::other("its batches are of several boots"));
        }
        folded.mark = Some(mark);
        let numbers: Vec<u32> = lists
            .into_iter()
            .map(|name| {
                *numbers.entry(name).or_insert_with_key(|name| {
                    folded.names.push(name.clone());
                    folded.names.len() as u32 - 1
                })
            })
            .collect();
        for change in changes {
            let key = (numbers[usize::from(change.list)], change.scope);
            match change.terms {
                Some(terms) if counts => _ = folded.entries.insert(key, terms),
                Some(_) => {}
                None => _ = folded.entries.remove(&key),
            }
        }
        for ChangeByOperator { list, set, terms } in by_operators {
            let set: AddressSet = set.parse().map_err(io::Error::other)?;
            let key = (numbers[usize::from(list)], set.bounds());
            match terms {
                Some(terms) if counts => _ = folded.by_operators.insert(key, (set, terms)),
                Some(_) => {}
                None => _ = folded.by_operators.remove(&key),
            }
        }
    }
    Ok(folded)
}

impl Folded {
    /// The entries that still count now.
    fn at(self, now: Mark) -> StoredGrants {
        let Folded { entries, by_operators, names, mark } = self;
        let Some(mark) = mark else { return StoredGrants::default() };
        let mut stored = StoredGrants { names, ..StoredGrants::default() };
        let elapsed = since(&mark, &now);
        stored.report.clock_was_set_back = elapsed.is_none();
        for ((list, scope), terms) in entries {
            let Some(expiry) = expiry(terms.expiry, &mark, &now, elapsed) else {
                stored.report.expired += 1;
                continue;
            };
            stored.entries.push(StoredGrant { list, scope, expiry, is_operators: terms.is_operators });
        }
        for ((list, _), (set, OperatorTerms { expiry: until, comment })) in by_operators {
            let list = stored.names[list as usize].clone();
            let until = match (set.single(), expiry(until, &mark, &now, elapsed)) {
                (Some(_), _) => None,
                (None, Some(expiry)) => {
                    stored.report.restored += 1;
                    Some(expiry)
                }
                (None, None) => {
                    stored.report.expired += 1;
                    continue;
                }
            };
            stored.by_operators.push((list, OperatorEntry { set, comment, until }));
        }
        // The entries that expire first are evicted first if there is less room than before.
        stored.entries.sort_by_key(|entry| entry.expiry);
        stored
    }
}

/// The nanoseconds since a mark; `None` if the wall clock was set back, so that nobody knows.
fn since(mark: &Mark, now: &Mark) -> Option<i128> {
    let elapsed = if mark.boot == now.boot {
        i128::from(now.at) - i128::from(mark.at)
    } else {
        now.wall_time() - mark.wall_time()
    };
    (elapsed >= 0).then_some(elapsed)
}

/// The expiry by the clock of this boot of an entry that had the expiry `until` by the clock of the mark; `None` if it
/// has expired, or if nobody knows.
fn expiry(until: u64, mark: &Mark, now: &Mark, elapsed: Option<i128>) -> Option<Time> {
    if until == Time::NEVER.as_nanos() {
        return Some(Time::NEVER);
    }
    let left = i128::from(until) - i128::from(mark.at) - elapsed?;
    (left > 0).then(|| Time::from_nanos(u64::try_from(i128::from(now.at) + left).unwrap_or(u64::MAX - 1)))
}
