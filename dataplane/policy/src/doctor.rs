//! What the dataplane found out about its host and its configuration: the JSON that `knockplane-dataplane --doctor` writes and
//! `knockctl doctor` shows. docs/doctor.md has every check.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::word::words;

/// Version of the report's JSON.
pub const VERSION: u32 = 1;

words! {
    /// How bad a finding is, the worst last.
    Level {
        /// As it should be.
        Ok = "ok",
        /// The filter works, but not as well as it could.
        Warning = "warning",
        /// It could not be found out.
        Unknown = "unknown",
        /// The filter cannot start on this host as it is now. It may be able to later.
        Error = "error",
        /// The filter cannot start with this configuration, whatever happens to the host.
        Invalid = "invalid",
    }
}

words! {
    /// What a finding is about.
    Scope {
        /// This host and its kernel.
        Host = "host",
        /// The configuration file, and the files that it names.
        Configuration = "configuration",
        /// Both interfaces together.
        Wire = "wire",
        /// The outside interface.
        Outside = "outside",
        /// The inside interface.
        Inside = "inside",
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub scope: Scope,
    /// The check's name, a key of docs/doctor.md.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What is there.
    pub found: String,
    /// Why it matters; empty if it is as it should be.
    pub why: String,
    /// What to change, in words; empty if the commands say it.
    pub change: String,
    /// Commands that change it, one after the other.
    pub run: Vec<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(scope: Scope, check: &str, found: impl Into<String>) -> Self {
        let (why, change) = Default::default();
        Finding { scope, check: check.to_owned(), level: Level::Ok, found: found.into(), why, change, run: Vec::new() }
    }

    /// The same as a finding of this level, for this reason.
    #[must_use]
    pub fn because(self, level: Level, why: impl Into<String>) -> Self {
        Finding { level, why: why.into(), ..self }
    }

    /// The same with what to change.
    #[must_use]
    pub fn change(self, change: impl Into<String>) -> Self {
        Finding { change: change.into(), ..self }
    }

    /// The same with a further command.
    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.run.push(command.into());
        self
    }

    /// Whether a start with it is refused.
    pub fn is_refused(&self) -> bool {
        self.level >= Level::Error
    }
}

/// In one line: what is there, why it matters, what to do.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.found)?;
        for part in [&self.why, &self.change] {
            if !part.is_empty() {
                write!(f, "; {part}")?;
            }
        }
        if self.run.is_empty() { Ok(()) } else { write!(f, "; run: {}", self.run.join(" && ")) }
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`] of the program that made it.
    pub version: u32,
    /// The version of the dataplane's package.
    pub dataplane: String,
    /// The worst level among the findings.
    pub level: Level,
    /// In the order of checking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// A report of these findings.
    pub fn new(dataplane: &str, findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Report { version: VERSION, dataplane: dataplane.to_owned(), level, findings }
    }

    /// The exit code of a program that prints the report: 0 if the filter works, 1 if it works with warnings, 3 if it
    /// cannot work.
    pub const fn exit(&self) -> Exit {
        match self.level {
            Level::Ok => Exit::Ok,
            Level::Warning | Level::Unknown => Exit::Runtime,
            Level::Error | Level::Invalid => Exit::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_finding() {
        let ok = || Finding::ok(Scope::Host, "clock", "tsc");
        let code = |level| Report::new("1", vec![ok(), ok().because(level, "why"), ok()]).exit() as u8;
        assert_eq!(Report::new("1", vec![ok()]).exit(), Exit::Ok);
        assert_eq!(Report::new("1", Vec::new()).exit(), Exit::Ok);
        assert_eq!([Level::Warning, Level::Unknown, Level::Error, Level::Invalid].map(code), [1, 1, 3, 3]);
    }

    #[test]
    fn a_finding_in_a_line_says_what_why_and_how() {
        let finding = Finding::ok(Scope::Outside, "down", "eth1 is down");
        assert_eq!(finding.to_string(), "eth1 is down");
        let finding = finding.because(Level::Error, "no frame arrives").run("ip link set dev eth1 up");
        assert_eq!(finding.to_string(), "eth1 is down; no frame arrives; run: ip link set dev eth1 up");
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }
}
