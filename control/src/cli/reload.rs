//! `knockctl reload`: doors and `[policy]` of the configuration file.

use std::time::Duration;

use clap::Args;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::Reloaded;

use super::http::Client;
use super::table::count;
use super::{Failed, change, confirm, decode, document, encoded};
use crate::json::changes::ReloadedJson;

/// The command line of `reload`.
#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Return to the doors and [policy] before after this time, unless `knockctl confirm` arrives: 5s to 1h
    #[arg(long, value_name = "TIME", value_parser = crate::rules::confirm_within)]
    confirm: Option<Duration>,
}

pub(super) async fn run(client: &Client, command: &Reload, json: bool) -> Result<String, Failed> {
    let query = command.confirm.map(|time| format!("?confirm-within={}", encoded(&format_duration(time))));
    let query = query.unwrap_or_default();
    let reloaded: Reloaded = decode(&change(client, &format!("/api/v1/reload{query}"), None).await?)?;
    if json {
        return document(ReloadedJson::new(reloaded, command.confirm));
    }
    let Reloaded { generation, doors, waiting } = reloaded;
    let mut text = format!("generation {generation} runs, {}\n", count(doors, "door"));
    if !waiting.is_empty() {
        text += &format!("these wait for a restart of the dataplane: {}\n", waiting.join(", "));
    }
    Ok(text + &command.confirm.map(confirm::reminder).unwrap_or_default())
}
