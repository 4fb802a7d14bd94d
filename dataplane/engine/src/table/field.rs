//! One field of a packet, and the rules that each of its values leaves.
//!
//! A field's values fall into classes: within a class every rule that asks for the field gives the same answer. A class
//! has a row: a bit for each rule that its values do not rule out. Rules that do not ask for the field are in every row.

use hashbrown::HashMap;

use super::rows::{Row, RowBuilder};
use crate::state::range_tree::{Number, Tree};

/// What a rule asks of a field: ranges, both ends included. None if it does not ask.
pub(super) type Asked<'r, T> = Option<&'r [(T, T)]>;

/// The rows of a field of 16 bits: two loads, whatever the rules say.
pub(super) struct PortField {
    /// By the upper byte: where its page begins in `rows`.
    pages: Box<[u32; 256]>,
    /// By page and lower byte.
    rows: Box<[Row]>,
    /// Of packets without ports.
    none: Row,
}

impl PortField {
    /// `asked` yields what each rule asks, in order.
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
    /// Where classes begin; the first at 0.
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

/// Where each class begins, in order, the first at 0, and its row. None if that takes too much memory.
fn classes<T: Number>(asked: &[Option<Vec<(T, T)>>], rows: &mut RowBuilder) -> Option<Vec<(T, Row)>> {
    // Where a rule's bit is set, and where it is cleared.
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

/// The same numbers in ranges that are apart, so that none ends within another.
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
