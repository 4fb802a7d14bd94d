//! Another process with a lock, a socket or an interface that a starting process needs: the maximum wait for it, and
//! its name.
//!
//! After a kill, the kernel releases the resources of the process step by step, for tens of milliseconds.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time for which a process that exits may hold a resource.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two attempts to take a resource.
pub const RETRY: Duration = Duration::from_millis(1);

/// The time at which a start stops waiting for other processes. A start has one deadline for all its resources.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline 5 s from now.
    pub fn start() -> Deadline {
        Deadline(Instant::now() + PATIENCE)
    }

    /// A deadline in the past: a start tries each resource once.
    pub fn over() -> Deadline {
        Deadline(Instant::now())
    }

    /// Whether the deadline has passed.
    pub fn is_over(self) -> bool {
        Instant::now() >= self.0
    }

    /// Blocks the thread for this duration. Returns false at once if the deadline has passed.
    pub fn wait(self, pause: Duration) -> bool {
        let waits = !self.is_over();
        if waits {
            thread::sleep(pause);
        }
        waits
    }
}

/// The process for a message: `process 4711 (knockplane-dataplane)`, without the name if `/proc` does not contain it. A
/// process of another PID namespace has no number (`None`, or 0) here.
pub fn describe(pid: Option<i32>) -> String {
    let Some(pid) = pid.filter(|pid| *pid > 0) else { return "a process of another PID namespace".to_owned() };
    match command_name(pid) {
        Some(name) => format!("process {pid} ({})", name.escape_debug()),
        None => format!("process {pid}"),
    }
}

/// The file name of the first word of its command line. The kernel's own name of a process is truncated to 15 bytes.
fn command_name(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next().map(String::from_utf8_lossy);
    let name = first.and_then(|first| Some(Path::new(&*first).file_name()?.to_string_lossy().into_owned()));
    name.or_else(|| Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_its_command() {
        let own = std::process::id() as i32;
        let text = describe(Some(own));
        assert!(text.starts_with(&format!("process {own} (knockplane_limits-")), "{text}");
        assert_eq!(describe(Some(i32::MAX)), format!("process {}", i32::MAX));
        assert_eq!([None, Some(0)].map(describe), ["a process of another PID namespace"; 2]);
    }

    #[test]
    fn a_deadline_that_is_over_does_not_wait() {
        assert!(!Deadline::over().wait(Duration::from_secs(60)));
        assert!(Deadline::start().wait(Duration::ZERO));
    }
}
