//! `doctor`.

use knockplane_policy::doctor::{self, Level, Scope};
use schemars::JsonSchema;
use serde::Serialize;

/// What was found out about this host.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DoctorJson {
    /// Version of the dataplane's package.
    pub(crate) dataplane_version: String,
    /// The worst level among the findings.
    pub(crate) level: Level,
    /// The findings, in the order of checking.
    pub(crate) findings: Vec<FindingJson>,
}

/// The outcome of one check.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FindingJson {
    /// What it is about.
    pub(crate) scope: Scope,
    /// The check's name, a key of doctor.md.
    pub(crate) check: String,
    /// How bad it is.
    pub(crate) level: Level,
    /// What is there, for people.
    pub(crate) found: String,
    /// Why it matters; `null` if it is as it should be.
    pub(crate) why: Option<String>,
    /// What to change, in words; `null` if the commands say it, or if there is nothing to change.
    pub(crate) change: Option<String>,
    /// Commands that change it, to be run one after the other.
    pub(crate) run: Vec<String>,
}

impl From<doctor::HostFinding> for FindingJson {
    fn from(finding: doctor::HostFinding) -> Self {
        let doctor::HostFinding { scope, check, level, found, why, change, run } = finding;
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        FindingJson { scope, check, level, found, why: said(why), change: said(change), run }
    }
}

impl From<doctor::Report> for DoctorJson {
    fn from(doctor::Report { version: _, dataplane, level, findings }: doctor::Report) -> Self {
        DoctorJson {
            dataplane_version: dataplane,
            level,
            findings: findings.into_iter().map(FindingJson::from).collect(),
        }
    }
}
