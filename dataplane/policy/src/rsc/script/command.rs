//! Writes the commands that a script executes, with values in place of variables and expressions.

use std::ops::Range;

use super::super::flaw::FlawKind;
use super::super::lexer::{Command, Text, Word};
use super::super::menu::{Line, Place};
use super::super::problem::Complaint;
use super::super::wording::quoted;
use super::expression::{Fail, operand, string, variable};
use super::run::Run;
use super::value::Value;

/// Maximum size of the expanded text in bytes, beyond the size of its file.
const MOST_OUTPUT: usize = 4 << 20;

impl Run<'_> {
    /// Adds a command to the text, unless there is no room.
    pub(super) fn command(&mut self, command: &Command) -> Option<()> {
        self.spend(20 + command.span.len())?;
        if self.expansion.text.len() > self.file.len() + MOST_OUTPUT {
            return None;
        }
        let line = self.menus.follow(&command.words);
        let is_read = match &line {
            Line::Enter => {
                self.is_lost = false;
                false
            }
            Line::Command(invocation) if self.is_lost && !invocation.path_given => {
                let complaint = Complaint::new("it is not clear which menu this belongs to")
                    .expected("a menu line first")
                    .help("a menu inside a block does not apply after it: repeat it here");
                self.refuse(command.words.first().map(|word| (word.span.clone(), complaint)));
                return Some(());
            }
            Line::Command(invocation) => matches!(invocation.place, Place::Understood(_)),
            Line::Wrong(..) => false,
        };
        let note = self.note();
        self.expansion.note(note);
        if command.hangs {
            self.expansion.put(b"    ", command.span.start..command.span.start);
        }
        let mut copied = command.span.start;
        let words = command.words.iter().filter(|_| is_read && !command.flaws.is_empty());
        for word in words {
            let target = word.value.as_ref().unwrap_or(&word.name);
            let in_target = |span: &Range<usize>| target.span.start <= span.start && span.end <= target.span.end;
            let has_values = command.flaws.iter().any(|flaw| {
                matches!(flaw.kind, FlawKind::Variable | FlawKind::Bracket | FlawKind::QuoteInside)
                    && in_target(&flaw.span)
            });
            if has_values {
                self.expansion.copy(self.file, copied..target.span.start);
                copied = target.span.end;
                self.target(word, target);
            }
        }
        self.expansion.copy(self.file, copied..command.span.end.max(copied));
        self.expansion.put(b"\n", command.span.end..command.span.end);
        Some(())
    }

    /// Adds the value of a word, or the reason that the value is not known.
    fn target(&mut self, word: &Word, target: &Text) {
        let span = target.span.clone();
        let start = self.expansion.text.len();
        let raw = &self.file[span.clone()];
        let looks_for_entries = matches!(raw.first(), Some(b'[' | b'(')) && mentions_find(raw);
        let done = if looks_for_entries { self.inside(span.clone()) } else { self.evaluated(word, span.clone()) };
        if let Err(fail) = done {
            // The text is unchanged. The reader of the expansion decides whether this is an error.
            self.expansion.give_up(start, self.file, span, fail);
        }
    }

    fn evaluated(&mut self, word: &Word, span: Range<usize>) -> Result<(), Fail> {
        let complain = |complaint: Complaint| Err(Some((span.clone(), complaint)));
        let value = operand(self.file, span.clone(), &self.scopes, &self.work)?;
        let bytes = match value {
            Value::Unknown => return Err(None),
            Value::Truth(truth) if word.value.is_some() => {
                if truth {
                    b"yes".to_vec()
                } else {
                    b"no".to_vec()
                }
            }
            Value::Array(_) => return complain(Complaint::new("an array stands where one value is expected")),
            Value::Nothing => {
                return complain(Complaint::new("this has no value here").help("set the variable above this line"));
            }
            value => value.written().unwrap_or_default(),
        };
        self.expansion.put(quoted(&bytes).as_bytes(), span);
        Ok(())
    }

    /// Adds `[find …]` or similar, with values in place of its variables.
    fn inside(&mut self, span: Range<usize>) -> Result<(), Fail> {
        let mut at = span.start;
        let mut copied = at;
        while let Some(byte) = self.file[..span.end].get(at) {
            let (bytes, end) = match byte {
                b'"' => string(&self.file[..span.end], at, &self.scopes, &self.work)?,
                b'$' => {
                    let (value, end) = variable(&self.file[..span.end], at, &self.scopes, &self.work)?;
                    let written = value.written().ok_or_else(|| {
                        Some((at..end, Complaint::new(format!("{} stands where one value is expected", value.kind()))))
                    })?;
                    (written, end)
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            self.expansion.copy(self.file, copied..at);
            let quoted = quoted(&bytes);
            let quoted = if quoted.starts_with('"') { quoted } else { format!("\"{quoted}\"") };
            self.expansion.put(quoted.as_bytes(), at..end);
            (at, copied) = (end, end);
        }
        self.expansion.copy(self.file, copied..span.end);
        Ok(())
    }
}

fn mentions_find(raw: &[u8]) -> bool {
    let is_of_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    raw.windows(4).enumerate().any(|(at, window)| {
        window == b"find"
            && !is_of_word(at.checked_sub(1).and_then(|before| raw.get(before)))
            && !is_of_word(raw.get(at + 4))
    })
}
