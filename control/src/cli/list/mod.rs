//! `knockctl list`: shows and changes list entries, from one to a million.
//!
//! | file      | owns |
//! |-----------|------|
//! | `mod.rs`  | the command line and the requests |
//! | `text.rs` | entries as text |

mod text;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hyper::Method;
use knockplane_limits::input::LIST_ENTRIES;
use knockplane_policy::rule::AddressSet;
use knockplane_policy::wire::{self, After, MAX_ANSWER_ENTRIES};

use super::http::Client;
use super::output::complain;
use super::table::{count, printable};
use super::{Failed, as_json, completion, decode, document, encoded, input, parse_timeout, show};
use crate::api::messages::{self, DEFAULT_LIMIT, ListAddition, ListImport, ListQuery};
use crate::json::changes::{AddedJson, FlushedJson, ImportedJson, RemovedJson};
use crate::json::lists::ListsJson;
use crate::{Exit, rules};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the entries of lists
    Show(Show),
    /// Add an entry to a list, or replace its timeout and comment
    ///
    /// Without --timeout the entry is static: no packet changes it, it is never evicted, and a restart of the dataplane keeps it.
    /// With --timeout a restart keeps an address until its timeout ends, without the comment, and removes a prefix or range.
    Add {
        /// Name of the list
        #[arg(add = completion::lists())]
        list: String,
        /// Address, prefix or range of IPv4 addresses
        address: AddressSet,
        /// Timeout in the syntax of RouterOS: 10m, 1d2h, 00:10:00; without it, the entry is static
        #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
        timeout: Option<String>,
        /// Free text, shown with the entry
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        comment: String,
    },
    /// Remove an entry from a list
    Remove {
        /// Name of the list
        #[arg(add = completion::lists())]
        list: String,
        /// The address, prefix or range, as `list show` prints it
        address: AddressSet,
    },
    /// Remove all entries from a list, except those of the rules
    Flush {
        /// Name of the list
        #[arg(add = completion::lists())]
        list: String,
        /// Keep static entries
        #[arg(long)]
        dynamic: bool,
    },
    /// Add all entries of a file to their lists, or none if a line is invalid
    ///
    /// The file is the output of `list show --export`, an export of address lists from a router, or has lines of the form
    /// `LIST ADDRESS [TIMEOUT] [# comment]`.
    Import {
        /// The file; `-` is standard input
        file: PathBuf,
    },
}

/// The options of `show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only this list
    #[arg(add = completion::lists())]
    list: Option<String>,
    /// Only entries that share an address with this address, prefix or range
    #[arg(long, value_name = "PREFIX")]
    address: Option<AddressSet>,
    /// Only dynamic entries: those with a timeout, and those that packets added
    #[arg(long, conflicts_with = "static")]
    dynamic: bool,
    /// Only static entries: those of the rules, and those that operators added without a timeout
    #[arg(long = "static", id = "static")]
    lasting: bool,
    /// Only entries that expire within this time
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    expires_within: Option<String>,
    /// Only entries whose comment contains this text
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Maximum number of entries; the default is 1000, or all with --export
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print text that `list import` and RouterOS can read
    #[arg(long)]
    export: bool,
}

/// Runs the command.
pub(super) async fn run(client: &Client, command: Command, json: bool) -> Result<String, Failed> {
    match command {
        Command::Show(what) => show(client, what, json).await,
        Command::Add { list, address, timeout, comment } => {
            add(client, list, ListAddition { address, timeout, comment }, json).await
        }
        Command::Remove { list, address } => {
            let path = format!("/api/v1/lists/{}/{}", encoded(&list), encoded(&address.to_string()));
            client.send(Method::DELETE, &path, None).await?;
            if json {
                return document(RemovedJson { list, address: address.to_string() });
            }
            Ok(format!("{address} is no longer in {}\n", printable(&list)))
        }
        Command::Flush { list, dynamic } => {
            let path = format!("/api/v1/lists/{}?dynamic={dynamic}", encoded(&list));
            let messages::Flushed { removed } = decode(&client.send(Method::DELETE, &path, None).await?)?;
            if json {
                return document(FlushedJson { list, removed });
            }
            let entries = if removed == 1 { "entry is" } else { "entries are" };
            Ok(format!("{removed} {entries} no longer in {}\n", printable(&list)))
        }
        Command::Import { file } => import(client, &file, json).await,
    }
}

async fn show(client: &Client, what: Show, json: bool) -> Result<String, Failed> {
    let Show { list, address, dynamic, lasting, expires_within, comment, limit, export } = what;
    let limit = limit.unwrap_or(if export { usize::MAX } else { DEFAULT_LIMIT });
    let dynamic = (dynamic || lasting).then_some(dynamic);
    let address = address.map(|address| address.to_string());
    let query = ListQuery { list, address, dynamic, expires_within, comment, ..ListQuery::default() };
    let only = query.list.clone();
    let lists = entries(client, query, limit).await?;
    show::known(&lists, only.as_deref())?;
    if export {
        return text::write(&lists.entries).map_err(|what| Failed::new(Exit::Runtime, what));
    }
    if json { document(ListsJson::from(lists)) } else { Ok(show::entries(&lists)) }
}

async fn add(client: &Client, list: String, entry: ListAddition, json: bool) -> Result<String, Failed> {
    let path = format!("/api/v1/lists/{}", encoded(&list));
    let added: wire::Added = decode(&client.send(Method::POST, &path, Some(as_json(&entry)?)).await?)?;
    warn_of_unused(&added);
    if json {
        let timeout = entry.timeout.as_deref().and_then(|timeout| rules::timeout(timeout).ok());
        let (address, timeout_seconds) = (entry.address.to_string(), timeout.map(crate::json::seconds));
        return document(AddedJson { list, address, timeout_seconds, unused_lists: added.unused });
    }
    let lasts = entry.timeout.map_or_else(|| "without a timeout".to_owned(), |timeout| format!("for {timeout}"));
    Ok(format!("{} is in {} {lasts}\n", entry.address, printable(&list)))
}

async fn import(client: &Client, file: &Path, json: bool) -> Result<String, Failed> {
    let (name, text) = input::read(file, &LIST_ENTRIES);
    let text = text.map_err(|error| Failed::new(Exit::Runtime, format!("{name} {error}")))?;
    let entries = text::read(&name, &text).map_err(|bad| {
        complain(&bad.report);
        Failed::new(Exit::Invalid, format!("{name}: {}; nothing was added", count(bad.problems, "problem")))
    })?;
    let number = entries.len();
    let answer = client.send(Method::POST, "/api/v1/lists", Some(as_json(&ListImport { entries })?)).await?;
    let added: wire::Added = decode(&answer)?;
    warn_of_unused(&added);
    if json {
        return document(ImportedJson { entries: number, unchanged: added.left, unused_lists: added.unused });
    }
    Ok(imported(&name, number, &added))
}

/// Warns about lists in which entries have no effect: their names may be misspelt.
fn warn_of_unused(added: &wire::Added) {
    complain(unused(added));
}

fn unused(wire::Added { unused, .. }: &wire::Added) -> String {
    let warning = |list: &String| {
        let list = printable(list);
        format!(
            "knockctl: warning: no rule that runs matches the list {list}, so entries in it have no effect: check the name; \
             `knockctl show lists` names the lists\n"
        )
    };
    unused.iter().map(warning).collect()
}

fn imported(name: &str, number: usize, wire::Added { left, .. }: &wire::Added) -> String {
    let entries = if number == 1 { "entry of it is" } else { "entries of it are" };
    let left = match left {
        0 => String::new(),
        _ => format!("; {left} of them were static already, and were not changed"),
    };
    format!("{name}: {number} {entries} in{left}\n")
}

/// The entries for a query up to a limit, from as many answers as needed.
pub(super) async fn entries(client: &Client, mut query: ListQuery, limit: usize) -> Result<wire::ListPage, Failed> {
    let mut lists: Option<wire::ListPage> = None;
    loop {
        query.limit = (limit - lists.as_ref().map_or(0, |lists| lists.entries.len())).min(MAX_ANSWER_ENTRIES);
        let answer: wire::ListPage = decode(&client.get(&format!("/api/v1/lists?{}", words(&query))).await?)?;
        let next = answer.next.clone();
        let all = match lists.take() {
            None => answer,
            Some(mut lists) => {
                lists.entries.extend(answer.entries);
                wire::ListPage { truncated: answer.truncated, next: answer.next, ..lists }
            }
        };
        let Some(After { list, address, vlan, tag }) = next.filter(|_| all.entries.len() < limit) else {
            return Ok(all);
        };
        (query.after_list, query.after_address) = (Some(list), Some(address.to_string()));
        (query.after_vlan, query.after_tag) = (vlan.bits(), tag);
        lists = Some(all);
    }
}

/// A query, encoded for a URI.
fn words(query: &ListQuery) -> String {
    let text = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("&{name}={}", encoded(value)));
    let rest = [
        text("list", &query.list),
        text("address", &query.address),
        query.dynamic.map(|dynamic| format!("&dynamic={dynamic}")),
        text("expires-within", &query.expires_within),
        text("comment", &query.comment),
        text("after-list", &query.after_list),
        text("after-address", &query.after_address),
        (query.after_vlan != 0).then(|| format!("&after-vlan={}", query.after_vlan)),
        (query.after_tag != 0).then(|| format!("&after-tag={}", query.after_tag)),
    ];
    format!("limit={}", query.limit) + &rest.into_iter().flatten().collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(left: u64, unused: &[&str]) -> wire::Added {
        wire::Added { left, unused: unused.iter().map(|list| (*list).to_owned()).collect() }
    }

    #[test]
    fn each_list_without_effect_is_a_warning() {
        assert_eq!(unused(&added(0, &[])), "");
        let told = unused(&added(0, &["secued", "a\u{1b}[2J"]));
        let lines: Vec<_> = told.lines().collect();
        assert!(lines[0].starts_with("knockctl: warning: no rule that runs matches the list secued, "), "{told}");
        assert!(lines.len() == 2 && lines[1].contains("the list a\\u{1b}[2J,"), "{told}");
    }

    #[test]
    fn an_import_tells_what_it_left() {
        assert_eq!(imported("a.rsc", 1, &added(0, &[])), "a.rsc: 1 entry of it is in\n");
        let told = "a.rsc: 5 entries of it are in; 2 of them were static already, and were not changed\n";
        assert_eq!(imported("a.rsc", 5, &added(2, &[])), told);
    }
}
