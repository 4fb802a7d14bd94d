//! Tokens of the API on TCP: each has a name, a role and a time at which it expires.
//!
//! A token is 32 random bytes, so a SHA-256 hash suffices to store it: no list of likely tokens exists that an attacker could
//! try. A request is compared with all hashes in constant time. The number of tokens is bounded by [`MAX_TOKENS`]; expired ones
//! stay in the list until they are revoked or a new token needs their room.
//!
//! | file      | owns |
//! |-----------|------|
//! | `mod.rs`  | the tokens, and the checks of requests |
//! | `file.rs` | the state file |

mod file;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use self::file::TokenFile;
pub use self::file::TokenFileError;
use crate::secret_file;

/// Maximum number of tokens.
pub const MAX_TOKENS: usize = 256;

/// Maximum length of a name in bytes.
pub const MAX_NAME: usize = 64;

/// The times for which a token can be valid.
const VALID_FOR: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_660 * 86_400);

/// The first characters of each token, by which people and scanners of secrets recognize it.
const PREFIX: &str = "kp_";

/// Random bytes of a token.
const RANDOM: usize = 32;

/// Interval at which the times of uses are written.
const WRITE_USES_EVERY: Duration = Duration::from_secs(60);

/// The rights of a client. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Requests that change nothing.
    Read,
    /// Also changes of lists, ends of connections, traces, watches, counters, and confirmations.
    Operate,
    /// Also changes of rules and of the configuration.
    Administer,
}

impl Role {
    /// All roles, in order.
    pub const ALL: [Role; 3] = [Role::Read, Role::Operate, Role::Administer];

    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Administer => "administer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name of a token: letters, digits, `-`, `_` and `.`, with a letter first, so that a name is never a user id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenName(String);

impl TokenName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JsonSchema for TokenName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TokenName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^[A-Za-z][A-Za-z0-9._-]{{0,{}}}$", MAX_NAME - 1) })
    }
}

impl FromStr for TokenName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
        match begins && text.len() <= MAX_NAME && text.bytes().all(is_word) {
            true => Ok(TokenName(text.to_owned())),
            false => Err(format!(
                "the name of a token has letters, digits, `-`, `_` and `.`, begins with a letter, and has at most {MAX_NAME} \
                 characters"
            )),
        }
    }
}

impl TryFrom<String> for TokenName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// Its name.
    pub name: TokenName,
    /// Its role.
    pub role: Role,
    /// The time of its creation, in Unix time.
    pub created: u64,
    /// The time at which it expires, in Unix time.
    pub expires: u64,
    /// The time of its last use, in Unix time; `null` if it was never used.
    pub last_used: Option<u64>,
}

/// A new token. The secret is shown once, and stored nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// The token, for the header `Authorization: Bearer`.
    pub token: String,
    /// The token without its secret.
    #[serde(flatten)]
    pub info: TokenInfo,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A token as it is stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredToken {
    name: TokenName,
    role: Role,
    /// SHA-256 of the whole token, in hexadecimal.
    #[serde(with = "secret_file::hexadecimal")]
    hash: [u8; 32],
    created: u64,
    expires: u64,
    last_used: Option<u64>,
}

impl StoredToken {
    fn info(&self) -> TokenInfo {
        let StoredToken { name, role, hash: _, created, expires, last_used } = self.clone();
        TokenInfo { name, role, created, expires, last_used }
    }
}

/// A token that a request has proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidToken {
    /// Its name.
    pub name: TokenName,
    /// Its role.
    pub role: Role,
    /// The time of its creation: a later token with the same name is another one.
    pub(crate) created: u64,
    /// The time at which it expires, in Unix time.
    pub(crate) expires: u64,
}

/// The reason that the token of a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// No token has this hash: it was never made, or it is revoked.
    Unknown,
    /// It has expired.
    Expired,
}

/// The reason that a token cannot be created or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A valid token has this name.
    #[error("there is a token {0} already; nothing changed")]
    Taken(TokenName),
    /// There is no room.
    #[error("there are {MAX_TOKENS} tokens already; nothing changed")]
    Full,
    /// There is no token with this name.
    #[error("there is no token {0}")]
    Missing(String),
    /// The time is not possible.
    #[error("a token is valid for 1 s to 3660 d")]
    Time,
    /// The file cannot be written, or the system has no random numbers.
    #[error("{0}; nothing changed")]
    Failed(String),
}

impl TokenError {
    /// What to do; `None` if the message tells it.
    pub const fn remedy(&self) -> Option<&'static str> {
        match self {
            TokenError::Taken(_) => Some("revoke it first, or choose another name"),
            TokenError::Full => Some("revoke those that are not used"),
            TokenError::Missing(_) => Some("`knockctl token list` shows the names"),
            TokenError::Time => Some("give a time within these limits"),
            TokenError::Failed(_) => None,
        }
    }
}

/// The tokens, and their file.
#[derive(Debug)]
pub struct Tokens {
    file: TokenFile,
    /// Never held while the disk is written: requests wait for it.
    state: Mutex<State>,
    /// Held from the read of the tokens to their replacement, by those that write the file.
    writing: Mutex<()>,
    /// Notifies open streams of a revocation.
    revoked: watch::Sender<u64>,
}

struct State {
    tokens: Vec<StoredToken>,
    /// Whether a token was used since the last write.
    is_used: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the hashes.
        f.debug_struct("State").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the tokens of a file. A file that does not exist contains none.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or can be read or changed by another user.
    pub fn load(path: &Path) -> Result<Tokens, TokenFileError> {
        let file = TokenFile::new(path);
        let state = State { tokens: file.read()?, is_used: false };
        Ok(Tokens { file, state: Mutex::new(state), writing: Mutex::default(), revoked: watch::Sender::new(0) })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// Creates a token.
    ///
    /// # Errors
    /// If a valid token has the name, if there is no room, or if the file cannot be written. Then nothing changed.
    pub fn create(&self, name: TokenName, role: Role, valid_for: Duration) -> Result<NewToken, TokenError> {
        if !VALID_FOR.contains(&valid_for) {
            return Err(TokenError::Time);
        }
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random)
            .map_err(|error| TokenError::Failed(format!("the system has no random numbers: {error}")))?;
        let token = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random));
        let created = now();
        let stored = StoredToken {
            name: name.clone(),
            role,
            hash: hash(&token),
            created,
            expires: created.saturating_add(valid_for.as_secs()),
            last_used: None,
        };
        let info = stored.info();
        let _writing = self.writing();
        let mut tokens = self.lock().tokens.clone();
        // An expired token gives its name and its room to a new one.
        tokens.retain(|known| known.name != name || known.expires > created);
        if tokens.iter().any(|known| known.name == name) {
            return Err(TokenError::Taken(name));
        }
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|known| known.expires > created);
        }
        if tokens.len() >= MAX_TOKENS {
            return Err(TokenError::Full);
        }
        tokens.push(stored);
        self.replace(tokens)?;
        Ok(NewToken { token, info })
    }

    /// Revokes a token. Its open streams end.
    ///
    /// # Errors
    /// If there is no such token, or if the file cannot be written. Then nothing changed.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let _writing = self.writing();
        let mut tokens = self.lock().tokens.clone();
        let known = tokens.len();
        tokens.retain(|known| known.name.as_str() != name);
        if tokens.len() == known {
            return Err(TokenError::Missing(name.escape_debug().to_string()));
        }
        self.replace(tokens)?;
        self.revoked.send_modify(|revocations| *revocations += 1);
        Ok(())
    }

    /// All tokens, ordered by name.
    pub fn list(&self) -> Vec<TokenInfo> {
        let mut tokens: Vec<_> = self.lock().tokens.iter().map(StoredToken::info).collect();
        tokens.sort_by(|one, other| one.name.cmp(&other.name));
        tokens
    }

    /// Checks the token of a request, and records its use.
    ///
    /// # Errors
    /// If no valid token has this text.
    pub fn check(&self, token: &str) -> Result<ValidToken, TokenRefusal> {
        let (hash, time) = (hash(token), now());
        let mut state = self.lock();
        // All hashes are compared, so that the time says nothing about them.
        let mut found = None;
        for (place, known) in state.tokens.iter().enumerate() {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(place);
            }
        }
        let known = found.map(|place| &mut state.tokens[place]).ok_or(TokenRefusal::Unknown)?;
        if known.expires <= time {
            return Err(TokenRefusal::Expired);
        }
        known.last_used = Some(time);
        let StoredToken { name, role, created, expires, .. } = known.clone();
        state.is_used = true;
        Ok(ValidToken { name, role, created, expires })
    }

    /// The token with this name and time of creation, if it is still valid.
    pub(crate) fn still(&self, name: &TokenName, created: u64) -> Option<ValidToken> {
        let time = now();
        let state = self.lock();
        let is_it = |known: &&StoredToken| known.name == *name && known.created == created && known.expires > time;
        let StoredToken { name, role, created, expires, .. } = state.tokens.iter().find(is_it)?.clone();
        Some(ValidToken { name, role, created, expires })
    }

    /// Waits until a token expires or is revoked.
    pub async fn ended(&self, token: &ValidToken) {
        let mut revocations = self.revoked.subscribe();
        loop {
            let is_valid = |known: &StoredToken| known.name == token.name && known.created == token.created;
            let left = token.expires.saturating_sub(now());
            if left == 0 || !self.lock().tokens.iter().any(is_valid) {
                return;
            }
            // The wall clock may be changed meanwhile.
            let pause = Duration::from_secs(left.min(60));
            // The sender lives as long as `self`.
            let _ = tokio::time::timeout(pause, revocations.changed()).await;
        }
    }

    /// Writes the times of the last uses at intervals, without end.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WRITE_USES_EVERY).await;
            let own = Arc::clone(&self);
            // A slow disk delays no request.
            let _ = tokio::task::spawn_blocking(move || own.write_uses()).await;
        }
    }

    /// Writes the times of the last uses, if there are new ones. A failure loses only these times.
    fn write_uses(&self) {
        let _writing = self.writing();
        let tokens = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.is_used) {
                return;
            }
            state.tokens.clone()
        };
        if self.file.write(&tokens).is_err() {
            self.lock().is_used = true;
        }
    }

    /// Writes these tokens, and replaces the present ones by them.
    fn replace(&self, mut tokens: Vec<StoredToken>) -> Result<(), TokenError> {
        self.file
            .write(&tokens)
            .map_err(|error| TokenError::Failed(format!("cannot write {}: {error}", self.file.path().display())))?;
        let mut state = self.lock();
        // Requests have used tokens meanwhile.
        for token in &mut tokens {
            let same = |known: &&StoredToken| known.name == token.name && known.created == token.created;
            let used = state.tokens.iter().find(same).and_then(|known| known.last_used);
            token.last_used = token.last_used.max(used);
        }
        state.tokens = tokens;
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the text has the form of a token.
pub fn is_token(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(|rest| BASE64URL_NOPAD.decode(rest.as_bytes()).is_ok_and(|r| r.len() == RANDOM))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Unix time in seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
