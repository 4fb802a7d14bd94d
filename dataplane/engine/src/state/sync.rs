//! What the lists are shared through. `tests/model` puts shuttle's in their place, and tries every order of events.

pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::{Mutex, MutexGuard};
