//! The control socket: made, guarded, and removed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use mio::net::{UnixListener, UnixStream};
use rustix::process::{Uid, geteuid};

/// Callers looked at in one go.
const MAX_CALLERS: usize = 8;

/// A unix socket that root, our own user and the configured users may talk to. Its file goes with it.
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    uids: Vec<Uid>,
}

impl Listener {
    /// Makes the socket, and its folder. The file of a process that was killed is replaced.
    ///
    /// # Errors
    /// If another process serves it, or the file system refuses.
    pub(super) fn bind(path: &Path, uids: &[u32]) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        if StdUnixStream::connect(path).is_ok() {
            bail!("{} is served by another process; stop it, or set another `socket`", path.display());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
        let socket = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        // Whoever may open it is still asked who they are, see `accept`.
        let mode = if uids.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        let mut allowed = vec![Uid::ROOT, geteuid()];
        allowed.extend(uids.iter().map(|uid| Uid::from_raw(*uid)));
        Ok(Listener { socket, path: path.to_owned(), uids: allowed })
    }

    /// Who came, at most `room` of them; the others, and strangers, are turned away. Looks at a few at a time, so that
    /// strangers cannot keep the manager busy.
    pub(super) fn accept(&self, room: usize) -> Vec<UnixStream> {
        let mut accepted = Vec::new();
        for _ in 0..MAX_CALLERS {
            let Ok((stream, _)) = self.socket.accept() else { break };
            match rustix::net::sockopt::socket_peercred(&stream) {
                Ok(peer) if !self.uids.contains(&peer.uid) => {
                    tracing::warn!(
                        uid = peer.uid.as_raw(),
                        pid = peer.pid.as_raw_nonzero(),
                        "a stranger was turned away from the control socket"
                    );
                }
                Ok(_) if accepted.len() == room => tracing::warn!("too many connections on the control socket"),
                Ok(_) => accepted.push(stream),
                Err(error) => tracing::warn!(%error, "a peer of the control socket cannot be identified"),
            }
        }
        accepted
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing depends on it: the next start replaces a file that is left.
        let _ = fs::remove_file(&self.path);
    }
}
