//! Facts about this host that need a system call: AF_XDP, and whether the clock is synchronised.

use std::io;
use std::mem;

use crate::socket;

/// Checks that this process can create AF_XDP sockets: creates one and closes it without a bind.
///
/// # Errors
/// `EAFNOSUPPORT` if the kernel was built without AF_XDP, `EPERM` without CAP_NET_RAW.
pub fn has_xdp_sockets() -> io::Result<()> {
    socket::open().map(drop)
}

/// Whether the system clock is synchronised, according to the kernel's status (adjtimex(2)).
///
/// # Errors
/// If the system call fails.
pub fn is_clock_synchronised() -> io::Result<bool> {
    // SAFETY: timex is plain data, for which all zeros is a valid value; zero modes change nothing.
    let mut timex: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the structure lives across the call, which only fills it.
    match unsafe { libc::adjtimex(&raw mut timex) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(timex.status & libc::STA_UNSYNC == 0),
    }
}
