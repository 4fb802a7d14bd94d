//! `knockctl doctor`: runs `knockplane-dataplane --doctor`, and shows its report.
//!
//! All checks are in the dataplane's program, including those of its start.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use knockplane_policy::doctor::{HostFinding, Level, Report, Scope, VERSION};
use knockplane_policy::word::Word as _;

use super::table::{count, printable, wrapped};
use super::{Failed, document};
use crate::{Exit, json};

/// The program that does the checks.
const PROGRAM: &str = "knockplane-dataplane";

/// Folders of system programs, which the PATH of users often lacks.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// `knockctl doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Configuration file: also check its interfaces, rules and state as a start would
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
}

/// Runs the program and shows its report. The exit code is that of the report.
pub(super) fn run(doctor: &Doctor, as_json: bool) -> Result<String, Failed> {
    let program = find()?;
    let mut command = Command::new(&program);
    command.arg("--doctor").stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(config) = &doctor.config {
        command.arg("--config").arg(config);
    }
    let shown = program.display();
    let output =
        command.output().map_err(|error| Failed::new(Exit::Runtime, format!("cannot run {shown}: {error}")))?;
    let report: Report = serde_json::from_slice(&output.stdout).map_err(|error| {
        let remedy = "install the same version of knockctl and knockplane-dataplane";
        Failed::new(Exit::Runtime, format!("{shown} ended with {} and no report ({error}): {remedy}", output.status))
    })?;
    if report.version != VERSION {
        let message = format!("the report of {shown} has version {}, and knockctl reads {VERSION}", report.version);
        return Err(Failed::new(Exit::Runtime, message + ": install the same version of both"));
    }
    let exit = report.exit();
    let output = if as_json { document(json::doctor::DoctorJson::from(report))? } else { text(&report) };
    match exit {
        Exit::Ok => Ok(output),
        exit => Err(Failed::new(exit, "").with_output(output)),
    }
}

/// The path of the program: beside this one, in PATH, or in a folder of system programs.
fn find() -> Result<PathBuf, Failed> {
    let own = env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [folder.clone(), folder.join("../sbin")].into_iter().chain(env::split_paths(&path));
    let mut files = folders.chain(SYSTEM.map(PathBuf::from)).map(|folder| folder.join(PROGRAM));
    files.find(|file| file.is_file()).ok_or_else(|| {
        let message = format!(
            "{PROGRAM} does the checks, and it is neither in {} nor in PATH: install it there, or add its folder to PATH",
            folder.display()
        );
        Failed::new(Exit::Runtime, message)
    })
}

/// Widths of the columns with the level and with the name of the check.
const LEVEL: usize = 8;
const CHECK: usize = 15;

fn text(report: &Report) -> String {
    let mut text = String::new();
    for scope in Scope::ALL {
        let mut findings = report.findings.iter().filter(|finding| finding.scope == *scope).peekable();
        if findings.peek().is_some() {
            text += &format!("{}\n", heading(*scope));
            text.extend(findings.map(entry));
            text.push('\n');
        }
    }
    text + &summary(report)
}

const fn heading(scope: Scope) -> &'static str {
    match scope {
        Scope::Host => "this host",
        Scope::Configuration => "configuration",
        Scope::Wire => "both interfaces",
        Scope::Outside => "outside",
        Scope::Inside => "inside",
    }
}

/// One finding: one line if there is no problem, otherwise with the reason and the remedy.
fn entry(finding: &HostFinding) -> String {
    let mut text = row(finding.level.name(), &finding.check, &finding.found);
    if finding.level > Level::Ok {
        for (title, part) in [("why", &finding.why), ("change", &finding.change)] {
            if !part.is_empty() {
                text += &row("", title, part);
            }
        }
        for (place, command) in finding.run.iter().enumerate() {
            // Not wrapped, so that it can be copied.
            let title = if place == 0 { "run" } else { "" };
            text += &format!("  {:LEVEL$}{title:CHECK$}{}\n", "", printable(command));
        }
    }
    text
}

/// A line of three columns; the last one is wrapped.
fn row(level: &str, title: &str, part: &str) -> String {
    let indent = " ".repeat(2 + LEVEL + CHECK);
    let start = format!("  {level:LEVEL$}{title:CHECK$}");
    let lines: String = part
        .lines()
        .map(|line| wrapped(&format!("{indent}{}", printable(line)), &indent).trim_end().to_owned() + "\n")
        .collect();
    start + lines.strip_prefix(&indent).unwrap_or(&lines)
}

/// The summary in one line.
fn summary(report: &Report) -> String {
    let number = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    let unknown = match number(Level::Unknown) {
        0 => String::new(),
        checks => format!(", {} could not be done", count(checks, "check")),
    };
    let warnings = count(number(Level::Warning), "warning");
    match number(Level::Error) + number(Level::Invalid) {
        0 if report.level == Level::Ok => "all is well\n".to_owned(),
        0 => format!("the filter works: {warnings}{unknown}\n"),
        errors => format!("the filter cannot start: {}, {warnings}{unknown}\n", count(errors, "error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let long = "packets of one knock arrive on several queues; they are still taken in order, but a step may wait for a \
                    millisecond";
        let findings = vec![
            HostFinding::ok(Scope::Host, "kernel", "Linux 6.1.0 on x86_64"),
            HostFinding::ok(Scope::Host, "clock", "not synchronised")
                .because(Level::Warning, "the log goes by it")
                .change("run a time service")
                .run("timedatectl set-ntp true"),
            HostFinding::ok(
                Scope::Configuration,
                "rules",
                "r.rsc:2: no such action\n 2 | add action=acept\u{1b}[31m\n",
            )
            .because(Level::Invalid, ""),
            HostFinding::ok(Scope::Outside, "rss", "eth1 spreads tcp4, udp4 over its queues by ports as well")
                .because(Level::Warning, long)
                .run("ethtool -N eth1 rx-flow-hash tcp4 sd")
                .run("ethtool -N eth1 rx-flow-hash udp4 sd"),
            HostFinding::ok(Scope::Outside, "program", "whose it is, this user cannot see")
                .because(Level::Unknown, "only one program can be there"),
        ];
        Report::new("0.1.0", findings)
    }

    #[test]
    fn a_report_is_read_in_a_hundred_columns() {
        let text = text(&report());
        insta::assert_snapshot!(text);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn what_it_comes_to_is_the_last_line() {
        let mut findings = report().findings;
        let mut last = |keep: fn(&HostFinding) -> bool| {
            findings.retain(keep);
            summary(&Report::new("0.1.0", findings.clone()))
        };
        assert_eq!(last(|_| true), "the filter cannot start: 1 error, 2 warnings, 1 check could not be done\n");
        assert_eq!(last(|f| f.level < Level::Error), "the filter works: 2 warnings, 1 check could not be done\n");
        assert_eq!(last(|f| f.level == Level::Ok), "all is well\n");
    }
}
