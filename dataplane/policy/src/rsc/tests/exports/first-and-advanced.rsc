# A firewall as it is built step by step: what is dropped before tracking stands in raw.
/interface list
add comment=defconf name=WAN
add comment=defconf name=LAN
/interface list member
add interface=bridge1 list=LAN
add interface=ether1 list=WAN
/ip firewall address-list
  add address=0.0.0.0/8 comment="this network" list=no_forward_ipv4
  add address=169.254.0.0/16 comment="link local" list=no_forward_ipv4
  add address=224.0.0.0/4 comment="multicast" list=no_forward_ipv4
  add address=255.255.255.255/32 comment="broadcast" list=no_forward_ipv4
  add address=127.0.0.0/8 list=bad_ipv4
  add address=192.0.0.0/24 list=bad_ipv4
  add address=240.0.0.0/4 list=bad_ipv4
  add address=224.0.0.0/4 list=bad_src_ipv4
  add address=255.255.255.255 list=bad_src_ipv4
  add address=0.0.0.0/8 list=bad_dst_ipv4
  add address=192.168.88.2-192.168.88.254 list=allowed_to_router
/ip firewall filter
  add action=accept chain=input comment="pings that raw let pass" protocol=icmp
  add action=accept chain=input connection-state=established,related,untracked
  add action=accept chain=input src-address-list=allowed_to_router
  add action=drop chain=input in-interface-list=!LAN
  add action=accept chain=forward comment="all of IPsec" ipsec-policy=in,ipsec disabled=yes
  add action=fasttrack-connection chain=forward connection-state=established,related
  add action=accept chain=forward connection-state=established,related,untracked
  add action=drop chain=forward connection-state=invalid log=yes log-prefix=invalid
  add action=drop chain=forward dst-address-list=no_forward_ipv4 in-interface=bridge1 log=yes log-prefix=!public out-interface=!bridge1
  add action=jump chain=forward protocol=icmp jump-target=icmp comment="each kind of ICMP"
  add action=drop chain=forward src-address-list=no_forward_ipv4
  add action=drop chain=forward connection-nat-state=!dstnat connection-state=new in-interface-list=WAN
  add action=reject chain=forward reject-with=icmp-admin-prohibited src-address-list=blocked time=8h-17h,mon,tue,wed,thu,fri
  add chain=icmp protocol=icmp icmp-options=0:0 action=accept comment="echo reply"
  add chain=icmp protocol=icmp icmp-options=3:0 action=accept
  add chain=icmp protocol=icmp icmp-options=3:4 action=accept
  add chain=icmp protocol=icmp icmp-options=11:0 action=accept
  add chain=icmp action=drop comment="no other types"
/ip firewall raw
add action=accept chain=prerouting comment="to see through all of it" disabled=yes
add action=accept chain=prerouting comment="who asks for an address" dst-address=255.255.255.255 \
    in-interface-list=LAN protocol=udp src-address=0.0.0.0 src-port=68
add action=drop chain=prerouting src-address-list=bad_ipv4
add action=drop chain=prerouting dst-address-list=bad_ipv4
add action=drop chain=prerouting src-address-list=bad_src_ipv4
add action=drop chain=prerouting in-interface-list=LAN src-address=!192.168.88.0/24
add action=drop chain=prerouting comment="UDP without a port" port=0 protocol=udp
add action=jump chain=prerouting jump-target=icmp4 protocol=icmp
add action=jump chain=prerouting jump-target=bad_tcp protocol=tcp
add action=accept chain=prerouting in-interface-list=LAN
add action=accept chain=prerouting in-interface-list=WAN
add action=drop chain=prerouting
add action=drop chain=bad_tcp comment="no flags at all" protocol=tcp tcp-flags=!fin,!syn,!rst,!ack
add action=drop chain=bad_tcp protocol=tcp tcp-flags=fin,syn
add action=drop chain=bad_tcp protocol=tcp tcp-flags=fin,rst
add action=drop chain=bad_tcp protocol=tcp tcp-flags=fin,!ack
add action=drop chain=bad_tcp protocol=tcp tcp-flags=fin,urg
add action=drop chain=bad_tcp protocol=tcp tcp-flags=syn,rst
add action=drop chain=bad_tcp protocol=tcp tcp-flags=rst,urg
add action=drop chain=bad_tcp comment="TCP without a port" port=0 protocol=tcp
add action=accept chain=icmp4 icmp-options=0:0 limit=5,10:packet protocol=icmp
add action=accept chain=icmp4 icmp-options=3:0-15 protocol=icmp
add action=accept chain=icmp4 icmp-options=8:0 limit=5,10:packet protocol=icmp
add action=accept chain=icmp4 icmp-options=11:0 protocol=icmp
add action=drop chain=icmp4 protocol=icmp
/ipv6 firewall raw
add action=accept chain=prerouting disabled=yes
add action=accept chain=prerouting comment="neighbours" dst-address=ff02:0:0:0:0:1:ff00::/104 \
    icmp-options=135 protocol=icmpv6 src-address=::/128
add action=drop chain=prerouting src-address-list=bad_ipv6
add action=drop chain=prerouting comment="what no node sends" dst-address=ff00::/8 \
    dst-address-list=!allowed_multicast
add action=jump chain=prerouting jump-target=icmp6 protocol=icmpv6
add action=accept chain=prerouting dst-address=ff02::/16 protocol=icmpv6
add action=drop chain=prerouting
add action=drop chain=icmp6 hop-limit=not-equal:255 icmp-options=133:0-255 protocol=icmpv6
add action=accept chain=icmp6 icmp-options=1:0-255 protocol=icmpv6
add action=accept chain=icmp6 icmp-options=128:0-255 limit=5,10:packet protocol=icmpv6
add action=drop chain=icmp6 headers=hop,frag:contains protocol=icmpv6
