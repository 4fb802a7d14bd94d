//! One field of a packet, and the candidate rules of each of its values.
//!
//! The values of a field form classes: within a class, every rule that tests the field gives the same answer. A class
//! has a row, which has a bit for each rule that the values of the class can match. Rules that do not test the field
//! are in every row.

use hashbrown::HashMap;

use super::rows::{Row, RowBuilder};
use crate::state::range_tree::{Number, Tree};

/// The values of a field that a rule matches: ranges that include both ends. `None` if the rule does not test the
/// field.
pub(super) type Asked<'r, T> = Option<&'r [(T, T)]>;

/// The rows of a field of 16 bits. A lookup takes two loads for any rules.
pub(super) struct PortField {
    /// For each upper byte: the start of its page in `rows`.
    pages: Box<[u32; 256]>,
    /// For each page and lower byte: the row.
    rows: Box<[Row]>,
    /// The row of packets without ports.
    none: Row,
}

impl PortField {
    /// Builds the rows. `asked` yields the ranges of each rule, in order.
    pub(super) fn build(asked: &[Asked<'_, u16>], rows: &mut RowBuilder) -> Option<PortField> {
        let ranges = asked.iter().map(|ranges| ranges.map(|ranges| widen(ranges, u32::from)));
        let ranges: Vec<_> = ranges.collect();
        let classes = classes(&ranges, rows)?;
        let none = rows.row(asked.iter().map(Option::is_none));
        let (mut pages, mut all, mut known) = (Box::new([0; 256]), Vec::new(), HashMap::<Vec<Row>, u32>::new());
        for (high, page) in pages.iter_mut().enumerate() {
            let row = |low: usize| {
                let value = (high << 8 | low) as u32;
                classes[classes.partition_point(|(start, _)| *start <= value) - 1].1
            };
            let its: Vec<Row> = (0..256).map(row).collect();
            *page = *known.entry(its).or_insert_with_key(|its| {
                let begins = all.len() as u32;
                all.extend(its);
                begins
            });
        }
        Some(PortField { pages, rows: all.into(), none })
    }

    /// The row of this port.
    #[inline]
    pub(super) fn row(&self, port: Option<u16>) -> Row {
        let Some(port) = port else { return self.none };
        let [high, low] = port.to_be_bytes();
        let page = self.pages[usize::from(high)];
        self.rows.get(page as usize + usize::from(low)).copied().unwrap_or(self.none)
    }
}

/// The rows of an address.
pub(super) struct AddressField<T> {
    /// The starts of the classes; the first is 0.
    starts: Tree<T>,
    rows: Box<[Row]>,
}

impl<T: Number> AddressField<T> {
    pub(super) fn build(asked: &[Option<Vec<(T, T)>>], rows: &mut RowBuilder) -> Option<AddressField<T>> {
        let (starts, rows): (Vec<T>, Vec<Row>) = classes(asked, rows)?.into_iter().unzip();
        Some(AddressField { starts: Tree::over(starts), rows: rows.into() })
    }

    #[inline]
    pub(super) fn row(&self, address: T) -> Row {
        self.rows[self.starts.find(address).unwrap_or_default()]
    }
}

fn widen<T: Copy, W>(ranges: &[(T, T)], to: impl Fn(T) -> W) -> Vec<(W, W)> {
    ranges.iter().map(|(first, last)| (to(*first), to(*last))).collect()
}

/// The start and the row of each class, in order, the first start at 0. `None` if the rows take too much memory.
fn classes<T: Number>(asked: &[Option<Vec<(T, T)>>], rows: &mut RowBuilder) -> Option<Vec<(T, Row)>> {
    // The addresses where a rule's bit is set or cleared.
    let mut changes = Vec::new();
    for (rule, ranges) in asked.iter().enumerate() {
        for (first, last) in joined(ranges.as_deref().unwrap_or_default()) {
            changes.push((first, rule, true));
            changes.extend(last.next().map(|behind| (behind, rule, false)));
        }
    }
    changes.sort_unstable();
    let mut bits = rows.bits(asked.iter().map(Option::is_none));
    let mut classes = Vec::new();
    let mut changes = changes.into_iter().peekable();
    let mut start = T::default();
    loop {
        while let Some((_, rule, set)) = changes.next_if(|(at, ..)| *at == start) {
            bits.set(rule, set);
        }
        classes.push((start, rows.insert(&bits)?));
        match changes.peek() {
            Some((next, ..)) => start = *next,
            None => return Some(classes),
        }
    }
}

/// The same numbers in separate ranges, so that no range ends within another.
fn joined<T: Number>(ranges: &[(T, T)]) -> Vec<(T, T)> {
    let mut sorted: Vec<(T, T)> = ranges.iter().copied().filter(|(first, last)| first <= last).collect();
    sorted.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::new();
    for (first, last) in sorted {
        match joined.last_mut() {
            Some((_, end)) if end.next().is_none_or(|behind| first <= behind) => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}
