//! Random rule sets, of parts that nftables can express.

use super::packets::PORTS;
use crate::random::Random;

const V4: &[&str] = &[
    "src-address=10.K.0.1",
    "src-address=!10.K.0.2",
    "src-address=10.K.0.2-10.K.0.3",
    "dst-address=10.K.1.0/31",
    "dst-address=!10.K.1.4",
    "src-address=10.K.1.1",
    "ttl=greater-than:63",
    "ttl=less-than:64",
    "ttl=not-equal:255",
    "ipv4-options=router-alert",
    "tos=40",
    "src-address-list=a",
    "dst-address-list=!b",
    "src-address-list=!a",
    "dst-address-list=b",
];

const V6: &[&str] = &[
    "src-address=fd00:K::1",
    "src-address=!fd00:K::2",
    "src-address=fd00:K::2/127",
    "dst-address=fd00:K:1::/126",
    "dst-address=!fd00:K:1::4",
    "src-address=fd00:K:1::1",
    "hop-limit=greater-than:63",
    "hop-limit=less-than:64",
    "hop-limit=not-equal:255",
    "headers=hop:contains",
    "src-address-list=a",
    "dst-address-list=!b",
];

const EITHER: &[&str] = &[
    "dscp=46",
    "dscp=!0",
    "packet-size=0-100",
    "packet-size=!60-200",
    "src-mac-address=02:00:00:00:01:01",
    "src-mac-address=!02:00:00:00:02:02",
];

const TRACKED: &[&str] = &[
    "connection-state=established,related",
    "connection-state=new",
    "connection-state=!new",
    "connection-state=invalid",
    "connection-state=!invalid",
    "connection-state=established",
    "connection-state=related,untracked",
    "connection-bytes=0-300",
    "connection-bytes=1000-0",
];

/// Matchers with state, which come last in a rule.
const MEMORY: &[&str] = &["nth=2,1", "nth=3,3", "limit=1/1d,20:packet", "dst-limit=1/1d,6,src-address/1h"];

const ACTIONS: &[&str] = &[
    "accept",
    "accept",
    "accept",
    "drop",
    "drop",
    "passthrough",
    "return",
    "reject",
    "jump jump-target=one",
    "jump jump-target=two",
    "add-src-to-address-list address-list=a address-list-timeout=5m",
    "add-dst-to-address-list address-list=b address-list-timeout=5m",
];

/// The text of a set of rules for both families.
pub(super) fn rules(random: &mut Random) -> String {
    let is_tracked = random.percent(60);
    let mut text = String::new();
    for (menu, addresses, icmp) in [("/ip", V4, "icmp"), ("/ipv6", V6, "icmpv6")] {
        if is_tracked && random.percent(30) {
            let chain = random.of(&["prerouting", "output"]);
            text += &format!("{menu} firewall raw\nadd chain={chain} action=notrack {}\n", random.of(addresses));
        }
        text += &format!("{menu} firewall filter\n");
        // Jumps lead to later chains only.
        for (chain, rules, actions) in [("input", 6, 12), ("output", 4, 12), ("one", 3, 8), ("two", 3, 8)] {
            for _ in 0..1 + random.below(rules) {
                let action = random.of(&[&ACTIONS[..actions], &ACTIONS[10..]].concat());
                text += &format!("add chain={chain} action={action}");
                let mut asked = Vec::new();
                for _ in 0..random.below(3) {
                    asked.push(match random.below(if is_tracked { 6 } else { 4 }) {
                        0 | 1 => random.of(addresses).to_owned(),
                        2 => random.of(EITHER).to_owned(),
                        3 => transport(random, icmp),
                        _ => random.of(TRACKED).to_owned(),
                    });
                }
                if random.percent(8) {
                    asked.push(random.of(MEMORY).to_owned());
                }
                // No property may occur twice. Parts that exclude each other begin with the same property.
                let mut named: Vec<&str> = Vec::new();
                for part in &asked {
                    let name = part.split('=').next().unwrap_or(part);
                    if !named.contains(&name) {
                        named.push(name);
                        text += &format!(" {part}");
                    }
                }
                text.push('\n');
            }
        }
    }
    text
}

fn transport(random: &mut Random, icmp: &str) -> String {
    let not = if random.percent(25) { "!" } else { "" };
    let ports = format!("{not}{},{}", random.of(PORTS), random.of(&["1000-5000", "1-100", "443", "50000"]));
    match random.below(7) {
        0 => format!("protocol=tcp dst-port={ports}"),
        1 => format!("protocol=udp src-port={ports}"),
        2 => format!("protocol=tcp port={ports}"),
        3 => format!("protocol=udp port={ports}"),
        4 => format!("protocol=tcp tcp-flags={}", random.of(&["syn,!ack", "ack", "!ack", "rst", "fin,!syn"])),
        5 if icmp == "icmp" => format!("protocol=icmp icmp-options={not}8:0"),
        5 => format!("protocol=icmpv6 icmp-options={not}128:0"),
        _ => format!("protocol={not}{}", random.of(&["tcp", "udp", icmp, "50"])),
    }
}
