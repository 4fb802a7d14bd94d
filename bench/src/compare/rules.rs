//! The rules of all candidates, in their languages: the two knocks, after rules that match no frame of the loads.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The source that may pass without a knock: the source of the generator's flows.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// List capacity that a flood cannot fill.
const ENOUGH: usize = 200_000;

/// Rules of a load, which each candidate translates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
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

impl Default for Rules {
    fn default() -> Self {
        Rules { in_front: 0, capacity: ENOUGH, one_knock: false, answers: false }
    }
}

/// Time for the second knock, and time of a grant. Rows with many entries fill the list first, so it must not expire
/// meanwhile.
const KNOCK: &str = "10s";
const OPEN: &str = "1m";
const LONG: &str = "1h";

impl Rules {
    /// The rules as a RouterOS export.
    pub fn routeros(&self) -> String {
        let mut text = "/ip firewall filter\n".to_owned();
        for (index, matcher) in self.fillers().enumerate() {
            let _ = match matcher {
                Filler::Source(address) => writeln!(text, "add action=drop chain=input src-address={address}"),
                Filler::Udp(port) => writeln!(text, "add action=drop chain=input dst-port={port} protocol=udp"),
                Filler::Tcp(port) => writeln!(text, "add action=drop chain=input dst-port={port} protocol=tcp"),
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
                Filler::Source(address) => writeln!(text, "ip saddr {address} counter drop"),
                Filler::Udp(port) => writeln!(text, "udp dport {port} counter drop"),
                Filler::Tcp(port) => writeln!(text, "tcp dport {port} counter drop"),
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
    fn fillers(&self) -> impl Iterator<Item = Filler> {
        (0..self.in_front as u32).map(|index| {
            let port = 10_000 + (index / 3) as u16;
            match index % 3 {
                0 => Filler::Source(Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + index)),
                1 => Filler::Udp(port),
                _ => Filler::Tcp(port),
            }
        })
    }
}

enum Filler {
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
        assert_eq!(words(&Rules::default().routeros()), words(configured));
    }

    #[test]
    fn there_are_as_many_as_asked_for() {
        let rules = Rules { in_front: 996, ..Rules::default() };
        assert_eq!(rules.routeros().lines().count(), 1 + 1_000);
        assert_eq!(rules.nftables("ip").lines().filter(|line| line.contains("counter")).count(), 1_000);
    }
}
