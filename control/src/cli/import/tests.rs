use knockplane_policy::door::Door;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DoorsFile {
    door: Vec<Door>,
}

/// The written doors and the messages, both in one text. The written part must be valid doors.
fn told(conf: &str) -> String {
    let imported = super::read(conf, &[]);
    let doors = imported.text();
    if !doors.is_empty() {
        let read = toml::from_str::<DoorsFile>(&doors).unwrap_or_else(|error| panic!("{error}\n{doors}"));
        assert_eq!(read.door.len(), doors.matches("[[door]]").count());
    }
    doors + &imported.report("knockd.conf")
}

/// One section with this command.
fn with(command: &str) -> String {
    told(&format!("[a]\nsequence = 7000\nstart_command = {command}\ncmd_timeout = 60\nstop_command = nft delete x\n"))
}

/// The targets that a door opens with this command, or the error.
fn opens(command: &str) -> String {
    let told = with(command);
    let line =
        told.lines().find_map(|line| line.strip_prefix("opens = ").or(line.strip_prefix("error: knockd.conf:3: ")));
    line.unwrap_or("everything").to_owned()
}

#[test]
fn the_configuration_that_debian_installs_is_three_doors() {
    insta::assert_snapshot!(told(
        "[options]\n\tUseSyslog\n\n\
         [openSSH]\n\tsequence    = 7000,8000,9000\n\tseq_timeout = 5\n\
         \tcommand     = /sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\ttcpflags    = syn\n\n\
         [closeSSH]\n\tsequence    = 9000,8000,7000\n\tseq_timeout = 5\n\
         \tcommand     = /sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\ttcpflags    = syn\n\n\
         [openHTTPS]\n\tsequence    = 12345,54321,24680,13579\n\tseq_timeout = 5\n\
         \tcommand     = /usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%\n\ttcpflags    = syn\n"
    ));
}

#[test]
fn a_door_for_both_families_that_closes_itself() {
    insta::assert_snapshot!(told(
        "# by hand\n[SSH]\nSequence = 2222:udp, 3333:tcp,4444:UDP\nTCPFlags = syn,!ack\n\
         Start_Command = ufw insert 1 allow from %IP% to any port 22 proto tcp comment 'by knockd'\n\
         Start_Command_6 = /usr/sbin/ip6tables -w -I INPUT 1 -s %IP%/128 -p tcp -m conntrack --ctstate NEW --dport 22 -j ACCEPT\n\
         Cmd_Timeout = 30\n\
         Stop_Command = ufw delete allow from %IP% to any port 22 proto tcp\n\
         Stop_Command_6 = /usr/sbin/ip6tables -w -D INPUT -s %IP%/128 -p tcp -m conntrack --ctstate NEW --dport 22 -j ACCEPT\n"
    ));
}

#[test]
fn the_usual_lines_say_what_they_open() {
    let cases = [
        ("iptables -A INPUT -s %IP% -j ACCEPT", "everything"),
        ("/sbin/iptables -I INPUT 3 -s %IP%/32 -p tcp --dport 22 -j ACCEPT", r#"["tcp/22"]"#),
        ("sudo iptables -t filter -A KNOCK -p udp -s %IP% --dport 1194 -j ACCEPT", r#"["udp/1194"]"#),
        (
            "iptables -A INPUT -s %IP% -p tcp -m multiport --dports 80,443,8000:8010 -j ACCEPT",
            r#"["tcp/80,443,8000-8010"]"#,
        ),
        (
            "iptables -A INPUT -i eth0 -s %IP% -p tcp -m state --state NEW,ESTABLISHED --dport 22 -j ACCEPT",
            r#"["tcp/22"]"#,
        ),
        ("iptables -A INPUT -s %IP% -p icmp -j ACCEPT", r#"["icmp"]"#),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; iptables -A INPUT -s %IP% -p udp --dport 53 -j ACCEPT",
            r#"["tcp/22", "udp/53"]"#,
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT && iptables -A OUTPUT -d %IP% -p tcp --sport 22 -j ACCEPT",
            r#"["tcp/22"]"#,
        ),
        ("ufw allow from %IP%", "everything"),
        ("ufw allow from %IP% to any port 22", r#"["tcp/22", "udp/22"]"#),
        ("/usr/sbin/ufw allow proto tcp from %IP% to any port 80,443", r#"["tcp/80,443"]"#),
        ("nft add rule inet filter input ip saddr %IP% tcp dport 22 accept", r#"["tcp/22"]"#),
        (
            "nft 'insert rule ip filter INPUT ip saddr %IP% tcp dport {80, 443} ct state new counter accept'",
            r#"["tcp/80,443"]"#,
        ),
        ("nft add rule filter input ip saddr %IP% udp dport 1000-2000 accept", r#"["udp/1000-2000"]"#),
        ("logger knocked; knock_helper_ipt.sh -a -f %IP% -d 22", r#"["tcp/22"]"#),
    ];
    for (command, expected) in cases {
        assert_eq!(opens(command), expected, "{command}");
    }
}

#[test]
fn what_a_line_opens_beyond_that_is_refused() {
    let commands = [
        "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s 192.0.2.1 -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport ssh -j ACCEPT",
        "iptables -A INPUT -s %IP% --dport 22 -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -j LOG",
        "iptables -A INPUT -s %IP% -d 192.0.2.1 -p tcp --dport 22 -j ACCEPT",
        "iptables -A INPUT ! -s %IP% -j ACCEPT",
        "iptables -A INPUT -s %IP% -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT",
        "iptables -t nat -A PREROUTING -s %IP% -p tcp --dport 22 -j DNAT --to 10.0.0.1",
        "iptables -A INPUT -s %IP% -p gre -j ACCEPT",
        "iptables -A",
        "nft add rule ip nat prerouting ip saddr %IP% tcp dport 22 accept",
        "nft add rule ip nat input ip saddr %IP% tcp dport 22 accept",
        "nft add rule inet filter output ip saddr %IP% accept",
        "nft insert rule mangle PREROUTING ip saddr %IP% accept",
        "nft add rule netdev filter input ip saddr %IP% accept",
        "ufw allow from %IP% port 22",
        "ufw allow to any port 22 from %IP% port 1000 proto tcp",
        "ufw allow 22",
        "ufw allow from %IP% to any app OpenSSH",
        "nft add element inet filter knocked { %IP% timeout 1h }",
        "nft add rule inet filter input ip saddr %IP% meta mark 1 accept",
        "/usr/local/bin/open.sh %IP%",
        "echo %IP% | mail root",
        "iptables -A INPUT -s $IP -j ACCEPT",
        "logger knocked",
    ];
    let told: String = commands.iter().map(|command| format!("{command}\n  {}\n", opens(command))).collect();
    insta::assert_snapshot!(told);
}

#[test]
fn every_mistake_of_a_file_is_told() {
    insta::assert_snapshot!(told(
        "sequence = 1\n[options]\nlogfile = /x\nlogfil = /x\nvoid\n[open SSH]\nsequence = 7000\n[one]\nsequnce = 1\nsequence = \n\
         [two]\nsequence = 0,70000,5:sctp,x\nsequence = 1\nseq_timeout = soon\ntcpflags = sin\ncommand = true\n\
         [two]\none_time_sequences = /etc/knockd/seq\nstart_command = iptables -A INPUT -s %IP% -j ACCEPT\ntarget = 192.0.2.1\n\
         [three]\nsequence = 1,2\ncommand = iptables -D INPUT -s %IP% -j ACCEPT\n\
         [four]\nsequence = 1,2\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
         stop_command = iptables -D INPUT -s %IP% -p tcp --dport 23 -j ACCEPT\n\
         [five]\nsequence = 1,2\nstart_command = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
         start_command_6 = ip6tables -A INPUT -s %IP% -j ACCEPT\n[six\n[seven]\nsequence=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n"
    ));
    insta::assert_snapshot!(told("# nothing\n[options]\n"), @"error: knockd.conf:1: there is no door in the file: a door is a `[section]` with `sequence` and `start_command`");
}

#[test]
fn times_are_kept_and_never_is_an_hour() {
    let command = "command = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";
    let section = |rest: &str| told(&format!("[a]\nsequence = 7000\n{rest}\n"));
    let slept = section(&format!("{command}; sleep 15; iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"));
    assert!(slept.contains("for = \"15s\"\n") && slept.contains("total = \"25s\"\n"), "{slept}");
    let twice = section(&format!(
        "command = iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; sleep 1; {}; sleep 15; sleep 5; \
         iptables -D INPUT 1; sleep 100",
        &command["command = ".len()..]
    ));
    assert!(twice.contains("for = \"20s\"\n"), "{twice}");
    let earlier = section(&format!("{command}; sleep 7; iptables -D INPUT 1\ncmd_timeout = 60\nstop_command = true"));
    assert!(earlier.contains("for = \"7s\"\n"), "{earlier}");
    let waited = section(&format!("{command}\nstop_command = iptables -D INPUT 1"));
    assert!(waited.contains("for = \"10s\"\n"), "{waited}");
    let never = section(&format!("{command}\ncmd_timeout = 5"));
    insta::assert_snapshot!(never);
}

#[test]
fn what_is_no_time_is_told() {
    for (rest, part) in [
        ("sleep 0; iptables -D INPUT 1", "`0` is not a time: write whole seconds, from 1 to 21474836"),
        ("sleep 99999999; iptables -D INPUT 1", "`99999999` is not a time"),
        ("sleep 20000000; sleep 20000000; iptables -D INPUT 1", "too long"),
        ("iptables -D INPUT 1", "it is open for no time"),
    ] {
        let command = format!("iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; {rest}");
        let told = told(&format!("[a]\nsequence = 7000\ncommand = {command}\n"));
        assert!(told.contains("error: knockd.conf:3: ") && told.contains(part), "{told}");
    }
}

#[test]
fn of_two_that_open_the_same_the_one_of_the_same_name_is_closed() {
    let section = |name: &str, verb: &str, port: u16| {
        format!("[{name}]\nsequence = {port}\ncommand = iptables {verb} INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n")
    };
    let conf =
        [section("openA", "-A", 1), section("openB", "-A", 2), section("closeB", "-D", 3), section("closeA", "-D", 4)];
    let told = told(&conf.concat());
    assert!(told.contains("knock = [\"tcp/1\"]\nclose = [\"tcp/4\"]\n"), "{told}");
    assert!(told.contains("knock = [\"tcp/2\"]\nclose = [\"tcp/3\"]\n"), "{told}");
}

#[test]
fn a_check_before_a_rule_changes_nothing() {
    let rule = "INPUT -s %IP% -p tcp --dport 22 -j ACCEPT";
    let add = format!("iptables -I {rule}");
    for command in [
        format!("iptables -C {rule} || iptables -I {rule}"),
        format!("/sbin/iptables -w -C {rule} 2>/dev/null || /sbin/iptables -w -A {rule}"),
        format!("! iptables --check {rule} >/dev/null 2>&1 && {add}"),
        format!(
            "iptables -C {rule} &> /dev/null || iptables -I INPUT 1 -s %IP% -p tcp --dport 22 -j ACCEPT; logger open"
        ),
        format!("sh -c 'iptables -C {rule} || iptables -I {rule}'"),
        format!("{add} || true"),
        format!("iptables -C {rule} && iptables -D {rule}; {add}"),
    ] {
        assert_eq!(opens(&command), r#"["tcp/22"]"#, "{command}");
    }
    for (command, part) in [
        (format!("iptables -C {rule} || iptables -I INPUT -s %IP% -j ACCEPT"), "checks another rule"),
        (format!("iptables -C {rule} && {add}"), "checks another rule"),
        (format!("test -f /run/x || {add}"), "`test`"),
        (format!("logger a || {add}"), "the command before it fails"),
        (format!("iptables -C INPUT -s %IP% -p tcp --dport 23 -j ACCEPT || {add}"), "checks another rule"),
        (format!("! {add}"), "`!` that is not before"),
        (format!("iptables -C {rule}"), "effect of the command is unknown"),
        (format!("{add} || iptables -P INPUT ACCEPT"), "`-P`"),
    ] {
        let told = opens(&command);
        assert!(told.contains(part), "{command}: {told}");
    }
}

#[test]
fn rich_rules_of_firewalld_are_read() {
    let rule = r#"rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept"#;
    let cases = [
        (format!("firewall-cmd --zone=public --add-rich-rule='{rule}'"), r#"["tcp/22"]"#),
        (format!("/usr/bin/firewall-cmd -q --add-rich-rule '{rule}' --timeout=60"), r#"["tcp/22"]"#),
        (format!("firewall-cmd --add-rich-rule=\"{}\"", rule.replace('"', "\\\"")), r#"["tcp/22"]"#),
        ("firewall-cmd --add-rich-rule='rule source address=%IP%/32 accept'".to_owned(), "everything"),
        ("firewall-cmd --zone=trusted --add-source=%IP%".to_owned(), "everything"),
    ];
    for (command, expected) in cases {
        assert_eq!(opens(&command), expected, "{command}");
    }
    for command in [
        "firewall-cmd --zone=public --add-source=%IP%".to_owned(),
        "firewall-cmd --add-service=ssh".to_owned(),
        format!("firewall-cmd --permanent --add-rich-rule='{rule}'"),
        format!(
            "firewall-cmd --add-rich-rule='{}'",
            rule.replace("port port=\"22\" protocol=\"tcp\"", "service name=\"ssh\"")
        ),
        format!("firewall-cmd --add-rich-rule='{}'", rule.replace("accept", "log prefix=\"x\" accept")),
        format!("firewall-cmd --add-rich-rule='{}'", rule.replace("accept", "drop")),
        format!("firewall-cmd --add-rich-rule='{}'", rule.replace("source address", "source NOT address")),
        format!("firewall-cmd --add-rich-rule='{}'", rule.replace("%IP%", "192.0.2.1")),
    ] {
        assert!(opens(&command).contains(':'), "{command}: {}", opens(&command));
    }
    let timed = told(&format!("[a]\nsequence = 7000\ncommand = firewall-cmd --add-rich-rule='{rule}' --timeout=5m\n"));
    assert!(timed.contains("for = \"300s\"\n"), "{timed}");
}

#[test]
fn a_mistake_in_flags_is_told_once_where_they_stand() {
    let told = told(
        "[ssh]\nsequence = 7000,8000,9000\ncommand = iptables -A INPUT -s %IP% -j ACCEPT\n\n# flags\ntcpflags = syn,foo\n",
    );
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("error: knockd.conf:6: `foo` is not a TCP flag"), "{told}");
}

/// Sections that can become doors, sections that cannot, and one that closes a target which cannot be closed.
const MIXED: &str = "[options]\n UseSyslog\n Interface = eth0\n\
    [ssh]\n sequence = 7000,8000:udp\n tcpflags = syn,!ack\n cmd_timeout = 30\n\
    start_command = iptables -C INPUT -s %IP% -p tcp --dport 22 -j ACCEPT || iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
    stop_command = iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
    [helper]\n sequence = 1,2\n command = /usr/local/bin/open.sh %IP%\n\
    [closeHelper]\n sequence = 2,1\n command = iptables -D INPUT -s %IP% -p tcp --dport 80 -j ACCEPT\n\
    [once]\n one_time_sequences = /etc/knockd/seq\n command = iptables -A INPUT -s %IP% -j ACCEPT\n\
    [web]\n sequence = 3,4\n command = ufw allow from %IP% to any port 443 proto tcp\n";

#[test]
fn doors_that_can_be_are_written_and_the_others_are_named() {
    let all = super::read(MIXED, &[]);
    let names: Vec<_> = all.doors.iter().map(|door| door.door.as_str()).collect();
    assert_eq!(names, ["ssh", "web"]);
    assert_eq!(
        all.summary(),
        "2 doors are written; 3 sections skipped: helper (line 10), closeHelper (line 13), once (line 16)"
    );
    insta::assert_snapshot!(told(MIXED));
}

#[test]
fn importing_again_is_no_error() {
    let first = super::read(MIXED, &[]);
    let doors = toml::from_str::<DoorsFile>(&first.text()).unwrap().door;
    let again = super::read(MIXED, &doors);
    assert_eq!((again.text().as_str(), &again.existing[..]), ("", &["ssh".to_owned(), "web".to_owned()][..]));
    assert!(again.report("x").contains("note: x: the configuration has the door `ssh` already\n"));
    // A different door of the same name is not replaced.
    let other = super::read(&MIXED.replace("sequence = 3,4", "sequence = 4,3"), &doors);
    assert!(other.doors.is_empty() && other.existing == ["ssh"]);
    let report = other.report("x");
    assert!(report.contains("error: x:19: the configuration has another door `web` already: "), "{report}");
}

#[test]
fn json_has_doors_and_what_was_skipped() {
    let document = crate::json::Document::new(super::read(MIXED, &[]));
    let text = serde_json::to_string_pretty(&document).unwrap();
    crate::json::schema::assert_valid("import", &text);
    insta::assert_snapshot!(text);
}
