//! Frame + state + now → verdict. No socket, no system call, no clock, no unsafe: a decision needs only memory.
//!
//! A worker hands a burst of frames to [`decide::Decider::decide`]. One after the other, its headers are read and the
//! packet walks the rules of its chain; what the rules add to address lists is there for the next rule and for
//! the other workers. On this path nothing is allocated or logged, and no input panics.
//!
//! | module       | owns |
//! |--------------|------|
//! | [`decide`]   | what happens to a batch of frames |
//! | [`headers`]  | from a frame's bytes to what rules can see of it |
//! | [`table`]    | a rule set ready to run, and which of its rules a packet could match |
//! | `walk`       | a packet's walk through the rules of a chain |
//! | [`state`]    | what packets leave behind |
//! | [`lists`]    | the address lists, which are the state of every knock: bounded, shared by all workers |
//! | `listed`     | what is said of them |
//! | [`doors`]    | knocks at doors: who has come how far, and what is counted |
//! | `recent`     | what one worker remembers of them |
//! | `quota`      | how many first steps of a source prefix there may be in them |
//! | `sync`       | what they are shared through |
//! | [`flows`]    | connections: bounded, shared by all workers |
//! | `meters`     | what matchers remember: `limit`, `dst-limit`, `nth`, `psd` |
//! | `reached`    | which connections have reached a `connection-limit` |
//! | [`layer7`]   | patterns over what is said, matched in linear time |
//! | `hello`      | the server name in a TLS ClientHello |
//! | [`reply`]    | what `reject` and `tarpit` send back |
//! | `keyed`      | a bounded table of what is remembered for each of many keys |
//! | [`counters`] | what each rule matched, counted by one worker |
//! | [`events`]   | what must leave the worker |
//! | [`history`]  | what was kept out recently, by source |

pub mod counters;
pub mod decide;
pub mod doors;
pub mod events;
pub mod flows;
pub mod headers;
mod hello;
pub mod history;
mod keyed;
pub mod layer7;
mod listed;
pub mod lists;
mod meters;
mod quota;
mod reached;
mod recent;
pub mod reply;
mod shard;
pub mod state;
mod sync;
pub mod table;
mod walk;
