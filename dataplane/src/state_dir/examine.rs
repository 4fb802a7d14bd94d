//! Examines the state directory without changes, locks or waits: another dataplane may use the directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use super::disk::Disk;
use super::{StateDir, check_directory, check_file};

/// The state of the directory. The caller may only read a state directory that was examined.
pub(crate) enum Examined {
    /// The directory does not exist; a start creates it.
    Absent,
    /// No dataplane uses the directory.
    Free(StateDir),
    /// A process uses the directory. The process id is `None` if the process is in another PID namespace.
    Held(StateDir, Option<i32>),
    /// This user has no permission to read the directory.
    Denied,
}

impl StateDir {
    /// Examines the directory. A process that has locked the directory must not call this: it would lose the lock.
    ///
    /// # Errors
    /// If a start would refuse the directory, with the command that helps.
    pub(crate) fn examine(path: &Path) -> anyhow::Result<Examined> {
        let path: PathBuf = path.components().collect();
        let shown = path.display();
        let cannot = || format!("cannot look at {shown}; `state-dir` in [dataplane] names it");
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Examined::Denied),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return can_be_made(&path);
            }
            link => link.with_context(cannot)?,
        };
        let directory = match openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Examined::Denied),
            directory => directory.with_context(cannot)?,
        };
        check_directory(&directory, &path)?;
        let state = StateDir { path, directory, _lock: None, disk: Disk::default() };
        let file = state.file("lock");
        let cannot = || format!("cannot look at {}", file.display());
        match statat(&state.directory, "lock", AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Examined::Free(state)),
            there => check_file(&there.with_context(cannot)?, &file)?,
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let lock = match openat(&state.directory, "lock", flags, Mode::empty()) {
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Examined::Denied),
            lock => lock.with_context(cannot)?,
        };
        match fcntl_getlk(&lock, &Flock::from(FlockType::WriteLock)).with_context(cannot)? {
            None => Ok(Examined::Free(state)),
            Some(holder) => Ok(Examined::Held(state, holder.pid.map(Pid::as_raw_pid))),
        }
    }
}

/// Whether a start can create a directory that does not exist yet.
fn can_be_made(path: &Path) -> anyhow::Result<Examined> {
    let above = path.ancestors().skip(1).find_map(|above| fs::metadata(above).ok().map(|there| (above, there)));
    match above {
        Some((above, there)) if !there.is_dir() => {
            bail!("{} cannot be made: {} is no directory", path.display(), above.display())
        }
        // A relative path without a folder has no parent.
        _ => Ok(Examined::Absent),
    }
}
