//! The connections of one address, for operators.

use std::net::IpAddr;

use knockplane_policy::eval::tracking::{End, FlowKey, TcpState};
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use super::ConnectionTable;
use super::key::PackedKey;
use super::set::LockedSet;
use crate::state::lists::ListId;

/// A connection of which the address is one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The VLAN of the connection.
    pub vlan: Vlan,
    /// The key of the connection.
    pub(super) key: PackedKey,
    /// The IP protocol.
    pub protocol: u8,
    /// The end that sent the first packet.
    pub originator: End,
    /// The end that received the first packet.
    pub responder: End,
    /// The side that the first packet came from.
    pub side: Side,
    /// The TCP state; `None` for other protocols.
    pub tcp: Option<TcpState>,
    /// `new` until the responder has answered, then `established`; `invalid` if the door has cut the connection.
    pub state: ConnectionState,
    /// Whether both sides have closed the connection, or one side has aborted it.
    pub is_closed: bool,
    /// Whether packets of the connection bypass the rules.
    pub fasttracked: bool,
    /// The open list of the door through which the connection began.
    pub door: Option<ListId>,
    /// Whether the connection is cut and its ends still need a reset.
    pub wants_reset: bool,
    /// IP bytes so far, in both directions.
    pub bytes: u64,
    /// Expiry, if no packet follows.
    pub expiry: Time,
    /// Serial number: later connections have higher numbers.
    pub(super) serial: u64,
}

/// The connections of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressConnections {
    /// The number of connections.
    pub count: u64,
    /// The connections that began first, in this order.
    pub oldest: Vec<ConnectionInfo>,
    /// The connections that began last, in reverse order, without those in `oldest`.
    pub newest: Vec<ConnectionInfo>,
}

impl ConnectionTable {
    /// The connections of which the address is one end: their number, and at most `most` of the oldest and of the
    /// newest. Visits all connections, with one lock at a time.
    pub fn of(&self, address: IpAddr, most: usize, now: Time) -> AddressConnections {
        let mut flows = AddressConnections::default();
        for set in &self.sets {
            let set = set.lock();
            for place in set.known(now).filter(|place| set.slot(*place).key().has_address(address)) {
                flows.count += 1;
                let flow = ConnectionInfo::of(&set, place, now);
                keep(&mut flows.oldest, flow, most, |flow| flow.serial);
                keep(&mut flows.newest, flow, most, |flow| u64::MAX - flow.serial);
            }
        }
        let AddressConnections { oldest, newest, .. } = &mut flows;
        newest.retain(|flow| !oldest.iter().any(|old| old.serial == flow.serial));
        flows
    }
}

/// Keeps the first `most` connections, in order.
fn keep(kept: &mut Vec<ConnectionInfo>, flow: ConnectionInfo, most: usize, order: impl Fn(&ConnectionInfo) -> u64) {
    let place = kept.partition_point(|other| order(other) < order(&flow));
    if place < most {
        kept.insert(place, flow);
        kept.truncate(most);
    }
}

impl ConnectionInfo {
    /// The serial number: later connections have higher numbers.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub(super) fn of(set: &LockedSet<'_>, place: usize, now: Time) -> ConnectionInfo {
        let slot = set.slot(place);
        let (key, flags) = (slot.key(), slot.flags());
        let FlowKey { vlan, protocol, ends, .. } = key.flow_key();
        ConnectionInfo {
            vlan,
            key,
            protocol,
            originator: ends[flags.originator()],
            responder: ends[1 - flags.originator()],
            side: flags.side(),
            tcp: flags.tcp(),
            state: flags.state(),
            is_closed: flags.is_closed(),
            fasttracked: flags.fasttracked(),
            door: flags.door(),
            wants_reset: set.wants_reset(place, now),
            bytes: slot.bytes(),
            expiry: slot.expiry(),
            serial: set.begun(place).serial,
        }
    }
}
