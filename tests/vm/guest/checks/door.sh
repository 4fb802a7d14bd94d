# A door: closed, closed after a wrong knock, open after the right one. It is open afterwards.
# shellcheck shell=dash
equal closed-ping no "$(yes_or_no ping_passes)"
equal closed-tcp no "$(yes_or_no tcp_passes)"
knock open
equal wrong-knock-ping no "$(yes_or_no ping_passes)"
equal wrong-knock-tcp no "$(yes_or_no tcp_passes)"
knock 'open sesame'
equal right-knock-ping yes "$(yes_or_no ping_passes)"
equal right-knock-tcp yes "$(yes_or_no tcp_passes)"
