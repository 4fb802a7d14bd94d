//! `knockctl top`: live rates by rule, list, door, worker, drop reason and source.
//!
//! | file          | owns |
//! |---------------|------|
//! | `mod.rs`      | the command line, and the requests |
//! | `view.rs`     | the views: the rows of each, their order and the filter |
//! | `number.rs`   | short numbers |
//! | `batch.rs`    | tables or JSON, one after the other |
//! | `state.rs`    | what is on the screen, and the effect of keys |
//! | `screen.rs`   | draws the screen |
//! | `terminal.rs` | the terminal: keys, signals, and its restoration at the end |
//!
//! `json::top` computes the rates.

mod batch;
mod number;
mod screen;
mod state;
mod terminal;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use self::view::View;
use super::http::Client;
use super::{Failed, decode, watch};
use crate::Exit;
use crate::json::top::Reading;

/// Time limit for an answer. The screen continues meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Maximum number of sources by bytes, and by drops.
const SOURCES: usize = 200;

/// The command line.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Time between two readings, for example 500ms or 10s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = watch::period)]
    interval: Duration,
    /// Print tables one after the other, as without a terminal
    #[arg(long)]
    batch: bool,
    /// End after this number of answers; the first one has no rates, and is not printed as a table
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The first view on the screen; with --batch, the only table
    #[arg(long, value_name = "VIEW")]
    view: Option<View>,
}

/// Runs until the operator ends it, or to the last answer of `--count`.
pub(super) async fn run(client: &Client, command: &Top, json: bool) -> Result<String, Failed> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if json || command.batch || !is_terminal {
        return batch::run(client, command, json).await;
    }
    terminal::run(client, command).await
}

/// Reads the counters, and the sources if wanted.
async fn read(client: &Client, wants_sources: bool) -> Result<Reading, Failed> {
    let answers = async {
        let counters = decode(&client.get("/api/v1/counters").await?)?;
        let sources = match wants_sources {
            true => Some(decode(&client.get(&format!("/api/v1/sources?limit={SOURCES}")).await?)?),
            false => None,
        };
        Ok(Reading { counters, sources })
    };
    let silent = || {
        let seconds = ANSWER_WITHIN.as_secs();
        Failed::new(Exit::Unreachable, format!("knockplane-control did not answer within {seconds} s; see its log"))
    };
    timeout(ANSWER_WITHIN, answers).await.unwrap_or_else(|_| Err(silent()))
}
