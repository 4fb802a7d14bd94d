//! A command line as a shell would split it: commands in order, each a list of words.
//!
//! The parser supports only lists of plain commands: words, quotes, `;`, `&&`, `||`, and output that is redirected to
//! /dev/null. It refuses other shell syntax, whose effect cannot be predicted.

use std::iter::Peekable;
use std::str::Chars;

/// The condition under which a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// Always: the first command, or a command behind `;`.
    Always,
    /// If the command before it succeeds: `&&`.
    OnSuccess,
    /// If the command before it fails: `||`.
    OnFailure,
}

/// A command, with at least one word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) runs: Runs,
    pub(super) words: Vec<String>,
}

const SIMPLE: &str = "a door runs no shell: write plain commands with `;` or `&&` between them";

/// The commands of a line.
///
/// # Errors
/// The syntax whose effect cannot be predicted.
pub(super) fn commands(line: &str) -> Result<Vec<Command>, String> {
    let mut commands = Vec::new();
    let (mut runs, mut words) = (Runs::Always, Vec::new());
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\'' | '"' => word.get_or_insert_default().push_str(&quoted(char, &mut chars)?),
            ' ' | '\t' => words.extend(word.take()),
            '>' => {
                // Digits before it are the number of the redirected descriptor, and no word.
                let is_number = word.as_ref().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
                if !is_number {
                    words.extend(word.take());
                }
                word = None;
                redirection(&mut chars)?;
            }
            '&' if chars.next_if_eq(&'>').is_some() => {
                words.extend(word.take());
                redirection(&mut chars)?;
            }
            ';' | '&' | '|' => {
                words.extend(word.take());
                let next = match char {
                    ';' => Runs::Always,
                    '&' if chars.next_if_eq(&'&').is_some() => Runs::OnSuccess,
                    '|' if chars.next_if_eq(&'|').is_some() => Runs::OnFailure,
                    other => return Err(format!("`{other}` is for a shell: {SIMPLE}")),
                };
                end(&mut commands, runs, std::mem::take(&mut words))?;
                runs = next;
            }
            '<' | '$' | '`' | '\\' | '(' | ')' | '*' | '?' | '#' => {
                return Err(format!("`{char}` is for a shell: {SIMPLE}"));
            }
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    end(&mut commands, runs, words)?;
    Ok(commands)
}

/// Adds a command. An empty command is valid only before `;` and at the end.
fn end(commands: &mut Vec<Command>, runs: Runs, words: Vec<String>) -> Result<(), String> {
    if !words.is_empty() {
        commands.push(Command { runs, words });
    } else if runs != Runs::Always {
        return Err(format!("there is no command behind `&&` or `||`: {SIMPLE}"));
    }
    Ok(())
}

/// The text before the closing quote.
fn quoted(quote: char, chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return Err(format!("`{quote}` is never closed: close it")),
            Some(end) if end == quote => return Ok(text),
            Some('\\') if quote == '"' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                _ => return Err(format!("`\\` in quotes is for a shell: {SIMPLE}")),
            },
            Some(inner @ ('$' | '`')) if quote == '"' => {
                return Err(format!("`{inner}` in quotes is for a shell: {SIMPLE}"));
            }
            Some(inner) => text.push(inner),
        }
    }
}

/// Skips the target of `>`: only output to /dev/null, or to standard output, is supported.
fn redirection(chars: &mut Peekable<Chars<'_>>) -> Result<(), String> {
    while chars.next_if(|char| matches!(char, ' ' | '\t')).is_some() {}
    let mut target = String::new();
    if chars.next_if_eq(&'&').is_some() {
        target.push('&');
    }
    while let Some(char) = chars.next_if(|char| !matches!(char, ' ' | '\t' | ';' | '&' | '|' | '>' | '<')) {
        target.push(char);
    }
    match target.as_str() {
        "/dev/null" | "&1" | "&2" => Ok(()),
        _ => Err(format!("`>` is for a shell: {SIMPLE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        commands(line).unwrap().into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn commands_end_at_semicolons_and_quotes_hold_words_together() {
        assert_eq!(words("a 'b c';d \"e;f\"  g&& h ;"), [vec!["a", "b c"], vec!["d", "e;f", "g"], vec!["h"]]);
        assert_eq!(words("a '' x\"\\\"y\\\"\""), [["a", "", "x\"y\""]]);
        assert_eq!(words(" ; "), Vec::<Vec<String>>::new());
        for line in ["a | b", "a > b", "a >> /dev/null", "a $(b)", "a & b", "a \"$b\"", "a 'b", "a `b`", "(b)", "a ||"]
        {
            assert!(commands(line).is_err(), "{line}");
        }
        for line in ["a && ; b", "a || || b", "a \"\\n\"", "a 2>&3", "a &> file"] {
            assert!(commands(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_goes_nowhere_is_passed_over() {
        for line in ["a b 2>/dev/null", "a b >/dev/null 2>&1", "a b &>/dev/null", "a > /dev/null b 2> /dev/null"] {
            assert_eq!(words(line), [["a", "b"]], "{line}");
        }
        assert_eq!(words("a b2>/dev/null||c"), [vec!["a", "b2"], vec!["c"]]);
    }

    #[test]
    fn what_comes_before_says_when_a_command_runs() {
        let runs: Vec<_> = commands("a && b || c; d").unwrap().into_iter().map(|command| command.runs).collect();
        assert_eq!(runs, [Runs::Always, Runs::OnSuccess, Runs::OnFailure, Runs::Always]);
    }
}
