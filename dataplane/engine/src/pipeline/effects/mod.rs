//! The effects of rules: all actions of a rule besides the decision.
//!
//! The first evaluation of a packet has all effects of the rules that match ([`FirstEvaluation`]). With several queues,
//! a packet can be decided before a packet that arrived earlier. Such a packet is evaluated again later: this
//! evaluation takes the missed steps, and has no other effect ([`ReEvaluation`]). The compiler selects the effects by
//! the type of the evaluation.
//!
//! Only `events` creates causes and queues logged packets. `door` evaluates a packet at a door, for both evaluations.

mod door;
mod events;
mod first;
mod pending;
mod re_evaluation;

use std::net::IpAddr;
use std::ops::ControlFlow;

use knockplane_policy::rule::{ListTimeout, RejectWith};

use crate::pipeline::facts::PacketFacts;
use crate::state::doors::DoorId;
use crate::state::lists::{self, AddOutcome, ListId};
use crate::table::{CompiledRule, StateTest, Test};

pub(super) use self::first::{FirstEvaluation, Matches};
pub use self::pending::{OutOfOrder, PendingSteps};
pub(super) use self::re_evaluation::ReEvaluation;

/// The effects of an evaluation. `facts` contains the packet and the results of its lookups.
pub(super) trait Effects {
    /// Evaluates a stateful matcher, which changes its state. `None` if the matcher does not apply to the packet.
    fn ask_memory(&mut self, facts: &mut PacketFacts<'_>, matcher: &StateTest) -> Option<bool>;

    /// Called for a rule that does not match because of this matcher. `Break` ends the evaluation.
    fn missed(&mut self, rule: &CompiledRule, matcher: &Test<StateTest>) -> ControlFlow<()>;

    /// Called for a rule that matches, before its action.
    fn matched(&mut self, facts: &mut PacketFacts<'_>, rule: &CompiledRule);

    /// Runs `add-src-to-address-list` or `add-dst-to-address-list`.
    fn add(&mut self, facts: &mut PacketFacts<'_>, addition: Addition);

    /// Runs `reject`: a reply to the sender.
    fn reject(&mut self, facts: &mut PacketFacts<'_>, with: RejectWith);

    /// Runs `tarpit`: a reply to the sender.
    fn tarpit(&mut self, facts: &mut PacketFacts<'_>);

    /// Runs `fasttrack-connection`: the connection bypasses the filter from its next packet on.
    fn fasttrack(&mut self, facts: &mut PacketFacts<'_>);

    /// Evaluates the packet at a door.
    fn knock(&mut self, facts: &mut PacketFacts<'_>, door: DoorId);

    /// Called when the door with this open list accepts the packet. A connection that begins with the packet belongs to
    /// the door.
    fn accept_by_door(&mut self, facts: &mut PacketFacts<'_>, open: ListId);
}

/// An addition to an address list.
#[derive(Clone, Copy)]
pub(super) struct Addition {
    /// The position of the rule among the declared rules.
    pub(super) rule: u32,
    pub(super) list: ListId,
    pub(super) address: IpAddr,
    pub(super) timeout: ListTimeout,
}

impl PacketFacts<'_> {
    /// Adds to a list. `None` if a static entry of the rules contains the address: packets do not change such entries.
    fn add_to_list(&mut self, Addition { rule, list, address, timeout }: Addition) -> Option<AddOutcome> {
        let table = self.context.table;
        let lists = &self.context.state.lists;
        if table.entries_of(address, self.now).contains(list) {
            return None;
        }
        let expiry = lists::expiry(timeout, self.now);
        let vlan = table.settings().vlans.of_lists(self.vlan);
        let hash = self.prepared.source_hash().filter(|_| address == self.packet.source);
        let cause = self.cause_by_rule(rule);
        let lists_of_rule = lists.in_vlan(vlan).with_hash(hash).by(&cause);
        let added = lists_of_rule.add_for(list, address, 0, expiry, self.now);
        self.local.adds.now |= matches!(added, AddOutcome::New | AddOutcome::Refreshed);
        if added == AddOutcome::New && lists.level(list) > 0 {
            self.context.state.look_at_checksum(self.packet);
        }
        let looked_up =
            [(self.packet.source, &mut self.source_lists), (self.packet.destination, &mut self.destination_lists)];
        for (looked_up_address, listed) in looked_up {
            if looked_up_address != address {
                continue;
            }
            if expiry <= self.now {
                // A timeout of zero ends an entry: the next rule looks up the address again.
                *listed = None;
            } else if let (Some(listed), AddOutcome::New | AddOutcome::Refreshed) = (listed, added) {
                listed.lists.insert(list);
            }
        }
        Some(added)
    }
}
