//! The filter and `raw` menus of both families: parses the words of an `add` into a [`Rule`].
//!
//! | module    | owns |
//! |-----------|------|
//! | `table`   | every property: its parser and its description in the language reference |
//! | `action`  | every action |
//! | `between` | relations between the properties of one rule |
//!
//! A condition that is not supported, such as a mark that no rule sets, is not an error of the file: the rule is kept
//! unchanged, marked invalid with the reason, and never runs. `check` checks the relations between rules.

mod action;
mod between;
mod table;

use std::ops::Range;

use self::action::Kind;
pub(super) use self::action::describe_actions;
pub(super) use self::table::PROPERTIES;
use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Scope, set};
use super::spans::SourceSpans;
use super::value::{self, Parsed};
use crate::packet::Family;
use crate::rule::{
    Action, Condition, Direction, Inert, InterfaceKind, ListAdd, ListTimeout, Log, Mark, Matcher, RejectWith, Rule,
    Table,
};
use crate::word::Word;

/// The result of an `add`, with all parts that could be parsed: other rules may reference a refused rule.
#[derive(Debug)]
pub(super) struct RuleDraft {
    /// The rule; `None` if it has errors.
    pub(super) rule: Option<Rule>,
    pub(super) table: Table,
    pub(super) family: Family,
    pub(super) chain: Option<String>,
    pub(super) disabled: bool,
    /// The target of the rule's jump, and its position.
    pub(super) jump: Option<(String, Range<usize>)>,
    /// The pattern that the rule references, and its position.
    pub(super) pattern: Option<(String, Range<usize>)>,
    /// The positions of the rule's properties.
    pub(super) spans: SourceSpans,
}

/// Parses one `add`.
pub(super) fn read(table: Table, family: Family, add: &Add<'_>, problems: &mut Problems) -> RuleDraft {
    let before = problems.count();
    let mut draft = Draft::new(table, family);
    let scope = Scope { family: Some(family), table: Some(table) };
    let given = property::read(PROPERTIES, scope, add, &mut draft, problems);
    between::check_action(&draft, &given, &add.verb, problems);
    between::check_protocol(&mut draft, &given, problems);
    let pattern = draft.matchers.iter().find_map(|matcher| match &matcher.condition {
        Condition::Layer7(name) => Some((name.clone(), given.read("layer7-protocol")?)),
        _ => None,
    });
    let mut entry = RuleDraft {
        rule: None,
        table,
        family,
        chain: draft.chain.clone(),
        disabled: draft.disabled.unwrap_or_default(),
        jump: draft.target.clone().zip(given.read("jump-target")).filter(|_| draft.action == Some(Kind::Jump)),
        pattern,
        spans: SourceSpans::default(),
    };
    if given.complete && problems.count() == before {
        entry.rule = draft.finish(add.line);
        entry.spans = given.spans(add.verb.clone());
    }
    entry
}

/// A rule while its words are parsed.
#[derive(Debug)]
pub(super) struct Draft {
    table: Table,
    family: Family,
    action: Option<Kind>,
    chain: Option<String>,
    comment: Option<String>,
    disabled: Option<bool>,
    log: Option<bool>,
    log_prefix: Option<String>,
    list: Option<String>,
    timeout: Option<ListTimeout>,
    target: Option<String>,
    answer: Option<RejectWith>,
    matchers: Vec<Matcher>,
    inert: Inert,
    /// The reasons that the rule is invalid.
    reasons: Vec<String>,
}

impl Draft {
    const fn new(table: Table, family: Family) -> Self {
        Draft {
            table,
            family,
            action: None,
            chain: None,
            comment: None,
            disabled: None,
            log: None,
            log_prefix: None,
            list: None,
            timeout: None,
            target: None,
            answer: None,
            matchers: Vec::new(),
            inert: Inert::new(),
            reasons: Vec::new(),
        }
    }

    /// The rule of the draft; `None` if the action has not all of its properties, which is a problem.
    fn finish(mut self, line: u32) -> Option<Rule> {
        let timeout = self.timeout.unwrap_or(ListTimeout::NoneDynamic);
        let kind = self.action.unwrap_or_default();
        let action = match kind {
            Kind::Accept => Action::Accept,
            Kind::AddDst => Action::AddDstToAddressList(ListAdd { list: self.list?, timeout }),
            Kind::AddSrc => Action::AddSrcToAddressList(ListAdd { list: self.list?, timeout }),
            Kind::Drop => Action::Drop,
            Kind::Fasttrack => Action::FasttrackConnection,
            Kind::Jump => Action::Jump(self.target?),
            Kind::Log => Action::Log,
            Kind::Notrack => Action::Notrack,
            Kind::Passthrough => Action::Passthrough,
            Kind::Reject => Action::Reject(self.answer.unwrap_or(RejectWith::default_of(self.family))),
            Kind::Return => Action::Return,
            Kind::Tarpit => Action::Tarpit,
        };
        let logs = self.log == Some(true) || kind == Kind::Log;
        // The order is by rank, then by name, so that the order of words has no effect.
        self.matchers.sort_by(|one, other| {
            let place = |matcher: &Matcher| matcher.condition.rank();
            place(one).cmp(&place(other)).then_with(|| one.condition.name().cmp(other.condition.name()))
        });
        self.reasons.sort();
        let prefix = self.log_prefix.unwrap_or_default();
        if !logs && !prefix.is_empty() {
            self.inert.insert("log-prefix".to_owned(), prefix.clone());
        }
        Some(Rule {
            table: self.table,
            matchers: self.matchers,
            log: logs.then_some(Log { prefix }),
            inert: self.inert,
            disabled: self.disabled.unwrap_or_default(),
            invalid: (!self.reasons.is_empty()).then(|| self.reasons.join("; ")),
            comment: self.comment.unwrap_or_default(),
            line,
            ..Rule::new(self.family, &self.chain?, action)
        })
    }

    /// Parses an action of this menu.
    fn read_action(&mut self, value: &[u8]) -> Parsed<()> {
        set(&mut self.action, Kind::parse(&value::text(value), self.table, self.family))
    }

    /// Parses an answer of this family.
    fn read_answer(&mut self, value: &[u8]) -> Parsed<()> {
        set(&mut self.answer, action::reject_with(&value::text(value), self.family))
    }

    /// Adds a matcher: the value, possibly after a `!`.
    fn ask_bytes(&mut self, value: &[u8], parse: impl FnOnce(&[u8]) -> Parsed<Condition>) -> Parsed<()> {
        let (negated, plain) = value.strip_prefix(b"!").map_or((false, value), |plain| (true, plain));
        if negated && plain.is_empty() {
            return Err(Complaint::new("there is nothing after the `!`").expected("a value"));
        }
        let skipped = value.len() - plain.len();
        let condition = parse(plain).map_err(|complaint| complaint.moved(skipped))?;
        self.matchers.push(Matcher { negated, condition });
        Ok(())
    }

    /// As [`Draft::ask_bytes`], for text.
    fn ask(&mut self, value: &[u8], parse: impl FnOnce(&str) -> Parsed<Condition>) -> Parsed<()> {
        self.ask_bytes(value, |plain| parse(&value::text(plain)))
    }

    /// As [`Draft::ask`], for a value that several matchers have.
    fn ask_as<T>(&mut self, value: &[u8], parse: fn(&str) -> Parsed<T>, make: fn(T) -> Condition) -> Parsed<()> {
        self.ask(value, |text| parse(text).map(make))
    }

    /// As [`Draft::ask`], for a value that depends on the family.
    fn ask_by_family<T>(
        &mut self,
        value: &[u8],
        parse: fn(&str, Family) -> Parsed<T>,
        make: fn(T) -> Condition,
    ) -> Parsed<()> {
        let family = self.family;
        self.ask(value, |text| parse(text, family).map(make))
    }

    /// Adds a matcher that RouterOS cannot negate.
    fn ask_plain(&mut self, value: &[u8], parse: fn(&str) -> Parsed<Condition>) -> Parsed<()> {
        if value.starts_with(b"!") {
            let complaint = Complaint::new("this matcher cannot be negated").expected("a value without `!`");
            return Err(complaint
                .help("write the opposite condition, or return from the chain by a rule before this one")
                .at(0..1));
        }
        self.ask(value, parse)
    }

    /// Adds a matcher in which each item can have a `!`.
    fn ask_each(&mut self, value: &[u8], parse: fn(&str) -> Parsed<Condition>) -> Parsed<()> {
        let condition = parse(&value::text(value))?;
        self.matchers.push(Matcher { negated: false, condition });
        Ok(())
    }

    /// Adds a matcher of interfaces.
    fn ask_interface(&mut self, value: &[u8], direction: Direction, kind: InterfaceKind) -> Parsed<()> {
        self.ask(value, |text| value::interface_name(text).map(|name| Condition::Interface { direction, kind, name }))
    }

    /// Adds a matcher of marks. No rule sets marks, so no packet has a mark.
    fn ask_mark(&mut self, value: &[u8], mark: Mark) -> Parsed<()> {
        match value.strip_prefix(b"!").unwrap_or(value) {
            b"no-mark" => self.ask(value, |_| Ok(Condition::NoMark(mark))),
            _ => self.keep(mark.name(), value, "no rule sets marks here"),
        }
    }

    /// Adds a matcher that is not supported. The rule is kept with the matcher and never runs.
    fn keep(&mut self, name: &str, value: &[u8], why: &str) -> Parsed<()> {
        self.ask(value, |text| Ok(Condition::Other { name: name.to_owned(), value: text.to_owned() }))?;
        self.refuse(format!("`{name}={}` is not supported: {why}", show(value)));
        Ok(())
    }

    /// Stores a property without effect, if it is well-formed.
    fn keep_inert<T>(&mut self, name: &str, value: &[u8], parse: fn(&str) -> Parsed<T>) -> Parsed<()> {
        let text = value::text(value);
        parse(&text)?;
        self.inert.insert(name.to_owned(), text.into_owned());
        Ok(())
    }

    /// Marks the rule as invalid, for this reason.
    fn refuse(&mut self, reason: String) {
        self.reasons.push(reason);
    }
}

#[cfg(test)]
mod tests;
