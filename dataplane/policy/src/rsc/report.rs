//! Renders findings in the form of the Rust compiler's messages.
//!
//! The file may have any encoding and size. A byte that is not UTF-8 is shown as `�`, so that columns are right. The
//! renderer receives only the lines of a finding. Findings after the first [`MOST_PICTURES`], and findings on very long
//! lines, are shown in one line.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::finding::{Also, Finding, Severity};
use super::problem::{Problem, char_length, line_end};

/// Maximum number of findings that are shown with their text.
const MOST_PICTURES: usize = 200;

/// Maximum length of the text that is shown for a finding, in bytes.
const LONGEST_PICTURE: usize = 8 * 1024;

/// The problems of a file for a terminal: position, text, expected form, remedy. Empty if there are none.
pub fn report(problems: &[Problem], file: &str, text: &[u8], color: bool) -> String {
    let findings: Vec<Finding> =
        problems.iter().map(|problem| Finding { file: file.to_owned(), ..problem.clone().into() }).collect();
    let mut report = pictures(&findings, text, color);
    if !problems.is_empty() {
        let plural = if problems.len() == 1 { "" } else { "s" };
        let _ = writeln!(report, "{file}: {} problem{plural}; nothing of this file is used", problems.len());
    }
    report
}

/// The findings about a file, for a terminal.
pub fn pictures(findings: &[Finding], text: &[u8], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut lines = Lines { text, line: 0, seen: 0 };
    let mut report = String::new();
    for (index, finding) in findings.iter().enumerate() {
        let picture = (index < MOST_PICTURES).then(|| lines.around(&finding.span)).flatten();
        match picture {
            Some(picture) => {
                let also = finding.also.as_ref().and_then(|also| Some((also, lines.around(&also.span)?)));
                report.push_str(&renderer.render(&[group(finding, &picture, also.as_ref())]));
                report.push_str("\n\n");
            }
            None => one_line(&mut report, finding),
        }
    }
    report
}

fn group<'a>(finding: &'a Finding, picture: &'a Picture, also: Option<&'a (&Also, Picture)>) -> Group<'a> {
    let annotation = AnnotationKind::Primary.span(picture.span.clone());
    let annotation = match &finding.expected {
        Some(expected) => annotation.label(format!("expected {expected}")),
        None => annotation,
    };
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(titled(finding)).id(finding.code);
    let mut group = title.element(snippet(finding, finding.line, picture, annotation));
    if let Some((also, picture)) = also {
        let annotation = AnnotationKind::Context.span(picture.span.clone()).label(&also.what);
        group = group.element(snippet(finding, also.line, picture, annotation));
    }
    match &finding.remedy {
        Some(remedy) => group.element(Level::HELP.message(remedy)),
        None => group,
    }
}

/// The message and the rule.
fn titled(finding: &Finding) -> String {
    match finding.rule {
        Some(rule) => format!("{rule}: {}", finding.message),
        None => finding.message.clone(),
    }
}

fn snippet<'a>(
    finding: &'a Finding,
    line: u32,
    picture: &'a Picture,
    annotation: Annotation<'a>,
) -> Snippet<'a, Annotation<'a>> {
    Snippet::source(&picture.source).path(&finding.file).line_start(line as usize).fold(false).annotation(annotation)
}

fn one_line(report: &mut String, finding: &Finding) {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Finding { file, line, column, code, .. } = finding;
    let message = titled(finding);
    let _ = write!(report, "{severity}[{code}]: {file}:{line}:{column}: {message}");
    if let Some(expected) = &finding.expected {
        let _ = write!(report, "; expected {expected}");
    }
    if let Some(remedy) = &finding.remedy {
        let _ = write!(report, "; {remedy}");
    }
    report.push('\n');
}

/// Lines of the file in the form of the renderer: UTF-8, ended by LF.
struct Picture {
    source: String,
    span: Range<usize>,
}

/// Finds lines. Findings are sorted, so the search moves forward. For related positions it starts again.
struct Lines<'a> {
    text: &'a [u8],
    /// The begin of a line.
    line: usize,
    /// The position up to which no line end was found.
    seen: usize,
}

impl Lines<'_> {
    /// The lines of a span; `None` if they are too long.
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

    /// Moves to the line that contains the offset.
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
