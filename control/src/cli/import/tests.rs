use knockplane_policy::door::Door;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    door: Vec<Door>,
}

/// What is written and what is told, both in one text. What is written must be doors.
fn told(conf: &str) -> String {
    let (doors, told) = read(conf);
    if !told.errors.is_empty() {
        return told.report("knockd.conf");
    }
    let read = toml::from_str::<File>(&doors).unwrap_or_else(|error| panic!("{error}\n{doors}"));
    assert_eq!(read.door.len(), doors.matches("[[door]]").count());
    doors + &told.report("knockd.conf")
}

/// One section with this command.
fn with(command: &str) -> String {
    told(&format!("[a]\nsequence = 7000\nstart_command = {command}\ncmd_timeout = 60\nstop_command = nft delete x\n"))
}

/// What a door opens with this command, or what is wrong with it.
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
        ("sleep 0; iptables -D INPUT 1", "`0` is no time: write whole seconds, from 1 to 21474836"),
        ("sleep 99999999; iptables -D INPUT 1", "`99999999` is no time"),
        ("sleep 20000000; sleep 20000000; iptables -D INPUT 1", "too long"),
        ("iptables -D INPUT 1", "it is open for no time"),
    ] {
        let command = format!("iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; {rest}");
        let told = told(&format!("[a]\nsequence = 7000\ncommand = {command}\n"));
        assert!(told.starts_with("error: knockd.conf:3: ") && told.contains(part), "{told}");
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
