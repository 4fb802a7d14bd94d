//! XDP programs that redirect or drop every frame, without reading it or after reading its headers. They show the limit of
//! the driver for comparisons. See `bpf/baseline.c`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use knockplane_ring::{Device, RingError, attach_native};
use libbpf_rs::{MapCore as _, MapFlags, ObjectBuilder};

/// A program on one interface. The drop of this value detaches it.
#[derive(Debug)]
pub struct XdpBaseline {
    _object: libbpf_rs::Object,
    _link: OwnedFd,
}

impl XdpBaseline {
    /// Redirects every frame that `from` receives to `to`, after reading its headers if `parses`.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, if the driver has no XDP, or another program holds the interface.
    pub fn redirect(from: &Device, to: &Device, parses: bool) -> Result<Self, RingError> {
        Self::attach(if parses { "parse_redirect" } else { "redirect" }, from, to)
    }

    /// Drops every frame that `on` receives, after reading its headers if `parses`.
    ///
    /// # Errors
    /// As [`XdpBaseline::redirect`].
    pub fn drop(on: &Device, parses: bool) -> Result<Self, RingError> {
        Self::attach(if parses { "parse_drop" } else { "drop" }, on, on)
    }

    fn attach(program: &str, from: &Device, to: &Device) -> Result<Self, RingError> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/baseline.o"));
        let failed = |error| RingError::System {
            action: format!("cannot load {program}"),
            cause: io::Error::other(error),
            remedy: "run as root".to_owned(),
        };
        let mut object = ObjectBuilder::default().open_memory(OBJECT).and_then(|open| open.load()).map_err(failed)?;
        let devices = object.maps_mut().find(|map| map.name() == "devices").expect("the object declares its map");
        devices.update(&0_u32.to_ne_bytes(), &to.index().to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
        let found = object.progs().find(|found| found.name() == program).expect("the object holds this program");
        let link = attach_native(found.as_fd(), from)?;
        Ok(XdpBaseline { _object: object, _link: link })
    }
}
