//! What `knockctl` writes. A reader that is gone or a disk that is full is an exit code at most, never a panic.

use std::fmt::Display;
use std::io::{self, Write as _};

use crate::Exit;

/// Writes an answer to standard output. A reader that has seen enough, as `head` has, is no failure.
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
/// If nobody reads it, or it cannot be written.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// Writes to standard error. If that fails, there is nobody to tell, and the exit code says what became of the command.
pub(super) fn complain(text: impl Display) {
    // The test runner keeps what this macro prints for tests that fail.
    #[cfg(test)]
    eprint!("{text}");
    // At once, so that lines of several programs do not mix.
    #[cfg(not(test))]
    let _ = io::stderr().lock().write_all(text.to_string().as_bytes());
}
