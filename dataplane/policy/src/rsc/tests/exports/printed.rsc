/ip firewall filter
Flags: X - disabled, I - invalid; D - dynamic
 0    ;;; from home
      chain=input action=accept src-address=192.168.88.0/24
      log=no log-prefix=""

 1 X  chain=input action=drop
