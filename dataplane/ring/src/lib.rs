//! AF_XDP: interfaces, the XDP program and its loader, UMEM and rings. The only crate of the dataplane with unsafe code.
//!
//! In the order of use:
//! 1. [`Device`]: finds, checks and prepares an interface (MTU, offloads, queues, promiscuous mode).
//! 2. [`LoadedProgram`], [`XdpProgram`]: the loaded and the attached XDP program. A queue drops all frames until it
//!    has a socket. The program has no fast path at first; [`XdpProgram::add_fast_path`] replaces it by one that has.
//! 3. [`Buffers`]: whether zero-copy is requested, and the length of chunks that it needs.
//! 4. [`Rings`]: one worker's UMEM and its two sockets, one on each side. Frames never leave it: a batch is read in place, and
//!    [`Rings::settle`] forwards, answers or drops every frame of it.
//!
//! Below [`Rings`], in private modules, each on top of the next: `rings` (the place of each chunk), `socket` (system
//! calls), `umem` (chunks), `queue` (one ring), `region` (memory). Of these, `rings`, `umem` and `queue` make no system
//! call, and the tests run them on plain memory.
//!
//! [`FastPath`] has the tables by which the XDP program forwards frames itself, and [`RedirectLosses`] counts frames that
//! are lost then. [`test_run`] runs a program on a frame, for tests.
//!
//! For load tests: [`Endpoint`] sends and receives frames of any content from userspace. [`LiveRun`] runs a program
//! that creates frames in the kernel, and [`attach_native`] attaches a program of the caller.
//!
//! [`LinkReader`] queries the kernel for the state of an interface, and [`LinkChanges`] receives its notifications.
//! [`IngressDrop`] drops frames that the driver passes around the XDP program.
//!
//! [`advise_huge_pages`] and [`collapse`] give memory huge pages: that of frames, and large tables of the caller.
//!
//! For `--doctor` and the checks at start: [`Features`] has the XDP features of a driver, [`Rss`] the distribution of
//! frames over a NIC's queues.
//!
//! No object is pinned, and none outlives the process: when the process ends, the kernel removes program and sockets, in
//! the order of [`Release`].

mod attachment;
mod buffers;
mod descriptors;
mod device;
mod endpoint;
mod error;
mod fast_path;
mod host;
mod huge_pages;
mod ingress;
mod netlink;
mod program;
mod queue;
mod region;
mod rings;
mod socket;
mod test_run;
mod umem;

pub use buffers::{Buffers, CopyReason, ZeroCopy, largest_mtu, largest_native_mtu};
pub use descriptors::{Release, make_room, place};
pub use device::{Device, HashFields, NicOffload, OffloadState, Queues, Rss};
pub use endpoint::Endpoint;
pub use error::RingError;
pub use fast_path::{
    CarriedCounts, Epochs, FastPath, FastPathSizes, Flow, FlowVerdict, LostFrames, Records, RedirectLosses, Strangers,
    TRAILS, Written,
};
pub use host::{has_xdp_sockets, is_clock_synchronised};
pub use huge_pages::{advise_huge_pages, collapse, populate};
pub use ingress::IngressDrop;
pub use netlink::{Features, Link, LinkChanges, LinkCounters, LinkReader, XdpFeatures};
pub use program::{CoreCounts, LoadedProgram, XdpMode, XdpProgram, attach_native};
pub use rings::{
    BATCH, Dispositions, Dropped, Frames, Kernel, Memory, ReceiveDrops, RingSettings, Rings, Settled, Sockets,
};
pub use socket::{SocketStatistics, raise_memlock_limit};
pub use test_run::{LiveRun, XDP_DROP, XDP_REDIRECT, test_run};
