//! Interfaces, their frame counters and their drift.

use serde::{Deserialize, Serialize};

use crate::packet::Side;
use crate::word::words;

/// An interface as it was bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Which side it is.
    pub side: Side,
    /// Its name.
    pub name: String,
    /// `native` or `generic` XDP.
    pub xdp_mode: String,
    /// Whether frames are received and sent without a copy by the kernel.
    pub zero_copy: bool,
    /// The driver, as `ethtool -i` shows it; empty if it has none.
    #[serde(default)]
    pub driver: String,
    /// Why frames are copied, if they are.
    #[serde(default)]
    pub copy_reason: Option<String>,
    /// What the mode costs, compared with native XDP and zero-copy; none if it is both.
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
    /// Frames that were counted at the interface.
    #[serde(default)]
    pub counters: InterfaceCounters,
}

/// A requirement of the filter that an interface or the host does not meet any more.
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
    /// What was repaired.
    pub kind: DriftKind,
    /// How often since start.
    pub times: u64,
}

words! {
    /// Kinds of drift that the filter survives. docs/drift.md has the reaction to each.
    DriftKind {
        /// The interface was set down.
        Down = "down",
        /// It has another name.
        Name = "name",
        /// The MTUs differ, or are larger than the frames that there is room for.
        Mtu = "mtu",
        /// The interfaces have different numbers of queues.
        Queues = "queues",
        /// Generic receive offload is on.
        Gro = "gro",
        /// Large receive offload is on.
        Lro = "lro",
        /// VLAN tags are taken out of frames.
        RxVlan = "rxvlan",
        /// It does not receive frames for all addresses.
        Promiscuous = "promiscuous",
        /// It, or a device on it, belongs to a bridge or bond.
        Master = "master",
        /// The host routes what arrives on it, or on a device on it.
        Forwarding = "forwarding",
        /// The host has an address on it, or on a device on it.
        Address = "address",
        /// The host's default route goes out by it, or by a device on it.
        DefaultRoute = "default-route",
        /// Frames arrive on a queue without a socket.
        NoSocket = "no-socket",
        /// Frames get past the XDP program.
        PastProgram = "past-program",
        /// The kernel does not say what the interface is like.
        Unverified = "unverified",
    }
}

/// Frames counted at one interface. Frames that arrive are `rx_packets`; of these the XDP program saw `arrived`, and
/// `past_program` got past it; of those that it saw, `no_socket` and `tails` were dropped, and the others are received
/// by a worker or counted among the losses at its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InterfaceCounters {
    /// Frames that the XDP program saw, since start.
    pub arrived: u64,
    /// Of these, dropped because no worker served their queue.
    pub no_socket: u64,
    /// Of these, dropped because they may be the rest of a frame that was too long and that the driver has split.
    pub tails: u64,
    /// Frames that got past the XDP program and were dropped behind it, since start; none if the kernel cannot drop
    /// there (before Linux 6.6).
    pub past_program: Option<u64>,
    /// The driver's counters, since the interface was made: frames that arrived.
    pub rx_packets: u64,
    /// Frames that were sent, those of the host included.
    pub tx_packets: u64,
    /// Frames that arrived damaged.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames that arrived and found no room, or no reader.
    pub rx_dropped: u64,
    /// Frames that were to be sent and found no room, or no receiver.
    pub tx_dropped: u64,
    /// Frames that the device itself had no room for.
    pub rx_missed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::Word as _;

    #[test]
    fn every_kind_of_drift_has_its_row_in_the_documentation_and_no_other_has() {
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
    fn a_status_of_a_dataplane_that_knows_no_drift_is_read() {
        let text = r#"{"side":"outside","name":"eth1","xdp_mode":"native","zero_copy":false,"queues":1,"mtu":1500,
            "up":true,"way_past":null}"#;
        let interface: Interface = serde_json::from_str(text).expect("what an older one says");
        assert!(interface.drift.is_empty() && interface.counters == InterfaceCounters::default());
    }
}
