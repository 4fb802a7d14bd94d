# The result of `knockctl doctor` for this kernel and these NICs, beside the running filter. Its output is in the cell's
# log.
# shellcheck shell=dash
knockctl doctor --config /etc/knockplane/knockplane.toml >/tmp/doctor.txt 2>/tmp/doctor.err
code=$?
sed 's/^/DOCTOR /' /tmp/doctor.txt /tmp/doctor.err
# 0: all is well; 1: it works, with warnings. The filter runs, so 3 would be wrong.
case $code in
0 | 1) result PASS doctor "exit code $code" ;;
*) result FAIL doctor "exit code $code: $(tail -n 1 /tmp/doctor.err)" ;;
esac
