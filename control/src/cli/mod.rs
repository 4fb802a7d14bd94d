//! `knockctl`, the operator's tool: a command line, an answer as text or JSON, and a stable exit code for scripts.
//!
//! `check`, `doctor`, `replay`, `test`, `import` and, with a rule file, `explain`, `export` and `plan` work without a daemon. All other
//! commands send a request to the control process over its unix socket. Answers go to standard output, errors and warnings to
//! standard error.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the command line, and the effect of each command |
//! | `check/`     | checks rule files |
//! | `plan/`      | what an apply would change |
//! | `apply.rs`   | replaces the running rules, after a confirmation if needed |
//! | `history.rs` | revisions: shows, compares and restores them |
//! | `undo.rs`    | steps back and forward through revisions |
//! | `edit.rs`    | the running rules in an editor |
//! | `confirm.rs` | confirms an apply or a reload that waits for it |
//! | `reload.rs`  | reloads the configuration |
//! | `explain.rs` | the reasons for the verdict of a packet |
//! | `rule/`      | edits of the running rules |
//! | `trace/`     | live packets with the rules that they met |
//! | `replay.rs`  | runs a capture through rules |
//! | `test/`      | tests of rules |
//! | `sources.rs` | the origin of those rules, settings and lists |
//! | `capture/`   | pcap and pcapng files |
//! | `export.rs`  | rules as RouterOS exports them |
//! | `import/`    | doors from a configuration of knockd |
//! | `print.rs`   | the running rules, in the format of RouterOS's `print` |
//! | `completion.rs` | names for the completion of command lines in a shell |
//! | `connections.rs` | tracked connections: as a table, counted, ended |
//! | `doctor.rs`  | whether the dataplane can work on this host |
//! | `doors.rs`   | the doors and the sources at them, as tables |
//! | `source/`    | the state of one source |
//! | `show.rs`    | lists, workers and all figures of the status, as tables |
//! | `status.rs`  | the status on one screen |
//! | `list/`      | shows and changes list entries |
//! | `monitor/`   | the stream of events |
//! | `table.rs`   | the format of tables, numbers and untrusted text |
//! | `top/`       | live rates |
//! | `signals.rs` | the signals that end a command that goes on |
//! | `watch.rs`   | repeats a `show` command |
//! | `page.rs`    | a link that signs in at the web page |
//! | `token.rs`   | creates, shows and revokes tokens |
//! | `api.rs`     | the API on TCP as the way to the control process |
//! | `question.rs` | a question before a change |
//! | `http.rs`    | one request to the control process |
//! | `output.rs`  | standard output and standard error |

mod api;
mod apply;
mod capture;
mod check;
mod completion;
mod confirm;
mod connections;
mod doctor;
mod doors;
mod edit;
mod explain;
mod export;
mod history;
mod http;
mod import;
mod input;
mod list;
mod monitor;
mod output;
mod page;
mod plan;
mod print;
mod question;
mod reload;
mod replay;
mod rule;
mod show;
mod signals;
mod source;
mod sources;
mod status;
mod table;
mod test;
mod token;
mod top;
mod trace;
mod undo;
mod watch;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ContextKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use knockplane_policy::wire::{self, DataplaneStatus};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::completion::script as completion_script;
#[cfg(test)]
pub(crate) use self::explain::All;
use self::http::{Client, ControlError, ErrorMessage};
#[cfg(test)]
pub(crate) use self::import::ImportedDoors;
use self::output::{answer, complain};
#[cfg(test)]
pub(crate) use self::replay::ReplayReport;
#[cfg(test)]
pub(crate) use self::test::Reports;
#[cfg(test)]
pub(crate) use self::trace::TracedJson;
use crate::api::messages::{DEFAULT_LIMIT, ListQuery, Overview, Workers};
use crate::json::{Document, ErrorDocument, ErrorJson, Version};
use crate::settings::DEFAULT_SOCKET;
use crate::{Exit, json, rules};

/// The characters that are escaped in a path: all but the unreserved ones of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The operator's tool of knockplane.
///
/// Exit codes: 0 done, 1 failed, 2 invalid command line, 3 invalid configuration or rules, 4 control process or dataplane
/// unreachable, 5 not confirmed (see `apply --force`), or, by `plan`, that something would change, 6 not possible now (see
/// `apply --confirm` and `reload --confirm`).
#[derive(Debug, Parser)]
#[command(name = "knockctl", version)]
struct Cli {
    /// Unix socket of the control process
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(flatten)]
    api: api::Arguments,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report errors and probable mistakes in rule files; needs no daemon
    Check(check::Check),
    /// Show what would change if a rule file replaced the running rules; needs no daemon with --rules
    ///
    /// Rules that are added, removed, moved and changed; lints of `check` that appear and disappear; and packets whose verdict would
    /// change: with --pcap, those of a capture; with --live, those of a sample of live traffic; otherwise, without --rules, the first
    /// packets of tracked connections and listed sources. Exit
    /// codes: 0 nothing would change, 5 something would, 3 the rules are invalid.
    Plan(plan::Command),
    /// Check a rule file with the settings of the dataplane, and replace the running rules by it
    ///
    /// If no rule would be left, or no way in from outside, the command asks for a confirmation on a terminal. Without a
    /// terminal it ends with 5, unless --force is given.
    ///
    /// With --confirm, the dataplane returns to the rules before after that time, unless `knockctl confirm` arrives earlier; with
    /// `knockctl cancel` at once.
    /// A second apply and a reload end with 6 meanwhile.
    Apply(apply::Command),
    /// Confirm the rules of `apply --confirm`, or the settings of `reload --confirm`, so that they remain
    ///
    /// Ends with 6 if nothing waits for a confirmation: it was confirmed or rolled back already.
    Confirm,
    /// Roll back the rules of `apply --confirm`, or the settings of `reload --confirm`, now
    ///
    /// Ends with 6 if nothing waits for a confirmation: it was confirmed or rolled back already.
    Cancel,
    /// Show the verdict on a packet and its evaluation rule by rule; needs no daemon with --rules
    Explain(Box<explain::Explain>),
    /// Show the state of one source address in the dataplane, and why its knocks are ignored
    ///
    /// Lists with the origin of its entries, doors with progress and grants, ignored knocks with reason and time left, quota,
    /// connections, and its last dropped packets by reason.
    ExplainSource(source::ExplainSource),
    /// Show live packets as they arrive, each with its verdict and the rules that it met
    ///
    /// The verdict, its reason and the rules that matched are those of the worker that decided. The reasons why the other rules did
    /// not match follow from the packet and from the facts that the worker recorded. While a trace runs, the flows and
    /// strangers that it shows are not carried and dropped by the kernel, so that no packet is missed. It ends after --count
    /// packets, after the time, or by Ctrl-C. Ends with 6 while another trace runs.
    Trace(trace::Command),
    /// Run a capture through a rule file, with the time stamps of the capture; needs no daemon
    Replay(replay::Replay),
    /// Run tests of rules: packets with their expected results; needs no daemon
    Test {
        /// Test files, such as configs/two-ports.test.toml
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show the rule sets that have run: time, user, origin, changes and comment
    History(history::ShowHistory),
    /// Show the differences of two revisions of `knockctl history`, as a unified diff of their exports
    ///
    /// Ends with 6 if there is no such revision.
    Diff(history::Diff),
    /// Apply the rules of an earlier revision again; without a number, those of the revision before the last one
    ///
    /// The same checks, options and exit codes as `apply`; ends with 6 if there is no such revision.
    Rollback(history::Rollback),
    /// Return to the rules before the last change that was not undone
    ///
    /// A second undo returns further. It is a revision, and has the checks, options and exit codes of `apply`; ends with 6 if
    /// there is nothing to undo.
    Undo(undo::Command),
    /// Reverse the last undo, if no other change followed
    ///
    /// As `undo`; ends with 6 if there is nothing to redo.
    Redo(undo::Command),
    /// Edit the running rules in an editor: $VISUAL, $EDITOR or vi
    ///
    /// Shows the plan and asks before it applies the rules, which must then be confirmed in time. If they are not applied, the
    /// text is kept, and the message names its file. Ends with 6 if the rules changed meanwhile. Without a terminal it ends with
    /// 5, unless --force is given.
    Edit(edit::Command),
    /// Edit the running rules, with the words of RouterOS
    ///
    /// The options, checks and exit codes of `apply`; ends with 6 if no such rule runs, if the rule belongs to a door of the
    /// configuration, or if the rules changed meanwhile.
    #[command(subcommand)]
    Rule(rule::Command),
    /// Make the dataplane reload its configuration: doors and [policy] change at once, other keys need a restart
    ///
    /// With --confirm, the dataplane returns to the doors and [policy] before after that time, unless `knockctl confirm` arrives
    /// earlier. They then also run after a restart, in place of those of the file, until the next reload.
    ///
    /// Ends with 6 while an apply or another reload waits for its confirmation.
    Reload(reload::Reload),
    /// Show events as they happen: grants, changes of lists and by operators, logged packets
    ///
    /// One line for each event, until Ctrl-C. Each has an id, which is also in the log and in the audit file; --since continues
    /// after it, also over restarts of either process. If events are missed, because the reader is slow or the id is too old,
    /// the stream has a `gap` with their numbers, and then the changes that the lists still have. Logged packets are omitted under
    /// load; `omitted` has their number by rule. With --json, each line is a document. Ends with 2 if a filter is invalid.
    Monitor(monitor::Monitor),
    /// Examine this host, and with --config a start with that file: findings, reasons and remedies
    ///
    /// Needs no daemon, and does not affect a running one. Exit codes: 0 no problem, 1 the filter works, with warnings, 3 it
    /// cannot work.
    Doctor(doctor::Doctor),
    /// Print rules in the format of a RouterOS export; needs no daemon with --rules
    Export(export::Export),
    /// Convert a configuration of knockd to doors; needs no daemon
    Import(import::Import),
    /// Show the running state
    Show(ShowArguments),
    /// Show live rates by rule, list, door, worker, drop reason and source, and what the kernel and the workers decide
    ///
    /// Keys: 1 to 6 or Tab choose the view; p, b, t and n sort by packets/s, bytes/s, total and name, r reverses; / types a
    /// filter; Space pauses; q or Ctrl-C ends. Without a terminal it prints tables, as with --batch, and with --json a line
    /// for each answer.
    Top(top::Top),
    /// Show and change address lists
    #[command(subcommand)]
    List(list::Command),
    /// Create, show and revoke tokens for the API on TCP
    #[command(subcommand)]
    Token(token::Command),
    /// Print a link that signs a browser in at the web page, once and within 60 s
    ///
    /// The session has the role of the socket, or the one of --role, and its changes have the user id of the command with the word
    /// `page` in history, log and audit file. Ends with 6 if the web page is off: set `page = true` in [control.api].
    Page(page::Page),
    /// End tracked connections
    #[command(subcommand)]
    Connection(connections::Command),
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// Repeat until Ctrl-C: every second, or with this interval, for example 500ms or 10s
    ///
    /// On a terminal, each answer replaces the one before; elsewhere, each answer has a line with the time before it. With
    /// --json, each answer is one line.
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "1s", value_parser = watch::period)]
    watch: Option<Duration>,
    #[command(subcommand)]
    what: Show,
}

#[derive(Debug, Subcommand)]
enum Show {
    /// The rules, as RouterOS's `print` shows them
    Rules {
        /// Show their counters instead, as `print stats` does
        #[arg(long)]
        stats: bool,
    },
    /// Address lists with their levels, origins and entries
    Lists(ShowLists),
    /// Doors with their counters, and sources that knock, are admitted or are ignored
    Doors(ShowDoors),
    /// Tracked connections with their state, door and time left
    Connections(connections::ShowConnections),
    /// The workers with their counters
    Workers,
    /// Whether all is well, what to do if not, and the essential figures
    Status {
        /// Show all figures: counters of interfaces, every reason of drops, copy mode
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct ShowLists {
    /// Only this list
    #[arg(add = completion::lists())]
    list: Option<String>,
    /// Maximum number of addresses
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

#[derive(Debug, Args)]
struct ShowDoors {
    /// Only this door
    #[arg(add = completion::doors())]
    door: Option<String>,
    /// Maximum number of sources that knock, of sources that are admitted, and of sources that are ignored
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
}

/// A command has failed.
#[derive(Debug)]
struct Failed {
    exit: Exit,
    /// The message, one sentence a line.
    message: String,
    /// The place of the failure: the file with line and column, the argument, or the socket.
    place: Option<String>,
    /// The remedy at the end of the message, if there is one.
    remedy: Option<String>,
    /// The text for standard output, which a failed command can have too.
    output: String,
}

impl Failed {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failed { exit, message: message.into(), place: None, remedy: None, output: String::new() }
    }

    /// Adds the place.
    fn at(self, place: Option<String>) -> Self {
        Failed { place, ..self }
    }

    /// Adds an answer as text.
    fn with_output(self, output: String) -> Self {
        Failed { output, ..self }
    }

    /// Adds an answer as JSON, which includes the error.
    fn beside(self, content: impl Serialize) -> Self {
        let document = Document { version: Version, error: Some(self.problem()), content };
        // If the answer cannot be encoded, the error is printed alone.
        let output = pretty(&document).unwrap_or_default();
        self.with_output(output)
    }

    /// The whole document of a command that failed without an answer.
    fn document(&self) -> String {
        pretty(&ErrorDocument { version: Version, error: self.problem() }).unwrap_or_default()
    }

    /// The error for JSON, with its remedy as a separate field.
    fn problem(&self) -> ErrorJson {
        let remedy = self.remedy.clone();
        let message = remedy.as_deref().and_then(|remedy| self.message.strip_suffix(remedy)).unwrap_or(&self.message);
        let message = message.trim_end_matches([' ', ':', ';', '\n']).to_owned();
        ErrorJson { code: self.exit.into(), message, place: self.place.clone(), remedy }
    }
}

impl From<ControlError> for Failed {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::Unreachable(_) => Exit::Unreachable,
            ControlError::Refused(status, _) if is_about_the_dataplane(*status) => Exit::Unreachable,
            ControlError::Refused(StatusCode::CONFLICT, _) => Exit::Conflict,
            ControlError::Refused(..) | ControlError::Stranger(_) => Exit::Runtime,
        };
        let ErrorMessage { sentence, remedy, place } = error.reason();
        Failed { remedy, ..Failed::new(exit, sentence) }.at(place)
    }
}

impl From<clap::Error> for Failed {
    /// The first paragraph of clap's text is the error, and another one is a tip.
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n").map(str::trim);
        let message = paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let tip = paragraphs.clone().find_map(|paragraph| paragraph.strip_prefix("tip: "));
        let help = paragraphs.find(|paragraph| paragraph.starts_with("For more information"));
        let argument = error.get(ContextKind::InvalidArg).or(error.get(ContextKind::InvalidSubcommand));
        let failed = Failed::new(Exit::Usage, message).at(argument.map(ToString::to_string));
        Failed { remedy: tip.or(help).map(str::to_owned), ..failed }
    }
}

/// Whether the status is that of a gateway without an answer from its server.
fn is_about_the_dataplane(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// The command line, for the manual page.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    completion::complete_and_exit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(error),
    };
    let json = cli.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failed::new(Exit::Runtime, error.to_string())), json),
    };
    end(runtime.block_on(run(cli)), json)
}

/// Prints the error of the command line, or the help or version that was requested.
fn not_understood(error: clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    // A failed write to standard error does not change the exit code.
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Ok.into();
    }
    if wants_json {
        answer(&Failed::from(error).document());
    }
    Exit::Usage.into()
}

fn end(result: Result<String, Failed>, json: bool) -> ExitCode {
    match result {
        Ok(text) => answer(&text).into(),
        Err(failed) => {
            complain(failed.message.lines().map(|line| format!("knockctl: {line}\n")).collect::<String>());
            answer(&if json && failed.output.is_empty() { failed.document() } else { failed.output });
            failed.exit.into()
        }
    }
}

/// Whether errors may be coloured: standard error is a terminal, and NO_COLOR is not set (<https://no-color.org>).
fn color() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Runs the command, and returns the text for standard output.
async fn run(cli: Cli) -> Result<String, Failed> {
    let Cli { socket, api, json, command } = cli;
    let client = match api.read()? {
        Some(api) => Client::of_api(api),
        None => Client::new(socket),
    };
    match command {
        Command::Check(command) => check::run(&command, json),
        Command::Plan(command) => plan::run(&client, &command, json).await,
        Command::Apply(command) => apply::run(&client, &command, json).await,
        Command::History(command) => history::show(&client, &command, json).await,
        Command::Diff(command) => history::diff(&client, &command, json).await,
        Command::Rollback(command) => history::rollback(&client, &command, json).await,
        Command::Undo(command) => undo::undo(&client, &command, json).await,
        Command::Redo(command) => undo::redo(&client, &command, json).await,
        Command::Edit(command) => edit::run(&client, &command, json).await,
        Command::Rule(command) => rule::run(&client, command, json).await,
        Command::Confirm => confirm::confirm(&client, json).await,
        Command::Cancel => confirm::cancel(&client, json).await,
        Command::Explain(command) => explain::run(&client, *command, json).await,
        Command::ExplainSource(command) => source::run(&client, command, json).await,
        Command::Trace(command) => trace::run(&client, &command, json).await,
        Command::Replay(command) => replay::run(&command, json),
        Command::Test { files } => test::run(&files, json),
        Command::Reload(command) => reload::run(&client, &command, json).await,
        Command::Monitor(command) => monitor::run(&client, &command, json).await,
        Command::Doctor(command) => doctor::run(&command, json),
        Command::Export(command) => export::run(&client, &command, json).await,
        Command::Import(command) => import::run(&command, json),
        Command::Show(ShowArguments { watch: None, what }) => show_once(&client, &what, json).await,
        Command::Show(ShowArguments { watch: Some(period), what }) => {
            watch::watch(period, json, async || show_once(&client, &what, json).await).await
        }
        Command::List(command) => list::run(&client, command, json).await,
        Command::Page(command) => page::run(&client, command, json).await,
        Command::Token(command) => token::run(&client, command, json).await,
        Command::Connection(command) => connections::change(&client, &command, json).await,
        Command::Top(command) => top::run(&client, &command, json).await,
    }
}

async fn show_once(client: &Client, what: &Show, json: bool) -> Result<String, Failed> {
    match what {
        Show::Rules { stats } => show_rules(client, *stats, json).await,
        Show::Lists(what) => show_lists(client, what, json).await,
        Show::Doors(what) => show_doors(client, what, json).await,
        Show::Connections(what) => connections::run(client, what, json).await,
        Show::Workers => {
            let workers: Workers = decode(&client.get("/api/v1/workers").await?)?;
            if json { document(json::status::WorkersJson::from(workers)) } else { Ok(show::workers(&workers)) }
        }
        Show::Status { all } => show_status(client, *all, json).await,
    }
}

/// Sends a change of rules or settings. A refusal means that they are invalid.
async fn change(client: &Client, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, Failed> {
    match client.send(Method::POST, path, body).await {
        Err(ControlError::Refused(StatusCode::UNPROCESSABLE_ENTITY, reason)) => {
            Err(Failed::new(Exit::Invalid, reason.sentence))
        }
        other => Ok(other?),
    }
}

async fn show_rules(client: &Client, stats: bool, json: bool) -> Result<String, Failed> {
    let rules: wire::RunningRules = decode(&client.get("/api/v1/rules").await?)?;
    let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
    // Behind the rules, so that it has their revision.
    let history = history::all(client).await?;
    if json {
        return document(json::rules::RulesJson::new(&rules, &history, &status.settings));
    }
    Ok(match stats {
        true => print::stats(&rules, &history, &status),
        false => print::rules(&rules, &history, &status, table::width()),
    })
}

async fn show_lists(client: &Client, what: &ShowLists, json: bool) -> Result<String, Failed> {
    let query = ListQuery { list: what.list.clone(), ..ListQuery::default() };
    let lists = list::entries(client, query, what.limit).await?;
    show::known(&lists, what.list.as_deref())?;
    if json {
        return document(json::lists::ListsJson::from(lists));
    }
    Ok(show::lists(&lists, what.list.as_deref()))
}

async fn show_doors(client: &Client, what: &ShowDoors, json: bool) -> Result<String, Failed> {
    let only = what.door.as_ref().map(|door| format!("&door={}", encoded(door)));
    let path = format!("doors?limit={}{}", what.limit, only.unwrap_or_default());
    let doors: wire::Doors = decode(&client.get(&format!("/api/v1/{path}")).await?)?;
    doors::known(&doors, what.door.as_deref()).map_err(|message| Failed::new(Exit::Runtime, message))?;
    if json { document(json::doors::DoorsJson::from(doors)) } else { Ok(doors::doors(&doors)) }
}

async fn show_status(client: &Client, all: bool, json: bool) -> Result<String, Failed> {
    let status: Overview = decode(&client.get("/api/v1/status").await?)?;
    let ready = match client.get("/readyz").await {
        Ok(_) => Ok(()),
        Err(ControlError::Refused(_, reason)) => Err(reason.sentence),
        Err(error) => return Err(error.into()),
    };
    if json {
        return document(json::status::StatusJson::new(status, ready));
    }
    Ok(if all { show::status(&status, ready) } else { status::screen(&status, &ready) })
}

/// Text, escaped for a path or a query.
fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, SEGMENT)
}

fn parse_timeout(text: &str) -> Result<String, String> {
    rules::timeout(text).map(|_| text.to_owned())
}

/// An answer as JSON.
fn document(content: impl Serialize) -> Result<String, Failed> {
    pretty(&Document::new(content))
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
