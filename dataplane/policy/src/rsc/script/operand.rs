//! Evaluates operands: strings, variables, arrays, and literal words.

use std::rc::Rc;

use super::super::flaw::FlawKind;
use super::super::lexer::string_at;
use super::super::problem::{Complaint, show};
use super::expression::{Expression, Fail, Variables};
use super::value::{MOST_ITEMS, Value};

impl<V: Variables> Expression<'_, V> {
    /// Evaluates a string, with the values of its variables.
    pub(super) fn string(&mut self) -> Result<Vec<u8>, Fail> {
        let open = self.at;
        let (string, flaws, end) = string_at(self.text, open);
        let mut dollars = Vec::new();
        for flaw in flaws {
            match flaw.kind {
                FlawKind::Variable => dollars.push(flaw.span.start),
                kind => return Err(Some((flaw.span, kind.complaint()))),
            }
        }
        let mut bytes = Vec::with_capacity(string.bytes.len());
        let mut passed = open;
        for (index, byte) in string.bytes.iter().enumerate() {
            let place = if dollars.is_empty() { open } else { string.part(index..index + 1).start };
            if place < passed {
                continue;
            }
            if *byte == b'$' && dollars.contains(&place) {
                self.at = place;
                let value = match self.text.get(place + 1) {
                    Some(b'(' | b'[') => {
                        self.at += 1;
                        self.operand()?
                    }
                    _ => self.variable()?,
                };
                bytes.extend(self.written(&value, place)?);
                passed = self.at;
            } else {
                bytes.push(*byte);
            }
        }
        self.at = end;
        self.sized(&bytes, open)?;
        Ok(bytes)
    }

    /// Evaluates `$name` or `$"name"`.
    pub(super) fn variable(&mut self) -> Result<Value, Fail> {
        let start = self.at;
        self.at += 1;
        let name = if self.peek() == Some(b'"') {
            let (string, flaws, end) = string_at(self.text, self.at);
            if let Some(flaw) = flaws.into_iter().next() {
                return Err(Some((flaw.span, flaw.kind.complaint())));
            }
            self.at = end;
            string.bytes
        } else {
            let rest = &self.text[self.at..];
            let length = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
            self.at += length;
            rest[..length].to_vec()
        };
        let complaint = match self.variables.value(&name) {
            Some(Value::Unknown) => return Err(None),
            Some(value) => return Ok(value),
            None if name.is_empty() => Complaint::new("`$` begins a variable here")
                .expected("the name of a variable")
                .help("write `\\$`, inside quotes, for a dollar sign"),
            None => Complaint::new(format!("the variable `{}` is not set", show(&name)))
                .expected("a variable that `:local`, `:global` or a loop sets above")
                .help("set it, or write `\\$`, inside quotes, for a dollar sign"),
        };
        Err(Some((start..self.at, complaint)))
    }

    /// Evaluates a literal: any word, or between operators a number or one of a few words.
    pub(super) fn bare(&mut self) -> Result<Value, Fail> {
        let start = self.at;
        let rest = &self.text[start..];
        let is_ordinary = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_') || !byte.is_ascii();
        let is_of_word = |byte: &u8| is_ordinary(byte) || b"./-*@+%,".contains(byte);
        let ends = |byte: &u8| !if self.words { is_of_word(byte) } else { is_ordinary(byte) };
        let word = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
        if word.is_empty() {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        let goes_on = matches!(rest.get(word.len()..), Some([b'.', b'0'..=b'9', ..]));
        let is_value = word.iter().all(u8::is_ascii_digit) || [&b"true"[..], b"false", b"yes", b"no"].contains(&word);
        if !self.words && (!is_value || goes_on) {
            let complaint = Complaint::new(format!("`{}` is not supported in an expression", show(word)))
                .expected("a number, a text in quotes, or `$` and the name of a variable")
                .help("put texts and addresses in quotes");
            return Err(Some((start..self.at, complaint)));
        }
        Ok(Value::bare(word))
    }

    /// Evaluates `{a;b}`.
    pub(super) fn array(&mut self) -> Result<Value, Fail> {
        self.at += 1;
        let words = std::mem::replace(&mut self.words, true);
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    self.words = words;
                    return self.array_of(items);
                }
                Some(b';') => self.at += 1,
                _ => {
                    items.push(self.operand()?);
                    self.skip_blanks();
                    if self.peek() == Some(b'=') {
                        let complaint = Complaint::new("arrays with keys are not supported")
                            .expected("`;` between values")
                            .help("write an array of arrays, and take their items with `->0` and `->1`");
                        return Err(self.refuse(1, complaint));
                    }
                    if !matches!(self.peek(), Some(b';' | b'}')) {
                        return Err(self.unexpected("`;` or `}`"));
                    }
                }
            }
        }
    }

    pub(super) fn array_of(&self, items: Vec<Value>) -> Result<Value, Fail> {
        if items.contains(&Value::Unknown) {
            return Err(None);
        }
        if items.len() > MOST_ITEMS || !self.work.spend(items.len()) {
            return Err(self.refuse(1, Complaint::new(format!("an array of more than {MOST_ITEMS} items"))));
        }
        Ok(Value::Array(Rc::from(items)))
    }

    /// Evaluates `array->0`.
    pub(super) fn item(&self, value: &Value, index: &Value, start: usize) -> Result<Value, Fail> {
        match (value, index) {
            (Value::Unknown, _) | (_, Value::Unknown) => Err(None),
            (Value::Array(items), Value::Number(index)) => {
                Ok(usize::try_from(*index).ok().and_then(|index| items.get(index)).cloned().unwrap_or(Value::Nothing))
            }
            _ => {
                let complaint = Complaint::new(format!("`->` between {} and {}", value.kind(), index.kind()));
                Err(Some((start..self.at, complaint.expected("an array, and a number counted from 0"))))
            }
        }
    }
}
