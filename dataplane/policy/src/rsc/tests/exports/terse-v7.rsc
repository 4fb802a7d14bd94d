# 2025-01-02 03:04:05 by RouterOS 7.16
/interface bridge add name=bridge1
/interface list add name=WAN
/interface list member add interface=ether1 list=WAN
/ip address add address=192.0.2.1/24 interface=bridge1 network=192.0.2.0
/ip firewall address-list add address=www.example.org list=names
/ip firewall address-list add address=198.51.100.7 creation-time=2024-12-31 list=friends timeout=1w
/ip firewall filter add action=accept chain=input connection-state=established,related
/ip firewall filter add action=accept chain=input comment="a comment; with # and = and {}" src-address-list=friends
/ip firewall filter add action=drop chain=input in-interface-list=WAN
/ip firewall layer7-protocol add name=word regexp="^\\x13knock\$"
/ip firewall nat add action=masquerade chain=srcnat out-interface-list=WAN
/ip firewall raw add action=notrack chain=output protocol=ospf
/ipv6 address add address=2001:db8::1 advertise=no interface=bridge1
/ipv6 firewall filter add action=reject chain=forward reject-with=icmp-no-route
/system scheduler add interval=1d name=daily on-event="/ip firewall filter\r\nadd chain=input" start-time=startup
