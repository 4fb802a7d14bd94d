//! Handwritten rule sets, in which each matcher and action that nftables also has occurs at least once. `K` represents
//! the set's number, see `packets`.

/// The subject of a set, and its rules.
pub(super) type Named = (&'static str, &'static str);

/// Sets for ordinary packets.
pub(super) const BY_HAND: &[Named] = &[
    ("nothing", ""),
    ("addresses, prefixes and ranges", "/ip firewall filter
add chain=input src-address=10.K.0.1
add chain=input src-address=10.K.0.2-10.K.0.3 dst-address=10.K.1.0/31
add chain=output action=drop dst-address=10.K.0.4/30
/ipv6 firewall filter
add chain=input src-address=fd00:K::1
add chain=input dst-address=fd00:K:1::2/127
add chain=output action=drop src-address=fd00:K:1::4"),
    ("addresses, negated", "/ip firewall filter
add chain=input src-address=!10.K.0.0/30 dst-address=!10.K.1.1
add chain=input dst-address=!10.K.1.1-10.K.1.3
add chain=output action=drop dst-address=!10.K.0.2
/ipv6 firewall filter
add chain=input src-address=!fd00:K::2 dst-address=!fd00:K:1::/126"),
    ("protocols", "/ip firewall filter
add chain=input protocol=tcp src-address=10.K.0.1
add chain=input protocol=50
add chain=input protocol=!tcp dst-address=10.K.1.2
add chain=output action=drop protocol=icmp
/ipv6 firewall filter
add chain=input protocol=udp
add chain=input protocol=!icmpv6 src-address=fd00:K::1
add chain=output action=drop protocol=tcp"),
    ("source ports", "/ip firewall filter
add chain=input protocol=tcp src-port=22,80-443
add chain=input protocol=udp src-port=!53
add chain=output action=drop protocol=tcp src-port=!1024-65535
/ipv6 firewall filter
add chain=input protocol=udp src-port=0-100"),
    ("destination ports", "/ip firewall filter
add chain=input protocol=udp dst-port=53
add chain=input protocol=tcp dst-port=!22,1234,4321
add chain=output action=drop protocol=udp dst-port=8080-65535
/ipv6 firewall filter
add chain=input protocol=tcp dst-port=80,443"),
    ("either port", "/ip firewall filter
add chain=input protocol=tcp port=22,443
add chain=input protocol=udp port=!53,80
add chain=output action=drop protocol=tcp port=1234
/ipv6 firewall filter
add chain=input protocol=tcp port=!1-1023"),
    ("ICMP", "/ip firewall filter
add chain=input protocol=icmp icmp-options=8:0
add chain=input protocol=icmp icmp-options=3:0-1
add chain=output action=drop protocol=icmp icmp-options=!0:0-255
/ipv6 firewall filter
add chain=input protocol=icmpv6 icmp-options=128:0-255
add chain=input protocol=icmpv6 icmp-options=!129:0 src-address=fd00:K::2"),
    ("TCP flags", "/ip firewall filter
add chain=input protocol=tcp tcp-flags=syn,!ack,!fin,!rst
add chain=input protocol=tcp tcp-flags=fin,urg,psh
add chain=input protocol=tcp tcp-flags=!syn,!ack dst-address=10.K.1.1
add chain=output action=drop protocol=tcp tcp-flags=rst
/ipv6 firewall filter
add chain=input protocol=tcp tcp-flags=ack
add chain=output action=drop protocol=tcp tcp-flags=cwr,ece"),
    ("segment sizes", "/ip firewall filter
add chain=input protocol=tcp tcp-flags=syn tcp-mss=1400-1500
add chain=input protocol=tcp tcp-flags=syn tcp-mss=!536
/ipv6 firewall filter
add chain=input protocol=tcp tcp-flags=syn tcp-mss=0-1300"),
    ("time to live", "/ip firewall filter
add chain=input ttl=less-than:6
add chain=input ttl=equal:128
add chain=input ttl=less-than:65 src-address=10.K.0.2
add chain=output action=drop ttl=not-equal:64
/ipv6 firewall filter
add chain=input hop-limit=greater-than:63
add chain=output action=drop hop-limit=equal:1"),
    ("type of service", "/ip firewall filter
add chain=input dscp=46
add chain=input dscp=!0 src-address=10.K.0.3
add chain=input tos=16/16
add chain=output action=drop tos=!0/252
/ipv6 firewall filter
add chain=input dscp=10
add chain=output action=drop dscp=!4"),
    ("packet sizes", "/ip firewall filter
add chain=input packet-size=128
add chain=input packet-size=0-40
add chain=input packet-size=!28-1000 dst-address=10.K.1.3
/ipv6 firewall filter
add chain=input packet-size=100-300
add chain=output action=drop packet-size=!60-1400"),
    ("IPv4 options", "/ip firewall filter
add chain=input ipv4-options=record-route
add chain=input ipv4-options=router-alert
add chain=input ipv4-options=loose-source-routing
add chain=output action=drop ipv4-options=no-record-route dst-address=10.K.0.1"),
    ("IPv6 headers", "/ipv6 firewall filter
add chain=input headers=hop:contains
add chain=input headers=route,dst:contains
add chain=input headers=proto:exact src-address=fd00:K::1
add chain=output action=drop headers=dst,proto:exact"),
    ("link addresses", "/ip firewall filter
add chain=input src-mac-address=02:00:00:00:01:02
add chain=output action=drop src-mac-address=!02:00:00:00:02:01
/ipv6 firewall filter
add chain=input src-mac-address=!02:00:00:00:01:01"),
    ("sides", "/ip firewall filter
add chain=input in-interface=outside protocol=tcp
add chain=input out-interface=outside
add chain=output action=drop in-interface=!outside out-interface=outside protocol=udp"),
    ("fixed lists", "/ip firewall address-list
add list=friends address=10.K.0.1
add list=friends address=10.K.0.4/31
add list=servers address=10.K.1.2-10.K.1.3
add list=gone address=10.K.0.3 disabled=yes
/ipv6 firewall address-list
add list=friends address=fd00:K::2/127
/ip firewall filter
add chain=input src-address-list=friends dst-address-list=!servers
add chain=input src-address-list=!friends protocol=udp
add chain=input src-address-list=gone
add chain=output action=drop src-address-list=servers dst-address-list=nobody
/ipv6 firewall filter
add chain=input src-address-list=friends
add chain=output action=drop dst-address-list=!friends"),
    ("two knocks", "/ip firewall filter
add chain=input action=add-src-to-address-list address-list=temporary address-list-timeout=1m protocol=tcp dst-port=1234
add chain=input action=add-src-to-address-list address-list=secured address-list-timeout=10m protocol=tcp dst-port=4321 \
    src-address-list=temporary
add chain=input src-address-list=secured
add chain=input action=drop
/ipv6 firewall filter
add chain=input action=add-src-to-address-list address-list=temporary address-list-timeout=1m protocol=udp dst-port=53
add chain=input src-address-list=temporary"),
    ("lists of destinations", "/ip firewall address-list
add list=busy address=10.K.1.4
/ip firewall filter
add chain=output action=add-dst-to-address-list address-list=called protocol=udp
add chain=input src-address-list=called
add chain=input action=add-dst-to-address-list address-list=busy address-list-timeout=none-dynamic protocol=icmp
add chain=input protocol=tcp dst-address-list=!busy
add chain=output action=drop src-address-list=busy"),
    ("jumps and returns", "/ip firewall filter
add chain=input action=jump jump-target=tcp protocol=tcp
add chain=input action=jump jump-target=rest
add chain=input src-address=10.K.0.2
add chain=tcp action=return src-address=10.K.0.1
add chain=tcp dst-port=80,443 protocol=tcp
add chain=tcp action=jump jump-target=deep
add chain=tcp action=drop
add chain=deep action=return dst-address=10.K.1.1
add chain=deep
add chain=rest protocol=udp
add chain=rest action=return
add chain=rest
add chain=output action=return protocol=icmp
add chain=output action=drop src-address=10.K.1.2
/ipv6 firewall filter
add chain=input action=jump jump-target=tcp
add chain=tcp protocol=tcp src-address=fd00:K::1
add chain=output action=jump jump-target=idle
add chain=idle action=passthrough
add chain=output action=drop protocol=udp"),
    ("what goes on", "/ip firewall filter
add chain=input action=passthrough protocol=tcp
add chain=input action=log log-prefix=seen protocol=icmp
add chain=input disabled=yes
add chain=input protocol=tcp connection-mark=no-mark ipsec-policy=in,none
add chain=input action=reject reject-with=icmp-host-prohibited
add chain=output action=reject protocol=tcp reject-with=tcp-reset dst-port=22"),
    ("every third", "/ip firewall filter
add chain=input nth=3,1
add chain=input protocol=tcp nth=2,2
/ipv6 firewall filter
add chain=input protocol=!icmpv6 nth=4,3"),
    ("limits", "/ip firewall filter
add chain=input protocol=tcp limit=1/1d,25:packet
add chain=input protocol=udp limit=!1/1d,10:packet
/ipv6 firewall filter
add chain=input limit=1/1d,40:packet"),
    ("limits by address", "/ip firewall filter
add chain=input protocol=tcp dst-limit=1/1d,12,src-address/1h
add chain=input protocol=udp dst-limit=1/1d,5,dst-address-and-port/1h
add chain=output action=drop protocol=tcp dst-limit=1/1d,5,addresses-and-dst-port/1h
add chain=output action=drop dst-limit=1/1d,3,src-and-dst-addresses/1h
/ipv6 firewall filter
add chain=input dst-limit=1/1d,30,dst-address/1h"),
    ("raw", "/ip firewall raw
add chain=prerouting action=drop src-address=10.K.0.1
add chain=prerouting protocol=tcp
add chain=prerouting action=drop protocol=udp dst-port=53
add chain=output action=add-dst-to-address-list address-list=asked address-list-timeout=5m
/ip firewall filter
add chain=input src-address-list=asked
/ipv6 firewall raw
add chain=prerouting action=jump jump-target=more
add chain=more action=drop protocol=tcp tcp-flags=syn
/ipv6 firewall filter
add chain=input"),
    ("a stateful wall", "/ip firewall filter
add chain=input connection-state=established,related
add chain=input action=drop connection-state=invalid
add chain=input protocol=tcp dst-port=22,443 connection-state=new
add chain=input protocol=icmp
/ipv6 firewall filter
add chain=input connection-state=established,related,untracked
add chain=input protocol=udp"),
    ("a one-way door", "/ip firewall filter
add chain=input connection-state=established
add chain=input connection-state=related src-address=!10.K.0.4
/ipv6 firewall filter
add chain=input connection-state=established,related"),
    ("closed both ways", "/ip firewall filter
add chain=input connection-state=established,related
add chain=input protocol=tcp dst-port=80,443,22,1234
add chain=input protocol=icmp src-address=10.K.0.1-10.K.0.2
add chain=output connection-state=established,related
add chain=output action=drop
/ipv6 firewall filter
add chain=input connection-state=established,related
add chain=input protocol=tcp
add chain=output connection-state=established,related
add chain=output action=drop"),
    ("only what is new", "/ip firewall filter
add chain=input connection-state=new
add chain=output action=drop connection-state=!new
/ipv6 firewall filter
add chain=input connection-state=new,related
add chain=output action=drop connection-state=established"),
    ("only what is invalid", "/ip firewall filter
add chain=input connection-state=!invalid
add chain=output action=drop connection-state=invalid
/ipv6 firewall filter
add chain=input connection-state=invalid
add chain=output action=drop connection-state=!invalid"),
    ("invalid, in a wall that lets in", "/ip firewall filter
add chain=input action=drop connection-state=invalid
add chain=input
add chain=output action=drop connection-state=invalid
/ipv6 firewall filter
add chain=input action=drop connection-state=invalid
add chain=input
add chain=output action=drop connection-state=invalid"),
    ("only answers", "/ip firewall filter
add chain=input
add chain=output connection-state=established
add chain=output action=drop
/ipv6 firewall filter
add chain=input
add chain=output connection-state=related
add chain=output action=drop"),
    ("what is not tracked", "/ip firewall raw
add chain=prerouting action=notrack protocol=udp
add chain=output action=notrack protocol=tcp dst-port=22
/ip firewall filter
add chain=input connection-state=untracked src-address=!10.K.0.3
add chain=input connection-state=established
add chain=input action=drop connection-state=invalid
add chain=input connection-state=!untracked protocol=tcp
add chain=output action=drop connection-state=untracked dst-address=10.K.0.1
/ipv6 firewall raw
add chain=prerouting action=notrack src-address=fd00:K::1
/ipv6 firewall filter
add chain=input connection-state=untracked,established"),
    ("not loose", "/ip firewall connection tracking
set loose-tcp-tracking=no
/ip firewall filter
add chain=input connection-state=new,established,related
add chain=output action=drop connection-state=invalid
/ipv6 firewall filter
add chain=input connection-state=new,established,related"),
    ("bytes of connections", "/ip firewall filter
add chain=input connection-bytes=0-500
add chain=input connection-bytes=2000-3000
add chain=output action=drop connection-bytes=4000-0
/ipv6 firewall filter
add chain=input connection-bytes=0-1000
add chain=output action=drop connection-bytes=3000-0"),
    ("numbers of connections", "/ip firewall filter
add chain=input action=add-src-to-address-list address-list=greedy address-list-timeout=5m protocol=udp \
    connection-state=new connection-limit=1,32
add chain=input action=add-src-to-address-list address-list=many protocol=icmp connection-state=new \
    connection-limit=2,24
add chain=input action=add-src-to-address-list address-list=few protocol=50 connection-state=new \
    connection-limit=!2,30
add chain=input protocol=tcp src-address-list=greedy
add chain=input protocol=tcp src-address-list=many
add chain=input protocol=tcp src-address-list=!few
add chain=input protocol=!tcp"),
    ("past the rules", "/ip firewall filter
add chain=input action=fasttrack-connection connection-state=established,related
add chain=input connection-state=established,related
add chain=input protocol=tcp dst-port=22,80,443
add chain=input nth=2,1 protocol=udp
add chain=output nth=3,1 action=drop"),
];

/// Sets for fragmented datagrams.
pub(super) const OF_FRAGMENTS: &[Named] = &[
    (
        "no fragments",
        "/ip firewall filter
add chain=input action=drop fragment=yes
add chain=input",
    ),
    (
        "fragments of tracked connections",
        "/ip firewall filter
add chain=input connection-state=established,related
add chain=input protocol=udp dst-port=53,80,443 connection-state=new
add chain=input src-address=10.K.0.1 connection-state=!invalid",
    ),
];

/// Sets that accept every first SYN, so that the two ends know which connections exist.
pub(super) const OF_WINDOWS: &[Named] = &[
    (
        "windows: what is invalid does not pass",
        "/ip firewall connection tracking
set loose-tcp-tracking=no
/ip firewall filter
add chain=input action=drop connection-state=invalid
add chain=input
add chain=output action=drop connection-state=invalid
/ipv6 firewall filter
add chain=input action=drop connection-state=invalid
add chain=input
add chain=output action=drop connection-state=invalid",
    ),
    (
        "windows: only what is invalid, or new, passes",
        "/ip firewall connection tracking
set loose-tcp-tracking=no
/ip firewall filter
add chain=input connection-state=invalid,new
add chain=output connection-state=invalid,new
add chain=output action=drop
/ipv6 firewall filter
add chain=input connection-state=invalid,new
add chain=output connection-state=invalid,new
add chain=output action=drop",
    ),
    (
        "windows: new and related",
        "/ip firewall connection tracking
set loose-tcp-tracking=no
/ip firewall filter
add chain=input connection-state=new,related
add chain=output action=drop connection-state=established
/ipv6 firewall filter
add chain=input connection-state=new,related
add chain=output action=drop connection-state=established",
    ),
    (
        "windows: past the rules",
        "/ip firewall connection tracking
set loose-tcp-tracking=no
/ip firewall filter
add chain=input action=fasttrack-connection connection-state=established,related
add chain=input action=drop connection-state=invalid
add chain=input
add chain=output action=drop connection-state=invalid
/ipv6 firewall filter
add chain=input action=fasttrack-connection connection-state=established
add chain=input connection-state=new,related
add chain=output action=drop connection-state=established,invalid",
    ),
    (
        "windows: what is invalid does not pass, but a connection may be taken up",
        "/ip firewall filter
add chain=input action=drop connection-state=invalid
add chain=input
add chain=output action=drop connection-state=invalid
/ipv6 firewall filter
add chain=input connection-state=new,related
add chain=output action=drop connection-state=established",
    ),
];
