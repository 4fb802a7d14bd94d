//! The signals that end a command that goes on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failed;
use crate::Exit;

/// SIGINT and SIGTERM, which are caught as long as this value exists.
pub(super) struct EndSignals {
    interrupted: Signal,
    terminated: Signal,
}

impl EndSignals {
    pub(super) fn new() -> Result<EndSignals, Failed> {
        let failed = |error: io::Error| Failed::new(Exit::Runtime, format!("signals cannot be handled: {error}"));
        let [interrupted, terminated] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(EndSignals { interrupted: interrupted.map_err(failed)?, terminated: terminated.map_err(failed)? })
    }

    /// Waits for one of them.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}
