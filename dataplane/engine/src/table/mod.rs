//! A rule set ready to run.
//!
//! [`Table::compile`] checks everything first and reports every problem, not the first; then it binds the lists; then
//! it emits a program per address family, in which nothing can fail any more. So a rule set that does not compile
//! changes nothing.
//!
//! Rules that are disabled are not run, and what only they refer to need not exist. A rule that nobody can run is
//! refused: it may be the one that was to drop. Everything that is counted or shown keeps the position in the declared
//! rules. A jump to a chain without rules matches, counts and goes on.

mod chains;
mod checks;
mod compile;
mod field;
mod index;
mod names;
mod patterns;
mod problem;
mod program;
mod question;
mod rows;
mod source;
mod state_test;

use std::net::IpAddr;
use std::sync::Arc;

use knockplane_policy::event::Origin;
use knockplane_policy::packet::{Family, Vlan};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use self::names::{Names, running};
use crate::state::State;
use crate::state::doors::{CompiledDoor, DoorId};
use crate::state::events::Cause;
use crate::state::layer7::{Patterns, PayloadMatchers};
use crate::state::lists::ListSet;
use crate::state::matchers::connection_limits::ConnectionLimits;
use crate::state::matchers::rate_limiters::RateLimiters;
use crate::state::static_entries::{SingleTimed, StaticEntries};

pub use self::problem::{CompileError, Place, Problem};
pub(crate) use index::Candidates;
pub(crate) use program::{CompiledRule, Program, Span, Step};
pub(crate) use question::{About, Test, View};
pub use source::{AddressMatcher, MatcherMemory};
pub(crate) use state_test::StateTest;

/// Rules that one packet may be held against: some milliseconds of a worker, which is far more than anyone wants.
const MAX_STEPS: u64 = 1_000_000;

/// See the module.
pub struct Table {
    rules: Arc<RuleSet>,
    settings: Settings,
    /// Of each family, by [`family_index`].
    raw: [Program; 2],
    filter: [Program; 2],
    payload_matchers: PayloadMatchers,
    pub(crate) limiters: RateLimiters,
    /// If rules ask for it.
    pub(crate) connection_limits: Option<ConnectionLimits>,
    entries: StaticEntries,
    /// What [`Table::begin`] is still to put in the lists.
    single_timed: SingleTimed,
    doors: Box<[CompiledDoor]>,
    /// Whether connections are tracked.
    tracks: bool,
    number: u32,
    /// When the timeouts of the rules' own entries began.
    begun: Time,
}

impl Table {
    /// Compiles the rules, and makes their lists known. Timeouts of the lists' entries begin now. Nobody is in a list by
    /// these rules before they run: see [`Table::begin`].
    ///
    /// # Errors
    /// Everything that keeps the rules from running; then nothing changed.
    pub fn compile(rules: Arc<RuleSet>, settings: &Settings, state: &State, now: Time) -> Result<Table, CompileError> {
        Self::build(rules, settings, state, now)
    }

    /// Puts the rules' single addresses with a timeout in the lists, once: called when nothing keeps the rules from
    /// running any more.
    pub fn begin(&mut self, state: &State, now: Time) {
        for (list, address, expiry) in std::mem::take(&mut self.single_timed) {
            state.lists.in_vlan(Vlan::NONE).by(Cause::of(Origin::Rules)).add_for(list, address, 0, expiry, now);
        }
    }

    /// The same rules under other settings. The timeouts of the lists' entries go on, and nobody gets back in who was taken
    /// out of a list.
    ///
    /// # Errors
    /// As [`Table::compile`].
    pub fn with_settings(&self, settings: &Settings, state: &State) -> Result<Table, CompileError> {
        let mut rules = RuleSet::clone(&self.rules);
        rules.rules.retain(|rule| !rule.dynamic);
        let table = Self::build(Arc::new(rules), settings, state, self.begun)?;
        Ok(Table { single_timed: SingleTimed::new(), ..table })
    }

    /// The rules as they were declared, behind those of the doors.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// What decides besides the rules.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether connections are tracked.
    pub fn tracks(&self) -> bool {
        self.tracks
    }

    /// When the timeouts of the rules' own entries began.
    pub fn begun(&self) -> Time {
        self.begun
    }

    /// No two tables have the same.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The lists that the rules' own entries put an address in.
    pub fn entries_of(&self, address: IpAddr, now: Time) -> ListSet {
        self.entries.find(address.into(), now).0
    }

    /// The door; none if it is another table's.
    pub(crate) fn door(&self, id: DoorId) -> Option<&CompiledDoor> {
        self.doors.get(usize::from(id.0))
    }

    /// Whether there are doors: their lists' entries count for one other end alone.
    pub(crate) fn has_doors(&self) -> bool {
        !self.doors.is_empty()
    }

    /// What lists hold from the start.
    pub(crate) fn entries(&self) -> &StaticEntries {
        &self.entries
    }

    /// What answers about headers depend on.
    pub(crate) fn about(&self) -> About<'_> {
        About { rules: &self.rules, settings: &self.settings }
    }

    pub(crate) fn raw(&self, family: Family) -> &Program {
        &self.raw[family_index(family)]
    }

    pub(crate) fn filter(&self, family: Family) -> &Program {
        &self.filter[family_index(family)]
    }

    /// What is listened for; none if nothing is.
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
