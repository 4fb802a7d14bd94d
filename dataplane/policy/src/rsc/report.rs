//! Problems as people read them, in the form of the Rust compiler's messages.
//!
//! Owns the rendering only. The file may be in any encoding and of any size: what is not UTF-8 is shown as `�`, one
//! for each byte so that columns stay true, and only the lines that a problem is about are handed to the renderer.
//! Problems beyond the first [`MOST_PICTURES`], and those on lines that no screen could hold, are told in one line.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::problem::{Problem, char_length, line_end};

/// How many problems are shown with the text they are about. Who has more looks at the first ones first.
const MOST_PICTURES: usize = 200;

/// The longest text, in bytes, that is shown for a problem.
const LONGEST_PICTURE: usize = 8 * 1024;

/// The problems of a file, for a terminal: place, text, what was expected, what to do. Empty if there are none.
pub fn report(problems: &[Problem], file: &str, text: &[u8], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut lines = Lines { text, line: 0, seen: 0 };
    let mut report = String::new();
    for (index, problem) in problems.iter().enumerate() {
        let picture = (index < MOST_PICTURES).then(|| lines.around(&problem.span)).flatten();
        match picture {
            Some(picture) => {
                report.push_str(&renderer.render(&[group(problem, file, &picture)]));
                report.push_str("\n\n");
            }
            None => one_line(&mut report, problem, file),
        }
    }
    if !problems.is_empty() {
        let plural = if problems.len() == 1 { "" } else { "s" };
        let _ = writeln!(report, "{file}: {} problem{plural}; nothing of this file is used", problems.len());
    }
    report
}

fn group<'a>(problem: &'a Problem, file: &'a str, picture: &'a Picture) -> Group<'a> {
    let annotation = AnnotationKind::Primary.span(picture.span.clone());
    let annotation = match &problem.expected {
        Some(expected) => annotation.label(format!("expected {expected}")),
        None => annotation,
    };
    let snippet = Snippet::source(&picture.source)
        .path(file)
        .line_start(problem.line as usize)
        .fold(false)
        .annotation(annotation);
    let group = Level::ERROR.primary_title(&problem.message).element(snippet);
    match &problem.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}

fn one_line(report: &mut String, problem: &Problem, file: &str) {
    let _ = write!(report, "error: {file}:{}:{}: {}", problem.line, problem.column, problem.message);
    if let Some(expected) = &problem.expected {
        let _ = write!(report, "; expected {expected}");
    }
    if let Some(help) = &problem.help {
        let _ = write!(report, "; {help}");
    }
    report.push('\n');
}

/// Some lines of the file as the renderer takes them: UTF-8, ended by LF.
struct Picture {
    source: String,
    span: Range<usize>,
}

/// Finds lines. Problems come in the file's order, so it goes forward.
struct Lines<'a> {
    text: &'a [u8],
    /// Where a line begins.
    line: usize,
    /// Up to where it has no end.
    seen: usize,
}

impl Lines<'_> {
    /// The lines a span touches; nothing if they are too long.
    fn around(&mut self, span: &Range<usize>) -> Option<Picture> {
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        self.find_line(start);
        let mut picture = Picture { source: String::new(), span: 0..0 };
        let mut at = self.line;
        let mut ended = None;
        while let Some(rest) = self.text.get(at..).filter(|rest| !rest.is_empty()) {
            if picture.source.len() > LONGEST_PICTURE {
                return None;
            }
            if at <= start {
                picture.span.start = picture.source.len();
            }
            if at >= end && ended.is_none() {
                ended = Some(picture.source.len());
            }
            let ends = line_end(rest);
            if ends > 0 && at + ends > end {
                break;
            }
            let length = if ends > 0 { ends } else { char_length(rest) };
            match std::str::from_utf8(&rest[..length]) {
                _ if ends > 0 => picture.source.push('\n'),
                Ok(char) => picture.source.push_str(char),
                Err(_) => picture.source.push(char::REPLACEMENT_CHARACTER),
            }
            at += length;
        }
        if at <= start {
            picture.span.start = picture.source.len();
        }
        picture.span.end = ended.unwrap_or(picture.source.len()).max(picture.span.start);
        Some(picture)
    }

    /// Goes to the line that holds the offset.
    fn find_line(&mut self, offset: usize) {
        if offset < self.line {
            (self.line, self.seen) = (0, 0);
        }
        while self.seen < offset {
            let ends = line_end(&self.text[self.seen..]);
            if self.seen + ends > offset {
                break;
            }
            self.seen += ends.max(1);
            if ends > 0 {
                self.line = self.seen;
            }
        }
    }
}
