# Written by hand.
/ip/firewall/filter
add chain=input comment="drop the rest" action=drop
add chain=input comment="knock 1" action=add-src-to-address-list address-list=knock1 address-list-timeout=15 protocol=tcp dst-port=1000,2000-2010 place-before=0
add chain=input comment="knock 2;;; or not" action=add-src-to-address-list address-list=open address-list-timeout=0 protocol=tcp dst-port=!1000 src-address-list=knock1 place-before=[find comment="drop the rest"]
add chain=input src-address-list=open place-before=[find where action=drop]; add chain=output dst-address=198.51.100.1-198.51.100.1
set [find comment="drop the rest"] log=yes log-prefix="drop "
disable [find chain=output]
.. raw
add chain=prerouting action=drop src-address-type="" dst-address-type=!local,broadcast
/ip firewall nat
add chain=srcnat action=masquerade out-interface=ether1
/ip firewall address-list add list=friends address=192.0.2.7
/ip firewall address-list add list=friends address=192.0.2.8
/ip firewall address-list remove [find address=192.0.2.7]
/ipv6 firewall filter
add chain=input comment="an IPv6 address without a length" src-address=2001:db8::7
