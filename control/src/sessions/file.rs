//! The file of the sessions.

use std::io;
use std::path::{Path, PathBuf};

use knockplane_limits::input::Limit;
use serde::{Deserialize, Serialize};

use super::{MAX_SESSIONS, Rights, Session};
use crate::secret_file;
use crate::tokens::{TokenName, Tokens};

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

/// A session by token, as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredSession {
    /// SHA-256 of the secret, in hexadecimal.
    #[serde(with = "secret_file::hexadecimal")]
    hash: [u8; 32],
    /// The token of the sign-in.
    token: TokenName,
    /// The time of the token's creation: a later token with the same name is another one.
    token_created: u64,
    created: u64,
    last_used: u64,
}

impl StoredSession {
    /// `None` for a session by link.
    fn of(Session { hash, rights, created, last_used }: &Session) -> Option<Self> {
        let Rights::Token(token) = rights else { return None };
        let (hash, created, last_used) = (*hash, *created, *last_used);
        Some(StoredSession { hash, token: token.name.clone(), token_created: token.created, created, last_used })
    }

    /// `None` if its token is not valid any more.
    pub(super) fn into_session(self, tokens: &Tokens) -> Option<Session> {
        let StoredSession { hash, token, token_created, created, last_used } = self;
        let rights = Rights::Token(tokens.still(&token, token_created)?);
        Some(Session { hash, rights, created, last_used })
    }
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
    pub(super) fn write(&self, sessions: &[Session]) -> io::Result<()> {
        let sessions = sessions.iter().filter_map(StoredSession::of).collect();
        let content = Content { version: VERSION, sessions };
        secret_file::write(&self.path, &serde_json::to_vec_pretty(&content).map_err(io::Error::other)?)
    }
}
