//! The file of the tokens.

use std::io;
use std::path::{Path, PathBuf};

use knockplane_limits::input::Limit;
use serde::{Deserialize, Serialize};

use super::{MAX_TOKENS, StoredToken};
use crate::secret_file;

/// Version of the file.
const VERSION: u32 = 1;

/// The longest file: [`MAX_TOKENS`] take some 80 KiB.
const LIMIT: Limit =
    Limit { bytes: 1 << 20, of: "token files", remedy: "restore it, or remove it and make new tokens" };

/// The reason that the file is not used.
#[derive(Debug, thiserror::Error)]
#[error("the token file {path} {reason}", path = .path.display())]
pub struct TokenFileError {
    path: PathBuf,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    tokens: Vec<StoredToken>,
}

#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(super) fn new(path: &Path) -> Self {
        TokenFile { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self) -> Result<Vec<StoredToken>, TokenFileError> {
        let Some(bytes) = secret_file::read(&self.path, &LIMIT).map_err(|reason| self.error(reason))? else {
            return Ok(Vec::new());
        };
        // The text of the error could contain a hash.
        let damaged = |_| self.error("is damaged: restore it, or remove it and make new tokens".to_owned());
        let Content { version, tokens } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version != VERSION || tokens.len() > MAX_TOKENS {
            return Err(self.error(format!(
                "has version {version} and {} tokens, instead of version {VERSION} and at most {MAX_TOKENS}: remove it and \
                 make new tokens",
                tokens.len()
            )));
        }
        Ok(tokens)
    }

    /// Replaces the file, and waits for the disk.
    pub(super) fn write(&self, tokens: &[StoredToken]) -> io::Result<()> {
        let content = Content { version: VERSION, tokens: tokens.to_vec() };
        secret_file::write(&self.path, &serde_json::to_vec_pretty(&content).map_err(io::Error::other)?)
    }

    fn error(&self, reason: String) -> TokenFileError {
        TokenFileError { path: self.path.clone(), reason }
    }
}
