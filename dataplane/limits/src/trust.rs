//! Checks that no other user can change a file: a configuration determines which packets pass, and a profile names a
//! command.
//!
//! A file is trusted if three conditions hold. It is a regular file, and its owner is root or the user of this process.
//! Neither its group nor others can write it. The same holds for every directory on its path, and, for its owner, for
//! every symbolic link on the path. A directory with the sticky bit may be writable, because users can neither replace
//! nor remove entries of other users there (inode(7)).
//!
//! The file itself is checked by its open descriptor. The path is checked from the root on: if no other user can change
//! the part checked so far, no other user can redirect the rest.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::input::InputError;

/// The reason that a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file is not regular: it is a pipe or a device, for example.
    #[error("{} is not a regular file: name a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Another user owns it.
    #[error("{path} belongs to user {owner}, who could change it; run: chown {user} {path}", path = .path.display())]
    Owner {
        /// The file, or a directory or link on the way to it.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The user id that should own it.
        user: u32,
    },
    /// Other users can write it.
    #[error("{path} can be written by {}; run: chmod go-w {path}", if *.by_all { "all users" } else { "its group" }, path = .path.display())]
    Writable {
        /// The file, or a directory on the way to it.
        path: PathBuf,
        /// Whether all users can write it, and not only its group.
        by_all: bool,
    },
}

impl From<TrustError> for InputError {
    fn from(error: TrustError) -> Self {
        InputError::Untrusted(error)
    }
}

/// Opens a trusted file. Does not wait for the writer of a pipe.
///
/// # Errors
/// If it is not trusted, or the system refuses.
#[cfg(unix)]
pub fn open(file: &Path) -> Result<File, InputError> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

    let user = rustix::process::geteuid().as_raw();
    let path = unix::check_way(file, user)?;
    let opened = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(file)?;
    let metadata = opened.metadata()?;
    if metadata.is_dir() {
        return Err(InputError::Directory);
    }
    if !metadata.is_file() {
        return Err(TrustError::NotRegular(path).into());
    }
    unix::check_owner(&path, metadata.uid(), user)?;
    unix::check_mode(&path, metadata.mode())?;
    Ok(opened)
}

/// Opens a file without the check of its owner and mode, which only Linux's rules define.
///
/// # Errors
/// If the system refuses.
#[cfg(not(unix))]
pub fn open(file: &Path) -> Result<File, InputError> {
    Ok(File::open(file)?)
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsString;
    use std::fs;
    use std::io;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Component;

    use super::*;

    const ROOT: u32 = 0;
    const WRITABLE_BY_GROUP: u32 = 0o020;
    const WRITABLE_BY_ALL: u32 = 0o002;
    const STICKY: u32 = 0o1000;

    /// Maximum number of links on one path, as in the kernel (path_resolution(7)).
    const MOST_LINKS: u32 = 40;

    /// Checks every directory and link on the path to a file; returns the file's name without links.
    pub(super) fn check_way(file: &Path, user: u32) -> Result<PathBuf, InputError> {
        let mut at = PathBuf::from("/");
        check_directory(&at, &fs::symlink_metadata(&at)?, user)?;
        let mut rest = reversed(&std::path::absolute(file)?);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(name);
            let metadata = fs::symlink_metadata(&at)?;
            if metadata.is_symlink() {
                check_owner(&at, metadata.uid(), user)?;
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from(rustix::io::Errno::LOOP).into());
                }
                let target = fs::read_link(&at)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                } else {
                    at.pop();
                }
                rest.extend(reversed(&target));
            } else if metadata.is_dir() {
                check_directory(&at, &metadata, user)?;
            }
        }
        Ok(at)
    }

    /// The components of a path, the last one first.
    fn reversed(path: &Path) -> Vec<OsString> {
        let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
        let names: Vec<_> = path.components().filter(is_name).map(|part| part.as_os_str().to_owned()).collect();
        names.into_iter().rev().collect()
    }

    fn check_directory(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), TrustError> {
        check_owner(path, metadata.uid(), user)?;
        match metadata.mode() & STICKY {
            0 => check_mode(path, metadata.mode()),
            _ => Ok(()),
        }
    }

    pub(super) fn check_owner(path: &Path, owner: u32, user: u32) -> Result<(), TrustError> {
        match owner == ROOT || owner == user {
            true => Ok(()),
            false => Err(TrustError::Owner { path: path.to_owned(), owner, user }),
        }
    }

    pub(super) fn check_mode(path: &Path, mode: u32) -> Result<(), TrustError> {
        let by_all = mode & WRITABLE_BY_ALL != 0;
        match by_all || mode & WRITABLE_BY_GROUP != 0 {
            true => Err(TrustError::Writable { path: path.to_owned(), by_all }),
            false => Ok(()),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// A user id that does not run the tests.
    const STRANGER: u32 = 4711;

    fn told(file: &Path) -> String {
        open(file).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A temporary directory with a file in it.
    fn scenario() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "text").unwrap();
        chmod(&file, 0o644);
        (folder, file)
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_with_the_remedy() {
        let (_folder, file) = scenario();
        for (mode, who) in [(0o666, "all users"), (0o646, "all users"), (0o664, "its group"), (0o602, "all users")] {
            chmod(&file, mode);
            let shown = file.display();
            assert_eq!(told(&file), format!("is not read: {shown} can be written by {who}; run: chmod go-w {shown}"));
        }
        for mode in [0o600, 0o644, 0o400] {
            chmod(&file, mode);
            assert_eq!(told(&file), "", "{mode:o}");
        }
    }

    #[test]
    fn a_directory_on_the_path_that_others_can_write_is_refused_unless_it_is_sticky() {
        let (folder, file) = scenario();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let moved = inner.join("file");
        fs::rename(file, &moved).unwrap();
        for directory in [folder.path().join("a"), inner] {
            chmod(&directory, 0o777);
            assert!(told(&moved).contains(&format!("chmod go-w {}", directory.display())), "{}", told(&moved));
            chmod(&directory, 0o1777);
            assert_eq!(told(&moved), "");
            chmod(&directory, 0o775);
            assert!(told(&moved).contains("by its group"), "{}", told(&moved));
            chmod(&directory, 0o755);
        }
        assert_eq!(told(&moved), "");
    }

    #[test]
    fn a_link_is_followed_and_its_own_path_is_checked() {
        let (folder, file) = scenario();
        let open_to_all = folder.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        let link = open_to_all.join("link");
        symlink("../file", &link).unwrap();
        assert_eq!(told(&link), "");
        chmod(&open_to_all, 0o777);
        assert!(told(&link).contains("can be written by all users"), "{}", told(&link));
        chmod(&open_to_all, 0o755);
        chmod(&file, 0o666);
        assert!(told(&link).contains(&format!("chmod go-w {}", file.display())), "{}", told(&link));
        let circle = folder.path().join("circle");
        symlink("circle", &circle).unwrap();
        assert!(told(&circle).contains("cannot be read: "), "{}", told(&circle));
    }

    #[test]
    fn what_another_user_owns_is_refused() {
        assert!(rustix::process::geteuid().is_root(), "giving files away needs root; run the tests as root");
        let (folder, file) = scenario();
        chown(&file, Some(STRANGER), None).unwrap();
        assert!(told(&file).contains("belongs to user 4711, who could change it; run: chown 0 "), "{}", told(&file));
        chown(&file, Some(0), None).unwrap();
        let sticky = folder.path().join("sticky");
        fs::create_dir(&sticky).unwrap();
        chmod(&sticky, 0o1777);
        let link = sticky.join("link");
        symlink(&file, &link).unwrap();
        assert_eq!(told(&link), "");
        std::os::unix::fs::lchown(&link, Some(STRANGER), None).unwrap();
        assert!(told(&link).contains("belongs to user 4711"), "{}", told(&link));
        chown(folder.path(), Some(STRANGER), None).unwrap();
        assert!(told(&file).contains(&format!("{} belongs to user 4711", folder.path().display())), "{}", told(&file));
    }

    #[test]
    fn a_pipe_and_a_device_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(told(&pipe).contains("is not a regular file"), "{}", told(&pipe));
        assert!(told(Path::new("/dev/zero")).contains("is not a regular file"), "{}", told(Path::new("/dev/zero")));
        assert_eq!(told(folder.path()), "cannot be read: it is a directory; name a file");
        assert!(told(&folder.path().join("none")).starts_with("cannot be read: "));
    }
}
