//! `doctor`.

use knockplane_policy::doctor::{self, Level, Scope};
use schemars::JsonSchema;
use serde::Serialize;

/// The report about this host.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Doctor {
    /// Version of the dataplane's package.
    pub(crate) dataplane_version: String,
    /// The highest level of the findings.
    pub(crate) level: Level,
    /// The findings, in the order of the checks.
    pub(crate) findings: Vec<Finding>,
}

/// The outcome of one check.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Finding {
    /// The subject of the finding.
    pub(crate) scope: Scope,
    /// The check's name, a key of doctor.md.
    pub(crate) check: String,
    /// The severity.
    pub(crate) level: Level,
    /// The observed state.
    pub(crate) found: String,
    /// The consequence; `null` if the check passed.
    pub(crate) why: Option<String>,
    /// The remedy in words; `null` if the commands are enough, or if there is nothing to change.
    pub(crate) change: Option<String>,
    /// The commands of the remedy, in order.
    pub(crate) run: Vec<String>,
}

impl From<doctor::Finding> for Finding {
    fn from(finding: doctor::Finding) -> Self {
        let doctor::Finding { scope, check, level, found, why, change, run } = finding;
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Finding { scope, check, level, found, why: said(why), change: said(change), run }
    }
}

impl From<doctor::Report> for Doctor {
    fn from(doctor::Report { version: _, dataplane, level, findings }: doctor::Report) -> Self {
        Doctor { dataplane_version: dataplane, level, findings: findings.into_iter().map(Finding::from).collect() }
    }
}
