//! Verdict and reason for a frame. Metrics, CLI and log use the same set.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The verdict on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The frame leaves on the other side.
    Forward = 0,
    /// The frame is dropped.
    Drop = 1,
}

impl Verdict {
    /// All verdicts, in the order of their indexes.
    pub const ALL: [Verdict; 2] = [Verdict::Forward, Verdict::Drop];

    /// Position in [`Verdict::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Forward => "forward",
            Verdict::Drop => "drop",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $sentence:literal;)*) => {
        /// The reason for a verdict. Verdict and reason together explain every frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Reason {
            $($(#[$doc])* #[doc = $sentence] #[serde(rename = $name)] $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of their indexes.
            pub const ALL: &[Reason] = &[$(Reason::$variant),*];
            /// The number of reasons.
            pub const COUNT: usize = Reason::ALL.len();

            /// Position in [`Reason::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The name in metrics and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// One sentence for operators.
            pub const fn sentence(self) -> &'static str {
                match self { $(Reason::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    Rule = "rule", "a rule decided";
    ChainDefault = "chain-default", "no rule of the chain decided; the chain's default applied";
    Fasttracked = "fasttracked", "a rule fasttracked its connection; no filter rule was tried";
    Fragment = "fragment", "a later fragment of a datagram whose first fragment was forwarded";
    FragmentUnknown = "fragment-unknown", "a later fragment of a datagram whose first fragment was dropped or not seen";
    Arp = "arp", "ARP, decided by its frame class";
    NeighbourDiscovery = "neighbour-discovery", "IPv6 neighbour discovery, decided by its frame class";
    RouterAdvertisement = "router-advertisement", "an IPv6 router advertisement, decided by its frame class";
    Redirect = "redirect", "an IPv6 redirect, decided by its frame class";
    SpanningTree = "spanning-tree", "spanning tree, decided by its frame class";
    Lldp = "lldp", "LLDP, decided by its frame class";
    Lacp = "lacp", "LACP and other slow protocols, decided by their frame class";
    Eapol = "eapol", "802.1X, decided by its frame class";
    Pppoe = "pppoe", "PPPoE discovery or PPP control, decided by its frame class";
    UnknownEthertype = "unknown-ethertype", "neither IP nor a known control protocol, decided by its frame class";
    FrameClassRate = "frame-class-rate", "the rate of its frame class is used up";
    ArpMalformed = "arp-malformed", "not an ARP request or reply for IPv4 over Ethernet, or with fields that such a packet cannot have";
    ArpClaim = "arp-claim", "ARP from outside that claims a protected address";
    NeighbourDiscoveryMalformed = "neighbour-discovery-malformed", "IPv6 neighbour discovery that receivers must not accept, or with fields that such a message cannot have";
    NeighbourDiscoveryClaim = "neighbour-discovery-claim", "IPv6 neighbour discovery from outside that claims a protected address";
    EthernetTruncated = "ethernet-truncated", "the frame is shorter than its Ethernet and VLAN headers";
    VlanTooDeep = "vlan-too-deep", "more than two VLAN tags";
    PppoeMalformed = "pppoe-malformed", "version, code, session or length of the PPPoE header contradict the frame";
    PppUnreadable = "ppp-unreadable", "PPP data that rules cannot see: compressed, encrypted, or not IP";
    FrameTooLong = "frame-too-long", "the frame is longer than the interfaces' MTU allows";
    MultiBuffer = "multi-buffer", "the kernel delivered the frame in several buffers, none of which is a whole frame";
    Ipv4Malformed = "ipv4-malformed", "version, header length or total length of the IPv4 header contradict the frame";
    Ipv6Malformed = "ipv6-malformed", "version or payload length of the IPv6 header contradict the frame";
    Ipv6Extensions = "ipv6-extensions", "IPv6 extension headers are truncated, too many, or out of order";
    FragmentMalformed = "fragment-malformed", "the fragment is tiny, empty, misaligned, overlaps a TCP header, or reaches beyond 65,535 bytes";
    TransportTruncated = "transport-truncated", "the packet is shorter than its TCP, UDP or ICMP header";
    TransportMalformed = "transport-malformed", "a length inside the TCP or UDP header contradicts the packet";
    Duplicate = "duplicate", "the kernel delivered the frame in a buffer that it had delivered already";
    TxFull = "tx-full", "accepted, but the other side's transmit ring is full";
    LinkDown = "link-down", "accepted, but the other side's link is down";
}

impl Reason {
    /// Whether frames can be forwarded for this reason; frames with other reasons are always dropped.
    pub const fn may_forward(self) -> bool {
        use Reason::*;
        matches!(
            self,
            Rule | ChainDefault
                | Fasttracked
                | Fragment
                | Arp
                | NeighbourDiscovery
                | RouterAdvertisement
                | Redirect
                | SpanningTree
                | Lldp
                | Lacp
                | Eapol
                | Pppoe
                | UnknownEthertype
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_order_and_names_are_unique() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::COUNT);
    }
}
