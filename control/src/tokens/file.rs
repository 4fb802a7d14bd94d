//! The file of the tokens. Only the process's own user can read it. It is replaced as a whole: a kill leaves the old or the new
//! one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use knockplane_limits::input::{self, InputError, Limit};
use knockplane_limits::trust;
use serde::{Deserialize, Serialize};

use super::{MAX_TOKENS, StoredToken};

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
        let file = match trust::open(&self.path) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            opened => opened.map_err(|error| self.error(error.to_string()))?,
        };
        let mode = file.metadata().map_err(|error| self.error(InputError::from(error).to_string()))?.mode();
        if mode & 0o077 != 0 {
            let path = self.path.display();
            return Err(
                self.error(format!("can be read by other users (mode {:o}): run chmod 600 {path}", mode & 0o777))
            );
        }
        let bytes = input::read_from(file, &LIMIT).map_err(|error| self.error(error.to_string()))?;
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
        let folder = self.folder();
        fs::create_dir_all(folder)?;
        let content = Content { version: VERSION, tokens: tokens.to_vec() };
        let mut file = tempfile::Builder::new()
            .prefix(".tokens-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(&content).map_err(io::Error::other)?)?;
        file.as_file().sync_data()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn error(&self, reason: String) -> TokenFileError {
        TokenFileError { path: self.path.clone(), reason }
    }
}

/// A hash as hexadecimal text.
pub(super) mod hexadecimal {
    use data_encoding::HEXLOWER;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        HEXLOWER.encode(hash).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| D::Error::custom("not a hash"))
    }
}
