//! Splits bytes into commands and words, and removes quotes and escapes.
//!
//! Owns the lexical rules of the RouterOS language, and not the meaning of commands. A command ends at a line end (LF,
//! CRLF or CR) or `;`. A `\` before a line end joins the lines, and the next line's indent is dropped, also inside
//! strings and words. Every byte is read a bounded number of times, nothing recurses, and no input panics.
//!
//! Forms of the language that a rule must not have (a variable, a `[…]` body, an unknown escape) become a [`Flaw`] of
//! the command. The caller decides whether a flaw is an error.
//!
//! ```text
//! add  chain=input  comment="a \"b\""      one Command
//! ^^^  ^^^^^ ^^^^^                         Words: a name, perhaps a value;
//!                   ^^^^^^^ ^^^^^^^^^      each a Text with the positions of its bytes
//! ```
//!
//! | module   | owns |
//! |----------|------|
//! | `reader` | one command: words, strings, brackets, flaws |
//! | `text`   | the text of a name or value, and the positions of its bytes |

mod reader;
mod text;

use std::ops::Range;

use self::reader::CommandReader;
pub(super) use self::text::Text;
use super::flaw::Flaw;
use super::incomplete::is_mark;

/// Maximum number of words of a command that are stored. Rules of verbose exports have fewer than a hundred.
pub(super) const MOST_WORDS: usize = 1_000;

/// A command: its words and the flaws of their form.
#[derive(Debug, Default)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
    pub(super) flaws: Vec<Flaw>,
    pub(super) span: Range<usize>,
    /// Whether the command begins an indented line directly below the line of the previous command. It may be a
    /// continuation of that command, whose `\` was lost.
    pub(super) hangs: bool,
}

/// A word: `name`, `name=` or `name=value`.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    pub(super) span: Range<usize>,
    pub(super) name: Text,
    pub(super) value: Option<Text>,
    /// Whether a flaw of the command is in this word, so that its text is not reliable.
    pub(super) flawed: bool,
}

/// Yields the commands of a text.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether the last command ended at the line end directly before `at`.
    after_line_end: bool,
    /// A `\` at the end of the last line, with no line after it.
    cut_off: Option<usize>,
    /// Comments about missing parts of the export, up to the present position. The caller takes them.
    pub(super) marks: Vec<Range<usize>>,
}

impl<'a> Lexer<'a> {
    /// Begins at the start of the text. Skips a UTF-8 byte order mark.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let at = if text.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Lexer::from(text, at)
    }

    /// Begins at this position, the start of a command or a string.
    pub(super) fn from(text: &'a [u8], at: usize) -> Self {
        Lexer { text, at, after_line_end: false, cut_off: None, marks: Vec::new() }
    }

    /// The position before the next command.
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// The next command. If a string or bracket continues over a line end, `one_line` decides, from the words so far,
    /// whether this is an error (in rules) or valid (in scripts of other menus).
    pub(super) fn next(&mut self, one_line: impl Fn(&[Word]) -> bool) -> Option<Command> {
        let hangs = self.skip_to_command();
        self.peek()?;
        Some(CommandReader::new(one_line, self, hangs).read())
    }

    /// Skips the bytes between commands. Returns whether the next command hangs under the last one.
    fn skip_to_command(&mut self) -> bool {
        let mut hangs = std::mem::take(&mut self.after_line_end) && self.peek().is_some_and(is_blank);
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'#' => {
                    let start = self.at;
                    self.skip_line();
                    if is_mark(&self.text[start..self.at]) {
                        self.marks.push(start..self.at);
                    }
                    hangs = false;
                }
                b'\r' | b'\n' | b';' => {
                    self.at += 1;
                    hangs = false;
                }
                _ => break,
            }
        }
        hangs
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips the following bytes of a class.
    fn run(&mut self, kind: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !kind(*byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Skips the bytes up to the line end.
    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| !is_line_end(byte)) {
            self.at += 1;
        }
    }

    fn skip_line_end(&mut self) {
        self.at += if self.text[self.at..].starts_with(b"\r\n") { 2 } else { 1 };
    }

    /// Skips a `\`, a line end and the indent after it, if they follow. Returns whether they did.
    fn join(&mut self) -> bool {
        let joins = self.peek() == Some(b'\\') && self.text.get(self.at + 1).copied().is_some_and(is_line_end);
        if joins {
            let backslash = self.at;
            self.at += 1;
            self.skip_line_end();
            while self.peek().is_some_and(is_blank) {
                self.at += 1;
            }
            if self.peek().is_none() {
                self.cut_off = Some(backslash);
            }
        }
        joins
    }
}

/// The words of a part of a text that was already read. The part begins with a word.
pub(super) fn words_of(text: &[u8], part: Range<usize>) -> Vec<Word> {
    let text = text.get(..part.end).unwrap_or(text);
    let mut lexer = Lexer::from(text, part.start);
    let mut words = Vec::new();
    while let Some(command) = lexer.next(|_| true) {
        words.extend(command.words);
    }
    words
}

/// The string whose opening quote is at `open`: its text, its flaws, and its end.
pub(super) fn string_at(text: &[u8], open: usize) -> (Text, Vec<Flaw>, usize) {
    let mut lexer = Lexer::from(text, open);
    let mut string = Text::at(open);
    let flaws = CommandReader::new(|_: &[Word]| true, &mut lexer, false).only_string(&mut string);
    string.span.end = lexer.at;
    (string, flaws, lexer.at)
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests;
