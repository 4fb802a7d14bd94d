//! The maximum lengths of lines of the protocol.

/// Maximum length of a line in bytes: two million list entries, each with a comment.
pub const MAX_LINE: usize = 256 << 20;

/// Maximum number of list entries, or of sources at doors, in one answer. As one line they are far below [`MAX_LINE`], and the
/// dataplane finds them in a fraction of a second.
pub const MAX_ANSWER_ENTRIES: usize = 100_000;

/// Maximum length of a request without rules and list entries, in bytes.
pub const MAX_SHORT_LINE: usize = 64 << 10;

/// Maximum length of a request in bytes, by its first bytes: [`MAX_LINE`] for rules, list entries and answers for host
/// names, which begin with their tag; [`MAX_SHORT_LINE`] for all others.
pub fn longest_line(begin: &[u8]) -> usize {
    let mut rest = begin;
    for token in [&b"{"[..], b"\"request\"", b":"] {
        match rest.trim_ascii_start().strip_prefix(token) {
            Some(behind) => rest = behind,
            None => return MAX_SHORT_LINE,
        }
    }
    let rest = rest.trim_ascii_start();
    let long = [&b"\"apply\""[..], b"\"list-add\"", b"\"name-answers\""].iter().any(|tag| rest.starts_with(tag));
    if long { MAX_LINE } else { MAX_SHORT_LINE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Request;

    #[test]
    fn only_rules_and_entries_may_be_long() {
        let long = [
            "{\"request\":\"apply\",\"with\":{",
            " { \"request\" :\t\"list-add\" }",
            &serde_json::to_string(&Request::ListAdd { entries: Vec::new() }).unwrap(),
            &serde_json::to_string(&Request::Apply(Box::default())).unwrap(),
        ];
        for begin in long {
            assert_eq!(longest_line(begin.as_bytes()), MAX_LINE, "{begin}");
        }
        let short = [
            "",
            "{",
            "aaaa",
            "{\"request\":\"status\"}",
            "{\"request\":\"list-flush\"",
            "{\"with\":{},\"request\":\"apply\"}",
            "{\"request\":\"apply",
        ];
        for begin in short {
            assert_eq!(longest_line(begin.as_bytes()), MAX_SHORT_LINE, "{begin}");
        }
    }
}
