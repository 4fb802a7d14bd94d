//! Problems of a file and their positions.
//!
//! An [`RscError`] contains the message, and the caller adds the span. [`Problems`] collects problems in any order,
//! sorts them by position, and adds lines and columns in one pass.

use std::collections::HashSet;
use std::ops::Range;

use serde::Serialize;

/// Maximum number of problems of a file that are reported. A file with more is probably not an export, and may have any
/// size.
const MOST_PROBLEMS: usize = 10_000;

/// A problem of a rule file. A file with any problem must be refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The bytes of the file.
    pub span: Range<usize>,
    /// The line on which the bytes begin, from 1.
    pub line: u32,
    /// The character of that line at which the bytes begin, from 1. A byte that is not UTF-8 counts as one character.
    pub column: u32,
    /// The error.
    pub message: String,
    /// The expected form.
    pub expected: Option<String>,
    /// The remedy.
    pub help: Option<String>,
}

/// A problem without its position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RscError {
    message: String,
    expected: Option<String>,
    help: Option<String>,
    /// The part of the value with the error; `None` for the whole value.
    pub(super) part: Option<Range<usize>>,
}

impl RscError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        RscError { message: message.into(), expected: None, help: None, part: None }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the help to "did you mean …", if a name is similar.
    pub(super) fn did_you_mean<'a>(mut self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(name) = nearest(word, names) {
            self.help = Some(format!("did you mean `{name}`?"));
        }
        self
    }

    /// Adds the context, if there is any.
    pub(super) fn with_note(mut self, note: &str) -> Self {
        if !note.is_empty() {
            self.message += &format!(" ({note})");
        }
        self
    }

    /// Restricts the error to these bytes of the value.
    pub(super) fn at(mut self, part: Range<usize>) -> Self {
        self.part = Some(part);
        self
    }

    /// Moves the part by this number of bytes, for a value inside another one.
    pub(super) fn moved(mut self, by: usize) -> Self {
        self.part = self.part.map(|part| part.start + by..part.end + by);
        self
    }
}

/// The problems of one file, in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems {
    kept: Vec<(Range<usize>, RscError)>,
    count: usize,
    /// The position of the first problem that is not stored.
    more: Option<Range<usize>>,
}

impl Problems {
    pub(super) fn add(&mut self, span: Range<usize>, error: RscError) {
        self.count += 1;
        if self.kept.len() < MOST_PROBLEMS {
            self.kept.push((span, error));
        } else if self.more.is_none() {
            self.more = Some(span);
        }
    }

    /// The number of added problems.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Maps or filters the problems.
    pub(super) fn map(
        self,
        mut to: impl FnMut((Range<usize>, RscError)) -> Option<(Range<usize>, RscError)>,
    ) -> Problems {
        let more = self.more.map(|span| to((span, too_many())).map_or(0..0, |(span, _)| span));
        Problems { kept: self.kept.into_iter().filter_map(to).collect(), count: self.count, more }
    }

    /// Adds other problems to these.
    pub(super) fn extend(&mut self, others: Problems) {
        others.kept.into_iter().for_each(|(span, error)| self.add(span, error));
        self.more = self.more.take().or(others.more);
    }

    /// Whether the reader should stop, because there are more problems than the maximum.
    pub(super) const fn are_too_many(&self) -> bool {
        self.more.is_some()
    }

    /// All problems in the order of the file. A change of an entry finds the problems of the entry again; each is
    /// reported once.
    pub(super) fn place(mut self, text: &[u8]) -> Vec<Problem> {
        self.kept.extend(self.more.map(|span| (span, too_many())));
        self.kept.sort_by_key(|(span, _)| (span.start, span.end));
        let mut told = HashSet::new();
        self.kept.retain(|problem| told.insert(problem.clone()));
        let mut cursor = Cursor::new(text);
        self.kept
            .into_iter()
            .map(|(span, RscError { message, expected, help, .. })| {
                let (line, column) = cursor.advance(span.start);
                Problem { span, line, column, message, expected, help }
            })
            .collect()
    }
}

fn too_many() -> RscError {
    RscError::new(format!("more than {MOST_PROBLEMS} problems: the rest of the file was not read"))
        .expected("RouterOS commands")
        .help("fix the reported ones, and check that the file is an export")
}

/// Counts lines and columns. The cursor only moves forward, so that a file with many problems is read once.
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    column: u32,
}

impl Default for Cursor<'_> {
    fn default() -> Self {
        Cursor::new(&[])
    }
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Cursor { text, at: 0, line: 1, column: 1 }
    }

    /// Line and column of an offset that is not before the last one.
    pub(super) fn advance(&mut self, offset: usize) -> (u32, u32) {
        while let Some(rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            let line_end = line_end(rest);
            let length = if line_end > 0 { line_end } else { char_length(rest) };
            if self.at + length > offset {
                break;
            }
            self.at += length;
            if line_end > 0 {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            } else {
                self.column = self.column.saturating_add(1);
            }
        }
        (self.line, self.column)
    }
}

/// The length of a line end (LF, CRLF, CR) at the beginning of the text.
pub(super) const fn line_end(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

/// The length of the first character of the text; 1 if it is not UTF-8.
pub(super) fn char_length(text: &[u8]) -> usize {
    let length = match text.first() {
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        _ => return 1,
    };
    if text.get(..length).is_some_and(|char| std::str::from_utf8(char).is_ok()) { length } else { 1 }
}

/// Text of the file for a message: short, and on one line.
pub(super) fn show(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * LONGEST + 4)]);
    let mut shown = String::new();
    for char in text.chars().take(LONGEST) {
        if char.is_control() { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}

/// The most similar name: at most every third character differs.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 48;
    let tolerance = (word.len() / 3).clamp(1, 4);
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    names
        .into_iter()
        .filter(|name| name.len().abs_diff(word.len()) <= tolerance)
        .map(|name| (distance(word.as_bytes(), name.as_bytes(), tolerance), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The edit distance in bytes, in which swapped neighbours count once (optimal string alignment). Stops with a larger
/// value as soon as the distance must exceed `most`. Common beginnings and ends are skipped, because paths of menus
/// often share them.
pub(super) fn distance(left: &[u8], right: &[u8], most: usize) -> usize {
    let begin = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let (left, right) = (&left[begin..], &right[begin..]);
    let end = left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count();
    let (left, right) = (&left[..left.len() - end], &right[..right.len() - end]);
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, b) in right.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        // The next row depends only on these two rows, and is not smaller than their minimum.
        if row.iter().chain(&last).all(|distance| *distance > most) {
            return most + 1;
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_and_all_line_ends() {
        let text = b"a\nb\r\n\xC3\xA9x\rz\xE1y";
        let mut cursor = Cursor::new(text);
        let places: Vec<_> = [0, 2, 5, 7, 8, 9, 10, 11, 12].map(|offset| cursor.advance(offset)).into();
        assert_eq!(places, [(1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3), (4, 4)]);
    }

    #[test]
    fn similar_names_are_suggested() {
        let names = ["chain", "src-port", "src-address", "src-address-list"];
        assert_eq!(nearest("chian", names), Some("chain"));
        assert_eq!(nearest("src-adress", names), Some("src-address"));
        assert_eq!(nearest("src_address_list", names), Some("src-address-list"));
        assert_eq!(nearest("comment", names), None);
        assert_eq!(nearest("", names), None);
        for (left, right, apart) in
            [("", "abc", 3), ("ab", "ba", 1), ("xaby", "xbay", 1), ("aa", "aaa", 1), ("ca", "abc", 3)]
        {
            assert_eq!(distance(left.as_bytes(), right.as_bytes(), 9), apart);
            assert_eq!(distance(left.as_bytes(), right.as_bytes(), apart), apart);
        }
        assert!(distance(b"abcdefgh", b"stuvwxyz", 2) > 2);
    }

    #[test]
    fn problems_are_counted_and_not_all_kept() {
        let mut problems = Problems::default();
        for at in 0..2 * MOST_PROBLEMS {
            problems.add(at..at + 1, RscError::new("bad"));
        }
        assert_eq!(problems.count(), 2 * MOST_PROBLEMS);
        let told = problems.place(&vec![b'x'; 2 * MOST_PROBLEMS]);
        assert_eq!((told.len(), told[MOST_PROBLEMS].span.start), (MOST_PROBLEMS + 1, MOST_PROBLEMS));
        assert!(told[MOST_PROBLEMS].message.contains("more than"));
    }

    #[test]
    fn shown_text_is_short_and_has_no_control_characters() {
        assert_eq!(show(b"a\x1b[31m\n\xE1"), "a\\u{1b}[31m\\n\u{FFFD}");
        assert_eq!(show(&[b'x'; 100]).chars().count(), 61);
    }
}
