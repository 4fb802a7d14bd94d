//! Single rules, and rules that another rule makes unreachable.

use super::*;

#[test]
fn matchers_that_match_no_packet() {
    for rule in [
        "protocol=tcp tcp-flags=syn,!syn",
        "protocol=tcp dst-port=!0-65535",
        "protocol=tcp dst-port=22 port=!22",
        "protocol=tcp src-port=1-5 dst-port=7 port=!1-10",
        "packet-size=!0-65535",
        "packet-size=0-19",
        "src-address=!0.0.0.0/0",
        "ttl=less-than:0",
        "ttl=greater-than:255",
        "connection-state=!invalid,established,related,new,untracked",
        "dst-address-type=blackhole",
        "dst-address-type=!unicast,local,multicast,broadcast",
        "dst-address-type=local",
        "packet-mark=!no-mark",
        "in-interface=inside",
        "out-interface=outside",
        "in-interface-list=none",
        "protocol=udp tls-host=*.example.com",
        "protocol=icmp psd=21,3s,3,1",
        "protocol=tcp dst-port=80 fragment=yes",
        "protocol=icmp icmp-options=8:0 fragment=yes",
    ] {
        assert_eq!(of(rule), ["never-matches"], "{rule}");
    }
}

#[test]
fn matchers_that_match_some_packet() {
    for rule in [
        "protocol=tcp tcp-flags=syn,!ack",
        "protocol=tcp tcp-flags=\"\"",
        "protocol=tcp dst-port=!1-65535",
        "protocol=tcp dst-port=22 port=!80",
        "protocol=tcp src-port=1-5 port=22",
        "packet-size=0-20",
        "src-address=!128.0.0.0/1",
        "ttl=less-than:1",
        "connection-state=!established,related,new",
        "connection-state=untracked",
        "src-address-type=\"\" connection-state=\"\" protocol=tcp",
        "dst-address-type=!blackhole protocol=tcp",
        "packet-mark=no-mark protocol=tcp",
        "ipsec-policy=in,none protocol=tcp",
        "ipsec-policy=in,ipsec",
        "out-interface=!outside in-interface=!inside protocol=tcp",
        "tls-host=*.example.com",
        "protocol=udp psd=21,3s,3,1",
        "protocol=tcp fragment=yes",
        "protocol=tcp dst-port=80 fragment=no",
        "protocol=!udp tls-host=a",
    ] {
        assert_eq!(of(rule), [""; 0], "{rule}");
    }
    // Names without a side are an error that is reported elsewhere.
    assert_eq!(of("in-interface=ether1"), [""; 0]);
}

#[test]
fn other_menus_of_the_file_make_a_difference() {
    let settings = Settings::default();
    let types = "add chain=input dst-address-type=local\n";
    let file = |more: &str, rules: &str| format!("{more}\n{}", filter(rules));
    assert_eq!(found_with(&file("/ip address add address=192.0.2.1/24", types), &settings), []);
    assert_eq!(found_with(&file("", types), &protecting(&["192.0.2.0/24"])), []);
    assert_eq!(found_with(&file("", types), &settings), [("never-matches", 3)]);
    let untracked = "/ip firewall connection tracking set enabled=no";
    assert_eq!(
        found_with(&file(untracked, "add chain=input connection-state=new\n"), &settings),
        [("never-matches", 3)]
    );
    assert_eq!(
        found_with(&file(untracked, "add chain=input connection-bytes=1-0\n"), &settings),
        [("never-matches", 3)]
    );
    let kept = "add chain=input connection-state=new,untracked protocol=tcp\n";
    assert_eq!(found_with(&file(untracked, kept), &settings), []);
    let elsewhere = "add chain=input dst-address=198.51.100.1\n";
    assert_eq!(found_with(&filter(elsewhere), &protecting(&["192.0.2.0/24"])), [("never-matches", 2)]);
    assert_eq!(found_with(&filter(elsewhere), &protecting(&["198.51.0.0/16"])), []);
    let list = file("/interface list add name=WAN", "add chain=input in-interface-list=WAN\n");
    let lints = lint(&crate::rsc::read(list.as_bytes()).rules, &settings);
    assert!(lints[0].sentence.contains("the list `WAN` has no interfaces here"), "{lints:?}");
    let forward = "/ip firewall filter\nadd chain=forward in-interface=inside\nadd chain=forward in-interface=outside \
                   out-interface=outside\nadd chain=forward action=drop\n";
    assert_eq!(found_with(forward, &protecting(&["192.0.2.0/24"])), [("never-matches", 3)]);
}

/// Checks for pairs of rules whether the second one is unreachable.
#[test]
fn rules_after_an_earlier_rule() {
    let pair = |first: &str, second: &str| {
        let lists = "add chain=output src-address-list=a action=add-dst-to-address-list address-list=a\n\
                     add chain=output src-address-list=a action=add-dst-to-address-list address-list=b\n";
        let found = found(&format!("add chain=input {first}\nadd chain=input {second}\n{lists}"));
        assert!(found.iter().all(|found| *found == ("unreachable-rule", 3)), "{first}; {second}: {found:?}");
        !found.is_empty()
    };
    for (first, second) in [
        ("action=drop src-address=192.0.2.0/24", "src-address=192.0.2.7"),
        ("action=drop src-address=192.0.2.0/24", "src-address=192.0.2.3-192.0.2.9 protocol=tcp"),
        ("action=drop src-address=!192.0.2.0/24", "src-address=198.51.100.0/24"),
        ("action=drop src-address=!192.0.2.7", "src-address=!192.0.2.0/24"),
        ("action=reject protocol=tcp", "protocol=tcp dst-port=22"),
        ("action=drop protocol=!tcp", "protocol=udp"),
        ("action=tarpit protocol=tcp dst-port=1-100", "protocol=tcp dst-port=22,80"),
        ("action=accept protocol=tcp port=22", "protocol=tcp dst-port=22"),
        ("action=drop protocol=tcp dst-port=!22", "protocol=tcp dst-port=80"),
        ("action=drop protocol=tcp tcp-flags=syn", "protocol=tcp tcp-flags=syn,!ack"),
        ("action=drop protocol=icmp icmp-options=8", "protocol=icmp icmp-options=8:0"),
        ("action=drop connection-state=new,invalid", "connection-state=new"),
        ("action=drop connection-state=!established,related", "connection-state=new"),
        ("action=drop packet-size=100-200", "packet-size=150"),
        ("action=drop ttl=less-than:10", "ttl=equal:3"),
        ("action=drop src-address-list=a", "src-address-list=a protocol=tcp"),
        ("action=drop src-address-list=!a", "src-address-list=!a limit=1,5"),
        ("action=drop in-interface=outside protocol=tcp", "protocol=tcp"),
        ("action=drop content=abc", "content=abc protocol=udp"),
        ("action=drop connection-nat-state=!dstnat protocol=tcp", "protocol=tcp"),
    ] {
        let no_nat = first.contains("nat-state");
        assert!(no_nat || pair(first, second), "{first}; {second}");
    }
    for (first, second) in [
        ("action=drop src-address=192.0.2.0/25", "src-address=192.0.2.0/24"),
        ("action=drop src-address=!192.0.2.0/24", "src-address=192.0.2.0/23"),
        ("action=drop dst-address=192.0.2.0/24", "src-address=192.0.2.7"),
        ("action=passthrough protocol=tcp", "protocol=tcp"),
        ("action=log protocol=tcp", "protocol=tcp"),
        ("action=drop protocol=tcp limit=1,5", "protocol=tcp"),
        ("action=drop limit=1,5", "limit=1,5"),
        ("action=drop psd=21,3s,3,1", "psd=21,3s,3,1"),
        ("action=drop random=50", "random=50"),
        ("action=drop nth=2,1", "nth=2,1"),
        ("action=drop protocol=tcp disabled=yes", "protocol=tcp"),
        ("action=drop protocol=tcp dst-port=22,80", "protocol=tcp dst-port=22-80"),
        ("action=drop protocol=tcp dst-port=22", "protocol=tcp port=22"),
        ("action=drop protocol=tcp port=!22", "protocol=tcp dst-port=80"),
        ("action=drop protocol=tcp tcp-flags=syn,!ack", "protocol=tcp tcp-flags=syn"),
        ("action=drop protocol=tcp tcp-flags=\"\"", "protocol=tcp"),
        ("action=drop protocol=icmp icmp-options=8:0", "protocol=icmp icmp-options=8"),
        ("action=drop connection-state=new", "connection-state=\"\" protocol=tcp"),
        ("action=drop connection-state=new", "connection-state=!established"),
        ("action=drop packet-size=!100-200", "packet-size=150"),
        ("action=drop ttl=less-than:10", "ttl=not-equal:3"),
        ("action=drop src-address-list=a", "src-address-list=b"),
        ("action=drop src-address-list=a", "dst-address-list=a"),
        ("action=drop src-address-list=!a", "src-address-list=a"),
    ] {
        assert!(!pair(first, second), "{first}; {second}");
    }
}

/// A packet adds its source to the list after the first rule, so it can match the second one.
#[test]
fn a_rule_is_reachable_if_a_list_grows_in_between() {
    let around = |between: &str| {
        found(&format!(
            "add chain=input src-address-list=a action=drop\n{between}\
             add chain=input src-address-list=a action=log\n\
             add chain=knock protocol=icmp packet-size=99 action=add-src-to-address-list address-list=a\n\
             add chain=other action=jump jump-target=knock\nadd chain=output action=jump jump-target=other\n"
        ))
    };
    assert_eq!(around(""), [("unreachable-rule", 3)]);
    assert_eq!(around("add chain=input action=log\n"), [("unreachable-rule", 4)]);
    assert_eq!(
        around("add chain=input action=add-src-to-address-list address-list=a protocol=icmp packet-size=99\n"),
        []
    );
    assert_eq!(around("add chain=input action=jump jump-target=other\n"), []);
    assert_eq!(around("add chain=input action=jump jump-target=other disabled=yes\n"), [("unreachable-rule", 4)]);
}

#[test]
fn jumps_to_chains_that_always_decide() {
    let with = |rules: &str| {
        found(&format!("add chain=input action=jump jump-target=all\nadd chain=input protocol=tcp\n{rules}"))
    };
    let both = [("unreachable-rule", 3), ("unreachable-rule", 5)];
    assert_eq!(with("add chain=all action=drop\n"), both);
    assert_eq!(with("add chain=all protocol=tcp action=return\nadd chain=all action=drop\n"), []);
    assert_eq!(with("add chain=all protocol=tcp action=drop\n"), []);
}

#[test]
fn other_menus_are_other_chains() {
    let text = "/ip firewall filter\nadd chain=input action=drop\n/ipv6 firewall filter\nadd chain=input protocol=tcp\n\
                add chain=input action=drop\n/ip firewall raw\nadd chain=prerouting action=drop\n\
                add chain=prerouting protocol=tcp\n";
    assert_eq!(found_with(text, &Settings::default()), [("unreachable-rule", 8)]);
}

#[test]
fn rules_about_translated_addresses() {
    let settings = protecting(&["192.0.2.0/24"]);
    let of = |rule: &str| {
        found_with(
            &format!("/ip firewall filter\nadd chain=forward {rule}\nadd chain=forward action=drop\n"),
            &settings,
        )
    };
    let default = "action=drop connection-nat-state=!dstnat connection-state=new in-interface=outside";
    assert_eq!(of(default), [("no-nat", 2)]);
    assert_eq!(of("connection-nat-state=dstnat"), [("no-nat", 2)]);
    assert_eq!(of("connection-nat-state=!dstnat action=log"), []);
    assert_eq!(of("connection-state=new in-interface=outside action=drop"), []);
    assert_eq!(of(&format!("{default} disabled=yes")), []);
}

#[test]
fn patterns_that_match_anything() {
    let with = |regexp: &str, rule: &str| {
        let patterns = format!("/ip firewall layer7-protocol\nadd name=p regexp=\"{regexp}\"\n");
        found_with(&(patterns + &filter(&format!("add chain=input protocol=udp {rule}\n"))), &Settings::default())
    };
    assert_eq!(with(".*", "layer7-protocol=p"), [("matches-anything", 2)]);
    assert_eq!(with("^secret\\$", "layer7-protocol=p"), []);
    assert_eq!(with(".*", ""), []);
    assert_eq!(with(".*", "layer7-protocol=p disabled=yes"), []);
}

#[test]
fn sizes_that_only_fragmented_packets_have() {
    for words in [
        "packet-size=1501",
        "packet-size=2000-3000",
        "packet-size=1500",
        "packet-size=1500-65535",
        "packet-size=!0-1500",
    ] {
        assert_eq!(of(words), ["fragmented-size"], "{words}");
    }
    for words in [
        "packet-size=1499",
        "packet-size=100-1500",
        "packet-size=128-65535",
        "packet-size=!0-1499",
        "packet-size=!1500",
        "packet-size=9000 disabled=yes",
    ] {
        assert_eq!(of(words), [""; 0], "{words}");
    }
    // A first fragment of IPv6 is smaller.
    let v6 = "/ipv6 firewall filter\nadd chain=input packet-size=1500 action=accept\nadd chain=input action=drop\n";
    assert_eq!(found_with(v6, &Settings::default()), []);
}
