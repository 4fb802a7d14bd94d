//! The log of both processes: lines on standard error, or to journald. No thread of the process waits for their output.
//!
//! The thread that logs a line formats it and puts it in a bounded queue. One thread writes the queue to standard
//! error. A stalled or missing reader, a full disk and a closed descriptor have no other effect than lost log lines.
//! Lost lines are counted by kind, packet lines by rule, and the counts are logged when writing works again.
//!
//! ```text
//!  tracing::info!(…) ─► format ─► queue, with room for each kind ─► writer thread ─► standard error
//!                                       │ no room                       │ error
//!                                       └──────────► lost lines ◄───────┘
//! ```
//!
//! A process has one log, like the subscriber of tracing: [`start`] starts it once.
//!
//! | module     | owns |
//! |------------|------|
//! | [`kind`]   | the kinds of lines, and how a line states its kind |
//! | `losses`   | lost lines by kind and rule |
//! | `options`  | the command line options of the log |
//! | `queue`    | the lines that wait |
//! | `writer`   | the thread that writes them |
//! | `panics`   | what a panic logs |

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod kind;
mod losses;
mod options;
mod panics;
mod queue;
mod writer;

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::kind::LogKind;
use crate::losses::Loss;
pub use crate::losses::RuleName;
pub use crate::options::LogOptions;
pub use crate::panics::{abort_on_panic, log_panics};
pub use crate::queue::LogState;
use crate::queue::{LineQueue, LogLine};
use crate::writer::{Output, Writer};

/// Maximum time for which an ending process waits for its last lines. A working reader reads them much faster, and the
/// wait hardly delays a restart by a service manager.
pub const AT_EXIT: Duration = Duration::from_millis(200);

/// Maximum time for which a process that cannot start waits for its last lines. The process serves nothing yet, and its
/// error messages may be longer than a pipe's buffer.
pub const AT_FAILED_START: Duration = Duration::from_secs(2);

/// The target of lines that report losses. The writer writes them itself, so they need no room in the queue.
const REPORT: &str = "knockplane_log::report";

static LOG: OnceLock<Arc<LineQueue>> = OnceLock::new();

/// The format of lines; set when the log starts.
static FORMAT: OnceLock<Format> = OnceLock::new();

thread_local! {
    /// The rule whose packet this thread is logging.
    static RULE: RefCell<Option<RuleName>> = const { RefCell::new(None) };
    /// On the writer thread, the text of the report that is being formatted.
    static REPORTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Format of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
    /// To journald itself, with a field for each value.
    Journald,
}

/// Starts the log, which writes tracing's events as lines to standard error. `RUST_LOG` filters them; the default is
/// `info`.
///
/// # Errors
/// If the writer thread cannot be started, if the log was started before, or if journald does not listen.
pub fn start(format: Format) -> io::Result<()> {
    let output = match format {
        Format::Journald => Output::journald()?,
        Format::Text | Format::Json => Output::standard_error(),
    };
    let queue = Arc::new(LineQueue::default());
    // The writer starts first, because only it writes queued lines.
    let writer = Writer::new(Arc::clone(&queue), output, report);
    thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
    _ = FORMAT.set(format);
    LOG.set(Arc::clone(&queue)).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(format == Format::Text && io::stderr().is_terminal())
        // By default, the library prints its own errors to standard error, and panics if that fails.
        .log_internal_errors(false)
        .with_writer(Lines(queue));
    match format {
        Format::Text => subscriber.try_init(),
        Format::Json | Format::Journald => subscriber.json().try_init(),
    }
    .map_err(io::Error::other)
}

/// Logs a packet. `log` must log one line of kind [`LogKind::Packet`]; it is not called if the queue has no room for
/// that. A lost line is counted by its rule.
pub fn packet(rule: &RuleName, log: impl FnOnce()) {
    if let Some(queue) = LOG.get()
        && !queue.has_room(LogKind::Packet)
    {
        queue.lose(LogKind::Packet, Some(rule), 1);
        return;
    }
    RULE.set(Some(rule.clone()));
    log();
    RULE.set(None);
}

/// Whether every value of a line has its own field, as in JSON.
pub fn has_fields() -> bool {
    FORMAT.get().is_some_and(|format| *format != Format::Text)
}

/// Counts lines that were not formatted as lost. Packet lines have a rule.
pub fn omit(kind: LogKind, rule: Option<&RuleName>, lines: u64) {
    if let Some(queue) = LOG.get()
        && lines > 0
    {
        queue.lose(kind, rule, lines);
    }
}

/// Writes text to standard error unchanged, after the waiting lines. The text is never truncated or dropped for lack of
/// room. A process uses this for its last messages.
pub fn write(text: &str) {
    match LOG.get() {
        Some(queue) => queue.push_whole(text),
        // There is no other output that could report a failure.
        None => _ = io::stderr().write_all(text.as_bytes()),
    }
}

/// Waits until every line is written or lost, at most for `within`; `None` is no limit. Returns whether every line was
/// written or lost.
pub fn flush(within: Option<Duration>) -> bool {
    LOG.get().is_none_or(|queue| queue.flush(within))
}

/// The state of the log.
pub fn status() -> LogState {
    LOG.get().map(|queue| queue.status()).unwrap_or_default()
}

/// The line that reports a loss, as the subscriber formats it; empty if the filter drops it.
fn report(loss: &Loss<'_>) -> Vec<u8> {
    let Loss { kind, rule, lines } = *loss;
    let (noun, kind) = (if lines == 1 { "line" } else { "lines" }, kind.name());
    match rule {
        Some(RuleName { id, number }) => tracing::warn!(
            target: REPORT,
            { lost.kind = kind, rule.id = &**id, rule.number = &**number, lost.lines = lines },
            "{lines} {noun} of rule {number} not logged"
        ),
        None => tracing::warn!(
            target: REPORT,
            { lost.kind = kind, lost.lines = lines },
            "{lines} {noun} of kind {kind} not logged"
        ),
    }
    REPORTED.take()
}

/// The destination of the subscriber's lines.
struct Lines(Arc<LineQueue>);

/// One line during formatting. It is queued when this is dropped.
struct Formatting<'q> {
    queue: &'q LineQueue,
    /// `None` for a report, which the writer thread waits for.
    kind: Option<LogKind>,
    text: Vec<u8>,
}

impl<'q> MakeWriter<'q> for Lines {
    type Writer = Formatting<'q>;

    fn make_writer(&'q self) -> Formatting<'q> {
        Formatting { queue: &self.0, kind: Some(LogKind::Other), text: Vec::new() }
    }

    fn make_writer_for(&'q self, metadata: &Metadata<'_>) -> Formatting<'q> {
        let kind = (metadata.target() != REPORT).then(|| LogKind::of(metadata));
        Formatting { queue: &self.0, kind, text: Vec::new() }
    }
}

impl Write for Formatting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Formatting<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        match self.kind {
            Some(kind) => {
                let rule = if kind == LogKind::Packet { RULE.take() } else { None };
                self.queue.push(LogLine { kind, rule, text });
            }
            None => REPORTED.set(text),
        }
    }
}
