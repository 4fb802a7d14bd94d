//! The connection table: its fill level and its connections.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection_filter::ConnectionFilter;
use crate::eval::tracking::TcpState;
use crate::packet::{Side, Vlan};
use crate::rule::ConnectionState;

/// Maximum number of connections in one answer: about 400 KB. The next request continues after them.
pub const MAX_CONNECTIONS: usize = 1_000;

/// The time after a refused connection for which the table counts as full.
pub const FULL_FOR: Duration = Duration::from_secs(60);

/// Fill level of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTableStatus {
    /// Number of known connections at the last count. A count takes a second for half a million slots.
    pub known: u64,
    /// Approximate capacity: `connection-capacity`.
    pub capacity: u64,
    /// Number of packets since start whose new connection found no room. The state of such packets is `invalid`.
    pub refused: u64,
    /// Time since the last such packet; `None` if there was none.
    pub last_refused: Option<Duration>,
}

impl ConnectionTableStatus {
    /// The warning that the table is full, with the remedy; `None` if it is not full.
    pub fn warning(&self) -> Option<String> {
        let age = self.last_refused.filter(|age| *age < FULL_FOR)?;
        let packets = if self.refused == 1 { "packet" } else { "packets" };
        Some(format!(
            "the table of connections is full: {} {packets} of new connections found no room since start, the last one {} s \
             ago. Connections that are not tracked end when their door closes, or at once where rules ask for their state. \
             Raise `connection-capacity` ({}); `knockctl show connections` shows what fills it",
            self.refused,
            age.as_secs(),
            self.capacity
        ))
    }
}

/// A query for connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionQuery {
    /// Only these connections.
    #[serde(default)]
    pub filter: ConnectionFilter,
    /// The start of the search: [`ConnectionPage::next`] of the previous answer, 0 for the first request.
    #[serde(default)]
    pub from: u64,
    /// Maximum number of connections, at most [`MAX_CONNECTIONS`].
    pub limit: usize,
}

/// Connections with the same state and door, in a part of the connection table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCount {
    /// The IP protocol.
    pub protocol: u8,
    /// The shown state: [`state_word`](super::connection_filter::state_word).
    pub state: String,
    /// The door through which they began.
    pub door: Option<String>,
    /// Their number.
    pub connections: u64,
}

/// Counts of a part of the connection table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// The counts, in no order.
    pub counts: Vec<ConnectionCount>,
    /// As in [`ConnectionPage`].
    pub next: Option<u64>,
}

/// A part of the connection table, in no order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionPage {
    /// The found connections. The list may be empty although others follow.
    pub connections: Vec<Connection>,
    /// The start of the next request; `None` at the end of the table.
    pub next: Option<u64>,
}

/// A connection. Addresses and ports are not translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The VLAN of the connection.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The IP protocol.
    pub protocol: u8,
    /// Address and port, or ICMP identifier, of the originator.
    pub source: (IpAddr, u16),
    /// Address and port, or ICMP identifier, of the responder.
    pub destination: (IpAddr, u16),
    /// The side that the first packet came from.
    pub side: Side,
    /// `new` until both ends have sent packets, then `established`.
    pub state: ConnectionState,
    /// State of a TCP connection.
    pub tcp: Option<TcpState>,
    /// Whether its packets bypass the rules.
    pub fasttracked: bool,
    /// The door through which the connection began.
    pub door: Option<String>,
    /// Time until the grant of that door ends; `None` if it has ended, or does not end.
    pub grant_left: Option<Duration>,
    /// IP bytes so far, both directions.
    pub bytes: u64,
    /// Time until the connection expires, if no packet arrives.
    pub time_left: Duration,
}
