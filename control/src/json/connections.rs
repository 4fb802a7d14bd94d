//! `show connections`.

use std::net::IpAddr;

use knockplane_policy::eval::tracking::TcpState;
use knockplane_policy::packet::{Side, protocol};
use knockplane_policy::rule::{ConnectionState, protocol_name};
use knockplane_policy::wire::connections as wire;
use schemars::JsonSchema;
use serde::Serialize;

use super::{NetworkJson, seconds};
use crate::api::messages;

/// Connections that are tracked.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionsJson {
    /// The table of connections; `null` if connections are not tracked.
    pub(crate) table: Option<ConnectionTableJson>,
    /// The connections, ordered by source, destination and protocol, at most `--limit`.
    pub(crate) connections: Vec<ConnectionJson>,
    /// Whether there are more.
    pub(crate) truncated: bool,
}

/// `connection remove`: no frame passes any more because it belongs to one of these connections.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EndedJson {
    /// The words of the filter.
    pub(crate) filter: String,
    /// Number of ended connections.
    pub(crate) ended: u64,
}

/// Connections that are tracked, counted.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionTotalsJson {
    /// Whether connections are tracked.
    pub(crate) tracked: bool,
    /// The number of all of them.
    pub(crate) total: u64,
    /// Their numbers by protocol, state and door, the largest first.
    pub(crate) counts: Vec<ConnectionCountJson>,
}

/// A number of connections.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionCountJson {
    /// The IP protocol, by name or number.
    pub(crate) protocol: String,
    /// The state of TCP, or that of tracking for other protocols.
    pub(crate) state: String,
    /// The door; `null` if they began through none.
    pub(crate) door: Option<String>,
    pub(crate) connections: u64,
}

impl From<messages::ConnectionTotals> for ConnectionTotalsJson {
    fn from(messages::ConnectionTotals { tracked, counts }: messages::ConnectionTotals) -> Self {
        let count = |wire::ConnectionCount { protocol, state, door, connections }: wire::ConnectionCount| {
            ConnectionCountJson { protocol: protocol_name(protocol), state, door, connections }
        };
        ConnectionTotalsJson {
            tracked,
            total: counts.iter().map(|count| count.connections).sum(),
            counts: counts.into_iter().map(count).collect(),
        }
    }
}

/// The occupancy of the table of connections.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Table")]
pub(crate) struct ConnectionTableJson {
    /// Number of known connections at the last count.
    pub(crate) known: u64,
    /// The approximate capacity of the table.
    pub(crate) capacity: u64,
    /// Packets since the dataplane started whose new connection found no room.
    pub(crate) refused_packets: u64,
    /// Time since the last such packet; `null` if there was none.
    pub(crate) last_refused_ago_seconds: Option<f64>,
    /// The warning that the table is full, with the remedy; `null` if it is not full.
    pub(crate) warning: Option<String>,
}

/// A connection. `source` is the end that sent the first packet.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionJson {
    #[serde(flatten)]
    pub(crate) network: NetworkJson,
    /// The IP protocol, by name or number, in the form of rules.
    pub(crate) protocol: String,
    pub(crate) source: IpAddr,
    /// `null` if the protocol has no ports.
    pub(crate) source_port: Option<u16>,
    pub(crate) destination: IpAddr,
    /// `null` if the protocol has no ports.
    pub(crate) destination_port: Option<u16>,
    /// The identifier of an ICMP query; `null` for other protocols.
    pub(crate) icmp_identifier: Option<u16>,
    /// The side from which the first packet came.
    pub(crate) side: Side,
    /// `new` until both ends have sent packets, then `established`.
    pub(crate) state: ConnectionState,
    /// The state of a TCP connection; `null` for other protocols.
    pub(crate) tcp_state: Option<TcpState>,
    /// Whether packets of the connection bypass the rules.
    pub(crate) fasttracked: bool,
    /// The door through which the connection began; `null` if there was none.
    pub(crate) door: Option<String>,
    /// Time until the grant of that door ends; `null` if it has ended, or does not end.
    pub(crate) grant_left_seconds: Option<f64>,
    /// IP bytes in both directions.
    pub(crate) bytes: u64,
    /// Time left, if no packet arrives.
    pub(crate) time_left_seconds: f64,
}

impl From<wire::ConnectionTableStatus> for ConnectionTableJson {
    fn from(table: wire::ConnectionTableStatus) -> Self {
        let warning = table.warning();
        let wire::ConnectionTableStatus { known, capacity, refused, last_refused } = table;
        let last_refused_ago_seconds = last_refused.map(seconds);
        ConnectionTableJson { known, capacity, refused_packets: refused, last_refused_ago_seconds, warning }
    }
}

impl From<wire::Connection> for ConnectionJson {
    fn from(connection: wire::Connection) -> Self {
        let wire::Connection {
            vlan,
            protocol,
            source,
            destination,
            side,
            state,
            tcp,
            fasttracked,
            door,
            grant_left,
            bytes,
            time_left,
        } = connection;
        let is_icmp = matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        let has_ports = !is_icmp && source.1 | destination.1 > 0;
        ConnectionJson {
            network: vlan.into(),
            protocol: protocol_name(protocol),
            source: source.0,
            source_port: has_ports.then_some(source.1),
            destination: destination.0,
            destination_port: has_ports.then_some(destination.1),
            icmp_identifier: is_icmp.then_some(source.1),
            side,
            state,
            tcp_state: tcp,
            fasttracked,
            door,
            grant_left_seconds: grant_left.map(seconds),
            bytes,
            time_left_seconds: seconds(time_left),
        }
    }
}

impl From<messages::Tracked> for ConnectionsJson {
    fn from(messages::Tracked { table, connections, truncated }: messages::Tracked) -> Self {
        let connections = connections.into_iter().map(ConnectionJson::from).collect();
        ConnectionsJson { table: table.map(ConnectionTableJson::from), connections, truncated }
    }
}
