//! A compiled rule set.
//!
//! [`RuleTable::compile`] first checks the rules and reports every problem, not only the first. Then it registers the
//! lists. Then it emits a program for each address family, which cannot fail. A rule set that does not compile
//! therefore changes nothing.
//!
//! Disabled rules do not run, and objects that only they refer to need not exist. A rule that can never run is refused:
//! its action may be to drop. Counters and output use the position of a rule among the declared rules. A jump to a
//! chain without rules matches, counts and continues.

mod chains;
mod checks;
mod compile;
mod error;
mod field;
mod index;
mod names;
mod patterns;
mod program;
mod question;
mod rows;
mod source;
mod state_test;
mod strangers;

use std::net::IpAddr;
use std::sync::Arc;

use knockplane_policy::event::Origin;
use knockplane_policy::packet::{Family, Vlan};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use self::names::{RuleNames, running};
use crate::state::State;
use crate::state::doors::{CompiledDoor, DoorId};
use crate::state::events::Cause;
use crate::state::layer7::{Patterns, PayloadMatchers};
use crate::state::lists::ListSet;
use crate::state::matchers::connection_limits::ConnectionLimits;
use crate::state::matchers::rate_limiters::RateLimiters;
use crate::state::static_entries::{SingleTimed, StaticEntries};

pub use self::error::{CompileError, RuleLocation, RuleSetError};
pub(crate) use index::Candidates;
pub(crate) use program::{CompiledAction, CompiledRule, Program, Span};
pub(crate) use question::{About, HeaderView, Test};
pub use source::{AddressMatcher, MatcherMemory};
pub(crate) use state_test::StateTest;
pub use strangers::{StrangerClasses, StrangerTrail};

/// Maximum number of rules in the evaluation of one packet: some milliseconds of a worker, which is far more than any
/// configuration needs.
const MAX_STEPS: u64 = 1_000_000;

/// A compiled rule set.
pub struct RuleTable {
    rules: Arc<RuleSet>,
    settings: Settings,
    /// The programs of the raw table, by [`family_index`].
    raw: [Program; 2],
    filter: [Program; 2],
    payload_matchers: PayloadMatchers,
    pub(crate) limiters: RateLimiters,
    /// The state of connection limits; `None` if no rule uses it.
    pub(crate) connection_limits: Option<ConnectionLimits>,
    entries: StaticEntries,
    /// Entries that [`RuleTable::begin`] has not added to the lists yet.
    single_timed: SingleTimed,
    doors: Box<[CompiledDoor]>,
    /// Whether connections are tracked.
    tracks: bool,
    /// Whether rules look up the sources of packets in the lists.
    looks_up_sources: bool,
    number: u32,
    /// The start of the timeouts of the rules' own entries.
    begun: Time,
}

impl RuleTable {
    /// Compiles the rules, and registers their lists. The timeouts of the lists' entries begin now. The rules add no
    /// address to a list before they run: see [`RuleTable::begin`].
    ///
    /// # Errors
    /// All problems that prevent the rules from running; then nothing changed.
    pub fn compile(
        rules: Arc<RuleSet>,
        settings: &Settings,
        state: &State,
        now: Time,
    ) -> Result<RuleTable, CompileError> {
        Self::build(rules, settings, state, now)
    }

    /// Adds the rules' single addresses with a timeout to the lists, once. The caller calls this when nothing can
    /// prevent the rules from running any more.
    pub fn begin(&mut self, state: &State, now: Time) {
        for (list, address, expiry) in std::mem::take(&mut self.single_timed) {
            state.lists.in_vlan(Vlan::NONE).by(&Cause::of(Origin::Rules)).add_for(list, address, 0, expiry, now);
        }
    }

    /// Compiles the same rules with other settings. The timeouts of the lists' entries continue, and removed addresses
    /// are not added again.
    ///
    /// # Errors
    /// As [`RuleTable::compile`].
    pub fn with_settings(&self, settings: &Settings, state: &State) -> Result<RuleTable, CompileError> {
        let mut rules = RuleSet::clone(&self.rules);
        rules.rules.retain(|rule| !rule.dynamic);
        let table = Self::build(Arc::new(rules), settings, state, self.begun)?;
        Ok(RuleTable { single_timed: SingleTimed::new(), ..table })
    }

    /// The declared rules, behind those of the doors.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// The settings that the rules were compiled with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether connections are tracked.
    pub fn tracks(&self) -> bool {
        self.tracks
    }

    /// Whether rules look up the sources of packets in the lists, or add them.
    #[inline]
    pub(crate) fn looks_up_sources(&self) -> bool {
        self.looks_up_sources
    }

    /// The start of the timeouts of the rules' own entries.
    pub fn begun(&self) -> Time {
        self.begun
    }

    /// The unique number of the table.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The lists that contain the address by the rules' own entries.
    #[inline]
    pub fn entries_of(&self, address: IpAddr, now: Time) -> ListSet {
        if self.entries.is_empty() { ListSet::EMPTY } else { self.entries.find(address.into(), now).0 }
    }

    /// The door; `None` if it belongs to another table.
    pub(crate) fn door(&self, id: DoorId) -> Option<&CompiledDoor> {
        self.doors.get(usize::from(id.0))
    }

    /// The doors.
    pub(crate) fn doors(&self) -> &[CompiledDoor] {
        &self.doors
    }

    /// Whether there are doors. The entries of their lists count for one peer alone.
    pub(crate) fn has_doors(&self) -> bool {
        !self.doors.is_empty()
    }

    /// The static entries of the rules.
    pub(crate) fn entries(&self) -> &StaticEntries {
        &self.entries
    }

    /// The settings that tests of headers depend on.
    pub(crate) fn about(&self) -> About<'_> {
        About { rules: &self.rules, settings: &self.settings }
    }

    pub(crate) fn raw(&self, family: Family) -> &Program {
        &self.raw[family_index(family)]
    }

    pub(crate) fn filter(&self, family: Family) -> &Program {
        &self.filter[family_index(family)]
    }

    /// The patterns of payload inspection; `None` if no rule inspects payloads.
    pub(crate) fn payload_matchers(&self) -> Option<&PayloadMatchers> {
        (self.payload_matchers.id != 0).then_some(&self.payload_matchers)
    }

    pub(crate) fn patterns(&self) -> &Patterns {
        &self.payload_matchers.patterns
    }

    pub(crate) fn server_names(&self) -> &Patterns {
        &self.payload_matchers.names
    }
}

const fn family_index(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}
