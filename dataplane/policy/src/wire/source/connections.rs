//! A source's connections.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Vlan;
use crate::rule::ConnectionState;

/// The connections of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConnections {
    /// Their number.
    pub count: u64,
    /// The oldest ones, the oldest first.
    pub oldest: Vec<SourceConnection>,
    /// The newest ones, the newest first, without those among the oldest.
    pub newest: Vec<SourceConnection>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConnection {
    /// The VLAN of the connection.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The IP protocol.
    pub protocol: u8,
    /// Address and port, or ICMP identifier, of the originator.
    pub from: (IpAddr, u16),
    /// Address and port, or ICMP identifier, of the responder.
    pub to: (IpAddr, u16),
    /// The state: `new` until both ends have sent packets, then `established`.
    pub state: ConnectionState,
    /// Whether both ends have closed the connection, or one end has aborted it.
    pub closed: bool,
    /// Whether its packets bypass the rules.
    pub fasttracked: bool,
    /// The door through which the connection began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// IP bytes so far, in both directions.
    pub bytes: u64,
    /// Time left, if no packet arrives.
    pub time_left: Duration,
}
