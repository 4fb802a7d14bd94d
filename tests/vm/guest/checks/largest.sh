# The largest MTU that the driver takes (vm.largest), and that the next one is refused by name. The filter is stopped before
# and afterwards.
# shellcheck shell=dash
largest=$(argument largest)
ports_mtu() { for port in outside inside; do ip link set $port mtu "$1"; done; }
if [ -n "$largest" ]; then
    ports_mtu "$largest"
    if carriers && start; then
        knock 'open sesame'
        if sizes=$(in_client guest-probe sizes "$CLIENT:0" "$SERVER:7" --mtu "$largest" --step 61 2>&1); then
            result PASS "largest-$largest" "$sizes, zero-copy $(status zero_copy)"
        else
            result FAIL "largest-$largest" "$sizes"
        fi
        stop
    else
        result FAIL "largest-$largest" "$(tail -n 1 /tmp/dataplane.log)"
    fi
    ports_mtu $((largest + 1))
    if start; then
        result FAIL "larger-$((largest + 1))" "it starts"
        stop
    else
        equal "larger-$((largest + 1))" 1 "$(tail -n 1 /tmp/dataplane.log | grep -c "takes an MTU of $largest at most")"
    fi
    ports_mtu "$(argument mtu 1500)"
    carriers
fi
