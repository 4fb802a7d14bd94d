# The start after power-cut.sh, with its disk: the grant, the entry and the rule are back, and the removed entry is not.
# shellcheck shell=dash
mount -t ext4 /dev/vda /var/lib/knockplane || result FAIL disk "cannot mount /dev/vda"
if start; then result PASS back-start started; else result FAIL back-start "$(tail -n 1 /tmp/dataplane.log)"; fi
equal back-open yes "$(yes_or_no passes_again)"
equal back-entries 192.0.2.1 "$(knockctl --json list show door-ssh | grep -o '192\.0\.2\.[0-9]*' | sort -u | tr '\n' ' ' | sed 's/ $//')"
equal back-rule 1 "$(knockctl export | grep -c 'comment="\{0,1\}kept')"
