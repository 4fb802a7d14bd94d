# Changes by operators and of links while the filter runs. Afterwards the open door is still open, and a source without
# a grant is still closed.
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
# A lower MTU: longer frames are lost, shorter frames pass.
if ip link set outside mtu 1400 2>/dev/null; then
    sleep 1
    equal mtu-1400-stranger no "$(yes_or_no stranger_passes)"
    ip link set outside mtu "$(argument mtu 1500)"
    sleep 1
    carriers
fi
# Another number of queues: frames of a source without a grant never pass; other frames may be lost.
queues=$(status queues | cut -d' ' -f1)
if [ "${queues:-1}" -gt 1 ] && ethtool -L outside combined 1 >/dev/null 2>&1; then
    sleep 1
    equal ethtool-L-stranger no "$(yes_or_no stranger_passes)"
    ethtool -L outside combined "$queues"
fi
