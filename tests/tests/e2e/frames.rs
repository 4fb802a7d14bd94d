//! Frames that pass without a rule, between real hosts: attacks by a stranger outside, and the needs of neighbours.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use etherparse::PacketBuilder;
use knockplane_tests::{CLIENT6, Filter, FilterOptions, Folder, Namespace, SERVER, SERVER6, Topology};

use crate::end::{End, LOCAL_EXPERIMENT};
use crate::scenario::{QUICK, eventually, ping, with};
use crate::tags::{CUSTOMER, Tag, speak_in_vlans};

type Mac = [u8; 6];

/// The MAC address of the stranger.
const STRANGER: Mac = [2, 0, 0, 0, 0, 0x66];
/// The MAC address of a host inside that is a neighbour of the server.
const NEIGHBOUR: Mac = [2, 0, 0, 0, 0, 0x09];
const BROADCAST: Mac = [0xff; 6];
const ROUTER: &str = "fe80::66";

/// A configuration with rules that accept nothing, and these sections.
fn closed(sections: &str) -> FilterOptions {
    FilterOptions { sections: sections.to_owned(), ..FilterOptions::from_rules(QUICK) }
}

fn v4(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().expect("an address").octets()
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().expect("an address").octets()
}

/// The stranger's ARP broadcast, without padding.
fn arp(operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let head = [&BROADCAST[..], &STRANGER, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    [&head[..], &STRANGER, &v4(sender), &[0; 6], &v4(target)].concat()
}

/// A message of the stranger with a right checksum, to a group or to a host's address.
fn icmpv6(hop_limit: u8, (source, destination): (&str, &str), kind: u8, flags: [u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let [.., a, b, c, d] = v6(destination);
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(STRANGER, [0x33, 0x33, a, b, c, d]);
    let message = ethernet.ipv6(v6(source), v6(destination), hop_limit).icmpv6_raw(kind, 0, flags);
    message.write(&mut frame, &content.concat()).expect("a frame");
    frame
}

/// The stranger announces itself as a default router for half an hour.
fn router_advertisement() -> Vec<u8> {
    let link_layer = [&[1, 1][..], &STRANGER].concat();
    icmpv6(255, (ROUTER, "ff02::1"), 134, [64, 0, 0x07, 0x08], &[&[0; 8], &link_layer])
}

/// The stranger announces this address.
fn neighbour_advertisement(hop_limit: u8, target: &str) -> Vec<u8> {
    let link_layer = [&[2, 1][..], &STRANGER].concat();
    icmpv6(hop_limit, (target, "ff02::1"), 136, [0x20, 0, 0, 0], &[&v6(target), &link_layer])
}

fn counted(filter: &Filter<'_>, verdict: &str, reason: &str) -> f64 {
    let labels = [&*format!("verdict=\"{verdict}\""), &*format!("reason=\"{reason}\"")];
    filter.metric("knockplane_packets_total", &labels).expect("a counter")
}

/// Waits until this number of frames has this verdict for this reason.
fn await_count(filter: &Filter<'_>, verdict: &str, reason: &str, frames: usize) {
    eventually(&format!("{frames} x {verdict}, {reason}"), || counted(filter, verdict, reason) >= frames as f64);
}

/// The server's default routes.
fn routes(topology: &Topology) -> String {
    topology.server.ip("-6 route show default").expect("routes")
}

/// Sets up IPv6 on both hosts, and a server that accepts router advertisements, as hosts do.
fn believe_routers(topology: &Topology) {
    topology.server.set("net/ipv6/conf/all/forwarding", "0").expect("a setting");
    topology.add_ipv6().expect("IPv6");
    topology.server.set("net/ipv6/conf/eth0/accept_ra", "1").expect("a setting");
}

#[test]
fn a_forged_router_advertisement_installs_no_default_route() {
    with(&closed(""), |topology, filter| {
        believe_routers(topology);
        let outside = End::open(&topology.client).expect("an end");
        for _ in 0..3 {
            outside.send(&router_advertisement()).expect("sent");
        }
        eventually("they are received", || {
            filter.metric("knockplane_rx_packets_total", &["side=\"outside\""]).expect("a counter") >= 3.0
        });
        // When a neighbour answers, earlier frames have reached the server.
        assert!(!ping(topology, ""), "the door is closed");
        assert_eq!(routes(topology), "", "the server uses the stranger's route");
        await_count(filter, "drop", "router-advertisement", 3);
    });
}

#[test]
fn a_router_outside_is_accepted_if_the_settings_allow_it() {
    let setting = "[policy.frames]\nrouter-advertisement = { outside = \"accept\", inside = \"drop\" }\n";
    with(&closed(setting), |topology, filter| {
        believe_routers(topology);
        let outside = End::open(&topology.client).expect("an end");
        eventually("the server has a default route", || {
            outside.send(&router_advertisement()).expect("sent");
            routes(topology).contains(&format!("default via {ROUTER} dev eth0"))
        });
        assert!(counted(filter, "forward", "router-advertisement") >= 1.0);
    });
}

/// Frames that must not arrive, with the reason.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let asked = arp(1, "10.77.0.66", SERVER);
    let told = arp(2, "10.77.0.66", SERVER);
    let with = |frame: &[u8], place: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[place..place + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let followed = |frame: &[u8], bytes: &[u8]| [frame, bytes].concat();
    let claim = neighbour_advertisement(255, "fd77::66");
    let arp = [
        followed(&asked, b"a message inwards!"),
        followed(&told, &[0; 19]),
        followed(&asked, &[b'x'; 1400]),
        asked[..41].to_vec(),
        with(&asked, 18, &[8]),
        with(&asked, 20, &[0, 9]),
        with(&asked, 6, &NEIGHBOUR),
        with(&asked, 32, b"secret"),
        with(&asked, 28, &[224, 0, 0, 1]),
        followed(&[&asked[..12], &[0x81, 0, 0, 7], &asked[12..]].concat(), &[0; 19]),
    ];
    let options = [&[200, 25][..], &[b'x'; 198]].concat();
    let discovery = [
        neighbour_advertisement(64, "fd77::66"),
        with(&claim, 56, &[claim[56] ^ 1]),
        with(&claim, 55, &[1]),
        followed(&claim, b"a message inwards"),
        icmpv6(255, ("fd77::66", "ff02::1"), 136, [0x20, 0, 0, 0], &[&v6("fd77::66"), &options]),
        icmpv6(255, ("fd77::66", "ff02::1"), 136, [0x20, 0, 0, 0], &[&v6("fd77::66"), &[2, 0, 0, 0, 0, 0, 0, 0]]),
        icmpv6(255, ("fd77::66", "ff02::1"), 136, [0x60, 0, 0, 0], &[&v6("fd77::66")]),
        icmpv6(255, ("fd77::66", "ff02::1"), 136, [0x20, b'a', b'b', b'c'], &[&v6("fd77::66")]),
        icmpv6(255, ("::", "ff02::1:ff00:2"), 135, [0; 4], &[&v6(SERVER6), &[1, 1, 2, 0, 0, 0, 0, 0x66]]),
        icmpv6(255, ("fd77::66", "ff02::1"), 134, [64, 0, 7, 8], &[&[0; 8]]),
    ];
    let arp = arp.into_iter().map(|frame| ("arp-malformed", frame));
    arp.chain(discovery.into_iter().map(|frame| ("neighbour-discovery-malformed", frame))).collect()
}

/// Frames of neighbours that must arrive.
fn well_formed() -> Vec<Vec<u8>> {
    let asked = arp(1, "10.77.0.66", SERVER);
    let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    let claim = neighbour_advertisement(255, "fd77::66");
    vec![
        asked.clone(),
        [&asked[..], &[0; 18]].concat(),
        tagged(&asked),
        [tagged(&asked), vec![0; 18]].concat(),
        arp(1, "0.0.0.0", "10.77.0.66"),
        arp(2, "10.77.0.66", "10.77.0.66"),
        tagged(&claim),
        claim,
        icmpv6(255, ("::", "ff02::1:ff00:66"), 135, [0; 4], &[&v6("fd77::66"), &[14, 1, 1, 2, 3, 4, 5, 6]]),
        icmpv6(255, ("fe80::66", "ff02::2"), 133, [0; 4], &[&[1, 1], &STRANGER]),
    ]
}

#[test]
fn frames_of_neighbours_arrive_and_malformed_ones_do_not() {
    // The rules accept everything: malformed frames must not reach them.
    let rules = "/ip firewall filter\nadd chain=input\n/ipv6 firewall filter\nadd chain=input protocol=icmpv6\nadd chain=input\n";
    let sections = "[policy.frames]\nunknown = \"accept\"\n";
    let options = FilterOptions { sections: sections.to_owned(), ..FilterOptions::from_rules(rules) };
    with(&options, |topology, filter| {
        let outside = End::open(&topology.client).expect("an end");
        let mut inside = End::open(&topology.server).expect("an end");
        let end_mark = [&BROADCAST[..], &STRANGER, &LOCAL_EXPERIMENT, &[0x6b; 46]].concat();
        // The kernel delivers a frame without its outer tag.
        let shown = |frame: &Vec<u8>| match frame[12..14] {
            [0x81, 0] => [&frame[..12], &frame[16..]].concat(),
            _ => frame.clone(),
        };
        let mut arrived = |frames: &[Vec<u8>]| {
            let expected: Vec<_> = frames.iter().map(shown).collect();
            for frame in frames.iter().chain([&end_mark]) {
                outside.send(frame).expect("sent");
            }
            let mut room = vec![0; 4096];
            let mut arrived = Vec::new();
            loop {
                let frame = inside.next(&mut room).expect("the end mark arrives").to_vec();
                if frame == end_mark {
                    return arrived;
                }
                if expected.contains(&frame) {
                    arrived.push(frame);
                }
            }
        };
        let right = well_formed();
        assert_eq!(arrived(&right), right.iter().map(shown).collect::<Vec<_>>());
        let malformed = malformed();
        let frames: Vec<Vec<u8>> = malformed.iter().map(|(_, frame)| frame.clone()).collect();
        assert_eq!(arrived(&frames), Vec::<Vec<u8>>::new(), "frames that no neighbour sends");
        for reason in ["arp-malformed", "neighbour-discovery-malformed"] {
            let frames = malformed.iter().filter(|(why, _)| *why == reason).count();
            await_count(filter, "drop", reason, frames);
            assert_eq!(counted(filter, "drop", reason), frames as f64, "{reason}");
        }
    });
}

#[test]
fn a_claim_from_outside_changes_no_neighbour_of_the_inside() {
    let protect =
        format!("[policy]\nprotect = [\"{SERVER}/32\", \"10.77.0.9/32\", \"{SERVER6}/128\", \"fd77::9/128\"]\n");
    with(&closed(&protect), |topology, filter| {
        topology.add_ipv6().expect("IPv6");
        // Otherwise the kernel ignores announcements for a second after a change.
        topology.server.set("net/ipv4/neigh/eth0/locktime", "0").expect("a setting");
        let known = "lladdr 02:00:00:00:00:09 dev eth0 nud reachable";
        for address in ["10.77.0.9", "fd77::9", "10.77.0.8", "fd77::8"] {
            topology.server.ip(&format!("neigh replace {address} {known}")).expect("a neighbour");
        }
        let neighbour = |address: &str| topology.server.ip(&format!("neigh show {address}")).expect("neighbours");
        let is_strangers = |address: &str| neighbour(address).contains("02:00:00:00:00:66");
        let outside = End::open(&topology.client).expect("an end");
        // The server accepts announcements of an outside address.
        eventually("the server accepts announcements", || {
            for frame in [arp(2, "10.77.0.8", SERVER), neighbour_advertisement(255, "fd77::8")] {
                outside.send(&frame).expect("sent");
            }
            is_strangers("10.77.0.8") && is_strangers("fd77::8")
        });
        // Announcements of an inside address do not arrive, in any form.
        let solicitation = icmpv6(255, ("fd77::9", "ff02::1:ff00:2"), 135, [0; 4], &[&v6(SERVER6), &[1, 1], &STRANGER]);
        let claims = [
            (arp(2, "10.77.0.9", SERVER), "arp-claim"),
            (arp(1, "10.77.0.9", "10.77.0.9"), "arp-claim"),
            (arp(1, "10.77.0.9", SERVER), "arp-claim"),
            (arp(1, "0.0.0.0", SERVER), "arp-claim"),
            (neighbour_advertisement(255, "fd77::9"), "neighbour-discovery-claim"),
            (solicitation, "neighbour-discovery-claim"),
        ];
        for (frame, _) in &claims {
            outside.send(frame).expect("sent");
        }
        eventually("claims are neither counted nor refused", || {
            let counts = || ["arp-claim", "neighbour-discovery-claim"].map(|reason| counted(filter, "drop", reason));
            is_strangers("10.77.0.9") || is_strangers("fd77::9") || counts() == [4.0, 2.0]
        });
        for address in ["10.77.0.9", "fd77::9"] {
            assert!(neighbour(address).contains("02:00:00:00:00:09"), "{}", neighbour(address));
        }
        // The client still learns the server's own address.
        assert!(!ping(topology, ""), "the door is closed");
        let server = topology.client.ip(&format!("neigh show {SERVER}")).expect("neighbours");
        assert!(server.contains("lladdr"), "{server}");
    });
}

fn find_each_other(tags: &[Tag]) {
    let open = "/ip firewall filter\nadd chain=input\n/ipv6 firewall filter\nadd chain=input\n";
    let protect = format!("[policy]\nprotect = [\"{SERVER}/32\", \"{SERVER6}/128\"]\n");
    with(&FilterOptions { sections: protect, ..FilterOptions::from_rules(open) }, |topology, filter| {
        let reaches = |host: &Namespace, address: &str| {
            host.run(&format!("ping -n -c 1 -W 1 {address}")).expect("ping can be run").ok()
        };
        if !tags.is_empty() {
            let folder = Folder::make(&format!("{}-tags", topology.filter.name())).expect("a folder");
            speak_in_vlans(&topology.client, tags, &folder.0);
            assert!(!reaches(&topology.client, SERVER), "the server is in no VLAN yet");
            speak_in_vlans(&topology.server, tags, &folder.0);
        }
        for host in [&topology.client, &topology.server] {
            host.set("net/ipv6/conf/eth0/disable_ipv6", "0").expect("a setting");
        }
        // The address is added with duplicate address detection, as on a normal host.
        topology.client.ip(&format!("addr add {CLIENT6}/64 dev eth0")).expect("an address");
        topology.server.ip(&format!("addr add {SERVER6}/64 dev eth0")).expect("an address");
        for (host, address) in [(&topology.client, SERVER), (&topology.client, SERVER6), (&topology.server, CLIENT6)] {
            eventually(&format!("{address} is reached"), || reaches(host, address));
            let neighbour = host.ip(&format!("neigh show {address}")).expect("neighbours");
            assert!(neighbour.contains("lladdr"), "{neighbour}");
        }
        assert!(counted(filter, "forward", "arp") >= 2.0 && counted(filter, "forward", "neighbour-discovery") >= 2.0);
        for reason in ["arp-malformed", "arp-claim", "neighbour-discovery-malformed", "neighbour-discovery-claim"] {
            assert_eq!(counted(filter, "drop", reason), 0.0, "{reason}: real hosts send no such thing");
        }
        for host in [&topology.client, &topology.server] {
            let addresses = host.ip("-6 addr show").expect("addresses");
            assert!(!addresses.contains("dadfailed"), "{addresses}");
        }
    });
}

#[test]
fn neighbours_find_each_other() {
    find_each_other(&[]);
}

#[test]
fn neighbours_find_each_other_in_a_vlan_and_in_two() {
    find_each_other(&[(CUSTOMER, 7)]);
    find_each_other(&[(CUSTOMER, 8), (CUSTOMER, 7)]);
}

#[test]
fn the_rate_of_a_class_holds_and_is_counted() {
    const SENT: usize = 2000;
    const RATE: usize = 100;
    with(&closed(&format!("[policy.frames]\nrate = {RATE}\n")), |topology, filter| {
        let outside = End::open(&topology.client).expect("an end");
        let begin = Instant::now();
        for number in 0..SENT {
            outside.send(&arp(1, &format!("10.77.1.{}", number % 250 + 1), "10.77.2.1")).expect("sent");
        }
        let counts = || [counted(filter, "forward", "arp"), counted(filter, "drop", "frame-class-rate")];
        eventually("all are decided", || counts().iter().sum::<f64>() >= SENT as f64);
        let [passed, dropped] = counts();
        let most = RATE as f64 * (1.0 + begin.elapsed().as_secs_f64());
        assert!(passed >= RATE as f64 && passed <= most + 1.0, "{passed} of {SENT} passed, {most} may");
        assert!(dropped > 0.0);
        // The inside has a separate rate: its ARP passes at once.
        let inside = End::open(&topology.server).expect("an end");
        inside.send(&arp(1, "10.77.2.1", "10.77.2.2")).expect("sent");
        eventually("ARP from inside passes", || counted(filter, "forward", "arp") > passed);
    });
}
