//! What a file says, or standard input if the file is called `-`.

use std::io;
use std::path::Path;

use knockplane_limits::input::{self, InputError, Limit};

use super::table::printable;

/// What the file `-` is called.
pub(super) const STANDARD_INPUT: &str = "standard input";

/// The file's name for people, and all of its bytes, if they are no more than `limit` says.
pub(super) fn read(file: &Path, limit: &Limit) -> (String, Result<Vec<u8>, InputError>) {
    if file != Path::new("-") {
        return (printable(&file.display().to_string()), input::read(file, limit));
    }
    (STANDARD_INPUT.to_owned(), input::read_from(io::stdin().lock(), limit))
}
