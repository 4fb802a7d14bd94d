//! The calls that change the content of files and make it durable. Tests let them fail or take time.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{fsync, renameat};

/// The calls of one state directory.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: faults::Faults,
}

impl Disk {
    /// Appends bytes to a new file.
    pub(super) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_write(|| file.write_all(&bytes[..bytes.len() / 2]))?;
        file.write_all(bytes)
    }

    /// Writes bytes at this place.
    pub(super) fn write_at(&self, file: &File, bytes: &[u8], place: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before_write(|| file.write_all_at(&bytes[..bytes.len() / 2], place))?;
        file.write_all_at(bytes, place)
    }

    /// Cuts a file off.
    pub(super) fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before(faults::DiskCall::Cut)?;
        file.set_len(length)
    }

    /// Waits until the content of a file is on the disk.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before(faults::DiskCall::Sync)?;
        file.sync_data()
    }

    /// Replaces a file of a directory by another one.
    pub(super) fn rename(&self, directory: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before(faults::DiskCall::Rename)?;
        Ok(renameat(directory, from, directory, to)?)
    }

    /// Waits until the names of a directory are on the disk.
    pub(super) fn sync_directory(&self, directory: &OwnedFd) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before(faults::DiskCall::Sync)?;
        Ok(fsync(directory)?)
    }
}

/// Faults of a disk: calls that fail with ENOSPC or EIO, and syncs that take their time.
#[cfg(test)]
pub(crate) mod faults {
    use std::io;
    use std::ops::Range;
    use std::sync::{Mutex, PoisonError};
    use std::thread;
    use std::time::Duration;

    use rustix::io::Errno;

    /// A kind of call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum DiskCall {
        Write,
        Cut,
        Sync,
        Rename,
    }

    #[derive(Debug, Default)]
    struct Plan {
        /// The kinds that are counted.
        kinds: Vec<DiskCall>,
        /// The number of counted calls so far.
        calls: u64,
        /// The numbers of those that fail.
        failing: Range<u64>,
        sync_time: Duration,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Faults(Mutex<Plan>);

    impl Faults {
        /// Lets these of the following calls of these kinds fail, counted from 0.
        pub(crate) fn fail(&self, kinds: &[DiskCall], failing: Range<u64>) {
            let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (plan.kinds, plan.calls, plan.failing) = (kinds.to_vec(), 0, failing);
        }

        /// Lets each sync take this time.
        pub(crate) fn slow_down(&self, sync_time: Duration) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).sync_time = sync_time;
        }

        /// Whether a call has failed that was to fail.
        pub(crate) fn has_failed(&self) -> bool {
            let plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            plan.calls > plan.failing.start
        }

        pub(super) fn before(&self, call: DiskCall) -> io::Result<()> {
            let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let number = plan.calls;
            let counts = plan.kinds.contains(&call);
            plan.calls += u64::from(counts);
            let fails = counts && plan.failing.contains(&number);
            let time = if call == DiskCall::Sync { plan.sync_time } else { Duration::ZERO };
            drop(plan);
            thread::sleep(time);
            match (fails, call) {
                (false, _) => Ok(()),
                (true, DiskCall::Write) => Err(Errno::NOSPC.into()),
                (true, _) => Err(Errno::IO.into()),
            }
        }

        /// A write that fails writes a part.
        pub(super) fn before_write(&self, write_part: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
            self.before(DiskCall::Write).or_else(|error| write_part().and(Err(error)))
        }
    }
}
