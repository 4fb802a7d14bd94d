//! The errors of compiling a rule set.

use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::rule::{Rule, RuleId};
use knockplane_policy::wire::MAX_NAMES;

use super::MAX_STEPS;
use crate::state::layer7::PatternError;
use crate::state::lists::TooManyListsError;
use crate::state::matchers::connection_limits::MOST_MATCHERS;

/// All problems that prevent a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CompileError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl From<TooManyListsError> for CompileError {
    fn from(error: TooManyListsError) -> Self {
        CompileError { problems: vec![error.into()] }
    }
}

/// One problem that prevents a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A jump that could lead back to its own chain.
    #[error("{rule}: the jump to `{target}` leads back to its own chain")]
    JumpCircle {
        /// The jump.
        rule: Place,
        /// The target chain.
        target: String,
    },
    /// A jump behind too many others.
    #[error("{rule}: the jump to `{target}` nests deeper than {MAX_JUMP_DEPTH} jumps")]
    JumpTooDeep {
        /// The rule with the jump.
        rule: Place,
        /// The target chain.
        target: String,
    },
    /// Jumps whose number of rules multiplies.
    #[error("chain `{chain}`: a packet could be held against {steps} rules, jumps included; {MAX_STEPS} is the most")]
    TooManySteps {
        /// The built-in chain.
        chain: &'static str,
        /// The number of rules.
        steps: u64,
    },
    /// An address range whose ends are of different families.
    #[error("{rule}: an address range goes from IPv4 to IPv6 or back")]
    MixedRange {
        /// The rule.
        rule: Place,
    },
    /// `layer7-protocol` refers to a pattern that does not exist.
    #[error("{rule}: there is no layer-7 pattern `{pattern}`; add it, or disable the rule")]
    PatternMissing {
        /// The rule.
        rule: Place,
        /// The name in the rule.
        pattern: String,
    },
    /// A layer-7 pattern cannot run.
    #[error("line {line}: layer-7 pattern `{pattern}`: {error}")]
    Pattern {
        /// The name of the pattern.
        pattern: String,
        /// The line.
        line: u32,
        /// The reason.
        error: PatternError,
    },
    /// A rule that can be parsed but never run.
    #[error("{rule}: it can never run: {reason}; disable it, or leave it out")]
    Invalid {
        /// The rule.
        rule: Place,
        /// The reason.
        reason: String,
    },
    /// An interface matcher with a name that no setting assigns a side.
    #[error(
        "{rule}: the side of the interface `{name}` is not configured; write it into `outside`, `inside` or, if it is \
         neither, `elsewhere` of [policy.interfaces]"
    )]
    Unmapped {
        /// The rule.
        rule: Place,
        /// The name in the rule.
        name: String,
    },
    /// `tls-host` cannot run.
    #[error("{rule}: tls-host `{name}`: {error}")]
    TlsHost {
        /// The rule.
        rule: Place,
        /// The name in the rule.
        name: String,
        /// The reason.
        error: PatternError,
    },
    /// `psd` would have to store too many ports of each source.
    #[error("{rule}: psd would have to store {ports} ports of each source; lower its threshold or raise its weights")]
    TooManyPorts {
        /// The rule.
        rule: Place,
        /// The number of ports.
        ports: u32,
    },
    /// More rules count connections than a connection has bits for.
    #[error("{rule}: at most {MOST_MATCHERS} rules can have a connection-limit, of all chains together")]
    TooManyConnectionLimits {
        /// The first rule above the limit.
        rule: Place,
    },
    /// An entry of a list that only a door's knocks fill.
    #[error(
        "line {line}: `{list}` is a list of a door, which only its knocks fill; leave the entry out, or let the address in by a rule"
    )]
    DoorsList {
        /// The line of the entry.
        line: u32,
        /// The list.
        list: String,
    },
    /// The lists contain more host names than the control process resolves.
    #[error(
        "line {line}: the lists hold more than {MAX_NAMES} host names: write addresses or prefixes for some of them"
    )]
    TooManyNames {
        /// The line of the first host name above the limit.
        line: u32,
    },
    /// The rules use more lists than the maximum.
    #[error(transparent)]
    TooManyListsError(#[from] TooManyListsError),
}

impl Problem {
    /// The rule with the problem; `None` if the problem concerns more than one rule.
    pub const fn place(&self) -> Option<&Place> {
        match self {
            Problem::JumpCircle { rule, .. }
            | Problem::JumpTooDeep { rule, .. }
            | Problem::MixedRange { rule }
            | Problem::PatternMissing { rule, .. }
            | Problem::Invalid { rule, .. }
            | Problem::Unmapped { rule, .. }
            | Problem::TlsHost { rule, .. }
            | Problem::TooManyPorts { rule, .. }
            | Problem::TooManyConnectionLimits { rule } => Some(rule),
            _ => None,
        }
    }

    /// The text of the problem without the rule, for output that shows the rule separately.
    pub fn sentence(&self) -> String {
        let text = self.to_string();
        let prefix = self.place().map(|place| format!("{place}: ")).unwrap_or_default();
        text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
    }
}

/// A rule, in a form for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: rule {id}")]
pub struct Place {
    /// The id.
    pub id: RuleId,
    /// The line.
    pub line: u32,
}

impl From<&Rule> for Place {
    fn from(rule: &Rule) -> Self {
        Place { id: rule.id.clone(), line: rule.line }
    }
}
