use knockplane_engine::headers;
use knockplane_policy::packet::{FragmentPart, Packet, Side};

use super::*;

fn packet(text: &str) -> Described {
    describe(text).unwrap_or_else(|error| panic!("{error}"))
}

fn read(described: &Described) -> Packet<'_> {
    headers::read(Side::Outside, &described.frame, usize::from(u16::MAX)).expect("a packet that the engine reads")
}

/// Builds the frame for the text, reads it with the engine, and returns it as a line again.
fn again(text: &str) -> String {
    summary(&read(&packet(text)))
}

fn wrong(text: &str) -> String {
    describe(text).expect_err(text).to_string()
}

#[test]
fn what_is_described_is_what_the_engine_reads() {
    let cases = [
        ("tcp 198.51.100.7:4000 > 203.0.113.5:22 syn", "tcp 198.51.100.7:4000 > 203.0.113.5:22 syn, 40 bytes"),
        ("tcp 192.0.2.1>192.0.2.2:80", "tcp 192.0.2.1:49152 > 192.0.2.2:80 syn, 40 bytes"),
        ("tcp 192.0.2.1 > 192.0.2.2:80 ack psh", "tcp 192.0.2.1:49152 > 192.0.2.2:80 psh ack, 40 bytes"),
        ("tcp 192.0.2.1 > 192.0.2.2:80 none", "tcp 192.0.2.1:49152 > 192.0.2.2:80, 40 bytes"),
        (
            "udp [2001:db8::7]:53 > [2001:db8::1]:4321 payload \"ab\"",
            "udp [2001:db8::7]:53 > [2001:db8::1]:4321, 50 bytes",
        ),
        ("icmp 192.0.2.1 > 192.0.2.2", "icmp 8:0 192.0.2.1 > 192.0.2.2, 28 bytes"),
        ("icmp 3:4 192.0.2.1 > 192.0.2.2", "icmp 3:4 192.0.2.1 > 192.0.2.2, 28 bytes"),
        ("icmp 192.0.2.1 > 192.0.2.2 icmp 0 length 84", "icmp 0:0 192.0.2.1 > 192.0.2.2, 84 bytes"),
        ("icmpv6 2001:db8::7 > 2001:db8::1", "icmpv6 128:0 2001:db8::7 > 2001:db8::1, 48 bytes"),
        ("gre 192.0.2.1 > 192.0.2.2", "gre 192.0.2.1 > 192.0.2.2, 20 bytes"),
        ("253 192.0.2.1 > 192.0.2.2 length 100", "253 192.0.2.1 > 192.0.2.2, 100 bytes"),
        ("udp 192.0.2.1 > 192.0.2.2:9 fragment", "udp 192.0.2.1 > 192.0.2.2 fragment, 28 bytes"),
        ("udp 192.0.2.1 > 192.0.2.2:9 fragment length 64", "udp 192.0.2.1 > 192.0.2.2 fragment, 64 bytes"),
        ("udp 2001:db8::7 > [2001:db8::1]:9 fragment", "udp 2001:db8::7 > 2001:db8::1 fragment, 56 bytes"),
        ("tcp 192.0.2.1 > 192.0.2.2:9 vlan 10", "tcp 192.0.2.1:49152 > 192.0.2.2:9 syn vlan 10, 40 bytes"),
        (
            "tcp 192.0.2.1 > 192.0.2.2:9 pppoe 7 vlan 10/20 priority 3 length 99",
            "tcp 192.0.2.1:49152 > 192.0.2.2:9 syn vlan 10/20 pppoe 7, 99 bytes",
        ),
        (
            "icmp 192.0.2.1 > 192.0.2.2 vlan 10@8100/20@9100",
            "icmp 8:0 192.0.2.1 > 192.0.2.2 vlan 10@8100/20@9100, 28 bytes",
        ),
        ("icmpv6 fd00::7 > fd00::1 pppoe 65534", "icmpv6 128:0 fd00::7 > fd00::1 pppoe 65534, 48 bytes"),
        ("icmp 192.0.2.1 > 192.0.2.2 priority 7", "icmp 8:0 192.0.2.1 > 192.0.2.2, 28 bytes"),
    ];
    for (text, expected) in cases {
        assert_eq!(again(text), expected, "{text}");
    }
}

#[test]
fn fields_that_few_rules_ask_for_are_in_the_frame() {
    let described = packet(
        "tcp 192.0.2.1 > 192.0.2.2:9 syn ece cwr mss 1460 ttl 3 dscp 46 mac 00:11:22:AA:BB:CC vlan 7 priority 5 \
         payload \"a\\x00\\\"\\n\" length 100 in ether1",
    );
    let packet = read(&described);
    assert_eq!(packet.tcp_mss(), Some(1460));
    assert_eq!((packet.ttl(), packet.dscp(), packet.vlan_priority()), (Some(3), Some(46), Some(5)));
    assert_eq!(packet.source_mac().map(|mac| mac.to_string()).as_deref(), Some("00:11:22:AA:BB:CC"));
    assert!(packet.payload.starts_with(b"a\0\"\n\0\0") && packet.ip_length == 100);
    assert_eq!(packet.fragment(), Some(FragmentPart::Whole));
    assert_eq!(described.interface.as_deref(), Some("ether1"));
}

#[test]
fn complaints_point_at_the_word() {
    let cases = [
        (
            "tcp 198.51.100.7:4000 > 203.0.113.5:22 sny",
            "there is no such word: did you mean `syn`?\n  \
             tcp 198.51.100.7:4000 > 203.0.113.5:22 sny\n  \
             \x20                                      ^^^",
        ),
        (
            "tpc 198.51.100.7 > 203.0.113.5:22",
            "expected a protocol: tcp, udp, icmp, icmpv6, or another name or number of rules\n  \
             tpc 198.51.100.7 > 203.0.113.5:22\n  \
             ^^^",
        ),
        (
            "udp 198.51.100.7 >",
            "something is missing: expected the destination: an address, perhaps with a port\n  \
             udp 198.51.100.7 >\n  \
             \x20                 ^",
        ),
        (
            "udp 198.51.100.7 > 203.0.113.5:9 payload \"\\q\"",
            "there is no such escape; there are \\xHH, \\n, \\r, \\t, \\0, \\\\ and \\\"\n  \
             udp 198.51.100.7 > 203.0.113.5:9 payload \"\\q\"\n  \
             \x20                                         ^^",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(wrong(text), expected);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let cases = [
        ("", "expected a protocol"),
        ("tcp host:22 > 192.0.2.2:9", "expected the source"),
        ("tcp 192.0.2.1 192.0.2.2:9", "expected `>`"),
        ("tcp 192.0.2.1 > 192.0.2.2", "no port: write `192.0.2.2:22`"),
        ("tcp 192.0.2.1 > 2001:db8::1", "one address is IPv4, the other IPv6"),
        ("icmp 192.0.2.1:8 > 192.0.2.2", "only tcp and udp have ports"),
        ("udp 192.0.2.1 > 192.0.2.2:9 syn", "only tcp has flags"),
        ("udp 192.0.2.1 > 192.0.2.2:9 length 10", "the packet has 28 bytes already"),
        ("udp 192.0.2.1 > 192.0.2.2:9 length 70000", "expected bytes of the IP packet"),
        ("udp 192.0.2.1 > 192.0.2.2:9 payload open", "stands in quotes"),
        ("udp 192.0.2.1 > 192.0.2.2:9 payload \"open", "the closing `\"` is missing"),
        ("udp 192.0.2.1 > 192.0.2.2:9 payload \"\\xZZ\"", "no such escape"),
        ("udp 192.0.2.1 > 192.0.2.2:9 dscp 64", "at most 63"),
        ("udp 192.0.2.1 > 192.0.2.2:9 vlan 4096", "a VLAN from 1 to 4095"),
        ("udp 192.0.2.1 > 192.0.2.2:9 vlan 10/20/30", "the outer one first, as `10/20`"),
        ("udp 192.0.2.1 > 192.0.2.2:9 pppoe 0", "from 1 to 65534"),
        ("udp 192.0.2.1 > 192.0.2.2:9 mac nobody", "expected an Ethernet address"),
        ("udp 192.0.2.1 > 192.0.2.2:9 entirely", "the words are icmp, length"),
        ("icmpv6 192.0.2.1 > 192.0.2.2", "there is no icmpv6 between IPv4 addresses"),
    ];
    for (text, expected) in cases {
        let message = wrong(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}
