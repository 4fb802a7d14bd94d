//! Rows of the index during its construction.

use hashbrown::HashMap;

/// The start of a row in the words of the index.
pub(super) type Row = u32;

/// The number of bits in a word.
pub(super) const BITS: usize = u64::BITS as usize;

/// Builds rows. Equal rows are stored once.
pub(super) struct RowBuilder {
    pub(super) words: Vec<u64>,
    pub(super) summary: usize,
    most_words: usize,
    known: HashMap<Box<[u64]>, Row>,
}

/// The words of a row, without the summary.
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    pub(super) fn set(&mut self, rule: usize, set: bool) {
        let bit = 1 << (rule % BITS);
        let word = &mut self.0[rule / BITS];
        *word = if set { *word | bit } else { *word & !bit };
    }
}

impl RowBuilder {
    pub(super) fn new(rules: usize, most_words: usize) -> RowBuilder {
        let words = rules.div_ceil(BITS).max(1);
        RowBuilder { words: Vec::new(), summary: words.div_ceil(BITS), most_words, known: HashMap::new() }
    }

    pub(super) fn bits(&self, rules: impl ExactSizeIterator<Item = bool>) -> Bits {
        let mut bits = Bits(vec![0; rules.len().div_ceil(BITS).max(1)].into());
        for (rule, set) in rules.enumerate() {
            bits.set(rule, set);
        }
        bits
    }

    /// Adds the row with these bits. `None` if there is no room.
    pub(super) fn insert(&mut self, bits: &Bits) -> Option<Row> {
        if let Some(row) = self.known.get(&bits.0) {
            return Some(*row);
        }
        if self.words.len() + self.summary + bits.0.len() > self.most_words {
            return None;
        }
        Some(self.push(bits))
    }

    /// As `insert`, for the few rows that every index has.
    pub(super) fn row(&mut self, rules: impl ExactSizeIterator<Item = bool>) -> Row {
        let bits = self.bits(rules);
        match self.known.get(&bits.0) {
            Some(row) => *row,
            None => self.push(&bits),
        }
    }

    fn push(&mut self, bits: &Bits) -> Row {
        let row = self.words.len() as Row;
        for words in bits.0.chunks(BITS) {
            let whole = words.iter().enumerate().filter(|(_, word)| **word != 0);
            self.words.push(whole.fold(0, |summary, (place, _)| summary | 1 << place));
        }
        self.words.extend(&bits.0);
        self.known.insert(bits.0.clone(), row);
        row
    }
}
