//! Standard output and standard error. A write that fails never ends the program in the middle of a knock.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes an answer to standard output. A reader that closed the pipe, as `head` does, is not a failure.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. A failure is ignored: there is no other place to report it.
pub(crate) fn complain(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
