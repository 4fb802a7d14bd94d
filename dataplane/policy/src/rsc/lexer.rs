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

use std::ops::Range;

use super::problem::Complaint;

/// How deep brackets may nest. Scripts on routers stay under ten.
const MAX_NESTING: usize = 64;

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

/// What a name or a value says, and where each of its bytes came from.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Where the first byte stands in the file. The others follow it…
    origin: usize,
    /// …up to where an escape or a joined line puts them out of step: index here, offset there, of the first byte of
    /// each further run. Most texts have none.
    runs: Vec<(usize, usize)>,
    /// With the quotes, if there are any.
    pub(super) span: Range<usize>,
    quotes: Quotes,
}

/// Where a word stands towards its quotes: they go around the whole of it or it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quotes {
    #[default]
    None,
    Around,
    /// Neither, which was said once already.
    Spoiled,
}

impl Text {
    /// A text that stands in no file, on behalf of what stands at `span`.
    pub(super) fn made(bytes: &[u8], span: Range<usize>) -> Text {
        Text { bytes: bytes.to_vec(), origin: usize::MAX, span, quotes: Quotes::Spoiled, ..Text::default() }
    }

    /// Where a part of the bytes stands in the file.
    pub(super) fn part(&self, part: Range<usize>) -> Range<usize> {
        match (self.origin(part.start), part.end.checked_sub(1).and_then(|last| self.origin(last))) {
            (Some(first), Some(last)) if first <= last => first..last + 1,
            _ => self.span.clone(),
        }
    }

    fn origin(&self, index: usize) -> Option<usize> {
        let (first, origin) = match self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1) {
            Some(run) => self.runs[run],
            None => (0, self.origin),
        };
        // What was made did not come from the file.
        let known = index < self.bytes.len() && self.span.contains(&origin);
        known.then(|| origin + (index - first))
    }

    fn push(&mut self, byte: u8, origin: usize) {
        self.push_all(&[byte], origin);
    }

    /// Bytes that follow one another in the file as well.
    fn push_all(&mut self, bytes: &[u8], origin: usize) {
        let (first, start) = self.runs.last().copied().unwrap_or((0, self.origin));
        if self.bytes.is_empty() {
            self.origin = origin;
        } else if start + (self.bytes.len() - first) != origin {
            self.runs.push((self.bytes.len(), origin));
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// Something in the form of a command that a rule may not have.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) span: Range<usize>,
    pub(super) kind: FlawKind,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlawKind {
    /// `$` that is not `\$`.
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
    /// Text directly behind a closing quote.
    BehindQuote,
    /// A string that does not end on its line.
    StringOverLines,
    /// A bracket that is not closed on its line.
    BracketOverLines,
    /// A string that never ends.
    OpenString,
    /// A bracket that is never closed.
    OpenBracket,
    /// A bracket closed by another's end.
    WrongCloser,
    /// Brackets nested deeper than [`MAX_NESTING`].
    TooDeep,
    /// A `\` at the very end of the file.
    CutOff,
}

impl FlawKind {
    /// Whether it makes the text around it unreadable, so that it matters in every menu.
    pub(super) const fn breaks_the_text(self) -> bool {
        matches!(
            self,
            FlawKind::OpenString | FlawKind::OpenBracket | FlawKind::WrongCloser | FlawKind::TooDeep | FlawKind::CutOff
        )
    }

    /// What to tell the reader.
    pub(super) fn complaint(self) -> Complaint {
        match self {
            FlawKind::Variable => Complaint::new("`$` stands for a variable here")
                .expected("text without variables")
                .help("write `\\$`, inside quotes, if a dollar sign is meant"),
            FlawKind::Escape => Complaint::new("no such escape")
                .expected(r#"one of `\"` `\\` `\$` `\?` `\_` `\n` `\r` `\t` `\a` `\b` `\f` `\v`, or two digits `\0A`"#)
                .help(r"write `\\` if a backslash is meant; hexadecimal digits are upper case"),
            FlawKind::Backslash => Complaint::new("a `\\` outside quotes must be the last of its line")
                .expected("a line end directly behind it")
                .help("remove what follows the `\\` (blanks too), or put the value in quotes"),
            FlawKind::Bracket => Complaint::new("commands and expressions in brackets are not read")
                .expected("a plain value")
                .help("write the value itself, in quotes if the brackets belong to it"),
            FlawKind::Unquoted(byte) => {
                Complaint::new(format!("`{}` must be in quotes", char::from(byte).escape_debug()))
                    .expected("a blank or the end of the line")
                    .help("put the whole value in quotes, or check that a blank is not missing")
            }
            FlawKind::QuoteInside => Complaint::new("a quote in the middle of a word")
                .expected("quotes around the whole value")
                .help("write `name=\"value\"`; a quote inside the value is written `\\\"`"),
            FlawKind::BehindQuote => Complaint::new("text directly behind a closing quote")
                .expected("a blank or the end of the line")
                .help("add the missing blank; a quote inside a string is written `\\\"`"),
            FlawKind::StringOverLines => Complaint::new("this string does not end on its line")
                .expected("a closing `\"`")
                .help("close it, or end the line with `\\` if it goes on; a line end inside it is written `\\n`"),
            FlawKind::BracketOverLines => Complaint::new("this bracket is not closed on its line")
                .expected("the closing bracket")
                .help("scripts are not read here: write the rules out"),
            FlawKind::OpenString => Complaint::new("this string never ends")
                .expected("a closing `\"`")
                .help("close it: everything behind it in the file was taken for a part of it"),
            FlawKind::OpenBracket => Complaint::new("this bracket is never closed")
                .expected("the closing bracket")
                .help("close it: everything behind it in the file was taken for a part of it"),
            FlawKind::WrongCloser => Complaint::new("this closes another kind of bracket than the last one opened"),
            FlawKind::TooDeep => Complaint::new(format!("brackets are nested deeper than {MAX_NESTING}"))
                .help("nothing behind this point of the file was read"),
            FlawKind::CutOff => Complaint::new("the file ends in the middle of a command")
                .expected("the line that the `\\` announces")
                .help("the file may be cut off: export it again"),
        }
    }
}

/// Yields the commands of a text one by one.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// The last command was ended by the line end directly before `at`.
    after_line_end: bool,
    /// A `\` at the end of the last line, which announces a line that is not there.
    cut_off: Option<usize>,
}

impl<'a> Lexer<'a> {
    /// A UTF-8 byte order mark at the start is passed over.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let at = if text.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        Lexer { text, at, after_line_end: false, cut_off: None }
    }

    /// The next command. `one_line` is asked, with the words read so far, when a string or bracket runs over a line
    /// end: whether that is a mistake (in rules), or usual (in scripts of other menus).
    pub(super) fn next(&mut self, one_line: impl Fn(&[Word]) -> bool) -> Option<Command> {
        let hangs = self.skip_to_command();
        self.peek()?;
        let mut reader = CommandReader { one_line, command: Command { hangs, ..Command::default() }, lexer: self };
        reader.read();
        Some(reader.command)
    }

    /// Passes over what stands between commands. True if the next one hangs under the last.
    fn skip_to_command(&mut self) -> bool {
        let mut hangs = std::mem::take(&mut self.after_line_end) && self.peek().is_some_and(is_blank);
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'#' => {
                    self.skip_line();
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

/// Reads one command. Where the lexer stands on entry, a word begins.
struct CommandReader<'l, 'a, F> {
    one_line: F,
    command: Command,
    lexer: &'l mut Lexer<'a>,
}

impl<F: Fn(&[Word]) -> bool> CommandReader<'_, '_, F> {
    fn read(&mut self) {
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
    }

    fn word(&mut self) {
        let start = self.lexer.at;
        let mut end = start;
        let flaws = self.command.flaws.len();
        let mut name = Text { span: start..start, ..Text::default() };
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
                    value = Some(Text { span: at + 1..at + 1, ..Text::default() });
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
        let flawed = self.command.flaws.len() > flaws;
        self.command.words.push(Word { span: start..end, name, value, flawed });
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

    /// A `\` outside strings that joins nothing.
    fn backslash(&mut self, text: &mut Text) {
        let at = self.lexer.at;
        text.push(b'\\', at);
        self.lexer.at += 1;
        match self.lexer.peek() {
            None => self.flaw(at..at + 1, FlawKind::CutOff),
            Some(_) => self.flaw(at..at + 1, FlawKind::Backslash),
        }
        // What it escapes, be it a quote, is no beginning of anything.
        if let Some(next) = self.lexer.peek().filter(|next| !is_blank(*next)) {
            text.push(next, at + 1);
            self.lexer.at += 1;
        }
    }

    /// A string from its opening quote on.
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

    /// An escape inside a string.
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

    /// A bracket with all that it holds, of which only the extent is of interest. One that begins a command is a
    /// script's and runs over lines.
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

    /// Passes over a string inside brackets. False if it ended the whole bracket by not ending itself.
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
        self.command.flaws.push(Flaw { span, kind });
    }
}

/// The words of a part of a text that was read before and that a word begins.
pub(super) fn words_of(text: &[u8], part: Range<usize>) -> Vec<Word> {
    let text = text.get(..part.end).unwrap_or(text);
    let mut lexer = Lexer { text, at: part.start, after_line_end: false, cut_off: None };
    let mut words = Vec::new();
    while let Some(command) = lexer.next(|_| true) {
        words.extend(command.words);
    }
    words
}

/// A string whose opening quote stands at `open`: what it says, what is wrong with it, and where it ends.
pub(super) fn string_at(text: &[u8], open: usize) -> (Text, Vec<Flaw>, usize) {
    let mut lexer = Lexer { text, at: open, after_line_end: false, cut_off: None };
    let mut string = Text { span: open..open, ..Text::default() };
    let mut reader = CommandReader { one_line: |_: &[Word]| true, command: Command::default(), lexer: &mut lexer };
    reader.string(&mut string);
    let flaws = reader.command.flaws;
    string.span.end = lexer.at;
    (string, flaws, lexer.at)
}

/// Whether a byte outside strings stands for itself and nothing else, in names as in values.
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

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether a `#` behind this byte, inside brackets, begins a comment rather than being a part of a word.
const fn begins_comment(before: u8) -> bool {
    is_blank(before) || is_line_end(before) || matches!(before, b';' | b'{')
}

const fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of a text, each as its words with values in `<>`, and the flaws.
    fn commands(text: &[u8]) -> Vec<(String, Vec<FlawKind>)> {
        let mut lexer = Lexer::new(text);
        let mut commands = Vec::new();
        while let Some(command) = lexer.next(|_| true) {
            let words: Vec<String> = command
                .words
                .iter()
                .map(|word| {
                    let name = String::from_utf8_lossy(&word.name.bytes).into_owned();
                    match &word.value {
                        Some(value) => format!("{name}=<{}>", value.bytes.escape_ascii()),
                        None => name,
                    }
                })
                .collect();
            commands.push((words.join(" "), command.flaws.iter().map(|flaw| flaw.kind).collect()));
        }
        commands
    }

    /// A text of one command without flaws.
    fn clean(text: &[u8]) -> String {
        let mut commands = commands(text);
        assert_eq!((commands.len(), &commands[0].1[..]), (1, &[][..]), "{commands:?}");
        commands.remove(0).0
    }

    fn flaws(text: &[u8]) -> Vec<FlawKind> {
        commands(text).into_iter().flat_map(|(_, flaws)| flaws).collect()
    }

    #[test]
    fn commands_end_at_line_ends_and_semicolons() {
        let words: Vec<String> =
            commands(b"a b\nc;d # e\r\n\r\n# f \\\ng\rh # \"").into_iter().map(|(words, _)| words).collect();
        assert_eq!(words, ["a b", "c", "d", "g", "h"]);
        assert_eq!(commands(b" \n;#x"), []);
    }

    #[test]
    fn every_escape() {
        assert_eq!(
            clean(br#"a="\"\\\$\?\_\n\r\t\a\b\f\v\E1\00\0A""#),
            r#"a=<\"\\$? \n\r\t\x07\x08\x0c\x0b\xe1\x00\n>"#
        );
    }

    #[test]
    fn lines_are_joined_in_words_strings_and_behind_the_equals_sign() {
        assert_eq!(
            clean(b"a=1 \\\n    b=\\\r\n\t 2 c=\"x y\\\r    z\\_\\\n \\_w\" d=3\\\n  4"),
            "a=<1> b=<2> c=<x yz  w> d=<34>"
        );
        assert_eq!(clean(b"a=\"#;!~,:\" b=!~,:'* c= d=\"\""), "a=<#;!~,:> b=<!~,:\\'*> c=<> d=<>");
    }

    #[test]
    fn flaws_are_named() {
        let cases: &[(&[u8], FlawKind)] = &[
            (b"a=$x", FlawKind::Variable),
            (b"a=\"x $y\"", FlawKind::Variable),
            (b"a=\"\\q\"", FlawKind::Escape),
            (b"a=\"\\e1\"", FlawKind::Escape),
            (b"a=x\\y", FlawKind::Backslash),
            (b"a=[b c={d \"]\"}]", FlawKind::Bracket),
            (b"a=b=c", FlawKind::Unquoted(b'=')),
            (b"a=b#c", FlawKind::Unquoted(b'#')),
            (b"a=x\"y\"", FlawKind::QuoteInside),
            (b"a=\"x\"y", FlawKind::BehindQuote),
            (b"a=\"x\n", FlawKind::StringOverLines),
            (b"a={x\n", FlawKind::BracketOverLines),
            (b"a=\"x", FlawKind::OpenString),
            (b"a={x", FlawKind::OpenBracket),
            (b"a \\", FlawKind::CutOff),
            (b"a \\\n  ", FlawKind::CutOff),
        ];
        for (text, flaw) in cases {
            assert_eq!(flaws(text), [*flaw], "{}", text.escape_ascii());
        }
        assert_eq!(flaws(b"a={x]"), [FlawKind::WrongCloser, FlawKind::Bracket]);
    }

    #[test]
    fn bodies_run_over_lines_where_they_may() {
        let text = b"add source={\n  # it's\n  :put \"}\"\n} b=\"x\ny\"\nc";
        let mut lexer = Lexer::new(text);
        let command = lexer.next(|_| false).unwrap();
        assert_eq!(command.words.len(), 3);
        assert_eq!(command.flaws.iter().map(|flaw| flaw.kind).collect::<Vec<_>>(), [FlawKind::Bracket]);
        assert_eq!(lexer.next(|_| false).unwrap().words[0].name.bytes, b"c");
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(flaws(&[b'['; MAX_NESTING + 1]), [FlawKind::TooDeep]);
        assert_eq!(flaws(&[b'['; MAX_NESTING]), [FlawKind::OpenBracket]);
        assert_eq!(flaws(&[b'{'; 1_000_000]), [FlawKind::TooDeep]);
    }

    #[test]
    fn parts_of_values_are_found_again() {
        let text = b"a=\"12\\\n   34\\_5\"";
        let command = Lexer::new(text).next(|_| true).unwrap();
        let value = command.words[0].value.as_ref().unwrap();
        assert_eq!((value.bytes.as_slice(), &text[value.span.clone()]), (&b"1234 5"[..], &text[2..]));
        assert_eq!(&text[value.part(2..4)], b"34");
        assert_eq!(&text[value.part(1..3)], b"2\\\n   3");
        assert_eq!(&text[value.part(5..6)], b"5");
        assert_eq!(value.part(6..6), value.span);
    }

    #[test]
    fn hanging_lines_are_those_directly_below() {
        let hangs = |text: &[u8]| {
            let mut lexer = Lexer::new(text);
            lexer.next(|_| true);
            lexer.next(|_| true).unwrap().hangs
        };
        assert!(hangs(b"a\n  b") && hangs(b"a\r\n\tb"));
        assert!(![&b"a\nb"[..], b"a\n\n  b", b"a;\n  b", b"a; b", b"a\n # c\n  b"].iter().any(|text| hangs(text)));
    }
}
