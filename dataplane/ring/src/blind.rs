//! XDP programs that do not look at frames: what the driver alone could do, to compare with. See `bpf/blind.c`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use libbpf_rs::{MapCore as _, MapFlags, ObjectBuilder};

use crate::device::Device;
use crate::error::Error;
use crate::program::{XdpMode, link};

/// A program on one interface, detached when this value is dropped.
#[derive(Debug)]
pub struct Blind {
    _object: libbpf_rs::Object,
    _link: OwnedFd,
}

impl Blind {
    /// Every frame that `from` receives goes out of `to`.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, if the driver has no XDP, or another program holds the interface.
    pub fn redirect(from: &Device, to: &Device) -> Result<Self, Error> {
        Self::attach("redirect", from, to)
    }

    /// Every frame that `on` receives is dropped.
    ///
    /// # Errors
    /// As [`Blind::redirect`].
    pub fn drop(on: &Device) -> Result<Self, Error> {
        Self::attach("drop", on, on)
    }

    fn attach(program: &str, from: &Device, to: &Device) -> Result<Self, Error> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/blind.o"));
        let failed = |error| Error::system(format!("cannot load {program}"), io::Error::other(error), "run as root");
        let mut object = ObjectBuilder::default().open_memory(OBJECT).and_then(|open| open.load()).map_err(failed)?;
        let devices = object.maps_mut().find(|map| map.name() == "devices").expect("the object declares its map");
        devices.update(&0_u32.to_ne_bytes(), &to.index().to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
        let found = object.progs().find(|found| found.name() == program).expect("the object holds this program");
        let link = link(found.as_fd().as_raw_fd(), from.index(), XdpMode::Native).map_err(|error| {
            Error::system(format!("cannot attach {program} to {}", from.name()), error, "needs a driver with XDP")
        })?;
        Ok(Blind { _object: object, _link: link })
    }
}
