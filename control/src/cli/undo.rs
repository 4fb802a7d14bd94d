//! `knockctl undo` and `redo`: steps through the revisions.

use clap::Args;
use knockplane_policy::wire::history::RevisionOrigin;

use super::apply::Applying;
use super::http::Client;
use super::{Failed, history};
use crate::{Exit, revisions};

/// The command line.
#[derive(Debug, Args)]
pub(super) struct Command {
    #[command(flatten)]
    applying: Applying,
}

/// Returns to the rules before the last change that was not undone.
pub(super) async fn undo(client: &Client, command: &Command, json: bool) -> Result<String, Failed> {
    step(client, command, RevisionOrigin::Undo, json).await
}

/// Reverses the last undo.
pub(super) async fn redo(client: &Client, command: &Command, json: bool) -> Result<String, Failed> {
    step(client, command, RevisionOrigin::Redo, json).await
}

async fn step(
    client: &Client,
    Command { applying }: &Command,
    origin: RevisionOrigin,
    json: bool,
) -> Result<String, Failed> {
    let history = history::all(client).await?;
    let last = history.revisions.last().map_or(0, |last| last.number);
    history::check_revision(client, applying.revision(), last).await?;
    let target = revisions::target(&history, origin).map_err(|missing| Failed::new(Exit::Conflict, missing))?;
    history::return_to(client, target, origin, Some(last), applying, json).await
}
