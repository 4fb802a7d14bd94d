# Every menu, matcher and action, not as an export has them.
/ipv6 firewall raw
add chain=prerouting action=notrack headers=hop,frag:contains comment="IPv6, before tracking"
/ipv6 firewall filter
add chain=input hop-limit=equal:1 protocol=icmpv6 icmp-options=128 src-address=2001:db8::1 connection-limit=30,64
add chain=input headers=frag action=reject
add chain=input action=reject reject-with=tcp-reset protocol=tcp dst-address=fe80::/10
/ipv6 firewall address-list
add list=trusted address=2001:db8::1
add list=trusted address=2001:db8::/32
/ipv6 address
add address=2001:db8::1/64
add address=2001:db8::2/128
/ip firewall raw
add chain=prerouting action=notrack protocol=ospf
add chain=prerouting action=drop src-address-list=blacklist
/ip firewall filter
add chain=input action=accept connection-state=established,related,untracked
add chain=input action=accept connection-state=""
add chain=input action=drop connection-state=invalid log=yes log-prefix="invalid: "
add chain=input action=jump jump-target="every matcher" comment="The chain has a name with a blank."
add chain="every matcher" protocol=tcp src-port=1024-65535 dst-port=!22,8000-8080 tcp-flags=fin,!syn tcp-mss=!0-535 tls-host=*.example.com
add chain="every matcher" protocol=udp port=53 src-mac-address=00:11:22:aa:bb:cc
add chain="every matcher" protocol=icmp icmp-options=8:0 action=return
add chain="every matcher" in-interface=ether1 out-interface=!ether2 in-interface-list=WAN out-interface-list="!my LAN"
add chain="every matcher" in-bridge-port=ether1 out-bridge-port=!ether2 in-bridge-port-list=WAN out-bridge-port-list=!LAN
add chain="every matcher" src-address=192.0.2.7/24 dst-address=!192.0.2.1-192.0.2.9
add chain="every matcher" src-address-list="port scanners" dst-address-list="!caf\C3\A9" src-address-type=local,broadcast dst-address-type=""
add chain="every matcher" ttl=less-than:5 dscp=!46 tos=16/28 packet-size=!0-99 ipv4-options=no-source-routing fragment=yes
add chain="every matcher" connection-mark=no-mark packet-mark=!no-mark routing-mark=no-mark priority=5 ingress-priority=!0 ipsec-policy=in,none
add chain="every matcher" time=8h-17h30m,sun,mon,fri connection-nat-state=!dstnat connection-bytes=500000-0 connection-rate=0-100000
add chain="every matcher" connection-limit=!30,32 content="\00say \"friend\"\? \$1\\ \E1" psd=21,3s,3,1 layer7-protocol=knock1
add chain="every matcher" random=50 nth=3 per-connection-classifier=both-addresses:2/1 limit=10M,512000:bit dst-limit=1/60,9,dst-address/1m40s
add chain="every matcher" limit=30/1m,0
add chain="every matcher" protocol=sctp dst-port=80 comment="invalid: ports of SCTP are not read"
add chain="every matcher" connection-mark=!p2p-conn routing-table=main realm=1 p2p=all-p2p hotspot=auth,!http connection-type=ftp
add chain=input action=add-src-to-address-list address-list="port scanners" address-list-timeout=14d protocol=tcp psd=21,3s,3,1
add chain=input action=add-dst-to-address-list address-list=seen
add chain=input action=add-src-to-address-list address-list=seen address-list-timeout=none-static
add chain=input action=passthrough disabled=yes comment="place hotspot rules here"
add chain=input action=fasttrack-connection hw-offload=yes
add chain=input action=log log-prefix=PING protocol=icmp
add chain=input action=tarpit protocol=tcp comment="A comment that is longer than a line is broken where the line is full, wherever that is, and a blank at the beginning of one is escaped."
add chain=input action=reject reject-with=icmp-network-unreachable
add chain=input action=drop
/ip firewall address-list
add list=trusted address=192.0.2.1/32 comment="the \"first\""
add list=trusted address=192.0.2.10-192.0.2.20 disabled=yes
add list=trusted address=vpn.example.com timeout=1d
add list=empty
/ip address
add address=192.0.2.1/24 interface=ether1
add address=198.51.100.1 interface=lo
/ip firewall connection tracking
set enabled=yes loose-tcp-tracking=no tcp-syn-sent-timeout=00:02:00 udp-timeout=10s generic-timeout=10m
/ip firewall layer7-protocol
add name=knock1 regexp="^supersecretpassword1\$"
add name="two words" regexp="\\x13.*\\\?|\E1" comment="bytes"
/interface list
add name=WAN comment=defconf
add name=LAN
add name="my LAN" include=all,LAN exclude=WAN
/interface list member
add list=WAN interface=ether1
add list=LAN interface=bridge
add list=LAN interface=<pppoe-user>
add list=WAN interface=pppoe-out1
