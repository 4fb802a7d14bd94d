//! A source's connections.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Vlan;
use crate::rule::ConnectionState;

/// The connections of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConnections {
    /// How many there are.
    pub count: u64,
    /// Those that began first, in this order.
    pub oldest: Vec<SourceConnection>,
    /// Those that began last, the last one first, without those that are among the oldest.
    pub newest: Vec<SourceConnection>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConnection {
    /// The VLAN that it is in.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Its IP protocol.
    pub protocol: u8,
    /// Who sent the first packet, and its port or ICMP identifier.
    pub from: (IpAddr, u16),
    /// The other end.
    pub to: (IpAddr, u16),
    /// Its state: `new` until both ends have spoken, then `established`.
    pub state: ConnectionState,
    /// Whether both sides have closed it, or one has aborted it.
    pub closed: bool,
    /// Whether its packets pass the rules by.
    pub fasttracked: bool,
    /// The door that it began through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// IP bytes so far, both ways.
    pub bytes: u64,
    /// Time left, if no packet comes.
    pub time_left: Duration,
}
