//! Sessions of browsers that have signed in at the web page.
//!
//! A session has a secret of 32 random bytes, which is in a cookie. Only its SHA-256 hash is stored, in a file beside that of the
//! tokens, so a restart of the control process keeps sign-ins. A session ends when it was idle for [`IDLE`], when it is
//! [`LONGEST`] old, when its token expires or is revoked, or when its user signs out. The number of sessions is bounded by
//! [`MAX_SESSIONS`]: a new one replaces one that has ended, or else the longest idle one of the same token, or else the longest
//! idle one of all.
//!
//! | file      | owns |
//! |-----------|------|
//! | `mod.rs`  | the sessions |
//! | `file.rs` | the state file |

mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use knockplane_log::target;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tracing::warn;

use self::file::SessionFile;
use crate::secret_file;
use crate::tokens::{Role, TokenName, Tokens, ValidToken};

/// Maximum number of sessions.
pub const MAX_SESSIONS: usize = 256;

/// A session without a request of its user for this time ends.
pub const IDLE: Duration = Duration::from_secs(30 * 60);

/// A session of this age ends.
pub const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// Interval at which the file is written, if the times of uses have changed.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// A session as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSession {
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
    /// The time at which it ends, unless it is used before.
    fn ends(&self) -> u64 {
        (self.created + LONGEST.as_secs()).min(self.last_used + IDLE.as_secs())
    }
}

/// A new session. Its secret is stored nowhere.
pub(crate) struct NewSession {
    /// The secret, for the cookie.
    pub(crate) secret: String,
    /// The session.
    pub(crate) session: ValidSession,
}

/// A session that a request has proven.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ValidSession {
    hash: [u8; 32],
    /// The token of its sign-in.
    pub(crate) token: ValidToken,
    /// The value with which a request shows that a page of this origin sends it.
    pub(crate) csrf: String,
    /// The time at which it ends at the latest, in Unix time.
    pub(crate) expires: u64,
}

impl fmt::Debug for ValidSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidSession").field("token", &self.token).finish_non_exhaustive()
    }
}

impl ValidSession {
    /// Its role.
    pub(crate) fn role(&self) -> Role {
        self.token.role
    }
}

/// The sessions, and their file.
#[derive(Debug)]
pub struct Sessions {
    file: SessionFile,
    tokens: Arc<Tokens>,
    state: Mutex<State>,
    /// Held from the read of the sessions to the end of their write.
    writing: Mutex<()>,
    /// Notifies open streams of a sign-out.
    ended: watch::Sender<u64>,
}

struct State {
    sessions: Vec<StoredSession>,
    /// Whether the file has an older state.
    is_changed: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the hashes.
        f.debug_struct("State").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Reads the sessions of a file. Without a usable file there are none, and everybody signs in again.
    pub fn load(path: &Path, tokens: Arc<Tokens>) -> Sessions {
        let file = SessionFile::new(path);
        let sessions = file.read().unwrap_or_else(|error| {
            warn!("{error}; sign-ins of before are not valid any more");
            Vec::new()
        });
        let state = Mutex::new(State { sessions, is_changed: false });
        Sessions { file, tokens, state, writing: Mutex::default(), ended: watch::Sender::new(0) }
    }

    /// Begins a session for the holder of a token.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn begin(&self, token: &ValidToken) -> Result<NewSession, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let secret = BASE64URL_NOPAD.encode(&random);
        let time = now();
        let stored = StoredSession {
            hash: hash(&secret),
            token: token.name.clone(),
            token_created: token.created,
            created: time,
            last_used: time,
        };
        let session = valid(&stored, token.clone(), &secret);
        {
            let mut state = self.lock();
            state.make_room(&token.name, time);
            state.sessions.push(stored);
            state.is_changed = true;
        }
        self.write();
        Ok(NewSession { secret, session })
    }

    /// The session with this secret. `is_active`: the user, and not a timer, causes the request, so the session is not idle.
    pub(crate) fn check(&self, secret: &str, is_active: bool) -> Option<ValidSession> {
        self.check_at(secret, is_active, now())
    }

    fn check_at(&self, secret: &str, is_active: bool, time: u64) -> Option<ValidSession> {
        let hash = hash(secret);
        let mut state = self.lock();
        // All hashes are compared, so that the time says nothing about them.
        let mut found = None;
        for (place, known) in state.sessions.iter().enumerate() {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(place);
            }
        }
        let known = &mut state.sessions[found?];
        if known.ends() <= time {
            return None;
        }
        let token = self.tokens.still(&known.token, known.token_created)?;
        let session = valid(known, token, secret);
        if is_active {
            known.last_used = time;
            state.is_changed = true;
        }
        Some(session)
    }

    /// Ends a session and its open streams.
    pub(crate) fn end(&self, session: &ValidSession) {
        {
            let mut state = self.lock();
            state.sessions.retain(|known| known.hash != session.hash);
            state.is_changed = true;
        }
        self.ended.send_modify(|ended| *ended += 1);
        self.write();
    }

    /// Waits until a session ends.
    pub(crate) async fn ended(&self, session: &ValidSession) {
        let mut ended = self.ended.subscribe();
        let by_itself = async {
            loop {
                let time = now();
                let ends =
                    self.lock().sessions.iter().find(|known| known.hash == session.hash).map(StoredSession::ends);
                let Some(left) = ends.map(|ends| ends.saturating_sub(time)).filter(|left| *left > 0) else { return };
                // The wall clock may be changed meanwhile.
                let pause = Duration::from_secs(left.min(60));
                // The sender lives as long as `self`.
                let _ = tokio::time::timeout(pause, ended.changed()).await;
            }
        };
        tokio::select! {
            () = by_itself => {}
            () = self.tokens.ended(&session.token) => {}
        }
    }

    /// Writes the file at intervals if necessary, without end.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            let own = Arc::clone(&self);
            // A slow disk delays no request.
            let _ = tokio::task::spawn_blocking(move || own.write()).await;
        }
    }

    /// Writes the file, if it has an older state. After a failure, [`Sessions::watch`] tries again.
    fn write(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.is_changed) {
                return;
            }
            state.sessions.clone()
        };
        if let Err(error) = self.file.write(&sessions) {
            warn!(target: target!("operator"), "{}: {error}; a restart would forget sign-ins", self.file.path().display());
            self.lock().is_changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for a session with this token.
    fn make_room(&mut self, token: &TokenName, time: u64) {
        self.sessions.retain(|known| known.ends() > time);
        if self.sessions.len() < MAX_SESSIONS {
            return;
        }
        let idle = |own: bool| {
            let places = self.sessions.iter().enumerate().filter(|(_, known)| !own || known.token == *token);
            places.min_by_key(|(_, known)| known.last_used).map(|(place, _)| place)
        };
        if let Some(place) = idle(true).or_else(|| idle(false)) {
            self.sessions.remove(place);
        }
    }
}

fn valid(stored: &StoredSession, token: ValidToken, secret: &str) -> ValidSession {
    let expires = (stored.created + LONGEST.as_secs()).min(token.expires);
    // Derived from the secret, so that it is stored nowhere and the same after a restart.
    let csrf = BASE64URL_NOPAD.encode(&Sha256::digest(format!("knockplane csrf {secret}")));
    ValidSession { hash: stored.hash, token, csrf, expires }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
