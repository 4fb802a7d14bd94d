//! What the kernel says of this host that concerns the filter and is not in a file.

use std::io;
use std::mem;

use crate::socket;

/// Whether the kernel has AF_XDP sockets for this process: it makes one and closes it, bound to nothing.
///
/// # Errors
/// What the kernel says: `EAFNOSUPPORT` if it was built without, `EPERM` without CAP_NET_RAW.
pub fn has_xdp_sockets() -> io::Result<()> {
    socket::open().map(drop)
}

/// Whether somebody keeps the system clock synchronised, as far as the kernel was told (adjtimex(2)).
///
/// # Errors
/// If the kernel does not say.
pub fn is_clock_synchronised() -> io::Result<bool> {
    // SAFETY: timex is plain data, for which all zeros is a valid value; zero modes change nothing.
    let mut timex: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the structure lives across the call, which only fills it.
    match unsafe { libc::adjtimex(&raw mut timex) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(timex.status & libc::STA_UNSYNC == 0),
    }
}
