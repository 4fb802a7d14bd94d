//! Errors in the form of a command, and their messages.

use std::ops::Range;

use super::lexer::MOST_WORDS;
use super::problem::Complaint;

/// Maximum depth of brackets. Scripts on routers have a depth below ten.
pub(super) const MAX_NESTING: usize = 64;

/// An error in the form of a command, which a rule must not have.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) span: Range<usize>,
    pub(super) kind: FlawKind,
}

/// The kind of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlawKind {
    /// A `$` that is not escaped as `\$`.
    Variable,
    /// An escape that the language does not have.
    Escape,
    /// A `\` outside a string that no line end follows.
    Backslash,
    /// `[…]`, `{…}` or `(…)`.
    Bracket,
    /// A byte that must be in quotes.
    Unquoted(u8),
    /// A quote that opens in the middle of a word.
    QuoteInside,
    /// Text directly after a closing quote.
    BehindQuote,
    /// A string that does not end on its line.
    StringOverLines,
    /// A bracket that is not closed on its line.
    BracketOverLines,
    /// A string that never ends.
    OpenString,
    /// A bracket that is never closed.
    OpenBracket,
    /// A bracket closed by the end of another kind.
    WrongCloser,
    /// Brackets nested deeper than [`MAX_NESTING`].
    TooDeep,
    /// More words than a command may have.
    TooLong,
    /// A `\` at the very end of the file.
    CutOff,
}

impl FlawKind {
    /// Whether the flaw makes the text around it unreadable, so that it is an error in every menu.
    pub(super) const fn breaks_the_text(self) -> bool {
        matches!(
            self,
            FlawKind::OpenString | FlawKind::OpenBracket | FlawKind::WrongCloser | FlawKind::TooDeep | FlawKind::CutOff
        )
    }

    /// The message.
    pub(super) fn complaint(self) -> Complaint {
        match self {
            FlawKind::Variable => Complaint::new("`$` begins a variable here")
                .expected("text without variables")
                .help("write `\\$`, inside quotes, for a dollar sign"),
            FlawKind::Escape => Complaint::new("no such escape")
                .expected(r#"one of `\"` `\\` `\$` `\?` `\_` `\n` `\r` `\t` `\a` `\b` `\f` `\v`, or two digits `\0A`"#)
                .help(r"write `\\` for a backslash; hexadecimal digits are upper case"),
            FlawKind::Backslash => Complaint::new("a `\\` outside quotes must be the last of its line")
                .expected("a line end directly after it")
                .help("remove the text after the `\\` (blanks too), or put the value in quotes"),
            FlawKind::Bracket => Complaint::new("commands and expressions in brackets are not supported")
                .expected("a plain value")
                .help("write the value itself, in quotes if it contains the brackets"),
            FlawKind::Unquoted(byte) => {
                Complaint::new(format!("`{}` must be in quotes", char::from(byte).escape_debug()))
                    .expected("a blank or the end of the line")
                    .help("put the whole value in quotes, or check that a blank is not missing")
            }
            FlawKind::QuoteInside => Complaint::new("a quote in the middle of a word")
                .expected("quotes around the whole value")
                .help("write `name=\"value\"`; a quote inside the value is written `\\\"`"),
            FlawKind::BehindQuote => Complaint::new("text directly after a closing quote")
                .expected("a blank or the end of the line")
                .help("add the missing blank; a quote inside a string is written `\\\"`"),
            FlawKind::StringOverLines => Complaint::new("this string does not end on its line")
                .expected("a closing `\"`")
                .help("close it, or end the line with `\\` if it continues; a line end inside it is written `\\n`"),
            FlawKind::BracketOverLines => Complaint::new("this bracket is not closed on its line")
                .expected("the closing bracket")
                .help("scripts are not supported here: write the rules out"),
            FlawKind::OpenString => Complaint::new("this string never ends")
                .expected("a closing `\"`")
                .help("close it: the rest of the file was read as a part of it"),
            FlawKind::OpenBracket => Complaint::new("this bracket is never closed")
                .expected("the closing bracket")
                .help("close it: the rest of the file was read as a part of it"),
            FlawKind::WrongCloser => Complaint::new("this closes another kind of bracket than the last one opened"),
            FlawKind::TooDeep => Complaint::new(format!("brackets are nested deeper than {MAX_NESTING}"))
                .help("the file was not read beyond this point"),
            FlawKind::TooLong => Complaint::new(format!("a command of more than {MOST_WORDS} words"))
                .expected("a line end before this")
                .help("check that line ends are not missing; the line was not read beyond this point"),
            FlawKind::CutOff => Complaint::new("the file ends in the middle of a command")
                .expected("the line that the `\\` needs")
                .help("the file may be cut off: export it again"),
        }
    }
}
