//! Sessions of browsers that have signed in at the web page, with a token or with a link that a user of the host made.
//!
//! A session has a secret of 32 random bytes, which is in a cookie. It ends when it was idle for [`IDLE`], when it is [`LONGEST`] old,
//! or when its user signs out. The number of sessions is bounded by [`MAX_SESSIONS`]: a new one replaces one that has ended, or else
//! the longest idle one of the same holder, or else the longest idle one of all.
//!
//! A session by token also ends when the token expires or is revoked. The hash of its secret is stored in a file beside that of the
//! tokens, so a restart of the control process keeps it. A session by link is in memory alone, so a restart ends it, and so does
//! [`Sessions::end_links`]: nothing checks later whether its user may still connect to the socket.
//!
//! | file      | owns |
//! |-----------|------|
//! | `mod.rs`  | the sessions |
//! | `links.rs` | the links that were not used yet |
//! | `file.rs` | the state file |

mod file;
mod links;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use knockplane_log::target;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tracing::warn;

use self::file::SessionFile;
pub(crate) use self::links::LINK_VALID;
use self::links::Links;
use crate::tokens::{Role, TokenName, Tokens, ValidToken};

/// Maximum number of sessions.
pub const MAX_SESSIONS: usize = 256;

/// A session without a request of its user for this time ends.
pub const IDLE: Duration = Duration::from_secs(30 * 60);

/// A session of this age ends.
pub const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// Interval at which the file is written, if the times of uses have changed.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// The identity of an operator in a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The holder of a token.
    Token(TokenName),
    /// A user of this host, who made a link.
    User(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Token(name) => write!(f, "token {name}"),
            Holder::User(uid) => write!(f, "user {uid}"),
        }
    }
}

/// The rights of a session, and their origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Those of a token.
    Token(ValidToken),
    /// Those that a user of this host has put into a link.
    User {
        /// The user id.
        uid: u32,
        /// The role; at most that of the socket where the link was made.
        role: Role,
    },
}

impl Rights {
    /// The operator.
    pub(crate) fn holder(&self) -> Holder {
        match self {
            Rights::Token(token) => Holder::Token(token.name.clone()),
            Rights::User { uid, .. } => Holder::User(*uid),
        }
    }

    /// The role.
    pub(crate) const fn role(&self) -> Role {
        match self {
            Rights::Token(token) => token.role,
            Rights::User { role, .. } => *role,
        }
    }
}

/// A session.
#[derive(Clone, PartialEq, Eq)]
struct Session {
    /// SHA-256 of the secret.
    hash: [u8; 32],
    rights: Rights,
    created: u64,
    last_used: u64,
}

impl Session {
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
    /// Its rights.
    pub(crate) rights: Rights,
    /// The value with which a request shows that a page of this origin sends it.
    pub(crate) csrf: String,
    /// The time at which it ends at the latest, in Unix time.
    pub(crate) expires: u64,
}

impl fmt::Debug for ValidSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidSession").field("rights", &self.rights).finish_non_exhaustive()
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
    sessions: Vec<Session>,
    links: Links,
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
        let sessions = sessions.into_iter().filter_map(|stored| stored.into_session(&tokens)).collect();
        let state = Mutex::new(State { sessions, links: Links::default(), is_changed: false });
        Sessions { file, tokens, state, writing: Mutex::default(), ended: watch::Sender::new(0) }
    }

    /// Begins a session for the holder of a token.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn begin(&self, token: ValidToken) -> Result<NewSession, getrandom::Error> {
        let secret = new_secret()?;
        let session = self.lock().begin(&secret, Rights::Token(token));
        self.write();
        Ok(NewSession { secret, session })
    }

    /// Makes a link with these rights, and returns its secret, which is stored nowhere. It begins one session within [`LINK_VALID`].
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn make_link(&self, uid: u32, role: Role) -> Result<String, getrandom::Error> {
        let secret = new_secret()?;
        self.lock().links.add(hash(&secret), Rights::User { uid, role }, Instant::now());
        Ok(secret)
    }

    /// Begins a session with the secret of a link, which is used up. `None` if there is no such link, or not any more.
    ///
    /// # Errors
    /// If the system has no random numbers. Then the link is not used up.
    pub(crate) fn begin_with_link(&self, link: &str) -> Result<Option<NewSession>, getrandom::Error> {
        let secret = new_secret()?;
        // One lock for both, so that `end_links` leaves nothing.
        let mut state = self.lock();
        let Some(rights) = state.links.take(&hash(link), Instant::now()) else { return Ok(None) };
        let session = state.begin(&secret, rights);
        Ok(Some(NewSession { secret, session }))
    }

    /// Ends all sessions that began with a link, with their open streams, and all links. Returns the number of these sessions.
    pub(crate) fn end_links(&self) -> usize {
        let count = {
            let (mut state, time) = (self.lock(), now());
            state.links = Links::default();
            let is_by_link = |known: &Session| matches!(known.rights, Rights::User { .. });
            let count = state.sessions.iter().filter(|known| is_by_link(known) && known.ends() > time).count();
            state.sessions.retain(|known| !is_by_link(known));
            count
        };
        self.ended.send_modify(|ended| *ended += 1);
        count
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
        if let Rights::Token(token) = &known.rights {
            self.tokens.still(&token.name, token.created)?;
        }
        let session = valid(known, secret);
        if is_active {
            known.last_used = time;
            state.is_changed |= matches!(session.rights, Rights::Token(_));
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
                let ends = self.lock().sessions.iter().find(|known| known.hash == session.hash).map(Session::ends);
                let Some(left) = ends.map(|ends| ends.saturating_sub(time)).filter(|left| *left > 0) else { return };
                // The wall clock may be changed meanwhile.
                let pause = Duration::from_secs(left.min(60));
                // The sender lives as long as `self`.
                let _ = tokio::time::timeout(pause, ended.changed()).await;
            }
        };
        let Rights::Token(token) = &session.rights else { return by_itself.await };
        tokio::select! {
            () = by_itself => {}
            () = self.tokens.ended(token) => {}
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
    /// Begins a session.
    fn begin(&mut self, secret: &str, rights: Rights) -> ValidSession {
        let time = now();
        let session = Session { hash: hash(secret), rights, created: time, last_used: time };
        self.make_room(&session.rights.holder(), time);
        let begun = valid(&session, secret);
        // The session that made room may be one of the file.
        self.is_changed = true;
        self.sessions.push(session);
        begun
    }

    /// Makes room for a session of this holder.
    fn make_room(&mut self, holder: &Holder, time: u64) {
        self.sessions.retain(|known| known.ends() > time);
        if self.sessions.len() < MAX_SESSIONS {
            return;
        }
        let idle = |own: bool| {
            let places = self.sessions.iter().enumerate().filter(|(_, known)| !own || known.rights.holder() == *holder);
            places.min_by_key(|(_, known)| known.last_used).map(|(place, _)| place)
        };
        if let Some(place) = idle(true).or_else(|| idle(false)) {
            self.sessions.remove(place);
        }
    }
}

/// A proven session, with its rights as they are now.
fn valid(session: &Session, secret: &str) -> ValidSession {
    let latest = session.created + LONGEST.as_secs();
    let expires = match &session.rights {
        Rights::Token(token) => latest.min(token.expires),
        Rights::User { .. } => latest,
    };
    // Derived from the secret, so that it is stored nowhere and the same after a restart.
    let csrf = BASE64URL_NOPAD.encode(&Sha256::digest(format!("knockplane csrf {secret}")));
    ValidSession { hash: session.hash, rights: session.rights.clone(), csrf, expires }
}

/// 32 random bytes as text.
fn new_secret() -> Result<String, getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(BASE64URL_NOPAD.encode(&random))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
