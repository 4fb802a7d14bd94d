//! The meaning of a firewall: rules, chains, address lists, layer 7, verdicts, the RouterOS language, the reference
//! evaluator, and the messages between the two processes.
//!
//! No I/O, no clock, no unsafe. This crate defines what the firewall must do; `engine` does it fast.
//!
//! | module     | owns |
//! |------------|------|
//! | [`packet`] | the fields of a packet that rules see, and how they are read from its bytes |
//! | [`rule`]   | an export in typed form: rules, their matchers and actions, lists, layer-7 patterns, tracking |
//! | [`reason`] | verdict and reason: one closed set for metrics, CLI and log |
//! | [`settings`] | settings beside the rules: protected addresses, interfaces, chain defaults, time zone, frames that pass without a rule |
//! | [`frames`] | frames that rules do not see: their classes, and the verdict on each |
//! | [`door`]   | knock sequences as objects, and the rules that they become |
//! | [`level`]  | the number of proofs it takes to be added to a list |
//! | [`list_names`] | which lists exist, and which of them rules match |
//! | [`carried`] | connections that the kernel's fast path carries, in memory that it shares with the engine |
//! | [`strangers`] | sources without entries and connections, for the kernel's fast path |
//! | [`event`]  | changes of list entries, and records from which another process restores them |
//! | [`eval`]   | the reference evaluator: rules tried one by one, in order |
//! | [`rsc`]    | reads RouterOS exports, reports every error, and writes exports |
//! | [`lint`]   | warnings about rules that are valid but cannot be intended |
//! | [`doctor`] | the dataplane's report about its host and configuration |
//! | [`exit`]   | the exit codes of all programs |
//! | [`wire`]   | JSON lines between the dataplane and the control process |
//! | [`time`]   | points in time and RouterOS durations |
//! | [`trace`]  | the filter of a live trace, and the facts in it |
//! | [`word`]   | words of the language, and sets of them |

pub mod carried;
#[cfg(test)]
mod cases;
pub mod doctor;
pub mod door;
pub mod eval;
pub mod event;
pub mod exit;
pub mod frames;
pub mod layer7;
pub mod level;
pub mod lint;
pub mod list_names;
pub mod packet;
pub mod reason;
pub mod rsc;
pub mod rule;
pub mod settings;
pub mod strangers;
mod sync;
pub mod time;
pub mod trace;
pub mod wire;
pub mod word;
