//! What a firewall means: rules, chains, address lists, layer 7, verdicts, the RouterOS language, the plain linear
//! evaluation that defines right and wrong, and the messages between the two processes.
//!
//! No I/O, no clock, no unsafe. Whoever wants to know what the firewall *should* do reads this room; how it does it
//! at speed is `engine`.
//!
//! | module     | owns |
//! |------------|------|
//! | [`packet`] | what rules can see of a packet, and what its bytes say |
//! | [`rule`]   | what an export says, typed: rules, their matchers and actions, lists, layer-7 patterns, tracking |
//! | [`reason`] | verdict and reason: one closed set for metrics, CLI and log |
//! | [`settings`] | what is not in the rules: protected addresses, interfaces, chain defaults, time zone, what passes without a rule |
//! | [`frames`] | frames that rules do not see: their classes, and the verdict on each |
//! | [`door`]   | knock sequences as objects, and the rules that they are |
//! | [`level`]  | how many proofs it takes to get into a list |
//! | [`list_names`] | which lists there are, and which rules match |
//! | [`event`]  | changes of list entries, and entries that another process can restore |
//! | [`eval`]   | the reference: rules tried one by one, in order |
//! | [`rsc`]    | reading RouterOS exports, with every bad line reported, and writing them |
//! | [`lint`]   | what is right in every line, and still cannot be meant |
//! | [`doctor`] | what the dataplane found out about its host and configuration |
//! | [`wire`]   | JSON lines between the dataplane and the control process |
//! | [`time`]   | points in time and RouterOS durations |
//! | [`word`]   | words of the language, and sets of them |

#[cfg(test)]
mod cases;
pub mod doctor;
pub mod door;
pub mod eval;
pub mod event;
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
pub mod time;
pub mod wire;
pub mod word;
