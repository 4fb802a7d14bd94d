//! Runs statements: blocks with their variables, loops, conditions.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::super::flaw::{Flaw, FlawKind};
use super::super::lexer::{Command, Lexer, Text, Word};
use super::super::menu::Menus;
use super::super::problem::{Complaint, show};
use super::super::select::Refusal;
use super::super::work::Work;
use super::expression::{Fail, Variables, operand};
use super::map::Expansion;
use super::value::Value;

/// Maximum depth of blocks.
const MAX_DEPTH: usize = 32;

/// Maximum number of variables at a time.
const MOST_VARIABLES: usize = 10_000;

/// Runs the script of a file.
pub(in crate::rsc) fn expand(file: &[u8]) -> Expansion {
    let mut run = Run {
        file,
        work: Work::new(file.len()),
        expansion: Expansion::new(file),
        scopes: Scopes::default(),
        loops: Vec::new(),
        menus: Menus::default(),
        is_lost: false,
        depth: 0,
        told: HashSet::new(),
    };
    let start = Lexer::new(file).place();
    if run.block(start..file.len()).is_none() {
        let complaint = Complaint::new("the script runs too long, or its output is too large")
            .expected("fewer iterations of its loops")
            .help("write the rules out, or leave the line out");
        run.expansion.problems.add(file.len()..file.len(), complaint);
    }
    run.expansion
}

/// The variables of the blocks around a statement, innermost last, and the global ones.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    local: Vec<HashMap<Vec<u8>, Value>>,
    global: HashMap<Vec<u8>, Value>,
}

impl Variables for Scopes {
    fn value(&self, name: &[u8]) -> Option<Value> {
        self.local.iter().rev().find_map(|scope| scope.get(name)).or_else(|| self.global.get(name)).cloned()
    }
}

impl Scopes {
    fn place(&mut self, name: &[u8]) -> Option<&mut Value> {
        self.local.iter_mut().rev().find_map(|scope| scope.get_mut(name)).or_else(|| self.global.get_mut(name))
    }

    fn declare(&mut self, name: &[u8], value: Value) {
        if let Some(scope) = self.local.last_mut() {
            scope.insert(name.to_vec(), value);
        }
    }

    fn count(&self) -> usize {
        self.global.len() + self.local.iter().map(HashMap::len).sum::<usize>()
    }
}

/// The state of running a script.
pub(super) struct Run<'a> {
    pub(super) file: &'a [u8],
    pub(super) work: Work,
    pub(super) expansion: Expansion,
    pub(super) scopes: Scopes,
    /// The variables of the loops around a statement, with their values.
    loops: Vec<(String, String)>,
    pub(super) menus: Menus,
    /// Whether a block changed the menu and has ended, so that the menu of a command without a path is ambiguous.
    pub(super) is_lost: bool,
    depth: usize,
    /// Positions of refused statements, each of which is reported once. Loops reach a position several times.
    told: HashSet<Range<usize>>,
}

/// `None` ends the script, because the budget is exhausted.
type Goes = Option<()>;

impl Run<'_> {
    /// Runs the statements of a range.
    fn block(&mut self, range: Range<usize>) -> Goes {
        if self.depth == MAX_DEPTH {
            self.refuse(Some((range.start..range.start, Complaint::new("blocks are nested too deep"))));
            return Some(());
        }
        let before = self.menus.place();
        self.depth += 1;
        self.scopes.local.push(HashMap::new());
        let goes = self.statements(range);
        self.scopes.local.pop();
        self.depth -= 1;
        self.is_lost |= self.depth > 0 && self.menus.place() != before;
        goes
    }

    fn statements(&mut self, range: Range<usize>) -> Goes {
        let text = self.file.get(..range.end)?;
        let mut lexer = Lexer::from(text, range.start);
        self.spend(50 + range.len())?;
        loop {
            let command = lexer.next(|words| self.menus.understands(words));
            // Comments about missing parts of the export stay in the text.
            for mark in std::mem::take(&mut lexer.marks) {
                self.expansion.copy(self.file, mark.clone());
                self.expansion.put(b"\n", mark.end..mark.end);
            }
            let Some(command) = command else { return Some(()) };
            self.spend(20 + command.words.len())?;
            let begins = super::begins(&command.words);
            match command.words.first() {
                Some(first) if begins => {
                    let name = first.name.bytes.strip_prefix(b":").unwrap_or(&first.name.bytes).to_vec();
                    let before = self.menus.place();
                    match self.statement(&command, &name) {
                        Ok(goes) => goes?,
                        Err(fail) => self.refuse(fail),
                    }
                    self.is_lost |= self.menus.place() != before;
                }
                _ => self.command(&command)?,
            }
        }
    }

    pub(super) fn spend(&self, units: usize) -> Goes {
        self.work.spend(units).then_some(())
    }

    /// Reports the reason that a statement could not run, once for each position.
    pub(super) fn refuse(&mut self, fail: Fail) {
        if let Some((span, complaint)) = fail
            && self.told.insert(span.clone())
        {
            let note = self.note();
            self.expansion.problems.add(span, complaint.with_note(&note));
        }
    }

    /// The values of the loops around a statement, for messages.
    pub(super) fn note(&self) -> String {
        let values: Vec<String> = self.loops.iter().map(|(name, value)| format!("`${name}` is `{value}`")).collect();
        values.join(", ")
    }

    fn statement(&mut self, command: &Command, name: &[u8]) -> Result<Goes, Fail> {
        let is_wrong =
            |flaw: &&Flaw| !matches!(flaw.kind, FlawKind::Variable | FlawKind::Bracket | FlawKind::QuoteInside);
        let closes = matches!(name.first(), Some(b'}' | b']' | b')'));
        if let Some(flaw) = command.flaws.iter().find(is_wrong).filter(|_| !closes) {
            return Err(Some((flaw.span.clone(), flaw.kind.complaint())));
        }
        let words = &command.words;
        match name {
            b"local" | b"global" => self.declare(words, name == b"global").map(Some),
            b"set" => self.set(words).map(Some),
            b"if" => self.condition(words),
            b"foreach" => self.each(words),
            b"for" => self.count(words),
            b"do" => self.once(words),
            b"put" | b"log" | b"delay" | b"beep" => {
                let span = words[0].span.clone();
                if self.told.insert(span.clone()) {
                    let complaint = Complaint::new(format!("`:{}` changes no rule: it was ignored", show(name)));
                    self.expansion.warnings.add(span, complaint);
                }
                Ok(Some(()))
            }
            _ if words.len() == 1 && words[0].name.bytes == b"{" => {
                let span = words[0].span.clone();
                Ok(self.block(span.start + 1..span.end.saturating_sub(1)))
            }
            _ => Err(Some(unread(&words[0], name))),
        }
    }

    /// Runs `:local name value` or `:global name value`.
    fn declare(&mut self, words: &[Word], is_global: bool) -> Result<(), Fail> {
        let name = self.name(words, 1)?;
        if let Some(word) = words.get(2).filter(|word| word.value.is_some()) {
            let complaint = Complaint::new(format!("functions are not supported: `{}=`", show(&word.name.bytes)));
            self.scopes.declare(&name, Value::Unknown);
            return Err(Some((word.span.clone(), complaint.expected("a value"))));
        }
        // An error is reported once, and not again at each use of the variable.
        let value = words.get(2).map_or(Ok(Value::Nothing), |word| self.value(&word.name.span));
        let value = match (value, words.get(3)) {
            (Ok(_), Some(stray)) => Err(Some(one_value(stray))),
            (value, _) => value,
        };
        let (value, fail) = value.map_or_else(|fail| (Value::Unknown, Some(fail)), |value| (value, None));
        if !is_global {
            self.scopes.declare(&name, value);
        } else if words.len() > 2 || !self.scopes.global.contains_key(&name) {
            self.scopes.global.insert(name, value);
        }
        if self.scopes.count() > MOST_VARIABLES {
            return Err(Some((words[0].span.clone(), Complaint::new(format!("more than {MOST_VARIABLES} variables")))));
        }
        fail.map_or(Ok(()), Err)
    }

    fn set(&mut self, words: &[Word]) -> Result<(), Fail> {
        let name = self.name(words, 1)?;
        let value = match (words.get(2), words.get(3)) {
            (_, Some(stray)) => Err(Some(one_value(stray))),
            (None, None) => Ok(Value::Nothing),
            (Some(word), None) => self.value(&word.name.span),
        };
        let Some(place) = self.scopes.place(&name) else {
            let complaint = Complaint::new(format!("the variable `{}` is not declared", show(&name)))
                .expected("`:local` or `:global` above")
                .help(format!("write `:local {}` instead of `:set`", show(&name)));
            return Err(Some((words[1].span.clone(), complaint)));
        };
        *place = Value::Unknown;
        *place = value?;
        Ok(())
    }

    fn condition(&mut self, words: &[Word]) -> Result<Goes, Fail> {
        let Some(condition) = words.get(1).filter(|word| word.value.is_none()) else {
            return Err(Some(lacks(&words[0], "a condition in parentheses")));
        };
        only(words, 2, &["do", "else"])?;
        let truth = match self.value(&condition.name.span)? {
            Value::Truth(truth) => truth,
            Value::Unknown => return Err(None),
            other => {
                let complaint = Complaint::new(format!("the condition is {}", other.kind()))
                    .expected("a comparison such as `($x = 1)`, or `true` or `false`");
                return Err(Some((condition.span.clone(), complaint)));
            }
        };
        match body(words, if truth { "do" } else { "else" })? {
            Some(range) => Ok(self.block(range)),
            None => Ok(Some(())),
        }
    }

    /// Runs `:foreach x in={…} do={…}`.
    fn each(&mut self, words: &[Word]) -> Result<Goes, Fail> {
        let name = self.name(words, 1)?;
        only(words, 2, &["in", "do"])?;
        let Some(list) = argument(words, "in") else { return Err(Some(lacks(&words[0], "`in=` and an array"))) };
        let Some(range) = body(words, "do")? else { return Err(Some(lacks(&words[0], "`do={…}`"))) };
        let items = match self.value(&list.span)? {
            Value::Array(items) => items,
            Value::Unknown => return Err(None),
            other => {
                let complaint =
                    Complaint::new(format!("`in=` is {}", other.kind())).expected("an array such as `{1;2}`");
                return Err(Some((list.span.clone(), complaint)));
            }
        };
        Ok(self.turns(&name, &range, items.iter().cloned()))
    }

    /// Runs `:for i from=1 to=3 step=1 do={…}`.
    fn count(&mut self, words: &[Word]) -> Result<Goes, Fail> {
        let name = self.name(words, 1)?;
        only(words, 2, &["from", "to", "step", "do"])?;
        let number = |name: &str| match argument(words, name) {
            None => Ok(None),
            Some(text) => match self.value(&text.span)? {
                Value::Number(number) => Ok(Some(number)),
                Value::Unknown => Err(None),
                other => {
                    let complaint = Complaint::new(format!("`{name}=` is {}", other.kind())).expected("a number");
                    Err(Some((text.span.clone(), complaint)))
                }
            },
        };
        let (from, to, step) = (number("from")?, number("to")?, number("step")?);
        let (Some(from), Some(to)) = (from, to) else { return Err(Some(lacks(&words[0], "`from=` and `to=`"))) };
        let Some(range) = body(words, "do")? else { return Err(Some(lacks(&words[0], "`do={…}`"))) };
        let step = step.unwrap_or(if from <= to { 1 } else { -1 });
        if step == 0 || (step > 0) != (from <= to) && from != to {
            let complaint = Complaint::new("the step is zero, or leads away from `to=`");
            return Err(Some((words[0].span.clone(), complaint.expected("a step in the direction of `to=`"))));
        }
        let next =
            |number: &i64| number.checked_add(step).filter(|next| if step > 0 { *next <= to } else { *next >= to });
        Ok(self.turns(&name, &range, std::iter::successors(Some(from), next).map(Value::Number)))
    }

    /// Runs `:do {…}`. The block of `on-error=` is ignored, because a file in which a command fails is refused.
    fn once(&mut self, words: &[Word]) -> Result<Goes, Fail> {
        if let Some(word) = words.iter().find(|word| word.name.bytes == b"while") {
            return Err(Some(unread(word, b"do while")));
        }
        only(words, 2, &["on-error"])?;
        let Some(word) = words.get(1).filter(|word| word.name.bytes == b"{") else {
            return Err(Some(lacks(&words[0], "`{…}`")));
        };
        Ok(self.block(word.span.start + 1..word.span.end.saturating_sub(1)))
    }

    /// Runs the body of a loop once for each value.
    fn turns(&mut self, name: &[u8], body: &Range<usize>, values: impl Iterator<Item = Value>) -> Goes {
        for value in values {
            self.spend(50)?;
            self.loops.push((show(name), value.shown()));
            self.scopes.local.push(HashMap::from([(name.to_vec(), value)]));
            let goes = self.block(body.clone());
            self.scopes.local.pop();
            self.loops.pop();
            goes?;
        }
        Some(())
    }

    fn value(&self, range: &Range<usize>) -> Result<Value, Fail> {
        operand(self.file, range.clone(), &self.scopes, &self.work)
    }

    /// The name of a variable.
    fn name(&self, words: &[Word], index: usize) -> Result<Vec<u8>, Fail> {
        let Some(word) = words.get(index) else { return Err(Some(lacks(&words[0], "the name of a variable"))) };
        let name = &word.name.bytes;
        let is_name = !name.is_empty() && !name.iter().any(|byte| b"$[{(,".contains(byte));
        if !is_name || word.value.is_some() || word.flawed {
            let complaint = Complaint::new(format!("`{}` is not the name of one variable", show(name)));
            return Err(Some((word.span.clone(), complaint.expected("letters and digits"))));
        }
        Ok(name.clone())
    }
}

fn unread(word: &Word, name: &[u8]) -> Refusal {
    let what = match name.first() {
        Some(b'$') => "calling a function".to_owned(),
        Some(b'}' | b']' | b')') => "a bracket that was not opened".to_owned(),
        Some(b'[' | b'(' | b'{') | None => "an expression in place of a command".to_owned(),
        Some(_) => format!("`:{}`", show(name)),
    };
    let complaint = Complaint::new(format!("this part of scripting is not supported: {what}"))
        .expected("`:local`, `:global`, `:set`, `:if`, `:for`, `:foreach`, or a command such as `add`")
        .help("write out the commands of the script, or export the rules from a router on which it ran");
    (word.span.clone(), complaint)
}

fn lacks(word: &Word, what: &str) -> Refusal {
    let complaint = Complaint::new(format!("`{}` lacks something", show(&word.name.bytes))).expected(what);
    (word.span.clone(), complaint)
}

fn one_value(stray: &Word) -> Refusal {
    let complaint = Complaint::new("more than one value").expected("one value, or an expression in parentheses");
    (stray.span.clone(), complaint.help("`(\"a\" . $b)` joins texts"))
}

/// Checks that the following words are arguments with these names, each at most once.
fn only(words: &[Word], from: usize, names: &[&str]) -> Result<(), Fail> {
    let mut seen = HashSet::new();
    let is_wrong = |word: &&Word| {
        let known = names.iter().any(|name| name.as_bytes() == word.name.bytes);
        !known || word.value.is_none() || !seen.insert(word.name.bytes.clone())
    };
    match words.iter().skip(from).find(is_wrong) {
        None => Ok(()),
        Some(word) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}=`")).collect();
            let complaint = Complaint::new(format!("`{}` is not supported here", show(&word.name.bytes)));
            Err(Some((word.span.clone(), complaint.expected(names.join(", ")))))
        }
    }
}

fn argument<'w>(words: &'w [Word], name: &str) -> Option<&'w Text> {
    words.iter().find(|word| word.name.bytes == name.as_bytes()).and_then(|word| word.value.as_ref())
}

/// The text between the braces of `do={…}`.
fn body(words: &[Word], name: &str) -> Result<Option<Range<usize>>, Fail> {
    match argument(words, name) {
        None => Ok(None),
        Some(text) if text.bytes == b"{" => Ok(Some(text.span.start + 1..text.span.end.saturating_sub(1))),
        Some(text) => {
            let complaint = Complaint::new(format!("`{name}=` is not a block")).expected("`{…}`");
            Err(Some((text.span.clone(), complaint)))
        }
    }
}
