//! `knockctl monitor`: the stream of events, one line for each. If the control process is away, the command retries and
//! continues after the last event that it has shown.

mod text;

use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};

use super::http::{Client, ControlError};
use super::output::{complain, write_part};
use super::signals::EndSignals;
use super::{Failed, encoded};
use crate::Exit;
use crate::events::filter::kind_words;
use crate::json::Document;
use crate::json::events::EventJson;

/// Pause before another attempt to connect.
const AGAIN: Duration = Duration::from_millis(500);

/// Longest time without a byte of the control process, which sends a comment every ten seconds.
const SILENT: Duration = Duration::from_secs(35);

/// Maximum length of an event in bytes.
const MAX_EVENT: usize = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Monitor {
    /// Only events of this door
    #[arg(long, value_name = "DOOR")]
    door: Option<String>,
    /// Only events of this address list
    #[arg(long, value_name = "LIST")]
    list: Option<String>,
    /// Only events of sources in this address, prefix or range
    #[arg(long, value_name = "ADDRESS")]
    source: Option<String>,
    /// Only events of the rule with this id or number, as 0a1b2c3d, 3 or "ipv6 filter 3" (see `show rules`)
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Only events of these kinds: granted, listed, stepped, refreshed, removed, flushed, expired, evicted, bulk, packet, operator
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<String>,
    /// Begin after the event with this id, or with this number since the start of the dataplane
    #[arg(long, value_name = "ID")]
    since: Option<String>,
}

fn kind(text: &str) -> Result<String, String> {
    let words = kind_words();
    if words.contains(&text) { Ok(text.to_owned()) } else { Err(format!("the kinds are {}", words.join(", "))) }
}

/// The end of a stream.
enum End {
    /// The reader of the output has gone.
    Output,
    /// The control process ended it, or is away.
    Stream(ControlError),
}

impl Monitor {
    fn path(&self, since: Option<&str>) -> String {
        let kinds = (!self.kind.is_empty()).then(|| self.kind.join(","));
        let parameters = [
            ("since", since),
            ("door", self.door.as_deref()),
            ("list", self.list.as_deref()),
            ("source", self.source.as_deref()),
            ("rule", self.rule.as_deref()),
            ("kind", kinds.as_deref()),
        ];
        let given = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?))));
        format!("/api/v1/events?{}", given.collect::<Vec<_>>().join("&"))
    }
}

/// Shows events until Ctrl-C, or until the reader closes the output.
///
/// # Errors
/// If a parameter is invalid, or if the control process cannot be reached at the beginning.
pub(super) async fn run(client: &Client, command: &Monitor, json: bool) -> Result<String, Failed> {
    let mut signals = EndSignals::new()?;
    tokio::select! {
        () = signals.received() => Ok(String::new()),
        ended = show(client, command, json) => ended,
    }
}

async fn show(client: &Client, command: &Monitor, json: bool) -> Result<String, Failed> {
    let mut last = command.since.clone();
    let (mut has_answered, mut is_away) = (false, false);
    loop {
        let opened = client.stream(&command.path(last.as_deref())).await;
        let ended = match opened {
            Ok(body) => {
                if std::mem::take(&mut is_away) {
                    complain("knockctl: knockplane-control answers again\n");
                }
                has_answered = true;
                follow(client, body, &mut last, json).await?
            }
            Err(error) => End::Stream(error),
        };
        match ended {
            End::Output => return Ok(String::new()),
            End::Stream(error @ ControlError::Refused(StatusCode::BAD_REQUEST, _)) => {
                return Err(Failed::new(Exit::Usage, error.to_string()));
            }
            End::Stream(error) if has_answered && is_transient(&error) => {
                if !std::mem::replace(&mut is_away, true) {
                    complain(format_args!("knockctl: {error}; trying again\n"));
                }
                sleep(AGAIN).await;
            }
            End::Stream(error) => return Err(error.into()),
        }
    }
}

/// Whether another attempt may succeed.
fn is_transient(error: &ControlError) -> bool {
    matches!(error, ControlError::Unreachable(_) | ControlError::Refused(StatusCode::SERVICE_UNAVAILABLE, _))
}

/// Shows the events of a stream until it ends. `last` gets the id of each event that was shown.
async fn follow(client: &Client, mut body: Incoming, last: &mut Option<String>, json: bool) -> Result<End, Failed> {
    let mut lines = Vec::new();
    loop {
        let frame = match timeout(SILENT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(End::Stream(client.ended("ended the stream"))),
            Ok(Some(Err(error))) => return Ok(End::Stream(client.ended(&format!("ended the stream ({error})")))),
            Err(_) => return Ok(End::Stream(client.ended("is silent"))),
        };
        let Some(data) = frame.data_ref() else { continue };
        lines.extend_from_slice(data);
        if lines.len() > MAX_EVENT && !lines.contains(&b'\n') {
            return Err(Failed::new(Exit::Runtime, "the control process sends no events"));
        }
        // Fields other than the id and the data of an event, and comments, are not needed.
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(id) = line.strip_prefix("id:") {
                *last = Some(id.trim().to_owned());
            }
            let Some(event) = line.strip_prefix("data:") else { continue };
            let text = if json { format!("{}\n", event.trim()) } else { readable(event.trim())? };
            if !write_part(&text)? {
                return Ok(End::Output);
            }
        }
    }
}

fn readable(event: &str) -> Result<String, Failed> {
    let document: Document<EventJson> = super::decode(event.as_bytes())?;
    Ok(text::line(&document.content) + "\n")
}
