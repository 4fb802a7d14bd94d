//! Logged packets for readers outside this process: the newest lines, and for each rule the number of packets that it has
//! logged.
//!
//! A packet with a line in the log has one here, with the same id. The totals include packets without a line, so a reader
//! finds the number of lines that it does not have, whatever the reason.

use std::collections::{HashMap, VecDeque};

use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::rule::{Rule, RuleId, RuleNumber};
use knockplane_policy::wire::events::{MAX_KEPT_PACKETS, MAX_LOGGING_RULES, PacketLine, RuleTotal};

/// The lines and the totals since the start.
#[derive(Default)]
pub(crate) struct PacketFeed {
    lines: VecDeque<PacketLine>,
    /// The number of the last line.
    last: u64,
    totals: HashMap<Option<RuleId>, LoggedTotal>,
    /// The number of changes of totals.
    changes: u64,
}

/// The logged packets of a rule.
struct LoggedTotal {
    rule_number: Option<RuleNumber>,
    packets: u64,
    /// The number of its last change.
    changed: u64,
}

/// The position and time of a line.
#[derive(Clone, Copy)]
pub(super) struct LinePosition {
    /// The number of the last event before it.
    pub(super) after: u64,
    /// Nanoseconds since 1970.
    pub(super) time_ns: u64,
}

impl PacketFeed {
    /// Adds a packet with a line. Returns the number of the line.
    pub(super) fn add(
        &mut self,
        rule: &Rule,
        rule_number: RuleNumber,
        packet: &LoggedPacket,
        line: String,
        position: LinePosition,
    ) -> u64 {
        self.last += 1;
        let (counted, total) = self.count(Some((&rule.id, rule_number)), 1);
        if !counted {
            return self.last;
        }
        if self.lines.len() >= MAX_KEPT_PACKETS {
            self.lines.pop_front();
        }
        let ((source, source_port), (destination, destination_port)) = (packet.source(), packet.destination());
        self.lines.push_back(PacketLine {
            number: self.last,
            after: position.after,
            time_ns: position.time_ns,
            rule: rule.id.clone(),
            rule_number,
            total,
            prefix: rule.log.as_ref().map_or_else(String::new, |log| log.prefix.clone()),
            chain: rule.chain.to_string(),
            side: packet.side(),
            network: packet.network(),
            protocol: packet.protocol(),
            source,
            source_port,
            destination,
            destination_port,
            line,
        });
        self.last
    }

    /// Counts packets without a line.
    pub(super) fn omit(&mut self, rule: Option<(&RuleId, RuleNumber)>, packets: u64) {
        if packets > 0 {
            self.count(rule, packets);
        }
    }

    /// Returns whether the rule has a total of its own, and the total.
    fn count(&mut self, rule: Option<(&RuleId, RuleNumber)>, packets: u64) -> (bool, u64) {
        let has_room = self.totals.len() < MAX_LOGGING_RULES;
        let rule = rule.filter(|(id, _)| has_room || self.totals.contains_key(&Some((*id).clone())));
        self.changes += 1;
        let total = self.totals.entry(rule.map(|(id, _)| id.clone())).or_insert(LoggedTotal {
            rule_number: None,
            packets: 0,
            changed: 0,
        });
        total.rule_number = rule.map(|(_, number)| number);
        total.packets += packets;
        total.changed = self.changes;
        (rule.is_some(), total.packets)
    }

    /// The lines after this number.
    pub(super) fn lines_after(&self, number: u64) -> Vec<PacketLine> {
        let first = self.lines.partition_point(|line| line.number <= number);
        self.lines.range(first..).cloned().collect()
    }

    /// The totals that have changed since this number of changes, and the present number of changes.
    pub(super) fn totals_since(&self, changes: u64) -> (Vec<RuleTotal>, u64) {
        let changed = self.totals.iter().filter(|(_, total)| total.changed > changes);
        let total = |(rule, total): (&Option<RuleId>, &LoggedTotal)| RuleTotal {
            rule: rule.clone(),
            rule_number: total.rule_number,
            total: total.packets,
        };
        (changed.map(total).collect(), self.changes)
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::{Packet, Side};
    use knockplane_policy::rsc;
    use knockplane_policy::rule::numbers;

    use super::*;

    #[test]
    fn lines_are_bounded_and_totals_count_all_packets() {
        let text = "/ip firewall filter\nadd chain=input action=log log-prefix=x\nadd chain=input action=log\n";
        let rules = rsc::read(text.as_bytes()).rules.rules;
        let numbers = numbers(&rules);
        let packet = Packet::bare(Side::Outside, [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 6);
        let packet = LoggedPacket::of(&packet, None);
        let mut feed = PacketFeed::default();
        let position = LinePosition { after: 3, time_ns: 5 };
        let packets = MAX_KEPT_PACKETS as u64 + 10;
        for number in 1..=packets {
            assert_eq!(feed.add(&rules[0], numbers[0], &packet, "line".to_owned(), position), number);
        }
        feed.omit(Some((&rules[0].id, numbers[0])), 5);
        let lines = feed.lines_after(0);
        assert_eq!((lines.len(), lines[0].number, lines[0].total), (MAX_KEPT_PACKETS, 11, 11));
        assert_eq!(feed.lines_after(packets - 1).len(), 1);
        let (totals, changes) = feed.totals_since(0);
        assert_eq!((totals.len(), totals[0].total), (1, packets + 5));
        assert_eq!(feed.totals_since(changes), (Vec::new(), changes));
        feed.omit(None, 2);
        let (totals, _) = feed.totals_since(changes);
        assert_eq!((totals.len(), totals[0].rule.is_none(), totals[0].total), (1, true, 2));
    }
}
