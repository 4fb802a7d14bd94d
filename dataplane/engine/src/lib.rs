//! Frame + state + now → verdict. No socket, no system call, no clock, no unsafe: a decision needs only memory.
//!
//! A worker hands a burst of frames to [`pipeline::Decider::decide`]. One after the other, its headers are read and the
//! packet is evaluated against the rules of its chain; what the rules add to address lists is there for the next rule and
//! for the other workers. On this path nothing is allocated or logged, and no input panics.
//!
//! Four modules in three layers. A module imports only from below:
//!
//! | module       | owns | may use |
//! |--------------|------|---------|
//! | [`pipeline`] | a batch of frames: rule evaluation and its effects | everything below |
//! | [`table`]    | the compiled rule set and its index; immutable, swapped as a whole | `state` |
//! | [`state`]    | address lists, connections, doors, matcher state; shared by all workers, outlives rule sets | policy alone |
//! | [`headers`]  | from a frame's bytes to the packet view | policy alone |

pub mod headers;
pub mod pipeline;
pub mod state;
pub mod table;
