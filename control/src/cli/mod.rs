//! `knockctl`, the operator's tool: command line in, text or JSON out, an exit code that scripts can rely on.
//!
//! `check`, `doctor`, `replay`, `test`, `import` and, with a rule file, `explain` and `export` work without a daemon. Everything else asks the control
//! process over its unix socket. Answers go to standard output, complaints to standard error.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the command line, and what each command does |
//! | `check/`     | rule files, judged offline |
//! | `apply.rs`   | rules that run in place of others, and what must be confirmed before |
//! | `explain.rs` | why a packet's verdict is what it is |
//! | `replay.rs`  | a capture run through rules |
//! | `test/`      | tests of rules |
//! | `bench.rs`   | rules that frames are tried on, and a clock |
//! | `sources.rs` | where those rules, settings and lists come from |
//! | `packet/`    | a packet in a line of text |
//! | `capture/`   | pcap and pcapng files |
//! | `export.rs`  | rules as RouterOS exports them |
//! | `import/`    | doors from a configuration of knockd |
//! | `print.rs`   | the rules that run, as RouterOS prints them |
//! | `doctor.rs`  | whether the dataplane can work on this host |
//! | `doors.rs`   | the doors and who is at them, as tables |
//! | `source/`    | everything that is known of one source |
//! | `show.rs`    | the rest of what runs, as tables |
//! | `list/`      | entries of lists, shown and changed by hand |
//! | `table.rs`   | how tables, numbers and foreign text look |
//! | `http.rs`    | one request to the control process |
//! | `output.rs`  | standard output and standard error |

mod apply;
mod bench;
mod capture;
mod check;
mod doctor;
mod doors;
mod explain;
mod export;
mod http;
mod import;
mod input;
mod list;
mod output;
mod packet;
mod print;
mod replay;
mod show;
mod source;
mod sources;
mod table;
mod test;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use knockplane_policy::wire::Reloaded;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::http::{Client, Trouble};
use self::output::{answer, complain};
use crate::api::messages::{DEFAULT_LIMIT, ListQuery, Workers};
use crate::settings::DEFAULT_SOCKET;
use crate::{Exit, rules};

/// What stays as it is in a path: the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The operator's tool of knockplane.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration or rules invalid, 4 control process or dataplane
/// unreachable, 5 not confirmed (see `apply --force`).
#[derive(Debug, Parser)]
#[command(name = "knockctl", version)]
struct Cli {
    /// Unix socket of the control process
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with rule files, and what cannot be meant, without running them; needs no daemon
    Check(check::Check),
    /// Check a rule file with the dataplane's settings, and have it run in place of the present rules
    ///
    /// If no rule would be left, or nothing that lets anybody in from outside, it asks on a terminal, and elsewhere ends
    /// with 5 without --force.
    Apply(apply::Command),
    /// Say why a packet's verdict is what it is: every rule it meets; needs no daemon with --rules
    Explain(Box<explain::Explain>),
    /// Show everything that the dataplane knows of one source address, and why its knocks do not count
    ///
    /// Lists with what put it in, doors with progress and grants, whether its knocks are ignored, why and until when,
    /// quota, connections, and its last dropped packets by reason.
    ExplainSource(source::ExplainSource),
    /// Run a capture through a rule file, with the capture's clock; needs no daemon
    Replay(replay::Replay),
    /// Run tests of rules: packets, and what should become of them; needs no daemon
    Test {
        /// Test files, such as configs/two-ports.test.toml
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Have the dataplane read its configuration again: doors and [policy] change at once, the rest waits for a restart
    Reload,
    /// Look at this host, and with --config at a start with that file: what is there, why it matters, what to change
    ///
    /// Needs no daemon, and disturbs none. Exit codes: 0 all is well, 1 the filter works, with warnings, 3 it cannot work.
    Doctor(doctor::Doctor),
    /// Write rules out as RouterOS exports them; needs no daemon with --rules
    Export(export::Export),
    /// Write the doors of a configuration of knockd as ours; needs no daemon
    Import(import::Import),
    /// Show what runs
    #[command(subcommand)]
    Show(Show),
    /// Show and change address lists by hand
    #[command(subcommand)]
    List(list::Command),
}

#[derive(Debug, Subcommand)]
enum Show {
    /// The rules, like RouterOS's `print`
    Rules {
        /// Their counters instead, like `print stats`
        #[arg(long)]
        stats: bool,
    },
    /// Address lists, their levels, who fills them and who is in them
    Lists(ShowLists),
    /// Doors, what became of knocks, who knocks, who is in, and whose knocks are ignored
    Doors(ShowDoors),
    /// The workers with their counters
    Workers,
    /// The dataplane in a few lines
    Status,
}

#[derive(Debug, Args)]
struct ShowLists {
    /// Only this list
    list: Option<String>,
    /// Show at most so many addresses
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

#[derive(Debug, Args)]
struct ShowDoors {
    /// Only this door
    door: Option<String>,
    /// Show at most so many who knock, so many who are in, and so many who are ignored
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

/// Why a command did not do what it should.
#[derive(Debug)]
struct Failed {
    exit: Exit,
    /// For people; a sentence a line.
    message: String,
    /// What standard output gets all the same.
    output: String,
}

impl Failed {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failed { exit, message: message.into(), output: String::new() }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        let exit = match &trouble {
            Trouble::Unreachable(_) => Exit::Unreachable,
            Trouble::Refused(status, _) if is_about_the_dataplane(*status) => Exit::Unreachable,
            Trouble::Refused(..) | Trouble::Stranger(_) => Exit::Runtime,
        };
        Failed::new(exit, trouble.to_string())
    }
}

/// What a gateway says when the one behind it does not answer.
fn is_about_the_dataplane(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// The whole process, from command line to exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failed::new(Exit::Runtime, error.to_string()))),
    };
    end(runtime.block_on(run(cli)))
}

fn end(result: Result<String, Failed>) -> ExitCode {
    match result {
        Ok(text) => answer(&text).into(),
        Err(failed) => {
            complain(failed.message.lines().map(|line| format!("knockctl: {line}\n")).collect::<String>());
            answer(&failed.output);
            failed.exit.into()
        }
    }
}

/// Whether complaints may be coloured: they are read on a terminal, and nobody objects (<https://no-color.org>).
fn color() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Does what the command says; the text is for standard output.
async fn run(cli: Cli) -> Result<String, Failed> {
    let Cli { socket, json, command } = cli;
    let client = Client::new(socket);
    match command {
        Command::Check(command) => check::run(&command, json),
        Command::Apply(command) => apply::run(&client, &command, json).await,
        Command::Explain(command) => explain::run(&client, *command, json).await,
        Command::ExplainSource(command) => source::run(&client, command, json).await,
        Command::Replay(command) => replay::run(&command, json),
        Command::Test { files } => test::run(&files, json),
        Command::Reload => reload(&client, json).await,
        Command::Doctor(command) => doctor::run(&command, json),
        Command::Export(command) => export::run(&client, &command, json).await,
        Command::Import(command) => import::run(&command),
        Command::Show(Show::Rules { stats }) => show_rules(&client, stats, json).await,
        Command::Show(Show::Lists(what)) => show_lists(&client, what, json).await,
        Command::Show(Show::Doors(what)) => show_doors(&client, what, json).await,
        Command::Show(Show::Workers) => {
            let workers = client.get("/api/v1/workers").await?;
            if json { raw(&workers) } else { Ok(show::workers(&decode::<Workers>(&workers)?)) }
        }
        Command::Show(Show::Status) => show_status(&client, json).await,
        Command::List(command) => list::run(&client, command, json).await,
    }
}

async fn reload(client: &Client, json: bool) -> Result<String, Failed> {
    let answer = change(client, "/api/v1/reload", None).await?;
    if json {
        return raw(&answer);
    }
    let Reloaded { generation, doors, waiting } = decode(&answer)?;
    let mut text = format!("generation {generation} runs, {}\n", table::count(doors, "door"));
    if !waiting.is_empty() {
        text += &format!("these wait for a restart of the dataplane: {}\n", waiting.join(", "));
    }
    Ok(text)
}

/// Has other rules or settings run. A refusal is their own fault.
async fn change(client: &Client, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, Failed> {
    match client.send(Method::POST, path, body).await {
        Err(Trouble::Refused(StatusCode::UNPROCESSABLE_ENTITY, message)) => Err(Failed::new(Exit::Invalid, message)),
        other => Ok(other?),
    }
}

async fn show_rules(client: &Client, stats: bool, json: bool) -> Result<String, Failed> {
    let rules = client.get("/api/v1/rules").await?;
    if json {
        return raw(&rules);
    }
    let status = decode(&client.get("/api/v1/status").await?)?;
    let rules = decode(&rules)?;
    Ok(if stats { print::stats(&rules, &status) } else { print::rules(&rules, &status, table::terminal_width()) })
}

async fn show_lists(client: &Client, what: ShowLists, json: bool) -> Result<String, Failed> {
    let query = ListQuery { list: what.list.clone(), ..ListQuery::default() };
    let lists = list::entries(client, query, what.limit).await?;
    if json {
        return pretty(&lists);
    }
    show::known(&lists, what.list.as_deref())?;
    Ok(show::lists(&lists, what.list.as_deref()))
}

async fn show_doors(client: &Client, what: ShowDoors, json: bool) -> Result<String, Failed> {
    let only = what.door.as_ref().map(|door| format!("&door={}", encoded(door)));
    let path = format!("doors?limit={}{}", what.limit, only.unwrap_or_default());
    let doors = client.get(&format!("/api/v1/{path}")).await?;
    if json {
        return raw(&doors);
    }
    doors::doors(&decode(&doors)?, what.door.as_deref()).map_err(|message| Failed::new(Exit::Runtime, message))
}

async fn show_status(client: &Client, json: bool) -> Result<String, Failed> {
    let status = client.get("/api/v1/status").await?;
    if json {
        return raw(&status);
    }
    let ready = match client.get("/readyz").await {
        Ok(_) => Ok(()),
        Err(Trouble::Refused(_, reason)) => Err(reason),
        Err(trouble) => return Err(trouble.into()),
    };
    Ok(show::status(&decode(&status)?, ready))
}

/// Text as it stands in a path or a query.
fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, SEGMENT)
}

fn parse_timeout(text: &str) -> Result<String, String> {
    rules::timeout(text).map(|_| text.to_owned())
}

/// The API's JSON as it came.
fn raw(body: &[u8]) -> Result<String, Failed> {
    Ok(String::from_utf8_lossy(body).into_owned() + "\n")
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|error| {
        let remedy = "install the same version of knockctl and knockplane-control";
        Failed::new(Exit::Runtime, format!("the answer cannot be read ({error}): {remedy}"))
    })
}

fn as_json(value: &impl Serialize) -> Result<Vec<u8>, Failed> {
    serde_json::to_vec(value).map_err(|error| Failed::new(Exit::Runtime, error.to_string()))
}

fn pretty(value: &impl Serialize) -> Result<String, Failed> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failed::new(Exit::Runtime, error.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests;
