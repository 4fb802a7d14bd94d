/ip firewall filter
add action=drop chain=input
/ipv6 firewall filter
add action=drop chain=input
