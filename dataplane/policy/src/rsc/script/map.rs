//! The expansion of a script, and the positions of its bytes in the file.

use std::collections::HashSet;
use std::ops::Range;

use super::super::problem::{Complaint, Problems, line_end};

/// Bytes of the text with one origin.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The position of the bytes in the text.
    at: usize,
    /// The position and length of their origin in the file.
    source: usize,
    length: usize,
    /// Whether the bytes are a copy of the file instead of a value.
    copied: bool,
    /// Index of the note with the values of the loops around them.
    note: usize,
}

/// The expansion of a script.
#[derive(Debug)]
pub(in crate::rsc) struct Expansion {
    /// The commands.
    pub(in crate::rsc) text: Vec<u8>,
    pieces: Vec<Piece>,
    notes: Vec<String>,
    /// The reasons that parts of the text still contain variables, each with the position in the text and in the file.
    /// There is no complaint if the reason was reported at the assignment of the variable.
    reasons: Vec<(Range<usize>, Range<usize>, Option<Complaint>)>,
    /// The positions of the file's lines.
    lines: Vec<usize>,
    /// Problems of the script, by positions in the file.
    pub(in crate::rsc) problems: Problems,
    /// Ignored statements of the script.
    pub(in crate::rsc) warnings: Problems,
}

impl Expansion {
    pub(super) fn new(file: &[u8]) -> Expansion {
        let mut lines = vec![0];
        let mut at = 0;
        while at < file.len() {
            let ends = line_end(&file[at..]);
            at += ends.max(1);
            if ends > 0 {
                lines.push(at);
            }
        }
        Expansion {
            text: Vec::new(),
            pieces: Vec::new(),
            notes: vec![String::new()],
            reasons: Vec::new(),
            lines,
            problems: Problems::default(),
            warnings: Problems::default(),
        }
    }

    /// Sets the values of the loops for the following text.
    pub(super) fn note(&mut self, note: String) {
        if self.notes.last() != Some(&note) {
            self.notes.push(note);
        }
    }

    /// Adds bytes of the file.
    pub(super) fn copy(&mut self, file: &[u8], span: Range<usize>) {
        self.piece(span.start, span.len(), true);
        self.text.extend_from_slice(&file[span]);
    }

    /// Adds bytes in place of those of the file.
    pub(super) fn put(&mut self, bytes: &[u8], span: Range<usize>) {
        self.piece(span.start, span.len(), false);
        self.text.extend_from_slice(bytes);
    }

    fn piece(&mut self, source: usize, length: usize, copied: bool) {
        self.pieces.push(Piece { at: self.text.len(), source, length, copied, note: self.notes.len() - 1 });
    }

    /// Replaces the text from `start` on by the bytes of the file, because it could not be evaluated, and stores the
    /// reason.
    pub(super) fn give_up(
        &mut self,
        start: usize,
        file: &[u8],
        span: Range<usize>,
        why: Option<(Range<usize>, Complaint)>,
    ) {
        self.text.truncate(start);
        self.pieces.truncate(self.pieces.partition_point(|piece| piece.at < start));
        self.copy(file, span.clone());
        let (place, complaint) = why.map_or((span, None), |(place, complaint)| (place, Some(complaint)));
        self.reasons.push((start..self.text.len(), place, complaint));
    }

    fn piece_of(&self, at: usize) -> Option<&Piece> {
        self.pieces.partition_point(|piece| piece.at <= at).checked_sub(1).map(|index| &self.pieces[index])
    }

    /// The position of a part of the text in the file.
    pub(in crate::rsc) fn source(&self, span: &Range<usize>) -> Range<usize> {
        let Some(first) = self.piece_of(span.start) else { return 0..0 };
        let place = |piece: &Piece, at: usize| if piece.copied { (at - piece.at).min(piece.length) } else { 0 };
        let start = first.source + place(first, span.start);
        if span.is_empty() {
            return start..start;
        }
        let last = self.piece_of(span.end - 1).unwrap_or(first);
        let end = if last.copied { place(last, span.end - 1) + 1 } else { last.length };
        let end = last.source + end.min(last.length);
        start..end.max(start)
    }

    /// The line of the file for a position of the text, from 1.
    pub(in crate::rsc) fn line(&self, at: usize) -> u32 {
        let source = self.source(&(at..at)).start;
        u32::try_from(self.lines.partition_point(|line| *line <= source)).unwrap_or(u32::MAX)
    }

    /// The reason that the text is unchanged at a position where a value is expected: the position in the text, and the
    /// complaint, if it was not reported elsewhere.
    pub(in crate::rsc) fn why(&self, at: usize) -> Option<(Range<usize>, Option<Complaint>)> {
        let after = self.reasons.partition_point(|(text, ..)| text.start <= at);
        let (text, _, complaint) = self.reasons[..after].last().filter(|(text, ..)| text.contains(&at))?;
        Some((text.clone(), complaint.clone()))
    }

    /// Maps problems from the text to the file, each with the values of the loops around it. Equal problems at the same
    /// position are reported once.
    pub(in crate::rsc) fn locate(&self, problems: Problems) -> Problems {
        let mut told = HashSet::new();
        problems.map(|(span, complaint)| {
            let after = self.reasons.partition_point(|(text, ..)| text.start <= span.start);
            let reason =
                self.reasons[..after].last().filter(|(text, _, why)| *text == span && why.as_ref() == Some(&complaint));
            let source = reason.map_or_else(|| self.source(&span), |(_, source, _)| source.clone());
            if !told.insert((source.clone(), complaint.clone())) {
                return None;
            }
            let note = self.piece_of(span.start).map_or("", |piece| &self.notes[piece.note]);
            Some((source, complaint.with_note(note)))
        })
    }
}
