//! Rules that match no packet, and rules about translated addresses.

use super::implies::protocols;
use super::truth::Truth;
use super::view::{Chain, View, denies};
use super::{Code, Lint};
use crate::rule::{Condition, Matcher, Rule, protocol_name};

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    for (rule, chain) in view.live() {
        if let Some(reason) = view.never(chain, rule) {
            // RouterOS's default configuration has such a rule for packets of IPsec. Without IPsec the rule is
            // harmless.
            if reason.matcher != "ipsec-policy" {
                lints.push(never(rule, &reason));
            }
            continue;
        }
        lints.extend(rule.matchers.iter().filter_map(|matcher| always(view, rule, matcher)));
        if denies(&rule.action) && rule.matchers.iter().any(asks_for_untranslated) {
            lints.push(drops_everything(rule));
        }
    }
}

/// The reason why a rule never matches.
pub(super) struct Reason {
    code: Code,
    /// The matcher.
    matcher: String,
    text: String,
}

fn never(rule: &Rule, Reason { code, matcher, text }: &Reason) -> Lint {
    let sentence = format!("this rule never matches: {text}");
    let remedy = match code {
        Code::NoNat => "accept by `dst-address` and `dst-port` the packets that the router accepted by translation",
        Code::Elsewhere => ELSEWHERE,
        _ => "correct its matchers, or remove the rule",
    };
    Lint::new(*code, rule, sentence, remedy).at(matcher)
}

/// The remedy for a name in `elsewhere`, or for a name that RouterOS gives to interfaces of another kind.
const ELSEWHERE: &str =
    "none, if that is intended; otherwise add the name to `outside` or `inside` of [policy.interfaces]";

/// The lint about a matcher that is always true, such as `in-interface=!wg0` if `wg0` is elsewhere.
fn always(view: &View<'_>, rule: &Rule, matcher: &Matcher) -> Option<Lint> {
    let Condition::Interface { name, .. } = &matcher.condition else { return None };
    if !matcher.negated || !view.is_elsewhere(matcher) {
        return None;
    }
    let property = matcher.condition.name();
    let sentence =
        format!("`{property}=!{name}` is true for every packet, because `{name}` is neither side of the filter");
    Some(Lint::new(Code::Elsewhere, rule, sentence, ELSEWHERE).at(property))
}

/// The lint about a rule that drops all packets except translated ones. RouterOS's default configuration ends with such
/// a rule, because there `/ip firewall nat` translates packets.
fn drops_everything(rule: &Rule) -> Lint {
    let others = rule.matchers.iter().any(|matcher| !asks_for_untranslated(matcher));
    let what = if others { "every packet that its other matchers match" } else { "every packet" };
    let sentence = format!(
        "no address is translated here, so `connection-nat-state` is true for every packet: this rule drops {what}"
    );
    Lint::new(Code::NoNat, rule, sentence, "accept the intended packets before this rule, or disable it")
        .at("connection-nat-state")
}

fn asks_for_untranslated(matcher: &Matcher) -> bool {
    matches!(&matcher.condition, Condition::ConnectionNatState(states) if matcher.negated && !states.is_empty())
}

impl View<'_> {
    /// The reason that the rule matches no packet; `None` if it may match one.
    pub(super) fn never(&self, chain: &Chain<'_>, rule: &Rule) -> Option<Reason> {
        let certain: Vec<(&Matcher, Truth)> =
            rule.matchers.iter().map(|matcher| (matcher, self.truth(chain, matcher))).collect();
        for (matcher, truth) in &certain {
            if let Truth::Never(text) = truth {
                let code = match matcher.condition {
                    Condition::ConnectionNatState(_) => Code::NoNat,
                    Condition::Interface { .. } if !matcher.negated && self.is_elsewhere(matcher) => Code::Elsewhere,
                    _ => Code::NeverMatches,
                };
                return Some(Reason { code, matcher: matcher.condition.name().to_owned(), text: text.clone() });
            }
        }
        let asking: Vec<&Matcher> =
            certain.into_iter().filter(|(_, truth)| *truth == Truth::Depends).map(|(matcher, _)| matcher).collect();
        let (matcher, text) = self.sides_exclude(chain, &asking).or_else(|| self.pair_excludes(&asking))?;
        Some(Reason { code: Code::NeverMatches, matcher, text })
    }

    /// The contradiction between interface matchers, each of which alone could be true.
    fn sides_exclude(&self, chain: &Chain<'_>, asking: &[&Matcher]) -> Option<(String, String)> {
        let mut left = chain.sides;
        for matcher in asking {
            let Some(allowed) = self.sides(matcher) else { continue };
            left = left.iter().filter(|side| allowed.contains(*side)).collect();
            if left.is_empty() {
                let text =
                    "a packet that arrives on one side leaves by the other, and its interfaces name another path";
                return Some((matcher.condition.name().to_owned(), text.to_owned()));
            }
        }
        None
    }

    fn pair_excludes(&self, asking: &[&Matcher]) -> Option<(String, String)> {
        for (place, one) in asking.iter().enumerate() {
            for other in &asking[place + 1..] {
                if self.excludes(one, other) || self.excludes(other, one) {
                    return Some((other.condition.name().to_owned(), contradiction(one, other)));
                }
                if let Some(text) = misfit(one, other).or_else(|| misfit(other, one)) {
                    return Some((other.condition.name().to_owned(), text));
                }
            }
        }
        None
    }
}

fn contradiction(one: &Matcher, other: &Matcher) -> String {
    let (one, other) = (one.condition.name(), other.condition.name());
    match one == other {
        true => format!("its two `{one}` exclude each other"),
        false => format!("`{one}` and `{other}` exclude each other"),
    }
}

/// The contradiction if one matcher requires packets without the field of the other.
fn misfit(one: &Matcher, other: &Matcher) -> Option<String> {
    let looks_at = other.condition.name();
    match &one.condition {
        Condition::Protocol(number) => {
            let has_none = |of: &u8| (of == number) == one.negated;
            let misfits = protocols(&other.condition)?.iter().all(has_none);
            let not = if one.negated { "not " } else { "" };
            misfits.then(|| format!("a packet that is {not}{} has no `{looks_at}`", protocol_name(*number)))
        }
        Condition::Fragment(later) if *later != one.negated => {
            let in_first = protocols(&other.condition).is_some();
            in_first.then(|| format!("only the first fragment has a `{looks_at}`, and `fragment` matches the others"))
        }
        _ => None,
    }
}
