//! Generates `docs/lints.md`, the page about rules that cannot be intended, and compares it. Runs every example: the
//! example has exactly its lint, and its correction has none.
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

/// The text before the lints.
const INTRODUCTION: &str = "\
# Messages of `knockctl check`

`knockctl check` reports all errors and lints of a file at once, each with its place, the expected text and a remedy. `--json` has
the same for scripts. `knockctl apply` reports them too, with the settings of its dataplane.

    knockctl check rules.rsc                                   # with the default settings
    knockctl check --config knockplane.toml rules.rsc          # with those of [policy]
    knockctl check --outside=ether1,WAN --inside=bridge --elsewhere=wg0 --protect=203.0.113.0/24 rules.rsc
    ssh admin@router /export | knockctl check -                # `-` is standard input

It ends with 0 if the rules can run, and with 3 if they cannot.

## Errors

| code | error | remedy |
|---|---|---|
| `E001` | A line cannot be read, or refers to a missing object. The file is not used, because a rule without one of its matchers would accept more packets. | The message has it; [the language](language.md) has every property. |
| `W001` | A warning, not an error: the router reports a missing menu on which no rule depends, a menu is unknown, or a statement of a script changes no rule. | The message has it. |
| `E002` | A valid rule cannot run here: it needs a mark that no rule sets, or a hotspot. | Disable the rule, or leave it out. With `--allow-invalid`, `check` treats it as a warning, and `apply` keeps it as a disabled rule. |
| `E003` | The dataplane cannot run a rule, alone or together with the others. | Disable the rule, or leave it out. |
| `E004` | An interface is named, and its side of the filter is unknown. A matcher with it would be true of all packets or of none. | Write its name into one of the lists of `[policy.interfaces]`: `outside` or `inside` if packets of this filter come from there, `elsewhere` if it is another interface of the router, such as a tunnel. The section is printed at the end, with the unknown names as comments, because no default is safe for every rule. |

## Lints

Lints are warnings: the rules run, and a part of them cannot be intended. With `--deny-lints`, `check` ends with 3 if there is a
lint (except `K019`, which repeats the configuration). A lint is reported only if it is true for every packet with these settings.
If it needs an assumption, such as the speed of a scan, it names the assumption. Disabled rules get no lint, except the note that
they are disabled. Lints about [doors](doors.md) concern the configuration.
";

/// An example that is no rule file: doors of a configuration.
#[derive(Deserialize)]
struct Doors {
    door: Vec<Door>,
}

/// The section of a lint, without the text of the lint itself.
struct Section {
    code: Code,
    meaning: &'static str,
    /// The protected prefixes; `None` for all addresses.
    protect: Option<&'static str>,
    /// An interface that is `elsewhere`.
    elsewhere: Option<&'static str>,
    example: &'static str,
    instead: &'static str,
}

/// The match ensures that every lint has a section.
fn section(code: Code) -> Section {
    let section =
        |meaning, example, instead| Section { code, meaning, protect: None, elsewhere: None, example, instead };
    match code {
        Code::UnreachableRule => section(
            "An earlier rule of the chain decides every packet that this rule could match. The lint does not find \
             rules that several earlier rules together make unreachable.",
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
            "The matchers describe no packet: matchers that exclude each other, ports of a protocol without ports, a \
             side from which no packet enters the chain, or an address that is not protected.",
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
            "The rule jumps to a chain without enabled rules, or to a missing chain. RouterOS returns from it at \
             once, unless a program on the router adds rules to it.",
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
            "No jump leads to the chain of this rule, so no packet meets its rules. The lint leaves out chains whose \
             jump is disabled, and chains that RouterOS reserves as a place for rules.",
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
            "With these settings no packet enters the chain of this rule. The chain of a packet follows from the \
             protected addresses: all addresses, unless `protect` says otherwise, and then no packet is in \
             `forward`.",
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
            "The rule matches a list that no rule and no entry of the file fills. If operators fill the list, with \
             `knockctl list add`, declare it by an entry without an address: `/ip firewall address-list add \
             list=friends`.",
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
            "A knock counts for less than two seconds. A lost packet is sent again after a second, and then it is \
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
            "A knock counts without a limit, or for longer than the grant of the next knock. When the grant has \
             ended, the last knock alone opens the door again.",
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
            "A port scan completes the knock by chance: in ascending or descending order if the ports only rise or \
             fall; in random order, the default of scanners, once in a number of scans. The lint runs the scan \
             through the rules, so the order of the rules counts: a rule that detects scans, or a list of scanners, \
             has no effect behind the rules that it should protect. Where rules count ports or packets, the lint also \
             tries scans that begin shortly before the first port of the knock, because such rules detect a scan only \
             after some ports. The lint does not find scans of TCP and UDP \
             together, scans in random order of fewer than 1,000 ports or with fewer than one success in 1,000, \
             scans from several addresses, scans that pause while rules count ports or packets, speeds between \
             10,000, 1,000, 100, 10 and 1 ports a second and one port in 4 or 8 seconds, and rule sets with more \
             than 300 rules that a scan can match. A scan has only ports: steps that need more of a packet, such as \
             a payload, are not scanned.",
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
            "The rule accepts from all sources the packets for which a knock opens, so the knock is not needed.",
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
                "The rule depends on address translation, and a wire translates no address: \
                 `connection-nat-state=!dstnat` is true of every packet, and `dstnat` of none. So the last rule of \
                 RouterOS's default configuration stops all new connections, not only those that the router has not \
                 translated.",
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
            "If no rule of the chain decides, the setting `[policy.chain-default]` decides. If the setting drops, \
             RouterOS accepts, and the rules have another meaning there. If it accepts, sources without a knock are \
             admitted.",
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
            "The expression matches every payload, even an empty one, so the matcher has no effect.",
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
            "The knock of a [door](doors.md) takes few guesses. A port of TCP or UDP is one of 65,535; a ping needs \
             no guess. Knocks with a passphrase are not counted.",
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
            "The ports of a door's knock ascend or descend. Scans do so too, and an attacker who guesses this has \
             far fewer knocks to try.",
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
            "A step of a door's knock is to a port of a well-known service. Scans try such ports first, and programs \
             use them: a browser that tries the address takes the step.",
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
            "The knock of one door also opens another door, on the way or with the same packets.",
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
            "RouterOS reassembles fragments before its rules; here each fragment is decided alone. So a \
             `packet-size` above the MTU matches no packet, and the MTU itself matches the first fragment of every \
             longer packet. The lint assumes an MTU of 1500.",
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
            "Other packets do not restart the knock of the door, so a scan that meets its steps in their order opens \
             it.",
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
                "The rule matches an interface in `elsewhere` of `[policy.interfaces]`, or a group of interfaces \
                 other than Ethernet (`all-ppp`, `all-wireless`, `all-vlan`). No packet of this filter comes from \
                 such an interface or leaves by it. So the rule never matches; with `!` the matcher is true of every \
                 packet. If that is intended, no change is needed. It is reported because the rule may be intended \
                 to block packets.",
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
            "One packet completes several steps: an address that a rule adds is in the list for the next rule on the \
             same packet. If the steps are in rising order, a packet that matches all of them takes all of them. So \
             a knock of three packets becomes a knock of one, and a series of steps to a blacklist becomes one step.",
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
            "The rules accept TCP connections and drop the ICMP errors about them that name the packet size of a \
             link on the path. Without these errors, a host repeatedly sends packets that are too long: the \
             connection begins, and stalls at the first download over such a link (PPPoE, tunnels, VPNs). `related` \
             matches these errors.",
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
