//! The supported menus, in every form of exports.

use std::net::IpAddr;

use super::*;
use crate::packet::Family;
use crate::rule::{AddressSet, EntryAddress, InterfaceList, InterfaceMember, LocalAddress, TrackingMode};
use crate::rule::{Table, Tracking};

fn prefix(text: &str) -> EntryAddress {
    EntryAddress::Set(AddressSet::Prefix(text.parse().unwrap()))
}

#[test]
fn list_entries_are_read() {
    let text = "/ip firewall address-list\n\
        add address=192.0.2.1 list=a\n\
        add address=192.0.2.77/24 comment=\"an \\E1rea\" list=a\n\
        add address=198.51.100.1-198.51.100.9 disabled=yes list=\"with blanks\"\n\
        add address=www.example.org list=a timeout=1d12h\n\
        add comment=\"to be filled\" list=a\n\
        add address=203.0.113.5-203.0.113.5 list=a creation-time=\"2024-05-01 10:00:00\" dynamic=no\n\
        add !address !comment disabled=no list=b !timeout\n\
        /ipv6 firewall address-list\n\
        add address=2001:db8::/32 list=a\n\
        add address=::ffff:0.0.0.0/96 list=a\n\
        add address=www.example.org list=a\n";
    let said = rules(text).address_lists;
    let addresses: Vec<_> = said.iter().map(|entry| entry.address.clone()).collect();
    let name = || EntryAddress::Name("www.example.org".to_owned());
    let range: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "198.51.100.9".parse().unwrap()];
    assert_eq!(
        addresses,
        [
            prefix("192.0.2.1/32"),
            prefix("192.0.2.0/24"),
            EntryAddress::Set(AddressSet::Range(range[0], range[1])),
            name(),
            EntryAddress::None,
            prefix("203.0.113.5/32"),
            EntryAddress::None,
            prefix("2001:db8::/32"),
            prefix("::ffff:0.0.0.0/96"),
            name(),
        ]
    );
    assert_eq!((&*said[1].comment, said[1].line), ("an \\E1rea", 3));
    assert_eq!((said[2].disabled, &*said[2].list), (true, "with blanks"));
    assert_eq!(said[3].timeout, Some(Duration::from_secs(129_600)));
    assert_eq!(said.iter().filter(|entry| entry.timeout.is_some()).count(), 1);
}

#[test]
fn invalid_list_entries_are_refused() {
    for (menu, words, at) in [
        ("ip", "address=192.0.2.1", "add"),
        ("ip", "list=a address=192.0.2.X", "192.0.2.X"),
        ("ip", "list=a address=192.168.XX.0/24", "192.168.XX.0/24"),
        ("ip", "list=a address=192.0.2.300", "192.0.2.300"),
        ("ip", "list=a address=192.0.2.9-192.0.2.1", "192.0.2.9-192.0.2.1"),
        ("ip", "list=a address=2001:db8::1", "2001:db8::1"),
        ("ipv6", "list=a address=192.0.2.1", "192.0.2.1"),
        ("ip", "list=a address=\"\"", "\"\""),
        ("ip", "list=a,b address=192.0.2.1", ","),
        ("ip", "list=a address=192.0.2.1 timeout=0s", "0s"),
        ("ip", "list=a address=192.0.2.1 timeout=never", "never"),
        ("ip", "list=a address=!192.0.2.1", "!192.0.2.1"),
        ("ip", "list=a src-address=192.0.2.1", "src-address"),
        ("ip", "list=a address=exa$mple.org", "$"),
    ] {
        let text = format!("/{menu} firewall address-list\nadd {words}\n");
        let problems = places(&text);
        assert_eq!(problems.iter().map(|(at, ..)| at.as_str()).collect::<Vec<_>>(), [at], "{text}");
        assert_eq!(read(text.as_bytes()).rules.address_lists, []);
    }
    for name in ["a.b.c.example", "1.2.example.com", "router", "_dns.example.org.", "xn--bcher-kva.example"] {
        let text = format!("/ip firewall address-list\nadd list=a address={name}\n");
        assert_eq!(rules(&text).address_lists[0].address, EntryAddress::Name(name.to_owned()));
    }
}

#[test]
fn no_list_contains_an_address_twice() {
    let text = "/ip firewall address-list\nadd list=a address=192.0.2.1\nadd list=b address=192.0.2.1\n\
        add list=a address=192.0.2.1/32 disabled=yes timeout=1h\nadd list=a address=www.example.org\n\
        add address=www.example.org list=a\nadd list=a\nadd list=a\nset [find list=b] list=a\n\
        /ipv6 firewall address-list\nadd list=a address=www.example.org\n";
    let reading = read(text.as_bytes());
    let told: Vec<_> = reading.problems.iter().map(|problem| (&*problem.message, problem.line)).collect();
    let message = "already have such entry";
    assert_eq!(told, [(message, 3), (message, 4), (message, 6)]);
    assert_eq!(reading.rules.address_lists.len(), 5);
    assert!(reading.problems[1].help.as_ref().unwrap().contains("line 2"));
}

#[test]
fn raw_rules_are_in_their_own_table() {
    let text = "/ip firewall raw\nadd chain=prerouting action=drop src-address-list=bad\n\
        add chain=output action=jump jump-target=mine\nadd chain=mine\n/ipv6/firewall/raw/add chain=prerouting\n\
        /ip firewall filter\nadd chain=mine\n";
    let said = rules(text).rules;
    let tables: Vec<_> = said.iter().map(|rule| (rule.table, rule.family, &*rule.chain)).collect();
    let raw = |chain| (Table::Raw, Family::Ipv4, chain);
    assert_eq!(
        tables,
        [
            raw("prerouting"),
            raw("output"),
            raw("mine"),
            (Table::Raw, Family::Ipv6, "prerouting"),
            (Table::Filter, Family::Ipv4, "mine"),
        ]
    );
    // Chains of the same name in two tables are different chains.
    let text = "/ip firewall raw\nadd chain=prerouting action=jump jump-target=x\n/ip firewall filter\n\
        add chain=x action=jump jump-target=prerouting\nadd chain=prerouting action=return\n";
    assert_eq!(places(text), []);
}

#[test]
fn tracking_is_set() {
    let text = "/ip firewall connection tracking\nset enabled=yes loose-tcp-tracking=no udp-timeout=20s\n\
        set tcp-established-timeout=1h tcp-syncookie=no icmp-timeout=00:00:05\n";
    let expected = Tracking {
        enabled: TrackingMode::Yes,
        loose_tcp: false,
        udp: Duration::from_secs(20),
        tcp_established: Duration::from_secs(3_600),
        icmp: Duration::from_secs(5),
        inert: [("tcp-syncookie".to_owned(), "no".to_owned())].into(),
        ..Tracking::default()
    };
    assert_eq!(rules(text).tracking, expected);
    assert_eq!(rules("/ip/firewall/connection/tracking/set\n").tracking, Tracking::default());
    let refused = "/ip firewall connection tracking\nset enabled=maybe udp-timeout=0s icmp-timeout=10x color=red \
        generic-timeout=99w enabled=no\n";
    let places = places(refused);
    let at: Vec<_> = places.iter().map(|(at, ..)| at.as_str()).collect();
    assert_eq!(at, ["maybe", "0s", "10x", "color", "99w", "enabled=no"]);
}

#[test]
fn the_version_in_the_head_decides_the_defaults() {
    let udp = |head: &str| rules(&format!("{head}\n/ip firewall filter\n")).tracking.udp.as_secs();
    assert_eq!(udp("# jan/02/1970 04:55:05 by RouterOS 6.48\n# software id = ABCD-EFGH\n#\n# model = RB"), 10);
    assert_eq!(udp("# 2024-01-01 00:00:00 by RouterOS 7.16\n# software id ="), 30);
    assert_eq!(udp("\u{FEFF}#\r\n# mar/14/2011 01:23:15 by RouterOS 5.26"), 10);
    assert_eq!(udp("# no version"), 30);
    assert_eq!(udp("/ip pool\n# by RouterOS 5.26"), 30);
}

#[test]
fn interfaces_are_listed() {
    let text = "/interface list\nset [ find name=all ] comment=x exclude=\"\" include=\"\" name=all\nadd name=WAN\n\
        add name=LAN comment=defconf\nadd exclude=WAN include=all name=\"the rest\"\n/interface list member\n\
        add comment=defconf interface=ether1 list=WAN\nadd interface=bridge list=LAN\n\
        add disabled=yes interface=ether9 list=LAN\n";
    let list = |name: &str, comment: &str, members: &[(&str, &str, bool, u32)]| InterfaceList {
        name: name.to_owned(),
        members: members
            .iter()
            .map(|&(interface, comment, disabled, line)| InterfaceMember {
                interface: interface.to_owned(),
                disabled,
                comment: comment.to_owned(),
                line,
            })
            .collect(),
        comment: comment.to_owned(),
        ..InterfaceList::default()
    };
    let expected = [
        list("all", "x", &[]),
        list("WAN", "", &[("ether1", "defconf", false, 7)]),
        list("LAN", "defconf", &[("bridge", "", false, 8), ("ether9", "", true, 9)]),
        InterfaceList { include: vec!["all".to_owned()], exclude: vec!["WAN".to_owned()], ..list("the rest", "", &[]) },
    ];
    assert_eq!(rules(text).interface_lists, expected);

    let text = "/interface list\nadd name=WAN\nadd name=WAN\nadd name=all\nadd comment=x\nadd name=x include=y\n\
        /interface list member\nadd list=WNA interface=ether1\nadd list=WAN\nadd interface=ether1\n";
    let lines: Vec<_> = places(text).into_iter().map(|(_, line, _)| line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 8, 9, 10]);
}

#[test]
fn the_routers_own_addresses() {
    let text = "/ip address\nadd address=192.0.2.1/24 comment=defconf interface=bridge network=192.0.2.0\n\
        add address=198.51.100.7/30 broadcast=198.51.100.7 disabled=no interface=ether1 network=198.51.100.4\n\
        add address=203.0.113.1 interface=ether2 netmask=255.255.255.0\nadd address=203.0.113.9 interface=lo\n\
        add address=10.0.0.1/8 disabled=yes interface=ether3\nset [find interface=lo] address=203.0.113.10/31\n\
        /ipv6 address\nadd address=2001:db8::1/48 advertise=no interface=bridge\nadd address=2001:db8:1::1 interface=x\n\
        add address=::1/64 from-pool=pool6 interface=bridge\nadd address=2001:db8:2::/64 eui-64=yes interface=bridge\n\
        add eui-64=no from-pool=\"\" address=2001:db8:3::1/128 no-dad=no interface=bridge\n";
    let said = rules(text);
    let said: Vec<String> =
        said.local_addresses.iter().filter_map(LocalAddress::known).map(ToString::to_string).collect();
    let expected = [
        "192.0.2.1/24",
        "198.51.100.7/30",
        "203.0.113.1/24",
        "203.0.113.10/31",
        "2001:db8::1/48",
        "2001:db8:1::1/64",
        "2001:db8:3::1/128",
    ];
    assert_eq!(said, expected);
    let refused = "/ip address\nadd interface=x\nadd address=192.0.2.X/24\nadd address=192.0.2.1/33\nadd address=::1\n\
        add address=192.0.2.1 netmask=255.0.255.0\nadd address=192.0.2.1/24 eui-64=yes\n";
    assert_eq!(places(refused).len(), 6);
}

/// Reads lines in handwritten form: in columns, with comments and blank lines, in any order.
#[test]
fn columns_and_blanks_make_no_difference() {
    let text = "\n# by hand\n\n/ipv6 firewall address-list\n\
        add list=bad address=::/128         comment=\"a: b, c\"\nadd list=bad   address=fec0::/10\tcomment=\"d \" \n\
        # in between\nadd   list=bad address=::/96   \n\n/ipv6 firewall filter\n\
        add chain=input   action=drop     protocol=icmpv6         comment=\"e\"  \n";
    let said = rules(text);
    let comments: Vec<_> = said.address_lists.iter().map(|entry| &*entry.comment).collect();
    assert_eq!(comments, ["a: b, c", "d ", ""]);
    assert_eq!(said.rules.len(), 1);
}

#[test]
fn a_path_on_every_line() {
    let text = "# all with their paths\n/ip service set telnet disabled=yes\n/interface list add name=WAN\n\
        /interface list member add list=WAN interface=ether1\n\
        /ip firewall connection tracking set enabled=yes loose-tcp-tracking=no\n\
        /interface ethernet set [ find default-name=ether1 ] name=wan\n\
        /ip firewall address-list add address=d9.example.net list=WAN-IP\n\
        /ip firewall filter add action=drop chain=input comment=\"port 1?/tcp\" dst-port=1 protocol=tcp\n\
        /ip firewall nat add action=dst-nat chain=dstnat to-addresses=192.168.LL.XX\n\
        /ip/firewall/raw/add action=drop chain=prerouting\n\
        ip firewall filter add chain=forward\n";
    let reading = read(text.as_bytes());
    assert_eq!(reading.problems, []);
    let said = reading.rules;
    assert_eq!((said.rules.len(), said.address_lists.len(), said.interface_lists.len()), (3, 1, 1));
    assert_eq!((said.tracking.enabled, said.tracking.loose_tcp), (TrackingMode::Yes, false));
    let skipped: Vec<_> = reading.skipped.iter().map(|menu| &*menu.menu).collect();
    assert_eq!(skipped, ["/ip service", "/interface ethernet", "/ip firewall nat"]);
}
