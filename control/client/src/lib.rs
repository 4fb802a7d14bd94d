//! `knocker` knocks at a door, waits until it opens, and runs a command.
//!
//! What it promises:
//! - Every argument is checked before the first packet: half a knock is worse than none, because the door counts it.
//! - Steps leave in exactly the order given, one packet each, never repeated.
//! - Exit codes: 0 done, 1 something failed, 2 the command line is wrong. With `--then`, the command's own.
//!
//! What happens, in order: read the arguments (`cli`), and a profile if one is named (`profiles`), turn each step into packets to send (`step`, `services`),
//! add what standard input says (`passphrase`), find the addresses (`host`), send (`send`, `echo`), wait and run (`then`).

// A macro that prints panics if nobody reads, and half a knock is worse than none.
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

/// The command line, for its manual.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole process, from command line to exit code.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Every error here tells its cause itself, between the sentence and the remedy: not the chain as well.
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
    // A host with steps needs no profiles, and does not fail because of a file that it does not read.
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

/// What is asked of the profiles themselves, if that is what the command line is about.
fn about_profiles(cli: &Cli) -> anyhow::Result<Option<String>> {
    if !cli.list && cli.share.is_none() && cli.add.is_none() {
        return Ok(None);
    }
    let profiles = Profiles::load(cli.profiles.as_deref())?;
    warn(&profiles);
    Ok(Some(match (&cli.share, &cli.add) {
        (Some(name), _) => {
            let line = profiles.share(name)?;
            complain(format_args!(
                "warning: whoever reads this line can knock; send it where only the one it is for reads it"
            ));
            line + "\n"
        }
        (_, Some(line)) if line == "-" => profiles.add(&line_from_input()?)?,
        (_, Some(line)) => profiles.add(line)?,
        _ => profiles.list(),
    }))
}

/// The first line of standard input, if it is no longer than a profile can be.
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

/// Sends the steps in order to every address, with the delay between them. Returns the addresses that all steps left for:
/// at least one. Another one that fails is a warning, because a host can have an IPv6 address and this network no IPv6.
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

/// What succeeds, if anything does; the others' errors become warnings. Otherwise the last error.
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
