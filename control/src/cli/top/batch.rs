//! `top` without a terminal: tables or JSON, one after the other, as `top -b` prints them.

use std::time::Duration;

use knockplane_policy::time::format_duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::number::{meter, total};
use super::view::{Rows, View};
use super::{Top, read};
use crate::Exit;
use crate::cli::http::Client;
use crate::cli::output::{complain, write_part};
use crate::cli::signals::EndSignals;
use crate::cli::table::Align::{self, Left, Right};
use crate::cli::table::{Columns, wrapped};
use crate::cli::{Failed, document, watch};
use crate::json::top::{PathsJson, Reading, TopJson, TrafficJson};

/// The columns of the ways of frames.
pub(super) const PATH_COLUMNS: [(&str, Align); 5] =
    [("PATH", Left), ("FRAMES/s", Right), ("BYTES/s", Right), ("FRAMES", Right), ("BYTES", Right)];

/// Prints answers until Ctrl-C, to the last one, or until the reader closes the output.
///
/// # Errors
/// If the first request fails, a later one for another reason than that a daemon is away, or a write.
pub(super) async fn run(client: &Client, command: &Top, json: bool) -> Result<String, Failed> {
    let mut signals = EndSignals::new()?;
    let wants_sources = json || command.view.is_none_or(|view| view == View::Sources);
    let mut before: Option<Reading> = None;
    let mut is_away = false;
    let mut ticks = interval_at(Instant::now(), command.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut printed = 0;
    while command.count.is_none_or(|count| printed < count) {
        let answered = tokio::select! {
            () = signals.received() => return Ok(String::new()),
            answered = async { ticks.tick().await; read(client, wants_sources).await } => answered,
        };
        let text = match answered {
            Ok(now) => {
                if std::mem::take(&mut is_away) {
                    complain(format_args!("knockctl: {}: it answers again\n", watch::now()));
                }
                let top = TopJson::between(before.as_ref(), &now);
                let is_first = before.replace(now).is_none();
                if is_first && !json {
                    continue;
                }
                match json {
                    true => watch::one_line(&document(&top)?),
                    false => text(&top, command.view),
                }
            }
            Err(error) if before.is_some() && error.exit == Exit::Unreachable => {
                if !std::mem::replace(&mut is_away, true) {
                    complain(format_args!("knockctl: {}: {}; asking again\n", watch::now(), error.message));
                }
                if !json {
                    continue;
                }
                watch::one_line(&error.document())
            }
            Err(error) => return Err(error),
        };
        printed += 1;
        if !write_part(&text)? {
            return Ok(String::new());
        }
    }
    Ok(String::new())
}

/// An answer as tables: one, or all.
fn text(top: &TopJson, only: Option<View>) -> String {
    let mut text = format!("{}\n{}\n", watch::now(), heading(top));
    text += &paths(&top.paths).text();
    for view in View::ALL.into_iter().filter(|view| only.is_none_or(|only| only == *view)) {
        let mut rows = view.rows(top);
        rows.sort(view.order(), false);
        text += &format!("\n{}\n{}", view.name(), table(&rows));
    }
    text + "\n"
}

/// The interval, or the reason that there are no rates.
pub(super) fn heading(top: &TopJson) -> String {
    let up = format!(
        "dataplane up {}, generation {}",
        format_duration(Duration::from_secs_f64(top.uptime_seconds)),
        top.generation
    );
    match top.interval_seconds {
        Some(interval) => format!("{up}, rates over {interval:.1} s"),
        None if top.restarted => format!("{up}: IT RESTARTED, rates begin anew"),
        None => format!("{up}, rates follow"),
    }
}

/// The ways of frames.
fn paths(paths: &PathsJson) -> Columns {
    let mut table = Columns::new(&PATH_COLUMNS);
    for cells in path_rows(paths) {
        table.row(cells);
    }
    table
}

/// Name, rates and totals of each way of frames.
pub(super) fn path_rows(paths: &PathsJson) -> [[String; 5]; 4] {
    let row = |name: &str, traffic: &TrafficJson| {
        let (packets, bytes) = (traffic.packets, traffic.bytes);
        [name.to_owned(), meter(packets), meter(bytes), total(packets.total), total(bytes.total)]
    };
    let dropped = paths.dropped_by_workers;
    let none = || "-".to_owned();
    [
        row("carried by the kernel", &paths.carried_by_kernel),
        row("dropped by the kernel", &paths.dropped_by_kernel),
        row("decided by workers", &paths.decided_by_workers),
        ["  of them dropped".to_owned(), meter(dropped), none(), total(dropped.total), none()],
    ]
}

fn table(Rows { columns, rows, notes }: &Rows) -> String {
    let mut table = Columns::new(columns);
    for row in rows {
        table.cells(row.cells.clone());
    }
    let notes: String = notes.iter().map(|note| wrapped(note, "  ")).collect();
    table.text() + &notes
}
