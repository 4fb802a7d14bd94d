//! The control socket: creates it, checks the users that connect, and removes it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use knockplane_limits::predecessor::{self, Deadline};
use knockplane_limits::refusal::Refusals;
use knockplane_ring::Release;
use mio::net::{UnixListener, UnixStream};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::process::{Uid, geteuid};

/// The delay before another attempt to replace a socket that accepted a connection. The delay is longer than
/// [`predecessor::RETRY`]: the process that listens probably does not exit soon, and each attempt costs it a
/// connection.
const ANSWERED: Duration = Duration::from_millis(20);

/// A unix socket for root, the dataplane's own user and the configured users. The drop of this value removes the
/// socket's file.
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    /// Connections that a limit refused or closed.
    pub(crate) refusals: Arc<Refusals>,
    path: PathBuf,
    inode: u64,
    uids: Vec<Uid>,
}

/// A peer that connects.
pub(crate) struct Caller {
    pub(crate) stream: UnixStream,
    /// The peer's effective user id when it connected (unix(7), SO_PEERCRED).
    pub(crate) uid: Uid,
    /// 0 if the process is outside this PID namespace.
    pub(crate) pid: i32,
    pub(crate) allowed: bool,
    /// Root and the dataplane's own user have connections reserved.
    pub(crate) privileged: bool,
}

impl Listener {
    /// Creates the socket and its folder. Replaces the socket of a process that was killed, and waits for a process
    /// that is exiting.
    ///
    /// # Errors
    /// If another process listens on the socket, if a file that is not a socket has this path, or if the file system
    /// refuses.
    pub(crate) fn bind(path: &Path, uids: &[u32], deadline: Deadline) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        clear(path, deadline)?;
        let socket = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let socket = UnixListener::from(knockplane_ring::place(socket.into(), Release::ControlSocket));
        let inode = fs::symlink_metadata(path)?.ino();
        // `accept` checks the user of each peer.
        let mode = if uids.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        let mut allowed = vec![Uid::ROOT, geteuid()];
        allowed.extend(uids.iter().map(|uid| Uid::from_raw(*uid)));
        Ok(Listener { socket, refusals: Arc::default(), path: path.to_owned(), inode, uids: allowed })
    }

    /// Checks whether a start can create a socket at this path. Opens no connection and changes nothing.
    ///
    /// # Errors
    /// The file that prevents the socket.
    pub(crate) fn examine(path: &Path) -> anyhow::Result<()> {
        let folder = path.ancestors().skip(1).find_map(|above| fs::metadata(above).ok().map(|there| (above, there)));
        if let Some((folder, _)) = folder.filter(|(_, there)| !there.is_dir()) {
            bail!("{} cannot be made: {} is no directory; set another `socket`", path.display(), folder.display());
        }
        fs::symlink_metadata(path).map_or(Ok(()), |metadata| must_be_socket(&metadata, path))
    }

    /// The next peer that connects; `None` if none waits.
    ///
    /// # Errors
    /// If the system has no descriptor or memory for the connection, or does not report the peer's user.
    pub(crate) fn accept(&self) -> io::Result<Option<Caller>> {
        let stream = match self.socket.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let peer = getsockopt(&stream, PeerCredentials)?;
        let uid = Uid::from_raw(peer.uid());
        Ok(Some(Caller {
            stream,
            uid,
            pid: peer.pid(),
            allowed: self.uids.contains(&uid),
            privileged: uid == Uid::ROOT || uid == geteuid(),
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A failure has no consequence: the next start replaces a remaining socket. Another process may have created a
        // new file at this path, which must remain.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn must_be_socket(metadata: &fs::Metadata, path: &Path) -> anyhow::Result<()> {
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is not a socket: remove it, or set another `socket`", path.display());
    }
    Ok(())
}

/// Removes the socket of a killed process. Any other file is an error.
fn clear(path: &Path, deadline: Deadline) -> anyhow::Result<()> {
    let shown = path.display();
    loop {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata.with_context(|| format!("cannot look at {shown}"))?,
        };
        must_be_socket(&metadata, path)?;
        // A non-blocking connect: a blocking one would never return if the process is stopped and its queue is full.
        let (holder, pause) = match UnixStream::connect(path) {
            Ok(stream) => {
                // The id is 0 if the process is outside this PID namespace.
                let holder = getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid != 0);
                (holder, ANSWERED)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (None, predecessor::RETRY),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return fs::remove_file(path).with_context(|| format!("cannot replace {shown}"));
            }
            // A socket of another kind, or a socket without permission to connect.
            Err(error) => {
                return Err(error).with_context(|| format!("cannot determine whether a process listens on {shown}"));
            }
        };
        if !deadline.wait(pause) {
            let holder = holder.map_or_else(String::new, |pid| format!(" ({})", predecessor::describe(Some(pid))));
            bail!("another dataplane answers on {shown}{holder}: stop it first, or set another `socket`");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener};
    use std::thread;

    use super::*;

    fn refusal(path: &Path) -> String {
        Listener::bind(path, &[], Deadline::over()).err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced_and_one_that_answers_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/dataplane.sock");
        fs::create_dir(folder.path().join("run")).expect("a folder");
        drop(StdUnixListener::bind(&path).expect("a socket"));
        let listener = Listener::bind(&path, &[], Deadline::over()).expect("nobody listens");
        let told = format!("another dataplane answers on {} (process {} (", path.display(), std::process::id());
        assert!(refusal(&path).contains(&told), "{}", refusal(&path));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_is_exiting_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dataplane.sock");
        let dying = StdUnixListener::bind(&path).expect("a socket");
        let ends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(dying);
        });
        assert!(Listener::bind(&path, &[], Deadline::start()).is_ok());
        ends.join().expect("it ended");
    }

    #[test]
    fn a_process_that_takes_no_connection_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dataplane.sock");
        let stuck = StdUnixListener::bind(&path).expect("a socket");
        rustix::net::listen(&stuck, 1).expect("with a short queue");
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path) {
            waiting.push(stream);
            assert!(waiting.len() < 10, "its queue is full at some point");
        }
        assert!(refusal(&path).contains("another dataplane answers"));
    }

    #[test]
    fn what_may_be_somebody_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dataplane.sock");
        let _other = UnixDatagram::bind(&path).expect("a socket of another kind");
        let error = refusal(&path);
        assert!(error.contains("cannot determine whether a process listens"), "{error}");
        assert!(path.exists());
    }
}
