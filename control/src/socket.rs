//! The unix socket of the control process. It replaces the socket of a process that was killed, but never the socket of
//! a running process, and is removed at the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use knockplane_limits::predecessor::{self, Deadline};
use nix::unistd::Gid;
use tokio::net::{UnixListener, UnixStream};

/// Only the owner and the group may change the firewall.
const MODE: u32 = 0o660;

/// Pause before another attempt to connect to a socket whose queue is full.
const AGAIN: Duration = Duration::from_millis(20);

/// Removes the file of the socket when it is dropped, unless another file has taken its place.
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

/// Listens on `path`, and creates its directory. Waits if a process that exits still holds the socket. Members of `group` may
/// connect; without it, those of the process's own group. `key` is the setting of the path, for messages.
///
/// # Errors
/// If another process listens there, if a file that is not a socket has the name, or if a system call fails.
pub(crate) async fn bind(
    key: &str,
    path: &Path,
    group: Option<Gid>,
    deadline: Deadline,
) -> anyhow::Result<(UnixListener, Removal)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}, the directory of the socket", directory.display()))?;
    }
    clear(key, path, deadline).await?;
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let removal = Removal { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    // The group is set before the mode, so that no other group can ever connect.
    if let Some(group) = group {
        chown(path, None, Some(group.as_raw())).with_context(|| not_given(key, path, group))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok((listener, removal))
}

/// The message for a group that cannot be set. Without CAP_CHOWN, a process can set only groups of which it is a member:
/// chown(2).
fn not_given(key: &str, path: &Path, group: Gid) -> String {
    format!(
        "cannot give {} to the group {group}, as `{key}-group` in [control] says: the process must be a member of it \
         (SupplementaryGroups= in knockplane-control.service, or usermod -a -G)",
        path.display()
    )
}

/// Connects to a unix socket. If its queue is full, as for a moment when many clients connect at once, tries again without
/// limit: the caller sets one.
///
/// # Errors
/// If no process listens on the socket, or this process may not connect.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            other => return other,
        }
    }
}

/// Removes the socket of a process that was killed.
async fn clear(key: &str, path: &Path, deadline: Deadline) -> anyhow::Result<()> {
    let shown = path.display();
    loop {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("cannot look at {shown}"))?,
        };
        if !metadata.file_type().is_socket() {
            bail!("{shown} exists and is not a socket: remove it, or set another `{key}` in [control]");
        }
        let holder = match UnixStream::connect(path).await {
            Ok(stream) => stream.peer_cred().ok().and_then(|peer| peer.pid()),
            // A process listens, and its queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                return fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {shown}"));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot determine whether a process listens on {shown}"));
            }
        };
        if deadline.is_over() {
            let holder = holder.map_or_else(String::new, |pid| format!(" ({})", predecessor::describe(Some(pid))));
            bail!(
                "another control process answers on {shown}{holder}: stop it first (systemctl stop knockplane-control), or \
                 set another `{key}` in [control]"
            );
        }
        tokio::time::sleep(predecessor::RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_directory_is_created_the_mode_is_set_and_the_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/knockplane/control.sock");
        let (listener, removal) = bind("socket", &path, None, Deadline::over()).await.unwrap();
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
        bind("socket", &path, None, Deadline::over()).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_answers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _bound = bind("socket", &path, None, Deadline::over()).await.unwrap();
        let error = bind("socket", &path, None, Deadline::over()).await.unwrap_err().to_string();
        let told = format!("another control process answers on {} (process {} (", path.display(), std::process::id());
        assert!(error.contains(&told), "{error}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind("socket", &path, None, Deadline::over()).await.unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_file_that_replaced_the_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let bound = bind("socket", &path, None, Deadline::over()).await.unwrap();
        fs::rename(&path, dir.path().join("aside")).unwrap();
        fs::write(&path, "another").unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
