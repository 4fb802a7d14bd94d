//! Logs panics. The hook of the standard library writes directly to standard error, and would wait for its reader.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

use crate::{AT_EXIT, LOG};

/// Sets a hook that logs a panic. The panic unwinds as usual: it ends its thread or task.
pub fn log_panics() {
    panic::set_hook(Box::new(log_panic));
}

/// Sets a hook that logs a panic in any thread and aborts the process within [`AT_EXIT`], even if the log has no
/// reader.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|info| {
        log_panic(info);
        if let Some(queue) = LOG.get() {
            queue.flush(Some(AT_EXIT));
        }
        process::abort();
    }));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let Some(queue) = LOG.get() else { return };
    let thread = thread::current();
    let mut text = format!("thread '{}' {info}\n", thread.name().unwrap_or("without a name"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text += &format!("stack backtrace:\n{backtrace}\n");
    }
    queue.push_whole_within(AT_EXIT, &text);
}
