# The dataplane is killed and started again: the wire is closed while it does not run, and the grant continues behind it. A
# wall clock that is set meanwhile changes no remaining time.
# shellcheck shell=dash
killed() {
    kill -0 "$dataplane" 2>/dev/null && kill -9 "$dataplane"
    wait "$dataplane" 2>/dev/null
}
restarted() {
    if start; then result PASS "$1" started; else result FAIL "$1" "$(tail -n 1 /tmp/dataplane.log)"; fi
}
# The minutes that an entry has left, rounded up.
minutes_left() {
    knockctl --json list show door-ssh --address "$1" | tr ',{}' '\n' |
        sed -n 's/^ *"time_left_seconds": *\([0-9.]*\) *$/\1/p' | awk '{ printf "%d", ($1 + 59) / 60 }'
}

# The journal is on the disk by then.
sleep 1
killed
equal killed-ping no "$(yes_or_no ping_passes)"
restarted restart
equal restarted-open yes "$(yes_or_no passes_again)"

for entry in '192.0.2.1 3h' '192.0.2.2 30m'; do
    # shellcheck disable=SC2086 # an address and a timeout
    knockctl list add door-ssh ${entry% *} --timeout "${entry#* }" >/dev/null || result FAIL clocks "no entry $entry"
done
for step in 3600 -3600 -3600 3600; do
    killed
    date -s "@$(($(date +%s) + step))" >/dev/null
    restarted "restart-clock$step"
    long=$(minutes_left 192.0.2.1) short=$(minutes_left 192.0.2.2)
    # A restart takes less than a minute here, and four of them less than 10.
    if [ "${long:-0}" -gt 170 ] && [ "$long" -le 180 ] && [ "${short:-0}" -gt 20 ] && [ "$short" -le 30 ]; then
        result PASS "clock$step" "$long and $short minutes left"
    else
        result FAIL "clock$step" "180 and 30 minutes or some less expected, found ${long:-none} and ${short:-none}"
    fi
done
equal clock-open yes "$(yes_or_no passes_again)"
