//! Words of the language, and sets of them.
//!
//! `words!` defines an enum for a value of RouterOS that is one word of a few, with a variant for each word. Order,
//! names and JSON are stated once. For a value of several words, there is a [`Set`], a bit set.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word of a fixed set.
pub trait Word: Copy + Eq + Hash + fmt::Debug + 'static {
    /// All words. A word's position is its bit in a [`Set`]. A kind of word that is used in sets has at most 16 words.
    const ALL: &'static [Self];

    /// The form of the word in rules.
    fn name(self) -> &'static str;

    /// The word with this text.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.name() == name)
    }
}

/// An enum whose variants are words: `Variant = "text"`.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$meta])* #[serde(rename = $text)] $variant,)+
        }

        impl $crate::word::Word for $name {
            const ALL: &'static [$name] = &[$($name::$variant),+];

            fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }
        }
    };
}
pub(crate) use words;

/// A set of words of one kind, without an order. In JSON it is a list of words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Set<T> {
    bits: u16,
    of: PhantomData<T>,
}

impl<T: Word> Set<T> {
    /// The empty set.
    pub const EMPTY: Set<T> = Set { bits: 0, of: PhantomData };

    /// The words whose positions in [`Word::ALL`] are set in these bits; other bits are ignored.
    pub fn from_bits(bits: u16) -> Set<T> {
        let known = (1_u32 << T::ALL.len()) - 1;
        Set { bits: bits & known as u16, of: PhantomData }
    }

    /// One bit for each word, by its position in [`Word::ALL`].
    pub fn bits(self) -> u16 {
        self.bits
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether the set contains the word.
    pub fn contains(self, word: T) -> bool {
        self.bits & bit(word) != 0
    }

    /// Whether the other set contains all words of this set.
    pub fn is_subset(self, others: Set<T>) -> bool {
        self.bits & !others.bits == 0
    }

    /// Whether the sets share a word.
    pub fn intersects(self, others: Set<T>) -> bool {
        self.bits & others.bits != 0
    }

    /// Adds a word.
    pub fn insert(&mut self, word: T) {
        self.bits |= bit(word);
    }

    /// The words, in the order of [`Word::ALL`].
    pub fn iter(self) -> impl Iterator<Item = T> {
        T::ALL.iter().copied().filter(move |word| self.contains(*word))
    }
}

fn bit<T: Word>(word: T) -> u16 {
    T::ALL.iter().position(|other| *other == word).map_or(0, |place| 1 << place)
}

impl<T: Word> Default for Set<T> {
    fn default() -> Self {
        Set::EMPTY
    }
}

impl<T: Word> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: Word> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(words: I) -> Self {
        words.into_iter().fold(Set::EMPTY, |mut set, word| {
            set.insert(word);
            set
        })
    }
}

impl<T: Word> Serialize for Set<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Word::name))
    }
}

impl<'de, T: Word> Deserialize<'de> for Set<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let word = |name: &String| T::from_name(name).ok_or_else(|| Error::custom(format!("no such word: `{name}`")));
        names.iter().map(word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TcpFlag;

    #[test]
    fn sets_are_lists_of_words_in_json() {
        let set: Set<TcpFlag> = [TcpFlag::Ack, TcpFlag::Syn].into_iter().collect();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["syn","ack"]"#);
        assert_eq!(serde_json::from_str::<Set<TcpFlag>>(r#"["ack","syn"]"#).unwrap(), set);
        assert!(serde_json::from_str::<Set<TcpFlag>>(r#"["ack","sin"]"#).is_err());
        assert_eq!(serde_json::to_string(&TcpFlag::Syn).unwrap(), r#""syn""#);
    }

    #[test]
    fn a_set_contains_the_inserted_words() {
        let set = Set::<TcpFlag>::from_bits(0b1_0001_0010);
        assert_eq!(set.iter().collect::<Vec<_>>(), [TcpFlag::Syn, TcpFlag::Ack]);
        assert!(set.contains(TcpFlag::Ack) && !set.contains(TcpFlag::Fin) && !set.is_empty());
        let ack = Set::from_iter([TcpFlag::Ack]);
        assert!(ack.is_subset(set) && !set.is_subset(ack) && ack.intersects(set));
    }
}
