//! The command line options of the log.

use crate::{Format, start, write};

/// The options of the log, the same for both processes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LogOptions {
    /// Format of the log lines on standard error, or `journald` for fields of the journal. RUST_LOG selects the lines, for example
    /// `debug`
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

impl LogOptions {
    /// Starts the log. If that fails, writes the reason to standard error in the name of the program.
    ///
    /// Returns whether the log runs.
    #[must_use]
    pub fn start(self, program: &str) -> bool {
        let started = start(self.log_format);
        if let Err(error) = &started {
            write(&format!("{program}: cannot start the log: {error}\n"));
        }
        started.is_ok()
    }
}
