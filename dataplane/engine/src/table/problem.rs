//! The errors of compiling a rule set.

use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::rule::{Rule, RuleId};
use knockplane_policy::wire::MAX_NAMES;

use super::MAX_STEPS;
use crate::state::layer7::PatternError;
use crate::state::lists::TooManyListsError;
use crate::state::matchers::connection_limits::MOST_MATCHERS;

/// Everything that keeps a rule set from running.
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

/// One thing that keeps a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A jump that could lead back to its own chain.
    #[error("{rule}: the jump to `{target}` leads back to its own chain")]
    JumpCircle {
        /// The jump.
        rule: Place,
        /// Where it jumps.
        target: String,
    },
    /// A jump behind too many others.
    #[error("{rule}: the jump to `{target}` nests deeper than {MAX_JUMP_DEPTH} jumps")]
    JumpTooDeep {
        /// The jump.
        rule: Place,
        /// Where it jumps.
        target: String,
    },
    /// Jumps that multiply.
    #[error("chain `{chain}`: a packet could be held against {steps} rules, jumps included; {MAX_STEPS} is the most")]
    TooManySteps {
        /// The built-in chain.
        chain: &'static str,
        /// How many.
        steps: u64,
    },
    /// An address range whose ends are of different families.
    #[error("{rule}: an address range goes from IPv4 to IPv6 or back")]
    MixedRange {
        /// The rule.
        rule: Place,
    },
    /// `layer7-protocol` names nothing.
    #[error("{rule}: there is no layer-7 pattern `{pattern}`; add it, or disable the rule")]
    PatternMissing {
        /// The rule.
        rule: Place,
        /// What it names.
        pattern: String,
    },
    /// A layer-7 pattern cannot run.
    #[error("line {line}: layer-7 pattern `{pattern}`: {error}")]
    Pattern {
        /// Its name.
        pattern: String,
        /// Its line.
        line: u32,
        /// Why not.
        error: PatternError,
    },
    /// A rule that can be read and never be run.
    #[error("{rule}: it can never run: {reason}; disable it, or leave it out")]
    Invalid {
        /// The rule.
        rule: Place,
        /// Why not.
        reason: String,
    },
    /// An interface matcher names what no setting gives a side.
    #[error(
        "{rule}: nothing says which side of the filter `{name}` is; write it into `outside`, `inside` or, if it is \
         neither, `elsewhere` of [policy.interfaces]"
    )]
    Unmapped {
        /// The rule.
        rule: Place,
        /// What it names.
        name: String,
    },
    /// `tls-host` cannot run.
    #[error("{rule}: tls-host `{name}`: {error}")]
    TlsHost {
        /// The rule.
        rule: Place,
        /// What it asks for.
        name: String,
        /// Why not.
        error: PatternError,
    },
    /// `psd` would have to remember too many ports of each source.
    #[error(
        "{rule}: psd would have to remember {ports} ports of each source; lower its threshold or raise its weights"
    )]
    TooManyPorts {
        /// The rule.
        rule: Place,
        /// How many.
        ports: u32,
    },
    /// More rules count connections than a connection remembers.
    #[error("{rule}: at most {MOST_MATCHERS} rules can have a connection-limit, of all chains together")]
    TooManyConnectionLimits {
        /// The first one too many.
        rule: Place,
    },
    /// An entry of a list that only a door's knocks fill.
    #[error(
        "line {line}: `{list}` is a list of a door, which only its knocks fill; leave the entry out, or let the address in by a rule"
    )]
    DoorsList {
        /// Where it stands.
        line: u32,
        /// The list.
        list: String,
    },
    /// The lists hold more host names than are resolved.
    #[error(
        "line {line}: the lists hold more than {MAX_NAMES} host names: write addresses or prefixes for some of them"
    )]
    TooManyNames {
        /// The line of the first one too many.
        line: u32,
    },
    /// The rules use more lists than there is room for.
    #[error(transparent)]
    TooManyListsError(#[from] TooManyListsError),
}

impl Problem {
    /// The rule that it is about; none if it is about more than one.
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

    /// What it says of that rule, for whoever shows the rule itself.
    pub fn sentence(&self) -> String {
        let text = self.to_string();
        let prefix = self.place().map(|place| format!("{place}: ")).unwrap_or_default();
        text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
    }
}

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: rule {id}")]
pub struct Place {
    /// Its id.
    pub id: RuleId,
    /// Its line.
    pub line: u32,
}

impl From<&Rule> for Place {
    fn from(rule: &Rule) -> Self {
        Place { id: rule.id.clone(), line: rule.line }
    }
}
