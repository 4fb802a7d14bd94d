//! How things look in a terminal: tables without lines, numbers in groups of three, foreign text made harmless.
//!
//! Tables are never wrapped or cut to the terminal's width, so that a line is a line for `grep` and `awk` too.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use knockplane_policy::rule::RuleNumber;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a header, filled row by row.
#[derive(Debug)]
pub(super) struct Columns(Table);

impl Columns {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        table.set_header(columns.iter().map(|(name, _)| *name));
        for (column, (_, align)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2)).set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Columns(table)
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells.map(|cell| printable(&cell)));
    }

    /// The text, with a line end behind every line.
    pub(super) fn text(&self) -> String {
        self.0.trim_fmt() + "\n"
    }
}

/// How many columns standard output has, if it is a terminal.
pub(super) fn terminal_width() -> Option<usize> {
    Table::new().width().map(usize::from)
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

/// Columns of a line of running text at most.
const WIDTH: usize = 100;

/// Running text in lines of at most a hundred columns, broken at blanks. Lines behind the first begin with `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let start = text.len() - text.trim_start().len();
    let (mut lines, mut line) = (String::new(), text[..start].to_owned());
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let blank = usize::from(!is_empty);
        if !is_empty && line.chars().count() + blank + word.chars().count() > WIDTH {
            lines += &line;
            lines.push('\n');
            (line, is_empty) = (indent.to_owned(), true);
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines + &line + "\n"
}

/// `1 rule`, `2 rules`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Text of a rule file, a comment say, without what would move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() })
        .collect()
}

/// A rule for people: `ip filter 4, line 5 (comment)`, without what it has not.
pub(super) fn named(number: RuleNumber, line: u32, comment: &str) -> String {
    let line = if line == 0 { String::new() } else { format!(", line {line}") };
    let comment = if comment.is_empty() { String::new() } else { format!(" ({})", printable(comment)) };
    format!("{number}{line}{comment}")
}

/// The line of a rule; nothing if it is of no file, as those of doors.
pub(super) fn line(line: u32) -> String {
    if line == 0 { String::new() } else { line.to_string() }
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

    #[test]
    fn one_is_not_many() {
        assert_eq!((count(1, "rule"), count(0, "rule")), ("1 rule".to_owned(), "0 rules".to_owned()));
    }

    #[test]
    fn foreign_text_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb é"), "a\\u{1b}[2J\\nb é");
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let mut table = Columns::new(&[("NAME", Align::Left), ("COUNT", Align::Right), ("NOTE", Align::Left)]);
        table.row(["a".into(), "1".into(), String::new()]);
        table.row(["bcdef".into(), "1 000 000".into(), "long ".repeat(40) + "end"]);
        let text = table.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "NAME       COUNT  NOTE");
        assert_eq!(lines[1], "a              1");
        assert!(lines[2].starts_with("bcdef  1 000 000  long long") && lines[2].ends_with("end"));
        assert_eq!(lines.len(), 3);
    }
}
