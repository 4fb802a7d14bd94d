//! `knockctl show connections` and `knockctl connection`: tracked connections as a table, counted, or ended.
//! `json::connections` has the JSON.

use clap::{Args, Subcommand};
use hyper::Method;
use knockplane_policy::rule::{AddressSet, protocol_name};
use knockplane_policy::wire::connection_filter::{ConnectionFilter, state_word};
use knockplane_policy::wire::connections::{Connection, ConnectionCount};

use super::completion::filter_words;
use super::http::Client;
use super::question::{self, Question};
use super::source::{end, short};
use super::table::Align::{Left, Right};
use super::table::{Columns, grouped, printable, wrapped};
use super::{Failed, decode, document, encoded};
use crate::Exit;
use crate::api::messages::{ConnectionTotals, ConnectionsEnded, DEFAULT_LIMIT, Tracked};
use crate::json::connections::{ConnectionTotalsJson, ConnectionsJson, EndedJson};

/// The command line of `show connections`.
#[derive(Debug, Args)]
pub(super) struct ShowConnections {
    /// Only these connections: source=ADDRESS destination=ADDRESS protocol=NAME port=PORT state=STATE door=DOOR
    ///
    /// An address may be a prefix or a range, a port a range. `port` is that of either end, `state` as in the table.
    #[arg(value_name = "FILTER", value_parser = filter_word, add = filter_words())]
    filter: Vec<String>,
    /// Only connections from this address, prefix or range
    #[arg(long, value_name = "ADDRESS")]
    source: Option<AddressSet>,
    /// Print numbers of connections by protocol, state and door
    #[arg(long)]
    count: bool,
    /// Maximum number of connections
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

/// The commands of `connection`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// End tracked connections: no frame passes any more because it belongs to one of them
    ///
    /// The kernel carries none of their frames when the command ends. Further packets of a TCP connection are `invalid`, and those
    /// of other protocols begin a new connection; rules decide about both. Both ends of a connection through a door get a reset.
    /// Lists and grants stay: whoever a rule or a door admits can connect again.
    ///
    /// If there is more than one, the command asks for a confirmation on a terminal. Without a terminal it ends with 5, unless
    /// --force is given.
    Remove(Remove),
}

/// The command line of `connection remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The connections: source=ADDRESS destination=ADDRESS protocol=NAME port=PORT state=STATE door=DOOR
    ///
    /// As for `show connections`.
    #[arg(value_name = "FILTER", required = true, value_parser = filter_word, add = filter_words())]
    filter: Vec<String>,
    /// Do not ask, even if there is more than one
    #[arg(long)]
    force: bool,
}

/// The question before the end of several connections.
const END: Question = Question { words: "End them?", done: "ended", remains: "nothing changed" };

/// Checks one word of a filter.
fn filter_word(word: &str) -> Result<String, String> {
    ConnectionFilter::default().add(word).map(|()| word.to_owned())
}

/// The filter of these words.
fn filter_of(words: &[String], source: Option<&AddressSet>) -> Result<ConnectionFilter, Failed> {
    let mut filter = ConnectionFilter::default();
    let source = source.map(|source| format!("source={source}"));
    words
        .iter()
        .chain(&source)
        .try_for_each(|word| filter.add(word))
        .map_err(|error| Failed::new(Exit::Usage, error))?;
    Ok(filter)
}

/// Requests the connections or their numbers, and formats the answer.
pub(super) async fn run(client: &Client, command: &ShowConnections, json: bool) -> Result<String, Failed> {
    let filter = filter_of(&command.filter, command.source.as_ref())?;
    if command.count {
        let totals = totals(client, &filter).await?;
        return if json { document(ConnectionTotalsJson::from(totals)) } else { Ok(counted(&totals)) };
    }
    let tracked = tracked(client, &filter, command.limit).await?;
    if json { document(ConnectionsJson::from(tracked)) } else { Ok(text(&tracked)) }
}

/// Ends connections.
pub(super) async fn change(client: &Client, command: &Command, json: bool) -> Result<String, Failed> {
    let Command::Remove(Remove { filter, force }) = command;
    let filter = filter_of(filter, None)?;
    if !force {
        let totals = totals(client, &filter).await?;
        let number: u64 = totals.counts.iter().map(|count| count.connections).sum();
        if number > 1 {
            let loss = format!("this ends {} connections:\n{}", grouped(number), counted(&totals));
            question::ask(&loss, &END)?;
        }
    }
    let path = format!("/api/v1/connections?filter={}", encoded(&filter.to_string()));
    let ConnectionsEnded { ended } = decode(&client.send(Method::DELETE, &path, None).await?)?;
    if json {
        return document(EndedJson { filter: filter.to_string(), ended });
    }
    let connections = if ended == 1 { "connection" } else { "connections" };
    Ok(format!("{} {connections} ended\n", grouped(ended)))
}

/// Requests the connections of a filter.
pub(super) async fn tracked(client: &Client, filter: &ConnectionFilter, limit: usize) -> Result<Tracked, Failed> {
    let path = format!("/api/v1/connections?limit={limit}&filter={}", encoded(&filter.to_string()));
    decode(&client.get(&path).await?)
}

/// Requests the numbers of the connections of a filter.
async fn totals(client: &Client, filter: &ConnectionFilter) -> Result<ConnectionTotals, Failed> {
    decode(&client.get(&format!("/api/v1/connections/count?filter={}", encoded(&filter.to_string()))).await?)
}

/// The numbers as text.
fn counted(ConnectionTotals { tracked, counts }: &ConnectionTotals) -> String {
    if !tracked {
        return NOT_TRACKED.to_owned();
    }
    let mut table = Columns::new(&[("CONNECTIONS", Right), ("PROTOCOL", Left), ("STATE", Left), ("DOOR", Left)]);
    for ConnectionCount { protocol, state, door, connections } in counts {
        let door = door.as_deref().map_or_else(|| "-".to_owned(), printable);
        table.row([grouped(*connections), protocol_name(*protocol), state.clone(), door]);
    }
    table.row([
        grouped(counts.iter().map(|count| count.connections).sum()),
        "all".to_owned(),
        String::new(),
        String::new(),
    ]);
    table.text()
}

/// The text if connections are not tracked.
const NOT_TRACKED: &str = "connections are not tracked: no rule asks for their state, and there are no doors\n";

/// The answer as text.
pub(super) fn text(Tracked { table, connections, truncated }: &Tracked) -> String {
    let Some(table) = table else {
        return NOT_TRACKED.to_owned();
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
        text += &format!(
            "\nonly {} of them; --limit shows more, a filter fewer, --count their numbers\n",
            connections.len()
        );
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
    let state = state_word(connection.state, connection.tcp);
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
    fn numbers_have_a_sum_and_words_are_checked() {
        let count = |state: &str, door: Option<&str>, connections| ConnectionCount {
            protocol: 6,
            state: state.to_owned(),
            door: door.map(str::to_owned),
            connections,
        };
        let counts = vec![count("established", Some("ssh"), 1_200), count("syn-sent", None, 3)];
        let told = counted(&ConnectionTotals { tracked: true, counts });
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[1], "      1 200  tcp       established  ssh", "{told}");
        assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["1", "203", "all"], "{told}");
        assert!(filter_word("state=open").unwrap_err().contains("established") && filter_word("port=22").is_ok());
        let twice = filter_of(&["source=192.0.2.1".to_owned()], Some(&"192.0.2.2".parse().unwrap())).unwrap_err();
        assert!(twice.exit == Exit::Usage && twice.message.contains("given twice"), "{twice:?}");
    }

    #[test]
    fn without_tracking_there_is_nothing_to_show() {
        let none = Tracked { table: None, connections: Vec::new(), truncated: false };
        assert!(text(&none).contains("not tracked"));
    }
}
