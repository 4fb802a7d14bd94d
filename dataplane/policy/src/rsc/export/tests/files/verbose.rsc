# jan/02/1970 04:55:05 by RouterOS 5.26
# software id = ABCD-1234
#
/ip firewall layer7-protocol
add comment="" name=knock1 regexp="^supersecretpassword1\$"
/ip firewall connection tracking
set enabled=yes generic-timeout=10m icmp-timeout=10s tcp-close-timeout=10s \
    tcp-established-timeout=1d tcp-syn-sent-timeout=5s udp-stream-timeout=3m
/ip firewall filter
add action=accept chain=input comment="" connection-state=established disabled=no \
    !connection-limit !content !dst-port
add action=add-src-to-address-list address-list=temporary \
    address-list-timeout=00:00:10 chain=input comment="" disabled=no dst-port=\
    1234 layer7-protocol=knock1 log=no log-prefix="" protocol=udp
add action=accept chain=input comment="corta ping de 99 bytes a m\E1s." disabled=no \
    limit=1,5 protocol=1 src-address-list=temporary
add action=jump chain=input comment="" disabled=yes jump-target=hs-input
add action=passthrough chain=hs-input comment="place hotspot rules here" \
    disabled=yes
add action=accept chain=input connection-mark=!web disabled=no src-address=10.0.0.7/8
add action=drop chain=input comment="" disabled=no
