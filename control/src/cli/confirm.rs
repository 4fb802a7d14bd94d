//! `knockctl confirm` and `knockctl cancel`: the rules of `apply --confirm`, or the settings of `reload --confirm`, remain or are
//! rolled back.

use std::time::Duration;

use knockplane_policy::time::format_duration;

use super::http::Client;
use super::{Failed, change, decode, document};
use crate::api::messages::{Cancelled, Confirmed};
use crate::json::changes;

pub(super) async fn confirm(client: &Client, json: bool) -> Result<String, Failed> {
    let confirmed: Confirmed = decode(&change(client, "/api/v1/confirm", None).await?)?;
    if json {
        return document(changes::ConfirmedJson::from(confirmed));
    }
    Ok(format!("generation {} is confirmed\n", confirmed.generation))
}

pub(super) async fn cancel(client: &Client, json: bool) -> Result<String, Failed> {
    let cancelled: Cancelled = decode(&change(client, "/api/v1/cancel", None).await?)?;
    let Cancelled { generation, revision } = cancelled;
    if json {
        return document(changes::CancelledJson::from(cancelled));
    }
    Ok(format!("rolled back: generation {generation} runs (revision {revision})\n"))
}

/// What an operator must do within this time.
pub(super) fn reminder(time: Duration) -> String {
    let time = format_duration(time);
    format!(
        "it is rolled back in {time}: try a new connection, then run `knockctl confirm` to keep it, or `knockctl cancel` to roll it back now\n"
    )
}
