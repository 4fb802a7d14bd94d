//! Failures to set up interfaces, program and rings. Traffic is never an error.

use std::io;
use std::time::Duration;

/// Time limit for waiting for a process that is exiting. The kernel frees the interfaces and queues of that process one
/// after the other, each within tens of milliseconds, and later on a busy machine.
pub(crate) const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Time between two attempts.
pub(crate) const RELEASE_RETRY: Duration = Duration::from_millis(1);

/// Whether the error means that an interface or a queue belongs to another process.
pub(crate) fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// A set-up failure: the action, the kernel's error, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// A system call failed.
    // The kernel's error is a part of the message. As `source()`, a program that prints the chain would print it twice.
    #[error("{action}: {cause}{}", help(.remedy))]
    System {
        /// The action that failed, with the interface and queue.
        action: String,
        /// The kernel's error.
        cause: io::Error,
        /// The remedy; may be empty.
        remedy: String,
    },
    /// The interface is not fit for use.
    #[error("{problem}{}", help(.remedy))]
    Unfit {
        /// The problem, with the numbers.
        problem: String,
        /// The command to run.
        remedy: String,
    },
}

fn help(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

impl RingError {
    /// Whether another process holds the interface or the queue.
    pub fn is_busy(&self) -> bool {
        matches!(self, RingError::System { cause, .. } if is_busy(cause))
    }

    pub(crate) fn system(action: impl Into<String>, cause: io::Error, remedy: impl Into<String>) -> Self {
        RingError::System { action: action.into(), cause, remedy: remedy.into() }
    }

    pub(crate) fn unfit(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        RingError::Unfit { problem: problem.into(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_the_kernel_is_printed_once() {
        let error = RingError::system("cannot attach", io::Error::from_raw_os_error(libc::ERANGE), "lower the MTU");
        assert!(std::error::Error::source(&error).is_none());
        assert_eq!(error.to_string().matches("os error 34").count(), 1, "{error}");
    }
}
