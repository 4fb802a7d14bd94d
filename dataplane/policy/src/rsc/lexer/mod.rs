//! From bytes to commands: where a command ends, where its words are, and what they say once unquoted.
//!
//! Owns the lexical rules of the RouterOS language and nothing of what commands mean. A command ends at a line end
//! (LF, CRLF or CR) or `;`. A `\` before a line end joins the lines, and the next line's indent is dropped, also
//! inside strings and words. Every byte is looked at a bounded number of times, nothing recurses, and no input panics.
//!
//! What the language allows but a rule may not hold (a variable, a `[…]` body, an unknown escape) becomes a [`Flaw`]
//! of the command, and it is the caller's business whether the command is one to worry about.
//!
//! ```text
//! add  chain=input  comment="a \"b\""      one Command
//! ^^^  ^^^^^ ^^^^^                         Words: a name, perhaps a value;
//!                   ^^^^^^^ ^^^^^^^^^      each a Text that remembers where its bytes stood
//! ```
//!
//! | module   | owns |
//! |----------|------|
//! | `reader` | one command: words, strings, brackets, flaws |
//! | `text`   | what a name or value says, and where its bytes came from |

mod reader;
mod text;

use std::ops::Range;

use self::reader::CommandReader;
pub(super) use self::text::Text;
use super::flaw::Flaw;
use super::incomplete::is_mark;

/// How many words of a command are kept. Rules of verbose exports have under a hundred.
pub(super) const MOST_WORDS: usize = 1_000;

/// One command: its words and what is wrong with their form.
#[derive(Debug, Default)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
    pub(super) flaws: Vec<Flaw>,
    pub(super) span: Range<usize>,
    /// It begins an indented line directly under the line that ended the command before it: perhaps that command's
    /// continuation, with the `\` lost.
    pub(super) hangs: bool,
}

/// `name`, `name=` or `name=value`.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    pub(super) span: Range<usize>,
    pub(super) name: Text,
    pub(super) value: Option<Text>,
    /// Some flaw of the command lies in this word: what it says is not to be trusted.
    pub(super) flawed: bool,
}

/// Yields the commands of a text one by one.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// The last command was ended by the line end directly before `at`.
    after_line_end: bool,
    /// A `\` at the end of the last line, which announces a line that is not there.
    cut_off: Option<usize>,
    /// Comments in which an export says that something is missing, up to here; whoever reads takes them out.
    pub(super) marks: Vec<Range<usize>>,
}

impl<'a> Lexer<'a> {
    /// A UTF-8 byte order mark at the start is passed over.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let at = if text.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Lexer::from(text, at)
    }

    /// From a place where a command or a string begins.
    pub(super) fn from(text: &'a [u8], at: usize) -> Self {
        Lexer { text, at, after_line_end: false, cut_off: None, marks: Vec::new() }
    }

    /// Where the next command, or what stands before it, begins.
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// The next command. `one_line` is asked, with the words read so far, when a string or bracket runs over a line
    /// end: whether that is a mistake (in rules), or usual (in scripts of other menus).
    pub(super) fn next(&mut self, one_line: impl Fn(&[Word]) -> bool) -> Option<Command> {
        let hangs = self.skip_to_command();
        self.peek()?;
        Some(CommandReader::new(one_line, self, hangs).read())
    }

    /// Passes over what stands between commands. True if the next one hangs under the last.
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

    /// Passes over the bytes from here on that are of a kind.
    fn run(&mut self, kind: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !kind(*byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Up to, not over, the line end.
    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| !is_line_end(byte)) {
            self.at += 1;
        }
    }

    fn skip_line_end(&mut self) {
        self.at += if self.text[self.at..].starts_with(b"\r\n") { 2 } else { 1 };
    }

    /// Passes over `\`, a line end and the indent behind it, if that is what stands here.
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

/// The words of a part of a text that was read before and that a word begins.
pub(super) fn words_of(text: &[u8], part: Range<usize>) -> Vec<Word> {
    let text = text.get(..part.end).unwrap_or(text);
    let mut lexer = Lexer::from(text, part.start);
    let mut words = Vec::new();
    while let Some(command) = lexer.next(|_| true) {
        words.extend(command.words);
    }
    words
}

/// A string whose opening quote stands at `open`: what it says, what is wrong with it, and where it ends.
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
