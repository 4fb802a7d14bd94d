//! `/ip firewall layer7-protocol`: parses the words of an `add` into a [`Layer7Pattern`].
//!
//! Owns the table of properties. A pattern is valid only if its expression parses with the meaning of
//! [`crate::layer7`].

use std::ops::Range;

use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property, read_text, set};
use super::spans::SourceSpans;
use super::value::{self, Parsed};
use crate::layer7;
use crate::rule::Layer7Pattern;

type Row = Property<Draft>;

/// Every property RouterOS has for this menu. Source: RouterOS manual, Layer7.
#[rustfmt::skip] // As the table of `filter`.
pub(super) const PROPERTIES: &[Row] = &[
    Row::fixed("comment", |pattern, value| set(&mut pattern.comment, Ok(value::comment(value))))
        .says("Free text.", "text", "the first knock"),
    Row::fixed("name", |pattern, value| read_text(&mut pattern.name, value, value::pattern_name))
        .says("Its name in `layer7-protocol` of a rule; unique.", "name", "knock1"),
    Row::fixed("regexp", |pattern, value| set(&mut pattern.regexp, regexp(value)))
        .says("The regular expression; it is matched against the beginning of the connection, without NULs and ignoring case.",
            "expression", "^secret$")
        .differs("Expressions are those of Rust's `regex`, which takes linear time and has no back-references."),
    Row::unsupported("copy-from"),
];

/// A pattern while its words are parsed.
#[derive(Debug, Default)]
pub(super) struct Draft {
    comment: Option<String>,
    name: Option<String>,
    regexp: Option<String>,
}

/// The result of an `add`, with all parts that could be parsed: rules may reference a refused pattern.
#[derive(Debug)]
pub(super) struct PatternDraft {
    /// The pattern; `None` if it has errors.
    pub(super) pattern: Option<Layer7Pattern>,
    /// The pattern's name and its position.
    pub(super) name: Option<(String, Range<usize>)>,
    /// The positions of the pattern's properties.
    pub(super) spans: SourceSpans,
}

/// Parses one `add`.
pub(super) fn read(add: &Add<'_>, problems: &mut Problems) -> PatternDraft {
    let before = problems.count();
    let mut draft = Draft::default();
    let given = property::read(PROPERTIES, None, add, &mut draft, problems);
    for (name, example) in [("name", "`name=knock1`"), ("regexp", "`regexp=\"^secret\\$\"`")] {
        if given.is_missing(name) {
            let complaint = Complaint::new(format!("the pattern has no `{name}`"))
                .expected(format!("`{name}=`"))
                .help(format!("add it, as in {example}; a line that continues in the next one ends with `\\`"));
            problems.add(add.verb.clone(), complaint);
        }
    }
    let name = draft.name.clone().zip(given.read("name"));
    let complete = given.complete && problems.count() == before;
    let pattern = draft.name.zip(draft.regexp).filter(|_| complete).map(|(name, regexp)| Layer7Pattern {
        name,
        regexp,
        comment: draft.comment.unwrap_or_default(),
        line: add.line,
    });
    PatternDraft { pattern, name, spans: given.spans(add.verb.clone()) }
}

/// The expression, if it parses.
fn regexp(value: &[u8]) -> Parsed<String> {
    let regexp = value::regexp(value)?;
    match layer7::parse(&regexp) {
        Ok(_) => Ok(regexp),
        Err(error) => {
            // The library's message has several lines. The last one contains the error.
            let reason = error.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            Err(Complaint::new(format!("the pattern does not parse: {}", show(reason.as_bytes())))
                .expected("a regular expression such as `\"^secret\\$\"`")
                .help("a literal bracket or operator is written with `\\\\` before it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;

    #[test]
    fn expressions_are_unquoted_once() {
        let text = b"/ip firewall layer7-protocol\n\
            add name=a regexp=\"^supersecretpassword1\\$\"\n\
            add name=b regexp=\"^\\\\x13.\\\\\\?\\E1\\$\" comment=\"caf\xE9\"\n\
            add name=c regexp=^[a-z]+\n\
            add name=d regexp=plain\n";
        let reading = read(text);
        let patterns: Vec<_> = reading.rules.layer7.iter().map(|pattern| (&*pattern.name, &*pattern.regexp)).collect();
        assert_eq!(patterns, [("a", "^supersecretpassword1$"), ("b", "^\\x13.\\?\\xE1$"), ("d", "plain")]);
        assert_eq!(reading.rules.layer7[1].comment, "caf\\E9");
        assert_eq!(reading.problems.len(), 1);
    }

    #[test]
    fn what_a_pattern_needs() {
        let one = |words: &str| {
            let reading = read(format!("/ip firewall layer7-protocol add {words}").as_bytes());
            assert_eq!((reading.problems.len(), reading.rules.layer7.len()), (1, 0), "{words}: {reading:?}");
        };
        one("name=a");
        one("regexp=a");
        one("name=a regexp=\"\"");
        one("name=a regexp=\"a(\"");
        one("name=a regexp=\"a\\00\"");
        one("name=a regexp=\"^a$\"");
        one("name=a regexp=a disabled=no");
        one("name=a regexp=a name=b");
    }
}
