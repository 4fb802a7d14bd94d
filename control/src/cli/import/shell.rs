//! A command line as a shell would see it: commands one after the other, each of words.
//!
//! Only what a list of plain commands needs: words, quotes, `;` and `&&`. What a shell would do beyond that cannot be
//! foreseen, and is refused.

/// The commands of a line, each with at least one word.
///
/// # Errors
/// What cannot be foreseen.
pub(super) fn commands(line: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    let (mut word, mut is_word) = (String::new(), false);
    let mut chars = line.chars().peekable();
    let simple = "a door runs no shell: write plain commands with `;` or `&&` between them";
    while let Some(char) = chars.next() {
        match char {
            '\'' | '"' => {
                is_word = true;
                loop {
                    match chars.next() {
                        None => return Err(format!("`{char}` is never closed: close it")),
                        Some(end) if end == char => break,
                        Some(inner @ ('$' | '`' | '\\')) if char == '"' => {
                            return Err(format!("`{inner}` in quotes is for a shell: {simple}"));
                        }
                        Some(inner) => word.push(inner),
                    }
                }
            }
            ' ' | '\t' | ';' | '&' => {
                if std::mem::take(&mut is_word) {
                    words.push(std::mem::take(&mut word));
                }
                match char {
                    ';' => commands.push(std::mem::take(&mut words)),
                    '&' if chars.next_if_eq(&'&').is_some() => commands.push(std::mem::take(&mut words)),
                    '&' => return Err(format!("`&` is for a shell: {simple}")),
                    _ => {}
                }
            }
            '|' | '>' | '<' | '$' | '`' | '\\' | '(' | ')' | '*' | '?' | '#' => {
                return Err(format!("`{char}` is for a shell: {simple}"));
            }
            char => {
                is_word = true;
                word.push(char);
            }
        }
    }
    if is_word {
        words.push(word);
    }
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_end_at_semicolons_and_quotes_hold_words_together() {
        assert_eq!(
            commands("a 'b c';d \"e;f\"  g&& h ;").unwrap(),
            [vec!["a", "b c"], vec!["d", "e;f", "g"], vec!["h"]]
        );
        assert_eq!(commands(" ; ").unwrap(), Vec::<Vec<String>>::new());
        for line in ["a | b", "a > b", "a $(b)", "a & b", "a \"$b\"", "a 'b", "a `b`", "if a; then (b)"] {
            assert!(commands(line).is_err(), "{line}");
        }
    }
}
