//! Streams of events, and the audit file.

use super::sheet::Sheet;
use crate::audit::AuditStatus;

/// The numbers of the control process about events.
#[derive(Clone, Debug, Default)]
pub struct EventNumbers {
    /// Streams now.
    pub streams: usize,
    /// Gaps that streams and the audit file were told about.
    pub gaps: u64,
    /// The audit file; `None` if there is none.
    pub audit: Option<AuditStatus>,
}

/// Adds the families. Those of the audit file are absent without one.
pub(super) fn fill(sheet: &Sheet, EventNumbers { streams, gaps, audit }: &EventNumbers) {
    sheet.value("event_streams", "Streams of events, such as `knockctl monitor`.", *streams as f64);
    let help = "Gaps in the events that a stream or the audit file was told about.";
    sheet.count("event_gaps_total", help, *gaps);
    let Some(AuditStatus { lines, failures, problem }) = audit else { return };
    sheet.flag("audit_ok", "Whether the audit file is written; absent without one.", problem.is_none());
    sheet.count("audit_lines_total", "Lines written to the audit file; absent without one.", *lines);
    let help = "Attempts to write the audit file that failed; absent without one.";
    sheet.count("audit_failures_total", help, *failures);
}
