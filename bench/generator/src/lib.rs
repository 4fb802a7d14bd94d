//! Frames and programs for load tests that run inside the kernel.
//!
//! [`LiveFrames`] and [`LiveSequence`] make frames in the kernel and send them out of an interface. [`XdpBaseline`] redirects or
//! drops every frame in the driver: the fastest that any program could be, to compare with. The system calls behind them are in
//! `knockplane-ring`; this crate has no unsafe code.

mod baseline;
mod live;

pub use baseline::XdpBaseline;
pub use live::{FrameStream, HEADER_BYTES, Limits, LiveFrames, LiveProgress, LiveSequence, PATTERN, STREAMS};
