//! The rules of all candidates, in their languages: the two knocks, after rules that match no frame of the loads.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The source that may pass without a knock: the source of the generator's flows.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// List capacity that a flood cannot fill.
const ENOUGH: usize = 200_000;

/// Rules of a load, which each candidate translates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRules {
    /// Number of rules that match nothing, before the others.
    pub in_front: usize,
    /// Capacity of each list, in entries.
    pub capacity: usize,
    /// Whether a single knock adds a source to the list of admitted sources, without a timeout. It is used to fill the
    /// list.
    pub one_knock: bool,
    /// Whether answers from the inside pass. This rule is the last one, so that it slows down only dropped packets.
    /// Knockplane accepts them without a rule.
    pub answers: bool,
}

impl Default for LoadRules {
    fn default() -> Self {
        LoadRules { in_front: 0, capacity: ENOUGH, one_knock: false, answers: false }
    }
}

/// Time for the second knock, and time of a grant. Rows with many entries fill the list first, so it must not expire
/// meanwhile.
const KNOCK: &str = "10s";
const OPEN: &str = "1m";
const LONG: &str = "1h";

impl LoadRules {
    /// The rules as a RouterOS export.
    pub fn routeros(&self) -> String {
        let mut text = "/ip firewall filter\n".to_owned();
        for (index, matcher) in self.fillers().enumerate() {
            let _ = match matcher {
                FillerRule::Source(address) => writeln!(text, "add action=drop chain=input src-address={address}"),
                FillerRule::Udp(port) => writeln!(text, "add action=drop chain=input dst-port={port} protocol=udp"),
                FillerRule::Tcp(port) => writeln!(text, "add action=drop chain=input dst-port={port} protocol=tcp"),
            };
            debug_assert!(index < self.in_front);
        }
        let add = "action=add-src-to-address-list chain=input protocol=tcp";
        if self.one_knock {
            let _ = writeln!(text, "add {add} address-list=secured address-list-timeout={LONG} dst-port=1234");
        } else {
            let _ = writeln!(text, "add {add} address-list=temporary address-list-timeout={KNOCK} dst-port=1234");
            let _ = writeln!(
                text,
                "add {add} address-list=secured address-list-timeout={OPEN} dst-port=4321 src-address-list=temporary"
            );
        }
        text += "add action=accept chain=input src-address-list=secured\nadd action=drop chain=input\n";
        text
    }

    /// The two knocks as a strict door, which is all of the policy.
    pub fn door(&self) -> String {
        debug_assert!(self.in_front == 0 && !self.one_knock, "a door has no other rules");
        format!("[[door]]\nname = \"knock\"\nknock = [\"tcp/1234\", \"tcp/4321\"]\nfor = \"{OPEN}\"\n")
    }

    /// The rules as a table of nftables of this family (`ip` or `bridge`), in the hook `forward`.
    pub fn nftables(&self, family: &str) -> String {
        let mut text = format!("table {family} knock {{\n");
        for list in ["temporary", "secured"] {
            let size = self.capacity;
            let _ = writeln!(text, "set {list} {{ type ipv4_addr; flags dynamic,timeout; size {size}; }}");
        }
        text += "chain forward {\ntype filter hook forward priority 0; policy drop;\n";
        for matcher in self.fillers() {
            let _ = match matcher {
                FillerRule::Source(address) => writeln!(text, "ip saddr {address} counter drop"),
                FillerRule::Udp(port) => writeln!(text, "udp dport {port} counter drop"),
                FillerRule::Tcp(port) => writeln!(text, "tcp dport {port} counter drop"),
            };
        }
        if self.one_knock {
            let _ = writeln!(text, "tcp dport 1234 update @secured {{ ip saddr timeout {LONG} }} counter");
        } else {
            let _ = writeln!(text, "tcp dport 1234 update @temporary {{ ip saddr timeout {KNOCK} }} counter");
            let _ = writeln!(
                text,
                "tcp dport 4321 ip saddr @temporary update @secured {{ ip saddr timeout {OPEN} }} counter"
            );
        }
        text += "ip saddr @secured counter accept\n";
        if self.answers {
            text += "iifname inside accept\n";
        }
        text += "counter drop\n}\n}\n";
        text
    }

    /// The rules that match nothing: a third each by source address, UDP port and TCP port, with values that the
    /// generator does not use.
    fn fillers(&self) -> impl Iterator<Item = FillerRule> {
        (0..self.in_front as u32).map(|index| {
            let port = 10_000 + (index / 3) as u16;
            match index % 3 {
                0 => FillerRule::Source(Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + index)),
                1 => FillerRule::Udp(port),
                _ => FillerRule::Tcp(port),
            }
        })
    }
}

enum FillerRule {
    Source(Ipv4Addr),
    Udp(u16),
    Tcp(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_the_two_knocks() {
        let configured = include_str!("../../../configs/two-ports.rsc");
        let words = |text: &str| {
            let mut lines: Vec<Vec<String>> = Vec::new();
            for line in text.lines() {
                let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                words.sort();
                lines.push(words);
            }
            lines
        };
        assert_eq!(words(&LoadRules::default().routeros()), words(configured));
    }

    #[test]
    fn the_door_is_strict() {
        #[derive(serde::Deserialize)]
        struct Sections {
            door: Vec<knockplane_policy::door::Door>,
        }
        let sections: Sections = toml::from_str(&LoadRules::default().door()).expect("a valid door");
        assert!(sections.door[0].strict);
        assert_eq!(sections.door[0].knock.len(), 2);
    }

    #[test]
    fn there_are_as_many_as_asked_for() {
        let rules = LoadRules { in_front: 996, ..LoadRules::default() };
        assert_eq!(rules.routeros().lines().count(), 1 + 1_000);
        assert_eq!(rules.nftables("ip").lines().filter(|line| line.contains("counter")).count(), 1_000);
    }
}
