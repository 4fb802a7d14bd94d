//! `knockctl confirm`: confirms the rules of `apply --confirm`, or the settings of `reload --confirm`.

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
