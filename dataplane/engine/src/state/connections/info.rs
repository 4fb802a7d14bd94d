//! The connections of one address: for operators' questions.

use std::net::IpAddr;

use knockplane_policy::eval::tracking::{End, FlowKey, TcpConnection, TcpState};
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use super::connection::TrackedConnection;
use super::{ConnectionTable, lock};
use crate::state::lists::ListId;

/// A connection that has the address at one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The VLAN that it is in.
    pub vlan: Vlan,
    /// What names it.
    pub(super) key: FlowKey,
    /// Its IP protocol.
    pub protocol: u8,
    /// Who sent the first packet.
    pub originator: End,
    /// The other end.
    pub responder: End,
    /// The side that the first packet came from.
    pub side: Side,
    /// Its state, if it is of TCP.
    pub tcp: Option<TcpState>,
    /// `new` until the other end has answered, then `established`; `invalid` if its door has cut it.
    pub state: ConnectionState,
    /// Whether both sides have closed it, or one has aborted it.
    pub is_closed: bool,
    /// Whether its packets pass the rules by.
    pub fasttracked: bool,
    /// The open list of the door that it began through.
    pub door: Option<ListId>,
    /// Whether its ends do not know yet that it is cut, if it is.
    pub wants_reset: bool,
    /// IP bytes so far, both ways.
    pub bytes: u64,
    /// When it is forgotten, if nothing comes.
    pub expiry: Time,
    /// Later connections have higher numbers.
    pub(super) serial: u64,
}

/// The connections of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressConnections {
    /// How many there are.
    pub count: u64,
    /// Those that began first, in this order.
    pub oldest: Vec<ConnectionInfo>,
    /// Those that began last, the last one first, without those that are among the oldest.
    pub newest: Vec<ConnectionInfo>,
}

impl ConnectionTable {
    /// The connections that have the address at one of their ends: how many, and at most so many of the oldest and of the
    /// newest. Goes through all connections, with one lock at a time.
    pub fn of(&self, address: IpAddr, most: usize, now: Time) -> AddressConnections {
        let mut flows = AddressConnections::default();
        for set in &self.sets {
            let set = lock(set);
            let of_address =
                |flow: &&TrackedConnection| flow.is_known(now) && flow.key.ends.iter().any(|end| end.0 == address);
            for flow in set.slots.iter().filter(of_address) {
                flows.count += 1;
                let flow = ConnectionInfo::of(flow, now);
                keep(&mut flows.oldest, flow, most, |flow| flow.serial);
                keep(&mut flows.newest, flow, most, |flow| u64::MAX - flow.serial);
            }
        }
        let AddressConnections { oldest, newest, .. } = &mut flows;
        newest.retain(|flow| !oldest.iter().any(|old| old.serial == flow.serial));
        flows
    }
}

/// Keeps the first so many, in order.
fn keep(kept: &mut Vec<ConnectionInfo>, flow: ConnectionInfo, most: usize, order: impl Fn(&ConnectionInfo) -> u64) {
    let place = kept.partition_point(|other| order(other) < order(&flow));
    if place < most {
        kept.insert(place, flow);
        kept.truncate(most);
    }
}

impl ConnectionInfo {
    pub(super) fn of(flow: &TrackedConnection, now: Time) -> ConnectionInfo {
        let (originator, responder) = flow.originator_and_responder();
        ConnectionInfo {
            vlan: flow.key.vlan,
            key: flow.key,
            wants_reset: flow.wants_reset(now),
            protocol: flow.key.protocol,
            originator,
            responder,
            side: flow.side,
            tcp: flow.tcp.as_ref().map(TcpConnection::state),
            state: flow.state(),
            is_closed: flow.is_closed(),
            fasttracked: flow.fasttracked,
            door: flow.door,
            bytes: flow.bytes,
            expiry: flow.expiry,
            serial: flow.serial,
        }
    }
}
