# The NIC is removed from its slot: no frame passes, and the filter reports the removal or ends.
# shellcheck shell=dash
kill -0 "$dataplane" 2>/dev/null || start
device=$(readlink -f /sys/class/net/outside/device)
case $device in */virtio*) device=${device%/*} ;; esac
echo 1 >"$device/remove"
sleep 3
equal removed-ping no "$(yes_or_no ping_passes)"
if kill -0 "$dataplane" 2>/dev/null; then
    ready=$(knockctl show status --all 2>/dev/null | sed -n 's/^ready *//p')
    case $ready in no*) result PASS removed "$ready" ;; *) result FAIL removed "ready is: $ready" ;; esac
else
    result PASS removed "the dataplane ended: $(tail -n 1 /tmp/dataplane.log | cut -c 1-120)"
fi
