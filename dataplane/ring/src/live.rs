//! Frames made inside the kernel, for load tests: a program's test run with live frames, which are recycled after
//! each batch and so cost far less than frames that are sent from userspace.
//!
//! Source: Linux `Documentation/bpf/bpf_prog_run.rst`.

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _};

use libbpf_rs::ObjectBuilder;

use crate::device::Device;
use crate::error::Error;

/// Sends copies of one frame out of an interface, from this thread, as fast as the kernel goes.
///
/// The other end of a veth must run an XDP program, or take frames by NAPI, or they vanish without a trace.
#[derive(Debug)]
pub struct LiveFrames {
    object: libbpf_rs::Object,
    interface: u32,
}

impl LiveFrames {
    /// Prepares sending out of this interface.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    pub fn new(device: &Device) -> Result<Self, Error> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/generate.o"));
        let loaded = ObjectBuilder::default().open_memory(OBJECT).and_then(libbpf_rs::OpenObject::load);
        let object = loaded.map_err(|error| {
            Error::system("cannot load the generator", io::Error::other(error), "run as root or with CAP_BPF")
        })?;
        Ok(LiveFrames { object, interface: device.index() })
    }

    /// Sends `count` copies of the frame, and returns when the last one was handed to the interface.
    ///
    /// # Errors
    /// If the kernel does not know live frames (before 5.18), or takes no frame of this length.
    pub fn send(&self, frame: &[u8], count: u32) -> Result<(), Error> {
        const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
        // The most there can be: what is shared by a batch is the cost of the run around it.
        const FRAMES_A_BATCH: u32 = 256;
        let program = self.object.progs().next().expect("the object holds one program").as_fd().as_raw_fd();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: [u32; 6] = [0, frame.len() as u32, 0, self.interface, 0, 0];
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: mem::size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: frame.as_ptr().cast(),
            data_size_in: frame.len() as u32,
            ctx_in: context.as_ptr().cast(),
            ctx_size_in: mem::size_of_val(&context) as u32,
            repeat: count.min(i32::MAX as u32) as i32,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: FRAMES_A_BATCH,
            ..Default::default()
        };
        // SAFETY: the program's descriptor is open; frame and context live across the call, and the options say their
        // lengths and their own.
        let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program, &raw mut options) };
        if result == 0 {
            return Ok(());
        }
        Err(Error::system(
            "cannot send live frames",
            io::Error::from_raw_os_error(-result),
            "needs Linux 5.18 or newer",
        ))
    }
}
