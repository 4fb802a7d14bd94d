//! A test run of an XDP program with live frames: the program decides about frames that the kernel makes, and a frame with the
//! verdict `XDP_TX` leaves by an interface. Source: Linux `Documentation/bpf/bpf_prog_run.rst`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// One call of the kernel's test run.
#[derive(Clone, Copy, Debug)]
pub struct LiveRun<'a> {
    /// A loaded XDP program.
    pub program: BorrowedFd<'a>,
    /// Index of the interface that frames leave by.
    pub interface: u32,
    /// The bytes that a frame's page begins with when the kernel makes it. Pages are used again without being reset.
    pub frame: &'a [u8],
    /// Times that the program runs.
    pub times: u32,
    /// Frames that the kernel sends together.
    pub frames_a_batch: u32,
}

impl LiveRun<'_> {
    /// Runs the program, and returns when the last frame was handed to the interface. A signal ends the run early.
    ///
    /// # Errors
    /// `EINTR` after a signal. `EINVAL` if the kernel does not have live frames (before 5.18), or takes no frame of
    /// this length.
    pub fn run(&self) -> io::Result<()> {
        const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: [u32; 6] = [0, self.frame.len() as u32, 0, self.interface, 0, 0];
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: mem::size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: self.frame.as_ptr().cast(),
            data_size_in: self.frame.len() as u32,
            ctx_in: context.as_ptr().cast(),
            ctx_size_in: mem::size_of_val(&context) as u32,
            repeat: self.times.min(i32::MAX as u32) as i32,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: self.frames_a_batch,
            ..Default::default()
        };
        // SAFETY: the program's descriptor is open; frame and context live across the call, and the options say their
        // lengths and their own.
        match unsafe { libbpf_sys::bpf_prog_test_run_opts(self.program.as_raw_fd(), &raw mut options) } {
            0 => Ok(()),
            result => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}
