# What operators and links do to a running filter. Afterwards the open door is open, and a stranger is outside.
# shellcheck shell=dash
after() {
    equal "$1-open" yes "$(yes_or_no passes_again)"
    equal "$1-stranger" no "$(yes_or_no stranger_passes)"
}
ip link set outside down
sleep 1
equal link-down no "$(yes_or_no ping_passes)"
ip link set outside up
carriers
after link-up
if ethtool -r outside >/dev/null 2>&1; then
    sleep 1
    after ethtool-r
fi
if ethtool -G outside rx 512 tx 512 >/dev/null 2>&1; then
    sleep 1
    after ethtool-G
fi
# A lower MTU: what is longer is lost, what is shorter passes.
if ip link set outside mtu 1400 2>/dev/null; then
    sleep 1
    equal mtu-1400-stranger no "$(yes_or_no stranger_passes)"
    ip link set outside mtu "$(argument mtu 1500)"
    sleep 1
    carriers
fi
# Another number of queues: whatever becomes of frames, no stranger's passes.
queues=$(status queues | cut -d' ' -f1)
if [ "${queues:-1}" -gt 1 ] && ethtool -L outside combined 1 >/dev/null 2>&1; then
    sleep 1
    equal ethtool-L-stranger no "$(yes_or_no stranger_passes)"
    ethtool -L outside combined "$queues"
fi
