//! Knocks that open, and knocks that do not.

use std::fs;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use etherparse::PacketBuilder;
use knockplane_generator::LiveFrames;
use knockplane_ring::Device;
use knockplane_tests::{CLIENT, Filter, FilterOptions, Process, SERVER, Topology, VISITOR, binary};

use crate::scenario::{QUICK, client, eventually, knock, listed, ping, serve_tcp, tcp_echo, with, with_queues};

fn two_ports() -> FilterOptions {
    FilterOptions::from_configs("two-ports.rsc").expect("configs/two-ports.rsc")
}

fn knocker(topology: &Topology, arguments: &str) {
    let knocker = binary("knocker").expect("knocker is built");
    client(topology, &format!("{} {arguments}", knocker.display()));
}

/// Knocks, and waits until the filter has decided every packet of the knock.
fn decided(filter: &Filter<'_>, steps: &str, knock: impl FnOnce()) {
    let hits = steps.split_whitespace().count() as f64;
    let dropped = || filter.metric("knockplane_packets_total", &["verdict=\"drop\""]).expect("a counter");
    let before = dropped();
    knock();
    eventually(&format!("{steps} is decided"), || dropped() >= before + hits);
}

#[test]
fn nothing_passes_until_the_right_knock_opens_the_door() {
    with(&two_ports(), |topology, filter| {
        serve_tcp(topology, 8080);
        assert!(!ping(topology, "") && !tcp_echo(topology, 8080), "closed at first");
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, "") && tcp_echo(topology, 8080), "open after the knock");
        assert!(listed(filter, "temporary", CLIENT) && listed(filter, "secured", CLIENT));
    });
}

#[test]
fn wrong_order_wrong_protocol_and_half_a_knock_open_nothing() {
    with(&two_ports(), |topology, filter| {
        for steps in ["4321:tcp 1234:tcp", "1234:udp 4321:udp", "1234:tcp", "1234:tcp 4322:tcp", "4321:tcp"] {
            // Removes the progress of an earlier line, which could complete the next knock.
            let _ = filter.knockctl(&["list", "remove", "temporary", CLIENT]);
            decided(filter, steps, || knock(topology, steps));
            assert!(!listed(filter, "secured", CLIENT), "secured after {steps}");
        }
        assert!(!ping(topology, ""));
    });
}

#[test]
fn a_late_second_step_opens_nothing_and_the_door_closes_by_itself() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        knock(topology, "1234:tcp");
        eventually("the entry of temporary expires", || !listed(filter, "temporary", CLIENT));
        knock(topology, "4321:tcp");
        assert!(!listed(filter, "secured", CLIENT) && !ping(topology, ""));

        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, ""), "open");
        eventually("the entry of secured expires", || !listed(filter, "secured", CLIENT));
        assert!(!ping(topology, ""), "closed again");
    });
}

#[test]
fn steps_of_two_sources_open_for_neither() {
    with(&two_ports(), |topology, filter| {
        // One source sends the first step, another one the second.
        knock(topology, "1234:tcp");
        let from_visitor = format!("nc -z -w 1 -s {VISITOR} {SERVER} 4321");
        let _ = topology.client.run(&from_visitor).expect("nc can be run");
        assert!(!listed(filter, "secured", CLIENT) && !listed(filter, "secured", VISITOR));
        knock(topology, "4321:tcp");
        assert!(ping(topology, &format!("-I {CLIENT}")));
        assert!(!ping(topology, &format!("-I {VISITOR}")));
    });
}

#[test]
fn passphrases_open_only_when_right_and_in_order() {
    let options = FilterOptions::from_configs("passphrases.rsc").expect("configs/passphrases.rsc");
    with(&options, |topology, filter| {
        let (first, second) = ("1234:udp=supersecretpassword1", "4321:udp=supersecretpassword2");
        for steps in [
            format!("{second} {first}"),
            "1234:udp 4321:udp".to_owned(),
            format!("1234:udp=xsupersecretpassword1 {second}"),
            format!("1234:udp=supersecretpassword1! {second}"),
            "1234:udp=supersecretpassword2 4321:udp=supersecretpassword1".to_owned(),
            "1234:tcp 4321:tcp".to_owned(),
        ] {
            let _ = filter.knockctl(&["list", "remove", "temporary", CLIENT]);
            decided(filter, &steps, || knocker(topology, &format!("{SERVER} {steps}")));
            assert!(!listed(filter, "secured", CLIENT), "secured after {steps}");
        }
        // A layer-7 pattern ignores case.
        knocker(topology, &format!("{SERVER} 1234:udp=SuperSecretPassword1 {second}"));
        eventually("the right passphrases open", || listed(filter, "secured", CLIENT));
        assert!(ping(topology, ""));
    });
}

#[test]
fn icmp_of_the_right_size_is_a_knock() {
    let rules = "/ip firewall filter
add action=add-src-to-address-list address-list=secured address-list-timeout=1m chain=input protocol=icmp \
    icmp-options=8:0 packet-size=128
add action=accept chain=input src-address-list=secured
add action=drop chain=input
";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        let steps = "icmp=127 icmp=129 icmp";
        decided(filter, steps, || knocker(topology, &format!("{SERVER} {steps}")));
        assert!(!listed(filter, "secured", CLIENT));
        knocker(topology, &format!("{SERVER} icmp=128"));
        eventually("the right size opens", || listed(filter, "secured", CLIENT));
    });
}

/// Uses rules that accept pings, as RouterOS's default rules do: requests with the same identifier would be one
/// connection, and only the first one would be a knock.
#[test]
fn a_knock_of_several_pings_opens_although_pings_are_answered() {
    let rules = "/ip firewall filter
add action=accept chain=input connection-state=established,related
add action=add-src-to-address-list address-list=one address-list-timeout=30s chain=input packet-size=140 protocol=icmp
add action=add-src-to-address-list address-list=two address-list-timeout=30s chain=input packet-size=240 protocol=icmp \
    src-address-list=one
add action=add-src-to-address-list address-list=secured address-list-timeout=1m chain=input packet-size=340 \
    protocol=icmp src-address-list=two
add action=accept chain=input protocol=icmp
add action=drop chain=input
";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        knocker(topology, &format!("{SERVER} icmp=140 icmp=240 icmp=340"));
        eventually("three pings open", || listed(filter, "secured", CLIENT));
    });
}

#[test]
fn knocker_runs_a_command_once_the_door_is_open() {
    with(&two_ports(), |topology, _| {
        serve_tcp(topology, 8080);
        let then = format!("--then ping -n -c 1 -W 1 {SERVER}");
        knocker(topology, &format!("--wait-port 8080 {SERVER} 1234 4321:tcp {then}"));
    });
}

#[test]
fn a_knock_in_a_vlan_opens_and_traffic_keeps_its_tags() {
    with(&two_ports(), |topology, filter| {
        let send = |tags: &[u16], transport: Transport| {
            topology.client.within(|| {
                // Sends one frame at a time, because the order is part of the knock.
                Ok(LiveFrames::new(&Device::open("eth0")?)?.send(&frame(tags, transport), 1)?)
            })
        };
        for (tags, source) in [(&[7][..], VLAN_SOURCE), (&[7, 8], QINQ_SOURCE)] {
            assert!(!listed(filter, "secured", source));
            send(tags, Transport::Syn(1234)).expect("sent");
            eventually("the first step counts", || listed(filter, "temporary", source));
            send(tags, Transport::Syn(4321)).expect("sent");
            eventually("the second step opens", || listed(filter, "secured", source));
        }

        // The frames on the server's side in the output of tcpdump.
        let log = filter.path("tcpdump.log");
        let mut command = topology.server.command("tcpdump");
        command.args(["-n", "-e", "-l", "-i", "eth0", "vlan", "7"]);
        let _tcpdump = Process::start("tcpdump", &mut command, &log).expect("tcpdump is installed");
        let seen = || fs::read_to_string(&log).unwrap_or_default();
        eventually("tcpdump listens", || seen().contains("listening on"));
        for (tags, expected) in [(&[7][..], "vlan 7, p 0, ethertype IPv4"), (&[7, 8], "vlan 8, p 0, ethertype IPv4")] {
            send(tags, Transport::Udp(9)).expect("sent");
            eventually(&format!("{tags:?} arrive with their tags"), || seen().contains(expected));
        }
    });
}

const VLAN_SOURCE: &str = "10.78.0.1";
const QINQ_SOURCE: &str = "10.78.0.2";

enum Transport {
    Syn(u16),
    Udp(u16),
}

/// An Ethernet frame with one or two VLAN tags, built by etherparse.
fn frame(tags: &[u16], transport: Transport) -> Vec<u8> {
    let tag = |tag: u16| etherparse::VlanId::try_new(tag).expect("a VLAN id");
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (tagged, source) = match tags {
        [outer] => (ethernet.single_vlan(tag(*outer)), VLAN_SOURCE),
        [outer, inner] => (ethernet.double_vlan(tag(*outer), tag(*inner)), QINQ_SOURCE),
        _ => panic!("one or two tags"),
    };
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address").octets();
    let ip = tagged.ipv4(address(source), address("10.78.0.9"), 64);
    let mut frame = Vec::new();
    match transport {
        Transport::Syn(port) => ip.tcp(4000, port, 1, 1024).syn().write(&mut frame, &[]),
        Transport::Udp(port) => ip.udp(4000, port).write(&mut frame, b"in a VLAN"),
    }
    .expect("a frame");
    frame
}

#[test]
fn a_knock_over_two_queues_opens_every_time_in_the_right_order_only() {
    with_queues(2, &two_ports(), |topology, filter| {
        let received = |filter: &Filter<'_>| -> Vec<f64> {
            let queue = |worker: &str| {
                filter.metric("knockplane_rx_packets_total", &[worker, "side=\"outside\""]).expect("a counter")
            };
            vec![queue("worker=\"0\""), queue("worker=\"1\"")]
        };
        let forget = || {
            for list in ["temporary", "secured"] {
                let _ = filter.knockctl(&["list", "remove", list, CLIENT]);
            }
        };
        // A host without the server's link address holds both packets and then sends them at once; its queues may
        // already swap them.
        assert!(!ping(topology, ""), "closed, but found");
        let mut crossed = 0;
        for round in 0..40 {
            forget();
            let before = received(filter);
            // The client's kernel spreads flows over its queues by their ports, which differ each time. The client
            // leaves no time between the packets, and one worker may be faster than the other.
            knock(topology, "1234:tcp 4321:tcp");
            eventually(&format!("round {round} opens"), || listed(filter, "secured", CLIENT));
            let after = received(filter);
            crossed += u32::from(after.iter().zip(&before).all(|(after, before)| after > before));

            forget();
            knock(topology, "4321:tcp 1234:tcp");
            eventually("the first step counts", || listed(filter, "temporary", CLIENT));
            assert!(!listed(filter, "secured", CLIENT), "round {round}: the wrong order");
        }
        sleep(Duration::from_millis(200));
        assert!(!listed(filter, "secured", CLIENT), "nor later");
        assert!(crossed > 0, "in no round did both queues receive a part of the knock");
    });
}

#[test]
fn an_expired_entry_leaves_lists_and_gauges_within_a_second() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        decided(filter, "1234:tcp", || knock(topology, "1234:tcp"));
        let entries = || filter.metric("knockplane_address_list_entries", &["list=\"temporary\""]).expect("a gauge");
        assert!(entries() >= 1.0);
        // One second is the timeout of the list, and one is the delay of the gauge.
        sleep(Duration::from_millis(2_050));
        assert!(entries() == 0.0 && !listed(filter, "temporary", CLIENT));
    });
}
