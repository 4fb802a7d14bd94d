//! The audit file: who was let in, and what operators changed, one JSON document a line.
//!
//! The audit is a reader of [`crate::events`] like any other, so a slow or full disk delays nothing. Its position is the id of
//! its last line: after a restart, or with a disk that has room again, it continues there, from the dataplane if necessary. A
//! gap is a line. Logged packets and the progress of knocks are not in it, so no flood can displace its lines.

mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use self::file::AuditFile;
use crate::events::Events;
use crate::events::filter::EventFilter;
use crate::json::Document;
use crate::json::events::EventJson;

/// Default of `[control] audit-file-bytes`.
pub const DEFAULT_FILE_BYTES: u64 = 10 << 20;

/// Default of `[control] audit-files`.
pub const DEFAULT_FILES: usize = 10;

/// Pause before another attempt to write.
const AGAIN: Duration = Duration::from_secs(1);

/// Maximum number of bytes of one write.
const MAX_WRITE: usize = 256 << 10;

/// The settings of the audit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file.
    pub path: PathBuf,
    /// Maximum length of a file in bytes.
    pub file_bytes: u64,
    /// Maximum number of files.
    pub files: usize,
    /// Lists whose entries by packets are in the audit as well.
    pub lists: Vec<String>,
}

impl AuditSettings {
    /// The defaults for this file.
    pub fn at(path: PathBuf) -> Self {
        AuditSettings { path, file_bytes: DEFAULT_FILE_BYTES, files: DEFAULT_FILES, lists: Vec::new() }
    }
}

/// The state of the audit file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditStatus {
    /// Lines written since the control process started.
    pub lines: u64,
    /// Attempts to write that failed since the control process started.
    pub failures: u64,
    /// The reason that lines are not written now; `null` if they are.
    pub problem: Option<String>,
}

/// The shared state; `None` without an audit file.
#[derive(Clone, Debug, Default)]
pub struct AuditState(Option<Arc<Mutex<AuditStatus>>>);

impl AuditState {
    /// The state of an audit file that is written.
    pub fn on() -> Self {
        AuditState(Some(Arc::default()))
    }

    /// The present state; `None` without an audit file.
    pub fn status(&self) -> Option<AuditStatus> {
        self.lock().map(|status| status.clone())
    }

    fn lock(&self) -> Option<MutexGuard<'_, AuditStatus>> {
        self.0.as_ref().map(|status| status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wrote(&self, lines: u64) {
        let Some(mut status) = self.lock() else { return };
        status.lines += lines;
        if status.problem.take().is_some() {
            info!("the audit file is written again");
        }
    }

    fn failed(&self, path: &Path, error: &io::Error) {
        let Some(mut status) = self.lock() else { return };
        status.failures += 1;
        let problem = format!("{}: {error}", path.display());
        if status.problem.as_ref() != Some(&problem) {
            warn!("the audit file cannot be written: {problem}; its lines follow when it can");
            status.problem = Some(problem);
        }
    }
}

/// Writes the audit file until the events end.
pub(crate) async fn run(settings: AuditSettings, events: Events, state: AuditState) {
    let filter = EventFilter::Audit(settings.lists.clone());
    // If the file cannot be opened now, nothing from now on is missed.
    let from_now = events.reader(filter.clone());
    let (mut file, last) = loop {
        let wanted = settings.clone();
        match blocking(move || AuditFile::open(&wanted)).await {
            Ok(opened) => break opened,
            Err(error) => state.failed(&settings.path, &error),
        }
        if events.ended_within(AGAIN).await {
            return;
        }
    };
    state.wrote(0);
    let mut reader = last.map_or(from_now, |last| events.reader_after(last, filter));
    while let Some(event) = reader.next().await {
        let (mut lines, mut count) = (line(event), 1);
        while lines.len() < MAX_WRITE
            && let Some(event) = reader.now()
        {
            lines.extend(line(event));
            count += 1;
        }
        loop {
            let written;
            (file, lines, written) = blocking(move || {
                let written = file.append(&lines);
                (file, lines, written)
            })
            .await;
            match written {
                Ok(()) => break state.wrote(count),
                Err(error) => state.failed(&settings.path, &error),
            }
            if events.ended_within(AGAIN).await {
                return;
            }
        }
    }
}

/// The line of an event.
fn line(event: EventJson) -> Vec<u8> {
    // Documents are plain data.
    let mut line = serde_json::to_vec(&Document::new(event)).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Runs code that waits for the disk on another thread.
async fn blocking<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(code).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}
