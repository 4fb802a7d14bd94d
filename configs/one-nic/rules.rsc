# What a host with one NIC needs besides its doors: the answers to what it asks for itself, and its own lease.
/ip firewall filter
add chain=input connection-state=established,related action=accept comment="answers"
add chain=input protocol=udp src-port=67 dst-port=68 action=accept comment="DHCP"
add chain=input action=drop
