//! A test run of an XDP program with live frames: the kernel creates frames, and sends each frame with the verdict
//! `XDP_TX` from an interface. Source: Linux `Documentation/bpf/bpf_prog_run.rst`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// One call of the kernel's test run.
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
        // SAFETY: the program's descriptor is open. Frame and context live across the call, and the options contain
        // their lengths and their own.
        match unsafe { libbpf_sys::bpf_prog_test_run_opts(self.program.as_raw_fd(), &raw mut options) } {
            0 => Ok(()),
            result => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}
