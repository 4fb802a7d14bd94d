//! The words of one command, for editors of rules that replace some of them.

use super::command::property_name;
use super::lexer::Lexer;
use super::problem::{Problem, Problems, RscError};
use super::syntax_error::SyntaxErrorKind;

/// A word of a command, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandWord<'t> {
    /// The whole word.
    pub text: &'t str,
    /// The name before the `=`, without a `!`; `None` if the word has no `=`.
    pub name: Option<&'t str>,
    /// The value behind the `=`, with its quotes; the whole word if it has no `=`.
    pub value: &'t str,
}

/// The words of a text that must be one command in one line. Brackets such as `[find …]` are one word, and are not examined.
///
/// # Errors
/// The text is no command, or more than one, or its form is invalid.
pub fn command_words(text: &str) -> Result<Vec<CommandWord<'_>>, Vec<Problem>> {
    let mut lexer = Lexer::new(text.as_bytes());
    let command = lexer.next(|_| true).unwrap_or_default();
    let mut problems = Problems::default();
    if command.words.is_empty() {
        problems
            .add(0..text.len(), RscError::new("there is no command").expected("`add`, `set`, `move` or another one"));
    }
    for error in command.errors.iter().filter(|error| error.kind != SyntaxErrorKind::Bracket) {
        problems.add(error.span.clone(), error.kind.error());
    }
    let second = lexer.next(|_| true).map(|second| second.span);
    let line_end = text.find(['\n', '\r']).map(|at| at..at + 1);
    if let Some(span) = line_end.or(second) {
        let error = RscError::new("this is more than one command").expected("one command in one line");
        problems.add(span, error.help("write each command by itself"));
    }
    if problems.count() > 0 {
        return Err(problems.place(text.as_bytes()));
    }
    let words = command.words.iter().map(|word| {
        let text = text.get(word.span.clone()).unwrap_or_default();
        let name = std::str::from_utf8(property_name(word)).ok().filter(|_| word.value.is_some());
        let length = name.map_or(0, |name| text.find(name).unwrap_or_default() + name.len() + 1);
        let name = text.get(..length.saturating_sub(1)).map(|name| name.trim_start_matches('!'));
        CommandWord { text, name: name.filter(|_| length > 0), value: text.get(length..).unwrap_or_default() }
    });
    Ok(words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_written() {
        let text = r#"set [find comment="a b; \"c\""] dst-port=!22 comment="x # y" !log numbers=3,4"#;
        let words = command_words(text).unwrap();
        let told: Vec<_> = words.iter().map(|word| (word.name, word.value)).collect();
        let expected = [
            (None, "set"),
            (None, r#"[find comment="a b; \"c\""]"#),
            (Some("dst-port"), "!22"),
            (Some("comment"), r#""x # y""#),
            (None, "!log"),
            (Some("numbers"), "3,4"),
        ];
        assert_eq!(told, expected);
        assert_eq!(words.iter().map(|word| word.text).collect::<Vec<_>>().join(" "), text);
    }

    #[test]
    fn only_one_sound_command_has_words() {
        for (text, place, part) in [
            ("", 1, "no command"),
            ("# note", 1, "no command"),
            ("remove 0; remove 1", 11, "more than one"),
            ("remove 0\nremove 1", 9, "more than one"),
            ("comment 0 \"open", 11, "never ends"),
            ("remove [find comment=x", 8, "never closed"),
            ("remove [find\ncomment=x]", 8, "not closed on its line"),
            ("add chain=\\\ninput", 12, "more than one"),
            ("comment 0 $x", 11, "variable"),
            ("remove 0 \\", 10, "ends in the middle"),
        ] {
            let problems = command_words(text).unwrap_err();
            assert!(problems[0].column == place && problems[0].message.contains(part), "{text:?}: {problems:?}");
        }
    }
}
