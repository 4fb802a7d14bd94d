//! Layer-7 matching as RouterOS defines it: the part of a payload that is inspected, and the meaning of a pattern.
//!
//! The buffer is the payload without its NULs, at most 2 KB. ASCII letters match in either case, `.` matches every
//! byte, and `^` and `$` match the two ends of the buffer. Source: RouterOS manual, Layer7.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;

/// Bytes of a payload that are inspected.
pub const BUFFER_LIMIT: usize = 2048;

/// Number of packets of a connection that are inspected, in both directions together, if connections are tracked.
pub const PACKET_LIMIT: u64 = 10;

/// The parsed form of a pattern, with RouterOS's meaning. Every matcher in the project is built from it.
///
/// # Errors
/// The error in the expression, with the message of the regex library.
pub fn parse(regexp: &str) -> Result<Hir, String> {
    ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .build()
        .parse(regexp)
        .map_err(|error| error.to_string())
}

/// Matches a pattern against a payload, for the reference evaluator and for tools. Builds the matcher for each call. A
/// pattern that does not parse matches nothing.
pub fn matches(regexp: &str, payload: &[u8]) -> bool {
    let buffer: Vec<u8> = payload.iter().copied().filter(|byte| *byte != 0).take(BUFFER_LIMIT).collect();
    regex::bytes::RegexBuilder::new(regexp)
        .unicode(false)
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .build()
        .is_ok_and(|regex| regex.is_match(&buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_matches_only_whole_in_any_case_with_or_without_nuls() {
        let pattern = "^supersecretpassword1$";
        assert!(matches(pattern, b"supersecretpassword1"));
        assert!(matches(pattern, b"SuperSecretPassword1"));
        assert!(matches(pattern, b"super\0secretpassword1\0"));
        assert!(!matches(pattern, b"supersecretpassword1\n"));
        assert!(!matches(pattern, b" supersecretpassword1"));
        assert!(!matches(pattern, b"supersecretpassword2"));
        assert!(!matches(pattern, b""));
    }

    #[test]
    fn bytes_beyond_ascii_and_newlines_are_ordinary() {
        assert!(matches(r"^\xE1.\x01$", b"\xe1\n\x01"));
        assert!(!matches("^b$", b"a\nb"));
    }

    #[test]
    fn a_broken_pattern_is_an_error_and_matches_nothing() {
        assert!(parse("(").is_err());
        assert!(!matches("(", b"("));
        assert!(parse("^a$").is_ok());
    }
}
