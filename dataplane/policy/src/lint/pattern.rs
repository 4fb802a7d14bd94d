//! Layer-7 patterns that match every payload.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::view::View;
use super::{Code, Lint, Subject};
use crate::layer7;
use crate::rule::{Condition, Layer7Pattern, Rule};

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    for pattern in &view.rules.layer7 {
        let Some(rule) = view.live().map(|(rule, _)| rule).find(|rule| asks_for(rule, &pattern.name)) else { continue };
        if layer7::parse(&pattern.regexp).is_ok_and(|hir| matches_everything(&hir)) {
            lints.push(anything(pattern, rule));
        }
    }
}

fn asks_for(rule: &Rule, name: &str) -> bool {
    rule.matchers.iter().any(|matcher| matches!(&matcher.condition, Condition::Layer7(asked) if asked == name))
}

fn anything(pattern: &Layer7Pattern, rule: &Rule) -> Lint {
    let sentence =
        format!("every payload matches the expression of `{}`, even an empty one, so it has no effect", pattern.name);
    Lint {
        code: Code::MatchesAnything,
        subject: Subject::Pattern(pattern.name.clone()),
        line: pattern.line,
        property: Some("regexp".to_owned()),
        sentence,
        remedy: "write the required text, between `^` and `\\$` for the whole payload".to_owned(),
        also: None,
    }
    .also(rule, "this matches it")
}

/// Whether every text certainly matches: the expression matches the empty text at the beginning or the end, or the
/// whole text.
fn matches_everything(expression: &Hir) -> bool {
    let nothing_at = |look| is_content_with_nothing(expression, look);
    nothing_at(Look::Start) || nothing_at(Look::End) || takes_all(expression)
}

/// Whether the expression matches the empty text at a position where only this look-around is certainly true.
fn is_content_with_nothing(expression: &Hir, at: Look) -> bool {
    let content = |part: &Hir| is_content_with_nothing(part, at);
    match expression.kind() {
        HirKind::Empty => true,
        HirKind::Look(look) => *look == at,
        HirKind::Repetition(repetition) => repetition.min == 0 || content(&repetition.sub),
        HirKind::Capture(capture) => content(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(content),
        HirKind::Alternation(parts) => parts.iter().any(content),
        HirKind::Literal(_) | HirKind::Class(_) => false,
    }
}

/// Whether the expression matches any text from one end to the other, as `^.*$` does.
fn takes_all(expression: &Hir) -> bool {
    match expression.kind() {
        HirKind::Capture(capture) => takes_all(&capture.sub),
        HirKind::Alternation(parts) => parts.iter().any(takes_all),
        HirKind::Repetition(repetition) => {
            repetition.min == 0 && repetition.max.is_none() && is_any_byte(&repetition.sub)
        }
        HirKind::Concat(parts) => parts.iter().enumerate().any(|(place, part)| {
            let before = parts[..place].iter().all(|part| is_content_with_nothing(part, Look::Start));
            let behind = parts[place + 1..].iter().all(|part| is_content_with_nothing(part, Look::End));
            takes_all(part) && before && behind
        }),
        _ => false,
    }
}

/// Whether the expression matches any byte. NULs do not count, because they are removed before.
fn is_any_byte(expression: &Hir) -> bool {
    match expression.kind() {
        HirKind::Class(Class::Bytes(class)) => {
            class.ranges().iter().any(|range| range.start() <= 1 && range.end() == u8::MAX)
        }
        HirKind::Capture(capture) => is_any_byte(&capture.sub),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_match_every_payload() {
        let of = |regexp: &str| matches_everything(&layer7::parse(regexp).unwrap());
        for regexp in [
            "",
            ".*",
            "^.*$",
            "^",
            "$",
            "a*",
            "^a*",
            "(secret)?",
            "secret|",
            "^(.*)$",
            "^(?:a|.*)$",
            ".*$",
            "^a?.*b?$",
            "^[^\\x00]*$",
        ] {
            assert!(of(regexp), "{regexp}");
            for payload in [&b""[..], b"x", b"\r\n\xff"] {
                assert!(layer7::matches(regexp, payload), "{regexp}");
            }
        }
        for regexp in
            ["secret", "^secret$", "^$", "^a*$", ".", ".+", "^.*x$", "a.*", "\\b", "^[^\\n]*$", "^.{0,9}$", "$a|b"]
        {
            assert!(!of(regexp), "{regexp}");
        }
    }
}
