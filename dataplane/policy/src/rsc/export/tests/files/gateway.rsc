/interface list
add name=WAN
add name=LAN
add include=LAN name=MGMT
/ip firewall layer7-protocol
add name=knock1 regexp="^open sesame\$"
add comment="a TLS record of a handshake" name=tls regexp=\
    "^\\x16\\x03[\\x00-\\x03]..\\x01"
/ip firewall connection tracking
set loose-tcp-tracking=no udp-timeout=10s
/interface list member
add interface=ether1 list=WAN
add interface=pppoe-out1 list=WAN
add interface=bridge list=LAN
add interface=wireguard1 list=MGMT
/ip address
add address=192.168.88.1/24 network=192.168.88.0
add address=198.51.100.2 network=198.51.100.2
/ip firewall address-list
add address=192.168.88.0/24 list=lan
add address=203.0.113.10-203.0.113.20 comment="the office" list=trusted
add address=vpn.example.com list=trusted
add address=203.0.113.66 disabled=yes list="port scanners" timeout=4w2d
/ip firewall filter
add action=fasttrack-connection chain=forward comment="defconf: fasttrack" \
    connection-state=established,related
add action=accept chain=input comment=\
    "defconf: accept established,related,untracked" connection-state=\
    established,related,untracked
add action=drop chain=input comment="defconf: drop invalid" connection-state=\
    invalid
add action=jump chain=input comment="who scans is not listened to" \
    in-interface-list=WAN jump-target=scanners
add action=add-src-to-address-list address-list=knock1 address-list-timeout=\
    10s chain=input comment="Say \"open sesame\" first: it costs \$0, doesn't \
    it\? Not a rial, and nobody asks." dst-port=7000 layer7-protocol=knock1 \
    log=yes log-prefix="knock: " protocol=udp
add action=add-src-to-address-list address-list=secured address-list-timeout=\
    30m chain=input content="mellon!" dst-port=8000 protocol=udp \
    src-address-list=knock1
add action=accept chain=input dst-port=22,8291 protocol=tcp src-address-list=\
    secured
add action=accept chain=input comment="defconf: accept ICMP" limit=\
    50,5:packet packet-size=!1000-65535 protocol=icmp
add action=tarpit chain=input connection-limit=3,32 dst-port=23 protocol=tcp
add action=drop chain=input comment="defconf: drop all not coming from LAN" \
    in-interface-list=!LAN
add action=drop chain=forward comment=\
    "defconf: drop all from WAN not DSTNATed" connection-nat-state=!dstnat \
    connection-state=new in-interface-list=WAN
add action=return chain=scanners src-address-list=trusted
add action=add-src-to-address-list address-list="port scanners" \
    address-list-timeout=2w chain=scanners protocol=tcp psd=21,3s,3,1
add action=add-src-to-address-list address-list="port scanners" \
    address-list-timeout=2w chain=scanners comment="NMAP NULL scan" protocol=\
    tcp tcp-flags=!fin,!syn,!rst,!psh,!ack,!urg
add action=drop chain=scanners src-address-list="port scanners"
add action=drop chain=forward comment="Todo P2P" disabled=yes p2p=all-p2p
/ip firewall raw
add action=drop chain=prerouting src-address-list="port scanners"
add action=notrack chain=output protocol=ospf
/ipv6 address
add address=2001:db8::1
/ipv6 firewall address-list
add address=fe80::/16 list=allowed
add address=ff02::/16 comment=multicast list=allowed
/ipv6 firewall filter
add action=accept chain=input connection-state=established,related
add action=accept chain=input icmp-options=128:0-255 protocol=icmpv6
add action=accept chain=input dst-port=546 protocol=udp src-address=fe80::/10
add action=drop chain=forward comment="rfc4890 drop hop-limit=1" hop-limit=\
    equal:1 protocol=icmpv6
add action=reject chain=input reject-with=icmp-admin-prohibited
/ipv6 firewall raw
add action=drop chain=prerouting headers=route:contains
