//! Connections that the kernel's fast path carries.
//!
//! The program in the kernel records the packets that it forwards in memory of its own, one record for each slot of the
//! table ([`CarriedConnection`]). Whoever finds the connection, under the lock of its set, first adds this record to the
//! slot: a connection that is carried is as young, as large and as far as its packets. A slot keeps its record until another
//! connection begins in it: a program that was interrupted may still write the record after the verdicts have ended.
//!
//! A verdict about a connection depends on the epoch of its record. Every change after which a packet of the connection
//! could be decided in another way ends the verdicts, under the lock of the set.

use std::time::Duration;

use knockplane_policy::carried::{CarriedConnection, CarriedConnections, ConnectionRecord};
use knockplane_policy::eval::tracking::TcpConnection;
use knockplane_policy::strangers::KnownSources;
use knockplane_policy::time::Time;

use super::records::SetRecords;
use super::set::{LockedSet, WAYS};
use super::{ConnectionTable, ConnectionView, EndIndex, HashedKey};
use crate::state::lists::ListId;

/// The time after which a record is used for another connection. A program that was interrupted has continued by then.
const RECORD_REST: Duration = Duration::from_secs(1);

/// What a decision read of its connection: a verdict depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DecidedConnection {
    pub(crate) key: HashedKey,
    /// The end that sent the packet. The ends may change roles before the verdict is written.
    source: EndIndex,
    pub(crate) fasttracked: bool,
    pub(crate) door: Option<ListId>,
}

impl ConnectionView {
    /// The connection of a decision. `None` if the packet is only related to it.
    pub(crate) fn decided(&self) -> Option<DecidedConnection> {
        let ConnectionView { key, source, fasttracked, door, .. } = *self;
        Some(DecidedConnection { key, source: source?, fasttracked, door })
    }
}

impl LockedSet<'_> {
    /// The record of a slot whose connection is or was carried.
    fn record(&self, place: usize) -> Option<&CarriedConnection> {
        let flags = self.slot(place).flags();
        if flags.was_carried() { self.records().and_then(|records| records.of(place)) } else { None }
    }

    /// Adds the packets that the kernel has forwarded to the connection in this slot, which has not ended. If it has expired
    /// nevertheless, ends it: a program that was interrupted may record a packet later.
    #[inline]
    pub(super) fn refresh(&self, place: usize, now: Time) {
        if self.slot(place).flags().was_carried() {
            self.add_record(place, now);
        }
    }

    #[inline(never)]
    fn add_record(&self, place: usize, now: Time) {
        let slot = self.slot(place);
        let Some(record) = self.record(place).filter(|_| !slot.has_ended()) else { return };
        slot.add_carried(Time::from_nanos(record.last()), record.take_bytes(), &record.numbers());
        if !slot.is_known(now) {
            record.end_verdicts();
            slot.end();
        }
    }

    /// Ends the verdicts about the connection in this slot.
    #[inline]
    pub(super) fn end_verdicts(&self, place: usize) {
        if let Some(record) = self.record(place) {
            record.end_verdicts();
        }
    }

    /// Records the numbers after a segment that came up. If further segments are not judged by windows alone, ends the
    /// verdicts.
    #[inline]
    pub(super) fn record_numbers(&self, place: usize, tcp: &TcpConnection) {
        let Some(record) = self.record(place) else { return };
        match tcp.settled() {
            Some((numbers, _)) => record.raise(&numbers),
            None => record.end_verdicts(),
        }
    }

    /// Ends the verdicts of the connection in a slot in which another one begins.
    #[inline]
    pub(super) fn leave_record(&mut self, place: usize, now: Time) {
        if let Some(record) = self.record(place) {
            record.end_verdicts();
            self.rare_mut(place).record_free = now + RECORD_REST;
        }
    }
}

impl ConnectionTable {
    /// Carries connections in these records from now on: one for each slot.
    pub fn set_carried(&self, records: &CarriedConnections) {
        for (number, set) in self.sets.iter().enumerate() {
            set.lock().set_records(SetRecords::new(CarriedConnections::clone(records), number * WAYS));
        }
    }

    /// Counts the connections of each source from now on.
    pub(crate) fn set_sources(&self, sources: &KnownSources) {
        self.sets.iter().for_each(|set| set.lock().set_sources(sources.clone()));
    }

    /// Lets the kernel carry a connection. `None` if it cannot, or if the connection differs from the decided one.
    pub(crate) fn carry(&self, decided: &DecidedConnection, now: Time) -> Option<ConnectionRecord> {
        let DecidedConnection { key, source, fasttracked, door } = *decided;
        let index = self.index_of(&key);
        let set = self.sets[index].lock();
        let place = set.find(&key, now)?;
        let (slot, flags) = (set.slot(place), set.slot(place).flags());
        let is_same = flags.fasttracked() == fasttracked && flags.door() == door;
        if !is_same || !flags.both_ways() || flags.is_cut() || now < set.rare(place).record_free {
            return None;
        }
        let settled = match flags.tcp() {
            None => None,
            Some(_) => Some(set.tcp(place, flags).settled()?),
        };
        let record = set.records()?.of(place)?;
        if !flags.was_carried() {
            record.begin(settled.as_ref(), slot.last().as_nanos());
            slot.set_flags(flags.with_record());
        }
        let record_number = (index * WAYS + place) as u32;
        Some(ConnectionRecord { record: record_number, epoch: record.epoch(), is_reply: flags.is_reply(source) })
    }

    /// The number of slots of a table for about `capacity` connections.
    pub fn slots(capacity: usize) -> usize {
        super::sets(capacity) * WAYS
    }
}
