# The XDP mode and zero-copy that the cell expects, on both ports. If their numbers of queues differ, the first start is
# refused, with the command that makes the next start succeed.
# shellcheck shell=dash
if ! start; then
    command=$(sed -n 's/.*run: \(ethtool -L [a-z]* combined [0-9]*\).*/\1/p' /tmp/dataplane.log | tail -n 1)
    [ -z "$command" ] || result PASS start-unequal "refused; $command"
    $command
    carriers
    kill -0 "$dataplane" 2>/dev/null || start
fi
if kill -0 "$dataplane"; then
    result PASS start "$(status driver)"
else
    result FAIL start "the dataplane does not run: $(tail -n 1 /tmp/dataplane.log)"
fi
equal xdp-mode "$(of_both xdp)" "$(status xdp_mode)"
equal zero-copy "$(of_both zc)" "$(status zero_copy)"
