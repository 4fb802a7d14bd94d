//! What a name or a value says once unquoted, byte by byte traced back to the file.

use std::ops::Range;

/// What a name or a value says, and where each of its bytes came from.
#[derive(Clone, Debug, Default)]
pub(in crate::rsc) struct Text {
    pub(in crate::rsc) bytes: Vec<u8>,
    /// Where the first byte stands in the file. The others follow it…
    origin: usize,
    /// …up to where an escape or a joined line puts them out of step: index here, offset there, of the first byte of
    /// each further run. Most texts have none.
    runs: Vec<(usize, usize)>,
    /// With the quotes, if there are any.
    pub(in crate::rsc) span: Range<usize>,
    pub(super) quotes: Quotes,
}

/// Where a word stands towards its quotes: they go around the whole of it or it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Quotes {
    #[default]
    None,
    Around,
    /// Neither, which was said once already.
    Spoiled,
}

impl Text {
    /// A text that begins here and says nothing yet.
    pub(super) fn at(place: usize) -> Text {
        Text { span: place..place, ..Text::default() }
    }

    /// A text that stands in no file, on behalf of what stands at `span`.
    pub(in crate::rsc) fn made(bytes: &[u8], span: Range<usize>) -> Text {
        Text { bytes: bytes.to_vec(), origin: usize::MAX, span, quotes: Quotes::Spoiled, ..Text::default() }
    }

    /// Where a part of the bytes stands in the file.
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
        // What was made did not come from the file.
        let known = index < self.bytes.len() && self.span.contains(&origin);
        known.then(|| origin + (index - first))
    }

    pub(super) fn push(&mut self, byte: u8, origin: usize) {
        self.push_all(&[byte], origin);
    }

    /// Bytes that follow one another in the file as well.
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
