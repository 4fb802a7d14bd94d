//! Evaluates commands in brackets whose value follows from their arguments.

use super::super::problem::{Complaint, show};
use super::expression::{Expression, Fail, Variables};
use super::value::Value;

/// The names of these commands.
const KNOWN: &[&[u8]] = &[b":len", b":pick", b":tostr", b":tonum", b":toarray", b":typeof"];

impl<V: Variables> Expression<'_, V> {
    /// Evaluates `[:len …]` and similar commands. Only a router can evaluate other commands.
    pub(super) fn command(&mut self) -> Result<Value, Fail> {
        let open = self.at;
        self.at += 1;
        self.skip_blanks();
        let name = self.at;
        while self.peek().is_some_and(|byte| byte == b':' || byte.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let name = self.text[name..self.at].to_vec();
        if !KNOWN.contains(&&name[..]) {
            let rest = &self.text[open + 1..];
            let end = rest.iter().position(|byte| matches!(byte, b']' | b'\r' | b'\n')).unwrap_or(rest.len());
            let complaint = Complaint::new(format!(
                "the value of `[{}]` is known only on a router",
                show(rest[..end].trim_ascii())
            ))
            .expected("a value that can be computed from this file")
            .help("write the value itself, or write out the commands that need it");
            let closed = usize::from(rest.get(end) == Some(&b']'));
            return Err(Some((open..open + 1 + end + closed, complaint)));
        }
        let words = std::mem::replace(&mut self.words, true);
        let mut arguments = Vec::new();
        loop {
            self.skip_blanks();
            if self.peek() == Some(b']') {
                break;
            }
            if arguments.len() == 3 {
                return Err(self.unexpected("`]`"));
            }
            arguments.push(self.operand()?);
        }
        self.at += 1;
        self.words = words;
        self.called(&name, &arguments, open)
    }

    fn called(&self, name: &[u8], arguments: &[Value], open: usize) -> Result<Value, Fail> {
        if arguments.contains(&Value::Unknown) {
            return Err(None);
        }
        let number = |value: &Value| match value {
            Value::Number(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        let value = match (name, arguments) {
            (b":len", [Value::Text(text)]) => Value::Number(text.len() as i64),
            (b":len", [Value::Array(items)]) => Value::Number(items.len() as i64),
            (b":len", [Value::Nothing]) => Value::Number(0),
            (b":tostr", [value @ (Value::Text(_) | Value::Number(_) | Value::Truth(_))]) => {
                Value::text(&value.written().unwrap_or_default())
            }
            (b":tonum", [value @ Value::Number(_)]) => value.clone(),
            (b":tonum", [Value::Text(text)]) => match Value::bare(text) {
                number @ Value::Number(_) => number,
                _ => Value::Nothing,
            },
            (b":toarray", [value @ Value::Array(_)]) => value.clone(),
            (b":toarray", [Value::Text(text)]) if text.is_empty() => self.array_of(Vec::new())?,
            (b":toarray", [Value::Text(text)]) => {
                self.array_of(text.split(|byte| *byte == b',').map(|item| Value::bare(item.trim_ascii())).collect())?
            }
            (b":toarray", [value @ Value::Number(_)]) => self.array_of(vec![value.clone()])?,
            (b":typeof", [value]) => Value::text(match value {
                Value::Nothing | Value::Unknown => b"nothing",
                Value::Truth(_) => b"bool",
                Value::Number(_) => b"num",
                Value::Text(_) => b"str",
                Value::Array(_) => b"array",
            }),
            (b":pick", [Value::Text(text), from, rest @ ..]) => {
                let range = number(from).zip(rest.first().map_or(number(from).map(|at| at + 1), number));
                match range {
                    Some((from, to)) => Value::text(text.get(from..to.min(text.len())).unwrap_or_default()),
                    None => return Err(self.not_called(name, open)),
                }
            }
            (b":pick", [Value::Array(items), at]) if number(at).is_some() => {
                number(at).and_then(|at| items.get(at)).cloned().unwrap_or(Value::Nothing)
            }
            (b":pick", [Value::Array(items), from, to]) => match number(from).zip(number(to)) {
                Some((from, to)) => self.array_of(items.get(from..to.min(items.len())).unwrap_or_default().to_vec())?,
                None => return Err(self.not_called(name, open)),
            },
            _ => return Err(self.not_called(name, open)),
        };
        Ok(value)
    }

    fn not_called(&self, name: &[u8], open: usize) -> Fail {
        let complaint = Complaint::new(format!("`{}` has the wrong arguments", show(name))).expected(
            "`[:len $x]`, `[:pick $x 0 2]`, `[:tostr $x]`, `[:tonum $x]`, `[:toarray \"a,b\"]` or `[:typeof $x]`",
        );
        Some((open..self.at, complaint))
    }
}
