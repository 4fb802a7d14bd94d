//! The state that all workers and the manager share.

use std::sync::atomic::{AtomicBool, AtomicI64};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam::queue::ArrayQueue;
use knockplane_engine::pipeline::reset::Reset;
use knockplane_engine::state::State;
use knockplane_engine::state::events::logged::LoggedPackets;

use crate::clock::Clock;
use crate::fast_path::SharedFastPath;
use crate::generation::Generation;
use crate::trace::PacketTrace;
use crate::traffic_sample::TrafficSample;

/// Maximum number of logged packets that wait for the manager. Further ones are counted as lost.
pub(crate) const EVENT_QUEUE: usize = 4096;

/// The shared state. A process has one.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) generation: ArcSwap<Generation>,
    pub(crate) state: State,
    /// The wall time at which the monotonic clock was 0, as of the manager's last tick: see [`crate::clock::wall`].
    pub(crate) wall: AtomicI64,
    /// The queue of packets that matched a rule with `log=yes`, for the manager.
    pub(crate) logged: LoggedPackets,
    /// Whether each side's link is up, as of the last tick. Frames for a side without a link are dropped.
    pub(crate) links: [AtomicBool; 2],
    /// Whether there are several queues and frames carry the time of their arrival.
    pub(crate) stamped: AtomicBool,
    /// Resets that end connections, for any worker to send.
    pub(crate) resets: ArrayQueue<Reset>,
    pub(crate) fast_path: SharedFastPath,
    /// The sample of traffic that an operator asked for.
    pub(crate) sample: ArcSwapOption<TrafficSample>,
    /// The trace that an operator reads.
    pub(crate) trace: ArcSwapOption<PacketTrace>,
    pub(crate) stop: AtomicBool,
}
