# The state directory is on a disk, and the guest ends as by a power failure: what the kernel has not written is lost.
# shellcheck shell=dash
mount -t ext4 /dev/vda /var/lib/knockplane || result FAIL disk "cannot mount /dev/vda"
start || result FAIL start "$(tail -n 1 /tmp/dataplane.log)"
equal cut-closed no "$(yes_or_no ping_passes)"
knock 'open sesame'
equal cut-open yes "$(yes_or_no passes_again)"
for address in 192.0.2.1 192.0.2.2; do
    knockctl list add door-ssh $address --timeout 3h >/dev/null || result FAIL list "no entry $address"
done
knockctl rule add chain=forward action=drop protocol=udp dst-port=4000 comment=kept >/dev/null || result FAIL rule "not added"
# The journal is synced in groups, at most 100 ms late.
sleep 1
# A removal is on the disk before its answer.
knockctl list remove door-ssh 192.0.2.2 >/dev/null || result FAIL list "not removed"
echo "CHECK CUT"
# No sync, no unmount: sysrq.rst of the kernel's documentation.
echo 1 >/proc/sys/kernel/sysrq
echo b >/proc/sysrq-trigger
sleep 60
