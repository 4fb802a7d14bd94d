//! The drop behind the XDP program, see `bpf/ingress.c`. The kernel removes it when this value is dropped or the process ends.

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd, OwnedFd};

use libbpf_rs::{MapCore as _, MapFlags, ObjectBuilder};

use crate::device::Device;
use crate::error::Error;

/// `BPF_F_BEFORE` of Linux `include/uapi/linux/bpf.h`. Without a named program, it selects the first place.
const FIRST: u32 = 1 << 3;

/// Drops and counts frames that bypass the XDP program of one interface and reach the network stack.
#[derive(Debug)]
pub struct IngressDrop {
    object: libbpf_rs::Object,
    _link: OwnedFd,
}

impl IngressDrop {
    /// Loads the program and attaches it in front of all others at the interface's ingress. `None` if the kernel has no
    /// such attachment that ends with the process (before Linux 6.6).
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN.
    pub fn attach(device: &Device) -> Result<Option<Self>, Error> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ingress.o"));
        let failed = |error| {
            Error::system(
                format!("cannot drop what gets past the XDP program on {}", device.name()),
                error,
                "run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
            )
        };
        let object = ObjectBuilder::default().open_memory(OBJECT).and_then(|open| open.load());
        let object = object.map_err(|error| failed(io::Error::other(error)))?;
        let program = object.progs().next().expect("the object holds one program").as_fd().as_raw_fd();
        let options = libbpf_sys::bpf_link_create_opts {
            sz: mem::size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags: FIRST,
            ..Default::default()
        };
        // SAFETY: the program's descriptor is open, and the options live across the call and contain their own size.
        let fd = unsafe {
            libbpf_sys::bpf_link_create(program, device.index() as i32, libbpf_sys::BPF_TCX_INGRESS, &raw const options)
        };
        match -fd {
            // The answer of a kernel that does not have this attachment point, or was built without it.
            libc::EINVAL | libc::EOPNOTSUPP => return Ok(None),
            error if error > 0 => return Err(failed(io::Error::from_raw_os_error(error))),
            _ => {}
        }
        // SAFETY: the descriptor is new and valid, and has no other owner.
        let link = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Some(IngressDrop { object, _link: link }))
    }

    /// Number of frames dropped since the attachment.
    ///
    /// # Errors
    /// If the kernel refuses to read its own map.
    pub fn count(&mut self) -> Result<u64, Error> {
        let map = self.object.maps_mut().find(|map| map.name() == "dropped").expect("the program declares its map");
        let per_core = map
            .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| Error::system("cannot read the ingress counter", io::Error::other(error), ""))?;
        let count = |bytes: Vec<u8>| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
        Ok(per_core.into_iter().flatten().map(count).sum())
    }
}
