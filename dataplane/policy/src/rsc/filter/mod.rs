//! The filter and `raw` menus of both families: from the words of an `add` to a [`Rule`].
//!
//! | module    | owns |
//! |-----------|------|
//! | `table`   | every property: what reads it and what the language reference says of it |
//! | `action`  | every action |
//! | `between` | what must hold between the properties of one rule |
//!
//! A rule that asks for what cannot be honoured here, such as a mark that nothing sets, is no mistake of the file: it is
//! kept with all it says, marked invalid with the reason, and never run. What must hold between rules is in `check`.

mod action;
mod between;
mod table;

use std::ops::Range;

use self::action::Kind;
pub(super) use self::action::describe_actions;
pub(super) use self::table::PROPERTIES;
use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Scope, set};
use super::said::Said;
use super::value::{self, Parsed};
use crate::packet::Family;
use crate::rule::{
    Action, Condition, Direction, Inert, InterfaceKind, ListAdd, ListTimeout, Log, Mark, Matcher, RejectWith, Rule,
    Table,
};
use crate::word::Word;

/// What an `add` said, as far as it was understood: what other rules must know of it even if it is refused.
#[derive(Debug)]
pub(super) struct Entry {
    /// The rule, if nothing is wrong with it.
    pub(super) rule: Option<Rule>,
    pub(super) table: Table,
    pub(super) family: Family,
    pub(super) chain: Option<String>,
    pub(super) disabled: bool,
    /// The chain it jumps to, and where it says so.
    pub(super) jump: Option<(String, Range<usize>)>,
    /// The pattern it asks for, and where it says so.
    pub(super) pattern: Option<(String, Range<usize>)>,
    /// Where it says all that.
    pub(super) said: Said,
}

/// Reads one `add`.
pub(super) fn read(table: Table, family: Family, add: &Add<'_>, problems: &mut Problems) -> Entry {
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
    let mut entry = Entry {
        rule: None,
        table,
        family,
        chain: draft.chain.clone(),
        disabled: draft.disabled.unwrap_or_default(),
        jump: draft.target.clone().zip(given.read("jump-target")).filter(|_| draft.action == Some(Kind::Jump)),
        pattern,
        said: Said::default(),
    };
    if given.complete && problems.count() == before {
        entry.rule = draft.finish(add.line);
        entry.said = given.said(add.verb.clone());
    }
    entry
}

/// A rule while its words are read.
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
    /// Why it cannot be honoured, if so.
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

    /// A draft without problems has all that its action needs; if it had not, there would be no rule.
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
        // By rank, and then by name: a rule says the same in whatever order its words stand.
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

    /// What to do, of what this menu has.
    fn read_action(&mut self, value: &[u8]) -> Parsed<()> {
        set(&mut self.action, Kind::parse(&value::text(value), self.table, self.family))
    }

    /// What to answer, of what the family has.
    fn read_answer(&mut self, value: &[u8]) -> Parsed<()> {
        set(&mut self.answer, action::reject_with(&value::text(value), self.family))
    }

    /// Adds a matcher: the value, perhaps behind a `!`.
    fn ask_bytes(&mut self, value: &[u8], parse: impl FnOnce(&[u8]) -> Parsed<Condition>) -> Parsed<()> {
        let (negated, plain) = value.strip_prefix(b"!").map_or((false, value), |plain| (true, plain));
        if negated && plain.is_empty() {
            return Err(Complaint::new("there is nothing behind the `!`").expected("a value"));
        }
        let skipped = value.len() - plain.len();
        let condition = parse(plain).map_err(|complaint| complaint.moved(skipped))?;
        self.matchers.push(Matcher { negated, condition });
        Ok(())
    }

    /// The same for text.
    fn ask(&mut self, value: &[u8], parse: impl FnOnce(&str) -> Parsed<Condition>) -> Parsed<()> {
        self.ask_bytes(value, |plain| parse(&value::text(plain)))
    }

    /// The same where several matchers have such a value.
    fn ask_as<T>(&mut self, value: &[u8], parse: fn(&str) -> Parsed<T>, make: fn(T) -> Condition) -> Parsed<()> {
        self.ask(value, |text| parse(text).map(make))
    }

    /// The same where the family matters.
    fn ask_by_family<T>(
        &mut self,
        value: &[u8],
        parse: fn(&str, Family) -> Parsed<T>,
        make: fn(T) -> Condition,
    ) -> Parsed<()> {
        let family = self.family;
        self.ask(value, |text| parse(text, family).map(make))
    }

    /// A matcher that RouterOS cannot negate.
    fn ask_plain(&mut self, value: &[u8], parse: fn(&str) -> Parsed<Condition>) -> Parsed<()> {
        if value.starts_with(b"!") {
            let complaint = Complaint::new("this matcher cannot be negated").expected("a value without `!`");
            return Err(complaint
                .help("ask for the opposite, or return from the chain by a rule before this one")
                .at(0..1));
        }
        self.ask(value, parse)
    }

    /// A matcher in which each item has a `!` of its own.
    fn ask_each(&mut self, value: &[u8], parse: fn(&str) -> Parsed<Condition>) -> Parsed<()> {
        let condition = parse(&value::text(value))?;
        self.matchers.push(Matcher { negated: false, condition });
        Ok(())
    }

    /// A matcher that asks about the way through the filter.
    fn ask_interface(&mut self, value: &[u8], direction: Direction, kind: InterfaceKind) -> Parsed<()> {
        self.ask(value, |text| value::interface_name(text).map(|name| Condition::Interface { direction, kind, name }))
    }

    /// A matcher that asks about marks. Nothing sets any here, so every packet has none.
    fn ask_mark(&mut self, value: &[u8], mark: Mark) -> Parsed<()> {
        match value.strip_prefix(b"!").unwrap_or(value) {
            b"no-mark" => self.ask(value, |_| Ok(Condition::NoMark(mark))),
            _ => self.keep(mark.name(), value, "nothing sets marks here"),
        }
    }

    /// A matcher that cannot be honoured. The rule is kept with it, whatever it asks, and never run.
    fn keep(&mut self, name: &str, value: &[u8], why: &str) -> Parsed<()> {
        self.ask(value, |text| Ok(Condition::Other { name: name.to_owned(), value: text.to_owned() }))?;
        self.refuse(format!("`{name}={}` cannot be honoured: {why}", show(value)));
        Ok(())
    }

    /// A property that changes nothing, if it is well-formed.
    fn keep_inert<T>(&mut self, name: &str, value: &[u8], parse: fn(&str) -> Parsed<T>) -> Parsed<()> {
        let text = value::text(value);
        parse(&text)?;
        self.inert.insert(name.to_owned(), text.into_owned());
        Ok(())
    }

    /// The rule is never run, for this reason.
    fn refuse(&mut self, reason: String) {
        self.reasons.push(reason);
    }
}

#[cfg(test)]
mod tests;
