//! Answers to control about connections. One answer reads a part of their table.
//!
//! Workers use the table meanwhile. An answer locks one set of the table after the other, and reads a bounded number of
//! sets.

use std::collections::HashMap;
use std::ops::ControlFlow;

use knockplane_engine::pipeline::reset::{Reset, resets};
use knockplane_engine::state::connections::{ConnectionInfo, EndedConnection};
use knockplane_engine::state::lists::{DynamicEntry, ListId};
use knockplane_log::target;
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;
use knockplane_policy::wire::connection_filter::{ConnectionFilter, FilteredConnection, state_word};
use knockplane_policy::wire::connections::{
    Connection, ConnectionCount, ConnectionCounts, ConnectionPage, ConnectionQuery, MAX_CONNECTIONS,
};

use super::{Administration, door_name};

/// The number of sets that one answer reads.
const SETS_IN_AN_ANSWER: usize = 16_384;

/// Maximum number of connections that are found before they are ended: 10 MB.
const ENDED_AT_ONCE: usize = 65_536;

impl Administration {
    /// The connections in a part of the table.
    pub(super) fn connections(&self, query: &ConnectionQuery) -> ConnectionPage {
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        let Some(flows) = self.shared.state.connections().filter(|_| generation.table.tracks()) else {
            return ConnectionPage::default();
        };
        let limit = query.limit.clamp(1, MAX_CONNECTIONS);
        let mut found = Vec::new();
        let next = flows.walk(query.from, SETS_IN_AN_ANSWER, now, |flow| {
            if self.includes(&query.filter, &flow) {
                found.push(flow);
            }
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        ConnectionPage { connections: found.into_iter().map(|flow| self.one_connection(flow, now)).collect(), next }
    }

    /// Counts the connections in a part of the table.
    pub(super) fn count_connections(&self, query: &ConnectionQuery) -> ConnectionCounts {
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        let Some(flows) = self.shared.state.connections().filter(|_| generation.table.tracks()) else {
            return ConnectionCounts::default();
        };
        let mut counts = HashMap::<_, u64>::new();
        let next = flows.walk(query.from, SETS_IN_AN_ANSWER, now, |flow| {
            if self.includes(&query.filter, &flow) {
                *counts.entry((flow.protocol, state_word(flow.state, flow.tcp), flow.door)).or_default() += 1;
            }
            ControlFlow::Continue(())
        });
        let count = |((protocol, state, door), connections): ((u8, &str, Option<ListId>), u64)| ConnectionCount {
            protocol,
            state: state.to_owned(),
            door: door.and_then(|open| door_name(&self.shared, open)),
            connections,
        };
        ConnectionCounts { counts: counts.into_iter().map(count).collect(), next }
    }

    /// Ends these connections, and sends resets to both ends of those that a door admitted, as far as there is room for
    /// resets. Returns their number. Connections that were cut before are not included.
    pub(super) fn end_connections(&self, filter: &ConnectionFilter) -> u64 {
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load_full();
        let Some(flows) = self.shared.state.connections().filter(|_| generation.table.tracks()) else { return 0 };
        let (mut ended, mut next) = (0, Some(0));
        while let Some(from) = next {
            let mut found = Vec::new();
            next = flows.walk(from, SETS_IN_AN_ANSWER, now, |flow| {
                if flow.state != ConnectionState::Invalid && self.includes(filter, &flow) {
                    found.push(flow);
                }
                if found.len() < ENDED_AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            for flow in found {
                match flows.end(&flow, now, &generation.table.rules().tracking) {
                    EndedConnection::Before => continue,
                    EndedConnection::Removed => {}
                    EndedConnection::Cut(cut) => {
                        // A full queue omits resets: the ends notice it later.
                        resets(&cut).all(|reset: Reset| self.shared.resets.push(reset).is_ok());
                    }
                }
                ended += 1;
            }
        }
        tracing::info!(target: target!("operator"), %filter, ended, "connections ended by request");
        ended
    }

    fn includes(&self, filter: &ConnectionFilter, flow: &ConnectionInfo) -> bool {
        let door = match &filter.door {
            Some(_) => flow.door.and_then(|open| door_name(&self.shared, open)),
            None => None,
        };
        filter.includes(&FilteredConnection {
            source: flow.originator,
            destination: flow.responder,
            protocol: flow.protocol,
            state: flow.state,
            tcp: flow.tcp,
            door: door.as_deref(),
        })
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
