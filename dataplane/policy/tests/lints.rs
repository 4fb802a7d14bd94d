//! `docs/lints.md` is what the code says of rules that cannot be meant: this writes the page, and compares it. Every example
//! is run: it raises its lint and no other one, and what is to be written instead raises none.
//!
//! `UPDATE=1 cargo test -p knockplane-policy --test lints` renews it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use knockplane_policy::door::Door;
use knockplane_policy::lint::{Code, Lint, lint};
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::word::Word;
use serde::Deserialize;

/// What no lint says.
const INTRODUCTION: &str = "\
# What `knockctl check` says of rules

Everything is said at its place, with what was expected and a remedy, and all of it in one go; `--json` says the same to
scripts. `knockctl apply` says it too, with the settings of the dataplane that is to run the rules.

    knockctl check rules.rsc                                   # with the default settings
    knockctl check --config knockplane.toml rules.rsc          # with those of [policy]
    knockctl check --outside=ether1,WAN --inside=bridge --elsewhere=wg0 --protect=203.0.113.0/24 rules.rsc
    ssh admin@router /export | knockctl check -                # `-` is standard input

It ends with 0 if the rules can run, and with 3 if they cannot.

## Errors

| code | what | remedy |
|---|---|---|
| `E001` | A line cannot be read, or refers to what is not there. Nothing of the file is used: a rule without one of its matchers would let in more. | It is said with each; [the language](language.md) has every property. |
| `W001` | A warning of what is not wrong: the router says that a menu is missing on which no rule depends, a menu is not known, or a statement of a script changes no rule. | It is said with each. |
| `E002` | A rule reads well, but nobody can run it here: it asks for a mark that nothing sets, or for a hotspot. | Disable it or leave it out; with `--allow-invalid`, `check` takes it for a warning, and `apply` keeps it as a disabled rule. |
| `E003` | The dataplane does not run what a rule says, or not together with the others. | Disable the rule, or leave it out. |
| `E004` | An interface is named, and nothing says which side of the filter it is. A matcher about it would be true of everything or of nothing. | Write its name into one of the lists of `[policy.interfaces]`: `outside` or `inside` if packets of this filter come from there, `elsewhere` if it is another interface of the router, such as a tunnel. The section is printed at the end, with the open names as comments: no answer is safe for every rule, so none is given. |

## Lints

Lints are warnings: the rules run, and something of them cannot be meant. `--deny-lints` makes them count: then `check` ends
with 3 (but not for `K019`, which repeats what the configuration says). A lint speaks only if it is certain of every packet with these settings; where that takes an assumption, such as how
fast a scan is, it names it. What is disabled is looked at only to say that it is. Those about [doors](doors.md) are told of
the configuration.
";

/// What an example that is no rule file is: doors of a configuration.
#[derive(Deserialize)]
struct Doors {
    door: Vec<Door>,
}

/// What a lint's section says besides the lint itself.
struct Section {
    code: Code,
    meaning: &'static str,
    /// Prefixes that are protected, if not all.
    protect: Option<&'static str>,
    /// An interface that is `elsewhere`.
    elsewhere: Option<&'static str>,
    example: &'static str,
    instead: &'static str,
}

/// Exhaustive by way of the match.
fn section(code: Code) -> Section {
    let section =
        |meaning, example, instead| Section { code, meaning, protect: None, elsewhere: None, example, instead };
    match code {
        Code::UnreachableRule => section(
            "An earlier rule of the chain decides about every packet that this one could match. What several rules leave \
             nothing of together is not seen.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input src-address=192.0.2.0/24 action=drop
add chain=input src-address=192.0.2.7 protocol=tcp dst-port=22 action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input src-address=192.0.2.7 protocol=tcp dst-port=22 action=accept
add chain=input src-address=192.0.2.0/24 action=drop
add chain=input action=drop
",
        ),
        Code::NeverMatches => section(
            "It asks for what no packet is: matchers that exclude each other, ports of a protocol that has none, a side \
             from which no packet comes into the chain, an address that is not protected.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=22 tcp-flags=syn,!syn action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=22 tcp-flags=syn,!ack action=accept
add chain=input action=drop
",
        ),
        Code::EmptyJump => section(
            "It jumps to a chain in which no rule runs, or that is not there at all: RouterOS comes back from it at once, unless \
             something on the router adds rules to it.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input action=jump jump-target=knock
add chain=input action=drop
add chain=knock protocol=tcp dst-port=22 action=accept disabled=yes
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input action=jump jump-target=knock
add chain=input action=drop
add chain=knock protocol=tcp dst-port=22 action=accept
",
        ),
        Code::UnusedChain => section(
            "No jump leads to its chain, so none of its rules is ever met. Chains whose jump is disabled, and chains that \
             RouterOS keeps as a place for rules, are left alone.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=inptu protocol=tcp dst-port=22 action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=22 action=accept
add chain=input action=drop
",
        ),
        Code::DeadChain => section(
            "With these settings no packet enters its chain. Which chain a packet enters follows from the addresses that \
             are protected: all of them, unless `protect` says otherwise, and then nothing is `forward`.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=forward protocol=tcp dst-port=22 action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=22 action=accept
add chain=input action=drop
",
        ),
        Code::EmptyList => section(
            "It asks for a list that no rule and no entry of the file fills. If people fill it, with `knockctl list add`, \
             an entry without an address says so: `/ip firewall address-list add list=friends`.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input src-address-list=secure action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
        Code::ShortStep => section(
            "A knock counts for less than two seconds. A packet that is lost is sent again after a second, and then it is \
             too late.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=knocked address-list-timeout=1s
add chain=input protocol=icmp packet-size=256 src-address-list=knocked \\
    action=add-src-to-address-list address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=knocked address-list-timeout=10s
add chain=input protocol=icmp packet-size=256 src-address-list=knocked \\
    action=add-src-to-address-list address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
        Code::LongStep => section(
            "A knock counts for good, or for longer than the door stays open that the next one opens. Once it is shut, the \
             last knock alone opens it again.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=knocked
add chain=input protocol=icmp packet-size=256 src-address-list=knocked \\
    action=add-src-to-address-list address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=knocked address-list-timeout=10s
add chain=input protocol=icmp packet-size=256 src-address-list=knocked \\
    action=add-src-to-address-list address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
        Code::ScanOpens => section(
            "A port scan gives the knocks by chance: in ascending or descending order if the ports only go up or down, in \
             random order (as scanners do by default) once in so many scans. The scan is run through the rules, so it counts \
             which rule it meets first: a rule that notices scans, or a list of scanners, is of no use behind what it should \
             protect. Not seen are scans of TCP and UDP together, scans in random order of fewer than 1,000 ports or that get \
             in less than once in 1,000 times, scans from several addresses, scans that pause where rules count ports or packets, \
             speeds between 10,000, 1,000, 100, 10 and 1 ports a second and one port in 4 or 8 seconds, and rule sets with more than 300 rules that a scan can match. A scan asks \
             for nothing but a port: steps that want more of a packet, such as a payload, are not scanned.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list \\
    address-list=temporary address-list-timeout=10s
add chain=input protocol=tcp dst-port=4321 src-address-list=temporary \\
    action=add-src-to-address-list address-list=secured address-list-timeout=1m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input src-address-list=scanner action=drop
add chain=input protocol=tcp dst-port=1235-4320 action=add-src-to-address-list \\
    address-list=scanner address-list-timeout=1m
add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list \\
    address-list=temporary address-list-timeout=10s
add chain=input protocol=tcp dst-port=4321 src-address-list=temporary \\
    action=add-src-to-address-list address-list=secured address-list-timeout=1m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
        Code::MootKnock => section(
            "It accepts from everybody what a knock opens, so that nobody needs to knock.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input protocol=tcp dst-port=22 src-address-list=secured action=accept
add chain=input protocol=tcp dst-port=22,443 action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input protocol=tcp dst-port=22 src-address-list=secured action=accept
add chain=input protocol=tcp dst-port=443 action=accept
add chain=input action=drop
",
        ),
        Code::NoNat => Section {
            protect: Some("192.0.2.0/24"),
            ..section(
                "It depends on addresses being translated, and a wire translates none: `connection-nat-state=!dstnat` is \
                 true of every packet, and `dstnat` of none. So the last rule of RouterOS's default configuration stops \
                 all that is new, and not only what the router has not sent on.",
                "/ip firewall filter
add chain=forward in-interface=outside connection-state=new connection-nat-state=!dstnat \\
    action=drop comment=\"defconf: drop all from WAN not DSTNATed\"
add chain=forward action=accept
",
                "/ip firewall filter
add chain=forward in-interface=outside dst-address=198.51.100.80 protocol=tcp dst-port=443 \\
    action=accept
add chain=forward in-interface=outside connection-state=new action=drop
add chain=forward action=accept
",
            )
        },
        Code::NoFinalDrop => section(
            "What no rule of the chain decides about is decided by a setting, `[policy.chain-default]`. Where that drops, \
             RouterOS accepts, and the rules mean something else there; where it accepts, everybody gets in who has not \
             knocked.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=22 action=accept
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=tcp dst-port=22 action=accept
add chain=input action=drop
",
        ),
        Code::MatchesAnything => section(
            "Its expression matches every payload, an empty one too, so whoever asks for it asks for nothing.",
            "/ip firewall layer7-protocol
add name=secret regexp=\".*\"
/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp layer7-protocol=secret action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
            "/ip firewall layer7-protocol
add name=secret regexp=\"^open sesame\\$\"
/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp layer7-protocol=secret action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
        Code::ShortKnock => section(
            "The knock of a [door](doors.md) takes few guesses. A port of TCP or UDP is one of 65,535; a ping is none to \
             guess. A knock with a passphrase is not counted.",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/7000\", \"tcp/4321\"]
opens = [\"tcp/22\"]
",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/7000\", \"tcp/4321\", \"udp/9000\"]
opens = [\"tcp/22\"]
",
        ),
        Code::OrderedKnock => section(
            "The ports of a door's knock ascend or descend. Scans do so as well, and whoever guesses has far fewer knocks to \
             try.",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/7000\", \"tcp/8000\", \"tcp/9000\"]
opens = [\"tcp/22\"]
",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
",
        ),
        Code::ServiceKnock => section(
            "A step of a door's knock is to a port of a well-known service. Scans try it first, and programs by themselves: \
             a browser that tries the address is one step ahead.",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/443\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/8444\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
",
        ),
        Code::OverlappingKnock => section(
            "Who knocks at one door opens another one as well, on the way or with the same packets.",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
[[door]]
name = \"everything\"
knock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\", \"udp/4321\"]
",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
[[door]]
name = \"everything\"
knock = [\"tcp/8000\", \"tcp/9000\", \"udp/4321\", \"tcp/7000\"]
",
        ),
        Code::FragmentedSize => section(
            "RouterOS puts fragments together before its rules; here each fragment is decided about by itself. So a \
             `packet-size` above the MTU matches nothing, and the MTU itself matches the first fragment of every longer \
             packet. An MTU of 1500 is assumed.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=2028 action=add-src-to-address-list address-list=open address-list-timeout=1m
add chain=input src-address-list=open action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=1028 action=add-src-to-address-list address-list=open address-list-timeout=1m
add chain=input src-address-list=open action=accept
add chain=input action=drop
",
        ),
        Code::LenientDoor => section(
            "Packets in between do not start a door over, so a scan that comes by its steps in their order opens it.",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
strict = false
",
            "[[door]]
name = \"ssh\"
knock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\"]
opens = [\"tcp/22\"]
",
        ),
        Code::Elsewhere => Section {
            elsewhere: Some("wg0"),
            ..section(
                "It asks for an interface that `elsewhere` of `[policy.interfaces]` names, or for a group that RouterOS makes of \
                 other interfaces than Ethernet (`all-ppp`, `all-wireless`, `all-vlan`): no packet of this filter comes from \
                 there or goes there. So the rule never matches; with `!` the matcher is true of every packet. Nothing needs to be \
                 done if that is so; it is said because the rule may be one that was to keep somebody out.",
                "/ip firewall filter
add chain=input in-interface=wg0 action=accept comment=\"tunnel to the office\"
add chain=input action=drop
",
                "/ip firewall filter
add chain=input action=drop
",
            )
        },
        Code::StepsTogether => section(
            "One packet completes several steps: an address that a rule adds is in the list for the next rule on the same \
             packet. With the steps in rising order a packet that fits them all goes through every one of them, so that the \
             knock of three packets is a knock of one, and a ladder to a blacklist has one rung.",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=knocked address-list-timeout=10s
add chain=input protocol=icmp packet-size=128 src-address-list=knocked \\
    action=add-src-to-address-list address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 src-address-list=knocked \\
    action=add-src-to-address-list address-list=secured address-list-timeout=10m
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=knocked address-list-timeout=10s
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
        Code::NoPathMtu => section(
            "It accepts TCP connections, and the ICMP errors about them are dropped that say which size of packet a link on the \
             way can carry. Without these, a host sends packets that are too long again and again: the connection is made, and \
             stalls at the first download over such a link (PPPoE, tunnels, VPNs). `related` is what belongs to a connection \
             in this way.",
            "/ip firewall filter
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
            "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=icmp packet-size=128 action=add-src-to-address-list \\
    address-list=secured address-list-timeout=10m
add chain=input src-address-list=secured action=accept
add chain=input action=drop
",
        ),
    }
}

#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lints.md"));
    let page = page();
    if env::var_os("UPDATE").is_some() {
        fs::write(path, &page).expect("docs/lints.md can be written");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(committed.lines()).find(|(said, there)| said != there);
    assert!(
        page == committed,
        "docs/lints.md is not what the code says (first at {differs:?}): renew it with\n\
         UPDATE=1 cargo test -p knockplane-policy --test lints"
    );
}

#[test]
fn examples_raise_their_lint_and_no_other() {
    for code in Code::ALL {
        let section = section(*code);
        let raised: Vec<Code> = lints(section.example, &section).iter().map(|lint| lint.code).collect();
        assert_eq!(raised, [*code], "{}", section.example);
        assert_eq!(lints(section.instead, &section), [], "{}", section.instead);
    }
}

#[test]
fn numbers_are_in_order() {
    let numbers: Vec<&str> = Code::ALL.iter().map(|code| code.number()).collect();
    assert!(numbers.is_sorted() && numbers.iter().all(|number| number.starts_with('K') && number.len() == 4));
}

fn lints(text: &str, section: &Section) -> Vec<Lint> {
    let mut settings = Settings::default();
    if text.starts_with("[[door]]") {
        let file: Doors = toml::from_str(text).expect("doors of a configuration");
        settings.doors = file.door;
        return lint(&RuleSet::default(), &settings);
    }
    let reading = rsc::read(text.as_bytes());
    assert_eq!(reading.problems, [], "{text}");
    if let Some(net) = section.protect {
        settings.protect = vec![net.parse().expect("a prefix")];
    }
    settings.interfaces.elsewhere.extend(section.elsewhere.map(str::to_owned));
    lint(&reading.rules, &settings)
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for code in Code::ALL {
        let section = section(*code);
        let Section { code, meaning, protect, elsewhere, example, instead } = &section;
        let _ = write!(page, "\n### `{}` {}\n\n{meaning}\n", code.number(), code.name());
        let settings = [("protect", protect), ("elsewhere", elsewhere)];
        let with = settings.iter().filter_map(|(key, value)| Some(format!(", with `{key} = [\"{}\"]`", (**value)?)));
        let with: String = with.collect();
        let _ = write!(page, "\nRaised by{with}:\n\n```\n{example}```\n");
        for lint in lints(example, &section) {
            let line = if lint.line == 0 { String::new() } else { format!("line {}: ", lint.line) };
            let _ = write!(page, "\n> {line}{}\n>\n> **Remedy**: {}\n", lint.sentence, lint.remedy);
        }
        let _ = write!(page, "\nInstead:\n\n```\n{instead}```\n");
    }
    page
}
