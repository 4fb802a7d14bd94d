# Other packets that pass an open door and do not pass a closed one: VLAN, QinQ, IPv6, fragments.
# shellcheck shell=dash
ends() { for end in client server; do "$@" $end; done; }
tagged() {
    ip -n "$1" link add link "$1" name v5 type vlan id 5
    ip -n "$1" link set v5 up
    ip -n "$1" link add link v5 name v6 type vlan id 6
    ip -n "$1" link set v6 up
    host=1
    [ "$1" = client ] || host=2
    ip -n "$1" addr add 10.9.5.$host/24 dev v5
    ip -n "$1" addr add 10.9.6.$host/24 dev v6
    ip netns exec "$1" sysctl -q -w "net.ipv6.conf.$1.disable_ipv6=0"
    ip -n "$1" addr add fd09::$host/64 dev "$1" nodad
}
mtu() {
    ip -n "$2" link set "$2" mtu "$1"
}
ends tagged
for kind in vlan:10.9.5.2 qinq:10.9.6.2 ipv6:fd09::2; do
    name=${kind%%:*} address=${kind#*:}
    equal "$name-closed" no "$(yes_or_no passes "$address")"
    in_client knocker -d 100 "$address" 7000 '4321:udp=open sesame' 1234
    sleep 1
    equal "$name-open" yes "$(yes_or_no passes "$address")"
done
ends mtu "$(argument mtu 1500)"
equal fragments yes "$(yes_or_no passes "$SERVER" -s 4000)"
equal fragments-of-a-stranger no "$(yes_or_no passes "$SERVER" -s 4000 -I "$STRANGER")"
ends mtu 9000
