//! The dataplane: the process between the two interfaces. It starts with the last valid rules and without the control
//! process, and continues to run if the control process ends. When the dataplane ends, nothing is forwarded.
//!
//! [`worker`] contains the path of a packet. [`start`] creates the parts of the process.

// The print macros panic if their output is closed.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod administration;
mod carrier;
mod clock;
mod config;
mod control_socket;
mod counters;
mod doctor;
mod drift;
mod fast_path;
mod generation;
mod history;
mod holder;
mod huge_pages;
mod idle;
mod journal;
mod manager;
mod memory;
mod names;
mod reorder;
mod requirements;
mod shared;
mod start;
mod state_dir;
mod static_entries;
mod stored_counters;
mod stored_rules;
mod stored_settings;
mod trace;
mod traffic_sample;
mod worker;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use knockplane_limits::descriptors;
use knockplane_limits::predecessor::Deadline;
use knockplane_log::{AT_EXIT, AT_FAILED_START, LogOptions};
use knockplane_policy::doctor::{HostFinding, Level};
use knockplane_policy::exit::Exit;
use signal_hook::consts::SIGHUP;

use crate::config::Config;
use crate::requirements::configured;
use crate::start::StartError;
use crate::state_dir::StateDir;

/// The configuration file if the command line names none.
const DEFAULT_CONFIG: &str = "/etc/knockplane/knockplane.toml";

/// An inline port-knocking firewall: drops everything between two interfaces, and opens for sources that knocked.
#[derive(Parser)]
#[command(name = "knockplane-dataplane", version)]
struct Arguments {
    /// Configuration file; /etc/knockplane/knockplane.toml without one.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Check the configuration, the rules, the stored state and the interfaces, as a start does. Changes nothing.
    ///
    /// Exit codes: 0 a start works, 1 a start is refused in the present state of this host, 3 no change of the host
    /// helps.
    #[arg(long)]
    check: bool,
    /// Write a report on this host, and with --config on a start with that file, as JSON to standard output. Changes nothing.
    /// `knockctl doctor` shows it.
    ///
    /// Exit codes: 0 all is well, 1 the filter works, with warnings, 3 it cannot work.
    #[arg(long, conflicts_with_all = ["check", "without_state"])]
    doctor: bool,
    /// Start without the stored rules and entries, for once: their files are set aside under other names, the rules of
    /// the configured file run, and lists begin without operators' entries.
    #[arg(long, conflicts_with = "check")]
    without_state: bool,
    #[command(flatten)]
    log: LogOptions,
}

/// The command line, for its manual.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The whole process, from command line to exit code.
pub fn main() -> ExitCode {
    // This comes first: SIGHUP ends the process until it has a handler. The flag keeps an early SIGHUP for the manager.
    let hangup = Arc::new(AtomicBool::new(false));
    let caught = signal_hook::flag::register(SIGHUP, Arc::clone(&hangup));
    let arguments = Arguments::parse();
    // Before the first thread.
    knockplane_ring::make_room();
    if !arguments.log.start("knockplane-dataplane") {
        return Exit::Runtime.into();
    }
    descriptors::raise();
    if let Err(error) = caught {
        return failed(Exit::Runtime, anyhow::Error::new(error).context("cannot catch signals"), Some(AT_FAILED_START));
    }
    if arguments.doctor {
        return examine(arguments.config.as_deref());
    }
    let file = arguments.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return failed(Exit::Invalid, error.into(), Some(AT_FAILED_START).filter(|_| !arguments.check)),
    };
    if arguments.check {
        return check(&config);
    }
    let wrong: Vec<_> = configured::early(&config).findings.into_iter().filter(HostFinding::is_refused).collect();
    if let Some(error) = doctor::as_error(&wrong) {
        return failed(Exit::Invalid, error, Some(AT_FAILED_START));
    }
    // Without one of its threads, a dataplane would forward on some queues only. A panic therefore ends the process,
    // and the kernel stops all forwarding.
    knockplane_log::abort_on_panic();
    let deadline = Deadline::start();
    // Another dataplane may use the directory, which is not an error of the configuration.
    let state = StateDir::open(&config.state_dir, deadline).and_then(|state| {
        let aside = if arguments.without_state { state.set_aside()? } else { Vec::new() };
        for file in aside {
            tracing::warn!(file = %file.display(), "set aside: starting without the stored rules and entries");
        }
        Ok(state)
    });
    let state = match state {
        Ok(state) => state,
        Err(error) => return failed(Exit::Runtime, error, Some(AT_FAILED_START)),
    };
    let ready = format!(
        "ready: {} (outside) to {} (inside); closed when this process ends: no process, no forwarding",
        config.outside, config.inside
    );
    let manager = match start::start(config, state, deadline) {
        Ok(manager) => manager,
        Err(StartError::Configuration(error)) => return failed(Exit::Invalid, error, Some(AT_FAILED_START)),
        Err(StartError::Other(error)) => return failed(Exit::Runtime, error, Some(AT_FAILED_START)),
    };
    match manager.run(&hangup, || tracing::info!("{ready}")) {
        Ok(()) => {
            knockplane_log::flush(Some(AT_EXIT));
            Exit::Ok.into()
        }
        Err(error) => failed(Exit::Runtime, error, Some(AT_EXIT)),
    }
}

/// Writes the error of a process that ends, and waits at most `patience` until the reader has read it; `None` is no
/// limit.
fn failed(exit: Exit, error: anyhow::Error, patience: Option<Duration>) -> ExitCode {
    knockplane_log::write(&format!("knockplane-dataplane: {error:#}\n"));
    knockplane_log::flush(patience);
    exit.into()
}

/// Runs `--check`. People and scripts read the output, so the write has no time limit.
fn check(config: &Config) -> ExitCode {
    let (wrong, warnings): (Vec<_>, Vec<_>) = doctor::of_start(config)
        .into_iter()
        .filter(|finding| finding.level > Level::Ok)
        .partition(HostFinding::is_refused);
    for warning in &warnings {
        knockplane_log::write(&format!("warning: {warning}\n"));
    }
    let (file, rules) = (config.file.display(), config.rules.display());
    if let Some(error) = doctor::as_error(&wrong) {
        if wrong.iter().any(|finding| finding.level == Level::Invalid) {
            return failed(Exit::Invalid, error, None);
        }
        knockplane_log::write(&format!("{file} is valid, but a start on this host would be refused now:\n"));
        return failed(Exit::Runtime, error, None);
    }
    print(&format!("{file}: valid, and so are the rules in {rules}\n"), Exit::Ok)
}

/// Runs `--doctor`.
fn examine(file: Option<&Path>) -> ExitCode {
    let report = doctor::report(file);
    let exit = report.exit();
    match serde_json::to_string_pretty(&report) {
        Ok(text) => print(&(text + "\n"), exit),
        Err(error) => failed(Exit::Runtime, error.into(), None),
    }
}

/// Writes to standard output, and returns the exit code.
fn print(text: &str, exit: Exit) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that closes the pipe early, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            failed(Exit::Runtime, anyhow::Error::new(error).context("cannot write to standard output"), None)
        }
        _ => {
            knockplane_log::flush(None);
            exit.into()
        }
    }
}
