//! Ends connections of doors with `cut = true` when their grant has ended.
//!
//! The manager reads a part of the table in each tick, closes connections without a grant, and passes the resets for
//! both ends to the workers. The workers send some resets in each of their housekeeping turns. Resets without room wait
//! for the next round.

use std::ops::ControlFlow;

use knockplane_engine::pipeline::reset::{Reset, resets};
use knockplane_engine::state::connections::ConnectionInfo;
use knockplane_engine::state::lists::ListId;
use knockplane_policy::time::Time;

use super::Supervisor;
use super::tracked::SETS_IN_A_TICK;

/// Maximum number of resets that wait for a worker: 400 KB.
pub(crate) const ROOM_FOR_RESETS: usize = 4_096;

/// Maximum number of connections that a tick cuts: 2,560 a second.
const MOST: usize = 256;

/// Maximum number of resets for one connection: two numbers to each end.
const RESETS: usize = 4;

impl Supervisor {
    /// Cuts the connections in a part of the table.
    pub(super) fn cut_connections(&mut self, now: Time) {
        let generation = self.shared.generation.load_full();
        let lists = &self.shared.state.lists;
        let doors = generation.table.settings().doors.iter().filter(|door| door.cut);
        let open: Vec<ListId> = doors.filter_map(|door| lists.id(&door.open_list())).collect();
        let Some(flows) = self.shared.state.connections().filter(|_| !open.is_empty()) else { return };
        let is_over = |flow: &ConnectionInfo| {
            let (source, to) = (flow.originator.0, lists.peer_tag(flow.responder.0));
            flow.door.filter(|_| flow.wants_reset).filter(|door| open.contains(door)).is_some_and(|door| {
                let granted = lists.in_vlan(flow.vlan).membership(source, to, now).contains(door);
                !granted && !generation.table.entries_of(source, now).contains(door)
            })
        };
        let mut found = Vec::new();
        let next = flows.walk(self.cut_next, SETS_IN_A_TICK, now, |flow| {
            if is_over(&flow) {
                found.push(flow);
            }
            if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.cut_next = next.unwrap_or_default();
        for flow in found {
            if self.shared.resets.len() + RESETS > ROOM_FOR_RESETS {
                break;
            }
            let send = |reset: Reset| self.shared.resets.push(reset).is_ok();
            let cut = flows.cut(&flow, now, &generation.table.rules().tracking);
            cut.iter().flat_map(resets).all(send);
        }
    }
}
