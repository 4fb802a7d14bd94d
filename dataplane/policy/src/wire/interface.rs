//! Interfaces, their frame counters and their drift.

use serde::{Deserialize, Serialize};

use crate::packet::Side;
use crate::word::words;

/// A bound interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// The side.
    pub side: Side,
    /// The name.
    pub name: String,
    /// `native` or `generic` XDP.
    pub xdp_mode: String,
    /// Whether frames are received and sent without a copy by the kernel.
    pub zero_copy: bool,
    /// The driver, as in the output of `ethtool -i`; empty if there is none.
    #[serde(default)]
    pub driver: String,
    /// The reason that frames are copied; `None` if they are not.
    #[serde(default)]
    pub copy_reason: Option<String>,
    /// The cost of the mode, compared with native XDP and zero-copy; `None` for both.
    #[serde(default)]
    pub cost: Option<String>,
    /// Receive queues, all of them bound.
    pub queues: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether the link is up.
    pub up: bool,
    /// Requirements that are not met now.
    #[serde(default)]
    pub drift: Vec<Drift>,
    /// Repairs since start, for each kind that the dataplane can repair.
    #[serde(default)]
    pub repairs: Vec<Repairs>,
    /// Counters of frames at the interface.
    #[serde(default)]
    pub counters: InterfaceCounters,
}

/// A requirement of the filter that an interface or the host no longer meets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drift {
    /// The kind.
    pub kind: DriftKind,
    /// The present state, the required one, and the remedy.
    pub problem: String,
}

/// Repairs of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Repairs {
    /// The kind.
    pub kind: DriftKind,
    /// Number of repairs since start.
    pub times: u64,
}

words! {
    /// Kinds of drift with which the filter continues. docs/drift.md has the reaction to each.
    DriftKind {
        /// The interface was set down.
        Down = "down",
        /// The interface was renamed.
        Name = "name",
        /// The MTUs differ, or exceed the size of frame buffers.
        Mtu = "mtu",
        /// The interfaces have different numbers of queues.
        Queues = "queues",
        /// Generic receive offload is on.
        Gro = "gro",
        /// Large receive offload is on.
        Lro = "lro",
        /// VLAN tags are removed from frames.
        RxVlan = "rxvlan",
        /// The interface does not receive frames for all addresses.
        Promiscuous = "promiscuous",
        /// The interface, or a device on it, belongs to a bridge or bond.
        Master = "master",
        /// The host routes packets that arrive on the interface or on a device on it.
        Forwarding = "forwarding",
        /// The host has an address on the interface or on a device on it.
        Address = "address",
        /// The host's default route uses the interface or a device on it.
        DefaultRoute = "default-route",
        /// Frames arrive on a queue without a socket.
        NoSocket = "no-socket",
        /// Frames bypass the XDP program.
        PastProgram = "past-program",
        /// The kernel does not report the state of the interface.
        Unverified = "unverified",
    }
}

/// Frames counted at one interface. Frames that arrive are `rx_packets`. The XDP program received `arrived` of them,
/// and `past_program` bypassed it. Of the received ones, `no_socket` and `tails` were dropped; a worker received the
/// others, or they are counted among the losses at its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InterfaceCounters {
    /// Frames that the XDP program received, since start.
    pub arrived: u64,
    /// Of these, frames that were dropped because no worker serves their queue.
    pub no_socket: u64,
    /// Of these, frames that were dropped because they may be the rest of an overlong frame that the driver has split.
    pub tails: u64,
    /// Frames that bypassed the XDP program and were dropped after it, since start; `None` if the kernel does not
    /// support this drop (before Linux 6.6).
    pub past_program: Option<u64>,
    /// Frames that arrived. This counter and those below are the driver's, since the creation of the interface.
    pub rx_packets: u64,
    /// Frames sent, including those of the host.
    pub tx_packets: u64,
    /// Frames that arrived damaged.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames dropped on receive for lack of room or of a reader.
    pub rx_dropped: u64,
    /// Frames dropped on transmit for lack of room or of a receiver.
    pub tx_dropped: u64,
    /// Frames dropped because the device had no room.
    pub rx_missed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::Word as _;

    #[test]
    fn the_documentation_has_exactly_the_kinds_of_drift() {
        let page = include_str!("../../../../docs/drift.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
        let mut rows: Vec<_> =
            rows.flat_map(|(kinds, _)| kinds.trim_end_matches('`').split("`, `").collect::<Vec<_>>()).collect();
        rows.dedup();
        let mut kinds: Vec<_> = DriftKind::ALL.iter().map(|kind| kind.name()).collect();
        rows.sort_unstable();
        rows.dedup();
        kinds.sort_unstable();
        assert_eq!(rows, kinds);
    }

    #[test]
    fn an_interface_without_drift_and_counters_is_read() {
        let text = r#"{"side":"outside","name":"eth1","xdp_mode":"native","zero_copy":false,"queues":1,"mtu":1500,
            "up":true,"way_past":null}"#;
        let interface: Interface = serde_json::from_str(text).expect("JSON without drift and counters");
        assert!(interface.drift.is_empty() && interface.counters == InterfaceCounters::default());
    }
}
