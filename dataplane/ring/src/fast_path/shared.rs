//! Memory of a BPF map that the process and the kernel's programs share.

use std::io;
use std::os::fd::BorrowedFd;
use std::slice;

use knockplane_policy::carried::CarriedConnection;

use super::sync::{AtomicU8, AtomicU32, AtomicU64};
use crate::region::Region;

/// The values of an array map. They are accessed as atomic words only.
#[derive(Debug)]
pub(super) struct SharedWords {
    region: Region,
}

// SAFETY: the memory is accessed only through references to atomics.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `bytes` of an array map with the flag `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// If the map is smaller, or of another kind.
    pub(super) fn of_map(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Ok(SharedWords { region: Region::of_map(map, bytes)? })
    }

    pub(super) fn of_64_bits(&self) -> &[AtomicU64] {
        let count = self.region.bytes() / size_of::<AtomicU64>();
        // SAFETY: `at` checks bounds and alignment. The region lives as long as the reference, consists of initialized
        // memory, and the process accesses it only as atomics. The kernel's programs access it as aligned words.
        unsafe { slice::from_raw_parts(self.region.at(0, count).as_ptr(), count) }
    }

    pub(super) fn of_records(&self) -> &[CarriedConnection] {
        let count = self.region.bytes() / size_of::<CarriedConnection>();
        // SAFETY: as above; the type consists of atomics.
        unsafe { slice::from_raw_parts(self.region.at(0, count).as_ptr(), count) }
    }

    pub(super) fn of_32_bits(&self) -> &[AtomicU32] {
        let count = self.region.bytes() / size_of::<AtomicU32>();
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(self.region.at(0, count).as_ptr(), count) }
    }

    pub(super) fn of_8_bits(&self) -> &[AtomicU8] {
        let count = self.region.bytes();
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(self.region.at(0, count).as_ptr(), count) }
    }
}
