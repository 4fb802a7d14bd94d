//! A look at the state directory that changes nothing, takes no lock, and waits for no process: another dataplane may have it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use super::{StateDir, check_directory, check_file};

/// What is there. A state directory that was examined is only to be read.
pub(crate) enum Examined {
    /// Nothing; a start makes it.
    Absent,
    /// A directory that no dataplane uses.
    Free(StateDir),
    /// One that a process uses; without its number if that is in another PID namespace.
    Held(StateDir, Option<i32>),
    /// This user may not look.
    Denied,
}

impl StateDir {
    /// Looks at the directory. Not for a process that has locked it: the lock would be lost.
    ///
    /// # Errors
    /// If a start would refuse it, with the command that helps.
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
        let state = StateDir { path, directory, _lock: None };
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

/// Whether nothing is in the way of a directory that is not there yet.
fn can_be_made(path: &Path) -> anyhow::Result<Examined> {
    let above = path.ancestors().skip(1).find_map(|above| fs::metadata(above).ok().map(|there| (above, there)));
    match above {
        Some((above, there)) if !there.is_dir() => {
            bail!("{} cannot be made: {} is no directory", path.display(), above.display())
        }
        // A relative path without a folder has nothing above it.
        _ => Ok(Examined::Absent),
    }
}
