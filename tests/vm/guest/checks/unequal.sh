# Different numbers of queues on the two sides. Such a start is refused, with the command that makes it succeed. If the
# numbers become different later, frames on a queue without a worker are dropped and counted. The filter is stopped
# before and afterwards.
# shellcheck shell=dash

read_counters() {
    scrape
    for counter in xdp_frames rx_packets unbound_queue_drops; do metric ${counter}_total 'side="outside"' && echo; done | tr '\n' ' '
}

# Sends a frame from each of these hosts, and sets `counted` to the numbers of frames that reached the program, were
# received, and were dropped on a queue without a worker.
counted_frames() {
    before=$(read_counters)
    for host in "$@"; do
        newcomer "10.9.0.$host"
        in_client knocker "$SERVER" 9:udp
    done
    ip -n client route del "$SERVER/32"
    for _ in $(seq 5); do
        counted=$(difference "$before" "$(read_counters)")
        [ "${counted%% *}" -lt $# ] || break
    done
    received=${counted#* } unbound=${counted##* }
    received=${received% *}
}

# accounted NAME LEAST: at least this number of frames reached the program, and each of them was received, or dropped on
# a queue without a worker. Some frames are not of this check: hosts also send address requests by themselves.
accounted() {
    seen=${counted%% *}
    if [ "$seen" -ge "$2" ] && [ "$seen" = $((received + unbound)) ]; then
        result PASS "$1" "$seen seen, $received received, $unbound dropped"
    else
        result FAIL "$1" "at least $2 expected: $seen seen, $received received, $unbound dropped"
    fi
}

# Waits for a problem of outside in `show status`.
drift() {
    for _ in $(seq 20); do
        knockctl show status --all | grep -q "^drift  *outside, $1" && return 0
        sleep 0.5
    done
    return 1
}

if [ "$(argument queues 1)" -gt 1 ]; then
    ethtool -L inside combined 1
    carriers
    if start; then
        result FAIL unequal-start "it starts"
    else
        message=$(tail -n 1 /tmp/dataplane.log)
        equal unequal-start 1 "$(echo "$message" | grep -c 'outside has 2 receive queues and inside has 1;.*run: ethtool -L outside combined 1')"
    fi
    ethtool -L outside combined 1
    carriers
    if start; then
        knock 'open sesame'
        equal one-queue "1 1 yes" "$(status queues) $(yes_or_no passes_again)"
        stop
    else
        result FAIL one-queue "$(tail -n 1 /tmp/dataplane.log)"
    fi
    for port in outside inside; do ethtool -L $port combined 2; done
    carriers
    if start; then
        # More queues while the filter runs: some frames arrive on a queue without a worker.
        ethtool -L outside combined 3
        carriers
        equal queues-drift yes "$(yes_or_no drift 'queues: outside has 3 receive queues and inside has 2')"
        # 24 sources: with one in three, chance misses the third queue once in 17,000 times.
        # shellcheck disable=SC2046
        counted_frames $(seq 80 103)
        accounted queues-unbound 24
        if [ "$unbound" -gt 0 ]; then result PASS queues-third "$unbound"; else result FAIL queues-third "no frame on the third queue"; fi
        ethtool -L outside combined 2
        carriers
        sleep 2
        counted_frames 80 81 82
        accounted queues-again 3
        equal queues-again-unbound 0 "$unbound"
        equal queues-lost 0 "$(lost_frames)"
        stop
    else
        result FAIL queues-start "$(tail -n 1 /tmp/dataplane.log)"
    fi
fi
