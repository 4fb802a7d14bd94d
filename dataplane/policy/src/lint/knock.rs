//! Knocks in rules: the rules that are steps, the lists that open, and their timeouts.
//!
//! A *step* adds the source to a list, possibly only if the source is in another list. A *door* is a list that an
//! accept matches, or that a jump matches whose chain accepts without another list. Lists that lead to no door, such as
//! the stages of a blacklist, are ignored.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::view::{Chain, ChainKey, View, adds_source, needed};
use super::{Code, Lint};
use crate::packet::Family;
use crate::rule::{Action, ListTimeout, Rule};
use crate::time::format_duration;

/// The shortest timeout without a lint. With a shorter one, a knock may expire before the next one arrives: a lost SYN
/// is retransmitted after a second (RFC 6298, 2.1).
const SHORTEST: Duration = Duration::from_secs(2);

/// A rule that adds the source to a list.
pub(super) struct KnockRule<'r> {
    pub(super) rule: &'r Rule,
    pub(super) list: &'r str,
    /// The lists that the source must be in.
    pub(super) needs: Vec<&'r str>,
    /// The timeout; `None` if the entry does not expire.
    pub(super) timeout: Option<Duration>,
}

/// The knocks of a family's rules.
pub(super) struct Knocks<'r> {
    pub(super) steps: Vec<KnockRule<'r>>,
    /// The doors.
    pub(super) doors: HashSet<&'r str>,
    /// Lists that lead to a door, including doors.
    pub(super) leading: HashSet<&'r str>,
    /// The steps that need each list, without those that only renew its timeout.
    next: HashMap<&'r str, Vec<usize>>,
    /// The longest timeout of each list; `None` if there is no limit.
    longest: HashMap<&'r str, Option<Duration>>,
}

impl<'r> Knocks<'r> {
    pub(super) fn of(view: &View<'r>, family: Family) -> Knocks<'r> {
        let rules = || view.live().filter(|(rule, _)| rule.family == family);
        let step = |(rule, _): (&'r Rule, &Chain<'r>)| {
            let (list, Action::AddSrcToAddressList(add)) = (adds_source(rule)?, &rule.action) else { return None };
            let timeout = match add.timeout {
                ListTimeout::After(timeout) => Some(timeout),
                ListTimeout::NoneDynamic | ListTimeout::NoneStatic => None,
            };
            Some(KnockRule { rule, list, needs: needed(rule).collect(), timeout })
        };
        let steps: Vec<KnockRule<'_>> = rules().filter_map(step).collect();
        let opens = |rule: &Rule| match &rule.action {
            Action::Accept => true,
            Action::Jump(_) => ChainKey::target(rule).and_then(|target| view.chain(target)).is_some_and(|chain| {
                chain.rules.iter().any(|rule| rule.action == Action::Accept && needed(rule).next().is_none())
            }),
            _ => false,
        };
        let asked_for = rules().filter(|(rule, _)| needed(rule).next().is_some() && opens(rule));
        let filled: HashSet<&str> = steps.iter().map(|step| step.list).collect();
        let doors: HashSet<&str> =
            asked_for.flat_map(|(rule, _)| needed(rule)).filter(|list| filled.contains(list)).collect();
        let leading = leading(&steps, &doors);
        let (mut next, mut longest): (HashMap<_, Vec<usize>>, HashMap<_, _>) = Default::default();
        for (place, step) in steps.iter().enumerate() {
            for needed in step.needs.iter().filter(|needed| **needed != step.list) {
                next.entry(*needed).or_default().push(place);
            }
            let longest = longest.entry(step.list).or_insert(Some(Duration::ZERO));
            *longest = longest.zip(step.timeout).map(|(longest, timeout)| longest.max(timeout));
        }
        Knocks { steps, doors, leading, next, longest }
    }

    /// The steps that lead to a door.
    pub(super) fn leading_steps(&self) -> impl Iterator<Item = &KnockRule<'r>> {
        self.steps.iter().filter(|step| self.leading.contains(step.list))
    }

    /// The longest timeout in the list; `None` if there is no limit.
    pub(super) fn longest(&self, list: &str) -> Option<Duration> {
        self.longest.get(list).copied().flatten()
    }

    /// The steps after one of this list, on the path to a door.
    fn next(&self, list: &str) -> impl Iterator<Item = &KnockRule<'r>> {
        let places = self.next.get(list).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|place| &self.steps[*place]).filter(|step| self.leading.contains(step.list))
    }
}

/// The lists that lead to a door, from the doors back to the first steps.
fn leading<'r>(steps: &[KnockRule<'r>], doors: &HashSet<&'r str>) -> HashSet<&'r str> {
    let mut needs: HashMap<&str, Vec<&'r str>> = HashMap::new();
    for step in steps {
        needs.entry(step.list).or_default().extend(&step.needs);
    }
    let mut leading = doors.clone();
    let mut waiting: Vec<&str> = doors.iter().copied().collect();
    while let Some(list) = waiting.pop() {
        // Each list is visited once, so the steps that lead to it are not needed afterwards.
        waiting.extend(needs.remove(list).into_iter().flatten().filter(|needed| leading.insert(needed)));
    }
    leading
}

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let knocks = Knocks::of(view, family);
        let mut told = HashSet::new();
        for step in knocks.leading_steps() {
            if let Some(lint) = knocks.short(step).filter(|_| told.insert(step.list)) {
                lints.push(lint);
            }
            lints.extend(knocks.next(step.list).find_map(|next| knocks.long(step, next)));
        }
    }
}

impl Knocks<'_> {
    fn short(&self, step: &KnockRule<'_>) -> Option<Lint> {
        let longest = self.longest(step.list).filter(|longest| *longest < SHORTEST)?;
        let what = match self.doors.contains(step.list) {
            true => "in which the client must connect: if its first packet is lost, the next one is too late",
            false => "in which the next knock must arrive: if it is lost, the retransmission is too late",
        };
        let sentence = format!("an address stays in `{}` for {}, {what}", step.list, format_duration(longest));
        let remedy = "set a timeout of some seconds: `address-list-timeout=10s`";
        Some(Lint::new(Code::ShortStep, step.rule, sentence, remedy).at("address-list-timeout"))
    }

    /// The lint about a step with a long timeout. There is none for a list that is a door, or if the next list only
    /// leads to other lists.
    fn long(&self, step: &KnockRule<'_>, next: &KnockRule<'_>) -> Option<Lint> {
        if self.doors.contains(step.list) {
            return None;
        }
        let (list, then) = (step.list, next.list);
        let sentence = match (step.timeout, self.longest(then)) {
            (None, _) => format!(
                "an address stays in `{list}` without end: after the first time, the next knock alone leads into \
                 `{then}`"
            ),
            (Some(timeout), Some(open)) if open < timeout && self.doors.contains(then) => format!(
                "an address stays in `{list}` for {}, but in `{then}` for {} only: in between, the last knock alone opens \
                 again",
                format_duration(timeout),
                format_duration(open)
            ),
            _ => return None,
        };
        let remedy = "set the timeout to the time that a client needs for its next knock: `address-list-timeout=10s`";
        let lint = Lint::new(Code::LongStep, step.rule, sentence, remedy).at("address-list-timeout");
        Some(lint.also(next.rule, format!("the next knock, into `{then}`")))
    }
}
