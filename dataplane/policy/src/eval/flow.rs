//! Why the kernel's fast path cannot carry the flow of a packet, for explanations.

use super::matchers::MatcherId;
use super::rule_evaluation::RuleEvaluation;
use super::{Evaluation, Explanation, RuleOutcome, Tried};
use crate::packet::{Family, FragmentPart, Packet, protocol};
use crate::reason::Verdict;
use crate::rule::{Action, Condition, Matcher, Rule, RuleSet};

impl Explanation {
    /// Why workers decide about each packet of a flow like this packet, which is forwarded: the index of the rule that requires
    /// it, if it is a rule, and the reason. `None` if the kernel can carry the flow, and for dropped packets. A packet that
    /// begins a connection is taken for one of the established connection.
    pub fn workers_decide(&self, rules: &RuleSet, packet: &Packet<'_>) -> Option<(Option<usize>, String)> {
        let Explanation { evaluation: Evaluation { verdict, .. }, tried, .. } = self;
        if *verdict == Verdict::Drop {
            return None;
        }
        if !matches!(packet.protocol, protocol::TCP | protocol::UDP) {
            return Some((None, "it is neither TCP nor UDP".to_owned()));
        }
        if packet.fragment() != Some(FragmentPart::Whole) {
            return Some((None, "it is a fragment".to_owned()));
        }
        tried.iter().find_map(|tried| {
            let rule = rules.rules.get(tried.rule)?;
            requires_workers(rule, tried).map(|reason| (Some(tried.rule), reason))
        })
    }
}

impl RuleEvaluation<'_, '_> {
    /// Why a rule that does not match, because of this matcher, requires workers. They evaluate first the headers that all
    /// packets of a flow share, then other headers, then state.
    pub(super) fn workers_decide(&mut self, index: usize, rule: &Rule, missed: usize) -> Option<String> {
        let (packet, order) = (self.packet, self.evaluator.orders[index].clone());
        let mut hold = |is_asked: fn(&Condition, Family) -> bool| {
            let mut asked = order.iter().filter(|matcher| is_asked(&rule.matchers[**matcher].condition, rule.family));
            asked.all(|matcher| self.holds(MatcherId { rule: index, matcher: *matcher }, &rule.matchers[*matcher]))
        };
        if !hold(is_shared_header) {
            return None;
        }
        let mut conditions = order.iter().map(|matcher| &rule.matchers[*matcher].condition);
        if let Some(header) = conditions.find(|condition| condition.reads_packet_header(rule.family)) {
            return Some(reads(header));
        }
        let Matcher { negated, condition } = rule.matchers.get(missed)?;
        if matches!(condition, Condition::SrcAddressList(_)) && !negated && adds(rule) {
            return hold(is_of_connection).then(|| "it can be a step of a knock".to_owned());
        }
        let is_asked = !is_of_flow(condition, rule.family) && condition.applies(packet);
        (is_asked && hold(is_of_connection)).then(|| reads(condition))
    }
}

/// Why a rule that was evaluated requires workers.
fn requires_workers(rule: &Rule, tried: &Tried) -> Option<String> {
    let asked = |condition: &&Condition| !is_of_flow(condition, rule.family);
    match &tried.outcome {
        RuleOutcome::Matched { .. } => {
            let condition = rule.matchers.iter().map(|matcher| &matcher.condition).find(asked);
            condition.map(reads).or_else(|| match rule.action {
                _ if rule.log.is_some() || rule.action == Action::Log => Some("it logs each packet".to_owned()),
                _ if adds(rule) => Some("it adds to a list with each packet".to_owned()),
                _ => None,
            })
        }
        RuleOutcome::Missed { workers_decide, .. } => workers_decide.clone(),
        _ => None,
    }
}

fn reads(condition: &Condition) -> String {
    format!("it reads `{}` of each packet", condition.name())
}

fn adds(rule: &Rule) -> bool {
    matches!(rule.action, Action::AddSrcToAddressList(_) | Action::AddDstToAddressList(_))
}

/// Whether all packets of a flow, of one that is established, have the same answer.
fn is_of_flow(condition: &Condition, family: Family) -> bool {
    is_shared_header(condition, family)
        || matches!(
            condition,
            Condition::SrcAddressList(_) | Condition::DstAddressList(_) | Condition::PerConnectionClassifier { .. }
        )
        || is_of_connection(condition, family)
        || condition.asks_nothing()
}

/// Whether the state of the connection answers the condition.
fn is_of_connection(condition: &Condition, _: Family) -> bool {
    matches!(condition, Condition::ConnectionState(_) | Condition::ConnectionDoor(_))
}

/// Whether headers that all packets of a flow share answer the condition, or none because it is of another family.
fn is_shared_header(condition: &Condition, family: Family) -> bool {
    matches!(
        condition,
        Condition::SrcAddress(_)
            | Condition::DstAddress(_)
            | Condition::Protocol(_)
            | Condition::SrcPort(_)
            | Condition::DstPort(_)
            | Condition::AnyPort(_)
            | Condition::IcmpOptions { .. }
            | Condition::Interface { .. }
            | Condition::SrcAddressType(_)
            | Condition::DstAddressType(_)
            | Condition::Fragment(_)
            | Condition::ConnectionNatState(_)
            | Condition::NoMark(_)
            | Condition::IpsecPolicy { .. }
            | Condition::Other { .. }
    ) || condition.family().is_some_and(|its| its != family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Evaluator;
    use crate::packet::Side;
    use crate::rsc;
    use crate::settings::Settings;
    use crate::time::Time;

    /// The reason for a UDP packet to port 53.
    fn reason(rules: &str) -> Option<(Option<usize>, String)> {
        let reading = rsc::read(format!("/ip firewall filter\n{rules}").as_bytes());
        assert_eq!(reading.problems, []);
        let settings = Settings::default();
        let mut evaluator = Evaluator::new(&reading.rules, &settings, 1);
        let frame = [
            &[2; 12][..],
            &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0],
            &[192, 0, 2, 1, 203, 0, 113, 5],
            &[1, 1, 0, 53, 0, 8, 0, 0],
        ]
        .concat();
        let packet = Packet {
            side: Side::Outside,
            frame: &frame,
            network: 14,
            transport: 34,
            source: [192, 0, 2, 1].into(),
            destination: [203, 0, 113, 5].into(),
            protocol: protocol::UDP,
            ports: Some((257, 53)),
            icmp: None,
            ip_length: 28,
            payload: &[],
        };
        evaluator.explain(&packet, Time::default()).workers_decide(&reading.rules, &packet)
    }

    #[test]
    fn a_rule_that_needs_each_packet_is_named() {
        let accept = "add chain=input action=accept\n";
        let of = |rule: &str| reason(&format!("add chain=input action=passthrough\n{rule}\n{accept}"));
        for carried in [
            "add chain=input protocol=udp dst-port=53 action=accept",
            "add chain=input protocol=tcp limit=1,1:packet action=accept",
            "add chain=input src-address-list=one action=drop",
            "add chain=input protocol=udp dst-port=54 ttl=less-than:9 action=drop",
            "add chain=input ttl=less-than:9 in-interface=inside action=drop",
            "add chain=input connection-state=established action=accept",
        ] {
            assert_eq!(of(carried), None, "{carried}");
        }
        for (rule, expected) in [
            ("add chain=input protocol=udp log=yes action=accept", "it logs each packet"),
            ("add chain=input ttl=less-than:9 action=drop", "it reads `ttl` of each packet"),
            ("add chain=input src-address-list=one ttl=less-than:9 action=drop", "it reads `ttl` of each packet"),
            (
                "add chain=input src-address-list=one action=add-src-to-address-list address-list=two address-list-timeout=1s",
                "it can be a step of a knock",
            ),
            ("add chain=input limit=5,5:packet action=accept", "it reads `limit` of each packet"),
            (
                "add chain=input action=add-src-to-address-list address-list=one address-list-timeout=1s",
                "it adds to a list with each packet",
            ),
        ] {
            assert_eq!(of(rule), Some((Some(1), expected.to_owned())), "{rule}");
        }
        assert_eq!(reason("add chain=input protocol=udp action=drop\n"), None, "a dropped packet");
    }
}
