//! Generates names, comments and bytes, mostly ones that need quotes or are long.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::rsc::encoding::{bytes, readable};

/// Characters, half of which are special in the language.
fn char() -> impl Strategy<Value = char> {
    let special: Vec<char> = " \"\\$?!#;=[]{}(),'~<>%&|^`*@:/+-_.".chars().collect();
    prop_oneof![
        4 => select(special),
        4 => prop::char::range('A', 'z'),
        1 => prop::char::range('0', '9'),
        1 => any::<char>(),
    ]
}

/// Texts of these characters, some of them longer than a line.
fn chars(char: impl Strategy<Value = char> + Clone) -> impl Strategy<Value = String> {
    prop_oneof![16 => vec(char.clone(), 0..12), 1 => vec(char, 0..260)].prop_map(|chars| chars.into_iter().collect())
}

/// Any comment.
pub(super) fn comment() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), chars(char().boxed()), raw()].prop_map(|text| canonical(&text))
}

/// Bytes of another encoding.
fn raw() -> impl Strategy<Value = String> {
    let bytes = vec(prop_oneof![Just(b'\\'), Just(b'E'), Just(b'5'), 0x80..=u8::MAX, b'a'..b'd'], 1..12);
    bytes.prop_map(|bytes| readable(&bytes).into_owned())
}

/// The text in the reader's form, because a generated text may look like an escape.
fn canonical(text: &str) -> String {
    readable(&bytes(text)).into_owned()
}

/// Prefixes of log lines.
pub(super) fn prefix() -> impl Strategy<Value = String> {
    comment().prop_map(|text| text.replace(|char: char| char.is_ascii_control(), " "))
}

/// Any name.
pub(super) fn name() -> impl Strategy<Value = String> {
    let named = prop_oneof![4 => chars(char().boxed()).boxed(), 1 => raw().boxed()].prop_map(|text| {
        let text = text.replace(char::is_control, "\u{e9}");
        canonical(&if text.is_empty() || text.starts_with('!') { format!("a{text}") } else { text })
    });
    prop_oneof![select(vec!["knock1", "two words", "a"]).prop_map(str::to_owned), named]
}

/// A name without a comma, because a comma separates names.
pub(super) fn list_name() -> impl Strategy<Value = String> {
    name().prop_map(|name| name.replace(',', ";"))
}

/// At least one byte, and no `!` first.
pub(super) fn content() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![comment().prop_map(String::into_bytes), vec(any::<u8>(), 0..40)];
    bytes.prop_map(|mut bytes| {
        if bytes.first().is_none_or(|first| *first == b'!') {
            bytes.insert(0, 0);
        }
        bytes
    })
}
