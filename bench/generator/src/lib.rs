//! Frames and programs for load tests that run inside the kernel.
//!
//! [`LiveFrames`] and [`LiveSequence`] create frames in the kernel and send them from an interface. [`XdpBaseline`]
//! redirects or drops every frame in the driver: no program can be faster. `knockplane-ring` has the system calls; this
//! crate has no unsafe code.

mod baseline;
mod live;

pub use baseline::XdpBaseline;
pub use live::{HEADER_BYTES, Limits, LiveFrames, LiveSequence, PATTERN, Progress, STREAMS, Stream};
