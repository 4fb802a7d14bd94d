//! How many files the process may have open: a listener that runs out of descriptors can accept nobody, not even root.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors asked for at most. All connections of a process take a fraction of it.
const WANTED: u64 = 65_536;

/// Raises the soft limit as far as the hard one allows, at most to 65,536. Returns how many files may be open now.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let wanted = maximum.unwrap_or(u64::MAX).min(WANTED);
    if current >= wanted {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => wanted,
        // The limits of the listeners are sized under what there is.
        Err(_) => current,
    }
}
