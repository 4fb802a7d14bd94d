//! The parser of the words of one `add`.

use std::time::Duration;

use super::super::lexer::Lexer;
use super::super::{property, read as read_file};
use super::*;
use crate::packet::TcpFlag;
use crate::rule::{ConnectionState, PortSet};
use crate::word::Set;

mod reference;

/// Parses the words of one `add`, and returns its rule and its problems.
fn read_words(table: Table, family: Family, words: &str) -> (Option<Rule>, Vec<String>) {
    let text = format!("add {words}");
    let command = Lexer::new(text.as_bytes()).next(|_| true).unwrap();
    let add = property::Add { words: &command.words[1..], verb: 0..3, line: 1, intact: command.flaws.is_empty() };
    let mut problems = Problems::default();
    let entry = read(table, family, &add, &mut problems);
    let messages: Vec<String> = problems.place(text.as_bytes()).into_iter().map(|problem| problem.message).collect();
    assert_eq!(entry.rule.is_none(), !messages.is_empty(), "{words}: {messages:?}");
    (entry.rule, messages)
}

/// The messages for the words of one `add` in `/ip firewall filter`.
fn messages(words: &str) -> Vec<String> {
    read_words(Table::Filter, Family::Ipv4, words).1
}

/// A rule of `/ip firewall filter` without problems.
fn rule(words: &str) -> Rule {
    let (rule, messages) = read_words(Table::Filter, Family::Ipv4, words);
    rule.unwrap_or_else(|| panic!("{words}: {messages:?}"))
}

#[test]
fn properties_of_doors_are_refused() {
    for (words, said) in [
        ("chain=input action=knock", "`knock` is not an action of rule files"),
        ("chain=input action=accept door=ssh", "`door` belongs to doors"),
        ("chain=input connection-door=ssh", "`connection-door` belongs to doors"),
    ] {
        let messages = messages(words);
        assert!(messages.len() == 1 && messages[0].contains(said), "{messages:?}");
    }
}

#[test]
fn a_rule_with_everything() {
    let text = "/ip firewall filter\nadd action=add-src-to-address-list address-list=a address-list-timeout=1m \
        chain=knock comment=\"c \\\"d\\\"\" disabled=yes port=5 dst-port=!1,2-3 src-port=4 protocol=udp \
        layer7-protocol=p packet-size=100-200 dst-address-list=!d src-address-list=s dst-address=10.0.0.0/8 \
        src-address=!192.0.2.1-192.0.2.9 log=yes log-prefix=\"knock: \" limit=1,5 in-interface=!ether1\n\
        /ip firewall layer7-protocol\nadd name=p regexp=x\n";
    let reading = read_file(text.as_bytes());
    assert_eq!(reading.problems, []);
    let rule = &reading.rules.rules[0];
    let add = ListAdd { list: "a".to_owned(), timeout: ListTimeout::After(Duration::from_secs(60)) };
    assert_eq!(rule.action, Action::AddSrcToAddressList(add));
    assert_eq!((rule.chain.as_str(), rule.comment.as_str(), rule.disabled), ("knock", "c \"d\"", true));
    assert_eq!((rule.table, rule.family, rule.line, &rule.invalid), (Table::Filter, Family::Ipv4, 2, &None));
    assert_eq!(rule.log, Some(Log { prefix: "knock: ".to_owned() }));
    let said: Vec<_> = rule.matchers.iter().map(|matcher| (matcher.condition.name(), matcher.negated)).collect();
    assert_eq!(
        said,
        [
            ("in-interface", true),
            ("src-address", true),
            ("dst-address", false),
            ("protocol", false),
            ("src-address-list", false),
            ("dst-address-list", true),
            ("packet-size", false),
            ("src-port", false),
            ("dst-port", true),
            ("port", false),
            ("layer7-protocol", false),
            ("limit", false),
        ]
    );
    assert!(rule.matchers.is_sorted_by_key(|matcher| matcher.condition.rank()));
    assert_eq!(rule.matchers[8].condition, Condition::DstPort(PortSet(vec![1..=1, 2..=3])));
}

#[test]
fn defaults_and_unset_matchers() {
    let text = "/ipv6 firewall filter\nadd chain=input !connection-state !src-address !address-list\n";
    let reading = read_file(text.as_bytes());
    assert_eq!(reading.problems, []);
    let rule = &reading.rules.rules[0];
    assert_eq!((&rule.action, rule.family, rule.matchers.len()), (&Action::Accept, Family::Ipv6, 0));
    assert!(!rule.disabled && rule.log.is_none());
    assert!(messages("chain=input action=drop address-list-timeout=none-dynamic").is_empty());
    assert!(messages("chain=input action=drop address-list-timeout=0s").is_empty());
    assert!(messages("chain=input action=passthrough icmp-options=8:0 protocol=icmp").is_empty());
}

#[test]
fn empty_lists_are_always_true() {
    let emptied = rule(
        "chain=input src-address-type=\"\" dst-address-type=\"\" connection-state=\"\" tcp-flags=\"\" log-prefix=\"\"",
    );
    let conditions: Vec<_> = emptied.matchers.iter().map(|matcher| matcher.condition.clone()).collect();
    assert_eq!(
        conditions,
        [
            Condition::SrcAddressType(Set::EMPTY),
            Condition::DstAddressType(Set::EMPTY),
            Condition::TcpFlags { set: Set::EMPTY, clear: Set::EMPTY },
            Condition::ConnectionState(Set::EMPTY),
        ]
    );
    assert!(emptied.runs());
    for name in ["src-address", "protocol", "content", "limit", "connection-nat-state", "in-interface", "chain"] {
        assert!(!messages(&format!("chain=x {name}=\"\"")).is_empty(), "{name}");
    }
}

#[test]
fn flags_and_states_in_the_words_of_exports() {
    let scan = rule("chain=input protocol=tcp tcp-flags=fin,!syn,!rst,!psh,!ack,!urg connection-state=!new,untracked");
    let [_, flags, states] = &scan.matchers[..] else { panic!("{scan:?}") };
    use TcpFlag::*;
    let (set, clear) = (Set::from_iter([Fin]), Set::from_iter([Syn, Rst, Psh, Ack, Urg]));
    assert_eq!(flags, &Matcher { negated: false, condition: Condition::TcpFlags { set, clear } });
    let condition = Condition::ConnectionState(Set::from_iter([ConnectionState::New, ConnectionState::Untracked]));
    assert_eq!(states, &Matcher { negated: true, condition });
}

#[test]
fn unsupported_conditions_are_kept_and_not_run() {
    for (words, reason) in [
        ("p2p=all-p2p", "`p2p=all-p2p` is not supported: file-sharing protocols are not recognized here"),
        ("hotspot=!auth", "`hotspot=!auth` is not supported: there is no hotspot here"),
        ("hotspot=\"\"", "`hotspot=` is not supported: there is no hotspot here"),
        ("realm=1", "`realm=1` is not supported: there are no routes here"),
        ("routing-table=main", "`routing-table=main` is not supported: there are no routes here"),
        ("connection-type=ftp", "`connection-type=ftp` is not supported: there are no connection helpers here"),
        ("connection-mark=!a", "`connection-mark=!a` is not supported: no rule sets marks here"),
        ("packet-mark=\"PRIO 1\"", "`packet-mark=PRIO 1` is not supported: no rule sets marks here"),
        ("routing-mark=a", "`routing-mark=a` is not supported: no rule sets marks here"),
    ] {
        let kept = rule(&format!("chain=input {words}"));
        assert_eq!(kept.invalid.as_deref(), Some(reason), "{words}");
        let (name, value) = words.split_once('=').unwrap();
        let value = value.trim_matches('"');
        let condition = Condition::Other { name: name.to_owned(), value: value.trim_start_matches('!').to_owned() };
        assert_eq!(kept.matchers, [Matcher { negated: value.starts_with('!'), condition }], "{words}");
        assert!(!kept.runs(), "{words}");
    }
    let ports = rule("chain=input protocol=sctp dst-port=36412");
    assert_eq!(ports.invalid.as_deref(), Some("`dst-port`: ports of sctp are not supported"));
    assert_eq!(ports.matchers[1].condition, Condition::DstPort(PortSet(vec![36412..=36412])));
    let both = rule("chain=input p2p=all-p2p realm=1").invalid.unwrap();
    assert_eq!(both.matches("; ").count(), 1, "{both}");
}

#[test]
fn conditions_with_a_constant_answer_are_supported() {
    for words in [
        "connection-nat-state=!dstnat",
        "connection-nat-state=srcnat,dstnat",
        "connection-mark=no-mark",
        "packet-mark=!no-mark",
        "routing-mark=no-mark",
        "ipsec-policy=in,ipsec",
        "ipsec-policy=out,none",
        "priority=5",
    ] {
        assert!(rule(&format!("chain=input {words}")).runs(), "{words}");
    }
    assert!(rule("chain=input packet-mark=!no-mark").matchers[0].negated);
}

#[test]
fn actions_with_what_they_need() {
    let action = |words: &str| rule(&format!("chain=input {words}")).action;
    assert_eq!(action("action=reject"), Action::Reject(RejectWith::NetworkUnreachable));
    assert_eq!(action("action=reject reject-with=icmp-admin-prohibited"), Action::Reject(RejectWith::AdminProhibited));
    assert_eq!(action("action=reject reject-with=tcp-reset protocol=tcp"), Action::Reject(RejectWith::TcpReset));
    assert_eq!(action("action=tarpit protocol=tcp"), Action::Tarpit);
    assert_eq!(action("action=fasttrack-connection hw-offload=yes"), Action::FasttrackConnection);
    assert_eq!(action("action=return"), Action::Return);
    let (ipv6, _) = read_words(Table::Filter, Family::Ipv6, "chain=input action=reject");
    assert_eq!(ipv6.unwrap().action, Action::Reject(RejectWith::NoRoute));
    let (raw, _) = read_words(Table::Raw, Family::Ipv4, "chain=prerouting action=notrack");
    let raw = raw.unwrap();
    assert_eq!((raw.table, raw.action), (Table::Raw, Action::Notrack));
}

#[test]
fn log_prefixes() {
    let log = |words: &str| rule(&format!("chain=input {words}")).log.map(|log| log.prefix);
    assert_eq!(log("action=drop"), None);
    assert_eq!(log("action=drop log=no log-prefix=a"), None);
    assert_eq!(log("action=drop log-prefix=a"), None);
    assert_eq!(log("action=drop log=yes"), Some(String::new()));
    assert_eq!(log("action=drop log=yes log-prefix=\"input WinBox, SSTP\""), Some("input WinBox, SSTP".to_owned()));
    assert_eq!(log("action=log"), Some(String::new()));
    assert_eq!(log("action=log log=no log-prefix=a"), Some("a".to_owned()));
}

#[test]
fn each_menu_has_its_properties() {
    let told = |table, family, words: &str| read_words(table, family, words).1.join("; ");
    let (filter, raw) = (Table::Filter, Table::Raw);
    assert_eq!(told(filter, Family::Ipv4, "chain=input hop-limit=equal:1"), "`hop-limit` is for IPv6 rules only");
    assert_eq!(told(filter, Family::Ipv6, "chain=input ttl=equal:1"), "`ttl` is for IPv4 rules only");
    assert_eq!(told(filter, Family::Ipv6, "chain=input fragment=yes"), "`fragment` is for IPv4 rules only");
    assert_eq!(
        told(raw, Family::Ipv4, "chain=prerouting connection-state=new"),
        "`connection-state` is for `filter` rules only"
    );
    for name in ["connection-limit", "connection-bytes", "connection-rate", "connection-nat-state", "layer7-protocol"] {
        assert_eq!(read_words(raw, Family::Ipv6, &format!("chain=prerouting {name}=1")).1.len(), 1, "{name}");
    }
    // RouterOS does not allow this combination.
    assert_eq!(told(filter, Family::Ipv6, "chain=input psd=21,3s,3,1 layer7-protocol=p"), "");
    assert_eq!(told(raw, Family::Ipv6, "chain=prerouting psd=21,3s,3,1 limit=1,5 src-address=fe80::/10"), "");
    assert_eq!(
        told(filter, Family::Ipv6, "chain=input action=tarpit protocol=tcp"),
        "`tarpit` is not an action of `/ipv6 firewall filter`"
    );
}

#[test]
fn relations_between_properties() {
    let one = |words: &str| {
        let messages = messages(words);
        assert_eq!(messages.len(), 1, "{words}: {messages:?}");
    };
    one("action=drop");
    one("chain=\"\"");
    one("chain=input dst-port=1");
    one("chain=input dst-port=1 !protocol");
    one("chain=input dst-port=1 protocol=!tcp");
    one("chain=input dst-port=1 protocol=icmp");
    one("chain=input port=1 protocol=gre");
    one("chain=input icmp-options=8:0");
    one("chain=input icmp-options=8:0 protocol=icmpv6");
    one("chain=input tcp-flags=syn");
    one("chain=input tcp-flags=syn protocol=udp");
    one("chain=input tcp-flags=syn protocol=!tcp");
    one("chain=input tcp-mss=0-500");
    one("chain=input action=tarpit");
    one("chain=input action=tarpit protocol=udp");
    one("chain=input action=reject reject-with=tcp-reset");
    one("chain=input action=reject reject-with=icmp-no-route");
    one("chain=input action=drop reject-with=icmp-network-unreachable");
    one("chain=input action=add-src-to-address-list");
    one("chain=input action=add-src-to-address-list address-list=\"\"");
    one("chain=input address-list=x");
    one("chain=input address-list-timeout=1m");
    one("chain=input jump-target=input");
    one("chain=input action=jump");
    one("chain=input action=drop action=accept");
    one("chain=input action=notrack");
    one("chain=input chain=input");
    one("chain=input !src-address src-address=192.0.2.1");
    one("chain=input !action");
    one("chain=input src-address-list=a,!b");
    one("chain=input src-address-list=!!b");
    one("chain=input src-address=2001:db8::1");
    one("chain=input log=maybe");
    one("chain=input log-prefix=\"a\\nb\"");
    one("chain=input bytes=144");
    one("chain=input copy-from=0");
    // An unknown name may be the missing one, so this is one problem, not two.
    one("chian=input");
    one("chain=input dst-port=1 protcol=tcp");
    one("chain=input dst-port=1 protocol=tpc");
    one("chain=input acton=jump jump-target=x");
    one("chain=input tcp-flags=syn protocol=tpc");
    one("chain=input tcp-flags=sin");
}

#[test]
fn all_problems_of_one_command_are_reported() {
    assert_eq!(
        messages("chain=input src-addres=192.0.2.1 dst-port=x protocol=tcp limit=1 stray disabled=maybe").len(),
        5
    );
}

/// Checks the message for an invalid value of each matcher.
#[test]
fn bad_values_are_told() {
    let words = [
        "src-mac-address=00-11-22-AA-BB-CC",
        "in-interface=ether1,ether2",
        "out-bridge-port-list=!!LAN",
        "src-address-type=!local,anycast",
        "ttl=64",
        "dscp=64",
        "tos=16/12",
        "packet-size=99-0",
        "tls-host=*.[ab].example",
        "ipv4-options=no-strict-source-routing",
        "fragment=!yes",
        "tcp-flags=syn,!sin",
        "tcp-mss=1460-",
        "icmp-options=echo",
        "priority=8:0",
        "ipsec-policy=ipsec",
        "time=8h-17h",
        "time=8h-17h,weekend",
        "connection-state=established,relatd",
        "connection-nat-state=\"\"",
        "connection-bytes=1k-2k",
        "connection-rate=!100k",
        "connection-limit=30",
        "content=\"\"",
        "psd=21,3s,3",
        "random=100",
        "nth=2,3",
        "per-connection-classifier=both-addresses:2/2",
        "limit=10",
        "limit=10/1m,5:byte",
        "dst-limit=10,5,dst-port",
        "dst-limit=!10,5,dst-address",
        "address-list-timeout=36w",
        "reject-with=icmp-no-route",
        "action=masquerade",
    ];
    let text: String =
        words.iter().map(|words| format!("/ip firewall filter add chain=input protocol=0 {words}\n")).collect();
    let mut told = String::new();
    for problem in read_file(text.as_bytes()).problems {
        let (at, expected, help) = (&text[problem.span], problem.expected, problem.help);
        told.push_str(&format!("{at}: {}\n", problem.message));
        told.extend(expected.map(|expected| format!("    expected {expected}\n")));
        told.extend(help.map(|help| format!("    {help}\n")));
    }
    insta::assert_snapshot!(told);
}
