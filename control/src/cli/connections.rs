//! `knockctl show connections`: what connection tracking knows, as a table and as JSON.

use std::net::IpAddr;

use clap::Args;
use knockplane_policy::packet::{Side, protocol};
use knockplane_policy::rule::{AddressSet, ConnectionState, protocol_name};
use knockplane_policy::wire::connections::{Connection, ConnectionTable};
use knockplane_policy::word::Word as _;
use serde::Serialize;

use super::http::Client;
use super::source::{end, short};
use super::table::Align::{Left, Right};
use super::table::{Columns, grouped, wrapped};
use super::{Failed, decode, encoded, pretty};
use crate::api::messages::{DEFAULT_LIMIT, Tracked};

/// The command line.
#[derive(Debug, Args)]
pub(super) struct ShowConnections {
    /// Only connections that this address began, or one of this prefix or range
    #[arg(long, value_name = "ADDRESS")]
    source: Option<AddressSet>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

/// Asks, and shows the answer.
pub(super) async fn run(client: &Client, command: ShowConnections, json: bool) -> Result<String, Failed> {
    let source = command.source.as_ref().map(|source| format!("&source={}", encoded(&source.to_string())));
    let path = format!("/api/v1/connections?limit={}{}", command.limit, source.unwrap_or_default());
    let tracked: Tracked = decode(&client.get(&path).await?)?;
    if json { pretty(&Shown::from(&tracked)) } else { Ok(text(&tracked)) }
}

fn text(Tracked { table, connections, truncated }: &Tracked) -> String {
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

/// The state of TCP, which says more than that of tracking.
fn state(connection: &Connection) -> String {
    let state = connection.tcp.map_or(connection.state.name(), |state| state.name());
    let fasttracked = if connection.fasttracked { ", fasttracked" } else { "" };
    format!("{state}{fasttracked}")
}

/// The answer as JSON: every address and port is a field.
#[derive(Debug, Serialize)]
struct Shown<'t> {
    /// `null` if connections are not tracked.
    table: Option<Table>,
    connections: Vec<Row<'t>>,
    /// Whether there are more connections.
    truncated: bool,
}

#[derive(Debug, Serialize)]
struct Table {
    known: u64,
    capacity: u64,
    refused_packets: u64,
    /// `null` if none was refused.
    last_refused_seconds_ago: Option<f64>,
    /// `null` if the table is not full.
    warning: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row<'t> {
    /// `null` without a VLAN tag; two VLANs as `10/20`.
    vlan: Option<String>,
    /// `null` if it is in no PPPoE session.
    pppoe: Option<u16>,
    protocol: String,
    source: IpAddr,
    /// `null` if the protocol has no ports; so too the other one.
    source_port: Option<u16>,
    destination: IpAddr,
    destination_port: Option<u16>,
    /// The identifier of an ICMP query; `null` for other protocols.
    icmp_identifier: Option<u16>,
    /// The side that the first packet came from.
    side: Side,
    state: ConnectionState,
    /// `null` if it is not of TCP.
    tcp_state: Option<&'static str>,
    fasttracked: bool,
    /// The door that it began through; `null` if it is of none.
    door: Option<&'t str>,
    /// `null` if the door's grant has ended, or does not end.
    grant_left_seconds: Option<f64>,
    bytes: u64,
    time_left_seconds: f64,
}

impl<'t> From<&'t Tracked> for Shown<'t> {
    fn from(tracked: &'t Tracked) -> Self {
        let connections = tracked.connections.iter().map(Row::from).collect();
        Shown { table: tracked.table.as_ref().map(Table::from), connections, truncated: tracked.truncated }
    }
}

impl From<&ConnectionTable> for Table {
    fn from(table: &ConnectionTable) -> Self {
        Table {
            known: table.known,
            capacity: table.capacity,
            refused_packets: table.refused,
            last_refused_seconds_ago: table.last_refused.map(|age| age.as_secs_f64()),
            warning: table.warning(),
        }
    }
}

impl<'t> From<&'t Connection> for Row<'t> {
    fn from(connection: &'t Connection) -> Self {
        let Connection { source, destination, .. } = connection;
        let has_ports =
            !matches!(connection.protocol, protocol::ICMP | protocol::ICMPV6) && source.1 | destination.1 > 0;
        let is_icmp = matches!(connection.protocol, protocol::ICMP | protocol::ICMPV6);
        Row {
            vlan: connection.vlan.tags(),
            pppoe: connection.vlan.session(),
            protocol: protocol_name(connection.protocol),
            source: source.0,
            source_port: has_ports.then_some(source.1),
            destination: destination.0,
            destination_port: has_ports.then_some(destination.1),
            icmp_identifier: is_icmp.then_some(source.1),
            side: connection.side,
            state: connection.state,
            tcp_state: connection.tcp.map(|state| state.name()),
            fasttracked: connection.fasttracked,
            door: connection.door.as_deref(),
            grant_left_seconds: connection.grant_left.map(|left| left.as_secs_f64()),
            bytes: connection.bytes,
            time_left_seconds: connection.time_left.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn connections_are_shown_with_their_doors_and_a_full_table_is_warned_of() {
        let tracked = sample::tracked();
        insta::assert_snapshot!(text(&tracked));
        insta::assert_snapshot!(pretty(&Shown::from(&tracked)).unwrap());
    }

    #[test]
    fn without_tracking_there_is_nothing_to_show() {
        let none = Tracked { table: None, connections: Vec::new(), truncated: false };
        assert!(text(&none).contains("not tracked"));
    }
}
