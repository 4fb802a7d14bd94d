# The conditions at the end of every cell: no frame is lost, no error is in the log, and the wire is closed when the
# process ends.
# shellcheck shell=dash
equal still-open yes "$(yes_or_no ping_passes)"
sleep 0.5
equal frames-lost 0 "$(lost_frames)"
equal log-errors 0 "$(grep -c ERROR /tmp/dataplane.log)"
stop
equal exit-status 0 $?
equal ended-ping no "$(yes_or_no ping_passes)"
equal ended-tcp no "$(yes_or_no tcp_passes)"
equal kernel-complaints 0 "$(dmesg | grep -cE 'WARNING:|BUG:|Oops|Call Trace|blocked for more')"
