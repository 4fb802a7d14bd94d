# jan/02/1970 00:01:20 by RouterOS 6.49.10
# software id = AAAA-BBBB
#
# model = RB951Ui-2HnD
# serial number = 000000000000
/interface bridge
add admin-mac=02:00:00:00:00:01 auto-mac=no comment=defconf name=bridge
/interface wireless
set [ find default-name=wlan1 ] band=2ghz-b/g/n channel-width=20/40mhz-XX \
    country=no_country_set disabled=no distance=indoors frequency=auto mode=\
    ap-bridge ssid=example station-roaming=enabled wireless-protocol=802.11
/interface list
add comment=defconf name=WAN
add comment=defconf name=LAN
/interface wireless security-profiles
set [ find default=yes ] authentication-types=wpa2-psk mode=dynamic-keys \
    supplicant-identity=MikroTik wpa2-pre-shared-key="a \$ and a \"quote\""
/ip hotspot profile
set [ find default=yes ] html-directory=flash/hotspot
/ip pool
add name=default-dhcp ranges=192.168.88.10-192.168.88.254
/ip dhcp-server
add address-pool=default-dhcp disabled=no interface=bridge name=defconf
/user group
set full policy="local,telnet,ssh,ftp,reboot,read,write,policy,test,winbox,passw\
    ord,web,sniff,sensitive,api,romon,dude,tikapp"
/interface bridge port
add bridge=bridge comment=defconf interface=ether2
add bridge=bridge comment=defconf interface=wlan1
/ip neighbor discovery-settings
set discover-interface-list=LAN
/interface list member
add comment=defconf interface=bridge list=LAN
add comment=defconf interface=ether1 list=WAN
/ip address
add address=192.168.88.1/24 comment=defconf interface=ether2 network=\
    192.168.88.0
/ip dhcp-client
add comment=defconf disabled=no interface=ether1
/ip dns
set allow-remote-requests=yes
/ip dns static
add address=192.168.88.1 comment=defconf name=router.lan
/ip firewall filter
add action=accept chain=input comment=\
    "defconf: what is known already" connection-state=\
    established,related,untracked
add action=drop chain=input comment="defconf: no invalid ones" connection-state=\
    invalid
add action=accept chain=input comment="defconf: pings" protocol=icmp
add action=accept chain=input comment=\
    "defconf: the loopback of CAPsMAN" dst-address=127.0.0.1
add action=drop chain=input comment="defconf: none but from LAN" \
    in-interface-list=!LAN
add action=accept chain=forward comment="defconf: in through IPsec" \
    ipsec-policy=in,ipsec
add action=accept chain=forward comment="defconf: out through IPsec" \
    ipsec-policy=out,ipsec
add action=fasttrack-connection chain=forward comment="defconf: fasttrack" \
    connection-state=established,related
add action=accept chain=forward comment=\
    "defconf: what is known already" connection-state=\
    established,related,untracked
add action=drop chain=forward comment="defconf: no invalid ones" \
    connection-state=invalid
add action=drop chain=forward comment=\
    "defconf: nothing from WAN that is not forwarded" connection-nat-state=\
    !dstnat connection-state=new in-interface-list=WAN
/ip firewall nat
add action=masquerade chain=srcnat comment="defconf: masquerade" \
    ipsec-policy=out,none out-interface-list=WAN
/system clock
set time-zone-name=Europe/Riga
/system identity
set name="my router"
/tool mac-server
set allowed-interface-list=LAN
/tool mac-server mac-winbox
set allowed-interface-list=LAN
