//! The report of the dataplane about its host and configuration: the JSON that `knockplane-dataplane --doctor` writes
//! and `knockctl doctor` shows. docs/doctor.md has every check.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::word::words;

/// Version of the report's JSON.
pub const VERSION: u32 = 1;

words! {
    /// Severity of a finding, in ascending order.
    Level {
        /// The check passed.
        Ok = "ok",
        /// The filter works, with a limitation.
        Warning = "warning",
        /// The check could not be carried out.
        Unknown = "unknown",
        /// The filter cannot start on this host in its present state. A later start may succeed.
        Error = "error",
        /// The filter cannot start with this configuration on any host.
        Invalid = "invalid",
    }
}

words! {
    /// Subject of a finding.
    Scope {
        /// This host and its kernel.
        Host = "host",
        /// The configuration file and the files that it names.
        Configuration = "configuration",
        /// Both interfaces.
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
    /// The subject.
    pub scope: Scope,
    /// The check's name, a key of docs/doctor.md.
    pub check: String,
    /// The severity.
    pub level: Level,
    /// The observed state.
    pub found: String,
    /// The consequence; empty if the check passed.
    pub why: String,
    /// The remedy in words; empty if the commands are enough.
    pub change: String,
    /// The commands of the remedy, in order.
    pub run: Vec<String>,
}

impl Finding {
    /// A passed check.
    pub fn ok(scope: Scope, check: &str, found: impl Into<String>) -> Self {
        let (why, change) = Default::default();
        Finding { scope, check: check.to_owned(), level: Level::Ok, found: found.into(), why, change, run: Vec::new() }
    }

    /// The same finding with this severity and consequence.
    #[must_use]
    pub fn because(self, level: Level, why: impl Into<String>) -> Self {
        Finding { level, why: why.into(), ..self }
    }

    /// The same finding with a remedy in words.
    #[must_use]
    pub fn change(self, change: impl Into<String>) -> Self {
        Finding { change: change.into(), ..self }
    }

    /// The same finding with a further command.
    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.run.push(command.into());
        self
    }

    /// Whether a start with this finding is refused.
    pub fn is_refused(&self) -> bool {
        self.level >= Level::Error
    }
}

/// State, consequence and remedy in one line.
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
    /// The highest severity of the findings.
    pub level: Level,
    /// The findings, in the order of the checks.
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
