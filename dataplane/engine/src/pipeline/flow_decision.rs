//! Decisions that hold for the further packets of a flow: what the kernel's fast path needs.
//!
//! Such a decision forwards, and depends only on the key of the packet, on its lookups in the lists, and on the state of an
//! established connection. [`FlowDecision::confirm`] checks lookups and connection again, and returns the conditions under
//! which the decision holds.

use knockplane_policy::carried::{ConnectionRecord, Epoch};
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::time::Time;

use crate::pipeline::Decision;
use crate::pipeline::dependencies::{Dependencies, Dependency};
use crate::pipeline::effects::Matches;
use crate::pipeline::facts::{AskedAddress, PacketFacts};
use crate::state::State;
use crate::state::connections::DecidedConnection;
use crate::state::lists::Lists;
use crate::table::RuleTable;

/// What each packet of a decision counts for: packets with the same trail differ in their lengths only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trail {
    /// The side of arrival.
    pub side: Side,
    /// The decision.
    pub decision: Decision,
    /// The rules that matched, by their position among the declared rules. Unused places are `None`.
    rules: [Option<u32>; Matches::CAPACITY],
    /// The built-in chain whose default decided.
    default_of: Option<BuiltinChain>,
}

impl Trail {
    /// The rules that matched, by their position among the declared rules.
    pub fn rules(&self) -> impl Iterator<Item = usize> {
        self.rules.into_iter().flatten().map(|rule| rule as usize)
    }

    /// The built-in chain whose default decided.
    pub const fn default_of(&self) -> Option<BuiltinChain> {
        self.default_of
    }
}

/// A decision about a packet that holds for further packets of its flow while its lookups are unchanged.
#[derive(Clone, Copy, Debug)]
pub struct FlowDecision {
    /// What each packet counts for.
    pub trail: Trail,
    source: Option<AskedAddress>,
    destination: Option<AskedAddress>,
    /// The connection, if the packet was tracked.
    connection: Option<DecidedConnection>,
}

/// The conditions under which a [`FlowDecision`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowConditions {
    /// The time until which it holds.
    pub until: Time,
    /// Epochs that must not change: of the source, of the destination, and of static entries. Place 0 for those that the
    /// decision does not depend on.
    pub epochs: [Epoch; 3],
    /// The record of the connection, if the packets are tracked: its epoch must not change.
    pub connection: Option<ConnectionRecord>,
}

impl FlowDecision {
    /// `None` if the decision does not hold for further packets.
    #[inline]
    pub(super) fn of(
        facts: &PacketFacts<'_>,
        decision: Decision,
        matches: &Matches,
        dependencies: &Dependencies,
    ) -> Option<FlowDecision> {
        let holds = decision.verdict == Verdict::Forward && dependencies.hold_for_flow() && matches.are_complete();
        if !holds {
            return None;
        }
        let connection = match dependencies.set.contains(Dependency::Connection) {
            true => Some(facts.decided_connection()?),
            false => None,
        };
        let mut rules = [None; Matches::CAPACITY];
        for (place, rule) in rules.iter_mut().zip(matches.rules()) {
            *place = Some(*rule);
        }
        let trail = Trail { side: facts.packet.side, decision, rules, default_of: matches.default_of };
        let [source, destination] = facts.asked();
        Some(FlowDecision { trail, source, destination, connection })
    }

    /// Looks up the addresses again, and lets the kernel carry the connection. `None` if a lookup has another result now, or
    /// the connection another state. `table` are the rules of the decision; the conditions do not cover that they are
    /// replaced.
    pub fn confirm(&self, table: &RuleTable, state: &State, now: Time) -> Option<FlowConditions> {
        let mut conditions = FlowConditions { until: Time::NEVER, epochs: [Epoch::default(); 3], connection: None };
        let asked = [&self.source, &self.destination].into_iter().enumerate();
        for (index, asked) in asked.filter_map(|(index, asked)| Some((index, asked.as_ref()?))) {
            let (until, [of_address, of_static_entries]) = confirmed(asked, table, &state.lists, now)?;
            let [.., known] = conditions.epochs;
            if known.place != 0 && known != of_static_entries {
                return None;
            }
            conditions.until = conditions.until.min(until);
            conditions.epochs[index] = of_address;
            conditions.epochs[2] = of_static_entries;
        }
        if let Some(decided) = &self.connection {
            conditions.connection = Some(state.connections()?.carry(decided, now)?);
        }
        (now < conditions.until).then_some(conditions)
    }
}

/// The time until which a lookup has the same result if the epochs of the address and of static entries do not change.
/// `None` if the result is another one now.
fn confirmed(asked: &AskedAddress, table: &RuleTable, lists: &Lists, now: Time) -> Option<(Time, [Epoch; 2])> {
    let AskedAddress { key, peer_tag, membership, lists: asked } = *asked;
    let (mut lookup, epochs) = lists.lookup_with_epochs(key, peer_tag, asked, now)?;
    if !table.entries().is_empty() {
        let (set, time) = table.entries().find(key, now);
        lookup.add(set, time);
    }
    (lookup.membership == membership).then_some((lookup.until, epochs))
}
