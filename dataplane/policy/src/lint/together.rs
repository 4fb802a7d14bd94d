//! Finds steps that one packet completes together, because an address that a rule adds is in the list for the next rule
//! on the same packet.

use std::collections::HashMap;

use super::implies::has_memory;
use super::view::{Chain, View, adds_source, needed};
use super::{Code, Lint};
use crate::rule::{Action, Condition, Matcher, Rule};

/// Maximum number of earlier steps with which each step is compared, and of comparisons in total.
const MOST_EARLIER: usize = 32;
const MOST_COMPARED: usize = 20_000_000;

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    let mut budget = MOST_COMPARED;
    for chain in view.live_chains() {
        let deciders = deciders(view, chain);
        let mut steps: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, rule) in chain.rules.iter().enumerate() {
            let Some(list) = adds_source(rule) else { continue };
            let before = |needed: &str| steps.get(needed).map(Vec::as_slice).unwrap_or_default();
            let earlier = needed(rule).filter(|needed| *needed != list).find_map(|needed| {
                let candidates = before(needed).iter().rev().take(MOST_EARLIER);
                candidates.copied().find(|earlier| {
                    let decided = deciders.iter().take_while(|decider| **decider < place).count();
                    budget = budget.saturating_sub(decided + 1);
                    budget > 0 && complete_together(view, chain, (*earlier, place), needed, &deciders[..decided])
                })
            });
            lints.extend(earlier.map(|earlier| lint(chain.rules[earlier], rule)));
            steps.entry(list).or_default().push(place);
        }
    }
}

/// The rules that end the evaluation of the chain.
fn deciders(view: &View<'_>, chain: &Chain<'_>) -> Vec<usize> {
    let decides = |rule: &Rule| {
        let ends = rule.action == Action::Return || view.decides(rule);
        ends && needed(rule).next().is_none() && !rule.matchers.iter().any(|matcher| has_memory(&matcher.condition))
    };
    (0..chain.rules.len()).filter(|place| decides(chain.rules[*place])).collect()
}

/// Whether some packet completes the earlier step, and with it the later one, and no rule before stops it.
fn complete_together(
    view: &View<'_>,
    chain: &Chain<'_>,
    (earlier, later): (usize, usize),
    list: &str,
    deciders: &[usize],
) -> bool {
    let (earlier, later) = (chain.rules[earlier], chain.rules[later]);
    let leads_back = adds_source(later).is_some_and(|list| needed(earlier).any(|needed| needed == list));
    let is_list = |matcher: &&Matcher| matches!(&matcher.condition, Condition::SrcAddressList(of) if of == list);
    let asked: Vec<&Matcher> =
        later.matchers.iter().filter(|matcher| !is_list(matcher)).chain(&earlier.matchers).collect();
    if leads_back || later.matchers.iter().any(|matcher| is_list(&matcher) && matcher.negated) {
        return false;
    }
    let unknown = |matcher: &&&Matcher| has_memory(&matcher.condition) || reads_payload(&matcher.condition);
    let unknown: Vec<&&Matcher> = asked.iter().filter(unknown).collect();
    // Only one matcher, which may occur twice, is not analysed. Some packet matches it.
    if unknown.iter().any(|matcher| **matcher != *unknown[0] || has_memory(&matcher.condition)) {
        return false;
    }
    let both = Rule { matchers: asked.iter().map(|matcher| (**matcher).clone()).collect(), ..later.clone() };
    let covers = |decider: &&usize| {
        chain.rules[**decider]
            .matchers
            .iter()
            .all(|matcher| view.is_always(chain, matcher) || asked.iter().any(|asked| view.implies(asked, matcher)))
    };
    view.never(chain, &both).is_none() && deciders.iter().find(covers).is_none()
}

const fn reads_payload(condition: &Condition) -> bool {
    matches!(condition, Condition::Content(_) | Condition::Layer7(_) | Condition::TlsHost(_))
}

fn lint(earlier: &Rule, later: &Rule) -> Lint {
    let (Some(first), Some(then)) = (adds_source(earlier), adds_source(later)) else {
        unreachable!("only steps are compared")
    };
    let sentence = format!(
        "one packet can be added to `{first}` by line {} and to `{then}` by this rule: an address is in a list for the next \
         rule on the same packet, so the two steps are one",
        earlier.line
    );
    let remedy = format!("put later steps before earlier ones: move this rule before line {}", earlier.line);
    Lint::new(Code::StepsTogether, later, sentence, remedy)
        .at("src-address-list")
        .also(earlier, format!("the step into `{first}`, which the same packet completes"))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    /// Whether one packet completes both steps: `first` adds to `a`, and the later `step` adds sources in `a` to `b`.
    fn told(first: &str, between: &str, step: &str) -> bool {
        let rules = format!(
            "add chain=input {first} action=add-src-to-address-list address-list=a address-list-timeout=9s\n{between}\
             add chain=input {step} src-address-list=a action=add-src-to-address-list address-list=b address-list-timeout=9s\n"
        );
        found(&rules).iter().any(|(code, _)| *code == "steps-together")
    }

    #[test]
    fn steps_that_one_packet_matches() {
        for (first, step) in [
            ("protocol=icmp packet-size=98", "protocol=icmp packet-size=98"),
            ("protocol=tcp dst-port=22 connection-state=new", "protocol=tcp dst-port=22"),
            ("protocol=tcp dst-port=1000-2000", "protocol=tcp dst-port=1500,7000"),
            ("protocol=udp content=a dst-port=7", "protocol=udp"),
            ("protocol=udp content=a dst-port=7", "protocol=udp content=a"),
            ("protocol=tcp src-address=192.0.2.0/24", "protocol=tcp src-address=192.0.2.128/25"),
        ] {
            assert!(told(first, "", step), "{first} / {step}");
        }
    }

    #[test]
    fn steps_that_need_a_packet_each() {
        for (first, step) in [
            ("protocol=icmp packet-size=98", "protocol=icmp packet-size=99"),
            ("protocol=tcp dst-port=7", "protocol=tcp dst-port=8"),
            ("protocol=tcp dst-port=7", "protocol=udp dst-port=7"),
            ("protocol=udp content=a", "protocol=udp content=b"),
            ("protocol=tcp tcp-flags=syn,!ack", "protocol=tcp tcp-flags=ack"),
            ("protocol=tcp psd=21,3s,3,1", "protocol=tcp"),
            ("protocol=tcp dst-port=7 src-address-list=b", "protocol=tcp dst-port=7"),
            ("protocol=icmp", "protocol=tcp dst-port=7"),
        ] {
            assert!(!told(first, "", step), "{first} / {step}");
        }
    }

    #[test]
    fn rules_in_between_may_stop_the_packet_before_the_later_step() {
        let knock = "protocol=tcp dst-port=7";
        for between in
            ["add chain=input protocol=tcp dst-port=7 action=drop\n", "add chain=input protocol=tcp action=drop\n"]
        {
            assert!(!told(knock, between, knock), "{between}");
        }
        for between in [
            "add chain=input protocol=tcp dst-port=8 action=drop\n",
            "add chain=input src-address-list=black action=drop\n",
            "add chain=input protocol=tcp dst-port=7 action=log\n",
        ] {
            assert!(told(knock, between, knock), "{between}");
        }
    }
}
