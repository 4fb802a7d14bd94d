//! What a file says, or standard input if the file is called `-`.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::table::printable;

/// What the file `-` is called.
pub(super) const STANDARD_INPUT: &str = "standard input";

/// The file's name for people, and all of its bytes.
pub(super) fn read(file: &Path) -> (String, io::Result<Vec<u8>>) {
    if file != Path::new("-") {
        return (printable(&file.display().to_string()), fs::read(file));
    }
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes);
    (STANDARD_INPUT.to_owned(), read.map(|_| bytes))
}
