# Functions that the checks of a guest share. init sources this file.
# shellcheck shell=dash

OUTSIDE_MAC=52:54:00:00:00:01
INSIDE_MAC=52:54:00:00:00:02
CLIENT_MAC=52:54:00:00:00:03
SERVER_MAC=52:54:00:00:00:04
CLIENT=10.9.0.1
SERVER=10.9.0.2
# Another address of the client, for which no door is ever open.
STRANGER=10.9.0.77
failed=0
dataplane=''
control=''

# busybox's shell would use its own `ip`, which does not support network namespaces.
ip() { /usr/sbin/ip "$@"; }

# The value of vm.NAME= on the kernel's command line, or else $2.
argument() {
    value=$(sed -n "s/.*\bvm\.$1=\([^ ]*\).*/\1/p" /proc/cmdline)
    echo "${value:-${2:-}}"
}

# The values that the cell expects for outside and inside: vm.NAME=BOTH or vm.NAME=OUTSIDE+INSIDE.
of_both() {
    value=$(argument "$1")
    echo "${value%+*} ${value#*+}"
}

result() {
    [ "$1" = PASS ] || failed=$((failed + 1))
    printf 'CHECK %s %s: ' "$1" "$2"
    shift 2
    echo "$*"
}

# equal NAME EXPECTED FOUND
equal() {
    if [ "$2" = "$3" ]; then result PASS "$1" "$3"; else result FAIL "$1" "expected $2, found $3"; fi
}

in_client() { ip netns exec client "$@"; }
in_server() { ip netns exec server "$@"; }

# A namespace with one NIC of the same name. Its offloads are off, so that the namespace completes checksums and tags
# itself.
far_end() {
    ip netns add "$1"
    ip link set "$1" netns "$1"
    ip -n "$1" link set lo up
    ip -n "$1" addr add "$2/24" dev "$1"
    ip netns exec "$1" sysctl -q -w "net.ipv6.conf.$1.disable_ipv6=1"
    ip -n "$1" link set "$1" up mtu 9000
    ip netns exec "$1" ethtool -K "$1" tx off tso off gso off gro off txvlan off >/dev/null 2>&1
}

carriers() {
    for _ in $(seq 50); do
        [ "$(cat /sys/class/net/outside/carrier /sys/class/net/inside/carrier 2>/dev/null | tr -d '\n')" = 11 ] && return 0
        sleep 0.2
    done
    return 1
}

# Starts both processes with a configuration, by default the one of /etc, and waits until they answer.
start() {
    knockplane-dataplane --config "${1:-/etc/knockplane/knockplane.toml}" >>/tmp/dataplane.log 2>&1 &
    dataplane=$!
    for _ in $(seq 100); do
        [ -S /run/knockplane/dataplane.sock ] && break
        kill -0 "$dataplane" 2>/dev/null || return 1
        sleep 0.1
    done
    [ -n "$control" ] || {
        knockplane-control --config /etc/knockplane/knockplane.toml >/tmp/control.log 2>&1 &
        control=$!
    }
    for _ in $(seq 100); do
        knockctl show status >/dev/null 2>&1 && carriers && return 0
        kill -0 "$dataplane" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

stop() {
    kill "$dataplane" && wait "$dataplane"
}

# The values of a key in `knockctl show status`, one after the other.
status() {
    knockctl --json show status | tr ',{}[]' '\n' | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\"]*\)\"\{0,1\} *$/\1/p" | tr '\n' ' ' |
        sed 's/ $//'
}

# A field of each worker in `knockctl show workers`, in the order of workers. If the field has a number for each side,
# the number of outside.
workers() {
    knockctl --json show workers | tr -d ' \n' | grep -oE "\"$1\":(\{\"outside\":)?[0-9]+" | grep -oE '[0-9]+$' | tr '\n' ' ' | sed 's/ $//'
}
# Frames of the workers' pools that are in no ring and in no other known place.
lost_frames() { workers lost | tr ' ' '\n' | sort -u | tr '\n' ' ' | sed 's/ $//'; }
# difference BEFORE AFTER: the differences of the numbers at the same positions.
difference() {
    echo "$1 $2" | awk '{ for (i = 1; i <= NF / 2; i++) printf "%s%d", (i > 1 ? " " : ""), $(i + NF / 2) - $i }'
}

# Reads the metrics. Those of interfaces are a second old at most.
scrape() {
    sleep 1.5
    wget -qO /tmp/metrics http://127.0.0.1:9479/metrics
}
# metric NAME [LABEL…]: the sum of the metric's series with these labels, from the metrics that were read last.
metric() {
    series=$(grep "^knockplane_$1[{ ]" /tmp/metrics)
    shift
    for label in "$@"; do series=$(echo "$series" | grep -F "$label"); done
    echo "$series" | awk '{ sum += $NF } END { printf "%d", sum }'
}

ping_passes() { in_client ping -c 2 -W 2 "$SERVER" >/dev/null 2>&1; }
tcp_passes() { in_client timeout 4 nc -w 3 "$SERVER" 22 </dev/null 2>/dev/null | grep -q hello-from-server; }
yes_or_no() { if "$@"; then echo yes; else echo no; fi; }

# knock PASSPHRASE
knock() {
    in_client knocker -d 100 "$SERVER" 7000 "4321:udp=$1" 1234
    sleep 1
}

# Frames that the server's NIC has received.
server_frames() { in_server cat /sys/class/net/server/statistics/rx_packets; }

# passes ADDRESS [ping's options]: whether the server answers there.
passes() {
    address=$1
    shift
    in_client ping -c 2 -W 2 "$@" "$address" >/dev/null 2>&1
}
# newcomer ADDRESS: the client sends to the server from this address from now on.
newcomer() {
    silence
    ip -n client addr replace "$1/24" dev client
    ip -n server neigh replace "$1" lladdr "$CLIENT_MAC" dev server nud permanent
    ip -n client route replace "$SERVER/32" dev client src "$1"
}
# Only frames of a check are on the wire, because the neighbour entries are permanent.
silence() {
    ip -n client neigh replace "$SERVER" lladdr "$SERVER_MAC" dev client nud permanent
    ip -n server neigh replace "$CLIENT" lladdr "$CLIENT_MAC" dev server nud permanent
}
stranger_passes() { passes "$SERVER" -I "$STRANGER"; }

# Ends the counting probe at the server's port 9, whose output is /tmp/counted, and prints it.
counted() {
    in_server guest-probe stop 127.0.0.1:9
    for _ in $(seq 50); do
        [ -s /tmp/counted ] && break
        sleep 0.1
    done
    cat /tmp/counted
}

# Waits until packets of the door's source pass, for example after a link was down.
passes_again() {
    for _ in $(seq 15); do
        ping_passes && return 0
    done
    return 1
}
