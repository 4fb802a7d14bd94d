//! Warnings about rules that are valid but cannot be intended.
//!
//! A lint is reported only if it is certain: for every packet, by the meaning that [`eval`](crate::eval) gives to the
//! rules, with these settings. If a lint needs an assumption (the speed of a scan, the time that a client needs), its
//! sentence contains the assumption. In doubt there is no lint, because after false warnings operators ignore all of
//! them.
//!
//! A rule that no packet meets, because it is disabled, invalid, or in a chain that no packet enters, gets only a lint
//! about this fact.
//!
//! | module    | owns |
//! |-----------|------|
//! | `view`    | the rules as chains: how packets enter them, and from which side |
//! | `truth`   | what is certain of one matcher |
//! | `implies` | whether one matcher follows from another |
//! | `ranges`  | sets of ports |
//! | `never`   | rules that match no packet |
//! | `shadow`  | rules that an earlier one makes unreachable, and knocks that are not needed |
//! | `chains`  | chains that no packet enters, jumps without effect, packets that no rule decides |
//! | `lists`   | lists that are never filled |
//! | `knock`   | steps of knocks, and their timeouts |
//! | `scan`    | knocks that a port scan completes by chance |
//! | `together` | steps that one packet completes together |
//! | `mtu`     | rules that break path MTU discovery |
//! | `probe`   | packets for the reference evaluator |
//! | `pattern` | expressions that match every payload |
//! | `size`    | sizes that only packets in fragments have |
//! | `doors`   | doors of the settings |
//! | `ways`    | not a lint: the rules and doors that accept a stranger's packets |
//!
//! `docs/lints.md` has an example of each lint, which a test runs.

mod chains;
mod doors;
mod implies;
mod knock;
mod lists;
mod mtu;
mod never;
mod pattern;
mod probe;
mod ranges;
mod scan;
mod shadow;
mod size;
mod together;
mod truth;
mod view;
mod ways;

use self::view::View;
pub use self::ways::{WayIn, ways_in};
use crate::rule::{Rule, RuleId, RuleSet};
use crate::settings::Settings;
use crate::word::words;

words! {
    /// The kinds of lints. `docs/lints.md` explains each. New kinds are added at the end, so that the numbers do not
    /// change.
    Code {
        /// An earlier rule decides all packets that the rule could match.
        UnreachableRule = "unreachable-rule",
        /// The matchers of the rule match no packet.
        NeverMatches = "never-matches",
        /// The rule jumps to a chain without running rules.
        EmptyJump = "empty-jump",
        /// No rule jumps to the chain of the rule.
        UnusedChain = "unused-chain",
        /// With these settings, no packet enters the chain of the rule.
        DeadChain = "dead-chain",
        /// The rule matches a list that no rule and no entry fills.
        EmptyList = "empty-list",
        /// The timeout of a knock is too short for clients.
        ShortStep = "short-step",
        /// The timeout of a knock is longer than the grant.
        LongStep = "long-step",
        /// A port scan completes the knock by chance.
        ScanOpens = "scan-opens",
        /// The packets for which a knock opens are accepted from all sources.
        MootKnock = "moot-knock",
        /// The rule depends on address translation.
        NoNat = "no-nat",
        /// Packets that no rule of the chain decides get another verdict than on RouterOS, or are accepted
        /// without a knock.
        NoFinalDrop = "no-final-drop",
        /// The expression of the pattern matches every payload.
        MatchesAnything = "matches-anything",
        /// The knock of a door needs few guesses.
        ShortKnock = "short-knock",
        /// The ports of a door's knock ascend or descend.
        OrderedKnock = "ordered-knock",
        /// A step of a door's knock is to a port that programs and scans use.
        ServiceKnock = "service-knock",
        /// The knock at one door opens another one as well.
        OverlappingKnock = "overlapping-knock",
        /// Other packets do not restart a door's knock.
        LenientDoor = "lenient-door",
        /// The rule matches an interface that, by the configuration, is on neither side of the filter.
        Elsewhere = "elsewhere",
        /// One packet completes several steps of a knock.
        StepsTogether = "steps-together",
        /// The rule drops the ICMP errors that path MTU discovery needs.
        NoPathMtu = "no-path-mtu",
        /// The rule matches a size that only fragmented packets have, or that first fragments have too.
        FragmentedSize = "fragmented-size",
    }
}

impl Code {
    /// The number, for messages and scripts.
    pub const fn number(self) -> &'static str {
        match self {
            Code::UnreachableRule => "K001",
            Code::NeverMatches => "K002",
            Code::EmptyJump => "K003",
            Code::UnusedChain => "K004",
            Code::DeadChain => "K005",
            Code::EmptyList => "K006",
            Code::ShortStep => "K007",
            Code::LongStep => "K008",
            Code::ScanOpens => "K009",
            Code::MootKnock => "K010",
            Code::NoNat => "K011",
            Code::NoFinalDrop => "K012",
            Code::MatchesAnything => "K013",
            Code::ShortKnock => "K014",
            Code::OrderedKnock => "K015",
            Code::ServiceKnock => "K016",
            Code::OverlappingKnock => "K017",
            Code::LenientDoor => "K018",
            Code::Elsewhere => "K019",
            Code::StepsTogether => "K020",
            Code::NoPathMtu => "K021",
            Code::FragmentedSize => "K022",
        }
    }

    /// Whether `check --deny-lints` fails because of the lint. It does not fail if the lint only repeats the
    /// configuration.
    pub const fn is_denied(self) -> bool {
        !matches!(self, Code::Elsewhere)
    }
}

/// A lint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    /// The kind.
    pub code: Code,
    /// The rule, pattern or door.
    pub subject: Subject,
    /// The first line of the rule or pattern in the rule file, from 1; 0 without a file.
    pub line: u32,
    /// The property; `None` for the whole rule.
    pub property: Option<String>,
    /// The observation and its consequence.
    pub sentence: String,
    /// The remedy.
    pub remedy: String,
    /// A related rule.
    pub also: Option<Also>,
}

/// The subject of a lint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A rule, by its id.
    Rule(RuleId),
    /// A pattern, by its name.
    Pattern(String),
    /// A door of the settings, by its name. A door has no line.
    Door(String),
}

/// Another rule that is related to a lint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Also {
    /// The id.
    pub rule: RuleId,
    /// The line, as above.
    pub line: u32,
    /// The label.
    pub what: String,
}

impl Lint {
    fn new(code: Code, rule: &Rule, sentence: impl Into<String>, remedy: impl Into<String>) -> Lint {
        let (subject, line) = (Subject::Rule(rule.id.clone()), rule.line);
        Lint { code, subject, line, property: None, sentence: sentence.into(), remedy: remedy.into(), also: None }
    }

    fn at(mut self, property: &str) -> Lint {
        self.property = Some(property.to_owned());
        self
    }

    fn also(mut self, rule: &Rule, what: impl Into<String>) -> Lint {
        self.also = Some(Also { rule: rule.id.clone(), line: rule.line, what: what.into() });
        self
    }
}

/// All lints about the doors and the rules with these settings: first those about doors, then those about rules in the
/// order of the file. Rules of doors get no lints.
pub fn lint(rules: &RuleSet, settings: &Settings) -> Vec<Lint> {
    if rules.rules.iter().any(|rule| rule.dynamic) {
        let mut file = rules.clone();
        file.rules.retain(|rule| !rule.dynamic);
        return lint(&file, settings);
    }
    let view = View::new(rules, settings);
    let mut lints = Vec::new();
    let rules = [never::lints, shadow::lints, chains::lints, lists::lints, pattern::lints, size::lints];
    let knocks = [knock::lints, together::lints, scan::lints, mtu::lints];
    for find in rules.into_iter().chain(knocks) {
        find(&view, &mut lints);
    }
    lints.sort_by_key(|lint| (lint.line, lint.code));
    doors::lints(&settings.doors).into_iter().chain(lints).collect()
}

#[cfg(test)]
mod tests;
