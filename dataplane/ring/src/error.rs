//! What can go wrong while the rings are set up. Traffic is never an error.

use std::io;
use std::time::Duration;

/// How long to wait for a process that is exiting: the kernel frees its interfaces and queues one after the other, each
/// within tens of milliseconds, and on a busy machine later.
pub(crate) const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// How often to look again.
pub(crate) const RELEASE_RETRY: Duration = Duration::from_millis(1);

/// Whether the kernel says that something belongs to another process.
pub(crate) fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// A set-up failure: what was tried, what the kernel said, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    // The kernel's words are a part of the message. As `source()`, a reader that prints the chain would print them twice.
    #[error("{action}: {cause}{}", help(.remedy))]
    System {
        /// What was tried, with the interface and queue.
        action: String,
        /// What the kernel said.
        cause: io::Error,
        /// What to do about it; may be empty.
        remedy: String,
    },
    /// The interface is not fit for use.
    #[error("{problem}{}", help(.remedy))]
    Unfit {
        /// What is wrong, with the numbers.
        problem: String,
        /// The command to run.
        remedy: String,
    },
}

fn help(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

impl Error {
    /// Whether another process holds the interface or the queue.
    pub fn is_busy(&self) -> bool {
        matches!(self, Error::System { cause, .. } if is_busy(cause))
    }

    pub(crate) fn system(action: impl Into<String>, cause: io::Error, remedy: impl Into<String>) -> Self {
        Error::System { action: action.into(), cause, remedy: remedy.into() }
    }

    pub(crate) fn unfit(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Unfit { problem: problem.into(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_said_is_told_once() {
        let error = Error::system("cannot attach", io::Error::from_raw_os_error(libc::ERANGE), "lower the MTU");
        assert!(std::error::Error::source(&error).is_none());
        assert_eq!(error.to_string().matches("os error 34").count(), 1, "{error}");
    }
}
