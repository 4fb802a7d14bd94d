//! Checks whether entries can be stored and shown.

use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::{LONGEST_TIMEOUT, format_duration, is_timeout};
use knockplane_policy::wire::NewEntry;

/// Maximum number of bytes of a comment, so that an answer with many entries fits a line.
const MAX_COMMENT: usize = 1_000;

/// Checks that an entry can be stored and shown.
///
/// # Errors
/// The error and the remedy.
pub(crate) fn check(entry: &NewEntry) -> Result<(), String> {
    let NewEntry { list, address, timeout, comment } = entry;
    check_list_name(list)?;
    if matches!(address, AddressSet::Range(first, _) if first.is_ipv6()) {
        return Err(format!("{address} is a range, and ranges exist for IPv4 only: write prefixes"));
    }
    check_comment(address, comment)?;
    if timeout.is_some_and(|timeout| !is_timeout(timeout)) {
        let longest = format_duration(LONGEST_TIMEOUT);
        return Err(format!("the timeout of {address} is zero or too long: write at most {longest}, or leave it out"));
    }
    Ok(())
}

pub(super) fn check_list_name(list: &str) -> Result<(), String> {
    if list.is_empty() || list.starts_with('!') || list.contains(|char: char| char.is_control() || char == ',') {
        return Err(format!("`{}` is no name of a list: write printable characters without `,`", list.escape_debug()));
    }
    Ok(())
}

pub(super) fn check_comment(address: &AddressSet, comment: &str) -> Result<(), String> {
    if comment.len() > MAX_COMMENT {
        return Err(format!("the comment of {address} has {} bytes: write at most {MAX_COMMENT}", comment.len()));
    }
    Ok(())
}
