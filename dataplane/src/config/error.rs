//! Errors of the configuration, with file, line and column.

use std::fmt;
use std::path::PathBuf;

/// An error of the configuration, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    pub(super) file: PathBuf,
    /// Line and column, counted from 1; `None` if the error concerns the whole file.
    pub(super) place: Option<(usize, usize)>,
    pub(super) message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The parser's message, with the key of the error if the message does not contain it, and a remedy.
pub(super) fn in_words(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim_end();
    let key = error
        .span()
        .map(|span| line_of(text, span.start))
        .and_then(|line| line.split_once('='))
        .map(|(key, _)| key.trim().trim_matches('"'))
        .filter(|key| !key.is_empty() && !message.contains(&format!("`{key}`")));
    let key = key.map(|key| format!("`{key}`: ")).unwrap_or_default();
    with_manual(&format!("{key}{message}"))
}

pub(super) fn with_manual(message: &str) -> String {
    format!("{message}; configs/default.toml explains every key")
}

fn line_of(text: &str, offset: usize) -> &str {
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or_default()
}

pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
