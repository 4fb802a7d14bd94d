//! Lost lines that are not reported yet, by kind, and by rule for packet lines.

use std::collections::BTreeMap;

use crate::kind::Kind;

/// Maximum number of rules with separate counts. Lines of further rules are counted by kind alone.
const MAX_RULES: usize = 1024;

/// A rule that logs packets, as log lines name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleName {
    /// The rule's id, which does not change when other rules are added or removed.
    pub id: Box<str>,
    /// The number, as `knockctl show rules` shows it with its menu.
    pub number: Box<str>,
}

/// Counts of lost lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    kinds: [u64; Kind::ALL.len()],
    rules: BTreeMap<RuleName, u64>,
}

/// Lost lines of one kind or rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss<'l> {
    pub(crate) kind: Kind,
    pub(crate) rule: Option<&'l RuleName>,
    pub(crate) lines: u64,
}

impl Losses {
    pub(crate) fn add(&mut self, loss: Loss<'_>) {
        let Loss { kind, rule, lines } = loss;
        let count = match rule {
            Some(rule) if self.rules.len() < MAX_RULES || self.rules.contains_key(rule) => {
                self.rules.entry(rule.clone()).or_default()
            }
            _ => &mut self.kinds[kind as usize],
        };
        *count = count.saturating_add(lines);
    }

    /// Subtracts reported losses.
    pub(crate) fn remove(&mut self, loss: Loss<'_>) {
        let Loss { kind, rule, lines } = loss;
        match rule {
            None => self.kinds[kind as usize] = self.kinds[kind as usize].saturating_sub(lines),
            Some(rule) => match self.rules.get_mut(rule) {
                Some(count) if *count > lines => *count -= lines,
                _ => _ = self.rules.remove(rule),
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.kinds.iter().all(|lines| *lines == 0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Loss<'_>> {
        let kinds = Kind::ALL.into_iter().zip(self.kinds).filter(|(_, lines)| *lines > 0);
        let rules = self.rules.iter().map(|(rule, lines)| Loss { kind: Kind::Packet, rule: Some(rule), lines: *lines });
        kinds.map(|(kind, lines)| Loss { kind, rule: None, lines }).chain(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(rule: usize) -> RuleName {
        RuleName { id: format!("{rule:08x}").into(), number: format!("ip filter {rule}").into() }
    }

    #[test]
    fn lines_of_too_many_rules_are_counted_together() {
        let mut losses = Losses::default();
        let add = |losses: &mut Losses, rule: usize| {
            losses.add(Loss { kind: Kind::Packet, rule: Some(&name(rule)), lines: 2 });
        };
        (0..MAX_RULES + 3).for_each(|rule| add(&mut losses, rule));
        add(&mut losses, 0);
        assert_eq!(losses.iter().next(), Some(Loss { kind: Kind::Packet, rule: None, lines: 6 }));
        assert_eq!(losses.iter().nth(1), Some(Loss { kind: Kind::Packet, rule: Some(&name(0)), lines: 4 }));
        assert_eq!(losses.iter().map(|loss| loss.lines).sum::<u64>(), 2 * (MAX_RULES as u64 + 4));
    }

    #[test]
    fn lines_lost_during_a_report_are_in_the_next_report() {
        let mut losses = Losses::default();
        let door = |lines| Loss { kind: Kind::Door, rule: None, lines };
        let rule = name(7);
        let packet = |lines| Loss { kind: Kind::Packet, rule: Some(&rule), lines };
        [door(3), packet(5)].into_iter().for_each(|loss| losses.add(loss));
        let reported = losses.clone();
        [door(1), packet(1)].into_iter().for_each(|loss| losses.add(loss));
        reported.iter().for_each(|loss| losses.remove(loss));
        assert_eq!(losses.iter().collect::<Vec<_>>(), [door(1), packet(1)]);
        [door(1), packet(1)].into_iter().for_each(|loss| losses.remove(loss));
        assert!(losses.is_empty());
    }
}
