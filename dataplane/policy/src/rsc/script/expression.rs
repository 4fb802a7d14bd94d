//! Evaluates expressions: parts of the file, with the values of variables.
//!
//! RouterOS does not document some operator precedences (`.` beside `+`, `&&` beside `||`). Such expressions need
//! parentheses. For the same reason, values of different types cannot be compared.

use std::ops::Range;

use super::super::problem::{Complaint, show};
use super::super::select::Refusal;
use super::super::work::Work;
use super::value::{LONGEST_TEXT, Value};

/// Maximum depth of expressions.
const MAX_DEPTH: usize = 32;

/// The values of variables.
pub(super) trait Variables {
    /// The value; `None` if the variable does not exist.
    fn value(&self, name: &[u8]) -> Option<Value>;
}

/// The reason that there is no value; `None` if it was already reported.
pub(super) type Fail = Option<Refusal>;

/// An expression that is parsed and evaluated in one pass.
pub(super) struct Expression<'a, V> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    pub(super) variables: &'a V,
    pub(super) work: &'a Work,
    depth: usize,
    /// Whether any word is a literal, which is not the case between operators.
    pub(super) words: bool,
}

/// The value of this range of the file, which is one operand: a literal, `$name`, `(…)`, `[…]` or `{…}`.
pub(super) fn operand<V: Variables>(
    text: &[u8],
    range: Range<usize>,
    variables: &V,
    work: &Work,
) -> Result<Value, Fail> {
    let mut expression = Expression {
        text: text.get(..range.end).unwrap_or(text),
        at: range.start,
        variables,
        work,
        depth: 0,
        words: true,
    };
    let value = expression.operand()?;
    match expression.peek() {
        None => Ok(value),
        Some(_) => Err(expression.unexpected("one value, or an expression in parentheses")),
    }
}

/// The value of the string whose opening quote is at `open`, and its end.
pub(super) fn string<V: Variables>(
    text: &[u8],
    open: usize,
    variables: &V,
    work: &Work,
) -> Result<(Vec<u8>, usize), Fail> {
    let mut expression = Expression { text, at: open, variables, work, depth: 0, words: true };
    let bytes = expression.string()?;
    Ok((bytes, expression.at))
}

/// The value of the variable whose `$` is at `dollar`, and the end of its name.
pub(super) fn variable<V: Variables>(
    text: &[u8],
    dollar: usize,
    variables: &V,
    work: &Work,
) -> Result<(Value, usize), Fail> {
    let mut expression = Expression { text, at: dollar, variables, work, depth: 0, words: true };
    let value = expression.variable()?;
    Ok((value, expression.at))
}

impl<V: Variables> Expression<'_, V> {
    pub(super) fn operand(&mut self) -> Result<Value, Fail> {
        if self.depth == MAX_DEPTH || !self.work.spend(5) {
            return Err(self.refuse(1, Complaint::new("expressions are nested too deep, or take too long")));
        }
        self.depth += 1;
        let mut value = match self.peek() {
            Some(b'"') => Value::text(&self.string()?),
            Some(b'$') => self.variable()?,
            Some(b'(') => {
                self.at += 1;
                let words = std::mem::replace(&mut self.words, false);
                let value = self.list()?;
                self.words = words;
                self.close(b')')?;
                value
            }
            Some(b'{') => self.array()?,
            Some(b'[') => self.command()?,
            _ => self.bare()?,
        };
        self.depth -= 1;
        while self.text[self.at..].starts_with(b"->") {
            let start = self.at;
            self.at += 2;
            let index = self.operand()?;
            value = self.item(&value, &index, start)?;
        }
        Ok(value)
    }

    /// Evaluates `a, b`: one array of all arrays and values.
    fn list(&mut self) -> Result<Value, Fail> {
        let first = self.any()?;
        if !self.takes(b",") {
            return Ok(first);
        }
        let mut items = items(first);
        loop {
            items.extend(self::items(self.any()?));
            if !self.takes(b",") {
                return self.array_of(items);
            }
        }
    }

    fn any(&mut self) -> Result<Value, Fail> {
        let first = self.comparison()?;
        let Some(operator) = self.logic() else { return Ok(first) };
        let mut truth = self.truth(&first)?;
        let mut next = Some(operator);
        while let Some(and) = next {
            if and != operator {
                return Err(self.refuse(1, parentheses("`and` and `or`")));
            }
            let value = self.comparison()?;
            let value = self.truth(&value)?;
            truth = if and { truth && value } else { truth || value };
            next = self.logic();
        }
        Ok(Value::Truth(truth))
    }

    /// Skips a logical operator: true for `&&` or `and`, false for `||` or `or`.
    fn logic(&mut self) -> Option<bool> {
        if self.takes(b"&&") || self.takes_word(b"and") {
            Some(true)
        } else if self.takes(b"||") || self.takes_word(b"or") {
            Some(false)
        } else {
            None
        }
    }

    fn comparison(&mut self) -> Result<Value, Fail> {
        self.skip_blanks();
        let mut negations = 0;
        while self.peek() == Some(b'!') {
            self.at += 1;
            negations += 1;
            self.skip_blanks();
        }
        if negations > 0 {
            let value = self.operand()?;
            let truth = self.truth(&value)?;
            return Ok(Value::Truth(truth == (negations % 2 == 0)));
        }
        let left = self.sum()?;
        self.skip_blanks();
        let start = self.at;
        let operators: [&[u8]; 6] = [b"!=", b"<=", b">=", b"=", b"<", b">"];
        let Some(operator) = operators.into_iter().find(|operator| self.takes(operator)) else { return Ok(left) };
        let right = self.sum()?;
        let truth = match (operator, &left, &right) {
            (_, Value::Unknown, _) | (_, _, Value::Unknown) => return Err(None),
            (b"=", Value::Number(_), Value::Number(_))
            | (b"=", Value::Text(_), Value::Text(_))
            | (b"=", Value::Truth(_), Value::Truth(_)) => left == right,
            (b"!=", Value::Number(_), Value::Number(_))
            | (b"!=", Value::Text(_), Value::Text(_))
            | (b"!=", Value::Truth(_), Value::Truth(_)) => left != right,
            (b"<", Value::Number(left), Value::Number(right)) => left < right,
            (b">", Value::Number(left), Value::Number(right)) => left > right,
            (b"<=", Value::Number(left), Value::Number(right)) => left <= right,
            (b">=", Value::Number(left), Value::Number(right)) => left >= right,
            _ => {
                let message = format!("{} is compared with {}", left.kind(), right.kind());
                let complaint = Complaint::new(message)
                    .expected("two values of the same type; `<` and `>` for numbers")
                    .help("convert a text to a number with `[:tonum …]`, or a number to a text with `[:tostr …]`");
                return Err(Some((start..self.at, complaint)));
            }
        };
        Ok(Value::Truth(truth))
    }

    /// Evaluates sums, and texts joined by `.`.
    fn sum(&mut self) -> Result<Value, Fail> {
        let mut value = self.product()?;
        let mut joins = None;
        loop {
            self.skip_blanks();
            let start = self.at;
            let operator = match self.peek() {
                Some(byte @ (b'.' | b'+')) => byte,
                Some(b'-') if self.text.get(self.at + 1) != Some(&b'>') => b'-',
                _ => return Ok(value),
            };
            if joins.is_some_and(|joins| joins != (operator == b'.')) {
                return Err(self.refuse(1, parentheses("`.` and sums")));
            }
            joins = Some(operator == b'.');
            self.at += 1;
            let right = self.product()?;
            value = match operator {
                b'.' => self.joined(&value, &right, start)?,
                _ => self.calculated(operator, &value, &right, start)?,
            };
        }
    }

    fn product(&mut self) -> Result<Value, Fail> {
        self.skip_blanks();
        let minus = self.peek() == Some(b'-');
        self.at += usize::from(minus);
        let mut value = self.operand()?;
        if minus {
            value = self.calculated(b'-', &Value::Number(0), &value, self.at)?;
        }
        loop {
            self.skip_blanks();
            let start = self.at;
            let Some(operator @ (b'*' | b'/' | b'%')) = self.peek() else { return Ok(value) };
            self.at += 1;
            self.skip_blanks();
            let right = self.operand()?;
            value = self.calculated(operator, &value, &right, start)?;
        }
    }

    fn calculated(&self, operator: u8, left: &Value, right: &Value, start: usize) -> Result<Value, Fail> {
        let result = match (left, right) {
            (Value::Unknown, _) | (_, Value::Unknown) => return Err(None),
            (Value::Number(left), Value::Number(right)) => match operator {
                b'+' => left.checked_add(*right),
                b'-' => left.checked_sub(*right),
                b'*' => left.checked_mul(*right),
                b'/' => left.checked_div(*right),
                _ => left.checked_rem(*right),
            },
            _ => None,
        };
        result.map(Value::Number).ok_or_else(|| {
            let complaint = Complaint::new(format!(
                "`{}` between {} and {} has no result",
                char::from(operator),
                left.kind(),
                right.kind()
            ));
            Some((start..self.at.max(start), complaint.expected("numbers whose result is a number of 64 bits")))
        })
    }

    fn joined(&self, left: &Value, right: &Value, start: usize) -> Result<Value, Fail> {
        let mut joined = self.written(left, start)?;
        joined.extend(self.written(right, start)?);
        self.sized(&joined, start)?;
        Ok(Value::text(&joined))
    }

    /// A value as part of a text.
    pub(super) fn written(&self, value: &Value, start: usize) -> Result<Vec<u8>, Fail> {
        match value {
            Value::Unknown => Err(None),
            value => value.written().ok_or_else(|| {
                let complaint = Complaint::new(format!("{} cannot be part of a text", value.kind()));
                Some((start..self.at.max(start), complaint.expected("a text, a number, or true or false")))
            }),
        }
    }

    pub(super) fn sized(&self, text: &[u8], start: usize) -> Result<(), Fail> {
        if text.len() > LONGEST_TEXT || !self.work.spend(text.len() / 4) {
            let complaint = Complaint::new(format!("a text of more than {LONGEST_TEXT} bytes, or too many of them"));
            return Err(Some((start..self.at.max(start), complaint)));
        }
        Ok(())
    }

    fn truth(&self, value: &Value) -> Result<bool, Fail> {
        match value {
            Value::Truth(truth) => Ok(*truth),
            Value::Unknown => Err(None),
            other => {
                let complaint = Complaint::new(format!("a condition is {}", other.kind()))
                    .expected("a comparison such as `($x = 1)`, or `true` or `false`");
                Err(Some((self.at.saturating_sub(1)..self.at, complaint)))
            }
        }
    }

    fn close(&mut self, closer: u8) -> Result<(), Fail> {
        self.skip_blanks();
        if self.peek() != Some(closer) {
            return Err(self.unexpected("an operator such as `.`, `+`, `=` or `&&`, or the closing bracket"));
        }
        self.at += 1;
        Ok(())
    }

    fn takes(&mut self, operator: &[u8]) -> bool {
        self.skip_blanks();
        let takes = self.text[self.at..].starts_with(operator);
        self.at += if takes { operator.len() } else { 0 };
        takes
    }

    fn takes_word(&mut self, word: &[u8]) -> bool {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let is = rest.starts_with(word) && rest.get(word.len()).is_some_and(|byte| b" \t($!\"\r\n".contains(byte));
        self.at += if is { word.len() } else { 0 };
        is
    }

    /// Skips blanks, line ends, and the `\` that joins lines.
    pub(super) fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'\\' if matches!(self.text.get(self.at + 1), Some(b'\r' | b'\n')) => self.at += 1,
                _ => break,
            }
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn unexpected(&self, expected: &str) -> Fail {
        let message = match self.peek() {
            Some(byte) => format!("`{}` is not supported here", show(&[byte])),
            None => "a value is missing".to_owned(),
        };
        self.refuse(1, Complaint::new(message).expected(expected))
    }

    pub(super) fn refuse(&self, length: usize, complaint: Complaint) -> Fail {
        Some((self.at..(self.at + length).min(self.text.len().max(self.at)), complaint))
    }
}

/// Appends a value to an array.
fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.to_vec(),
        value => vec![value],
    }
}

fn parentheses(between: &str) -> Complaint {
    Complaint::new(format!("{between} are combined"))
        .expected("parentheses")
        .help("put parentheses around the part that is evaluated first")
}
