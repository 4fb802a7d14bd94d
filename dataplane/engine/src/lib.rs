//! Frame + state + now → verdict. No socket, no system call, no clock, no unsafe: a decision needs only memory.
//!
//! A worker hands a burst of frames to [`decide::Decider::decide`]. One after the other, its headers are read and the
//! packet walks the rules of its chain; what the rules add to address lists is there for the next rule and for
//! the other workers. On this path nothing is allocated or logged, and no input panics.
//!
//! | module       | owns |
//! |--------------|------|
//! | [`headers`]  | from a frame's bytes to what rules can see of it |
//! | [`lists`]    | the address lists, which are the state of every knock: bounded, shared by all workers |
//! | `recent`     | what one worker remembers of them |
//! | [`layer7`]   | patterns over payloads, matched in linear time |
//! | [`table`]    | a rule set ready to run |
//! | [`decide`]   | the walk through the rules, a batch at a time |
//! | [`counters`] | what each rule matched, counted by one worker |
//! | [`events`]   | what must leave the worker |

pub mod counters;
pub mod decide;
pub mod events;
pub mod headers;
pub mod layer7;
pub mod lists;
mod recent;
mod shard;
pub mod table;
