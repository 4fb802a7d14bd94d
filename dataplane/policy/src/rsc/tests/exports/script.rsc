# What installs itself: it takes away what it added the last time, and some of it is a script.
/ip firewall filter remove [find where comment~"^knock: "]
/ip firewall address-list remove [find where list~"^knock-"]
/system scheduler remove [find where name="knock"]
:global lan "192.168.88.0/24"
:local ports 22,8291;
:put "installing"
/ip firewall filter {
add chain=input action=accept src-address=$lan
}
/ip firewall filter
:foreach port in={1;2;3} do={
    add chain=input protocol=tcp dst-port=$port action=drop
}
add chain=input action=accept src-address=$lan comment="knock: from home"
add chain=input action=accept protocol=tcp dst-port=$ports
:if ([:len [find comment="knock: last"]] = 0) do={ add chain=input action=drop comment="knock: last" }
add chain=input action=drop comment="knock: all others" place-before=0
set [find comment="knock: from home"] disabled=no
move [find comment="knock: all others"] destination=0
print
:delay 1s
