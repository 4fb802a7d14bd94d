//! Contents of payloads.

use super::super::problem::Complaint;
use super::{Parsed, bad};
use crate::rule::{Bytes, Condition};

/// Parses a content: any bytes, at least one.
pub(in crate::rsc) fn content(bytes: &[u8]) -> Parsed<Condition> {
    if bytes.is_empty() {
        return Err(Complaint::new("the value is empty")
            .expected("text or bytes of the payload")
            .help("every packet matches an empty value: leave `content` out instead"));
    }
    Ok(Condition::Content(Bytes(bytes.to_vec())))
}

/// The expression of a pattern, in which every byte above 0x7f is `\xHH`, so that it matches this byte and not a
/// character.
pub(in crate::rsc) fn regexp(bytes: &[u8]) -> Parsed<String> {
    if bytes.is_empty() {
        return Err(Complaint::new("the pattern is empty")
            .expected("a regular expression such as `\"^secret\\$\"`")
            .help("an empty pattern would match every packet"));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Complaint::new("a pattern cannot contain a NUL byte")
            .help("NULs are removed from payloads before matching: leave it out")
            .at(at..at + 1));
    }
    let mut regexp = String::new();
    let mut escaped = false;
    for byte in bytes {
        match (byte.is_ascii(), escaped) {
            (true, _) => regexp.push(char::from(*byte)),
            (false, false) => regexp.push_str(&format!("\\x{byte:02X}")),
            // There is a backslash before the byte already.
            (false, true) => regexp.push_str(&format!("x{byte:02X}")),
        }
        escaped = *byte == b'\\' && !escaped;
    }
    Ok(regexp)
}

/// Parses the name of a server with `*` and `?`. Characters that a name cannot have are refused, in particular
/// brackets: such a literal would never match, and after `!` always.
pub(in crate::rsc) fn tls_host(value: &str) -> Parsed<Condition> {
    const EXPECTED: &str = "a server's name such as `www.example.com` or `*.example.com`";
    let of_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_' | '*' | '?');
    match value.char_indices().find(|(_, char)| !of_name(*char)) {
        None if value.is_empty() => Err(bad(value, "a server's name").expected(EXPECTED)),
        None => Ok(Condition::TlsHost(value.to_owned())),
        Some((at, char)) => Err(Complaint::new(format!("`{}` cannot be in a server's name", char.escape_debug()))
            .expected(EXPECTED)
            .at(at..at + char.len_utf8())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_patterns_mean_themselves() {
        assert_eq!(regexp(b"^a\\x13$"), Ok("^a\\x13$".to_owned()));
        assert_eq!(regexp(b"\xE1\xC3\xA9"), Ok("\\xE1\\xC3\\xA9".to_owned()));
        assert_eq!(regexp(b"\\\xE1\\\\\xE1"), Ok("\\xE1\\\\\\xE1".to_owned()));
        assert!(regexp(b"").is_err());
        assert!(regexp(b"a\0").is_err());
    }

    #[test]
    fn contents_are_any_bytes() {
        assert_eq!(content(b"a\0\xE1"), Ok(Condition::Content(Bytes(b"a\0\xE1".to_vec()))));
        assert!(content(b"").is_err());
    }

    #[test]
    fn servers_have_names_of_letters_digits_and_wildcards() {
        for text in ["www.example.com", "*.example.com", "*", "a?c-d_e", "xn--bcher-kva.example"] {
            assert_eq!(tls_host(text), Ok(Condition::TlsHost(text.to_owned())));
        }
        assert_eq!(tls_host("*.[ab].com").unwrap_err().part, Some(2..3));
        assert!(["", "a b", "bücher.example", "a,b", "a\\.b", "https://a"].iter().all(|text| tls_host(text).is_err()));
    }
}
