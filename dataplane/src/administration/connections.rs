//! Answers to control about connections. One answer reads a part of their table.
//!
//! Workers use the table meanwhile. An answer locks one set of the table after the other, and reads a bounded number of
//! sets.

use std::ops::ControlFlow;

use knockplane_engine::state::connections::ConnectionInfo;
use knockplane_engine::state::lists::DynamicEntry;
use knockplane_policy::time::Time;
use knockplane_policy::wire::connections::{Connection, ConnectionQuery, Connections, MAX_CONNECTIONS};

use super::{Administration, door_name};

/// The number of sets that one answer reads.
const SETS_IN_AN_ANSWER: usize = 16_384;

impl Administration {
    /// The connections in a part of the table.
    pub(super) fn connections(&self, query: &ConnectionQuery) -> Connections {
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        let Some(flows) = self.shared.state.connections().filter(|_| generation.table.tracks()) else {
            return Connections::default();
        };
        let limit = query.limit.clamp(1, MAX_CONNECTIONS);
        let mut found = Vec::new();
        let next = flows.walk(query.from, SETS_IN_AN_ANSWER, now, |flow| {
            if query.source.as_ref().is_none_or(|set| set.contains(flow.originator.0)) {
                found.push(flow);
            }
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        Connections { connections: found.into_iter().map(|flow| self.one_connection(flow, now)).collect(), next }
    }

    fn one_connection(&self, flow: ConnectionInfo, now: Time) -> Connection {
        let lists = &self.shared.state.lists;
        let (source, destination) = (flow.originator, flow.responder);
        let grant = flow.door.and_then(|open| {
            let to = lists.peer_tag(destination.0);
            let entries = lists.in_vlan(flow.vlan).entries_of(source.0, now).into_iter();
            let counts = |seen: &DynamicEntry| seen.list == open && (seen.peer_tag == 0 || seen.peer_tag == to);
            entries.map(|entry| entry.entry).filter(counts).max_by_key(|seen| seen.expiry)
        });
        Connection {
            vlan: flow.vlan,
            protocol: flow.protocol,
            source,
            destination,
            side: flow.side,
            state: flow.state,
            tcp: flow.tcp,
            fasttracked: flow.fasttracked,
            door: flow.door.and_then(|open| door_name(&self.shared, open)),
            grant_left: grant.map(|seen| seen.expiry).filter(|expiry| *expiry != Time::NEVER).map(|it| it.since(now)),
            bytes: flow.bytes,
            time_left: flow.expiry.since(now),
        }
    }
}
