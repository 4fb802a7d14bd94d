# The dataplane is killed and started again: the wire is closed while it does not run, and the grant continues behind it.
# shellcheck shell=dash
# The journal is on the disk by then.
sleep 1
kill -0 "$dataplane" 2>/dev/null && kill -9 "$dataplane"
wait "$dataplane" 2>/dev/null
equal killed-ping no "$(yes_or_no ping_passes)"
if start; then result PASS restart started; else result FAIL restart "$(tail -n 1 /tmp/dataplane.log)"; fi
equal restarted-open yes "$(yes_or_no passes_again)"
