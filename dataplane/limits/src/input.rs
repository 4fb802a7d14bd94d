//! Reads whole inputs, each with a limit in bytes: endless input is refused and does not exhaust memory.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::trust::{self, TrustError};

/// A mebibyte, in bytes.
const MIB: u64 = 1 << 20;

/// Limit for one kind of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Limit in bytes.
    pub bytes: u64,
    /// The kind of input, in the plural.
    pub of: &'static str,
    /// The remedy for longer input.
    pub remedy: &'static str,
}

/// Rule files. A million entries of address lists take 50 MB.
pub const RULES: Limit = Limit {
    bytes: 64 * MIB,
    of: "rule files",
    remedy: "move entries of address lists to a file of their own, and import that (knockctl list import)",
};

/// Files that `knockctl list import` reads: about two million entries.
pub const LIST_ENTRIES: Limit =
    Limit { bytes: 128 * MIB, of: "files of list entries", remedy: "split the file, and import its parts" };

/// Output of `knockctl show lists --json`.
pub const SAVED_LISTS: Limit =
    Limit { bytes: 256 * MIB, of: "saved lists", remedy: "save fewer of them (knockctl show lists LIST --json)" };

/// `knockplane.toml`. A thousand doors take half a megabyte.
pub const CONFIGURATION: Limit =
    Limit { bytes: 4 * MIB, of: "configuration files", remedy: "check that this is the file that you mean" };

/// The configuration of knockd.
pub const KNOCKD: Limit =
    Limit { bytes: 4 * MIB, of: "configurations of knockd", remedy: "check that this is the file that you mean" };

/// Files with tests of rules.
pub const TESTS: Limit =
    Limit { bytes: 16 * MIB, of: "test files", remedy: "split the file: `knockctl test` takes several" };

/// Captures, which are read into memory.
pub const CAPTURE: Limit =
    Limit { bytes: 1024 * MIB, of: "captures", remedy: "split the capture (editcap -c 1000000 IN OUT)" };

/// Profiles of `knocker`.
pub const PROFILES: Limit =
    Limit { bytes: 4 * MIB, of: "files of profiles", remedy: "check that this is the file that you mean" };

/// The line of a shared profile: dozens of the longest passphrases.
pub const SHARED_PROFILE: Limit =
    Limit { bytes: 4 * MIB, of: "shared profiles", remedy: "give the line that `knocker --share` printed" };

/// `/etc/services`.
pub const SERVICES: Limit = Limit { bytes: 16 * MIB, of: "lists of services", remedy: "write the port's number" };

/// All limits, for the manual.
pub const ALL: [Limit; 10] =
    [RULES, LIST_ENTRIES, SAVED_LISTS, CONFIGURATION, KNOCKD, TESTS, CAPTURE, PROFILES, SHARED_PROFILE, SERVICES];

/// The reason that an input is not read. The text continues a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The system refuses to open or read it.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It is a directory.
    #[error("cannot be read: it is a directory; name a file")]
    Directory,
    /// It is longer than its limit, or endless.
    #[error("has more than {0}: {remedy}", remedy = .0.remedy)]
    TooLong(Limit),
    /// It is not UTF-8.
    #[error("is not UTF-8 text: byte {0} cannot be read")]
    NotText(usize),
    /// Another user can change it.
    #[error("is not read: {0}")]
    Untrusted(#[source] TrustError),
}

impl InputError {
    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, InputError::Read(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::IsADirectory => InputError::Directory,
            _ => InputError::Read(error),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB, the limit for {}", self.bytes / MIB, self.of)
    }
}

/// Reads a file, a pipe or a device to its end.
///
/// # Errors
/// If it cannot be opened or read, or is longer than its limit.
pub fn read(file: &Path, limit: &Limit) -> Result<Vec<u8>, InputError> {
    read_from(File::open(file)?, limit)
}

/// As [`read`], for text.
///
/// # Errors
/// As [`read`], or if it is not UTF-8.
pub fn read_text(file: &Path, limit: &Limit) -> Result<String, InputError> {
    text(read(file, limit)?)
}

/// Reads an open file to its end.
///
/// # Errors
/// If it cannot be read, or is longer than its limit.
pub fn read_from(reader: impl Read, limit: &Limit) -> Result<Vec<u8>, InputError> {
    let mut bytes = Vec::new();
    // One byte beyond the limit shows that the input is too long.
    reader.take(limit.bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit.bytes { Err(InputError::TooLong(*limit)) } else { Ok(bytes) }
}

/// Reads a regular file that only root and the user of this process can change, see [`trust`].
///
/// # Errors
/// As [`read`], or if another user can change it.
pub fn read_trusted(file: &Path, limit: &Limit) -> Result<Vec<u8>, InputError> {
    read_from(trust::open(file)?, limit)
}

/// As [`read_trusted`], for text.
///
/// # Errors
/// As [`read_trusted`], or if it is not UTF-8.
pub fn read_trusted_text(file: &Path, limit: &Limit) -> Result<String, InputError> {
    text(read_trusted(file, limit)?)
}

fn text(bytes: Vec<u8>) -> Result<String, InputError> {
    String::from_utf8(bytes).map_err(|error| InputError::NotText(error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limit = Limit { bytes: 3 * MIB, of: "small files", remedy: "split it" };

    #[test]
    fn input_of_its_limit_is_read_and_a_byte_more_is_refused() {
        let bytes = vec![7; 3 << 20];
        assert_eq!(read_from(&bytes[..], &SMALL).unwrap(), bytes);
        let error = read_from(bytes.chain(&[7][..]), &SMALL).unwrap_err().to_string();
        assert_eq!(error, "has more than 3 MiB, the limit for small files: split it");
    }

    #[test]
    fn endless_input_ends() {
        assert!(matches!(read_from(io::repeat(b'y'), &SMALL), Err(InputError::TooLong(_))));
        #[cfg(unix)]
        assert!(matches!(read(Path::new("/dev/zero"), &SMALL), Err(InputError::TooLong(_))));
    }

    #[test]
    fn a_directory_a_missing_file_and_bytes_that_are_not_text_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        assert_eq!(
            read(folder.path(), &SMALL).unwrap_err().to_string(),
            "cannot be read: it is a directory; name a file"
        );
        let file = folder.path().join("file");
        assert!(read(&file, &SMALL).unwrap_err().is_not_found());
        std::fs::write(&file, b"ab\xff").unwrap();
        assert_eq!(read_text(&file, &SMALL).unwrap_err().to_string(), "is not UTF-8 text: byte 2 cannot be read");
    }
}
