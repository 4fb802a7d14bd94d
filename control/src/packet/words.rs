//! Words of a line with their places, and errors that point at a place.

use std::fmt;
use std::iter::Peekable;
use std::ops::Range;
use std::vec::IntoIter;

/// A word and its place, in bytes.
#[derive(Clone, Debug)]
pub(super) struct PacketWord<'t> {
    pub(super) text: &'t str,
    pub(super) at: Range<usize>,
}

impl PacketWord<'_> {
    pub(super) fn complain(&self, message: &str) -> PacketSyntaxError {
        PacketSyntaxError::new(self.at.clone(), message.to_owned())
    }
}

/// The words of a line, one after the other.
pub(super) struct Words<'t> {
    words: Peekable<IntoIter<PacketWord<'t>>>,
    /// The end of the line.
    end: usize,
}

impl<'t> Words<'t> {
    /// Splits a line into words. Blanks separate words, `>` is a separate word, and a text in quotes is one word,
    /// including its quotes.
    pub(super) fn of(text: &'t str) -> Result<Self, PacketSyntaxError> {
        let mut words = Vec::new();
        let mut at = 0;
        while let Some(char) = text[at..].chars().next() {
            let rest = &text[at..];
            let length = match char {
                _ if char.is_whitespace() => {
                    at += char.len_utf8();
                    continue;
                }
                '>' => 1,
                '"' => quoted_length(rest).ok_or_else(|| {
                    PacketSyntaxError::new(at..text.len(), "the closing `\"` is missing".to_owned()).about(text)
                })?,
                _ => rest.find(|char: char| char.is_whitespace() || matches!(char, '>' | '"')).unwrap_or(rest.len()),
            };
            words.push(PacketWord { text: &rest[..length], at: at..at + length });
            at += length;
        }
        Ok(Words { words: words.into_iter().peekable(), end: text.trim_end().len() })
    }

    pub(super) fn peek(&mut self) -> Option<PacketWord<'t>> {
        self.words.peek().cloned()
    }

    pub(super) fn next(&mut self) -> Option<PacketWord<'t>> {
        self.words.next()
    }

    /// The next word; an error if there is none.
    pub(super) fn expect(&mut self, what: &str) -> Result<PacketWord<'t>, PacketSyntaxError> {
        let end = self.end;
        self.next().ok_or_else(|| PacketSyntaxError::new(end..end, format!("something is missing: expected {what}")))
    }
}

/// The length of the quoted text at the beginning of this text.
fn quoted_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return Some(at + 1),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// The bytes of a quoted text. `\xHH` is any byte; `\n`, `\r`, `\t`, `\0`, `\\` and `\"` have their usual meaning.
pub(super) fn unquote(word: &PacketWord<'_>) -> Result<Vec<u8>, PacketSyntaxError> {
    let inner = word
        .text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .ok_or_else(|| word.complain("a payload stands in quotes, as `payload \"open sesame\"`"))?
        .as_bytes();
    let mut bytes = Vec::with_capacity(inner.len());
    let mut at = 0;
    while let Some(byte) = inner.get(at) {
        let (byte, length) = match (byte, inner.get(at + 1)) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'0')) => (0, 2),
            (b'\\', Some(b'x')) => {
                let digits = inner.get(at + 2..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or_else(|| escape(word, at))?, 4)
            }
            (b'\\', Some(char @ (b'\\' | b'"'))) => (*char, 2),
            (b'\\', _) => return Err(escape(word, at)),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        at += length;
    }
    Ok(bytes)
}

/// The error about an invalid escape, `at` bytes after the opening quote.
fn escape(word: &PacketWord<'_>, at: usize) -> PacketSyntaxError {
    let start = word.at.start + 1 + at;
    let message = r#"there is no such escape; there are \xHH, \n, \r, \t, \0, \\ and \""#;
    PacketSyntaxError::new(start..(start + 2).min(word.at.end), message.to_owned())
}

/// The error in a line, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PacketSyntaxError {
    text: String,
    at: Range<usize>,
    message: String,
}

impl PacketSyntaxError {
    pub(super) fn new(at: Range<usize>, message: String) -> Self {
        PacketSyntaxError { text: String::new(), at, message }
    }

    /// Adds the line of the error.
    pub(super) fn about(self, text: &str) -> Self {
        PacketSyntaxError { text: text.to_owned(), ..self }
    }
}

impl fmt::Display for PacketSyntaxError {
    /// The message, the line, and carets under the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each character must take one column: a tab would move the carets.
        let line: String = self.text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let columns = |range: Range<usize>| self.text.get(range).map_or(0, |text| text.chars().count());
        let before = columns(0..self.at.start);
        let carets = columns(self.at.clone()).max(1);
        write!(f, "{}\n  {line}\n  {}{}", self.message, " ".repeat(before), "^".repeat(carets))
    }
}
