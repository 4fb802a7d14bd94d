//! Patterns over payloads, matched in linear time and without allocation.
//!
//! Each pattern becomes a DFA when the rules are compiled, so a payload that a stranger wrote costs one table lookup a
//! byte and no more. What a pattern means, and what of the payload it sees, is [`knockplane_policy::layer7`].

use knockplane_policy::layer7::{self, BUFFER_LIMIT};
use knockplane_policy::rule::Layer7Pattern;
use regex_automata::Input;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, NFA};

/// How large a pattern's automaton may get, in bytes, and what its construction may take. Passphrases need a few
/// kilobytes, the usual protocol patterns some hundred. A larger limit lets one pattern push everything else out of the
/// cache; a smaller one refuses patterns that people have.
pub const SIZE_LIMIT: usize = 1 << 20;

/// Why a pattern cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no regular expression.
    #[error("{0}")]
    Syntax(String),
    /// Its automaton is too large.
    #[error("its automaton would need more than {SIZE_LIMIT} bytes; use shorter repetitions or fewer wildcards")]
    TooLarge,
}

/// A pattern ready to run.
pub struct Pattern(dense::DFA<Vec<u32>>);

impl Pattern {
    /// Builds the automaton.
    ///
    /// # Errors
    /// If the expression does not parse, or becomes larger than [`SIZE_LIMIT`].
    pub fn compile(pattern: &Layer7Pattern) -> Result<Pattern, PatternError> {
        let parsed = layer7::parse(&pattern.regexp).map_err(PatternError::Syntax)?;
        let nfa: NFA = thompson::Compiler::new()
            .configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(SIZE_LIMIT)))
            .build_from_hir(&parsed)
            .map_err(|error| match error.size_limit() {
                Some(_) => PatternError::TooLarge,
                None => PatternError::Syntax(error.to_string()),
            })?;
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(SIZE_LIMIT))
            .determinize_size_limit(Some(SIZE_LIMIT));
        let built = dense::Builder::new().configure(config).build_from_nfa(&nfa);
        built.map(Pattern).map_err(|error| match error.is_size_limit_exceeded() {
            true => PatternError::TooLarge,
            false => PatternError::Syntax(error.to_string()),
        })
    }

    /// Whether the pattern is anywhere in the buffer.
    pub fn matches(&self, buffer: &[u8]) -> bool {
        // An error would mean that the automaton gave up on a byte, which it does only for Unicode word boundaries.
        let found = self.0.try_search_fwd(&Input::new(buffer).earliest(true));
        found.is_ok_and(|end| end.is_some())
    }
}

/// Memory of one worker for the buffer that patterns see.
pub struct Scratch {
    bytes: [u8; BUFFER_LIMIT],
    /// How much of it holds the current payload, if that had to be copied.
    copied: Option<usize>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { bytes: [0; BUFFER_LIMIT], copied: None }
    }
}

impl Scratch {
    /// The next payload is another one.
    pub fn clear(&mut self) {
        self.copied = None;
    }

    /// What patterns see of the payload: its bytes without NULs, up to the limit. Copied only if there are NULs.
    pub fn buffer<'a>(&'a mut self, payload: &'a [u8]) -> &'a [u8] {
        let start = &payload[..payload.len().min(BUFFER_LIMIT)];
        if self.copied.is_none() && !start.contains(&0) {
            return start;
        }
        let Scratch { bytes, copied } = self;
        let length = *copied.get_or_insert_with(|| {
            let kept = payload.iter().filter(|byte| **byte != 0);
            bytes.iter_mut().zip(kept).map(|(to, from)| *to = *from).count()
        });
        &bytes[..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(regexp: &str) -> Layer7Pattern {
        Layer7Pattern { name: "knock".into(), regexp: regexp.into(), comment: String::new(), line: 0 }
    }

    const PATTERNS: [&str; 8] =
        ["^knock$", "kn.?ock", r"^\x16[\x03]..", "a+b|c$", "", r"\bword\b", "(?-i)Case", r"^[^\n]*\xff"];

    proptest! {
        #[test]
        fn patterns_mean_what_policy_says(
            payload in prop::collection::vec(
                prop_oneof![Just(0_u8), Just(b'\n'), prop::sample::select(b"knockKNOCKabcword Case".to_vec()), any::<u8>()],
                0..40,
            ),
            repeats in prop_oneof![4 => Just(1_usize), 1 => 2..200_usize],
        ) {
            let payload = payload.repeat(repeats);
            let mut scratch = Scratch::default();
            for regexp in PATTERNS {
                let compiled = Pattern::compile(&pattern(regexp)).unwrap();
                prop_assert_eq!(compiled.matches(scratch.buffer(&payload)), layer7::matches(regexp, &payload), "{}", regexp);
            }
        }
    }

    #[test]
    fn the_buffer_ends_after_2048_bytes_that_are_not_nul() {
        let mut scratch = Scratch::default();
        assert_eq!(scratch.buffer(&[b'a'; 3000]), [b'a'; 2048]);
        let behind = [&[0; 5000][..], &[b'b'; 2049]].concat();
        assert_eq!(scratch.buffer(&behind), [b'b'; 2048]);
        assert_eq!(scratch.buffer(&behind), [b'b'; 2048]);
        scratch.clear();
        assert_eq!(scratch.buffer(b"c\0d"), b"cd");
        scratch.clear();
        assert_eq!(scratch.buffer(b""), b"");
    }

    #[test]
    fn a_pattern_that_explodes_is_refused_and_says_the_limit() {
        for regexp in ["(a|b)*a(a|b){20}", "((a{100}){100}){100}", "x.{1,1000}y"] {
            let Err(error) = Pattern::compile(&pattern(regexp)) else { panic!("{regexp} compiled") };
            assert_eq!(error, PatternError::TooLarge);
            assert!(error.to_string().contains("1048576 bytes"));
        }
        assert!(matches!(Pattern::compile(&pattern("(")), Err(PatternError::Syntax(_))));
    }
}
