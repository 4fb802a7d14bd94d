//! The format of output in a terminal: tables without lines, numbers in groups of three, and untrusted text without
//! control characters.
//!
//! No line is longer than [`WIDTH`] columns, except for a longer single word. Scripts read JSON, not tables.

use std::fmt::Write as _;
use std::mem;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

pub(super) use crate::text::{count, named, printable};

/// The maximum number of terminal columns in a line.
pub(super) const WIDTH: usize = 100;

/// The number of terminal columns between the cells of a row.
const GAP: usize = 2;

/// Marks a row that does not fit the table. It is a private character that no text of knockplane contains.
const ELSEWHERE: &str = "\u{e000}";

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Left, for words.
    Left,
    /// Right, for numbers.
    Right,
}

/// A table with a header, which is filled row by row. Words are wrapped within their columns, so that rows fit the
/// width. A row that still does not fit has separate lines for its cells.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        Columns {
            columns: columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.to_vec());
    }

    /// Adds a row with a cell for each column.
    pub(super) fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The text, with a line end behind every line.
    pub(super) fn text(&self) -> String {
        let (fits, widths) = self.layout();
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        table.set_header(self.columns.iter().map(|(name, _)| name));
        for (row, fits) in self.rows.iter().zip(&fits) {
            match fits {
                true => table.add_row(row.iter().zip(&widths).map(|(cell, width)| lines(cell, *width).join("\n"))),
                false => table.add_row([ELSEWHERE]),
            };
        }
        for (column, (_, align)) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, GAP as u16)).set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        let mut others = self.rows.iter().zip(&fits).filter(|(_, fits)| !**fits).map(|(row, _)| self.apart(row));
        let mut text = String::new();
        for line in table.trim_fmt().lines() {
            match line.trim_start().strip_prefix(ELSEWHERE).and_then(|_| others.next()) {
                Some(other) => text += &other,
                None => {
                    let _ = writeln!(text, "{line}");
                }
            }
        }
        text
    }

    /// The rows that fit, and the width of each column for these rows.
    fn layout(&self) -> (Vec<bool>, Vec<usize>) {
        let mut fits = vec![true; self.rows.len()];
        loop {
            let rows = || self.rows.iter().zip(&fits).filter(|(_, fits)| **fits).map(|(row, _)| row);
            let widest = |width: &dyn Fn(usize, &str) -> usize| -> Vec<usize> {
                let of = |(at, (name, _)): (usize, &(String, Align))| {
                    rows().map(|row| width(at, &row[at])).chain([name.width()]).max().unwrap_or_default()
                };
                self.columns.iter().enumerate().map(of).collect()
            };
            let least = widest(&|at, cell| self.least(at, cell));
            if total(&least) <= WIDTH {
                let mut widths = widest(&|_, cell| cell.width());
                while let Some(excess) = total(&widths).checked_sub(WIDTH).filter(|excess| *excess > 0) {
                    let can_shrink = widths.iter().zip(&least).enumerate().filter(|(_, (width, least))| width > least);
                    let Some((at, _)) = can_shrink.max_by_key(|(_, (width, _))| **width) else { break };
                    // Half of the excess, so that columns of one width shrink together.
                    widths[at] -= excess.div_ceil(2).min(widths[at] - least[at]);
                }
                return (fits, widths);
            }
            let longest = (0..fits.len()).filter(|row| fits[*row]).max_by_key(|row| {
                self.rows[*row].iter().enumerate().map(|(at, cell)| self.least(at, cell)).sum::<usize>()
            });
            match longest {
                Some(row) => fits[row] = false,
                None => return (fits, least),
            }
        }
    }

    /// The minimum width of a cell: its longest word. Numbers contain blanks and are not broken.
    fn least(&self, column: usize, cell: &str) -> usize {
        match self.columns[column].1 {
            Align::Right => cell.width(),
            Align::Left => {
                let indent = cell.len() - cell.trim_start().len();
                indent + cell.split_whitespace().map(str::width).max().unwrap_or_default()
            }
        }
    }

    /// A row that does not fit the table: its cells one after the other, numbers with the names of their columns.
    fn apart(&self, row: &[String]) -> String {
        let (mut words, mut is_first) = (Vec::new(), true);
        for (cell, (name, align)) in row.iter().zip(&self.columns).filter(|(cell, _)| !cell.is_empty()) {
            match align {
                Align::Left => words.extend(cell.split_whitespace().map(str::to_owned)),
                Align::Right if mem::take(&mut is_first) => words.push(cell.clone()),
                Align::Right => words.push(format!("{name} {cell}")),
            }
            is_first = false;
        }
        filled(words.iter().map(String::as_str), "", "    ", WIDTH).join("\n") + "\n"
    }
}

/// The columns that a row takes.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// The lines of a cell: its words, broken at blanks if they are wider than the column.
fn lines(cell: &str, width: usize) -> Vec<String> {
    if cell.width() <= width {
        return vec![cell.to_owned()];
    }
    let indent = &cell[..cell.len() - cell.trim_start().len()];
    filled(cell.split_whitespace(), indent, indent, width)
}

/// Words in lines of at most a width, unless a word is wider. The first line begins with `first`, the others with
/// `indent`.
pub(super) fn filled<'w>(words: impl Iterator<Item = &'w str>, first: &str, indent: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut is_empty) = (Vec::new(), first.to_owned(), true);
    for word in words {
        if !is_empty && line.width() + 1 + word.width() > width {
            lines.push(mem::replace(&mut line, indent.to_owned()));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines.push(line);
    lines
}

/// The maximum number of columns in a line: the width of the terminal, but no more than [`WIDTH`].
pub(super) fn width() -> usize {
    Table::new().width().map_or(WIDTH, |width| usize::from(width).min(WIDTH))
}

/// A number with its thousands separated by spaces, as RouterOS prints counters.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Running text in lines of at most [`WIDTH`] columns, broken at blanks. Lines behind the first begin with `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let start = &text[..text.len() - text.trim_start().len()];
    filled(text.split_whitespace(), start, indent, WIDTH).join("\n") + "\n"
}

/// The line of a rule; empty if the rule is in no file, as those of doors.
pub(super) fn line(line: u32) -> String {
    if line == 0 { String::new() } else { line.to_string() }
}

/// The text, cut to a number of columns: its last one is `~` if text is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for letter in text.chars() {
        if kept.width() + letter.width().unwrap_or_default() >= width {
            break;
        }
        kept.push(letter);
    }
    if width > 0 { kept + "~" } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_spaces() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1 000"), (98_765_432, "98 765 432")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18 446 744 073 709 551 615");
    }

    #[test]
    fn running_text_is_broken_at_blanks() {
        assert_eq!(wrapped("- short", "  "), "- short\n");
        let text = format!("  {} b", "a".repeat(97));
        assert_eq!(wrapped(&text, "    "), format!("  {}\n    b\n", "a".repeat(97)));
        let long = "c".repeat(120);
        assert_eq!(wrapped(&format!("{long} {long}"), ""), format!("{long}\n{long}\n"), "a word stays whole");
    }

    /// Whether a line is too long although it could be broken: at a blank between words, behind its indentation.
    fn is_too_long(line: &str) -> bool {
        line.width() > WIDTH && line.split_whitespace().count() > 1
    }

    #[test]
    fn words_are_wrapped_in_their_columns_and_numbers_are_not() {
        let mut table = Columns::new(&[("N", Align::Right), ("WHAT", Align::Left), ("WHY", Align::Left)]);
        table.row(["1 000".into(), "short".into(), "a b".into()]);
        table.row(["2".into(), "  ".to_owned() + &"word ".repeat(30), "because ".repeat(20)]);
        insta::assert_snapshot!(table.text());
        assert!(!table.text().lines().any(is_too_long));
    }

    #[test]
    fn a_row_that_does_not_fit_takes_lines_of_its_own() {
        let columns = [("", Align::Left), ("LIST", Align::Left), ("TIMES", Align::Right), ("COMMENT", Align::Left)];
        let mut table = Columns::new(&columns);
        table.row(["D".into(), "office".into(), "12".into(), "fits".into()]);
        table.row(["D".into(), "l".repeat(64), "1 000".into(), "c".repeat(64)]);
        table.row(["".into(), "home".into(), "3".into(), "fits, too".into()]);
        insta::assert_snapshot!(table.text());
        assert!(!table.text().lines().any(is_too_long));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Columns::new(&[("A", Align::Left), ("B", Align::Left)]);
        table.row(["事務所 ".repeat(20), "x".into()]);
        assert!(table.text().lines().count() > 2 && !table.text().lines().any(is_too_long), "{}", table.text());
    }

    #[test]
    fn no_line_is_too_long_whatever_the_cells_are() {
        // Numbers without a pattern, of a known sequence.
        let mut state = 1_u64;
        let mut below = move |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        for _ in 0..2_000 {
            let columns: Vec<_> =
                (0..1 + below(6)).map(|_| if below(3) == 0 { Align::Right } else { Align::Left }).collect();
            let named: Vec<_> = columns.iter().map(|align| ("NAME", *align)).collect();
            let mut table = Columns::new(&named);
            for _ in 0..1 + below(5) {
                let cells = columns.iter().map(|align| match align {
                    Align::Right => grouped(below(1 << 31).pow(2)),
                    Align::Left => (0..below(9)).map(|_| "x".repeat(1 + below(40) as usize) + " ").collect(),
                });
                table.rows.push(cells.collect());
            }
            let text = table.text();
            // A number has blanks and is one word.
            assert!(text.lines().all(|line| line.width() <= WIDTH), "{columns:?}\n{text}");
            let words = |text: &str| text.split_whitespace().filter(|word| word.starts_with('x')).count();
            let given: usize = table.rows.iter().flatten().map(|cell| words(cell)).sum();
            assert_eq!(words(&text), given, "nothing is lost\n{text}");
        }
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let mut table = Columns::new(&[("NAME", Align::Left), ("COUNT", Align::Right), ("NOTE", Align::Left)]);
        table.row(["a".into(), "1".into(), String::new()]);
        table.row(["bcdef".into(), "1 000 000".into(), "long ".repeat(4) + "end"]);
        let text = table.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "NAME       COUNT  NOTE");
        assert_eq!(lines[1], "a              1");
        assert!(lines[2].starts_with("bcdef  1 000 000  long long") && lines[2].ends_with("long end"));
        assert_eq!(lines.len(), 3);
    }
}
