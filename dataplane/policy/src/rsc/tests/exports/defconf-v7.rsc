# 2024-05-01 12:00:00 by RouterOS 7.18.2
# software id = AAAA-BBBB
#
# model = C52iG-5HaxD2HaxD
# serial number = 000000000000
/disk
set usb1 media-interface=none media-sharing=no
add parent=usb1 partition-number=1 partition-offset=512 partition-size=\
    "8 000 000 000" type=partition
/interface bridge
add admin-mac=02:00:00:00:00:01 auto-mac=no comment=defconf name=bridge
/interface wifi
set [ find default-name=wifi1 ] channel.band=5ghz-ax .skip-dfs-channels=\
    10min-cac .width=20/40/80mhz configuration.mode=ap .ssid=example disabled=no \
    security.authentication-types=wpa2-psk,wpa3-psk .ft=yes .ft-over-ds=yes
/interface list
add comment=defconf name=WAN
add comment=defconf name=LAN
/ip pool
add name=default-dhcp ranges=192.168.88.10-192.168.88.254
/ip dhcp-server
add address-pool=default-dhcp interface=bridge name=defconf
/routing bgp template
set default disabled=no output.network=bgp-networks
/zerotier
set zt1 disabled=yes disabled=yes
/disk settings
set auto-media-interface=bridge auto-media-sharing=yes auto-smb-sharing=yes
/interface bridge port
add bridge=bridge comment=defconf interface=ether2
/ipv6 settings
set max-neighbor-entries=8192
/interface list member
add comment=defconf interface=bridge list=LAN
add comment=defconf interface=ether1 list=WAN
/ip address
add address=192.168.88.1/24 comment=defconf interface=bridge network=192.168.88.0
/ip firewall filter
add action=accept chain=input comment="defconf: what is known already" \
    connection-state=established,related,untracked
add action=drop chain=input comment="defconf: no invalid ones" connection-state=invalid
add action=accept chain=input comment="defconf: pings" protocol=icmp
add action=accept chain=input comment="defconf: the loopback of CAPsMAN" \
    dst-address=127.0.0.1
add action=drop chain=input comment="defconf: none but from LAN" in-interface-list=!LAN
add action=accept chain=forward comment="defconf: in through IPsec" ipsec-policy=in,ipsec
add action=accept chain=forward comment="defconf: out through IPsec" ipsec-policy=out,ipsec
add action=fasttrack-connection chain=forward comment="defconf: fasttrack" \
    connection-state=established,related hw-offload=yes
add action=accept chain=forward comment="defconf: what is known already" \
    connection-state=established,related,untracked
add action=drop chain=forward comment="defconf: no invalid ones" connection-state=invalid
add action=drop chain=forward comment="defconf: nothing from WAN that is not forwarded" \
    connection-nat-state=!dstnat connection-state=new in-interface-list=WAN
/ip firewall nat
add action=masquerade chain=srcnat comment="defconf: masquerade" ipsec-policy=out,none \
    out-interface-list=WAN
/ip ipsec profile
set [ find default=yes ] dpd-interval=2m dpd-maximum-failures=5
/ipv6 firewall address-list
add address=::/128 comment="defconf: no address" list=bad_ipv6
add address=::1/128 comment="defconf: loopback" list=bad_ipv6
add address=fec0::/10 comment="defconf: of sites" list=bad_ipv6
add address=::ffff:0.0.0.0/96 comment="defconf: mapped" list=bad_ipv6
add address=::/96 comment="defconf: compatible" list=bad_ipv6
add address=100::/64 comment="defconf: to be thrown away" list=bad_ipv6
add address=2001:db8::/32 comment="defconf: for documents" list=bad_ipv6
add address=2001:10::/28 comment="defconf: ORCHID" list=bad_ipv6
add address=3ffe::/16 comment="defconf: 6bone" list=bad_ipv6
/ipv6 firewall filter
add action=accept chain=input comment="defconf: what is known already" \
    connection-state=established,related,untracked
add action=drop chain=input comment="defconf: no invalid ones" connection-state=invalid
add action=accept chain=input comment="defconf: ICMPv6" protocol=icmpv6
add action=accept chain=input comment="defconf: traceroute" dst-port=33434-33534 protocol=udp
add action=accept chain=input comment="defconf: a prefix by DHCPv6" dst-port=546 \
    protocol=udp src-address=fe80::/10
add action=accept chain=input comment="defconf: IKE" dst-port=500,4500 protocol=udp
add action=accept chain=input comment="defconf: AH" protocol=ipsec-ah
add action=accept chain=input comment="defconf: ESP" protocol=ipsec-esp
add action=accept chain=input comment="defconf: through IPsec" ipsec-policy=in,ipsec
add action=drop chain=input comment="defconf: none but from LAN" in-interface-list=!LAN
add action=fasttrack-connection chain=forward comment="defconf: fasttrack6" \
    connection-state=established,related
add action=drop chain=forward comment="defconf: from nowhere" src-address-list=bad_ipv6
add action=drop chain=forward comment="defconf: to nowhere" dst-address-list=bad_ipv6
add action=drop chain=forward comment="defconf: the last hop" hop-limit=equal:1 protocol=icmpv6
add action=accept chain=forward comment="defconf: ICMPv6" protocol=icmpv6
add action=accept chain=forward comment="defconf: HIP" protocol=139
add action=drop chain=forward comment="defconf: none but from LAN" in-interface-list=!LAN
/system clock
set time-zone-name=Europe/Riga
/system note
set show-at-login=no
/system script
add dont-require-permissions=no name=mode owner=*sys policy=ftp,reboot,read source="\
    \r\
    \n   :foreach iface in=[/interface/find] do={\r\
    \n     :put \"\$iface\"\r\
    \n   }\r\
    \n   "
/system routerboard mode-button
set enabled=yes on-event=mode
/tool mac-server
set allowed-interface-list=LAN
