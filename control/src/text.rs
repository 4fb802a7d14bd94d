//! Text for operators, in every output: numbers of things, names of rules, and untrusted text without control characters.

use knockplane_policy::rule::RuleNumber;

/// Writes `1 rule` or `2 rules`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Text of a rule file, such as a comment, without the characters that would move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() })
        .collect()
}

/// A rule for output: `ip filter 4, line 5 (comment)`, without the parts that it does not have.
pub(crate) fn named(number: RuleNumber, line: u32, comment: &str) -> String {
    let line = if line == 0 { String::new() } else { format!(", line {line}") };
    let comment = if comment.is_empty() { String::new() } else { format!(" ({})", printable(comment)) };
    format!("{number}{line}{comment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!((count(1, "rule"), count(0, "rule")), ("1 rule".to_owned(), "0 rules".to_owned()));
    }

    #[test]
    fn foreign_text_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb é"), "a\\u{1b}[2J\\nb é");
    }
}
