//! `knockctl show connections`: the tracked connections as a table. `json::connections` has the JSON.

use clap::Args;
use knockplane_policy::rule::{AddressSet, protocol_name};
use knockplane_policy::wire::connections::Connection;
use knockplane_policy::word::Word as _;

use super::http::Client;
use super::source::{end, short};
use super::table::Align::{Left, Right};
use super::table::{Columns, grouped, wrapped};
use super::{Failed, decode, document, encoded};
use crate::api::messages::{DEFAULT_LIMIT, Tracked};
use crate::json::connections::ConnectionsJson;

/// The command line.
#[derive(Debug, Args)]
pub(super) struct ShowConnections {
    /// Only connections from this address, prefix or range
    #[arg(long, value_name = "ADDRESS")]
    source: Option<AddressSet>,
    /// Maximum number of connections
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

/// Requests the connections, and formats the answer.
pub(super) async fn run(client: &Client, command: &ShowConnections, json: bool) -> Result<String, Failed> {
    let tracked = tracked(client, command.source.as_ref(), command.limit).await?;
    if json { document(ConnectionsJson::from(tracked)) } else { Ok(text(&tracked)) }
}

/// Requests the connections.
pub(super) async fn tracked(client: &Client, source: Option<&AddressSet>, limit: usize) -> Result<Tracked, Failed> {
    let source = source.map(|source| format!("&source={}", encoded(&source.to_string())));
    let path = format!("/api/v1/connections?limit={limit}{}", source.unwrap_or_default());
    decode(&client.get(&path).await?)
}

/// The answer as text.
pub(super) fn text(Tracked { table, connections, truncated }: &Tracked) -> String {
    let Some(table) = table else {
        return "connections are not tracked: no rule asks for their state, and there are no doors\n".to_owned();
    };
    let mut text = format!("connections: {}, room for {}\n", grouped(table.known), grouped(table.capacity));
    if table.refused > 0 {
        let packets = if table.refused == 1 { "packet" } else { "packets" };
        text += &format!("no room:     {} {packets} of new connections since start\n", grouped(table.refused));
    }
    if let Some(warning) = table.warning() {
        text += &wrapped(&format!("warning: {warning}"), "  ");
    }
    if !connections.is_empty() {
        text += &format!("\n{}", rows(connections));
    }
    if *truncated {
        text += &format!("\nonly {} of them; --limit shows more, --source those of one address\n", connections.len());
    }
    text
}

fn rows(connections: &[Connection]) -> String {
    let mut table = Columns::new(&[
        ("PROTOCOL", Left),
        ("SOURCE", Left),
        ("DESTINATION", Left),
        ("SIDE", Left),
        ("STATE", Left),
        ("DOOR", Left),
        ("GRANT LEFT", Right),
        ("TIME LEFT", Right),
    ]);
    for connection in connections {
        table.row([
            protocol_name(connection.protocol),
            connection.vlan.behind(end(connection.source)),
            end(connection.destination),
            connection.side.to_string(),
            state(connection),
            connection.door.clone().unwrap_or_else(|| "-".to_owned()),
            connection.grant_left.map_or_else(|| "-".to_owned(), short),
            short(connection.time_left),
        ]);
    }
    table.text()
}

/// The TCP state if there is one: it is more specific than the state of tracking.
fn state(connection: &Connection) -> String {
    let state = connection.tcp.map_or(connection.state.name(), |state| state.name());
    let fasttracked = if connection.fasttracked { ", fasttracked" } else { "" };
    format!("{state}{fasttracked}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn connections_are_shown_with_their_doors_and_a_full_table_is_warned_of() {
        let tracked = sample::tracked();
        insta::assert_snapshot!(text(&tracked));
    }

    #[test]
    fn without_tracking_there_is_nothing_to_show() {
        let none = Tracked { table: None, connections: Vec::new(), truncated: false };
        assert!(text(&none).contains("not tracked"));
    }
}
