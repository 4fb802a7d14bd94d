//! `knockctl show … --watch`: repeats a `show` command.
//!
//! On a terminal, each answer replaces the last one on the screen; elsewhere each answer follows the last one, under a
//! line with the time. As JSON, each answer is one line. If the daemon is away, the command reports it, and retries.

use std::io::{self, IsTerminal};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Failed;
use super::output::{complain, write_part};
use super::signals::EndSignals;
use crate::{Exit, rules};

/// The minimum time between answers: shorter times would only load the dataplane.
const SHORTEST: Duration = Duration::from_millis(100);

/// Clears the screen and moves the cursor to the top left corner.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Parses the time between two answers, in the form of RouterOS or as a fraction of a second.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write one as 1s, 500ms or 1m");
    let time = match text.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().map_err(|_| wrong())?),
        None => rules::timeout(text).map_err(|_| wrong())?,
    };
    if time < SHORTEST { Err(format!("the shortest time is {} ms", SHORTEST.as_millis())) } else { Ok(time) }
}

/// Shows the answers of `ask` until Ctrl-C, or until the reader closes the output.
///
/// # Errors
/// If a request fails for another reason than that a daemon is away.
pub(super) async fn watch(
    period: Duration,
    json: bool,
    mut ask: impl AsyncFnMut() -> Result<String, Failed>,
) -> Result<String, Failed> {
    let mut signals = EndSignals::new()?;
    let mut ticks = interval_at(Instant::now(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The command does not wait for a daemon that does not answer the first request, because the name of the socket may
    // be wrong.
    let (mut has_answered, mut is_away) = (false, false);
    loop {
        let answered = tokio::select! {
            () = signals.received() => return Ok(String::new()),
            answered = async { ticks.tick().await; ask().await } => answered,
        };
        let text = match answered {
            Ok(text) => {
                if std::mem::take(&mut is_away) {
                    complain(format_args!("knockctl: {}: it answers again\n", now()));
                }
                has_answered = true;
                text
            }
            Err(error) if has_answered && error.exit == Exit::Unreachable => {
                if !std::mem::replace(&mut is_away, true) {
                    complain(format_args!("knockctl: {}: {}; asking again\n", now(), error.message));
                }
                if !json {
                    continue;
                }
                error.document()
            }
            Err(error) => return Err(error),
        };
        if !write_part(&shown(&text, json))? {
            return Ok(String::new());
        }
    }
}

/// An answer in the form for repeated output.
fn shown(text: &str, json: bool) -> String {
    if json {
        return one_line(text);
    }
    if io::stdout().is_terminal() { format!("{CLEAR}{}\n\n{text}", now()) } else { format!("{}\n{text}\n", now()) }
}

/// A document in one line.
pub(super) fn one_line(document: &str) -> String {
    // The line breaks of a document are between its tokens: within a string, they are escaped.
    document.lines().map(str::trim_start).collect::<String>() + "\n"
}

/// The wall clock, to the second.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%FT%TZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_times_that_the_dataplane_can_bear() {
        assert_eq!(period("1s"), Ok(Duration::from_secs(1)));
        assert_eq!((period("500ms"), period("1m")), (Ok(Duration::from_millis(500)), Ok(Duration::from_secs(60))));
        for wrong in ["", "0s", "99ms", "soon", "-1s", "xms"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_document_is_one_line_that_says_the_same() {
        let value = serde_json::json!({"a": [1, {"b": "x\n  y\"  \u{2028}"}], "c": {}, "d": []});
        let line = shown(&(serde_json::to_string_pretty(&value).unwrap() + "\n"), true);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }
}
