# A knock whose steps arrive on different queues, and so at different workers, opens the door. The workers' counters
# prove on which queue each step arrived.
# shellcheck shell=dash

# arrived BEFORE FRAMES: waits until this number of further frames has arrived, and prints the number of each worker.
arrived() {
    for _ in $(seq 25); do
        found=$(difference "$1" "$(workers received)")
        [ $((${found% *} + ${found#* })) -lt "$2" ] || break
        sleep 0.2
    done
    echo "$found"
}

# steps QUEUE…: sends the three steps of the door, each to this queue. Prints the number of frames that each worker
# received for each step.
steps() {
    for step in 7000 '4321:udp=open sesame' 1234; do
        # shellcheck disable=SC2046
        ethtool -X outside weight $([ "$1" = 0 ] && echo 1 0 || echo 0 1)
        shift
        before=$(workers received)
        in_client knocker "$SERVER" "$step"
        arrived "$before" 1
    done | tr '\n' ';'
}

if [ "$(argument queues 1)" -gt 1 ]; then
    newcomer 10.9.0.51
    equal queues-010 '1 0;0 1;1 0;' "$(steps 0 1 0)"
    equal queues-010-open yes "$(yes_or_no ping_passes)"
    newcomer 10.9.0.52
    equal queues-101 '0 1;1 0;0 1;' "$(steps 1 0 1)"
    equal queues-101-open yes "$(yes_or_no ping_passes)"
    ethtool -X outside default

    # The whole knock at once, over the queues that the ports choose. The kernel receives on several cores, so a step
    # can overtake another one on a busy machine. The check requires that one such knock opens the door.
    ethtool -N outside rx-flow-hash udp4 sdfn
    outcome=no
    for host in $(seq 53 72); do
        newcomer "10.9.0.$host"
        before=$(workers received)
        in_client knocker -d 0 "$SERVER" 7000 '4321:udp=open sesame' 1234
        split=$(arrived "$before" 3)
        case $split in '1 2' | '2 1') outcome=$(yes_or_no ping_passes) ;; esac
        echo "NOTE a knock at once, frames of each worker: $split, open: $outcome"
        [ "$outcome" = no ] || break
    done
    equal queues-at-once yes "$outcome"
    ethtool -N outside rx-flow-hash udp4 sd
    ip -n client route del "$SERVER/32"
    equal queues-lost 0 "$(lost_frames)"
fi
