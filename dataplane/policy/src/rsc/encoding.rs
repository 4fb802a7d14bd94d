//! Conversion between bytes and text: names, comments and prefixes in any encoding, and files in UTF-16.
//!
//! RouterOS stores names and comments as bytes, in the encoding of the operator's program. This module converts them to
//! text, which JSON, logs and command lines need. A byte that is not UTF-8 becomes an escape as in exports, `\E1`. A
//! `\` that would look like the beginning of such an escape becomes `\5C`. The conversion is reversible.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The bytes as text.
pub(super) fn readable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\\') => return Cow::Borrowed(text),
        _ => {}
    }
    let mut readable = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        for (at, char) in text.char_indices() {
            readable.push(char);
            if char == '\\' && escape(&text.as_bytes()[at..]).is_some() {
                readable.push_str("5C");
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(readable, "\\{byte:02X}");
        }
    }
    Cow::Owned(readable)
}

/// The bytes of a text.
pub(super) fn bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('\\') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        match escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    Cow::Owned(bytes)
}

/// The byte of an escape at the beginning.
fn escape(text: &[u8]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let [b'\\', high, low, ..] = text else { return None };
    let byte = digit(*high)? << 4 | digit(*low)?;
    (byte >= 0x80 || byte == b'\\').then_some(byte)
}

/// The text of a file in UTF-8: unchanged, or converted from UTF-16 if it has a byte order mark. PowerShell's `>`
/// writes such files.
pub fn utf8(file: &[u8]) -> Cow<'_, [u8]> {
    let (rest, unit): (_, fn([u8; 2]) -> u16) = match file {
        [0xFF, 0xFE, rest @ ..] => (rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => (rest, u16::from_be_bytes),
        _ => return Cow::Borrowed(file),
    };
    // An odd byte at the end is half of a truncated character.
    let units = rest.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or(0xFF)]));
    let text: String = char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Cow::Owned(text.into_bytes())
}

/// Whether a file looks like UTF-16 without a byte order mark: every second one of its first bytes is 0.
pub(super) fn is_unmarked_utf16(file: &[u8]) -> bool {
    const LOOKED_AT: usize = 64;
    let begin = &file[..file.len().min(LOOKED_AT)];
    let zeros = |odd: usize| begin.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    begin.len() >= 8 && even.max(odd) >= begin.len() * 2 / 5 && even.min(odd) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cases::cases;

    #[test]
    fn bytes_that_are_not_utf8_are_escaped_as_in_exports() {
        for (raw, text) in [
            (&b"administra\xE7\xE3o"[..], "administra\\E7\\E3o"),
            ("café".as_bytes(), "café"),
            (b"a\\b", "a\\b"),
            (b"a\\E1", "a\\5CE1"),
            (b"\\5C", "\\5C5C"),
            (b"\\\xE1\\41", "\\\\E1\\41"),
            (b"", ""),
        ] {
            assert_eq!(readable(raw), text);
            assert_eq!(bytes(text), raw);
        }
    }

    #[test]
    fn files_of_utf16_are_read_by_their_mark() {
        let text = "add comment=\"é𝄞\"\r\n";
        let little: Vec<u8> = [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let big: Vec<u8> = [0xFE, 0xFF].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!(utf8(&little), text.as_bytes());
        assert_eq!(utf8(&big), text.as_bytes());
        assert_eq!(utf8(text.as_bytes()), text.as_bytes());
        assert!(utf8(&little[..little.len() - 1]).ends_with("\u{FF0A}".as_bytes()));
    }

    proptest! {
        #![proptest_config(cases(2_000))]

        #[test]
        fn the_conversion_of_any_bytes_is_reversible(raw in proptest::collection::vec(
            prop_oneof![Just(b'\\'), Just(b'5'), Just(b'C'), Just(b'E'), any::<u8>()], 0..20)) {
            let text = readable(&raw);
            prop_assert_eq!(bytes(&text), &raw[..]);
        }
    }
}
