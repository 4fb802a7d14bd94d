//! Frames that rules do not see: their classes, and the verdict on each.
//!
//! ```text
//! frame of a class ─► choice of its side ─► padding ─► claim? ─► rate ─► forward
//!                         │ drop             │ bad      │ yes     │ exceeded
//!                         └──────────────────┴──────────┴─────────┴─► drop, each with a reason of its own
//! ```
//! A frame with a wrong structure has no class; it is dropped with a separate reason ([`Reason::ArpMalformed`],
//! [`Reason::NeighbourDiscoveryMalformed`]). The rate is the last check, so that frames that are dropped for another
//! reason do not use it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::packet::Side;
use crate::reason::{Reason, Verdict};
use crate::settings::{Padding, Settings};

macro_rules! frame_classes {
    ($($(#[$doc:meta])* $variant:ident = $reason:ident,)*) => {
        /// A class of frames that are forwarded or dropped without rules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FrameClass {
            $($(#[$doc])* $variant,)*
        }

        impl FrameClass {
            /// All classes, in the order of their indexes.
            pub const ALL: &[FrameClass] = &[$(FrameClass::$variant),*];
            /// The number of classes.
            pub const COUNT: usize = FrameClass::ALL.len();

            /// Position in [`FrameClass::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The reason under which frames of the class are counted, forwarded or dropped.
            pub const fn reason(self) -> Reason {
                match self { $(FrameClass::$variant => Reason::$reason,)* }
            }

            /// The class that is counted under this reason, if there is one.
            pub const fn of(reason: Reason) -> Option<FrameClass> {
                match reason {
                    $(Reason::$reason => Some(FrameClass::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

frame_classes! {
    /// Well-formed ARP requests and replies for IPv4 over Ethernet (RFC 826), ethertype 0x0806.
    Arp = Arp,
    /// Well-formed neighbour solicitations and advertisements, and router solicitations (RFC 4861).
    NeighbourDiscovery = NeighbourDiscovery,
    /// Well-formed router advertisements (RFC 4861): they give hosts addresses, routes and name servers.
    RouterAdvertisement = RouterAdvertisement,
    /// Well-formed redirects of IPv6 (RFC 4861): they change the route to a destination. Rules decide redirects
    /// of IPv4.
    Redirect = Redirect,
    /// Spanning tree (IEEE 802.1D): 802.2 frames, and frames to 01:80:c2:00:00:00 that are not IP.
    SpanningTree = SpanningTree,
    /// LLDP (IEEE 802.1AB), ethertype 0x88cc.
    Lldp = Lldp,
    /// LACP and the other slow protocols (IEEE 802.3 annex 57A), ethertype 0x8809.
    Lacp = Lacp,
    /// 802.1X, ethertype 0x888e.
    Eapol = Eapol,
    /// PPPoE discovery (RFC 2516), ethertype 0x8863, and PPP's control protocols in a session (RFC 1661, 2), ethertype
    /// 0x8864. Rules decide IP packets in a session.
    Pppoe = Pppoe,
    /// Every other ethertype.
    Unknown = UnknownEthertype,
}

/// A frame of a class, reduced to the fields that the settings use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassFrame {
    /// The side on which the frame arrived.
    pub side: Side,
    /// The class.
    pub class: FrameClass,
    /// The addresses that the frame claims.
    pub claims: Claims,
    /// Whether all bytes after the packet are zero.
    pub is_padded_with_zeros: bool,
}

/// The addresses that a frame claims for its sender. Frames of other kinds claim none:
///
/// | frame                   | claimed addresses |
/// |-------------------------|----------------|
/// | ARP                     | the sender's address; a probe, whose sender is 0.0.0.0, claims its target (RFC 5227, 2.1.1) |
/// | neighbour solicitation  | the source; without one, the target, which the sender is about to use (RFC 4862, 5.4.3) |
/// | neighbour advertisement | source and target |
/// | router solicitation and advertisement | the source, if there is one |
/// | redirect                | the source, the target, whose link-layer address it states, and the destination, whose route it changes |
pub type Claims = [Option<IpAddr>; 3];

impl Settings {
    /// The verdict on a frame of a class. `admits` returns whether the rate of the class and side admits the frame, and
    /// counts it. It is called last, and only for a frame that all other checks forward.
    pub fn judge_frame(&self, frame: &ClassFrame, admits: impl FnOnce() -> bool) -> (Verdict, Reason) {
        let ClassFrame { side, class, claims, is_padded_with_zeros } = *frame;
        let drop = |reason| (Verdict::Drop, reason);
        if Verdict::from(self.frames.choice(class, side)) == Verdict::Drop {
            return drop(class.reason());
        }
        if class == FrameClass::Arp && self.frames.padding == Padding::Zero && !is_padded_with_zeros {
            return drop(Reason::ArpMalformed);
        }
        if side == Side::Outside && claims.into_iter().flatten().any(|address| self.is_inside_alone(address)) {
            return drop(if class == FrameClass::Arp { Reason::ArpClaim } else { Reason::NeighbourDiscoveryClaim });
        }
        if admits() { (Verdict::Forward, class.reason()) } else { drop(Reason::FrameClassRate) }
    }

    /// Whether the outside must not claim this address: it is protected and not among `outside-addresses`. A prefix of
    /// `protect` that both sides share does not count: the whole address space, and link-local networks.
    fn is_inside_alone(&self, address: IpAddr) -> bool {
        let covers =
            |nets: &[IpNet], counts: fn(&IpNet) -> bool| nets.iter().any(|net| counts(net) && net.contains(&address));
        covers(&self.protect, tells_sides_apart) && !covers(&self.frames.outside_addresses, |_| true)
    }
}

/// Whether the network distinguishes the two sides. Link-local networks do not: fe80::/10, of which hosts use the first
/// /64 (RFC 4291, 2.5.6), and 169.254.0.0/16 (RFC 3927).
fn tells_sides_apart(net: &IpNet) -> bool {
    let is_link_local_network = match net {
        IpNet::V4(net) => net.addr().is_link_local() && net.prefix_len() <= 16,
        IpNet::V6(net) => net.addr().is_unicast_link_local() && net.prefix_len() <= 64,
    };
    net.prefix_len() > 0 && !is_link_local_network
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Choice, FrameClasses, SideChoice};

    fn arp(side: Side, claims: &[&str]) -> ClassFrame {
        let mut frame = ClassFrame { side, class: FrameClass::Arp, claims: [None; 3], is_padded_with_zeros: true };
        for (place, claim) in frame.claims.iter_mut().zip(claims) {
            *place = Some(claim.parse().unwrap());
        }
        frame
    }

    fn protecting(nets: &[&str], outside: &[&str]) -> Settings {
        let parse = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
        let frames = FrameClasses { outside_addresses: parse(outside), ..FrameClasses::default() };
        Settings { protect: parse(nets), frames, ..Settings::default() }
    }

    const CLAIM: (Verdict, Reason) = (Verdict::Drop, Reason::ArpClaim);
    const PASSES: (Verdict, Reason) = (Verdict::Forward, Reason::Arp);

    #[test]
    fn the_outside_claims_no_protected_address() {
        let settings = protecting(&["192.0.2.0/24", "2001:db8::/64"], &["192.0.2.1/32"]);
        let judge = |side, claims: &[&str]| settings.judge_frame(&arp(side, claims), || true);
        assert_eq!(judge(Side::Outside, &["192.0.2.7"]), CLAIM);
        assert_eq!(judge(Side::Outside, &["198.51.100.1", "2001:db8::7"]), CLAIM, "any claimed address counts");
        assert_eq!(judge(Side::Outside, &["192.0.2.1"]), PASSES, "the outside's own address");
        assert_eq!(judge(Side::Outside, &["192.0.3.7"]), PASSES);
        assert_eq!(judge(Side::Outside, &[]), PASSES);
        assert_eq!(judge(Side::Inside, &["192.0.2.7"]), PASSES);
        let discovery = ClassFrame { class: FrameClass::NeighbourDiscovery, ..arp(Side::Outside, &["2001:db8::7"]) };
        assert_eq!(settings.judge_frame(&discovery, || true), (Verdict::Drop, Reason::NeighbourDiscoveryClaim));
    }

    #[test]
    fn prefixes_that_both_sides_share_are_not_addresses_of_the_inside() {
        let settings = protecting(&["0.0.0.0/0", "::/0", "fe80::/10", "169.254.0.0/16", "fe80::7/128"], &[]);
        let judge = |claim| settings.judge_frame(&arp(Side::Outside, &[claim]), || true);
        for shared in ["192.0.2.7", "2001:db8::7", "fe80::8", "169.254.1.1"] {
            assert_eq!(judge(shared), PASSES, "{shared}");
        }
        assert_eq!(judge("fe80::7"), CLAIM, "the address of one host is protected");
    }

    #[test]
    fn frames_that_are_dropped_anyway_use_up_no_rate() {
        let settings = protecting(&["192.0.2.0/24"], &[]);
        let never = || -> bool { panic!("the rate is asked") };
        let unpadded = ClassFrame { is_padded_with_zeros: false, ..arp(Side::Inside, &[]) };
        assert_eq!(settings.judge_frame(&unpadded, never), (Verdict::Drop, Reason::ArpMalformed));
        assert_eq!(settings.judge_frame(&arp(Side::Outside, &["192.0.2.7"]), never), CLAIM);
        let lldp = ClassFrame { class: FrameClass::Lldp, ..unpadded };
        assert_eq!(settings.judge_frame(&lldp, never), (Verdict::Drop, Reason::Lldp));
        let exceeded = settings.judge_frame(&arp(Side::Outside, &[]), || false);
        assert_eq!(exceeded, (Verdict::Drop, Reason::FrameClassRate));
    }

    #[test]
    fn settings_can_accept_any_padding_and_any_class_from_one_side() {
        let mut settings = Settings::default();
        settings.frames.padding = Padding::Any;
        settings.frames.redirect = SideChoice { outside: Choice::Accept, inside: Choice::Drop };
        let unpadded = ClassFrame { is_padded_with_zeros: false, ..arp(Side::Outside, &[]) };
        assert_eq!(settings.judge_frame(&unpadded, || true), PASSES);
        let redirect = |side| ClassFrame { class: FrameClass::Redirect, ..arp(side, &[]) };
        let verdict = |side| settings.judge_frame(&redirect(side), || true);
        assert_eq!(verdict(Side::Outside), (Verdict::Forward, Reason::Redirect));
        assert_eq!(verdict(Side::Inside), (Verdict::Drop, Reason::Redirect));
    }

    #[test]
    fn a_class_follows_from_its_reason() {
        for (index, class) in FrameClass::ALL.iter().enumerate() {
            assert!(class.index() == index && FrameClass::of(class.reason()) == Some(*class));
            assert!(class.reason().may_forward(), "{class:?}");
        }
        assert_eq!(FrameClass::of(Reason::ArpMalformed), None);
    }
}
