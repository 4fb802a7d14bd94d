//! Patterns over payloads, all matched at once, in linear time and without allocation.
//!
//! The compiler of rules turns the patterns of a table into one DFA. A byte from an untrusted source therefore costs
//! one table lookup for any number of patterns. Between packets, a connection keeps a state and not the bytes. Patterns
//! whose common DFA would be too large become up to four DFAs. [`knockplane_policy::layer7`] defines the meaning of a
//! pattern, and the part of a payload that patterns see.

use knockplane_policy::layer7::{self, BUFFER_LIMIT, PACKET_LIMIT};
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

/// The maximum size of the automaton of one pattern, in bytes, and the limit for its construction. Passphrases need a
/// few kilobytes, the usual protocol patterns some hundred. A larger limit lets one pattern evict everything else from
/// the processor's cache. A smaller limit refuses patterns that are in use.
pub const SIZE_LIMIT: usize = 1 << 20;

/// The same limit for several patterns together.
const TOGETHER_LIMIT: usize = 4 << 20;

/// The maximum number of automata. Each costs one lookup for each byte, and one state for each connection.
const MOST_AUTOMATA: usize = 4;

/// The maximum number of patterns: one bit each.
pub const MOST_PATTERNS: usize = 128;

/// The reason that a pattern cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern is not a regular expression.
    #[error("{0}")]
    Syntax(String),
    /// The automaton of the pattern is too large.
    #[error("its automaton would need more than {SIZE_LIMIT} bytes; use shorter repetitions or fewer wildcards")]
    TooLarge,
    /// The automata of all patterns up to this one are too large.
    #[error("with the patterns before it, it would need more than {MOST_AUTOMATA} automata of {TOGETHER_LIMIT} bytes")]
    TooLargeTogether,
    /// There are too many patterns.
    #[error("at most {MOST_PATTERNS} patterns can be matched at once")]
    TooMany,
}

/// A set of patterns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatternSet(u128);

impl PatternSet {
    /// Whether the set contains the pattern at this position.
    pub const fn contains(self, pattern: usize) -> bool {
        pattern < MOST_PATTERNS && self.0 >> pattern & 1 == 1
    }
}

/// Compiled patterns.
#[derive(Default)]
pub struct Patterns {
    automata: Vec<Group>,
    /// A set with all patterns.
    all: PatternSet,
}

/// The patterns of one automaton.
struct Group {
    dfa: dense::DFA<Vec<u32>>,
    start: StateID,
    /// The position of the first pattern of the group among all patterns.
    first: usize,
}

/// The state of the automata after the bytes so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    states: [u32; MOST_AUTOMATA],
    /// The number of bytes and packets so far.
    bytes: u16,
    packets: u8,
    pub(crate) found: PatternSet,
}

impl Progress {
    /// A state that ignores all further bytes.
    pub(crate) fn over() -> Progress {
        Progress { packets: PACKET_LIMIT as u8, ..Progress::default() }
    }
}

impl Patterns {
    /// Builds the automata.
    ///
    /// # Errors
    /// The positions of all patterns that cannot run, and the reasons. If there are too many patterns, or if they are
    /// too large together, the error names the first such pattern.
    pub fn compile(regexps: &[&str]) -> Result<Patterns, Vec<(usize, PatternError)>> {
        if regexps.len() > MOST_PATTERNS {
            return Err(vec![(MOST_PATTERNS, PatternError::TooMany)]);
        }
        let (mut parsed, mut errors) = (Vec::new(), Vec::new());
        for (position, regexp) in regexps.iter().enumerate() {
            // Compile each pattern alone first, so that the error names the pattern.
            match layer7::parse(regexp).map_err(PatternError::Syntax).and_then(|hir| {
                build(std::slice::from_ref(&hir), SIZE_LIMIT)?;
                Ok(hir)
            }) {
                Ok(hir) => parsed.push(hir),
                Err(error) => errors.push((position, error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut automata = Vec::new();
        group(&parsed, 0, TOGETHER_LIMIT, &mut automata).map_err(|error| vec![error])?;
        if let Some(group) = automata.get(MOST_AUTOMATA) {
            return Err(vec![(group.first, PatternError::TooLargeTogether)]);
        }
        let all = parsed.iter().enumerate().fold(0, |all, (position, _)| all | 1 << position);
        Ok(Patterns { automata, all: PatternSet(all) })
    }

    /// The patterns that match this payload alone.
    pub fn alone(&self, payload: &[u8]) -> PatternSet {
        let mut progress = self.begin();
        self.go_on(&mut progress, payload);
        progress.found
    }

    /// The state before the first byte.
    pub(crate) fn begin(&self) -> Progress {
        let mut progress = Progress::default();
        for (state, group) in progress.states.iter_mut().zip(&self.automata) {
            *state = group.start.as_u32();
        }
        progress
    }

    /// Adds the payload of one more packet.
    pub(crate) fn go_on(&self, progress: &mut Progress, payload: &[u8]) {
        if u64::from(progress.packets) == PACKET_LIMIT {
            return;
        }
        progress.packets += 1;
        let room = BUFFER_LIMIT - usize::from(progress.bytes);
        let mut taken = 0;
        for (group, kept) in self.automata.iter().zip(&mut progress.states) {
            // The state comes from this function or from `begin`, so it belongs to the automaton. A state that does not
            // belong to the automaton matches nothing.
            let Ok(mut state) = StateID::new(*kept as usize) else { continue };
            taken = 0;
            for byte in payload.iter().filter(|byte| **byte != 0).take(room) {
                taken += 1;
                state = group.dfa.next_state(state, *byte);
                if group.dfa.is_special_state(state) {
                    group.note(state, &mut progress.found);
                }
            }
            group.note(group.dfa.next_eoi_state(state), &mut progress.found);
            *kept = state.as_u32();
            if progress.found == self.all {
                break;
            }
        }
        progress.bytes += taken;
    }
}

impl Patterns {
    /// Adds one byte of a word. Patterns match the word as a whole.
    pub(crate) fn spell(&self, progress: &mut Progress, byte: u8) {
        for (group, kept) in self.automata.iter().zip(&mut progress.states) {
            let Ok(state) = StateID::new(*kept as usize) else { continue };
            *kept = group.dfa.next_state(state, byte).as_u32();
        }
    }

    /// The patterns that match the word up to its end.
    pub(crate) fn spelt(&self, progress: &Progress) -> PatternSet {
        let mut found = PatternSet::default();
        for (group, kept) in self.automata.iter().zip(progress.states) {
            let Ok(state) = StateID::new(kept as usize) else { continue };
            group.note(group.dfa.next_eoi_state(state), &mut found);
        }
        found
    }
}

impl Group {
    /// Adds the patterns that match in this state to `found`.
    fn note(&self, state: StateID, found: &mut PatternSet) {
        if self.dfa.is_match_state(state) {
            for index in 0..self.dfa.match_len(state) {
                found.0 |= 1 << (self.first + self.dfa.match_pattern(state, index).as_usize());
            }
        }
    }
}

/// Builds one automaton for all patterns, or two if one is too large, and so on.
fn group(patterns: &[Hir], first: usize, limit: usize, groups: &mut Vec<Group>) -> Result<(), (usize, PatternError)> {
    if patterns.is_empty() || groups.len() > MOST_AUTOMATA {
        return Ok(());
    }
    match build(patterns, limit) {
        Ok((dfa, start)) => {
            groups.push(Group { dfa, start, first });
            Ok(())
        }
        Err(PatternError::TooLarge) if patterns.len() > 1 => {
            let (one, other) = patterns.split_at(patterns.len() / 2);
            group(one, first, limit, groups)?;
            group(other, first + one.len(), limit, groups)
        }
        Err(error) => Err((first, error)),
    }
}

fn build(patterns: &[Hir], limit: usize) -> Result<(dense::DFA<Vec<u32>>, StateID), PatternError> {
    let nfa: NFA = thompson::Compiler::new()
        .configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(limit)))
        .build_many_from_hir(patterns)
        .map_err(|error| match error.size_limit() {
            Some(_) => PatternError::TooLarge,
            None => PatternError::Syntax(error.to_string()),
        })?;
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Unanchored)
        .dfa_size_limit(Some(limit))
        .determinize_size_limit(Some(limit));
    let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|error| {
        if error.is_size_limit_exceeded() { PatternError::TooLarge } else { PatternError::Syntax(error.to_string()) }
    })?;
    let start = dfa
        .start_state(&start::Config::new().anchored(Anchored::No))
        .map_err(|error| PatternError::Syntax(error.to_string()))?;
    Ok((dfa, start))
}

/// The patterns and server names that rules match payloads against.
#[derive(Default)]
pub(crate) struct PayloadMatchers {
    /// The same for the same patterns and names in the same order, and never 0. Inspection state with another id is
    /// void.
    pub(crate) id: u64,
    pub(crate) patterns: Patterns,
    pub(crate) names: Patterns,
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    const PATTERNS: [&str; 8] =
        ["^knock$", "kn.?ock", r"^\x16[\x03]..", "a+b|c$", "", r"\bword\b", "(?-i)Case", r"^[^\n]*\xff"];

    /// Built once: the build takes longer than the matches.
    static COMPILED: LazyLock<Patterns> = LazyLock::new(|| Patterns::compile(&PATTERNS).unwrap());

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![Just(0_u8), Just(b'\n'), prop::sample::select(b"knockKNOCKabcword Case".to_vec()), any::<u8>()];
        (prop::collection::vec(byte, 0..40), prop_oneof![4 => Just(1_usize), 1 => 2..200_usize])
            .prop_map(|(bytes, repeats)| bytes.repeat(repeats))
    }

    fn errors(regexps: &[&str]) -> Vec<(usize, PatternError)> {
        Patterns::compile(regexps).err().unwrap_or_else(|| panic!("{regexps:?} compiled"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn patterns_mean_what_policy_says(payload in bytes()) {
            let found = COMPILED.alone(&payload);
            for (position, regexp) in PATTERNS.iter().enumerate() {
                prop_assert_eq!(found.contains(position), layer7::matches(regexp, &payload), "{}", regexp);
            }
        }

        #[test]
        fn packets_are_one_buffer_that_is_looked_at_after_each(packets in prop::collection::vec(bytes(), 0..13)) {
            let mut progress = COMPILED.begin();
            let (mut buffer, mut expected) = (Vec::new(), [false; PATTERNS.len()]);
            for (number, payload) in packets.iter().enumerate() {
                COMPILED.go_on(&mut progress, payload);
                if (number as u64) < PACKET_LIMIT {
                    buffer.extend(payload.iter().filter(|byte| **byte != 0));
                    buffer.truncate(BUFFER_LIMIT);
                    for (found, regexp) in expected.iter_mut().zip(PATTERNS) {
                        *found |= layer7::matches(regexp, &buffer);
                    }
                }
                let found = std::array::from_fn(|position| progress.found.contains(position));
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_pattern_that_explodes_is_named_and_says_the_limit() {
        for regexp in ["(a|b)*a(a|b){20}", "((a{100}){100}){100}", "x.{1,1000}y"] {
            let told = errors(&["fine", regexp]);
            assert_eq!(told, [(1, PatternError::TooLarge)], "{regexp}");
            assert!(told[0].1.to_string().contains("1048576 bytes"));
        }
        assert!(matches!(errors(&["("])[..], [(0, PatternError::Syntax(_))]));
        assert!(matches!(errors(&["(", "fine", ")"])[..], [(0, _), (2, _)]), "all are told at once");
    }

    #[test]
    fn many_patterns_are_one_automaton_or_few() {
        let passphrases: Vec<String> = (0..MOST_PATTERNS).map(|number| format!("^passphrase {number}$")).collect();
        let passphrases: Vec<&str> = passphrases.iter().map(String::as_str).collect();
        let patterns = Patterns::compile(&passphrases).unwrap();
        assert_eq!(patterns.automata.len(), 1);
        assert_eq!(patterns.alone(b"PASSPHRASE 127"), PatternSet(1 << 127));
        assert_eq!(errors(&[passphrases.as_slice(), &["x"]].concat()), [(128, PatternError::TooMany)]);

        // Each pattern multiplies the size of the others.
        let gaps = ["a.{8}b", "c.{8}d", "e.{8}f"].map(|regexp| layer7::parse(regexp).unwrap());
        let mut automata = Vec::new();
        group(&gaps, 0, 1 << 19, &mut automata).unwrap();
        assert_eq!(automata.len(), 3);
        let patterns = Patterns { automata, all: PatternSet(0b111) };
        assert_eq!(patterns.alone(b"e12345678f c12345678d"), PatternSet(0b110));
    }
}
