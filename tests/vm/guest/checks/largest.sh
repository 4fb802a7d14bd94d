# The largest MTUs of docs/hardware.md: frames up to them pass, and the next larger MTU is refused with the number. The
# filter is stopped before and afterwards.
# shellcheck shell=dash
ports_mtu() {
    for port in outside inside; do ip link set $port mtu "$1"; done
    carriers
}

# The largest MTU in the mode that the cell expects at 1,500, and the largest MTU in each slower mode, as
# MTU:MODE:ZERO-COPY. The last one is the largest MTU that the filter accepts.
limits() {
    drivers=$(for port in outside inside; do ethtool -i $port | sed -n 's/^driver: //p'; done | tr '\n' ' ')
    xdp=$(argument xdp)
    case $drivers/$xdp/$(argument zc) in
    *igb*/native/true) echo 3033:native:true ;;
    *igb*/native/false) echo 3046:native:false ;;
    *igb*/*) echo 3046:generic:false ;;
    virtio_net*/native/*) echo "3486:native:$(argument zc)" ;;
    *vmxnet3*) echo "3050:${xdp%+*}:false" ;;
    *) echo 3818:generic:false ;;
    esac
}

# works MTU MODE ZERO-COPY: frames of every size up to this MTU pass.
works() {
    ports_mtu "$1"
    if ! start; then
        result FAIL "mtu-$1" "$(tail -n 1 /tmp/dataplane.log)"
        return
    fi
    knock 'open sesame'
    if sizes=$(in_client guest-probe sizes "$CLIENT:0" "$SERVER:7" --mtu "$1" --step 241 2>&1); then
        found="$(status xdp_mode | cut -d' ' -f1) $(status zero_copy | cut -d' ' -f1)"
        equal "mtu-$1" "$2 $3, $sizes" "$found, $sizes"
    else
        result FAIL "mtu-$1" "$sizes"
    fi
    stop
}

[ "$(argument mtu 1500)" = 1800 ] || works 1800 "$(limits | sed 's/^[0-9]*:\([a-z]*\):.*/\1/')" "$(argument zc)"
for limit in $(limits); do
    # shellcheck disable=SC2046
    works $(echo "$limit" | tr ':' ' ')
    largest=${limit%%:*}
done
ports_mtu $((largest + 1))
if start; then
    result FAIL "mtu-$((largest + 1))" "it starts"
    stop
else
    message=$(tail -n 1 /tmp/dataplane.log)
    equal "mtu-$((largest + 1))" "1 0" "$(echo "$message" | grep -cE "MTU .*$largest at most") $(echo "$message" | grep -c 'os error.*os error')"
fi
ports_mtu "$(argument mtu 1500)"
