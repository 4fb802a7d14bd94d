//! `knockctl confirm`: confirms the rules of `apply --confirm`, or the settings of `reload --confirm`.

use std::time::Duration;

use knockplane_policy::time::format_duration;

use super::http::Client;
use super::{Failed, change, decode, document};
use crate::api::messages::Confirmed;
use crate::json::changes;

pub(super) async fn run(client: &Client, json: bool) -> Result<String, Failed> {
    let confirmed: Confirmed = decode(&change(client, "/api/v1/confirm", None).await?)?;
    if json {
        return document(changes::ConfirmedJson::from(confirmed));
    }
    Ok(format!("generation {} is confirmed\n", confirmed.generation))
}

/// What an operator must do within this time.
pub(super) fn reminder(time: Duration) -> String {
    let time = format_duration(time);
    format!("it is rolled back in {time}: try a new connection, then run `knockctl confirm` to keep it\n")
}
