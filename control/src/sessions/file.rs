//! The file of the sessions.

use std::io;
use std::path::{Path, PathBuf};

use knockplane_limits::input::Limit;
use serde::{Deserialize, Serialize};

use super::{MAX_SESSIONS, StoredSession};
use crate::secret_file;

/// Version of the file.
const VERSION: u32 = 1;

/// The longest file: [`MAX_SESSIONS`] take some 90 KiB.
const LIMIT: Limit = Limit { bytes: 1 << 20, of: "session files", remedy: "remove it, and sign in again" };

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    sessions: Vec<StoredSession>,
}

#[derive(Debug)]
pub(super) struct SessionFile {
    path: PathBuf,
}

impl SessionFile {
    pub(super) fn new(path: &Path) -> Self {
        SessionFile { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The sessions, or the reason that the file is not used.
    pub(super) fn read(&self) -> Result<Vec<StoredSession>, String> {
        let error = |reason: &str| format!("the session file {} {reason}", self.path.display());
        let Some(bytes) = secret_file::read(&self.path, &LIMIT).map_err(|reason| error(&reason))? else {
            return Ok(Vec::new());
        };
        // The text of the error could contain a hash.
        let Content { version, sessions } = serde_json::from_slice(&bytes).map_err(|_| error("is damaged"))?;
        match version == VERSION && sessions.len() <= MAX_SESSIONS {
            true => Ok(sessions),
            false => Err(error("has another version or too many sessions")),
        }
    }

    /// Replaces the file, and waits for the disk.
    pub(super) fn write(&self, sessions: &[StoredSession]) -> io::Result<()> {
        let content = Content { version: VERSION, sessions: sessions.to_vec() };
        secret_file::write(&self.path, &serde_json::to_vec_pretty(&content).map_err(io::Error::other)?)
    }
}
