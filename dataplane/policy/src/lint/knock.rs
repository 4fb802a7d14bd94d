//! Knocks: which rules are steps, which lists open something, and how long they last.
//!
//! A *step* adds the source to a list, perhaps only if it is in another one. A *door* is a list that an accept asks for,
//! or a jump to a chain that accepts without asking for another one. Lists that lead to no door, such as those of a
//! ladder to a blacklist, are not looked at.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::view::{Chain, ChainKey, View, adds_source, needed};
use super::{Code, Lint};
use crate::packet::Family;
use crate::rule::{Action, ListTimeout, Rule};
use crate::time::format_duration;

/// Shorter than this, a knock is over before the next one can be relied on to be there: a lost SYN is sent again after a
/// second (RFC 6298, 2.1).
const SHORTEST: Duration = Duration::from_secs(2);

/// A rule that adds the source to a list.
pub(super) struct KnockRule<'r> {
    pub(super) rule: &'r Rule,
    pub(super) list: &'r str,
    /// The lists that the source must be in.
    pub(super) needs: Vec<&'r str>,
    /// How long it stays; none if it does not expire.
    pub(super) timeout: Option<Duration>,
}

/// The knocks of a family's rules.
pub(super) struct Knocks<'r> {
    pub(super) steps: Vec<KnockRule<'r>>,
    /// Lists that open something.
    pub(super) doors: HashSet<&'r str>,
    /// Lists that lead to a door, doors too.
    pub(super) leading: HashSet<&'r str>,
    /// By list: the steps that need it, without those that only set its time anew.
    next: HashMap<&'r str, Vec<usize>>,
    /// By list: how long an address stays in it at most; none if there is no end.
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

    /// How long an address stays in the list at most; none if there is no end.
    pub(super) fn longest(&self, list: &str) -> Option<Duration> {
        self.longest.get(list).copied().flatten()
    }

    /// The steps that come behind one of this list, on the way to a door.
    fn next(&self, list: &str) -> impl Iterator<Item = &KnockRule<'r>> {
        let places = self.next.get(list).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|place| &self.steps[*place]).filter(|step| self.leading.contains(step.list))
    }
}

/// From the doors back to the first steps.
fn leading<'r>(steps: &[KnockRule<'r>], doors: &HashSet<&'r str>) -> HashSet<&'r str> {
    let mut needs: HashMap<&str, Vec<&'r str>> = HashMap::new();
    for step in steps {
        needs.entry(step.list).or_default().extend(&step.needs);
    }
    let mut leading = doors.clone();
    let mut waiting: Vec<&str> = doors.iter().copied().collect();
    while let Some(list) = waiting.pop() {
        // Each list is looked at once, so what leads to it is no longer needed then.
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
            true => "in which the client must be there: if its first packet is lost, the next one is too late",
            false => "in which the next knock must be there: if it is lost, the one sent again is too late",
        };
        let sentence = format!("an address stays in `{}` for {}, {what}", step.list, format_duration(longest));
        let remedy = "give it some seconds: `address-list-timeout=10s`";
        Some(Lint::new(Code::ShortStep, step.rule, sentence, remedy).at("address-list-timeout"))
    }

    /// Nothing is said of a list that opens something itself, nor if the next list only leads on.
    fn long(&self, step: &KnockRule<'_>, next: &KnockRule<'_>) -> Option<Lint> {
        if self.doors.contains(step.list) {
            return None;
        }
        let (list, then) = (step.list, next.list);
        let sentence = match (step.timeout, self.longest(then)) {
            (None, _) => format!(
                "an address stays in `{list}` for good: who has got into it once is never asked again, and the next knock \
                 alone leads into `{then}`"
            ),
            (Some(timeout), Some(open)) if open < timeout && self.doors.contains(then) => format!(
                "an address stays in `{list}` for {}, but in `{then}` for {} only: in between, the last knock alone opens \
                 again",
                format_duration(timeout),
                format_duration(open)
            ),
            _ => return None,
        };
        let remedy = "give the step as long as a client needs for its next knock: `address-list-timeout=10s`";
        let lint = Lint::new(Code::LongStep, step.rule, sentence, remedy).at("address-list-timeout");
        Some(lint.also(next.rule, format!("the next knock, into `{then}`")))
    }
}
