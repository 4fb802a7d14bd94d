//! Reads one command: its words, strings, brackets and flaws.

use std::ops::Range;

use super::super::flaw::{Flaw, FlawKind, MAX_NESTING};
use super::text::{Quotes, Text};
use super::{Command, Lexer, MOST_WORDS, Word, is_blank, is_line_end};

/// Maximum number of flaws of a command that are stored, and separately of flaws that break the text. One flaw is
/// enough to refuse the command.
const MOST_FLAWS: usize = 100;

/// Reads one command, from the start of a word.
pub(super) struct CommandReader<'l, 'a, F> {
    one_line: F,
    command: Command,
    /// The number of words, including those that are not stored.
    words: usize,
    /// The number of flaws, including those that are not stored.
    flaws: usize,
    lexer: &'l mut Lexer<'a>,
}

impl<'l, 'a, F: Fn(&[Word]) -> bool> CommandReader<'l, 'a, F> {
    pub(super) fn new(one_line: F, lexer: &'l mut Lexer<'a>, hangs: bool) -> Self {
        CommandReader { one_line, command: Command { hangs, ..Command::default() }, words: 0, flaws: 0, lexer }
    }

    pub(super) fn read(mut self) -> Command {
        let start = self.lexer.at;
        let mut end = start;
        while let Some(byte) = self.lexer.peek() {
            match byte {
                b' ' | b'\t' => self.lexer.at += 1,
                b'\\' if self.lexer.join() => {}
                b'\r' | b'\n' => {
                    self.lexer.skip_line_end();
                    self.lexer.after_line_end = true;
                    break;
                }
                b';' => {
                    self.lexer.at += 1;
                    break;
                }
                b'#' => self.lexer.skip_line(),
                _ => {
                    self.word();
                    end = self.lexer.at;
                }
            }
        }
        if let Some(at) = self.lexer.cut_off.take() {
            self.flaw(at..at + 1, FlawKind::CutOff);
        }
        self.command.span = start..end;
        self.command
    }

    /// Reads a string from its opening quote into `text`, and returns its flaws.
    pub(super) fn only_string(mut self, text: &mut Text) -> Vec<Flaw> {
        self.string(text);
        self.command.flaws
    }

    fn word(&mut self) {
        let start = self.lexer.at;
        let mut end = start;
        let flaws = self.flaws;
        let mut name = Text::at(start);
        let mut value: Option<Text> = None;
        while let Some(byte) = self.lexer.peek() {
            let at = self.lexer.at;
            let in_name = value.is_none();
            let text = value.as_mut().unwrap_or(&mut name);
            if text.span.is_empty() {
                text.span = at..at;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' => break,
                b'\\' if self.lexer.join() => continue,
                b'\\' => self.backslash(text),
                b'"' => self.string(text),
                b'[' | b'{' | b'(' => self.bracket(text, at == start),
                b'=' if in_name => {
                    if text.quotes == Quotes::Around {
                        self.flaw(at..at + 1, FlawKind::BehindQuote);
                    }
                    self.lexer.at += 1;
                    value = Some(Text::at(at + 1));
                    end = self.lexer.at;
                    continue;
                }
                _ if text.quotes == Quotes::None && is_ordinary(byte) => {
                    let run = self.lexer.run(is_ordinary);
                    text.push_all(run, at);
                }
                _ => self.plain(byte, text),
            }
            end = self.lexer.at;
            text.span.end = end;
        }
        let flawed = self.flaws > flaws;
        match self.words {
            0..MOST_WORDS => self.command.words.push(Word { span: start..end, name, value, flawed }),
            MOST_WORDS => self.flaw(start..end, FlawKind::TooLong),
            _ => {}
        }
        self.words += 1;
    }

    fn plain(&mut self, byte: u8, text: &mut Text) {
        let at = self.lexer.at;
        match text.quotes {
            Quotes::Around => {
                self.flaw(at..at + 1, FlawKind::BehindQuote);
                text.quotes = Quotes::Spoiled;
            }
            Quotes::None if byte == b'$' => self.flaw(at..at + 1, FlawKind::Variable),
            Quotes::None if matches!(byte, b'=' | b'#' | b']' | b'}' | b')') => {
                self.flaw(at..at + 1, FlawKind::Unquoted(byte));
            }
            Quotes::None | Quotes::Spoiled => {}
        }
        text.push(byte, at);
        self.lexer.at += 1;
    }

    /// A `\` outside strings that does not join lines.
    fn backslash(&mut self, text: &mut Text) {
        let at = self.lexer.at;
        text.push(b'\\', at);
        self.lexer.at += 1;
        match self.lexer.peek() {
            None => self.flaw(at..at + 1, FlawKind::CutOff),
            Some(_) => self.flaw(at..at + 1, FlawKind::Backslash),
        }
        // The escaped character has no special meaning, also if it is a quote.
        if let Some(next) = self.lexer.peek().filter(|next| !is_blank(*next)) {
            text.push(next, at + 1);
            self.lexer.at += 1;
        }
    }

    /// Reads a string from its opening quote.
    fn string(&mut self, text: &mut Text) {
        let open = self.lexer.at;
        text.quotes = match text.quotes {
            Quotes::None if text.bytes.is_empty() => Quotes::Around,
            Quotes::None => {
                self.flaw(open..open + 1, FlawKind::QuoteInside);
                Quotes::Spoiled
            }
            Quotes::Around => {
                self.flaw(open..open + 1, FlawKind::BehindQuote);
                Quotes::Spoiled
            }
            Quotes::Spoiled => Quotes::Spoiled,
        };
        self.lexer.at += 1;
        let mut may_run_on = false;
        while let Some(byte) = self.lexer.peek() {
            let at = self.lexer.at;
            match byte {
                b'"' => {
                    self.lexer.at += 1;
                    return;
                }
                b'\\' if self.lexer.join() => {}
                b'\\' => self.escape(text),
                b'\r' | b'\n' if !may_run_on && (self.one_line)(&self.command.words) => {
                    self.flaw(open..at, FlawKind::StringOverLines);
                    return;
                }
                b'\r' | b'\n' | b'$' => {
                    may_run_on |= is_line_end(byte);
                    if byte == b'$' {
                        self.flaw(at..at + 1, FlawKind::Variable);
                    }
                    text.push(byte, at);
                    self.lexer.at += 1;
                }
                _ => {
                    let run = self.lexer.run(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | b'$'));
                    text.push_all(run, at);
                }
            }
        }
        self.flaw(open..open + 1, FlawKind::OpenString);
    }

    /// Reads an escape inside a string.
    fn escape(&mut self, text: &mut Text) {
        let at = self.lexer.at;
        let rest = &self.lexer.text[at + 1..];
        let (byte, length) = match *rest {
            [high @ (b'0'..=b'9' | b'A'..=b'F'), low @ (b'0'..=b'9' | b'A'..=b'F'), ..] => {
                (hex_digit(high) << 4 | hex_digit(low), 3)
            }
            [byte @ (b'"' | b'\\' | b'$' | b'?'), ..] => (byte, 2),
            [b'_', ..] => (b' ', 2),
            [b'n', ..] => (b'\n', 2),
            [b'r', ..] => (b'\r', 2),
            [b't', ..] => (b'\t', 2),
            [b'a', ..] => (0x07, 2),
            [b'b', ..] => (0x08, 2),
            [b'f', ..] => (0x0C, 2),
            [b'v', ..] => (0x0B, 2),
            [other, ..] => {
                self.flaw(at..at + 2, FlawKind::Escape);
                (other, 2)
            }
            [] => (b'\\', 1),
        };
        text.push(byte, at);
        self.lexer.at += length;
    }

    /// Skips a bracket with its contents. A bracket that begins a command belongs to a script and may continue over
    /// lines.
    fn bracket(&mut self, text: &mut Text, begins_word: bool) {
        let open = self.lexer.at;
        let mut closers: Vec<(u8, usize)> = Vec::new();
        let mut may_run_on = begins_word && self.command.words.is_empty();
        text.push(self.lexer.text[open], open);
        while let Some(byte) = self.lexer.peek() {
            let at = self.lexer.at;
            match byte {
                b'[' | b'{' | b'(' if closers.len() == MAX_NESTING => {
                    self.flaw(at..at + 1, FlawKind::TooDeep);
                    self.lexer.at = self.lexer.text.len();
                    return;
                }
                b'[' => closers.push((b']', at)),
                b'{' => closers.push((b'}', at)),
                b'(' => closers.push((b')', at)),
                b']' | b'}' | b')' => {
                    if closers.pop().is_some_and(|(closer, _)| closer != byte) {
                        self.flaw(at..at + 1, FlawKind::WrongCloser);
                    }
                    if closers.is_empty() {
                        self.lexer.at += 1;
                        self.flaw(open..at + 1, FlawKind::Bracket);
                        return;
                    }
                }
                b'"' => {
                    if !self.skip_string(&mut may_run_on) {
                        return;
                    }
                    continue;
                }
                b'\\' if self.lexer.join() => continue,
                b'\\' => self.lexer.at += 1,
                b'#' if self.lexer.text[..at].last().is_some_and(|before| begins_comment(*before)) => {
                    self.lexer.skip_line();
                    continue;
                }
                b'\r' | b'\n' if !may_run_on => {
                    if (self.one_line)(&self.command.words) {
                        self.flaw(open..at, FlawKind::BracketOverLines);
                        return;
                    }
                    may_run_on = true;
                }
                _ => {}
            }
            self.lexer.at += 1;
        }
        self.lexer.at = self.lexer.text.len();
        let innermost = closers.last().map_or(open, |(_, at)| *at);
        self.flaw(innermost..innermost + 1, FlawKind::OpenBracket);
    }

    /// Skips a string inside brackets. Returns false if the bracket ends with it because the string has no end.
    fn skip_string(&mut self, may_run_on: &mut bool) -> bool {
        let open = self.lexer.at;
        self.lexer.at += 1;
        while let Some(byte) = self.lexer.peek() {
            match byte {
                b'"' => {
                    self.lexer.at += 1;
                    return true;
                }
                b'\\' if self.lexer.join() => continue,
                b'\\' => self.lexer.at += 1,
                b'\r' | b'\n' if !*may_run_on => {
                    if (self.one_line)(&self.command.words) {
                        self.flaw(open..self.lexer.at, FlawKind::StringOverLines);
                        return false;
                    }
                    *may_run_on = true;
                }
                _ => {}
            }
            self.lexer.at += 1;
        }
        self.lexer.at = self.lexer.text.len();
        self.flaw(open..open + 1, FlawKind::OpenString);
        false
    }

    fn flaw(&mut self, span: Range<usize>, kind: FlawKind) {
        let most = if kind.breaks_the_text() { 2 * MOST_FLAWS } else { MOST_FLAWS };
        if self.command.flaws.len() < most {
            self.command.flaws.push(Flaw { span, kind });
        }
        self.flaws += 1;
    }
}

/// Whether a byte outside strings is literal, in names and in values.
const fn is_ordinary(byte: u8) -> bool {
    !matches!(
        byte,
        b' ' | b'\t'
            | b'\r'
            | b'\n'
            | b';'
            | b'\\'
            | b'"'
            | b'['
            | b'{'
            | b'('
            | b')'
            | b'}'
            | b']'
            | b'='
            | b'#'
            | b'$'
    )
}

/// Whether a `#` after this byte, inside brackets, begins a comment.
const fn begins_comment(before: u8) -> bool {
    is_blank(before) || is_line_end(before) || matches!(before, b';' | b'{')
}

const fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'A' + 10,
    }
}
