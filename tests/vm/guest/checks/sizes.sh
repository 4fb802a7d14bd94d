# Every frame size from 60 bytes to the MTU, to the server and back.
# shellcheck shell=dash
if sizes=$(in_client guest-probe sizes "$CLIENT:0" "$SERVER:7" --mtu "$(argument mtu 1500)" 2>&1); then
    result PASS sizes "$sizes"
else
    result FAIL sizes "$sizes"
fi
