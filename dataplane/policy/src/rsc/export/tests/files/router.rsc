/interface list
set [ find name=all ] comment="contains all interfaces"
add comment=defconf name=WAN
add comment="caf\E9 and \C3\A9" exclude=WAN include=all name="the rest"
/ip firewall layer7-protocol
add comment="8 bits: \E1" name=knock regexp="^open sesame\$"
/ip firewall connection tracking
set enabled=yes liberal-tcp-tracking=yes udp-timeout=10s
/interface list member
add comment=defconf interface=bridge list="the rest"
add comment="the fibre" interface=ether1 list=WAN
add disabled=yes interface=ether2 list="the rest"
add interface=pppoe-out1 list=WAN
/ip address
add address=192.0.2.1/24 comment="the office" interface=bridge network=\
    192.0.2.0
add address=198.51.100.7/30 disabled=yes interface=ether1 network=\
    198.51.100.4
add address=203.0.113.1 interface=lo network=203.0.113.1
/ip firewall address-list
add address=192.0.2.0/24 comment="administra\E7\E3o" list="administra\E7\E3o"
add address=vpn.example.com disabled=yes list=friends
/ip firewall filter
add action=fasttrack-connection chain=forward connection-state=\
    established,related hw-offload=yes
add action=drop chain=input comment="all else" in-interface-list=WAN \
    log-prefix="IN DROP"
add action=jump chain=input comment="filled by others" jump-target=billing \
    src-address-list="!administra\E7\E3o"
/ipv6 address
add address=::1 advertise=no comment="from the pool" from-pool=pool6 \
    interface=bridge
add address=2001:db8::/48 eui-64=yes interface=bridge
add from-pool=pool6 interface=ether5 no-dad=yes
