# Frames within frames: a driver that splits long frames would deliver the inner frame as a separate frame. The outer
# frames are from a source without a grant. The inner frames have the source address of the client, whose door is open.
# No frame may pass.
# shellcheck shell=dash
ip -n client addr add "$STRANGER/24" dev client 2>/dev/null
silence
ip -n server neigh replace "$STRANGER" lladdr "$CLIENT_MAC" dev server nud permanent
nested() {
    in_client guest-probe nested --from $STRANGER --to $SERVER --inner-from $CLIENT \
        --server-mac "$(echo $SERVER_MAC | tr -d :)" "$@" || result FAIL nested-send "$*"
}
# Counts the datagrams at the server's port 9 that begin as the inner frames do.
count() {
    in_server guest-probe count 0.0.0.0:9 >/tmp/counted &
    sleep 1
}
# Control: the inner frame passes if it is sent alone, and the probe counts it.
count
in_client guest-probe marked --from $CLIENT --to $SERVER
sleep 1
equal nested-control "5 datagrams" "$(counted) datagrams"

# At 6,144 the inner frame is the third part in buffers of 3,072 bytes.
for kind in udp arp; do
    count
    before=$(server_frames)
    for offset in 512 1024 1536 2048 3072 6144; do
        frames=$(server_frames)
        nested --offset $offset --kind $kind
        sleep 0.5
        equal "nested-$kind-$offset" "0 frames at the server" "$(($(server_frames) - frames)) frames at the server"
    done
    # Frames that arrived late.
    sleep 1
    equal nested-$kind-all "0 frames at the server" "$(($(server_frames) - before)) frames at the server"
    equal nested-$kind-datagrams 0 "$(counted)"
done
echo "NOTE tails dropped by the XDP program: $(wget -qO- http://127.0.0.1:9479/metrics | grep '^knockplane_tail_drops_total{side="outside"}')"
