//! Reads a file, or standard input for the name `-`.

use std::io;
use std::path::Path;

use knockplane_limits::input::{self, InputError, Limit};

use super::table::printable;

/// The name of the file `-` in messages.
pub(super) const STANDARD_INPUT: &str = "standard input";

/// The name of the file for messages, and its content up to the limit.
pub(super) fn read(file: &Path, limit: &Limit) -> (String, Result<Vec<u8>, InputError>) {
    if file != Path::new("-") {
        return (printable(&file.display().to_string()), input::read(file, limit));
    }
    (STANDARD_INPUT.to_owned(), input::read_from(io::stdin().lock(), limit))
}
