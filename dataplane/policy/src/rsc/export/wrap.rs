//! Wraps lines as RouterOS does for a terminal of 80 columns.
//!
//! ```text
//! add action=drop chain=input comment="drop invalid" connection-state=\
//!     invalid                                    the value no longer fits behind its name
//! add action=accept chain=input comment="accept ospf" in-interface-list=LAN \
//!     protocol=ospf                              nor does the name
//! add action=passthrough chain=input comment="A string that would not fit a lin\
//!     e of its own begins where it stands and goes on from line to line.\
//!     \_Blanks at a beginning are escaped."
//! ```

use std::mem::take;

use super::super::wording::{Property, pieces};

/// Maximum number of bytes of a line, including the `\` that continues it. A line may have one more byte if a string
/// ends there.
const LONGEST: usize = 79;

/// Maximum number of bytes of a line that does not end within a string: it needs room for ` \`.
const FITTING: usize = LONGEST - 2;

/// The indent of continued lines.
const INDENT: &str = "    ";

/// The lines of an export.
#[derive(Debug, Default)]
pub(super) struct Lines {
    done: String,
    /// The current line.
    line: String,
}

impl Lines {
    /// A menu with its commands, if it has any: the verb and the properties of each.
    pub(super) fn commands(&mut self, path: &str, commands: impl Iterator<Item = (String, Vec<Property>)>) {
        let mut commands = commands.peekable();
        if commands.peek().is_some() {
            self.done += path;
            self.done.push('\n');
        }
        for (verb, properties) in commands {
            self.line.push_str(&verb);
            properties.iter().for_each(|property| self.property(property));
            self.done += &take(&mut self.line);
            self.done.push('\n');
        }
    }

    /// The text of all lines.
    pub(super) fn text(self) -> String {
        self.done
    }

    fn property(&mut self, Property { name, value }: &Property) {
        let with_name = name.len() + 1;
        let breaks = value.starts_with('"') && INDENT.len() + value.len() > FITTING;
        if self.line.len() + 1 + with_name > FITTING {
            self.line.push(' ');
            self.go_on();
        } else {
            self.line.push(' ');
        }
        self.line += name;
        self.line.push('=');
        if self.line.len() + value.len() <= FITTING {
            self.line += value;
        } else if !breaks {
            self.go_on();
            self.line += value;
        } else {
            self.break_up(value);
        }
    }

    /// Writes a string over several lines. The reader drops the indent, so a blank at the beginning of a line is
    /// escaped.
    fn break_up(&mut self, value: &str) {
        for piece in pieces(value) {
            if self.line.len() + piece.len() + 1 > LONGEST {
                self.go_on();
                self.line += if piece == " " { "\\_" } else { piece };
            } else {
                self.line += piece;
            }
        }
    }

    /// Breaks the line within a command.
    fn go_on(&mut self) {
        self.done += &take(&mut self.line);
        self.done += "\\\n";
        self.line += INDENT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(properties: &[(&str, &str)]) -> String {
        let property = |(name, value): &(&str, &str)| Property { name: (*name).to_owned(), value: (*value).to_owned() };
        let mut lines = Lines::default();
        lines.commands("/menu", [("add".to_owned(), properties.iter().map(property).collect())].into_iter());
        lines.text()
    }

    #[test]
    fn lines_end_where_a_terminal_of_80_columns_would_be_full() {
        let text =
            "/menu\nadd action=drop chain=input comment=\"drop invalid input\" connection-state=\\\n    invalid\n";
        let comment = ("comment", "\"drop invalid input\"");
        let start = [("action", "drop"), ("chain", "input"), comment];
        assert_eq!(wrapped(&[start[0], start[1], start[2], ("connection-state", "invalid")]), text);
        let full = "/menu\nadd action=drop chain=Virus comment=\"Drop NetBus\" dst-port=12345 protocol=tcp\n";
        let start = [("action", "drop"), ("chain", "Virus"), ("comment", "\"Drop NetBus\"")];
        let rest = [("dst-port", "12345"), ("protocol", "tcp")];
        assert_eq!(
            wrapped(&[start, [rest[0], rest[1], ("log", "yes")]].concat()),
            full.replace("tcp\n", "tcp \\\n    log=yes\n")
        );
        assert_eq!(wrapped(&[&start[..], &rest].concat()), full);
        let longer = [start[0], start[1], ("comment", "\"Drop NetBus1\"")];
        let expected = full.replace("Bus", "Bus1").replace("=tcp", "=\\\n    tcp");
        assert_eq!(wrapped(&[&longer[..], &rest].concat()), expected);
    }

    #[test]
    fn a_string_moves_to_a_line_of_its_own_if_it_fits_there() {
        let string = format!("\"{}\"", "x".repeat(FITTING - INDENT.len() - 2));
        assert_eq!(wrapped(&[("comment", &string)]), format!("/menu\nadd comment=\\\n    {string}\n"));
        let longer = format!("\"{} {}\"", "x".repeat(65), "y".repeat(90));
        let text = format!(
            "/menu\nadd comment=\"{}\\\n    \\_{}\\\n    {}\"\n",
            "x".repeat(65),
            "y".repeat(72),
            "y".repeat(18)
        );
        assert_eq!(wrapped(&[("comment", &longer)]), text);
        assert!(text.lines().all(|line| line.len() <= LONGEST));
    }

    #[test]
    fn only_strings_are_broken() {
        let ports = ["1000-2000"; 16].join(",");
        let text = format!("/menu\nadd dst-port=\\\n    {ports} protocol=\\\n    tcp\n");
        assert_eq!(
            wrapped(&[("dst-port", &ports), ("protocol", "tcp")]),
            text.replace(" protocol=\\\n    ", " \\\n    protocol=")
        );
    }
}
