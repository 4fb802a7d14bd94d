//! ARP and IPv6 neighbour discovery: well-formed frames, and frames that the reader refuses.
//!
//! [`oracle`] compares the readers with a second implementation; [`decided`] tests the engine's decisions about such
//! frames.

pub(crate) mod build;
mod decisions;
pub(crate) mod oracle;

use knockplane_engine::headers::{max_frame, read};
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Reason;

use self::build::{Arp, BROADCAST, Discovery, INSIDE_MAC, OUTSIDE_MAC, VLAN, link_layer, v6};

const CLIENT: &str = "2001:db8::7";
const ROUTER: &str = "fe80::1";
const SERVER: &str = "2001:db8::5";

/// The reason that the reader gives for a frame; `None` if it is a packet for rules.
fn reason(frame: &[u8]) -> Option<Reason> {
    let reasons = Side::ALL.map(|side| read(side, frame, max_frame(1500)).err());
    assert_eq!(reasons[0], reasons[1], "the reader asks for no side");
    reasons[0]
}

/// A copy with one change.
fn with<T: Clone>(base: &T, change: impl FnOnce(&mut T)) -> T {
    let mut changed = base.clone();
    change(&mut changed);
    changed
}

#[test]
fn arp_that_hosts_send_has_its_class() {
    let request = Arp::request("192.0.2.7", "192.0.2.5");
    let reply = Arp::reply("192.0.2.7", "192.0.2.5");
    let frames = [
        request.clone(),
        reply.clone(),
        // Without padding, as on a virtual interface; padded in front of and behind a tag.
        with(&request, |arp| arp.padding.clear()),
        with(&request, |arp| (arp.tags, arp.padding) = (vec![VLAN], vec![0; 14])),
        with(&request, |arp| arp.tags = vec![VLAN]),
        with(&reply, |arp| arp.tags = vec![VLAN, VLAN]),
        // A probe and its answer, announcements, a poll of one host, an answer to the broadcast address.
        Arp::request("0.0.0.0", "192.0.2.7"),
        Arp::reply("192.0.2.7", "0.0.0.0"),
        Arp::request("192.0.2.7", "192.0.2.7"),
        with(&Arp::reply("192.0.2.7", "192.0.2.7"), |arp| (arp.to, arp.target.0) = (BROADCAST, BROADCAST)),
        with(&Arp::reply("192.0.2.7", "192.0.2.7"), |arp| (arp.to, arp.target.0) = (BROADCAST, OUTSIDE_MAC)),
        with(&request, |arp| (arp.to, arp.target.0) = (INSIDE_MAC, INSIDE_MAC)),
        with(&request, |arp| arp.target.0 = BROADCAST),
        with(&reply, |arp| arp.to = BROADCAST),
    ];
    for arp in frames {
        assert_eq!(reason(&arp.frame()), Some(Reason::Arp), "{arp:?}");
    }
}

#[test]
fn arp_that_no_host_sends_is_malformed() {
    let request = Arp::request("192.0.2.7", "192.0.2.5");
    let reply = Arp::reply("192.0.2.7", "192.0.2.5");
    let address = |text: &str| text.parse().unwrap();
    let mut frames = vec![
        // Lengths: bytes behind the packet, or a truncated packet.
        with(&request, |arp| arp.padding = vec![0; 19]),
        with(&request, |arp| arp.padding = vec![0; 1400]),
        with(&request, |arp| (arp.tags, arp.padding) = (vec![VLAN], vec![0; 19])),
        // Other hardware, protocols, lengths and operations.
        with(&request, |arp| arp.types[1] = 6),
        with(&request, |arp| arp.types[2..4].copy_from_slice(&[0x86, 0xdd])),
        with(&request, |arp| arp.types[4] = 8),
        with(&request, |arp| arp.types[5] = 16),
        with(&request, |arp| arp.operation = 0),
        with(&request, |arp| arp.operation = 3),
        with(&request, |arp| arp.operation = 0x101),
        // A sender that differs from the frame's source, or is no station.
        with(&request, |arp| arp.sender.0 = INSIDE_MAC),
        with(&request, |arp| arp.from = INSIDE_MAC),
        with(&request, |arp| (arp.from, arp.sender.0) = ([3, 0, 0, 0, 0, 1], [3, 0, 0, 0, 0, 1])),
        with(&request, |arp| (arp.from, arp.sender.0) = ([0; 6], [0; 6])),
        with(&request, |arp| (arp.from, arp.sender.0) = (BROADCAST, BROADCAST)),
        // A frame to a group other than broadcast, and target MACs that no host writes.
        with(&request, |arp| arp.to = [0x01, 0, 0x5e, 0, 0, 1]),
        with(&request, |arp| arp.target.0 = *b"secret"),
        with(&reply, |arp| arp.target.0 = *b"secret"),
        with(&reply, |arp| (arp.to, arp.target.0) = (BROADCAST, *b"Secret")),
        Arp::reply("0.0.0.0", "192.0.2.5"),
        Arp::request("0.0.0.0", "0.0.0.0"),
    ];
    for wrong in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        frames.push(with(&request, |arp| arp.target.1 = address(wrong)));
        if wrong != "0.0.0.0" {
            frames.push(with(&request, |arp| arp.sender.1 = address(wrong)));
            frames.push(with(&reply, |arp| arp.sender.1 = address(wrong)));
            frames.push(with(&reply, |arp| arp.target.1 = address(wrong)));
        }
    }
    for arp in frames {
        assert_eq!(reason(&arp.frame()), Some(Reason::ArpMalformed), "{arp:?}");
    }
    let whole = with(&request, |arp| arp.padding.clear()).frame();
    for length in 14..whole.len() {
        assert_eq!(reason(&whole[..length]), Some(Reason::ArpMalformed), "{length} bytes");
    }
}

/// A message of each kind, as hosts and routers send them.
fn messages() -> Vec<(Discovery, Reason)> {
    let neighbours = [
        Discovery::router_solicitation("::"),
        Discovery::router_solicitation("fe80::7"),
        Discovery::solicitation(CLIENT, SERVER),
        Discovery::solicitation("::", CLIENT),
        // A probe whether a neighbour is reachable.
        with(&Discovery::solicitation(CLIENT, SERVER), |message| {
            (message.to, message.destination) = (INSIDE_MAC, v6(SERVER))
        }),
        Discovery::advertisement(CLIENT, SERVER, CLIENT),
        Discovery::advertisement(CLIENT, "ff02::1", CLIENT),
        // Announces a new address to routers.
        Discovery::advertisement(CLIENT, "ff02::2", CLIENT),
        // A proxy advertises the address of another host.
        Discovery::advertisement("fe80::9", SERVER, CLIENT),
    ];
    let to_one = Discovery { to: INSIDE_MAC, destination: v6("fe80::5"), ..Discovery::router_advertisement(ROUTER) };
    let advertisements = [Discovery::router_advertisement(ROUTER), to_one];
    let redirects = [
        Discovery::redirect(ROUTER, SERVER, "fe80::2", "2001:db8:1::1"),
        Discovery::redirect(ROUTER, SERVER, "2001:db8::9", "2001:db8::9"),
    ];
    let of = |reason| move |message| (message, reason);
    let neighbours = neighbours.into_iter().map(of(Reason::NeighbourDiscovery));
    let advertisements = advertisements.into_iter().map(of(Reason::RouterAdvertisement));
    neighbours.chain(advertisements).chain(redirects.into_iter().map(of(Reason::Redirect))).collect()
}

#[test]
fn neighbour_discovery_that_hosts_send_has_its_class() {
    for (message, class) in messages() {
        assert_eq!(reason(&message.frame()), Some(class), "{message:?}");
        for tags in [vec![VLAN], vec![[0x88, 0xa8, 0, 8], VLAN]] {
            assert_eq!(reason(&Discovery { tags, ..message.clone() }.frame()), Some(class), "{message:?}");
        }
        // A multicast packet to one station, as access points send it.
        assert_eq!(reason(&Discovery { to: INSIDE_MAC, ..message.clone() }.frame()), Some(class), "{message:?}");
        // No option, and an unknown option.
        assert_eq!(reason(&Discovery { options: vec![], ..message.clone() }.frame()), Some(class), "{message:?}");
        let unknown = Discovery { options: [vec![253, 2], vec![7; 14]].concat(), ..message.clone() };
        assert_eq!(reason(&unknown.frame()), Some(class), "{message:?}");
    }
}

#[test]
fn what_no_message_has_is_malformed_in_each_of_them() {
    for (message, _) in messages() {
        let option = |bytes: &[u8]| with(&message, |message| message.options.extend(bytes));
        let extension =
            |number: u8, bytes: &[u8]| with(&message, |message| message.extensions = (number, bytes.to_vec()));
        let changed = [
            with(&message, |message| message.hop_limit = 254),
            with(&message, |message| message.hop_limit = 64),
            with(&message, |message| message.code = 1),
            with(&message, |message| message.checksum_error = 1),
            with(&message, |message| message.checksum_error = 0x8000),
            // No extension header may precede the message, and no bytes may follow it.
            extension(0, &[58, 0, 5, 2, 0, 0, 1, 0]),
            extension(60, &[58, 0, 1, 4, 0, 0, 0, 0]),
            extension(44, &[58, 0, 0, 0, 0, 0, 0, 1]),
            with(&message, |message| message.behind = vec![0]),
            with(&message, |message| message.behind = vec![0; 400]),
            // Options: an option of length 0, an incomplete one, and known ones of another length.
            option(&[0, 0]),
            option(&[1, 0, 0, 0, 0, 0, 0, 0]),
            option(&[253, 2, 0, 0, 0, 0, 0, 0]),
            option(&[253]),
            option(&[1, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            option(&link_layer(2, [3, 0, 0, 0, 0, 1])),
            option(&link_layer(2, [0; 6])),
            option(&[&[3, 1][..], &[0; 6]].concat()),
            option(&[&[5, 2][..], &[0; 14]].concat()),
            option(&[&[4, 5][..], &[0; 38]].concat()),
            // Wrong addresses in the Ethernet header.
            with(&message, |message| message.from = [3, 0, 0, 0, 0, 1]),
            with(&message, |message| message.from = [0; 6]),
            with(&message, |message| message.to = BROADCAST),
            with(&message, |message| message.to = [0x33, 0x33, 9, 9, 9, 9]),
            with(&message, |message| message.source = v6("ff02::1")),
            with(&message, |message| message.source = v6("::1")),
            with(&message, |message| (message.to, message.destination) = (INSIDE_MAC, v6("::"))),
            with(&message, |message| message.destination = v6("ff05::1:3")),
        ];
        for message in changed {
            assert_eq!(reason(&message.frame()), Some(Reason::NeighbourDiscoveryMalformed), "{message:?}");
        }
        let mut fixed = message.clone();
        fixed.options.clear();
        while fixed.fixed.len() > 4 {
            fixed.fixed.pop();
            assert_eq!(reason(&fixed.frame()), Some(Reason::NeighbourDiscoveryMalformed), "{fixed:?}");
        }
    }
}

#[test]
fn what_its_kind_forbids_is_malformed() {
    let solicitation = Discovery::solicitation(CLIENT, SERVER);
    let detection = Discovery::solicitation("::", CLIENT);
    let advertisement = Discovery::advertisement(CLIENT, SERVER, CLIENT);
    let redirect = Discovery::redirect(ROUTER, SERVER, "fe80::2", "2001:db8:1::1");
    let target = |message: &Discovery, text: &str| {
        with(message, |message| message.fixed[4..20].copy_from_slice(&v6(text).octets()))
    };
    let group = |message: &Discovery, text: &str| {
        let [.., a, b, c, d] = v6(text).octets();
        with(message, |message| (message.to, message.destination) = ([0x33, 0x33, a, b, c, d], v6(text)))
    };
    let reserved = |message: &Discovery, at: usize, bits: u8| with(message, |message| message.fixed[at] |= bits);
    let frames = [
        target(&group(&solicitation, "ff02::1:ff00:1"), "ff02::1"),
        target(&solicitation, "2001:db8::6"),
        target(&advertisement, "ff02::1"),
        target(&advertisement, "::"),
        target(&redirect, "2001:db8::9"),
        target(&redirect, "ff02::9"),
        // The destination is all nodes, the group of another target, or another host than the target.
        group(&solicitation, "ff02::1"),
        group(&solicitation, "ff02::1:ff00:6"),
        with(&solicitation, |message| (message.to, message.destination) = (INSIDE_MAC, v6("2001:db8::6"))),
        // Duplicate address detection sends to a group, and has no link-layer address to announce.
        with(&detection, |message| (message.to, message.destination) = (INSIDE_MAC, v6(CLIENT))),
        with(&detection, |message| message.options = link_layer(1, OUTSIDE_MAC)),
        with(&Discovery::router_solicitation("::"), |message| message.options = link_layer(1, OUTSIDE_MAC)),
        group(&Discovery::router_solicitation("fe80::7"), "ff02::1"),
        // A solicited answer to all nodes, which no host can have solicited.
        with(&Discovery::advertisement(CLIENT, "ff02::1", CLIENT), |message| message.fixed[0] |= 0x40),
        with(&advertisement, |message| message.source = v6("::")),
        group(&Discovery::advertisement(CLIENT, "ff02::1", CLIENT), "ff02::1:ff00:5"),
        // Routers send from their link-local address.
        Discovery::router_advertisement("2001:db8::1"),
        Discovery::router_advertisement("::"),
        group(&Discovery::router_advertisement(ROUTER), "ff02::2"),
        Discovery::redirect("2001:db8::1", SERVER, "fe80::2", "2001:db8:1::1"),
        Discovery::redirect(ROUTER, SERVER, "fe80::2", "ff02::1"),
        Discovery::redirect(ROUTER, "ff02::1", "fe80::2", "2001:db8:1::1"),
        // Reserved bits.
        reserved(&Discovery::router_solicitation("fe80::7"), 0, 1),
        reserved(&solicitation, 3, 1),
        reserved(&solicitation, 0, 0x80),
        reserved(&advertisement, 0, 0x10),
        reserved(&advertisement, 2, 1),
        reserved(&redirect, 1, 1),
    ];
    for message in frames {
        assert_eq!(reason(&message.frame()), Some(Reason::NeighbourDiscoveryMalformed), "{message:?}");
    }
}

#[test]
fn the_length_of_options_is_bounded() {
    let option = |units: u8| [&[253, units][..], &vec![7; usize::from(units) * 8 - 2]].concat();
    let bounded = |message: Discovery, most: usize, class: Reason| {
        let longest = with(&message, |message| message.options = option((most / 8) as u8));
        assert_eq!(reason(&longest.frame()), Some(class), "{most} bytes of options");
        let longer = with(&message, |message| message.options = option((most / 8 + 1) as u8));
        assert_eq!(reason(&longer.frame()), Some(Reason::NeighbourDiscoveryMalformed), "{most} bytes and 8 more");
    };
    bounded(Discovery::router_solicitation("fe80::7"), 32, Reason::NeighbourDiscovery);
    bounded(Discovery::solicitation(CLIENT, SERVER), 32, Reason::NeighbourDiscovery);
    bounded(Discovery::advertisement(CLIENT, SERVER, CLIENT), 32, Reason::NeighbourDiscovery);
    bounded(Discovery::router_advertisement(ROUTER), 1280 - 40 - 16, Reason::RouterAdvertisement);
    bounded(Discovery::redirect(ROUTER, SERVER, "fe80::2", "2001:db8:1::1"), 1280 - 40 - 40, Reason::Redirect);
}

#[test]
fn fragments_and_other_messages_of_icmpv6() {
    // A first fragment that begins with a message, and one whose message only begins in the next.
    let solicitation = Discovery::solicitation(CLIENT, SERVER);
    let first = with(&solicitation, |message| message.extensions = (44, vec![58, 0, 0, 1, 0, 0, 0, 1]));
    assert_eq!(reason(&first.frame()), Some(Reason::NeighbourDiscoveryMalformed));
    let hidden = with(&solicitation, |message| {
        message.extensions = (44, vec![60, 0, 0, 1, 0, 0, 0, 1]);
        (message.kind, message.code) = (58, 5);
    });
    assert!(
        reason(&hidden.frame()).is_some_and(|reason| !reason.may_forward()),
        "the header chain ends in the fragment"
    );
    // Multicast listeners, echo, inverse discovery: packets for rules.
    for kind in [128, 130, 131, 132, 138, 141, 143] {
        assert_eq!(reason(&with(&solicitation, |message| message.kind = kind).frame()), None, "type {kind}");
    }
    assert_eq!(
        reason(
            &with(&solicitation, |message| (message.kind, message.fixed, message.options) = (135, vec![], vec![]))
                .frame()
        ),
        Some(Reason::TransportTruncated)
    );
}
