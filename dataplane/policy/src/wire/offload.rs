//! Offloads at senders: checksums and segmentation that a sender leaves to its interface, and that no interface has
//! computed yet. On a veth, and between a host and its virtual machines or containers, the next physical interface
//! computes them. A filter in between receives packets before that.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Side;

/// The time for which a warning remains after the last such packet.
pub const WARNED_FOR: Duration = Duration::from_secs(600);

/// Packets and frames since start whose sender left work to its interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offload {
    /// Packets of TCP and UDP without a computed checksum, from outside and from inside. The engine checks only first
    /// packets of accepted connections, knocks that opened a door, and packets that added an address to a list.
    pub checksums: [u64; 2],
    /// Frames that were dropped because they are longer than the MTU of the interfaces allows.
    pub too_long: u64,
    /// Time since the last such packet or frame; `None` if there was none.
    pub last: Option<Duration>,
}

/// A warning about a sender. As text, it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffloadWarning {
    /// What is not well.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for OffloadWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl Offload {
    /// The warnings; none if the last packet arrived more than [`WARNED_FOR`] ago.
    pub fn warnings(&self) -> Vec<OffloadWarning> {
        if self.last.is_none_or(|age| age >= WARNED_FOR) {
            return Vec::new();
        }
        let sides =
            Side::ALL.into_iter().filter_map(|side| Offload::checksum_warning(side, self.checksums[side.index()]));
        sides.chain(Offload::length_warning(self.too_long)).collect()
    }

    /// The warning about this number of packets without a checksum from this side.
    pub fn checksum_warning(side: Side, packets: u64) -> Option<OffloadWarning> {
        let are = if packets == 1 { "packet has" } else { "packets have" };
        (packets > 0).then(|| OffloadWarning {
            problem: format!(
                "{packets} {are} no checksum among first packets and knocks from {side}: the sender leaves it to its \
                 interface. Receivers drop such packets, so that doors open and nothing connects"
            ),
            remedy: "run on the sender, at the end of the veth or in the virtual machine: `ethtool -K INTERFACE tx off tso \
                     off gso off`",
        })
    }

    /// The warning about this number of overlong frames.
    pub fn length_warning(frames: u64) -> Option<OffloadWarning> {
        let were = if frames == 1 { "frame was" } else { "frames were" };
        (frames > 0).then(|| OffloadWarning {
            problem: format!(
                "{frames} {were} dropped, longer than the MTU of the interfaces: a sender leaves segmentation to its \
                 interface, or has a larger MTU"
            ),
            remedy: "run on the sender: `ethtool -K INTERFACE tso off gso off`",
        })
    }
}
