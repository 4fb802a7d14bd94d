//! Standard output and standard error of `knockctl`. A failed write changes at most the exit code; it never panics.

use std::fmt::Display;
use std::io::{self, Write as _};

use super::Failed;
use crate::Exit;

/// Writes an answer to standard output. A reader that closed the pipe, as `head` does, is not a failure.
pub(super) fn answer(text: &str) -> Exit {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("knockctl: cannot write the answer: {error}\n"));
            Exit::Runtime
        }
        _ => Exit::Ok,
    }
}

/// Writes to standard output.
///
/// # Errors
/// If the reader has closed the pipe, or the write fails.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// Writes a part of an answer that goes on. Returns whether the reader still reads.
pub(super) fn write_part(text: &str) -> Result<bool, Failed> {
    match write(text) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failed::new(Exit::Runtime, format!("cannot write the answer: {error}"))),
    }
}

/// Writes to standard error. A failure is ignored: the exit code still has the result of the command.
pub(super) fn complain(text: impl Display) {
    // The test runner shows the output of this macro for tests that fail.
    #[cfg(test)]
    eprint!("{text}");
    // In one write, so that lines of several programs do not mix.
    #[cfg(not(test))]
    let _ = io::stderr().lock().write_all(text.to_string().as_bytes());
}
