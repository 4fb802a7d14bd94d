//! Parsers of property values: durations, ports, addresses, names, and so on.
//!
//! Each function takes the unquoted text and returns a typed value or a [`RscError`] with the expected form, an
//! example, and the part of the text with the error. Nothing is guessed: `5-3`, `+1`, `010.0.0.1` and an empty value
//! are refused. The caller removes a leading `!`.
//!
//! | module       | owns |
//! |--------------|------|
//! | `address`    | addresses of either family, Ethernet addresses |
//! | `header`     | values that are compared with header fields: ports, sizes, flags, options, … |
//! | `connection` | conditions on connections, and the distribution of packets |
//! | `rate`       | token buckets, port scans |
//! | `time`       | timeouts, times of day |
//! | `bytes`      | contents of payloads |
//!
//! This file has the common parts: names, numbers, ranges, words and lists.

mod address;
mod bytes;
mod connection;
mod header;
mod rate;
mod time;

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

pub(super) use self::address::{address_types, addresses, mac_address};
pub(super) use self::bytes::{content, regexp, tls_host};
pub(super) use self::connection::{
    classifier, connection_bytes, connection_limit, connection_rate, connection_states, ipsec_policy, nat_states, nth,
    random,
};
pub(super) use self::header::{
    dscp, fragment, headers, hop_limit, icmp_options, ipv4_options, packet_size, ports, priority, protocol, tcp_flags,
    tcp_mss, tos, ttl,
};
pub(super) use self::rate::{dst_limit, limit, psd};
pub(super) use self::time::{list_timeout, time_of_week};
use super::encoding::readable;
use super::problem::{RscError, show};
use crate::time::digits;
use crate::word::{Set, Word};

/// The result of a value parser.
pub(super) type Parsed<T> = Result<T, RscError>;

/// Bytes as text. `encoding` defines the form of bytes that are not UTF-8.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    readable(bytes)
}

/// Parses a comment, which may be any text.
pub(super) fn comment(bytes: &[u8]) -> String {
    readable(bytes).into_owned()
}

/// Parses the prefix of log lines: as a comment, but without characters that end the line or move the cursor of a
/// terminal.
pub(super) fn log_prefix(bytes: &[u8]) -> Parsed<String> {
    match bytes.iter().position(u8::is_ascii_control) {
        Some(at) => Err(RscError::new("a control character in the prefix of log lines")
            .expected("printable characters")
            .at(at..at + 1)),
        None => Ok(comment(bytes)),
    }
}

/// `yes` or `no`.
pub(super) fn yes_no(value: &str) -> Parsed<bool> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(bad(value, "yes or no").expected("`yes` or `no`")),
    }
}

/// Parses a name. `what` names the kind of object in messages.
pub(super) fn name(value: &str, what: &str) -> Parsed<String> {
    if value.is_empty() {
        return Err(RscError::new(format!("the name of the {what} is empty")).expected("a name"));
    }
    if let Some((at, char)) = value.char_indices().find(|(_, char)| char.is_control()) {
        return Err(RscError::new(format!("a control character in the name of the {what}"))
            .expected("a name of printable characters")
            .at(at..at + char.len_utf8()));
    }
    if value.starts_with('!') {
        return Err(RscError::new(format!("the name of the {what} begins with `!`"))
            .expected("a name")
            .help("`!` negates a condition and cannot begin a name")
            .at(0..1));
    }
    Ok(value.to_owned())
}

/// The name of a chain.
pub(super) fn chain_name(value: &str) -> Parsed<String> {
    name(value, "chain")
}

/// The name of a layer-7 pattern.
pub(super) fn pattern_name(value: &str) -> Parsed<String> {
    name(value, "pattern")
}

/// A name in a value that can also be a list, and therefore a name without a comma.
fn single_name(value: &str, what: &str) -> Parsed<String> {
    match value.find(',') {
        Some(comma) => Err(RscError::new(format!("more than one {what}"))
            .expected(format!("the name of one {what}"))
            .help("write one rule for each of them")
            .at(comma..comma + 1)),
        None => name(value, what),
    }
}

/// The name of an address list.
pub(super) fn list_name(value: &str) -> Parsed<String> {
    single_name(value, "address list")
}

/// The name of an interface or interface list.
pub(super) fn interface_name(value: &str) -> Parsed<String> {
    single_name(value, "interface")
}

/// Parses one word of a kind. `what` names the kind in messages.
pub(super) fn word<T: Word>(value: &str, what: &str) -> Parsed<T> {
    T::from_name(value).ok_or_else(|| not_a_word(value, what, T::ALL))
}

/// The error about a word that is not among these.
pub(super) fn not_a_word<T: Word>(value: &str, what: &str, words: &[T]) -> RscError {
    bad(value, what).expected(one_of(words)).did_you_mean(value, words.iter().map(|word| word.name()))
}

/// A comma list of words of a kind.
pub(super) fn words<T: Word>(value: &str, what: &str) -> Parsed<Set<T>> {
    items(value)
        .map(|(place, item)| word(item, what).map_err(|error: RscError| of_item(item, error).at(place)))
        .collect()
}

/// Parses a list of words separated by commas, or an empty value, which is always true: RouterOS exports `""` for a
/// list without words.
pub(super) fn words_or_none<T: Word>(value: &str, what: &str) -> Parsed<Set<T>> {
    if value.is_empty() { Ok(Set::EMPTY) } else { words(value, what) }
}

/// "`a`, `b` or `c`".
fn one_of<T: Word>(words: &[T]) -> String {
    let names: Vec<String> = words.iter().map(|word| format!("`{}`", word.name())).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Parses a number of digits only, in the range of the type.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    digits(text).and_then(|value| T::try_from(value).ok())
}

/// Parses a number that may end in `k`, `M` or `G`, as in RouterOS's rates: powers of 1,000, not of 1,024.
fn scaled(text: &str) -> Option<u64> {
    let scales = [('k', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let scale = scales.into_iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let (text, scale) = scale.unwrap_or((text, 1));
    number::<u64>(text)?.checked_mul(scale)
}

/// Parses `5` or `5-9`.
pub(crate) fn range<T: TryFrom<u64> + PartialOrd + Copy>(text: &str) -> Option<RangeInclusive<T>> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some(first..=last)
}

/// Whether the value is a reversed range such as `9-5`, which has a separate message.
fn is_reversed(text: &str) -> bool {
    text.split_once('-')
        .is_some_and(|(first, last)| matches!((scaled(first), scaled(last)), (Some(first), Some(last)) if first > last))
}

/// The items of a list separated by commas and their positions; at least one, possibly empty.
fn items(value: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut start = 0;
    value.split(',').map(move |item| {
        let place = start..start + item.len();
        start = place.end + 1;
        (place, item)
    })
}

/// The error about an item of a list, which cannot have its own `!`.
fn of_item(item: &str, error: RscError) -> RscError {
    match item.strip_prefix('!') {
        Some(_) => error.help("write the `!` before the whole list, which it negates"),
        None => error,
    }
}

/// The error about an unexpected value: empty, a range in reverse, or another.
fn bad(value: &str, what: &str) -> RscError {
    if value.is_empty() {
        RscError::new("the value is empty")
    } else if is_reversed(value) {
        reversed(value)
    } else {
        RscError::new(format!("`{}` is not {what}", show(value.as_bytes())))
    }
}

fn reversed(value: &str) -> RscError {
    RscError::new(format!("the range `{}` ends before it begins", show(value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::AddressType;

    #[test]
    fn names_are_printable_and_not_negated() {
        assert_eq!(list_name("port scanners"), Ok("port scanners".to_owned()));
        assert_eq!(interface_name("<pppoe-user>"), Ok("<pppoe-user>".to_owned()));
        for text in ["", "a,!b", "!a", "a\nb"] {
            assert!(list_name(text).is_err() && interface_name(text).is_err(), "{text}");
        }
        assert_eq!(text(b"ab\xE1"), "ab\\E1");
    }

    #[test]
    fn prefixes_of_log_lines_are_printable() {
        assert_eq!(log_prefix(b""), Ok(String::new()));
        assert_eq!(log_prefix(b"PING denegado m\xE1s"), Ok("PING denegado m\\E1s".to_owned()));
        assert_eq!(log_prefix(b"a\nb").unwrap_err().part, Some(1..2));
        assert!(log_prefix(b"\x1b[31m").is_err());
    }

    #[test]
    fn the_error_about_a_wrong_word_lists_the_words() {
        assert_eq!(words("local,broadcast", "x").map(|set: Set<AddressType>| set.bits()), Ok(0b110));
        assert_eq!(words_or_none::<AddressType>("", "x"), Ok(Set::EMPTY));
        let error = words::<AddressType>("local,broadcst", "an address type").unwrap_err();
        assert_eq!(error.part, Some(6..14));
        let expected = "`unicast`, `local`, `broadcast`, `multicast` or `blackhole`";
        let message = "`broadcst` is not an address type";
        let told = RscError::new(message).expected(expected).help("did you mean `broadcast`?").at(6..14);
        assert_eq!(error, told);
        for text in ["", "local,", ",local", "local, broadcast", "!local", "Local"] {
            assert!(words::<AddressType>(text, "x").is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_may_be_scaled() {
        assert_eq!(
            (scaled("5"), scaled("5k"), scaled("5M"), scaled("5G")),
            (Some(5), Some(5_000), Some(5_000_000), Some(5_000_000_000))
        );
        for text in ["", "k", "5K", "5m", "5kk", "1.5M", "+5", "-5", " 5", "99999999999G"] {
            assert_eq!(scaled(text), None, "{text}");
        }
    }
}
