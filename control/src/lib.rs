//! The control process `knockplane-control` and the operator's tool `knockctl`: the interfaces for people and machines.
//!
//! Neither decides packets. The control process sends requests and rule sets to the dataplane. Without a control
//! process, the dataplane continues unchanged.
//!
//! | module        | owns |
//! |---------------|------|
//! | [`daemon`]    | the control process: its start, its two listeners, its stop |
//! | [`api`]       | HTTP: the paths and their requests |
//! | [`ready`]     | whether the dataplane decides packets now |
//! | [`metrics`]   | the metrics for Prometheus |
//! | [`dataplane`] | the client side of the messages in `policy::wire` |
//! | [`events`]    | the events of the dataplane and of operators, for streams and the audit file |
//! | `audit`       | the audit file |
//! | [`names`]     | host names in address lists, resolved |
//! | [`settings`]  | the section `[control]` of the configuration |
//! | [`tokens`]    | the tokens of the API on TCP |
//! | [`sessions`]  | the sessions of browsers |
//! | [`page`]      | the web page: its files, and checks of browsers' requests |
//! | [`traffic`]   | the traffic of the last ten minutes, for the web page |
//! | [`address`]   | parsing of a single address |
//! | [`rules`]     | offline checks of rules, before the dataplane gets them |
//! | `check`       | the findings about a rule file |
//! | `plan`        | what other rules would change |
//! | `edit`        | edits of the running rules, in RouterOS's words |
//! | `revisions`   | steps through revisions |
//! | `explain`     | the explanation of a packet |
//! | `bench`       | evaluates rules on frames, with its own clock |
//! | `running`     | the state of the dataplane for that |
//! | `packet`      | a packet as a line of text |
//! | `text`        | text for operators |
//! | [`cli`]       | `knockctl` |

// The print macros panic if the reader has closed the output: see `cli::output` and `knockplane_log`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub use knockplane_policy::exit::Exit;
use knockplane_policy::wire::{LogStatus, LostLines};

pub mod address;
pub mod api;
pub mod audit;
mod bench;
mod check;
pub mod cli;
pub mod daemon;
pub mod dataplane;
mod edit;
pub mod events;
mod explain;
mod holder;
mod json;
pub mod metrics;
pub mod names;
mod packet;
pub mod page;
mod plan;
mod problems;
pub mod ready;
mod revisions;
pub mod rules;
mod running;
#[cfg(test)]
mod sample;
mod secret_file;
mod server;
pub mod sessions;
pub mod settings;
mod socket;
mod text;
pub mod tokens;
pub mod traffic;

/// The state of the control process's log.
fn log_status() -> LogStatus {
    let status = knockplane_log::status();
    let lost = status.lost().map(|(kind, lines)| LostLines { kind: kind.name().to_owned(), lines }).collect();
    LogStatus { lost, waiting: status.waiting as u64, problem: status.problem }
}
