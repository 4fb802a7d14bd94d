//! A question before a change that may not be intended.

use std::io::{self, IsTerminal as _};

use super::Failed;
use super::output::complain;
use crate::Exit;

/// A question.
#[derive(Debug)]
pub(super) struct Question {
    /// Its words: `Apply them?`.
    pub(super) words: &'static str,
    /// The change, as in `not applied`.
    pub(super) done: &'static str,
    /// The state without the change.
    pub(super) remains: &'static str,
}

/// Asks after `about`, which tells what the change does.
///
/// # Errors
/// If the answer is not yes, or without a terminal.
pub(super) fn ask(about: &str, Question { words, done, remains }: &Question) -> Result<(), Failed> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let remedy = &format!("give `--force` if that is meant; {remains}");
        let failed = Failed::new(Exit::Unconfirmed, format!("not {done}: {about}{remedy}"));
        return Err(Failed { remedy: Some(remedy.clone()), ..failed });
    }
    complain(format_args!("{about}{words} [y/N] "));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Failed::new(Exit::Unconfirmed, format!("not {done}; {remains}"))),
    }
}
