//! Values of a script.

use std::rc::Rc;

use super::super::problem::show;

/// Maximum length of a text, in bytes.
pub(super) const LONGEST_TEXT: usize = 64 * 1024;
/// Maximum number of items of an array.
pub(super) const MOST_ITEMS: usize = 10_000;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A variable that was declared and not set.
    Nothing,
    /// The value is not known. The reason was already reported.
    Unknown,
    Truth(bool),
    Number(i64),
    Text(Rc<[u8]>),
    Array(Rc<[Value]>),
}

impl Value {
    pub(super) fn text(bytes: &[u8]) -> Value {
        Value::Text(Rc::from(bytes))
    }

    /// The value of a literal outside quotes.
    pub(super) fn bare(bytes: &[u8]) -> Value {
        let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
        // RouterOS's treatment of leading zeros is not documented.
        let is_number = digits == b"0" || (digits.iter().all(u8::is_ascii_digit) && !digits.starts_with(b"0"));
        match bytes {
            b"true" => Value::Truth(true),
            b"false" => Value::Truth(false),
            _ if is_number && !digits.is_empty() => match String::from_utf8_lossy(bytes).parse() {
                Ok(number) => Value::Number(number),
                Err(_) => Value::text(bytes),
            },
            _ => Value::text(bytes),
        }
    }

    /// The form in a text; `None` if it is not a single value.
    pub(super) fn written(&self) -> Option<Vec<u8>> {
        match self {
            Value::Text(bytes) => Some(bytes.to_vec()),
            Value::Number(number) => Some(number.to_string().into_bytes()),
            Value::Truth(truth) => Some(if *truth { b"true".to_vec() } else { b"false".to_vec() }),
            Value::Nothing | Value::Unknown | Value::Array(_) => None,
        }
    }

    /// The name of its type, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Value::Nothing | Value::Unknown => "nothing",
            Value::Truth(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::Array(_) => "an array",
        }
    }

    /// The text in messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::Array(items) => format!("an array of {}", items.len()),
            value => show(&value.written().unwrap_or_default()),
        }
    }
}
