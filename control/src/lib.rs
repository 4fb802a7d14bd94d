//! What people and machines talk to: the control process `knockplane-control` and the operator's tool `knockctl`.
//!
//! Neither decides about packets. The control process asks the dataplane and hands rule sets to it; when the control
//! process is away, the dataplane goes on as it was.
//!
//! | module        | owns |
//! |---------------|------|
//! | [`daemon`]    | the control process: its start, its two listeners, its stop |
//! | [`api`]       | HTTP: which path asks what |
//! | [`ready`]     | whether packets are being decided about right now |
//! | [`metrics`]   | what Prometheus scrapes |
//! | [`dataplane`] | the client's end of the messages in `policy::wire` |
//! | [`names`]     | host names in address lists, resolved |
//! | [`settings`]  | the section `[control]` of the configuration |
//! | [`address`]   | one address, as people write it |
//! | [`rules`]     | rules judged offline, before anybody is asked to run them |
//! | [`cli`]       | `knockctl` |

// A macro that prints panics if nobody reads: see `cli::output` and `knockplane_log`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use knockplane_policy::wire::{LogStatus, LostLines};

pub mod address;
pub mod api;
pub mod cli;
pub mod daemon;
pub mod dataplane;
mod holder;
mod json;
pub mod metrics;
pub mod names;
pub mod ready;
pub mod rules;
#[cfg(test)]
mod sample;
mod server;
pub mod settings;
mod socket;

/// What became of the control process's log lines.
fn log_status() -> LogStatus {
    let status = knockplane_log::status();
    let lost = status.lost().map(|(kind, lines)| LostLines { kind: kind.name().to_owned(), lines }).collect();
    LogStatus { lost, waiting: status.waiting as u64, problem: status.problem }
}

/// What a process tells its caller when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed while it ran.
    Runtime = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A configuration or rule file is invalid.
    Invalid = 3,
    /// The control process or the dataplane does not answer.
    Unreachable = 4,
    /// It would close the last way in, and nobody confirmed that.
    Unconfirmed = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
