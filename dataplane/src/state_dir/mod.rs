//! The state directory: the files that outlive a restart of the dataplane. One dataplane at a time uses it.
//!
//! | file          | content |
//! |---------------|---------------|
//! | `lock`        | nothing; one dataplane at a time locks the file |
//! | `rules.state` | the last applied rules |
//! | `settings.state` | the doors and `[policy]` before a reload that was not confirmed |
//! | `lists.state` | the static entries of operators |
//! | `names.state` | the addresses of host names |
//! | `history.state` | the rule sets that have run |
//! | `grants.state` | grants, and other entries that packets or operators added with a timeout |
//! | `counters.state` | the counters of rules |
//! | `*.new`       | a file while it is written; removed at start |
//! | `*.aside-N`   | a file that a start with `--without-state` set aside |
//!
//! Promises:
//! - The directory belongs to root or to this process's user, and no other user can write it. It may be reached by a
//!   symbolic link of the same owners, which is followed once, at start: everything else happens relative to the open
//!   directory.
//! - A state file is a regular file with the same owners. No symbolic link is followed to it, and a FIFO or a device in
//!   its place is neither opened nor read.
//! - A file has checksums. Most are replaced whole ([`checksum`]): a power failure leaves the old one or the new one. A
//!   save that fails leaves the old one and nothing beside it. `lists.state`, `history.state` and
//!   `grants.state` grow by records ([`log`]).

mod checksum;
#[cfg(test)]
mod damages;
pub(crate) mod disk;
mod examine;
mod log;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::ops::{Deref, Range};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use knockplane_limits::predecessor::{self, Deadline};
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, fcntl_lock, fstat, linkat, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk, geteuid};

pub(crate) use self::checksum::{DamageError, FileFormat};
#[cfg(test)]
pub(crate) use self::damages::damages;
use self::disk::Disk;
pub(crate) use self::examine::Examined;
pub(crate) use self::log::{ChangeLog, Damage, LogEnd, LogRecords, RECORD_HEADER, Record};

/// The last applied rules.
pub(crate) const RULES: &str = "rules.state";
/// The last applied rules in the format of earlier versions, without checksums.
pub(crate) const OLD_RULES: &str = "applied.json";
/// The doors and `[policy]` before a reload that was not confirmed.
pub(crate) const SETTINGS: &str = "settings.state";
/// The static entries of operators.
pub(crate) const LISTS: &str = "lists.state";
/// The static entries of operators in the format of earlier versions, without checksums.
pub(crate) const OLD_LISTS: &str = "lists.json";

/// The addresses of host names in the last answers.
pub(crate) const NAMES: &str = "names.state";

/// The rule sets that have run.
pub(crate) const HISTORY: &str = "history.state";

/// Grants, and other entries with a timeout.
pub(crate) const GRANTS: &str = "grants.state";

/// The counters of rules.
pub(crate) const COUNTERS: &str = "counters.state";

/// All files with state.
const FILES: [&str; 9] = [RULES, SETTINGS, LISTS, NAMES, HISTORY, GRANTS, COUNTERS, OLD_RULES, OLD_LISTS];

/// The suffix of a file that is not complete.
const NEW: &str = ".new";

/// Maximum number of bytes of a file of records: ten times the size of a million entries with the longest comments.
const MAX_LOG: u64 = 10 << 30;

/// Maximum number of bytes of a file of earlier versions without checksums. Two lines of the control socket.
const MAX_OLD: u64 = 512 << 20;

/// The open state directory. If it was opened for use, this process has exclusive use of the directory during the
/// lifetime of this value.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    directory: OwnedFd,
    /// The locked file; `None` if the directory was only examined. The kernel unlocks the file when the process ends,
    /// however it ends. The process must not open a second descriptor of this file: its close would unlock the file.
    _lock: Option<OwnedFd>,
    pub(crate) disk: Disk,
}

/// The content of a state file with valid checksums.
#[derive(Debug)]
pub(crate) struct Content {
    file: Vec<u8>,
    range: Range<usize>,
}

/// A file in the format that was found.
#[derive(Debug)]
pub(crate) enum StoredFile {
    /// A file of records.
    Records(LogRecords),
    /// A file of an earlier version, which is replaced as a whole.
    Whole(Content),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

impl StateDir {
    /// Opens and locks the directory. Creates the directory if it does not exist, and removes the rest of an
    /// interrupted save. Waits for a dataplane that is exiting.
    ///
    /// # Errors
    /// If another dataplane uses the directory, if other users can write it, or if the file system refuses.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> anyhow::Result<StateDir> {
        // Without a `/` at its end, so that the checks see a link.
        let path: PathBuf = path.components().collect();
        let shown = path.display();
        let open = || -> io::Result<OwnedFd> {
            DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
            Ok(openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        };
        let directory =
            open().with_context(|| format!("cannot keep state in {shown}; `state-dir` in [dataplane] names it"))?;
        check_directory(&directory, &path)?;
        let lock = lock(&directory, &path, deadline)?;
        let state = StateDir { path, directory, _lock: Some(lock), disk: Disk::default() };
        for name in FILES {
            let name = format!("{name}{NEW}");
            if state.remove(&name).with_context(|| format!("cannot remove {}", state.file(&name).display()))? {
                tracing::info!(file = %state.file(&name).display(), "removed the file of an interrupted save");
            }
        }
        Ok(state)
    }

    /// The path of a file, for messages.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The content of a file; `None` if it does not exist.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read, with the place and the remedy.
    pub(crate) fn read(&self, name: &str, format: FileFormat) -> anyhow::Result<Option<Content>> {
        let Some((mut file, length)) = self.open_file(name)? else { return Ok(None) };
        let shown = self.file(name).display().to_string();
        let cannot = || format!("cannot read {shown}");
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(checksum::MAX_HEADER)];
        file.read_exact(&mut bytes).with_context(cannot)?;
        let damaged = |error| anyhow::Error::new(error).context(damage(&shown));
        // Before the read: the first line states the length of the file.
        let range = format.content(&bytes, length).map_err(damaged)?;
        bytes.reserve_exact(length as usize - bytes.len());
        file.take(length - bytes.len() as u64).read_to_end(&mut bytes).with_context(cannot)?;
        format.content(&bytes[..bytes.len().min(checksum::MAX_HEADER)], bytes.len() as u64).map_err(damaged)?;
        format.verify(&bytes, range.clone()).map_err(damaged)?;
        Ok(Some(Content { file: bytes, range }))
    }

    /// A whole file of an earlier version, without checksums; `None` if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be read, or is larger than those versions wrote.
    pub(crate) fn read_old(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Some((file, length)) = self.open_file(name)? else { return Ok(None) };
        let shown = self.file(name).display().to_string();
        if length > MAX_OLD {
            bail!("{}: it has {length} bytes, and no version wrote more than {MAX_OLD}", damage(&shown));
        }
        let mut bytes = Vec::new();
        file.take(MAX_OLD).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
        Ok(Some(bytes))
    }

    /// Reads a file of records, or a file of an earlier version in the format `whole`; `None` if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be read, its first line is damaged, or a newer version wrote it.
    pub(crate) fn read_log(
        &self,
        name: &str,
        format: FileFormat,
        whole: Option<FileFormat>,
    ) -> anyhow::Result<Option<StoredFile>> {
        let Some((mut file, length)) = self.open_file(name)? else { return Ok(None) };
        let shown = self.file(name).display().to_string();
        let line = format.log_line();
        let mut bytes = Vec::new();
        let read = (&mut file).take(line.len() as u64).read_to_end(&mut bytes);
        read.with_context(|| format!("cannot read {shown}"))?;
        if let Some(whole) = whole
            && (bytes == whole.begin().as_bytes()[..bytes.len().min(whole.begin().len())]
                || bytes.starts_with(whole.begin().as_bytes()))
        {
            return Ok(self.read(name, whole)?.map(StoredFile::Whole));
        }
        if bytes != line.as_bytes() {
            let error = anyhow::Error::new(format.other_log(&bytes));
            return Err(error.context(damage(&shown)));
        }
        if length > MAX_LOG {
            bail!("{}: it has {length} bytes, and may have {MAX_LOG}", damage(&shown));
        }
        bytes.reserve_exact((length as usize).saturating_sub(bytes.len()));
        file.take(MAX_LOG).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
        Ok(Some(StoredFile::Records(LogRecords::read(bytes, line.len()))))
    }

    /// Opens an existing file for changes.
    fn open_to_write(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty())?;
        check_file(&fstat(&file)?, &self.file(name)).map_err(io::Error::other)?;
        Ok(File::from(file))
    }

    /// Replaces a file as a whole or not at all. The new file is readable for this user alone, and is on the disk when
    /// this returns.
    ///
    /// # Errors
    /// As [`StateDir::replace`].
    pub(crate) fn write(&self, name: &str, format: FileFormat, content: &[u8]) -> io::Result<()> {
        let (header, sums) = format.around(content);
        let parts = [header.as_bytes(), content, sums.as_bytes()];
        self.replace(name, |put| parts.into_iter().try_for_each(put)).map(drop)
    }

    /// Replaces a file, as a whole or not at all, by a file with the bytes that `write` puts. Returns the open file, which is
    /// on the disk.
    ///
    /// # Errors
    /// If the disk refuses; then the previous file is unchanged, and no other file remains. If only the sync of the
    /// directory fails, either file may be present after a power failure, as the error states.
    fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<File> {
        let new = format!("{name}{NEW}");
        let written = self.create(&new).and_then(|mut file| {
            write(&mut |bytes: &[u8]| self.disk.write(&mut file, bytes))?;
            self.disk.sync(&file)?;
            Ok(file)
        });
        let replaced = written.and_then(|file| {
            self.disk.rename(&self.directory, &new, name)?;
            Ok(file)
        });
        let file = replaced.inspect_err(|_| _ = self.remove(&new))?;
        let unsynced = |error: io::Error| {
            let what = format!("the file is replaced, but its directory cannot be synced: {error}");
            io::Error::new(error.kind(), what)
        };
        self.disk.sync_directory(&self.directory).map_err(unsynced)?;
        Ok(file)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR);
        let file = match open() {
            // A save failed, and the removal after it failed too.
            Err(Errno::EXIST) => self.remove(name).and_then(|_| Ok(open()?)),
            file => Ok(file?),
        };
        Ok(File::from(file?))
    }

    /// Removes a file. Returns whether it existed.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, also from the disk, if it exists.
    ///
    /// # Errors
    /// If the file system refuses; the file may exist after a power failure.
    pub(crate) fn remove_for_good(&self, name: &str) -> io::Result<()> {
        // A read-only file system refuses the removal of a file that does not exist.
        if matches!(statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
            return Ok(());
        }
        self.remove(name)?;
        self.disk.sync_directory(&self.directory)
    }

    /// Replaces a file of an earlier version by one with checksums. A failure is logged, and the old file remains.
    pub(crate) fn take_over(&self, old: &str, new: &str, format: FileFormat, content: &[u8]) {
        let [from, to] = [old, new].map(|name| self.file(name).display().to_string());
        match self.write(new, format, content) {
            Ok(()) => {
                tracing::warn!("{from} is of an earlier version and has no checksums: replaced by {to}");
                self.forget_old(old);
            }
            Err(error) => tracing::warn!("{from} is of an earlier version and cannot be replaced by {to}: {error}"),
        }
    }

    /// Removes a file of an earlier version, if it exists.
    pub(crate) fn forget_old(&self, name: &str) {
        if let Err(error) = self.remove(name) {
            tracing::warn!("{} is replaced and cannot be removed: {error}", self.file(name).display());
        }
    }

    /// Renames all state files of any kind, so that a start finds none and no save replaces them. Returns the new
    /// paths.
    ///
    /// # Errors
    /// If the file system refuses; some files may have their new names then.
    pub(crate) fn set_aside(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut aside = Vec::new();
        for name in FILES {
            if matches!(statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
                continue;
            }
            let cannot = || format!("cannot set {} aside", self.file(name).display());
            let rename =
                |aside: &str| renameat_with(&self.directory, name, &self.directory, aside, RenameFlags::NOREPLACE);
            aside.push(self.give_free_name(name, rename).with_context(cannot)?);
        }
        self.disk.sync_directory(&self.directory)?;
        Ok(aside)
    }

    /// Keeps a damaged file aside: gives it a second name, which remains after a replacement. Returns the end of a message:
    /// where the file is, or the reason that it cannot be kept.
    pub(crate) fn keep_damaged(&self, name: &str) -> String {
        let directory = &self.directory;
        match self.give_free_name(name, |aside| linkat(directory, name, directory, aside, AtFlags::empty())) {
            Ok(path) => format!("the file as it was found: {}", path.display()),
            Err(error) => format!("it cannot be kept: {error}"),
        }
    }

    /// Calls `give` with names for a file that is set aside, until it finds one that is free. Returns the path.
    fn give_free_name(&self, name: &str, give: impl Fn(&str) -> Result<(), Errno>) -> io::Result<PathBuf> {
        for number in 1.. {
            let aside = format!("{name}.aside-{number}");
            match give(&aside) {
                Ok(()) => return Ok(self.file(&aside)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Opens a file for reading, and returns its length; `None` if it does not exist.
    fn open_file(&self, name: &str) -> anyhow::Result<Option<(File, u64)>> {
        let path = self.file(name);
        let cannot = || format!("cannot read {}", path.display());
        // Only regular files are opened: the open of a device can have effects.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let there = match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            there => there.with_context(cannot)?,
        };
        check_file(&there, &path)?;
        let file = openat(&self.directory, name, flags, Mode::empty()).with_context(cannot)?;
        let opened = fstat(&file).with_context(cannot)?;
        check_file(&opened, &path)?;
        Ok(Some((File::from(file), opened.st_size as u64)))
    }
}

/// The message of a damaged file with its remedy. The caller appends the damage.
pub(crate) fn damage(shown: &str) -> String {
    format!(
        "{shown} is damaged; restore it from a backup, or start once with --without-state, which sets the stored rules and \
         entries aside and starts without them"
    )
}

/// Refuses a directory that other users own or can write, or that another user's link leads to.
fn check_directory(directory: &OwnedFd, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let link = fs::symlink_metadata(path).with_context(|| format!("cannot look at {shown}"))?;
    if link.is_symlink() && !is_trusted(link.uid()) {
        bail!("{shown} is a symbolic link of user {}: make it one of root, or name the directory itself", link.uid());
    }
    check_access(&fstat(directory)?, path, "go-w")
}

/// Locks the directory's lock file.
fn lock(directory: &OwnedFd, path: &Path, deadline: Deadline) -> anyhow::Result<OwnedFd> {
    let (file, shown) = (path.join("lock"), path.display());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let cannot = || format!("cannot lock {}", file.display());
    match statat(directory, "lock", AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        there => check_file(&there.with_context(cannot)?, &file)?,
    }
    let lock = openat(directory, "lock", flags, Mode::RUSR | Mode::WUSR).with_context(cannot)?;
    check_file(&fstat(&lock).with_context(cannot)?, &file)?;
    loop {
        // A lock of the process (fcntl), not of the open file (flock): it contains the id of its holder. The kernel
        // also removes it from a dying process before it closes sockets and interfaces, which takes the longest.
        match fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::AGAIN | Errno::ACCESS) if deadline.wait(predecessor::RETRY) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => break,
            Err(error) => return Err(error).with_context(cannot),
        }
    }
    let holder = fcntl_getlk(&lock, &Flock::from(FlockType::WriteLock)).with_context(cannot)?;
    let holder = holder.and_then(|lock| lock.pid).map(Pid::as_raw_pid);
    bail!(
        "another dataplane keeps its state in {shown}: {}; stop it first, or set another `state-dir`",
        predecessor::describe(holder)
    )
}

/// Whether the user is root or the user of this process.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Refuses a file that is not a regular file of a trusted owner.
fn check_file(stat: &Stat, path: &Path) -> anyhow::Result<()> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return check_access(stat, path, "600"),
        FileType::Symlink => "a symbolic link, which is not followed",
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "no file",
    };
    bail!("{} is {kind}, and must be a regular file: remove it, or start once with --without-state", path.display())
}

/// Refuses a file or directory that other users own or can write.
fn check_access(stat: &Stat, path: &Path, mode: &str) -> anyhow::Result<()> {
    let shown = path.display();
    if !is_trusted(stat.st_uid) {
        bail!("{shown} belongs to user {}, who could change it; run: chown root {shown}", stat.st_uid);
    }
    if stat.st_mode & 0o022 != 0 {
        bail!("{shown} can be written by others (mode {:o}); run: chmod {mode} {shown}", stat.st_mode & 0o7777);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
