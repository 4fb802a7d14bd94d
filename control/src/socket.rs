//! The control process's own unix socket: taken over from a process that died, never from one that lives, and removed
//! at the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Gid;
use tokio::net::{UnixListener, UnixStream};

use crate::holder::{self, Deadline};

/// Owner and group may change the firewall, nobody else.
const MODE: u32 = 0o660;

/// What is waited before a socket whose queue is full is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Removes the socket's file when it goes out of scope, if the file is still ours.
#[derive(Debug)]
pub(crate) struct Removal {
    path: PathBuf,
    inode: u64,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`. Its directory is created. Waits for a process that is exiting. Members of the group may connect, if one
/// is given; otherwise those of the process's own.
///
/// # Errors
/// If somebody else listens there, or something that is no socket has the name, or the system says no.
pub(crate) async fn bind(
    path: &Path,
    group: Option<Gid>,
    deadline: Deadline,
) -> anyhow::Result<(UnixListener, Removal)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}, the directory of the socket", directory.display()))?;
    }
    clear(path, deadline).await?;
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let removal = Removal { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    // Before the group may connect, so that no other group ever may.
    if let Some(group) = group {
        chown(path, None, Some(group.as_raw())).with_context(|| not_given(path, group))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok((listener, removal))
}

/// Why the socket's group cannot be set, most likely. Who has no CAP_CHOWN can set those it is a member of: chown(2).
fn not_given(path: &Path, group: Gid) -> String {
    format!(
        "cannot give {} to the group {group}, as `socket-group` in [control] says: the process must be a member of it \
         (SupplementaryGroups= in knockplane-control.service, or usermod -a -G)",
        path.display()
    )
}

/// Connects to a unix socket. If its queue of connections is full, as it is for a moment when many connect at once, tries
/// again until the caller's patience ends.
///
/// # Errors
/// If nobody listens, or not to us.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            other => return other,
        }
    }
}

/// Removes what a killed process left behind.
async fn clear(path: &Path, deadline: Deadline) -> anyhow::Result<()> {
    let shown = path.display();
    loop {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("cannot look at {shown}"))?,
        };
        if !metadata.file_type().is_socket() {
            bail!("{shown} is in the way and no socket: remove it, or set another `socket` in [control]");
        }
        let holder = match UnixStream::connect(path).await {
            Ok(stream) => stream.peer_cred().ok().and_then(|peer| peer.pid()),
            // Its queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                return fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {shown}"));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot tell whether somebody listens on {shown}"));
            }
        };
        if !deadline.wait().await {
            bail!(
                "another control process answers on {shown}{}: stop it first (systemctl stop knockplane-control), or set \
                 another `socket` in [control]",
                holder::describe(holder)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_directory_is_created_the_mode_set_and_the_file_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/knockplane/control.sock");
        let (listener, removal) = bind(&path, None, Deadline::over()).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        drop((listener, removal));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        bind(&path, None, Deadline::over()).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _bound = bind(&path, None, Deadline::over()).await.unwrap();
        let error = bind(&path, None, Deadline::over()).await.unwrap_err().to_string();
        let told = format!("another control process answers on {} (process {}", path.display(), std::process::id());
        assert!(error.contains(&told), "{error}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind(&path, None, Deadline::over()).await.unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_file_that_took_our_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let bound = bind(&path, None, Deadline::over()).await.unwrap();
        fs::rename(&path, dir.path().join("aside")).unwrap();
        fs::write(&path, "another").unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
