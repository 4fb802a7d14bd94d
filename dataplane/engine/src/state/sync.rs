//! The synchronisation types of the lists. `tests/model` replaces them with those of shuttle, and tries every order of
//! events.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
pub(crate) use std::sync::{Mutex, MutexGuard};
