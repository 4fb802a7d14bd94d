//! The atomics of memory that the process and the kernel's programs share. `engine/tests/model` replaces them with those of
//! shuttle, and tries every order of events.

pub(super) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
