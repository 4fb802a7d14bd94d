//! The state that all workers and the manager share.

use std::sync::atomic::{AtomicBool, AtomicI64};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use knockplane_engine::pipeline::reset::Reset;
use knockplane_engine::state::State;
use knockplane_engine::state::events::logged::LoggedPackets;

use crate::clock::Clock;
use crate::generation::Generation;

/// Logged packets that wait for the manager at most; further ones are counted as lost.
pub(crate) const EVENT_QUEUE: usize = 4096;

/// One for each process.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) generation: ArcSwap<Generation>,
    pub(crate) state: State,
    /// Wall time as of the last tick of the manager, see [`crate::clock::wall`].
    pub(crate) wall: AtomicI64,
    /// Packets that matched a rule that logs, on their way to the log.
    pub(crate) logged: LoggedPackets,
    /// Whether each side's link is up, as of the last tick. Frames for a side without a link are dropped.
    pub(crate) links: [AtomicBool; 2],
    /// Whether there are several queues whose frames carry the time of their arrival.
    pub(crate) stamped: AtomicBool,
    /// Resets that end connections, for any worker to send.
    pub(crate) resets: ArrayQueue<Reset>,
    pub(crate) stop: AtomicBool,
}
