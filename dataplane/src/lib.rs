//! The dataplane: the process between the two interfaces. It starts alone, with the last good rules, and lives on
//! when the control process dies. When it dies itself, nothing is forwarded.
//!
//! A packet's way begins in [`worker`]; how the process is put together stands in [`start`].

// A macro that prints panics if nobody reads.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod clock;
mod config;
mod counters;
mod drift;
mod early;
mod generation;
mod held;
mod holder;
mod idle;
mod manager;
mod memory;
mod names;
mod requirements;
mod start;
mod state_dir;
mod store;
mod worker;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use knockplane_limits::descriptors;
use knockplane_log::{AT_EXIT, Format};
use signal_hook::consts::SIGHUP;

use crate::config::Config;
use crate::holder::Deadline;
use crate::start::StartError;
use crate::state_dir::StateDir;

/// Exit codes, the same for all of the project's programs.
const RUNTIME: u8 = 1;
const CONFIGURATION: u8 = 3;

/// How long a process that could not start waits until its reasons are read. It serves nothing, and its reasons may be
/// longer than a pipe holds.
const NOT_STARTED: Duration = Duration::from_secs(2);

/// An inline port-knocking firewall: drops everything between two interfaces, and opens for whoever knocked.
#[derive(Parser)]
#[command(name = "knockplane-dataplane", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/knockplane/knockplane.toml")]
    config: PathBuf,
    /// Check the configuration and the rules that it names, and end. Touches no interface.
    #[arg(long)]
    check: bool,
    /// Start without the stored rules and entries, for once: their files are set aside under other names, the rules of
    /// the configured file run, and lists begin without operators' entries.
    #[arg(long, conflicts_with = "check")]
    without_state: bool,
    /// How to log, to standard error. What to log is said in RUST_LOG, for example `debug`.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

/// The command line, for its manual.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The whole process, from command line to exit code.
pub fn main() -> ExitCode {
    // Before anything else: until it is caught, SIGHUP ends the process. One that comes early waits for the manager.
    let hangup = Arc::new(AtomicBool::new(false));
    let caught = signal_hook::flag::register(SIGHUP, Arc::clone(&hangup));
    let arguments = Arguments::parse();
    if let Err(error) = knockplane_log::start(arguments.log_format) {
        knockplane_log::write(&format!("knockplane-dataplane: cannot start the log: {error}\n"));
        return RUNTIME.into();
    }
    descriptors::raise();
    if let Err(error) = caught {
        return failed(RUNTIME, anyhow::Error::new(error).context("cannot catch signals"), Some(NOT_STARTED));
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return failed(CONFIGURATION, error.into(), Some(NOT_STARTED).filter(|_| !arguments.check)),
    };
    if arguments.check {
        return check(&arguments, &config);
    }
    // A dataplane that lost a thread would forward on some queues and not on others. It ends instead, and the kernel
    // closes the wire.
    knockplane_log::abort_on_panic();
    let deadline = Deadline::start();
    // Another dataplane may have it, which is no fault of the configuration.
    let state = StateDir::open(&config.state_dir, deadline).and_then(|state| {
        let aside = if arguments.without_state { state.set_aside()? } else { Vec::new() };
        for file in aside {
            tracing::warn!(file = %file.display(), "set aside: starting without the stored rules and entries");
        }
        Ok(state)
    });
    let state = match state {
        Ok(state) => state,
        Err(error) => return failed(RUNTIME, error, Some(NOT_STARTED)),
    };
    let ready = format!(
        "ready: {} (outside) to {} (inside); closed when this process ends: no process, no forwarding",
        config.outside, config.inside
    );
    let manager = match start::start(config, state, deadline) {
        Ok(manager) => manager,
        Err(StartError::Rules(error)) => return failed(CONFIGURATION, error, Some(NOT_STARTED)),
        Err(StartError::Other(error)) => return failed(RUNTIME, error, Some(NOT_STARTED)),
    };
    match manager.run(&hangup, || tracing::info!("{ready}")) {
        Ok(()) => {
            knockplane_log::flush(Some(AT_EXIT));
            ExitCode::SUCCESS
        }
        Err(error) => failed(RUNTIME, error, Some(AT_EXIT)),
    }
}

/// What a process that ends says, and how long it waits until that is read; without a limit, as long as the reader takes.
fn failed(code: u8, error: anyhow::Error, patience: Option<Duration>) -> ExitCode {
    knockplane_log::write(&format!("knockplane-dataplane: {error:#}\n"));
    knockplane_log::flush(patience);
    code.into()
}

/// `--check`, which people and scripts run: it takes the time that its readers take.
fn check(arguments: &Arguments, config: &Config) -> ExitCode {
    if let Err(error) = start::check(config) {
        return failed(CONFIGURATION, error, None);
    }
    let (config, rules) = (arguments.config.display(), config.rules.display());
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "{config}: valid, and so are the rules in {rules}").and_then(|()| stdout.flush());
    match said {
        // A reader that has seen enough, as `head` has, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            failed(RUNTIME, anyhow::Error::new(error).context("cannot write to standard output"), None)
        }
        _ => {
            knockplane_log::flush(None);
            ExitCode::SUCCESS
        }
    }
}
