//! Test runs of an XDP program: the kernel runs a program on frames that it creates. Source: Linux
//! `Documentation/bpf/bpf_prog_run.rst`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Verdicts of `enum xdp_action`, Linux `include/uapi/linux/bpf.h`.
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_REDIRECT: u32 = 4;

/// Runs a loaded program on a frame of at least 14 bytes, as if it had arrived on the first queue of this interface of the
/// thread's network namespace. Returns the verdict. The frame goes nowhere.
///
/// # Errors
/// If the kernel refuses the frame, or there is no such interface.
pub fn test_run(program: BorrowedFd<'_>, interface: u32, frame: &[u8]) -> io::Result<u32> {
    run(program, interface, frame, libbpf_sys::bpf_test_run_opts { repeat: 1, ..Default::default() })
}

/// A test run with live frames: the kernel creates frames, and sends each frame with the verdict `XDP_TX` from an
/// interface.
#[derive(Clone, Copy, Debug)]
pub struct LiveRun<'a> {
    /// A loaded XDP program.
    pub program: BorrowedFd<'a>,
    /// Index of the interface that sends the frames.
    pub interface: u32,
    /// The initial bytes of a frame's page. The kernel uses pages again and does not reset them.
    pub frame: &'a [u8],
    /// Number of runs of the program.
    pub times: u32,
    /// Number of frames that the kernel sends together.
    pub frames_a_batch: u32,
}

impl LiveRun<'_> {
    /// Runs the program, and returns when the last frame was handed to the interface. A signal ends the run early.
    ///
    /// # Errors
    /// `EINTR` after a signal. `EINVAL` if the kernel does not support live frames (before 5.18), or accepts no frame
    /// of this length.
    pub fn run(&self) -> io::Result<()> {
        const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
        let options = libbpf_sys::bpf_test_run_opts {
            repeat: self.times.min(i32::MAX as u32) as i32,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: self.frames_a_batch,
            ..Default::default()
        };
        run(self.program, self.interface, self.frame, options).map(|_| ())
    }
}

/// Runs a program on a frame with these options, which have neither frame nor context. Returns the last verdict.
fn run(
    program: BorrowedFd<'_>,
    interface: u32,
    frame: &[u8],
    options: libbpf_sys::bpf_test_run_opts,
) -> io::Result<u32> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: [u32; 6] = [0, frame.len() as u32, 0, interface, 0, 0];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: mem::size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: mem::size_of_val(&context) as u32,
        ..options
    };
    // SAFETY: the program's descriptor is open. Frame and context live across the call, and the options contain their
    // lengths and their own.
    match unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) } {
        0 => Ok(options.retval),
        result => Err(io::Error::from_raw_os_error(-result)),
    }
}
