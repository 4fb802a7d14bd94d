//! Errors in the form of a command, and their messages.

use std::ops::Range;

use super::lexer::MOST_WORDS;
use super::problem::RscError;

/// Maximum depth of brackets. Scripts on routers have a depth below ten.
pub(super) const MAX_NESTING: usize = 64;

/// An error in the form of a command, which a rule must not have.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) span: Range<usize>,
    pub(super) kind: SyntaxErrorKind,
}

/// The kind of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyntaxErrorKind {
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

impl SyntaxErrorKind {
    /// Whether the error makes the text around it unreadable, so that it is an error in every menu.
    pub(super) const fn breaks_the_text(self) -> bool {
        matches!(
            self,
            SyntaxErrorKind::OpenString
                | SyntaxErrorKind::OpenBracket
                | SyntaxErrorKind::WrongCloser
                | SyntaxErrorKind::TooDeep
                | SyntaxErrorKind::CutOff
        )
    }

    /// The message.
    pub(super) fn error(self) -> RscError {
        match self {
            SyntaxErrorKind::Variable => RscError::new("`$` begins a variable here")
                .expected("text without variables")
                .help("write `\\$`, inside quotes, for a dollar sign"),
            SyntaxErrorKind::Escape => RscError::new("no such escape")
                .expected(r#"one of `\"` `\\` `\$` `\?` `\_` `\n` `\r` `\t` `\a` `\b` `\f` `\v`, or two digits `\0A`"#)
                .help(r"write `\\` for a backslash; hexadecimal digits are upper case"),
            SyntaxErrorKind::Backslash => RscError::new("a `\\` outside quotes must be the last of its line")
                .expected("a line end directly after it")
                .help("remove the text after the `\\` (blanks too), or put the value in quotes"),
            SyntaxErrorKind::Bracket => RscError::new("commands and expressions in brackets are not supported")
                .expected("a plain value")
                .help("write the value itself, in quotes if it contains the brackets"),
            SyntaxErrorKind::Unquoted(byte) => {
                RscError::new(format!("`{}` must be in quotes", char::from(byte).escape_debug()))
                    .expected("a blank or the end of the line")
                    .help("put the whole value in quotes, or check that a blank is not missing")
            }
            SyntaxErrorKind::QuoteInside => RscError::new("a quote in the middle of a word")
                .expected("quotes around the whole value")
                .help("write `name=\"value\"`; a quote inside the value is written `\\\"`"),
            SyntaxErrorKind::BehindQuote => RscError::new("text directly after a closing quote")
                .expected("a blank or the end of the line")
                .help("add the missing blank; a quote inside a string is written `\\\"`"),
            SyntaxErrorKind::StringOverLines => RscError::new("this string does not end on its line")
                .expected("a closing `\"`")
                .help("close it, or end the line with `\\` if it continues; a line end inside it is written `\\n`"),
            SyntaxErrorKind::BracketOverLines => RscError::new("this bracket is not closed on its line")
                .expected("the closing bracket")
                .help("scripts are not supported here: write the rules out"),
            SyntaxErrorKind::OpenString => RscError::new("this string never ends")
                .expected("a closing `\"`")
                .help("close it: the rest of the file was read as a part of it"),
            SyntaxErrorKind::OpenBracket => RscError::new("this bracket is never closed")
                .expected("the closing bracket")
                .help("close it: the rest of the file was read as a part of it"),
            SyntaxErrorKind::WrongCloser => {
                RscError::new("this closes another kind of bracket than the last one opened")
            }
            SyntaxErrorKind::TooDeep => RscError::new(format!("brackets are nested deeper than {MAX_NESTING}"))
                .help("the file was not read beyond this point"),
            SyntaxErrorKind::TooLong => RscError::new(format!("a command of more than {MOST_WORDS} words"))
                .expected("a line end before this")
                .help("check that line ends are not missing; the line was not read beyond this point"),
            SyntaxErrorKind::CutOff => RscError::new("the file ends in the middle of a command")
                .expected("the line that the `\\` needs")
                .help("the file may be cut off: export it again"),
        }
    }
}
