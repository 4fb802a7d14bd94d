//! The number of files that the process may have open. A listener without free descriptors can accept no connection,
//! not even one of root.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum number of descriptors that is requested. All connections of a process together take a fraction of it.
const WANTED: u64 = 65_536;

/// Raises the soft limit to the hard limit, at most to 65,536. Returns the number of files that may be open now.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let wanted = maximum.unwrap_or(u64::MAX).min(WANTED);
    if current >= wanted {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => wanted,
        // The limits of the listeners are smaller than this number.
        Err(_) => current,
    }
}
