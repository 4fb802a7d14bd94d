//! State files with hashes of secrets. Only the process's own user can read them. A file is replaced as a whole: a kill leaves the
//! old or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use knockplane_limits::input::{self, InputError, Limit};
use knockplane_limits::trust;

/// Reads a file. `None` if it does not exist.
///
/// # Errors
/// The reason that it is not used, such as its mode.
pub(crate) fn read(path: &Path, limit: &Limit) -> Result<Option<Vec<u8>>, String> {
    let file = match trust::open(path) {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened.map_err(|error| error.to_string())?,
    };
    let mode = file.metadata().map_err(|error| InputError::from(error).to_string())?.mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!("can be read by other users (mode {:o}): run chmod 600 {path}", mode & 0o777));
    }
    input::read_from(file, limit).map(Some).map_err(|error| error.to_string())
}

/// Replaces the file, and waits for the disk.
///
/// # Errors
/// If the file cannot be written. Then the old one remains.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// A hash as hexadecimal text.
pub(crate) mod hexadecimal {
    use data_encoding::HEXLOWER;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        HEXLOWER.encode(hash).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| D::Error::custom("not a hash"))
    }
}
