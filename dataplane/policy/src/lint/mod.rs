//! What is right in every line of a rule file, and still cannot be meant.
//!
//! A lint speaks only if it is certain: of every packet, by the meaning that [`eval`](crate::eval) gives to the rules,
//! with these settings. Where that takes an assumption (how fast a scan is, how long a client needs), the sentence
//! names it. In doubt there is no lint: who is told nonsense twice stops reading.
//!
//! Rules that no packet meets, because they are disabled or invalid or in a chain that none enters, are looked at only
//! to say just that.
//!
//! | module    | owns |
//! |-----------|------|
//! | `view`    | the rules as chains: how packets get into them, and from which side |
//! | `truth`   | what is certain of a single matcher |
//! | `implies` | what follows from one matcher for another |
//! | `ranges`  | sets of ports |
//! | `never`   | rules that ask for what no packet is |
//! | `shadow`  | rules that an earlier one leaves nothing to, and doors that stand open |
//! | `chains`  | chains that nothing enters, jumps that lead nowhere, what becomes of the rest |
//! | `lists`   | lists that nothing fills |
//! | `knock`   | steps of knocks, and how long they last |
//! | `scan`    | knocks that a port scan gives by chance |
//! | `together` | steps that one packet completes together |
//! | `mtu`     | rules that break path MTU discovery |
//! | `probe`   | packets that lints try on the rules |
//! | `pattern` | expressions that match anything |
//! | `size`    | sizes that only packets in fragments have |
//! | `doors`   | doors of the settings |
//! | `ways`    | no lint: what lets strangers in at all |
//!
//! `docs/lints.md` has an example of each, which a test runs.

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
    /// What a lint is about. `docs/lints.md` explains each. New ones come last, so that the numbers stay.
    Code {
        /// An earlier rule decides about all that it could match.
        UnreachableRule = "unreachable-rule",
        /// It asks for what no packet is.
        NeverMatches = "never-matches",
        /// It jumps to a chain in which no rule runs.
        EmptyJump = "empty-jump",
        /// No rule jumps to its chain.
        UnusedChain = "unused-chain",
        /// With these settings, no packet enters its chain.
        DeadChain = "dead-chain",
        /// It asks for a list that nothing fills.
        EmptyList = "empty-list",
        /// A knock counts for so short a time that it can hardly be used.
        ShortStep = "short-step",
        /// A knock counts for longer than the door is open.
        LongStep = "long-step",
        /// A port scan gives the knocks by chance.
        ScanOpens = "scan-opens",
        /// What a knock opens is open to everybody.
        MootKnock = "moot-knock",
        /// It depends on addresses being translated.
        NoNat = "no-nat",
        /// What no rule of the chain decides about becomes of what RouterOS would not do, or of what is behind a knock.
        NoFinalDrop = "no-final-drop",
        /// Its expression matches every payload.
        MatchesAnything = "matches-anything",
        /// The knock of a door takes few guesses.
        ShortKnock = "short-knock",
        /// The ports of a door's knock ascend or descend.
        OrderedKnock = "ordered-knock",
        /// A step of a door's knock is to a port that programs and scans try by themselves.
        ServiceKnock = "service-knock",
        /// Who knocks at one door opens another as well.
        OverlappingKnock = "overlapping-knock",
        /// Packets in between do not start a door's knock over.
        LenientDoor = "lenient-door",
        /// It asks for an interface that is neither side of the filter, as the configuration says.
        Elsewhere = "elsewhere",
        /// One packet completes several steps of a knock.
        StepsTogether = "steps-together",
        /// It drops the ICMP errors that path MTU discovery needs.
        NoPathMtu = "no-path-mtu",
        /// It asks for a size that only packets in fragments have, or that first fragments have too.
        FragmentedSize = "fragmented-size",
    }
}

impl Code {
    /// Its number, for people and scripts.
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

    /// Whether `check --deny-lints` fails because of it. It does not because of what the configuration itself says.
    pub const fn is_denied(self) -> bool {
        !matches!(self, Code::Elsewhere)
    }
}

/// Something in a rule file that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    /// What it is about.
    pub code: Code,
    /// The rule, pattern or door.
    pub subject: Subject,
    /// The line of the rule file that the rule or pattern begins on, from 1; 0 if it came from elsewhere.
    pub line: u32,
    /// The property that says it; none if all of the rule does.
    pub property: Option<String>,
    /// What is so, and what follows.
    pub sentence: String,
    /// What to do about it.
    pub remedy: String,
    /// Another rule that has to do with it.
    pub also: Option<Also>,
}

/// What a lint points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A rule, by its id.
    Rule(RuleId),
    /// A pattern, by its name.
    Pattern(String),
    /// A door of the settings, by its name. It has no line.
    Door(String),
}

/// Another rule that has to do with a lint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Also {
    /// Its id.
    pub rule: RuleId,
    /// Its line, as above.
    pub line: u32,
    /// What it does, in a few words.
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

/// Everything in the doors and the rules that cannot be meant, with these settings: doors first, then in the order of the
/// file. Of the rules that doors put there nothing is said.
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
