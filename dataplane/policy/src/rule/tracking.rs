//! Settings of connection tracking in an export.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Inert;
use crate::word::words;

words! {
    /// When connections are tracked.
    TrackingMode {
        /// When a rule needs it.
        Auto = "auto",
        /// Always.
        Yes = "yes",
        /// Never: every packet is untracked.
        No = "no",
    }
}

/// `/ip firewall connection tracking`, for both families. The defaults are RouterOS's. Source: RouterOS manual,
/// Connection tracking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tracking {
    /// `enabled`.
    pub enabled: TrackingMode,
    /// `loose-tcp-tracking`: whether a TCP packet in the middle of an unknown connection begins a connection; otherwise
    /// it is invalid.
    pub loose_tcp: bool,
    /// `tcp-syn-sent-timeout`: 5s.
    pub tcp_syn_sent: Duration,
    /// `tcp-syn-received-timeout`: 5s.
    pub tcp_syn_received: Duration,
    /// `tcp-established-timeout`: 1d.
    pub tcp_established: Duration,
    /// `tcp-fin-wait-timeout`: 10s.
    pub tcp_fin_wait: Duration,
    /// `tcp-close-wait-timeout`: 10s.
    pub tcp_close_wait: Duration,
    /// `tcp-last-ack-timeout`: 10s.
    pub tcp_last_ack: Duration,
    /// `tcp-time-wait-timeout`: 10s.
    pub tcp_time_wait: Duration,
    /// `tcp-close-timeout`: 10s.
    pub tcp_close: Duration,
    /// `tcp-max-retrans-timeout`: 5m.
    pub tcp_max_retrans: Duration,
    /// `tcp-unacked-timeout`: 5m.
    pub tcp_unacked: Duration,
    /// `udp-timeout`: packets in one direction only. 30s since RouterOS 7; 10s for older exports without this property.
    pub udp: Duration,
    /// `udp-stream-timeout`: packets in both directions. 3m.
    pub udp_stream: Duration,
    /// `icmp-timeout`: 10s.
    pub icmp: Duration,
    /// `generic-timeout`: every other protocol. 10m.
    pub generic: Duration,
    /// Values that the router determines, or that concern the router's own connections.
    #[serde(skip_serializing_if = "super::is_default")]
    pub inert: Inert,
}

impl Default for Tracking {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Tracking {
            enabled: TrackingMode::Auto,
            loose_tcp: true,
            tcp_syn_sent: seconds(5),
            tcp_syn_received: seconds(5),
            tcp_established: seconds(86_400),
            tcp_fin_wait: seconds(10),
            tcp_close_wait: seconds(10),
            tcp_last_ack: seconds(10),
            tcp_time_wait: seconds(10),
            tcp_close: seconds(10),
            tcp_max_retrans: seconds(300),
            tcp_unacked: seconds(300),
            udp: seconds(30),
            udp_stream: seconds(180),
            icmp: seconds(10),
            generic: seconds(600),
            inert: Inert::new(),
        }
    }
}
