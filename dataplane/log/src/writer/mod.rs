//! The thread that writes the waiting lines. Only this thread waits for standard error.
//!
//! A line that cannot be written is lost and counted, and the writer continues with the next one. If an error
//! interrupted a line, the next write begins with a line end, so that no two lines are joined.

mod journal;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fstat, major, minor};
use rustix::io::Errno;

use crate::losses::Loss;
use crate::queue::{LineQueue, WriterTask};

/// Maximum number of bytes of one write. A write of this size to a pipe is atomic, so that lines of two processes on
/// one pipe do not mix. Source: `PIPE_BUF`, pipe(7).
const PIECE: usize = 4096;

/// Pause before another attempt if a non-blocking descriptor is writable and takes no bytes.
const RETRY: Duration = Duration::from_millis(10);

/// Device number of `/dev/null`. Source: Linux Documentation/admin-guide/devices.txt.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Destination of lines.
pub(crate) enum Output {
    StandardError(io::Stderr),
    #[cfg_attr(not(test), expect(dead_code, reason = "tests write to files and pipes"))]
    File(File),
    /// journald, with the name of this program.
    Journald(String),
    /// Standard error was closed when the process started: every line is lost.
    Closed,
}

impl Output {
    /// Standard error, as the process inherited it.
    ///
    /// Rust's runtime opens `/dev/null` for reading and writing in place of a closed descriptor 0, 1 or 2 before
    /// `main`, so that no other file of the process gets the number and receives log lines. `2>/dev/null` opens it for
    /// writing only and is a choice of the operator: those lines do not count as lost.
    pub(crate) fn standard_error() -> Output {
        let stderr = io::stderr();
        if is_replacement(stderr.as_fd()) { Output::Closed } else { Output::StandardError(stderr) }
    }

    /// journald.
    ///
    /// # Errors
    /// If it does not listen, with a remedy.
    pub(crate) fn journald() -> io::Result<Output> {
        journal::check()?;
        let program = std::env::current_exe()?;
        Ok(Output::Journald(program.file_name().unwrap_or_default().to_string_lossy().into_owned()))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Output::StandardError(stderr) => Some(stderr.as_fd()),
            Output::File(file) => Some(file.as_fd()),
            Output::Journald(_) | Output::Closed => None,
        }
    }
}

fn is_replacement(descriptor: BorrowedFd<'_>) -> bool {
    let is_null = fstat(descriptor).is_ok_and(|stat| (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE);
    is_null && fcntl_getfl(descriptor).is_ok_and(|flags| flags.contains(OFlags::RDWR))
}

/// The writer.
pub(crate) struct Writer<R> {
    queue: Arc<LineQueue>,
    output: Output,
    /// Formats the line that reports a loss.
    report: R,
    /// Whether the last written byte did not end a line.
    cut: bool,
}

impl<R: Fn(&Loss<'_>) -> Vec<u8>> Writer<R> {
    pub(crate) fn new(queue: Arc<LineQueue>, output: Output, report: R) -> Writer<R> {
        Writer { queue, output, report, cut: false }
    }

    /// Writes until the process ends.
    pub(crate) fn run(mut self) {
        loop {
            self.turn();
        }
    }

    /// Waits for a task and executes it.
    fn turn(&mut self) {
        match self.queue.next() {
            WriterTask::Line(line) => {
                let problem = self.write(&line.text);
                self.queue.written(&line, problem);
            }
            WriterTask::Report(losses) => {
                for loss in losses.iter() {
                    let problem = self.write(&(self.report)(&loss));
                    let failed = problem.is_some();
                    self.queue.reported(loss, problem);
                    if failed {
                        break;
                    }
                }
            }
        }
    }

    /// Writes the whole text. Returns the reason if that fails.
    fn write(&mut self, text: &[u8]) -> Option<String> {
        if let Output::Journald(program) = &self.output {
            return journal::send(program, text).err().map(|error| format!("journald: {error}"));
        }
        if self.output.descriptor().is_none() {
            return Some("standard error was closed when the process started".to_owned());
        }
        let ended = if self.cut { self.write_pieces(b"\n") } else { Ok(()) };
        ended.and_then(|()| self.write_pieces(text)).err().map(|error| error.to_string())
    }

    fn write_pieces(&mut self, text: &[u8]) -> io::Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let Some(descriptor) = self.output.descriptor() else { return Ok(()) };
            match rustix::io::write(descriptor, &rest[..rest.len().min(PIECE)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.cut = rest[count - 1] != b'\n';
                    rest = &rest[count..];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_until_writable(descriptor),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn wait_until_writable(descriptor: BorrowedFd<'_>) {
    let mut descriptors = [PollFd::new(&descriptor, PollFlags::OUT)];
    // A signal, or an error of the descriptor, which the next write returns.
    if poll(&mut descriptors, None).is_err() || descriptors[0].revents().contains(PollFlags::OUT) {
        // The pipe may have room for less than a piece.
        thread::sleep(RETRY);
    }
}

#[cfg(test)]
mod tests;
