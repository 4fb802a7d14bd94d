//! A test run of an XDP program with one frame: the kernel runs the program and returns its verdict. The frame goes nowhere.
//! Source: Linux `Documentation/bpf/bpf_prog_run.rst`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Verdicts of `enum xdp_action`, Linux `include/uapi/linux/bpf.h`.
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_REDIRECT: u32 = 4;

/// Runs a loaded program on a frame of at least 14 bytes, as if it had arrived on the first queue of this interface of the
/// thread's network namespace. Returns the verdict.
///
/// # Errors
/// If the kernel refuses the frame, or there is no such interface.
pub fn test_run(program: BorrowedFd<'_>, interface: u32, frame: &[u8]) -> io::Result<u32> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, frame.len() as u32, 0, interface, 0, 0];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: mem::size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: mem::size_of_val(&context) as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the program's descriptor is open. Frame and context live across the call, and the options contain their
    // lengths and their own.
    match unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) } {
        0 => Ok(options.retval),
        result => Err(io::Error::from_raw_os_error(-result)),
    }
}
