# jan/01/2013 00:00:00 by RouterOS 5.26
# software id = AAAA-BBBB
#
/interface bridge
add admin-mac=00:00:00:00:00:00 ageing-time=5m arp=enabled auto-mac=yes \
    disabled=no forward-delay=15s l2mtu=1598 max-message-age=20s mtu=1500 \
    name=bridge-local priority=0x8000 protocol-mode=rstp \
    transmit-hold-count=6
/ip firewall layer7-protocol
add comment="" name=sesame regexp="^open sesame\\\?\$"
/ip address
add address=192.168.88.1/24 comment="default configuration" disabled=no \
    interface=bridge-local network=192.168.88.0
/ip firewall address-list
add address=10.0.0.0/8 comment="" disabled=no list=support
/ip firewall connection tracking
set enabled=yes generic-timeout=10m icmp-timeout=10s tcp-close-timeout=10s \
    tcp-close-wait-timeout=10s tcp-established-timeout=1d \
    tcp-fin-wait-timeout=10s tcp-last-ack-timeout=10s \
    tcp-syn-received-timeout=5s tcp-syn-sent-timeout=5s tcp-syncookie=no \
    tcp-time-wait-timeout=10s udp-stream-timeout=3m udp-timeout=10s
/ip firewall filter
add action=accept chain=input comment="default configuration" disabled=no \
    protocol=icmp
add action=accept chain=input comment="default configuration" \
    connection-state=established disabled=no
add action=accept chain=input comment="default configuration" \
    connection-state=related disabled=no
add action=add-src-to-address-list address-list=knocked \
    address-list-timeout=1m chain=input comment="the word, and a comment tha\
    t is broken where it should not be" disabled=no dst-port=1234 \
    layer7-protocol=sesame protocol=udp
add action=accept chain=input comment="\E1 caf\C3\A9, \"quoted\"; # \_ and \\ \
    \n\ta second line" disabled=no dst-port=22 protocol=tcp \
    src-address-list=knocked
add action=log chain=input comment="" disabled=yes log-prefix=""
add action=drop chain=input comment="default configuration" disabled=no \
    in-interface=ether1-gateway
/ip firewall nat
add action=masquerade chain=srcnat comment="default configuration" \
    disabled=no out-interface=ether1-gateway
/ip firewall service-port
set ftp disabled=no ports=21
set sip disabled=no ports=5060,5061
/ip proxy
set always-from-cache=no cache-administrator=webmaster cache-hit-dscp=4
