//! Connections that tracking knows: how full their table is, and which ones there are.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::perhaps_as_text;
use crate::eval::tracking::TcpState;
use crate::packet::{Side, Vlan};
use crate::rule::{AddressSet, ConnectionState};

/// Connections in one answer at most: some 400 KB. Another request goes on behind them.
pub const MAX_CONNECTIONS: usize = 1_000;

/// A table in which a connection found no room so recently is full.
pub const FULL_FOR: Duration = Duration::from_secs(60);

/// How full the table of connections is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTable {
    /// Connections that are known, as of the last count, which takes a second for half a million places.
    pub known: u64,
    /// About how many there is room for: `connection-capacity`.
    pub capacity: u64,
    /// Packets since start that would have begun a connection and found no room; tracking calls them `invalid`.
    pub refused: u64,
    /// Time since the last of them; `None` if there was none.
    pub last_refused: Option<Duration>,
}

impl ConnectionTable {
    /// The warning that the table is full, with the remedy; `None` if it is not.
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

/// Which connections to show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionQuery {
    /// Only those that an address of this set began.
    #[serde(default, with = "perhaps_as_text")]
    pub source: Option<AddressSet>,
    /// Where the search begins: [`Connections::next`] of the answer before, 0 for the first one.
    #[serde(default)]
    pub from: u64,
    /// At most so many, and at most [`MAX_CONNECTIONS`].
    pub limit: usize,
}

/// A part of the table of connections, in no order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// Those that were found; perhaps none, although others follow.
    pub connections: Vec<Connection>,
    /// Where the next request goes on; `None` at the end of the table.
    pub next: Option<u64>,
}

/// A connection. Addresses and ports are not translated, so those of packets are those of the ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The VLAN that it is in.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Its IP protocol.
    pub protocol: u8,
    /// Who sent the first packet, and its port or ICMP identifier.
    pub source: (IpAddr, u16),
    /// The other end.
    pub destination: (IpAddr, u16),
    /// The side that the first packet came from.
    pub side: Side,
    /// `new` until both ends have sent packets, then `established`.
    pub state: ConnectionState,
    /// Of a TCP connection.
    pub tcp: Option<TcpState>,
    /// Whether its packets pass the rules by.
    pub fasttracked: bool,
    /// The door that it began through.
    pub door: Option<String>,
    /// Time until the grant of that door ends; `None` if it has ended, or does not end.
    pub grant_left: Option<Duration>,
    /// IP bytes so far, both ways.
    pub bytes: u64,
    /// Time until it is forgotten, if no packet comes.
    pub time_left: Duration,
}
