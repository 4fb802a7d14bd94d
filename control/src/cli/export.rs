//! `knockctl export`: the running rules, or those of a file, in the format of a RouterOS export.

use std::path::PathBuf;

use clap::Args;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::wire;

use super::http::Client;
use super::{Failed, check, decode, document};
use crate::Exit;
use crate::json::rules::ExportedJson;
use crate::running::EXPORT_HEADER;

/// The command line.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Rule file to print in the format of an export; without it, the running rules
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

/// The rules as text of a rule file, or in their declared form as JSON.
pub(super) async fn run(client: &Client, command: &Export, json: bool) -> Result<String, Failed> {
    let rules = match &command.rules {
        Some(file) => check::as_written(file, json)?,
        None => decode::<wire::RunningRules>(&client.get("/api/v1/rules").await?)?.rules,
    };
    if json {
        return document(ExportedJson::from(&rules));
    }
    Ok(EXPORT_HEADER.to_owned() + &text(&rules, ": `knockctl export --json` writes everything as it is")?)
}

/// The text of an export, without a first line. `then` follows the reason of a failure.
pub(super) fn text(rules: &RuleSet, then: &str) -> Result<String, Failed> {
    let failed = |what| Failed::new(Exit::Runtime, format!("RouterOS's language has no form for {what}{then}"));
    rsc::export(rules).map_err(failed)
}
