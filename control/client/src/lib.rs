//! `knocker` knocks at a door, waits until it opens, and runs a command.
//!
//! Guarantees:
//! - All arguments are checked before the first packet: half a knock is worse than none, because the door counts it.
//! - Steps are sent in the given order, one packet each, without retransmissions.
//! - Exit codes: 0 done, 1 failed, 2 invalid command line or profile. With `--then`, the exit code of the command.
//!
//! The order of actions: parse the command line (`cli`), read the profile if one is named (`profiles`), read
//! passphrases from standard input (`passphrase`), parse the steps (`plan`, `step`, `services`, `transport`), resolve
//! the host (`host`), send (`send`, `echo`), wait for the port and run the command (`then`).

// The print macros panic if the reader has closed the output, which would end a knock in the middle.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod cli;
mod echo;
mod host;
mod output;
mod passphrase;
mod plan;
mod profiles;
mod send;
mod services;
mod step;
mod then;
mod transport;

use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory, Parser};
use knockplane_limits::input::{InputError, SHARED_PROFILE};

use crate::cli::{Cli, Target};
use crate::host::Resolved;
use crate::output::{answer, complain};
use crate::plan::{Plan, UsageError};
use crate::profiles::{ProfileError, Profiles};
use crate::send::{SendError, Sender};

/// The command line, for the manual page.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // The text of each error includes its cause, so the chain of causes is not printed.
            complain(format_args!("error: {error}"));
            ExitCode::from(if error.is::<UsageError>() || error.is::<ProfileError>() { 2 } else { 1 })
        }
    }
}

fn run(mut cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(text) = about_profiles(&cli)? {
        answer(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    // A knock without a profile must not fail because of the file of profiles.
    if cli.steps.is_empty() {
        let profiles = Profiles::load(cli.profiles.as_deref())?;
        if let Target::Profile(name) = cli.target(|name| profiles.get(name).is_some()) {
            cli.fill(profiles.find(&name)?);
            warn(&profiles);
        }
    } else {
        cli.target(|_| false);
    }
    let cli = &cli;
    let mut arguments = cli.arguments();
    if cli.passphrase_stdin {
        passphrase::complete(&mut arguments)?;
    }
    let plan = Plan::new(cli, &arguments)?;
    for warning in &plan.warnings {
        complain(format_args!("warning: {warning}"));
    }
    let host = cli.host.as_deref().unwrap_or_default();
    let Resolved { doors, missing } = host::resolve(host, cli.families())?;
    if let Some(family) = missing {
        complain(format_args!("warning: `{host}` has no {family} address: knocking over the other family alone"));
    }
    plan.check_families(&doors)?;

    if cli.dry_run {
        answer(&plan.describe(&doors))?;
        return Ok(ExitCode::SUCCESS);
    }
    if cli.verbose {
        doors.iter().for_each(|door| complain(format_args!("knocking at {}", door.ip())));
    }

    let doors = knock(&plan, &doors, cli.verbose)?;

    if plan.waits() {
        thread::sleep(plan.grace);
    }
    if let Some(port) = plan.wait_port {
        then::wait_for_port(&doors, port, plan.wait)?;
        if cli.verbose {
            complain(format_args!("port {port} is open"));
        }
    }
    match plan.command.split_first() {
        Some((program, arguments)) => then::run(program, arguments),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Runs `--list`, `--share` or `--add`; `None` if the command line has none of them.
fn about_profiles(cli: &Cli) -> anyhow::Result<Option<String>> {
    if !cli.list && cli.share.is_none() && cli.add.is_none() {
        return Ok(None);
    }
    let profiles = Profiles::load(cli.profiles.as_deref())?;
    warn(&profiles);
    Ok(Some(match (&cli.share, &cli.add) {
        (Some(name), _) => {
            let line = profiles.share(name)?;
            complain(format_args!("warning: every reader of this line can knock; send it over a private channel"));
            line + "\n"
        }
        (_, Some(line)) if line == "-" => profiles.add(&line_from_input()?)?,
        (_, Some(line)) => profiles.add(line)?,
        _ => profiles.list(),
    }))
}

/// The first line of standard input, up to the limit for shared profiles.
fn line_from_input() -> anyhow::Result<String> {
    let limit = SHARED_PROFILE;
    let mut line = String::new();
    let read = io::stdin().lock().take(limit.bytes + 1).read_line(&mut line);
    read.map_err(|error| anyhow::anyhow!("cannot read a line from standard input: {error}"))?;
    if line.len() as u64 > limit.bytes {
        anyhow::bail!("the line from standard input {}", InputError::TooLong(limit));
    }
    Ok(line)
}

fn warn(profiles: &Profiles) {
    for warning in &profiles.warnings {
        complain(format_args!("warning: {warning}"));
    }
}

/// Sends the steps in order to all addresses, with the delay between them. Returns the addresses for which all steps were sent:
/// at least one. A failure for another address is a warning, because a host can have an IPv6 address and this network no IPv6.
fn knock(plan: &Plan, doors: &[SocketAddr], verbose: bool) -> Result<Vec<SocketAddr>, SendError> {
    let mut senders = some_of(doors, |door| Sender::open(*door, &plan.steps))?;
    for (index, step) in plan.steps.iter().enumerate() {
        if index > 0 && !plan.delay.is_zero() {
            thread::sleep(plan.delay);
        }
        senders = some_of(senders, |sender| sender.send(index, step).map(|()| sender))?;
        if verbose {
            for sender in &senders {
                complain(format_args!("step {}: {}", index + 1, step.describe(sender.door())));
            }
        }
    }
    Ok(senders.iter().map(Sender::door).collect())
}

/// The results of the attempts that succeed, with a warning for each that fails. If all fail, the last error.
fn some_of<T, U>(
    of: impl IntoIterator<Item = T>,
    mut attempt: impl FnMut(T) -> Result<U, SendError>,
) -> Result<Vec<U>, SendError> {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for one in of {
        match attempt(one) {
            Ok(result) => done.push(result),
            Err(error) => errors.push(error),
        }
    }
    if done.is_empty()
        && let Some(error) = errors.pop()
    {
        return Err(error);
    }
    errors.iter().for_each(|error| complain(format_args!("warning: {error}")));
    Ok(done)
}
