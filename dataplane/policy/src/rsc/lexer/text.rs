//! The text of a name or a value without quotes; each byte has its position in the file.

use std::ops::Range;

/// The text of a name or value, and the position of each byte.
#[derive(Clone, Debug, Default)]
pub(in crate::rsc) struct Text {
    pub(in crate::rsc) bytes: Vec<u8>,
    /// The position of the first byte. The next bytes follow it in the file, up to the first run of `runs`.
    origin: usize,
    /// Index and position of the first byte of each further run, after an escape or a joined line. Most texts have
    /// none.
    runs: Vec<(usize, usize)>,
    /// The bytes in the file, including quotes.
    pub(in crate::rsc) span: Range<usize>,
    pub(super) quotes: Quotes,
}

/// The quotes of a word: they enclose the whole word, or there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Quotes {
    #[default]
    None,
    Around,
    /// Neither of the two; a flaw reports it.
    Spoiled,
}

impl Text {
    /// An empty text at this position.
    pub(super) fn at(place: usize) -> Text {
        Text { span: place..place, ..Text::default() }
    }

    /// A generated text in place of the bytes at `span`.
    pub(in crate::rsc) fn made(bytes: &[u8], span: Range<usize>) -> Text {
        Text { bytes: bytes.to_vec(), origin: usize::MAX, span, quotes: Quotes::Spoiled, ..Text::default() }
    }

    /// The position of a part of the bytes.
    pub(in crate::rsc) fn part(&self, part: Range<usize>) -> Range<usize> {
        match (self.origin(part.start), part.end.checked_sub(1).and_then(|last| self.origin(last))) {
            (Some(first), Some(last)) if first <= last => first..last + 1,
            _ => self.span.clone(),
        }
    }

    fn origin(&self, index: usize) -> Option<usize> {
        let (first, origin) = match self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1) {
            Some(run) => self.runs[run],
            None => (0, self.origin),
        };
        // A generated text has no positions for its bytes.
        let known = index < self.bytes.len() && self.span.contains(&origin);
        known.then(|| origin + (index - first))
    }

    pub(super) fn push(&mut self, byte: u8, origin: usize) {
        self.push_all(&[byte], origin);
    }

    /// Adds bytes that are consecutive in the file.
    pub(super) fn push_all(&mut self, bytes: &[u8], origin: usize) {
        let (first, start) = self.runs.last().copied().unwrap_or((0, self.origin));
        if self.bytes.is_empty() {
            self.origin = origin;
        } else if start + (self.bytes.len() - first) != origin {
            self.runs.push((self.bytes.len(), origin));
        }
        self.bytes.extend_from_slice(bytes);
    }
}
