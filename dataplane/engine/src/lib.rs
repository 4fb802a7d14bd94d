//! Decides about frames: a frame, the state and the present time result in a verdict. The crate has no socket, no
//! system call, no clock and no unsafe code: a decision needs only memory.
//!
//! A worker passes a burst of frames to [`pipeline::Decider::decide`]. For one frame after the other, the decider reads
//! the headers, and evaluates the packet by the rules of its chain. The next rule and all other workers see the entries
//! that a rule adds to address lists. This path allocates nothing, logs nothing, and panics on no input.
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
