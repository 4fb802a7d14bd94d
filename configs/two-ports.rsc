/ip firewall filter
add action=add-src-to-address-list address-list=temporary address-list-timeout=10s chain=input dst-port=1234 protocol=tcp
add action=add-src-to-address-list address-list=secured address-list-timeout=1m chain=input dst-port=4321 protocol=tcp src-address-list=temporary
add action=accept chain=input src-address-list=secured
add action=drop chain=input
