//! The dataplane: the process between the two interfaces. It starts alone, with the last good rules, and lives on
//! when the control process dies. When it dies itself, nothing is forwarded.
//!
//! A packet's way begins in [`worker`]; how the process is put together stands in [`start`].

mod clock;
mod config;
mod counters;
mod early;
mod generation;
mod held;
mod holder;
mod idle;
mod manager;
mod memory;
mod start;
mod state_dir;
mod store;
mod worker;

use std::io::{self, IsTerminal as _};
use std::panic;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use signal_hook::consts::SIGHUP;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::holder::Deadline;
use crate::start::StartError;
use crate::state_dir::StateDir;

/// Exit codes, the same for all of the project's programs.
const RUNTIME: u8 = 1;
const CONFIGURATION: u8 = 3;

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
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    // Before anything else: until it is caught, SIGHUP ends the process. One that comes early waits for the manager.
    let hangup = Arc::new(AtomicBool::new(false));
    let caught = signal_hook::flag::register(SIGHUP, Arc::clone(&hangup));
    let arguments = Arguments::parse();
    log(arguments.log_format);
    let failed = |code: u8, error: anyhow::Error| {
        eprintln!("knockplane-dataplane: {error:#}");
        ExitCode::from(code)
    };
    if let Err(error) = caught {
        return failed(RUNTIME, anyhow::Error::new(error).context("cannot catch signals"));
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("knockplane-dataplane: {error}");
            return CONFIGURATION.into();
        }
    };
    if arguments.check {
        return match start::check(&config) {
            Ok(()) => {
                println!("{}: valid, and so are the rules in {}", arguments.config.display(), config.rules.display());
                ExitCode::SUCCESS
            }
            Err(error) => failed(CONFIGURATION, error),
        };
    }
    die_whole();
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
        Err(error) => return failed(RUNTIME, error),
    };
    match run(config, state, deadline, &hangup) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Rules(error)) => failed(CONFIGURATION, error),
        Err(StartError::Other(error)) => failed(RUNTIME, error),
    }
}

fn run(config: Config, state: StateDir, deadline: Deadline, hangup: &AtomicBool) -> Result<(), StartError> {
    let (outside, inside) = (config.outside.clone(), config.inside.clone());
    let manager = start::start(config, state, deadline)?;
    manager.run(hangup, || {
        tracing::info!(
            "ready: {outside} (outside) to {inside} (inside); closed when this process ends: no process, no forwarding"
        );
    })?;
    Ok(())
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// A dataplane that lost a thread would forward on some queues and not on others. It ends instead, and the kernel
/// closes the wire.
fn die_whole() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        process::abort();
    }));
}
