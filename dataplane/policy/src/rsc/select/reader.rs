//! Reads the text of `[find …]` into a [`Query`].

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::super::flaw::FlawKind;
use super::super::lexer::{Text, string_at};
use super::super::problem::{Complaint, show};
use super::super::value;
use super::{Ask, Query, Refusal, Test};

/// Maximum depth of parentheses.
const MAX_DEPTH: usize = 16;

/// Maximum number of conditions. Real files have fewer than ten.
const MOST_CONDITIONS: usize = 100;

/// Maximum length of an expression in bytes. Each command compiles its own expression, and a file may have a million
/// commands.
const LONGEST_REGEX: usize = 1_000;
/// Maximum size of a compiled expression in bytes. Expressions of real files take some kilobytes.
const MAX_REGEX: usize = 1 << 17;

/// The `[find …]` in `([find …]->0)` or `[:pick [find …] 0]`, and the index.
pub(super) fn taken(text: &[u8], span: &Range<usize>) -> Option<(Range<usize>, usize)> {
    let inside = text.get(span.start + 1..span.end.checked_sub(1)?)?;
    let (before, behind): (&[u8], &[u8]) = match text.get(span.start)? {
        b'(' => (b"", b"->"),
        _ => (b":pick", b""),
    };
    let open = inside.iter().position(|byte| *byte == b'[')?;
    let close = inside.iter().rposition(|byte| *byte == b']').filter(|close| *close > open)?;
    let number = inside[close + 1..].trim_ascii().strip_prefix(behind)?.trim_ascii();
    let number = std::str::from_utf8(number).ok().filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number = number.parse().ok()?;
    let start = span.start + 1;
    (inside[..open].trim_ascii() == before).then(|| (start + open..start + close + 1, number))
}

pub(super) struct Reader<'a> {
    /// The text up to the closing bracket.
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    pub(super) menu: &'a str,
    /// The number of conditions so far.
    pub(super) conditions: usize,
}

impl Reader<'_> {
    /// Reads `find`, optionally after the menu's path and before `where`.
    pub(super) fn head(&mut self, span: &Range<usize>) -> Result<(), Refusal> {
        self.skip_blanks();
        let mut path = String::new();
        // No path has more words.
        for _ in 0..2 * MAX_DEPTH {
            let Some((word, _)) = self.word_if(|byte| matches!(byte, b'/' | b'-') || byte.is_ascii_alphanumeric())
            else {
                break;
            };
            let word = String::from_utf8_lossy(&word).into_owned();
            self.skip_blanks();
            let (parents, last) = word.rsplit_once('/').unwrap_or(("", &word));
            path = [path.as_str(), parents].join(" ");
            if last == "find" {
                let written: Vec<&str> = path.split(['/', ' ']).filter(|segment| !segment.is_empty()).collect();
                if !written.is_empty() && written.join(" ") != self.menu.trim_start_matches('/') {
                    return Err((span.clone(), not_find().help("its menu differs from the command's menu")));
                }
                let behind_find = self.at;
                if self.word_if(|byte| byte.is_ascii_alphabetic()).is_none_or(|(word, _)| word != b"where") {
                    self.at = behind_find;
                }
                return Ok(());
            }
            path = [path.as_str(), last].join(" ");
        }
        Err((span.clone(), not_find()))
    }

    pub(super) fn any(&mut self, depth: usize) -> Result<Query, Refusal> {
        let mut queries = vec![self.all(depth)?];
        while self.takes("||") || self.takes_word("or") {
            queries.push(self.all(depth)?);
        }
        Ok(one_or(queries, Query::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Query, Refusal> {
        let mut queries = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                _ if queries.is_empty() => {}
                None | Some(b')' | b'|') => break,
                _ if self.is_word("or") => break,
                // Blanks mean `and` as well.
                _ => _ = self.takes("&&") || self.takes_word("and"),
            }
            queries.push(self.term(depth)?);
        }
        Ok(one_or(queries, Query::All))
    }

    fn term(&mut self, depth: usize) -> Result<Query, Refusal> {
        let mut negated = false;
        while self.takes("!") {
            negated = !negated;
        }
        self.skip_blanks();
        let query = if self.peek() == Some(b'(') {
            if depth == MAX_DEPTH {
                return Err((self.at..self.at + 1, Complaint::new("parentheses are nested too deep")));
            }
            self.at += 1;
            let query = self.any(depth + 1)?;
            if !self.takes(")") {
                return Err(self.unexpected());
            }
            query
        } else {
            self.test()?
        };
        Ok(if negated { Query::Not(Box::new(query)) } else { query })
    }

    fn test(&mut self) -> Result<Query, Refusal> {
        let Some((bytes, span)) = self.word_if(|byte| byte == b'-' || byte == b'.' || byte.is_ascii_alphanumeric())
        else {
            return Err(self.unexpected());
        };
        self.conditions += 1;
        if self.conditions > MOST_CONDITIONS {
            let complaint = Complaint::new(format!("more than {MOST_CONDITIONS} conditions"));
            return Err((
                span,
                complaint.help("write a command for some of the entries, and another one for the rest"),
            ));
        }
        let name = Text::made(&bytes, span);
        let behind_name = self.at;
        self.skip_blanks();
        if self.takes("!=") {
            let test = Test { name, ask: Ask::Is(self.value()?.0) };
            return Ok(Query::Not(Box::new(Query::Test(test))));
        }
        if self.takes("=") {
            return Ok(Query::Test(Test { name, ask: Ask::Is(self.value()?.0) }));
        }
        if self.takes("~") {
            let (value, span) = self.value()?;
            return Ok(Query::Test(Test { name, ask: Ask::Like(regex(&value, span)?) }));
        }
        if self.is_word("in") || self.peek().is_some_and(|byte| matches!(byte, b'<' | b'>')) {
            return Err(self.unexpected());
        }
        self.at = behind_name;
        Ok(Query::Test(Test { name, ask: Ask::Given }))
    }

    /// A string, or literal bytes.
    fn value(&mut self) -> Result<(Vec<u8>, Range<usize>), Refusal> {
        self.skip_blanks();
        let start = self.at;
        if self.peek() == Some(b'"') {
            let (string, flaws, end) = string_at(self.text, start);
            if let Some(flaw) = flaws.into_iter().next() {
                return Err((flaw.span, flaw.kind.complaint()));
            }
            self.at = end;
            return Ok((string.bytes, start..end));
        }
        let of_value = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/,!*+@%".contains(&byte) || !byte.is_ascii();
        match self.word_if(of_value) {
            Some((bytes, span)) if self.peek().is_none_or(|byte| b" \t)&|\r\n\\".contains(&byte)) => Ok((bytes, span)),
            _ if self.peek() == Some(b'$') => Err((self.at..self.at + 1, FlawKind::Variable.complaint())),
            _ => Err(self.unexpected()),
        }
    }

    /// Bytes of a class, across joined line ends.
    fn word_if(&mut self, of_word: impl Fn(u8) -> bool) -> Option<(Vec<u8>, Range<usize>)> {
        let start = self.at;
        let mut word = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let length = rest.iter().position(|byte| !of_word(*byte)).unwrap_or(rest.len());
            word.extend_from_slice(&rest[..length]);
            self.at += length;
            let end = self.at;
            if word.is_empty() || !self.joins() {
                return (!word.is_empty()).then_some((word, start..end));
            }
            self.skip_blanks();
            if !self.peek().is_some_and(&of_word) {
                return Some((word, start..end));
            }
        }
    }

    /// Skips an operator and the blanks before it, if it is next.
    fn takes(&mut self, operator: &str) -> bool {
        self.skip_blanks();
        let takes = self.text[self.at..].starts_with(operator.as_bytes());
        self.at += if takes { operator.len() } else { 0 };
        takes
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.at += if is { word.len() } else { 0 };
        is
    }

    /// Whether this word is next, and is not the name of a property.
    fn is_word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        rest.starts_with(word.as_bytes()) && rest.get(word.len()).is_some_and(|byte| b" \t(!\r\n\\".contains(byte))
    }

    /// Skips blanks and joined line ends.
    pub(super) fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'\\' if self.joins() => self.at += 1,
                _ => break,
            }
        }
    }

    /// Whether a `\` joins this line and the next one.
    fn joins(&self) -> bool {
        self.peek() == Some(b'\\') && matches!(self.text.get(self.at + 1), Some(b'\r' | b'\n'))
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn unexpected(&self) -> Refusal {
        let end = (self.at + 1).min(self.text.len().max(self.at));
        let message = match self.peek() {
            Some(b'$') => return (self.at..end, FlawKind::Variable.complaint()),
            Some(byte) => format!("`{}` is not supported here", show(&[byte])),
            None => "a condition is missing".to_owned(),
        };
        let complaint = Complaint::new(message)
            .expected("conditions such as `list=guests`, `comment~\"^tmp\"` or `!disabled`, with `and` or `or` between")
            .help("put values in quotes; other expressions are not supported: write the final entries");
        (self.at..end, complaint)
    }
}

fn not_find() -> Complaint {
    Complaint::new("commands and expressions in brackets are not supported, except `find`")
        .expected("`[find …]` of the same menu")
        .help("write `[find comment=\"…\"]` with a condition that only these entries meet")
}

fn one_or(mut queries: Vec<Query>, several: fn(Vec<Query>) -> Query) -> Query {
    match queries.pop() {
        Some(only) if queries.is_empty() => only,
        last => {
            queries.extend(last);
            several(queries)
        }
    }
}

/// Compiles an expression. POSIX extended expressions have the same meaning in this library, except for back
/// references.
fn regex(bytes: &[u8], span: Range<usize>) -> Result<Regex, Refusal> {
    let refuse = |complaint: Complaint| (span.clone(), complaint);
    if bytes.is_empty() {
        return Err(refuse(Complaint::new("the expression is empty").expected("a regular expression")));
    }
    if bytes.len() > LONGEST_REGEX {
        let complaint = Complaint::new(format!("an expression of {} bytes", bytes.len()));
        return Err(refuse(complaint.expected(format!("at most {LONGEST_REGEX} bytes"))));
    }
    let pattern = value::regexp(bytes).map_err(refuse)?;
    RegexBuilder::new(&pattern).unicode(false).size_limit(MAX_REGEX).build().map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        refuse(
            Complaint::new(format!("the expression does not parse: {}", show(reason.as_bytes())))
                .expected("a regular expression such as `\"^tmp\"`"),
        )
    })
}
