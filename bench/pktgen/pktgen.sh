#!/bin/sh
# The kernel's packet generator (module pktgen) with those profiles of knockplane-generate that it supports: it sends only UDP,
# and one kind of frame at a time. Source: Linux Documentation/networking/pktgen.rst.
#
#   pktgen.sh INTERFACE --profile P [--rate N] [--frame-bytes N] [--count N] [--seconds N] [--core N]
#             [--from ADDRESS[/LENGTH] | --from FIRST-LAST] [--to ADDRESS] [--destination-mac MAC] [--port N]
#
# Profiles: flow, flows:N, random-ports, sources-sequential, sources-random, first-knocks.
# The module does not vary IPv6 sources: over IPv6, only profiles with one source. It never sends the last value of a random range.
# The script ends at the count, at the time, or at Ctrl-C, whichever is first.
# Exit codes: 0 done, 1 failed or nothing was sent, 2 usage.
set -eu

pktgen=/proc/net/pktgen

fail() {
    echo "pktgen.sh: $1" >&2
    exit 1
}

usage() {
    echo "pktgen.sh: $1" >&2
    sed -n '5,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# write FILE COMMAND: writes one command to the module.
write() {
    echo "$2" 2>/dev/null >"$pktgen/$1" || fail "the module refused '$2'"
}

device() {
    write "$interface" "$1"
}

# An IPv4 address as a number, and back.
number() {
    IFS=. read -r a b c d <<TEXT
$1
TEXT
    for part in "$a" "$b" "$c" "$d"; do
        case $part in '' | *[!0-9]*) usage "no IPv4 address: $1" ;; esac
        [ "$part" -le 255 ] || usage "no IPv4 address: $1"
    done
    echo $((a << 24 | b << 16 | c << 8 | d))
}

address() {
    echo $(($1 >> 24 & 255)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))
}

interface=${1:-}
case $interface in '' | -*) usage 'which interface?' ;; esac
shift
profile='' rate='' frame_bytes='' count=0 seconds=10 core=0 from='' to='' mac=02:00:00:00:00:01 port=9
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage "$1 needs a value"
    case $1 in
    --profile) profile=$2 ;;
    --rate) rate=$2 ;;
    --frame-bytes) frame_bytes=$2 ;;
    --count) count=$2 ;;
    --seconds) seconds=$2 ;;
    --core) core=$2 ;;
    --from) from=$2 ;;
    --to) to=$2 ;;
    --destination-mac) mac=$2 ;;
    --port) port=$2 ;;
    *) usage "unknown option $1" ;;
    esac
    shift 2
done
case $rate in
*k) rate=${rate%k}000 ;;
*M) rate=${rate%M}000000 ;;
esac
for value in "${rate:-1}" "${frame_bytes:-60}" "$count" "$seconds" "$core" "$port"; do
    case $value in '' | *[!0-9]*) usage "not a whole number: $value" ;; esac
done

[ "$port" -le 65535 ] || usage "no port: $port"

case $profile in
flow | random-ports | sources-sequential | sources-random) ;;
flows:*)
    flows=${profile#flows:}
    case $flows in '' | *[!0-9]*) usage "flows:N, with a number" ;; esac
    [ "$flows" -ge 1 ] && [ "$flows" -le 64511 ] || usage 'flows:N, with N from 1 to 64511'
    ;;
first-knocks)
    port=1234
    echo 'pktgen.sh: these knocks are UDP: the rules have to take protocol=udp' >&2
    ;;
knock | mix) usage "the kernel's generator cannot send $profile: one kind of frame at a time, and UDP; use knockplane-generate" ;;
'') usage 'which profile?' ;;
*) usage "no profile $profile" ;;
esac

case $from$to in
*:*) ipv6=1 from=${from:-2001:2::1} to=${to:-2001:2:0:1::1} ;;
*) ipv6='' from=${from:-198.18.0.1/16} to=${to:-198.19.0.1} ;;
esac
# Headers, and 16 bytes of the module. It lengthens shorter frames without a message.
least=60
[ -z "$ipv6" ] || least=78
frame_bytes=${frame_bytes:-$((least > 64 ? least : 64))}
[ "$frame_bytes" -ge $least ] || usage "--frame-bytes is $least at least"
# The first source, and the last one if there is more than one.
last=''
case $from in
*-*) first=${from%-*} last=${from#*-} ;;
*/*)
    first=${from%/*} length=${from#*/}
    if [ -z "$ipv6" ]; then
        case $length in '' | *[!0-9]*) usage "no prefix: $from" ;; esac
        [ "$length" -le 32 ] || usage "no prefix: $from"
        last=$(address $(($(number "$first") | ((1 << (32 - length)) - 1))))
    fi
    ;;
*) first=$from ;;
esac
case $profile in
sources-* | first-knocks)
    [ -z "$ipv6" ] || usage "the kernel's generator cannot vary IPv6 sources; use knockplane-generate for $profile"
    [ -n "$last" ] || usage "$profile needs --from FIRST-LAST, or a prefix"
    ;;
*) last='' ;;
esac

[ "$(id -u)" = 0 ] || fail 'run it as root'
[ -e "$pktgen/pgctrl" ] || modprobe pktgen 2>/dev/null || true
[ -e "$pktgen/pgctrl" ] ||
    fail 'this kernel has no pktgen (CONFIG_NET_PKTGEN, module pktgen): use knockplane-generate, or another kernel'
[ -e "$pktgen/kpktgend_$core" ] || fail "there is no core $core"

write pgctrl reset
write "kpktgend_$core" "add_device $interface"
trap 'write pgctrl reset' EXIT
device "count $count"
# A new frame each time: the fields vary, and interfaces like veth cannot share one.
device 'clone_skb 0'
device "pkt_size $frame_bytes"
device 'flag NO_TIMESTAMP'
device 'flag UDPCSUM'
device "dst_mac $mac"
device 'src_mac 02:00:00:00:00:02'
[ -z "$rate" ] || device "ratep $rate"
if [ -n "$ipv6" ]; then
    device 'flag IPV6'
    device "dst6 $to"
    device "src6 $first"
else
    device "dst $to"
    device "src_min $first"
    device "src_max ${last:-$first}"
fi
device 'udp_src_min 1024'
device 'udp_src_max 1024'
device "udp_dst_min $port"
device "udp_dst_max $port"
case $profile in
# The module does not send the last port of a range.
flows:*) device "udp_src_max $((1024 + flows))" ;;
random-ports) device 'udp_dst_min 1' && device 'udp_dst_max 65535' && device 'flag UDPDST_RND' ;;
sources-random) device 'flag IPSRC_RND' ;;
esac

# The write returns when all frames are sent. A signal ends it early; then there is a result too.
trap : INT TERM
timeout --foreground "$seconds" sh -c "echo start >$pktgen/pgctrl" || true
# A stopped thread writes its result a moment later.
write pgctrl stop
while grep -q "^Running:.*[^ ]" "$pktgen/kpktgend_$core"; do sleep 0.1; done
grep -A 2 '^Result:' "$pktgen/$interface"
sent=$(sed -nE 's/^Result: OK: .* usec, ([0-9]+) .*/\1/p' "$pktgen/$interface")
[ "${sent:-0}" -gt 0 ] || fail "nothing was sent"
