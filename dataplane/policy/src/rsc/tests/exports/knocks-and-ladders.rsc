# Doors: ports in their order, a word, a ping of a size. Ladders: the last step first.
/ip/firewall/filter
add action=add-src-to-address-list address-list=knock-1 address-list-timeout=00:00:15 chain=input comment="first port" dst-port=7000 protocol=tcp
add action=add-src-to-address-list address-list=knock-2 address-list-timeout=15s chain=input comment="second port" dst-port=8000 protocol=tcp src-address-list=knock-1
add action=add-src-to-address-list address-list=known address-list-timeout=1d00:00:00 chain=input comment="third port" dst-port=9000 protocol=udp src-address-list=knock-2 log=yes log-prefix="a door is open:"
# `!` stands before all of the ports, so this one is refused.
add action=accept chain=input comment="the open door" dst-port=22,8291,!80 protocol=tcp src-address-list=known
add action=accept chain=input comment="the open door" dst-port=22,8291 protocol=tcp src-address-list=known
add action=add-src-to-address-list address-list=tries address-list-timeout=1w chain=input comment="who knocks at every door" dst-port=7001-7999,8001-8999 protocol=tcp src-address-list=!known disabled=yes
add action=add-src-to-address-list address-list=word address-list-timeout=30 chain=input content="open \"sesame\"" dst-port=1234 protocol=udp
add action=accept chain=input icmp-options=8:0 packet-size=128 protocol=icmp src-address-list=word
# Who tries passwords of FTP: what the server answers tells.
add chain=input protocol=tcp dst-port=21 src-address-list=ftp_blacklist action=drop
add chain=output action=accept protocol=tcp content="530 Login incorrect" dst-limit=1/1m,9,dst-address/1m
add chain=output action=add-dst-to-address-list protocol=tcp content="530 Login incorrect" address-list=ftp_blacklist address-list-timeout=3h
# Who tries those of SSH.
add chain=input protocol=tcp dst-port=22 src-address-list=ssh_blacklist action=drop comment="drop them" disabled=no
add chain=input protocol=tcp dst-port=22 connection-state=new src-address-list=ssh_stage3 action=add-src-to-address-list address-list=ssh_blacklist address-list-timeout=1w3d comment="" disabled=no
add chain=input protocol=tcp dst-port=22 connection-state=new src-address-list=ssh_stage2 action=add-src-to-address-list address-list=ssh_stage3 address-list-timeout=1m comment="" disabled=no
add chain=input protocol=tcp dst-port=22 connection-state=new src-address-list=ssh_stage1 action=add-src-to-address-list address-list=ssh_stage2 address-list-timeout=1m comment="" disabled=no
add chain=input protocol=tcp dst-port=22 connection-state=new action=add-src-to-address-list address-list=ssh_stage1 address-list-timeout=1m comment="" disabled=no
