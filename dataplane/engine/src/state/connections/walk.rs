//! Visits the table of connections in parts: for counts, and for operators.

use std::ops::ControlFlow;

use knockplane_policy::time::Time;

use super::ConnectionTable;
use super::info::ConnectionInfo;
use super::set::WAYS;

impl ConnectionTable {
    /// Visits the connections from this slot on, in a limited number of sets, with one lock at a time, until a visitor
    /// stops the visit. Returns the slot to continue at; `None` at the end of the table.
    pub fn walk(
        &self,
        from: u64,
        sets: usize,
        now: Time,
        mut visit: impl FnMut(ConnectionInfo) -> ControlFlow<()>,
    ) -> Option<u64> {
        let ways = WAYS as u64;
        let first = usize::try_from(from / ways).unwrap_or(usize::MAX);
        let last = first.saturating_add(sets).min(self.sets.len());
        let mut begin = (from % ways) as usize;
        for number in first..last {
            let set = self.sets[number].lock();
            for place in set.known(now).filter(|place| *place >= begin) {
                if visit(ConnectionInfo::of(&set, place, now)).is_break() {
                    return Some(number as u64 * ways + place as u64 + 1);
                }
            }
            begin = 0;
        }
        (last < self.sets.len()).then_some(last as u64 * ways)
    }
}
