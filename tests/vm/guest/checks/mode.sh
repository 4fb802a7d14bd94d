# The XDP mode and zero-copy that the cell expects, on both ports.
# shellcheck shell=dash
if start; then
    result PASS start "$(status driver)"
else
    result FAIL start "the dataplane does not run: $(tail -n 1 /tmp/dataplane.log)"
fi
expected=$(argument xdp)
equal xdp-mode "$expected $expected" "$(status xdp_mode)"
expected=$(argument zc)
equal zero-copy "$expected $expected" "$(status zero_copy)"
