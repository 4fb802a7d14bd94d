//! Quotes and escapes.

use super::value::Value;

/// Characters that are written unchanged between quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rsc) enum Alphabet {
    /// Printable ASCII, as in exports.
    Ascii,
    /// Every printable character, for terminals and pages.
    Any,
}

/// The written form of a value after the `=`. The `!` of a negated value is inside the quotes.
pub(super) fn written(negated: bool, value: &Value, alphabet: Alphabet) -> String {
    let not = if negated { "!" } else { "" };
    let (bytes, marks) = match value {
        Value::Text(bytes) => (bytes.as_slice(), &b""[..]),
        Value::Code(bytes) => (bytes.as_slice(), &b",!"[..]),
    };
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:/@*+-".contains(byte) || marks.contains(byte);
    let escaped = escaped(bytes, alphabet);
    if !bytes.is_empty() && bytes.iter().all(is_bare) {
        format!("{not}{escaped}")
    } else {
        format!("\"{not}{escaped}\"")
    }
}

/// The written form of a value between quotes.
fn escaped(bytes: &[u8], alphabet: Alphabet) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_ascii() || char.is_control() || alphabet == Alphabet::Ascii {
                char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape(byte, &mut text));
            } else {
                text.push(char);
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(*byte, &mut text));
    }
    text
}

fn escape(byte: u8, text: &mut String) {
    match byte {
        b'"' | b'\\' | b'$' | b'?' => text.extend(['\\', char::from(byte)]),
        b'\n' => text.push_str("\\n"),
        b'\r' => text.push_str("\\r"),
        b'\t' => text.push_str("\\t"),
        b' '..=b'~' => text.push(char::from(byte)),
        _ => text.push_str(&format!("\\{byte:02X}")),
    }
}

/// The written form in pieces between which a line may be broken: an escape is one piece.
pub(in crate::rsc) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let length = match text.as_bytes() {
            [] => return None,
            [b'\\', b'0'..=b'9' | b'A'..=b'F', ..] => 3,
            [b'\\', ..] => 2,
            _ => text.chars().next().map_or(1, char::len_utf8),
        };
        let (piece, rest) = text.split_at(length.min(text.len()));
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_where_routeros_puts_them() {
        let text = |text: &str| written(false, &Value::text(text), Alphabet::Ascii);
        for bare in ["knock1", "port:3001", "----------------BGP", "*.example.com", "a@b", "192.0.2.0/24", "+1"] {
            assert_eq!(text(bare), bare);
        }
        for (plain, quoted) in [
            ("", r#""""#),
            ("port scanners", r#""port scanners""#),
            ("a,b", r#""a,b""#),
            ("!a", r#""!a""#),
            ("it's", r#""it's""#),
            (r#"say "a\b" for $1?"#, r#""say \"a\\b\" for \$1\?""#),
            ("a\r\n\tb\u{7}", r#""a\r\n\tb\07""#),
            ("café", r#""caf\C3\A9""#),
        ] {
            assert_eq!(text(plain), quoted);
        }
        assert_eq!(written(true, &Value::text("friends"), Alphabet::Ascii), "!friends");
        assert_eq!(written(true, &Value::text("my friends"), Alphabet::Ascii), "\"!my friends\"");
        assert_eq!(written(false, &Value::Code(b"fin,!syn".to_vec()), Alphabet::Ascii), "fin,!syn");
        assert_eq!(written(false, &Value::Text(b"caf\xE9".to_vec()), Alphabet::Any), r#""caf\E9""#);
        assert_eq!(written(false, &Value::text("café\u{85}\u{1b}"), Alphabet::Any), r#""café\C2\85\1B""#);
    }

    #[test]
    fn escapes_are_in_one_piece() {
        assert_eq!(pieces(r#"a\C3\"é\nb\"#).collect::<Vec<_>>(), ["a", r"\C3", r#"\""#, "é", r"\n", "b", r"\"]);
    }
}
