# Floods: sources and targets of too many new connections meet in raw.
/ip firewall address-list
add list=flooders
add list=flooded
/ip firewall filter
add action=return chain=count dst-limit=32,32,src-and-dst-addresses/10s
add action=add-dst-to-address-list address-list=flooded address-list-timeout=10m chain=count
add action=add-src-to-address-list address-list=flooders address-list-timeout=10m chain=count
add action=return chain=count dst-limit=32,32,src-and-dst-addresses/10s protocol=tcp tcp-flags=syn,ack
add action=jump chain=forward connection-state=new jump-target=count
add action=add-src-to-address-list address-list=blocked-addr address-list-timeout=1d chain=input connection-limit=100,32 protocol=tcp
add action=tarpit chain=input connection-limit=3,32 protocol=tcp src-address-list=blocked-addr
add action=jump chain=forward comment="floods of SYNs" connection-state=new jump-target=syns protocol=tcp tcp-flags=syn
add action=accept chain=syns connection-state=new limit=400,5:packet protocol=tcp tcp-flags=syn
add action=drop chain=syns connection-state=new protocol=tcp tcp-flags=syn
add action=drop chain=input psd=21,3s,3,1 protocol=tcp comment="port scans"
add action=accept chain=input limit=50/5s,2 protocol=icmp
add action=drop chain=input tcp-mss=!536-65535 protocol=tcp tcp-flags=syn connection-state=new
add action=drop chain=forward p2p=all-p2p comment="of old versions"
add action=drop chain=forward connection-rate=0-100k connection-bytes=500000-0 protocol=tcp
add action=drop chain=forward tls-host=*.example.com protocol=tcp dst-port=443
add action=accept chain=forward connection-mark=vip packet-mark=!no-mark
add action=accept chain=forward connection-mark=no-mark
add action=drop chain=input nth=2,1 random=50 comment="half of a half"
add action=drop chain=forward per-connection-classifier=both-addresses-and-ports:2/0
/ip firewall raw
add action=drop chain=prerouting dst-address-list=flooded src-address-list=flooders
/ip settings
set tcp-syncookies=yes rp-filter=strict
