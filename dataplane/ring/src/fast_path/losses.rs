//! Redirected frames that the target did not take, see `bpf/redirects.c`.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering::Relaxed;

use knockplane_policy::packet::Side;
use libbpf_rs::{Link, MapCore as _, ObjectBuilder};

use super::shared::SharedWords;
use crate::device::Device;
use crate::error::RingError;
use crate::program::XdpProgram;

/// Bytes of the two `struct losses`.
const BYTES: usize = 32;

/// Counts redirected frames that were lost. The kernel stops counting when this value is dropped or the process ends.
pub struct RedirectLosses {
    words: SharedWords,
    _links: Vec<Link>,
}

/// Redirected frames that were lost on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostFrames {
    /// All of them.
    pub frames: u64,
    /// Of these, frames that the target cannot take in its present state. Otherwise its queue was full.
    pub errors: u64,
}

impl RedirectLosses {
    /// Counts for this program on these interfaces, outside and inside. At the first frame that a side cannot take, the
    /// kernel forbids further ones, as [`FastPath::set_may_send`](super::FastPath::set_may_send) does.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_PERFMON, or if the kernel has no type information (`CONFIG_DEBUG_INFO_BTF`).
    pub fn attach(devices: [&Device; 2], program: &XdpProgram) -> Result<Self, RingError> {
        static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/redirects.o"));
        let id = program.id()?;
        let attach = || -> Result<Self, libbpf_rs::Error> {
            let mut open = ObjectBuilder::default().open_memory(OBJECT)?;
            let settings = [devices[0].index(), devices[1].index(), id].map(u32::to_ne_bytes).concat();
            for mut map in open.maps_mut() {
                if map.name() == "fast_control" {
                    map.reuse_fd(program.map("fast_control").as_fd())?;
                } else if map.name().to_string_lossy().ends_with(".rodata") {
                    map.set_initial_value(&settings)?;
                }
            }
            let object = open.load()?;
            let map = object.maps().find(|map| map.name() == "losses").expect("the program declares its map");
            let words = SharedWords::of_map(map.as_fd(), BYTES)?;
            let links = object.progs_mut().map(|program| program.attach()).collect::<Result<_, _>>()?;
            Ok(RedirectLosses { words, _links: links })
        };
        attach().map_err(|error| {
            RingError::system("cannot count redirected frames that are lost", io::Error::other(error), "")
        })
    }

    /// The frames that were to leave on this side.
    pub fn of(&self, side: Side) -> LostFrames {
        let word = |word: usize| self.words.of_64_bits()[2 * side.index() + word].load(Relaxed);
        LostFrames { frames: word(0), errors: word(1) }
    }
}
