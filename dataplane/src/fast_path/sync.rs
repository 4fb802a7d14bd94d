//! The atomics of the ticks. `engine/tests/model` replaces them with those of shuttle, and tries every order of events.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64};
