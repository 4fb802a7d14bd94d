//! Waits until no program of the kernel uses what it read before.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

/// Waits for a grace period of RCU. XDP programs run inside read-side sections, together with the hand-over of
/// redirected frames to the other interface.
///
/// An update of a map of maps returns after such a period: "when we return to it, userspace knows that all
/// non-sleepable programs that could be running use the new map value" (Linux `kernel/bpf/syscall.c`,
/// `maybe_wait_bpf_programs`). The system call membarrier waits too, but not on kernels with `nohz_full`.
#[derive(Debug)]
pub(super) struct GracePeriod {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GracePeriod {
    /// # Errors
    /// Without CAP_BPF.
    pub(super) fn new() -> io::Result<GracePeriod> {
        let inner = create(libbpf_sys::BPF_MAP_TYPE_ARRAY, None)?;
        let outer = create(libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(&inner))?;
        Ok(GracePeriod { outer, inner })
    }

    /// Waits: some 5 to 20 ms.
    ///
    /// # Errors
    /// If the kernel refuses to write the map.
    pub(super) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0_u32, self.inner.as_raw_fd());
        // SAFETY: the descriptors are open; key and value have the sizes of the map, and live across the call.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.outer.as_raw_fd(),
                (&raw const key).cast(),
                (&raw const value).cast(),
                libbpf_sys::BPF_ANY.into(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) }
    }
}

/// A map with one value of 4 bytes.
fn create(kind: libbpf_sys::bpf_map_type, inner: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        inner_map_fd: inner.map_or(0, |inner| inner.as_raw_fd() as u32),
        ..Default::default()
    };
    // SAFETY: the options live across the call and contain their own size; a map needs no name.
    let fd = unsafe { libbpf_sys::bpf_map_create(kind, ptr::null(), 4, 4, 1, &raw const options) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor is new and valid, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
