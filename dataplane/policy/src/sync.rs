//! The synchronisation types of memory that the engine and the XDP program share. `engine/tests/model` replaces them with
//! those of shuttle, and tries every order of events.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
