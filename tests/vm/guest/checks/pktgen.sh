# The kernel's packet generator, by the project's script, sends into outside. The check compares the output of the
# script, the counts of the module, the NIC and the filter, and the frames that arrive at the server.
# shellcheck shell=dash

generate() { in_client dash /usr/local/bin/pktgen.sh "$@"; }
drops() { echo $(($(metric interface_rx_dropped_total "$OUTSIDE") + $(metric interface_rx_missed_total "$OUTSIDE"))); }
OUTSIDE='side="outside"'

# load VERDICT ARGUMENTS…: each frame that the script sends gets this verdict, or is counted as dropped by the NIC or at the
# rings. Some drivers count a frame that did not fit a ring as dropped too.
load() {
    verdict=$1 profile=$3
    shift
    scrape
    arrived=$(metric interface_rx_packets_total "$OUTSIDE") seen=$(metric xdp_frames_total "$OUTSIDE")
    decided=$(metric packets_total "verdict=\"$verdict\"") dropped=$(drops) at_server=$(server_frames)
    rings=$(metric ring_drops_total "$OUTSIDE")
    output=$(generate client --destination-mac "$SERVER_MAC" --to "$SERVER" "$@" 2>/tmp/pktgen-errors)
    equal "pktgen-$profile-exit" 0 $?
    sent=$(echo "$output" | sed -n 's/^Result: OK: .* usec, \([0-9]*\) (.*/\1/p')
    # A busy guest receives the frames with a delay.
    for _ in $(seq 10); do
        scrape
        [ $(($(metric packets_total "verdict=\"$verdict\"") - decided)) -lt "${sent:-0}" ] || break
    done
    arrived=$(($(metric interface_rx_packets_total "$OUTSIDE") - arrived)) dropped=$(($(drops) - dropped))
    rings=$(($(metric ring_drops_total "$OUTSIDE") - rings))
    seen=$(($(metric xdp_frames_total "$OUTSIDE") - seen))
    decided=$(($(metric packets_total "verdict=\"$verdict\"") - decided))
    at_server=$(($(server_frames) - at_server))
    if [ "${sent:-0}" -gt 0 ]; then
        told="$sent sent: $arrived arrived, $seen seen, $decided $verdict, $dropped dropped by the NIC, $rings at the rings"
        if [ "$decided" -le "$seen" ] && [ "$seen" -le "$sent" ] && [ "$decided" -gt 0 ] &&
            [ $((sent - decided)) -le $((dropped + rings)) ]; then
            result PASS "pktgen-$profile" "$told"
        else
            result FAIL "pktgen-$profile" "$told"
        fi
        [ "$verdict" = forward ] && expected=$decided || expected=0
        equal "pktgen-$profile-server" "$expected" "$at_server"
    else
        result FAIL "pktgen-$profile" "$(head -n 3 /tmp/pktgen-errors | tr '\n' ' ')$output"
    fi
}
# usage CODE ARGUMENTS…: the script ends with this code and prints the reason.
refused() {
    code=$1
    shift
    generate "$@" >/dev/null 2>/tmp/pktgen-errors
    equal "pktgen-refused-$code" "$code" $?
    grep -q '^pktgen.sh: ' /tmp/pktgen-errors || result FAIL pktgen-refused "it does not say why: $*"
}

# At the highest rate. Frames are lost then, but none arrives twice.
burst() {
    in_server guest-probe count-load 0.0.0.0:9 >/tmp/counted &
    sleep 1
    generate client --destination-mac "$SERVER_MAC" --to "$SERVER" --profile flow --from "$CLIENT" --count 2000 >/dev/null
    scrape
    read -r datagrams repeated <<COUNTED
$(counted)
COUNTED
    if [ "${datagrams:-0}" -gt 0 ]; then
        equal pktgen-burst "$datagrams datagrams, 0 repeated" "$datagrams datagrams, $repeated repeated"
    else
        result FAIL pktgen-burst "no datagram arrived"
    fi
}

if [ "$(argument pktgen)" = yes ]; then
    silence
    # Answers of the server would be counted as well: the server answers a packet to a port without a listener.
    in_server guest-probe count 0.0.0.0:9 >/dev/null &
    sleep 0.5
    load forward --profile flow --from "$CLIENT" --rate 1k --count 1000
    load forward --profile flows:100 --from "$CLIENT" --rate 1k --count 500 --frame-bytes 1400
    in_server guest-probe stop 127.0.0.1:9
    burst
    burst
    load drop --profile random-ports --from "$STRANGER" --rate 1k --count 500
    load drop --profile sources-sequential --from 10.64.0.0/10 --rate 2k --count 1000
    # It ends with the time, before the count is reached.
    load drop --profile sources-random --rate 500 --seconds 2 --count 100000
    load drop --profile first-knocks --from 10.128.0.1-10.128.1.0 --rate 1k --count 256
    refused 2 client --profile mix
    refused 2 client --profile sources-random --from 2001:db8::1-2001:db8::9
    refused 1 nothere --profile flow
    equal pktgen-lost 0 "$(lost_frames)"
    equal pktgen-open yes "$(yes_or_no ping_passes)"
fi
