//! What the program writes. A reader that is gone or a disk that is full never ends it in the middle of a knock.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes an answer to standard output. A reader that has seen enough, as `head` has, is no failure.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If that fails, there is nobody to tell.
pub(crate) fn complain(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
